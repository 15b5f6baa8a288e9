"""The form that a user fills to describe a strategy: one YAML file, validated before anything runs.

Plain Pydantic, no Dagster: the component, the command line and the console all validate with it. Every field says
what it means, in which unit, and what it is by default; every refusal is one sentence that names the value and what is
allowed. What is not offered here is not built.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.market.universes import Universe, from_file, from_symbols
from stockpicker_dagster.research.algorithms import algorithm, validate_hyperparameters
from stockpicker_dagster.research.features.declaration import FeatureSet, feature_set
from stockpicker_dagster.research.splits import Split, earliest_first_use, fixed_split, period_of, walk_forward_split

if TYPE_CHECKING:
    from stockpicker_dagster.research.backtest.engine import Rules

COMPONENT_TYPE = "stockpicker_dagster.components.StockPickerStrategy"
Period = Annotated[
    tuple[date, date],
    # Dagster makes a sample file from the schema and reads lists of one kind only.
    WithJsonSchema({"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 2, "maxItems": 2}),
]
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}|[^@\s]{1,64}@[^@\s]{1,190}")
CALENDAR = "XNYS"


class Misfit(ValueError):
    """Fields that are allowed by themselves do not fit together; the refusal is placed at `field`, or at the form."""

    def __init__(self, message: str, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class Form(BaseModel):
    """A part of the form: unknown fields are refused, and every refusal is one plain sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _speak_plainly(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        _refuse_booleans(cls, value)
        try:
            form = handler(value)
            form._agree()
        except ValidationError as error:
            plain = [_plain(cls, details) for details in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, plain) from None
        except Misfit as error:
            location = () if error.field is None else (error.field,)
            refused = _sentence(str(error), location, value)
            raise ValidationError.from_exception_data(cls.__name__, [refused]) from None
        return form

    def _agree(self) -> None:
        """Raises `Misfit` if fields that are allowed by themselves do not fit together."""


class UniverseForm(Form):
    """Which stocks are ranked: exactly one of `name`, `symbols` and `file`, narrowed by `sector` if given."""

    name: Literal["simulated"] | None = Field(
        None, description="A universe by name; `simulated` is every stock listed on the simulated market on the day."
    )
    symbols: list[str] | None = Field(
        None, description="A list of symbols, member on every day; chosen with today's knowledge."
    )
    file: Path | None = Field(
        None,
        description="A CSV or Parquet file of symbols, or of membership spells (`ticker`, `start_date`, `end_date`: "
        "the first day out, blank while a member); a relative path starts at the state folder.",
    )
    sector: str | None = Field(None, description="Only the members of this sector.")

    @field_validator("symbols")
    @classmethod
    def _enough_to_rank(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < 2:
            raise ValueError(f"the symbols {value} cannot be ranked against each other; give at least two")
        return value

    def _agree(self) -> None:
        given = [choice for choice in ("name", "symbols", "file") if getattr(self, choice) is not None]
        if len(given) != 1:
            raise Misfit(
                f"a universe is exactly one of name, symbols and file, and {' and '.join(given) or 'none'} was given"
            )
        if self.sector is not None and self.symbols is not None:
            raise Misfit(f"sector {self.sector!r} cannot narrow a list of symbols; list only its symbols", "sector")

    def build(self, source: PriceSource, through: date) -> Universe:
        """The universe as known after the close of `through`. Raises `InvalidInput` where its file cannot be read."""
        if self.symbols is not None:
            universe = from_symbols(self.symbols)
        elif self.file is not None:
            universe = from_file(under_home(self.file))
        else:
            universe = simulated_universe(source, through)
        return universe.restricted_to_sector(self.sector) if self.sector else universe


class PricesForm(Form):
    """Where prices come from. Strategies that name one source share its prices, and must agree on all its settings."""

    source: Literal["simulated", "files"] = Field(
        "simulated", description="`simulated`: an invented market, labelled so everywhere; `files`: your own files."
    )
    name: str | None = Field(None, description="The source's name in the lake; its kind by default.")
    start: date = Field(date(2020, 11, 2), description="First session kept.")
    path: Path | None = Field(
        None,
        description="For files: one Parquet or CSV file, or a folder of them; a relative path starts at the state "
        "folder.",
    )
    basis: Literal["as_traded", "split_adjusted"] | None = Field(
        None, description="For files: whether prices are as traded that day, or restated for later splits."
    )
    stocks: int = Field(100, ge=10, le=3000, description="For simulated: about how many stocks are listed at a time.")
    seed: int = Field(7, ge=0, description="For simulated: the number that fixes the whole market.")

    @field_validator("name")
    @classmethod
    def _name_fits(cls, value: str | None) -> str | None:
        if value is not None:
            check_name(value, "a price source")
        return value

    @field_validator("start")
    @classmethod
    def _start_is_a_session(cls, value: date) -> date:
        calendar = trading_calendar(CALENDAR)
        if not calendar.is_session(value):
            raise ValueError(f"start {value} is no session; the next one is {calendar.next_session(value)}")
        return value

    def _agree(self) -> None:
        if self.source == "files" and (self.path is None or self.basis is None):
            raise Misfit(
                "source files needs a path and a basis (as_traded, or split_adjusted as most downloads are), "
                f"and path is {str(self.path) if self.path else 'missing'!r}, basis is {self.basis or 'missing'!r}"
            )
        other, foreign = ("simulated", ("stocks", "seed")) if self.source == "files" else ("files", ("path", "basis"))
        for field in foreign:
            if field in self.model_fields_set and (given := getattr(self, field)) is not None:
                raise Misfit(
                    f"{field} {str(given)!r} belongs to source {other}, not to {self.source}; leave it out", field
                )

    @property
    def key(self) -> str:
        """The name under which the lake keeps this source."""
        return self.name or self.source

    @property
    def split_adjusted(self) -> bool:
        """Whether the price level knows later splits."""
        return self.basis == "split_adjusted"

    def build(self) -> PriceSource:
        """The source itself; a file is opened only when prices are asked for."""
        from stockpicker_dagster.market.sources.files import FilesSource
        from stockpicker_dagster.market.sources.simulated import simulated_market

        if self.source == "simulated":
            return simulated_market(self.key, self.start, self.stocks, self.seed)
        assert self.path is not None
        assert self.basis is not None
        return FilesSource(self.key, under_home(self.path), self.basis, self.start)


class FeaturesForm(Form):
    """What is computed from prices."""

    set: str = Field(
        "factors", description="A feature set by name; `factors` are the academic price-and-volume factors."
    )
    names: list[str] | None = Field(
        None, description="Only these features of the set; all of them by default.", min_length=1
    )

    @field_validator("set")
    @classmethod
    def _set_is_known(cls, value: str) -> str:
        feature_set(value)
        return value

    @field_validator("names")
    @classmethod
    def _names_are_known(cls, value: list[str] | None, others: ValidationInfo) -> list[str] | None:
        if value is not None and "set" in others.data:
            feature_set(others.data["set"]).select(value)
        return value


class LabelForm(Form):
    """What is learned: the return from the next open to one `horizon_days` sessions later, less the universe's mean."""

    horizon_days: int = Field(5, ge=1, le=252, description="Sessions between entry and exit.")
    transform: Literal["rank", "standard", "none"] = Field(
        "rank", description="Per date: ranks, standard scores, or the returns themselves."
    )
    winsorize: float | None = Field(
        None, gt=0, lt=0.5, description="Per date: quantile at which both tails are clipped."
    )

    @property
    def quantiles(self) -> tuple[float, float] | None:
        """Both quantiles at which tails are clipped."""
        return None if self.winsorize is None else (self.winsorize, 1 - self.winsorize)


class ScalingForm(Form):
    """How features are made comparable across the stocks of one date."""

    method: Literal["standard", "minmax", "rank", "robust"] = Field(
        "standard", description="The scaler, fitted on each date alone."
    )
    imputation: Literal["median", "neutral"] = Field(
        "median", description="What a missing value becomes: the date's median, or the scaler's neutral value."
    )
    winsorize: float | None = Field(
        None, gt=0, lt=0.5, description="Per date: quantile at which both tails are clipped first."
    )

    @property
    def quantiles(self) -> tuple[float, float] | None:
        """Both quantiles at which tails are clipped."""
        return None if self.winsorize is None else (self.winsorize, 1 - self.winsorize)


class PeriodsForm(Form):
    """When is trained, validated and tested: fixed dates, or walk-forward with a model for each period served."""

    train: Period | None = Field(None, description="Fixed: first and last date trained on.")
    validation: Period | None = Field(None, description="Fixed: first and last date validated on.")
    test: Period | None = Field(None, description="Fixed: first and last date tested on.")
    train_years: int | None = Field(None, ge=1, le=50, description="Walk-forward: years trained on.")
    validation_years: int | None = Field(
        None, ge=1, le=20, description="Walk-forward: years validated on, after those trained on."
    )
    retrain: Literal["weekly", "monthly", "quarterly", "yearly"] | None = Field(
        None, description="Walk-forward: how often a new model is trained."
    )

    def _agree(self) -> None:
        fixed = {"train": self.train, "validation": self.validation, "test": self.test}
        walking = {"train_years": self.train_years, "validation_years": self.validation_years, "retrain": self.retrain}
        given_fixed = [name for name, value in fixed.items() if value is not None]
        given_walking = [name for name, value in walking.items() if value is not None]
        if (len(given_fixed), len(given_walking)) not in {(3, 0), (0, 3)}:
            given = ", ".join(given_fixed + given_walking) or "nothing"
            raise Misfit(
                "periods are either train, validation and test, or train_years, validation_years and retrain; "
                f"given: {given}"
            )

    @field_validator("train", "validation", "test")
    @classmethod
    def _in_order(cls, value: tuple[date, date] | None, others: ValidationInfo) -> tuple[date, date] | None:
        if value is None:
            return value
        (first, last), name = value, others.field_name
        if first > last:
            raise ValueError(f"{name} is reversed: it begins on {first} and ends on {last}; swap the dates")
        for earlier in ("train", "validation"):
            ends = (others.data.get(earlier) or (None, None))[1] if earlier != name else None
            if ends is not None and first <= ends:
                raise ValueError(
                    f"{name} begins on {first}, which is not after {earlier}, which ends on {ends}; begin it later"
                )
        return value

    @property
    def walk_forward(self) -> bool:
        """Whether a model is trained for each period, rather than once."""
        return self.retrain is not None


class AlgorithmForm(Form):
    """What learns."""

    name: str = Field("linear", description="The algorithm by name; `linear` is ridge regression.")
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the algorithm; see its declaration for type, range and default."
    )
    seed: int = Field(0, ge=0, description="Fixes whatever the algorithm draws at random.")

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, value: str) -> str:
        algorithm(value)
        return value

    @field_validator("hyperparameters")
    @classmethod
    def _hyperparameters_are_allowed(cls, value: dict[str, Any], others: ValidationInfo) -> dict[str, Any]:
        if "name" in others.data:
            validate_hyperparameters(others.data["name"], value)
        return value


class TrainingForm(Form):
    """Where training runs."""

    platform: Literal["local"] = Field("local", description="`local`: on this machine.")


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


class LimitsForm(Form):
    """Risk limits of the strategy; they may tighten the account's, never loosen them."""

    gross: float | None = Field(None, gt=0, le=10, description="Largest gross exposure, as a multiple of equity.")
    net: float | None = Field(None, ge=0, le=10, description="Largest absolute net exposure, as a multiple of equity.")
    position: float | None = Field(None, gt=0, le=1, description="Largest absolute weight of one position.")
    order_notional: float | None = Field(None, gt=0, description="Largest single order, in currency.")
    turnover: float | None = Field(
        None, gt=0, le=10, description="Largest amount traded at once, as a multiple of equity."
    )
    orders: int | None = Field(None, ge=1, description="Most orders in one proposal.")
    price_age_days: int | None = Field(
        None, ge=0, description="Most calendar days from the prices to the session traded in."
    )
    collar: float | None = Field(
        None, gt=0, le=1, description="Largest move of a price away from its reference, as a fraction."
    )
    buying_power: float | None = Field(
        None, gt=0, le=10, description="Largest gross value with a reserve on new shorts, as a multiple of equity."
    )
    restricted: tuple[str, ...] | None = Field(None, description="Symbols in which nothing may be opened.")


class TradingForm(Form):
    """Where approved orders go."""

    account: str = Field("paper", description="The trading account; a paper account is made on first use.")
    limits: LimitsForm = Field(default_factory=LimitsForm, description="Limits tighter than the account's.")

    @field_validator("account")
    @classmethod
    def _name_fits(cls, value: str) -> str:
        check_name(value, "an account")
        return value


class StrategyForm(Form):
    """The whole strategy: from a universe to a proposed rebalance."""

    owner: str = Field(
        description="Who answers for the strategy, shown in Dagster: a team's name, or an e-mail address."
    )
    description: str = Field("", max_length=2000, description="What the strategy is about, in a sentence.")
    universe: UniverseForm = Field(description="Which stocks are ranked.")
    prices: PricesForm = Field(description="Where prices come from.")
    features: FeaturesForm = Field(default_factory=FeaturesForm, description="What is computed from prices.")
    label: LabelForm = Field(default_factory=LabelForm, description="Which return is learned.")
    scaling: ScalingForm = Field(
        default_factory=ScalingForm, description="How features are made comparable across the stocks of one date."
    )
    periods: PeriodsForm = Field(description="Which days are trained, validated and tested on.")
    algorithm: AlgorithmForm = Field(default_factory=AlgorithmForm, description="What learns.")
    training: TrainingForm = Field(default_factory=TrainingForm, description="Where training runs.")
    backtest: BacktestForm = Field(
        default_factory=BacktestForm, description="The long-short book that the scores are tried on, and its costs."
    )
    trading: TradingForm = Field(default_factory=TradingForm, description="Where approved orders go.")

    @field_validator("owner")
    @classmethod
    def _owner_is_a_team_or_an_address(cls, value: str) -> str:
        if not OWNER.fullmatch(value):
            raise ValueError(
                f"owner {value!r} is not allowed; give a team's name of letters, digits, _ and -, or an e-mail address"
            )
        return value

    def _agree(self) -> None:
        if self.universe.name == "simulated" and self.prices.source != "simulated":
            raise Misfit(
                f"universe 'simulated' needs prices from source simulated, not {self.prices.source!r}", "universe"
            )
        if self.prices.split_adjusted and self.features.names is not None:
            try:
                feature_set(self.features.set).without_price_level().select(self.features.names)
            except InvalidInput as error:
                raise Misfit(str(error), "features") from error
        self._check_history()

    def feature_set(self) -> FeatureSet:
        """The features that the strategy learns from; on split-adjusted prices without those of price level."""
        chosen = feature_set(self.features.set)
        if self.prices.split_adjusted:
            chosen = chosen.without_price_level()
        return chosen.select(self.features.names) if self.features.names else chosen

    def definition(self, asset: str) -> str:
        """A digest of every part of the form that the stored content of `asset` depends on."""
        scaled = (self.prices, self.universe, self.features, self.scaling)
        model = (*scaled, self.label, self.periods, self.algorithm)
        parts: dict[str, tuple[Form, ...]] = {
            "scaled_features": scaled,
            "datasets": (*scaled, self.label, self.periods),
            "trained_model": model,
            "predictions": model,
            "backtest_metrics": (*model, self.backtest),
            "rebalance_orders": (*model, self.backtest),
        }
        return definition_of(*parts[asset])

    def missing_files(self) -> list[Path]:
        """The files that the strategy names and that are not there (yet)."""
        named = [under_home(path) for path in (self.prices.path, self.universe.file) if path is not None]
        return [path for path in named if not path.exists()]

    @property
    def dagster_owner(self) -> str:
        """The owner as Dagster writes it."""
        return self.owner if "@" in self.owner else f"team:{self.owner}"

    @property
    def first_served(self) -> date:
        """The first calendar day that a model serves; days before it have no scores."""
        if self.periods.test is not None:
            return self.periods.test[0]
        assert self.periods.retrain is not None
        assert self.periods.train_years is not None
        assert self.periods.validation_years is not None
        earliest = earliest_first_use(
            self.prices.start,
            self.feature_set().lookback,
            self.periods.train_years,
            self.periods.validation_years,
            trading_calendar(CALENDAR),
        )
        period = period_of(earliest, self.periods.retrain)
        if period.serves_from < earliest:
            period = period_of(period.serves_until + timedelta(days=1), self.periods.retrain)
        return period.serves_from

    def split(self, period_key: str | None) -> Split:
        """The sessions that a period's model is trained and validated on; `period_key` is None for fixed periods."""
        calendar = trading_calendar(CALENDAR)
        lookback = self.feature_set().lookback
        periods = self.periods
        if periods.retrain is None:
            assert periods.train is not None
            assert periods.validation is not None
            assert periods.test is not None
            return fixed_split(
                periods.train,
                periods.validation,
                periods.test,
                self.label.horizon_days,
                calendar,
                self.prices.start,
                lookback,
            )
        assert period_key is not None
        assert periods.train_years is not None
        assert periods.validation_years is not None
        return walk_forward_split(
            period_of(date.fromisoformat(period_key), periods.retrain),
            periods.train_years,
            periods.validation_years,
            self.label.horizon_days,
            calendar,
            self.prices.start,
            lookback,
        )

    def period_key(self, day: date) -> str | None:
        """The key of the period that `day` lies in; None for fixed periods."""
        return None if self.periods.retrain is None else period_of(day, self.periods.retrain).key

    def _check_history(self) -> None:
        """Too little history for the look-backs, or labels longer than a period, are refused before anything runs."""
        try:
            if not self.periods.walk_forward:
                self.split(None)
            elif self.first_served <= trading_calendar(CALENDAR).last_day:
                self.split(self.period_key(self.first_served))
        except InvalidInput as error:
            raise Misfit(str(error), "periods") from error


def definition_of(*parts: BaseModel | str) -> str:
    """Sixteen hexadecimal digits that change with any value in `parts`, except for where files lie.

    A universe's file counts by its name. A price file does not count at all, because whether it still says the same
    about a stored day is found out row by row.
    """
    plain = [part if isinstance(part, str) else part.model_dump(exclude={"path"}) for part in parts]
    text = json.dumps(
        plain, sort_keys=True, default=lambda value: value.name if isinstance(value, Path) else str(value)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def simulated_universe(source: PriceSource, through: date) -> Universe:
    """Every stock that the simulated market had listed by `through`."""
    from stockpicker_dagster.market.sources.simulated import SimulatedMarket

    if not isinstance(source, SimulatedMarket):
        raise InvalidInput(f"universe 'simulated' needs prices from source simulated, not {source.kind!r}")
    return source.universe(through)


def under_home(path: Path) -> Path:
    """The path itself if absolute, else inside the state folder."""
    return path if path.is_absolute() else home().root / path


def check_name(name: str, what: str) -> None:
    """Raises `InvalidInput` unless the name is a lower-case word usable in keys and folders."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot name {what}: use a lower-case letter, then up to 40 lower-case letters, digits and "
            "underscores"
        )


# Reading a file


def load(path: Path) -> StrategyForm:
    """The strategy in a `defs.yaml`. Raises `InvalidInput` with one line, `file:line: sentence`, for each mistake."""
    try:
        text = path.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}:1: this is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = str(problem or error).splitlines()[0]
        raise InvalidInput(f"{path}:{mark.line + 1 if mark else 1}: this is no YAML: {reason}") from error
    if not isinstance(document, dict) or document.get("type") != COMPONENT_TYPE:
        found = document.get("type") if isinstance(document, dict) else None
        raise InvalidInput(f"{path}:{_line(node, ('type',))}: type is {found!r}; a strategy's type is {COMPONENT_TYPE}")
    try:
        check_name(path.parent.name, "a strategy's folder")
        return StrategyForm.model_validate(document.get("attributes") or {})
    except ValidationError as error:
        raise InvalidInput("\n".join(_located(path, node, error))) from error
    except ValueError as error:
        raise InvalidInput(f"{path}:1: {error}") from error


def _located(path: Path, node: yaml.Node | None, error: ValidationError) -> Iterator[str]:
    for details in error.errors():
        place = ".".join(str(part) for part in details["loc"])
        line = _line(node, ("attributes", *details["loc"]))
        yield f"{path}:{line}: {place + ': ' if place else ''}{details['ctx']['error']}"


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        step: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, step = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            step = node.value[part]
            line = step.start_mark.line + 1
        if step is None:
            break
        node = step
    return line


def _refuse_booleans(form: type[Form], value: Any) -> None:
    """No field is true or false, and Pydantic would read `true` as the number 1."""
    given = value.items() if isinstance(value, Mapping) else ()
    refused = [
        _sentence(
            f"{item!r} was read as true or false, which {name} is not; quote it if it is a text", (str(name),), item
        )
        for name, item in given
        if isinstance(item, bool) and name in form.model_fields
    ]
    if refused:
        raise ValidationError.from_exception_data(form.__name__, refused)


def _plain(form: type[BaseModel], details: Any) -> InitErrorDetails:
    """One of Pydantic's refusals as a sentence with the value, what is allowed and the way out."""
    value, kind, location = details["input"], details["type"], tuple(details["loc"])
    context = details.get("ctx", {})
    field = location[-1] if location else ""
    if kind == "value_error":
        message = str(context["error"])
    elif kind == "extra_forbidden":
        message = f"{field!r} is no field here; known: {', '.join(sorted(form.model_fields))}"
    elif kind == "missing" and isinstance(field, int):
        message = f"{value!r} is not allowed: a period is two dates, [first, last]"
    elif kind == "missing":
        message = f"{field!r} is missing and has no default; it says: {form.model_fields[str(field)].description}"
    elif kind == "literal_error":
        message = f"{value!r} is not allowed; allowed: {str(context['expected']).replace(' or ', ', ')}"
    elif kind == "string_type":
        message = f"{value!r} was read as a {type(value).__name__}, not as text: quote it"
    elif kind.startswith("date_"):
        message = f"{value!r} is no day; write it as YYYY-MM-DD, such as 2024-03-08"
    else:
        message = f"{value!r} is not allowed: {details['msg'][0].lower()}{details['msg'][1:]}"
    return _sentence(message, location, value)


def _sentence(message: str, location: tuple[int | str, ...], value: Any) -> InitErrorDetails:
    # One of Pydantic's own types, because Dagster makes the error anew from its parts when it adds file and line.
    return InitErrorDetails(type="value_error", loc=location, input=value, ctx={"error": ValueError(message)})
