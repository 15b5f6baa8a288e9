"""The long-short book that the scores are tried on, and its costs."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from stockpicker_dagster.strategy_form.base import Form, Misfit

if TYPE_CHECKING:
    from stockpicker_dagster.research.backtest.engine import Rules


class BacktestForm(Form):
    """The long-short book that the scores are tried on; costs are in basis points (1 bps = 0.01 %)."""

    long: float = Field(10, gt=0, description="Stocks held long: a number, or a fraction of the universe below 1.")
    short: float = Field(10, ge=0, description="Stocks held short: a number, a fraction below 1, or 0 for none.")
    weights: Literal["equal", "score", "rank", "volatility"] = Field(
        "equal",
        description="Within a leg: equal; in proportion to the distance from the median score, or from the middle "
        "rank; or inverse to the volatility of the last 60 sessions.",
    )
    rebalance: Literal["daily", "weekly", "monthly"] | int = Field(
        "weekly",
        description="How often the book is decided anew, after a close, to be traded in the next session: daily, "
        "weekly, monthly, or every so many sessions (2 to 252).",
    )
    rebalance_offset: int | None = Field(
        None,
        ge=0,
        le=251,
        description="weekly: weekday of the decision, 0 = Monday (default 4); monthly: sessions before the month's "
        "last, 0 to 20 (default 0); every k sessions: which of them, 0 to k - 1 (default 0).",
    )
    hold_band: float = Field(
        1.0,
        ge=1,
        le=100,
        description="A held stock stays in its leg while it ranks within so many times the leg's size; 1: no band.",
    )
    sleeves: int = Field(
        1,
        ge=1,
        le=252,
        description="Overlapping parts of the book: each decision renews the oldest of so many equal ones.",
    )
    neutral: Literal["dollar", "beta", "sector", "exposures"] = Field(
        "dollar",
        description="What the target balances: both legs' money, their betas of the last 252 sessions, their money "
        "within every sector, or all of `exposures`.",
    )
    exposures: list[str] = Field(
        default_factory=list,
        max_length=20,
        description="With neutral `exposures`: `market` (beta), `sector`, and features of the strategy, as scaled; the "
        "weights change as little as it takes for nothing to be left of any.",
    )
    volatility_target: float | None = Field(
        None,
        gt=0,
        le=2,
        description="Standard deviation of a year's return above which the target is scaled down, by its own last 60 "
        "sessions; `gross` stays the ceiling (default: no target).",
    )
    gross: float | None = Field(
        None, gt=0, le=10, description="Long plus short, as a multiple of equity (default: 1 for each leg)."
    )
    max_weight: float | None = Field(
        None, gt=0, le=10, description="Largest target of one stock, as a fraction of equity (default: none)."
    )
    fill: Literal["open", "close", "vwap_proxy"] = Field(
        "open",
        description="The next session's price at which the back-test trades: open, close, or vwap_proxy, the mean of "
        "open, high, low and close.",
    )
    commission_bps: float = Field(1.0, ge=0, le=1000, description="Commission, bps of the traded amount.")
    commission_per_share: float = Field(
        0.0, ge=0, le=100, description="Commission, currency per share; needs prices as traded."
    )
    spread_bps: float = Field(
        5.0, ge=0, le=1000, description="Quoted spread, bps of the price; half is paid on each trade."
    )
    impact_coefficient: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Market impact: coefficient x daily volatility x sqrt(traded amount / daily dollar volume) of the "
        "traded amount; 0 is none, about 1 is usual.",
    )
    borrow_bps_per_year: float = Field(50.0, ge=0, le=100_000, description="Fee on the value held short, bps per year.")
    hard_to_borrow_bps_per_year: float | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="The fee for stocks that are hard to borrow, those that trade little (default: one fee for all).",
    )
    borrow_bps_by_name: dict[str, float] = Field(
        default_factory=dict,
        description="The fee of single stocks, bps per year by symbol, before any other.",
    )
    hard_to_borrow_below: float = Field(
        5_000_000.0,
        gt=0,
        description="Daily dollar volume, mean of 20 sessions, below which a stock is hard to borrow.",
    )
    cash_interest_bps_per_year: float = Field(
        0.0, ge=0, le=100_000, description="Interest on cash, bps per year: received if positive, paid if negative."
    )
    short_interest_bps_per_year: float | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Interest on the proceeds of shorts, bps per year (default: that on cash).",
    )
    capital: float = Field(1_000_000.0, gt=0, description="Equity at the start, in currency.")
    simulations: int = Field(1000, ge=1, le=100_000, description="Random books that the strategy is compared with.")
    seed: int = Field(0, ge=0, description="Fixes the random books.")

    @field_validator("long", "short")
    @classmethod
    def _names_or_fraction(cls, value: float) -> int | float:
        if value >= 1 and value != int(value):
            raise ValueError(f"{value} is neither a number of stocks nor a fraction below 1; write {int(value)} or 0.3")
        return int(value) if value >= 1 or value == 0 else float(value)

    @field_validator("exposures")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError(f"exposures {value} name one thing twice; name each once")
        return value

    @field_validator("borrow_bps_by_name")
    @classmethod
    def _fees(cls, value: dict[str, float]) -> dict[str, float]:
        for symbol, fee in value.items():
            if not 0 <= fee <= 1_000_000:
                raise ValueError(f"the fee of {symbol} is {fee}; give 0 to 1000000 bps per year")
        return value

    @field_validator("rebalance", mode="before")
    @classmethod
    def _word_or_sessions(cls, value: object) -> object:
        if value in ("daily", "weekly", "monthly") or (isinstance(value, int) and 2 <= value <= 252):
            return value
        raise ValueError(
            f"{value!r} is not allowed; allowed: 'daily', 'weekly', 'monthly', or a number of sessions from 2 to 252"
        )

    def rules(self) -> "Rules":
        """The same as the back-test takes it."""
        from stockpicker_dagster.research.backtest.engine import Rules

        own = self.model_dump(exclude={"simulations", "seed", "borrow_bps_by_name", "exposures"})
        return Rules(**own, exposures=tuple(self.exposures))

    def _agree(self) -> None:
        if 0 < self.long < 1 and 0 < self.short < 1 and self.long + self.short > 1:
            raise Misfit(
                f"long {self.long} and short {self.short} overlap: together they are more than the universe; their sum "
                "may be at most 1",
                "short",
            )
        if self.neutral != "dollar" and self.short == 0:
            raise Misfit(f"neutral {self.neutral!r} needs stocks held short, and short is 0", "neutral")
        if (self.neutral == "exposures") != bool(self.exposures):
            raise Misfit(
                f"neutral {self.neutral!r} with exposures {self.exposures}: name at least one with neutral "
                "'exposures', such as [market, sector], and none with any other",
                "exposures" if self.exposures else "neutral",
            )
        if self.rebalance_offset is not None:
            self._check_offset(self.rebalance_offset)

    def _check_offset(self, offset: int) -> None:
        if self.rebalance == "daily":
            raise Misfit(
                f"rebalance_offset {offset} has no meaning when rebalance is daily; leave it out", "rebalance_offset"
            )
        if self.rebalance == "weekly" and offset > 4:
            raise Misfit(f"rebalance_offset {offset} is no weekday; 0 is Monday, 4 is Friday", "rebalance_offset")
        largest = self.rebalance - 1 if isinstance(self.rebalance, int) else 20
        if offset > largest:
            raise Misfit(f"rebalance_offset {offset} is too large; allowed: 0 to {largest}", "rebalance_offset")
