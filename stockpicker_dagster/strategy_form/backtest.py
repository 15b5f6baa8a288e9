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
    weights: Literal["equal", "score"] = Field(
        "equal", description="Equal within a leg, or in proportion to the distance from the median score."
    )
    rebalance: Literal["daily", "weekly", "monthly"] = Field(
        "weekly", description="How often the book is decided anew, after a close, to be traded at the next open."
    )
    rebalance_offset: int | None = Field(
        None,
        ge=0,
        le=20,
        description="weekly: weekday of the decision, 0 = Monday (default 4); monthly: sessions before the month's "
        "last (default 0).",
    )
    commission_bps: float = Field(1.0, ge=0, le=1000, description="Commission, bps of the traded amount.")
    spread_bps: float = Field(
        5.0, ge=0, le=1000, description="Quoted spread, bps of the price; half is paid on each trade."
    )
    borrow_bps_per_year: float = Field(50.0, ge=0, le=100_000, description="Fee on the value held short, bps per year.")
    capital: float = Field(1_000_000.0, gt=0, description="Equity at the start, in currency.")
    simulations: int = Field(1000, ge=1, le=100_000, description="Random books that the strategy is compared with.")
    seed: int = Field(0, ge=0, description="Fixes the random books.")

    @field_validator("long", "short")
    @classmethod
    def _names_or_fraction(cls, value: float) -> int | float:
        if value >= 1 and value != int(value):
            raise ValueError(f"{value} is neither a number of stocks nor a fraction below 1; write {int(value)} or 0.3")
        return int(value) if value >= 1 or value == 0 else float(value)

    def rules(self) -> "Rules":
        """The same as the back-test takes it."""
        from stockpicker_dagster.research.backtest.engine import Rules

        return Rules(
            long=self.long,
            short=self.short,
            weights=self.weights,
            rebalance=self.rebalance,
            rebalance_offset=self.rebalance_offset,
            commission_bps=self.commission_bps,
            spread_bps=self.spread_bps,
            borrow_bps_per_year=self.borrow_bps_per_year,
            capital=self.capital,
        )

    def _agree(self) -> None:
        if 0 < self.long < 1 and 0 < self.short < 1 and self.long + self.short > 1:
            raise Misfit(
                f"long {self.long} and short {self.short} overlap: together they are more than the universe; their sum "
                "may be at most 1",
                "short",
            )
        if self.rebalance_offset is not None:
            if self.rebalance == "daily":
                raise Misfit(
                    f"rebalance_offset {self.rebalance_offset} has no meaning when rebalance is daily; leave it out",
                    "rebalance_offset",
                )
            if self.rebalance == "weekly" and self.rebalance_offset > 4:
                raise Misfit(
                    f"rebalance_offset {self.rebalance_offset} is no weekday; 0 is Monday, 4 is Friday",
                    "rebalance_offset",
                )
