"""The whole strategy, and what follows from it as a whole."""

import hashlib
import json
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.research.features.declaration import FeatureSet
from stockpicker_dagster.research.splits import Split, earliest_first_use, fixed_split, period_of, walk_forward_split
from stockpicker_dagster.strategy_form.backtest import BacktestForm
from stockpicker_dagster.strategy_form.base import Form, Misfit
from stockpicker_dagster.strategy_form.features import FeaturesForm, ScalingForm
from stockpicker_dagster.strategy_form.learning import AlgorithmForm, LabelForm, PeriodsForm, TrainingForm
from stockpicker_dagster.strategy_form.prices import PricesForm
from stockpicker_dagster.strategy_form.reference import ReferenceForm
from stockpicker_dagster.strategy_form.trading import TradingForm
from stockpicker_dagster.strategy_form.universe import UniverseForm

OWNER = re.compile(r"[A-Za-z0-9_-]{1,64}|[^@\s]{1,64}@[^@\s]{1,190}")


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
    reference: ReferenceForm | None = Field(
        None, description="A benchmark or factors that the back-test is held against; none by default."
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
        if self.universe.name == "simulated" and self.prices.kind != "simulated":
            raise Misfit(
                f"universe 'simulated' needs prices from source simulated, not {self.prices.kind!r}", "universe"
            )
        if self.prices.kind == "simulated" and self.features.fundamentals is not None:
            raise Misfit(
                f"fundamentals {self.features.fundamentals!r} are of real companies, and those of source simulated are "
                "invented; use another source, or a set made of prices alone",
                "features",
            )
        if self.universe.top is not None and self.universe.of is None and self.features.fundamentals is not None:
            raise Misfit(
                f"fundamentals {self.features.fundamentals!r} are asked for symbol by symbol, and `top` alone chooses "
                "among whatever the price source has; say among which stocks with `of`",
                "universe",
            )
        if self.prices.split_adjusted and self.universe.min_price is not None:
            raise Misfit(
                f"universe min_price {self.universe.min_price} needs prices as traded, and the level of split_adjusted "
                "ones knows later splits; leave it out, or filter by min_dollar_volume",
                "universe",
            )
        if self.prices.split_adjusted and self.backtest.commission_per_share:
            raise Misfit(
                f"backtest commission_per_share {self.backtest.commission_per_share} needs prices as traded, because "
                "split_adjusted ones count other shares; use commission_bps",
                "backtest",
            )
        if self.universe.top is not None and self.universe.of is None and not self.prices.lists_its_symbols:
            raise Misfit(
                f"universe top {self.universe.top} needs a universe to choose from on prices from {self.prices.key!r}, "
                "which cannot list all their symbols; name one with of, such as `of: sp500`",
                "universe",
            )
        if self.scaling.by_sector and not self.universe.says_sectors:
            raise Misfit(
                "scaling cannot neutralize the sector, which this universe does not say; take a universe by name or "
                "from a file with a column sector, or leave it out",
                "scaling",
            )
        if self.algorithm.warm_start and not self.periods.walk_forward:
            raise Misfit(
                "algorithm start 'warm' begins from the model of the period before, and there is but one model; give "
                "periods train_years, validation_years and retrain, or leave it out",
                "algorithm",
            )
        if self.prices.split_adjusted and self.features.names is not None:
            try:
                self.features.declared().without_price_level().select(self.features.names)
            except InvalidInput as error:
                raise Misfit(str(error), "features") from error
        self._check_exposures()
        self._check_history()

    def _check_exposures(self) -> None:
        features = self.feature_set().names
        unknown = [name for name in self.backtest.exposures if name not in ("market", "sector", *features)]
        if unknown:
            raise Misfit(
                f"backtest exposures name {unknown[0]!r}, which is no feature of the strategy; known: market, sector, "
                f"{', '.join(features[:8])}{', ...' if len(features) > 8 else ''}",
                "backtest",
            )
        if "sector" in self.backtest.exposures and not self.universe.says_sectors:
            raise Misfit(
                "backtest exposures name the sector, which this universe does not say; take a universe by name or from "
                "a file with a column sector, or leave it out",
                "backtest",
            )

    def feature_set(self) -> FeatureSet:
        """The features that the strategy learns from; on split-adjusted prices without those of price level."""
        chosen = self.features.declared()
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
        return definition_of(*parts[asset], *([self.features.code] if self.features.code else []))

    @property
    def features_definition(self) -> str:
        """A digest of what the stored features depend on, which the strategy shares with others."""
        return features_definition(self.prices, self.features.name, self.features.code)

    @property
    def trial_digest(self) -> str:
        """A digest of what makes the strategy a trial of its own: not how many random books it is held against.

        Which books they are does: who looks for a lucky seed tries something.
        """
        judged_alike = self.model_copy(update={"backtest": self.backtest.model_copy(update={"simulations": 1})})
        return judged_alike.definition("backtest_metrics")

    @property
    def shared_tables(self) -> tuple[str, ...]:
        """The daily tables that the strategy shares with others on its source, in the order in which they are made."""
        source = self.prices.key
        reported = (f"{source}/fundamentals",) if self.features.fundamentals else ()
        return (f"{source}/prices", *reported, f"{source}/{self.features.name}/features")

    def missing_files(self) -> list[Path]:
        """The files that the strategy names and that are not there (yet)."""
        return [path for path in (*self.prices.paths, *self.universe.files) if not path.exists()]

    @property
    def calendar(self) -> TradingCalendar:
        """The calendar of the exchange that the strategy trades on."""
        return self.prices.exchange_calendar

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
            self.calendar,
        )
        period = period_of(earliest, self.periods.retrain)
        if period.serves_from < earliest:
            period = period_of(period.serves_until + timedelta(days=1), self.periods.retrain)
        return period.serves_from

    def last_session(self, now: datetime) -> date:
        """The last session completed by `now` that the strategy's source can answer for."""
        completed = self.calendar.last_completed(now)
        ends = self.prices.build().available_through()
        return completed if ends is None else min(completed, self.calendar.previous_session(ends + timedelta(1)))

    def split(self, period_key: str | None) -> Split:
        """The sessions that a period's model is trained and validated on; `period_key` is None for fixed periods."""
        calendar = self.calendar
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
            periods.window == "expanding",
        )

    def period_key(self, day: date) -> str | None:
        """The key of the period that `day` lies in; None for fixed periods."""
        return None if self.periods.retrain is None else period_of(day, self.periods.retrain).key

    def _check_history(self) -> None:
        """Too little history for the look-backs, or labels longer than a period, are refused before anything runs."""
        try:
            if not self.periods.walk_forward:
                self.split(None)
            elif self.first_served <= self.calendar.last_day:
                self.split(self.period_key(self.first_served))
        except InvalidInput as error:
            raise Misfit(str(error), "periods") from error


_NOT_COUNTED = ("path", "symbol_changes", "compute")


def features_definition(prices: PricesForm, name: str, code: str | None) -> str:
    """The definition of the features of one set on one source; `code` is the digest of a module of one's own."""
    return definition_of(prices, name, *([code] if code else []))


def definition_of(*parts: BaseModel | str) -> str:
    """Sixteen hexadecimal digits that change with any value in `parts`, except for where files lie.

    A universe's file counts by its name. A price file does not count at all, because whether it still says the same
    about a stored day is found out row by row; nor do symbol changes, which never give a stored row another id; nor
    where features are computed, which changes nothing of them.
    """
    plain = [part if isinstance(part, str) else _without_paths(part.model_dump()) for part in parts]
    text = json.dumps(
        plain, sort_keys=True, default=lambda value: value.name if isinstance(value, Path) else str(value)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_paths(value: Any) -> Any:
    """The dumped form without what does not count, at any depth."""
    if isinstance(value, dict):
        return {name: _without_paths(part) for name, part in value.items() if name not in _NOT_COUNTED}
    return [_without_paths(part) for part in value] if isinstance(value, list) else value
