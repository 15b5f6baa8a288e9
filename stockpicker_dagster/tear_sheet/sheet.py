"""What goes on a strategy's tear sheet, gathered from stored days; how it looks is `page`.

To see a back-test's figures makes it a trial, so gathering logs one, as `evaluation.judgement` says.
"""

import json
from dataclasses import dataclass
from datetime import date

import polars as pl

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.evaluation.against_reference import ReferenceResult, against_reference
from stockpicker_dagster.evaluation.judgement import Judgement, judge
from stockpicker_dagster.evaluation.missing_names import survivorship_of
from stockpicker_dagster.evaluation.stored_days import stored_backtest, stored_span
from stockpicker_dagster.evaluation.trials import universe_of
from stockpicker_dagster.market.universes import Universe
from stockpicker_dagster.market.universes.survivorship import Survivorship
from stockpicker_dagster.research.backtest.capacity import Capacity
from stockpicker_dagster.research.backtest.days import DelistingSensitivity, delisting_sensitivity
from stockpicker_dagster.research.backtest.trades import capacity_of
from stockpicker_dagster.research.rebalancing import default_offset
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.tear_sheet.signal import Signal, signal_of


@dataclass(frozen=True)
class TearSheet:
    """One strategy's back-test over a span of stored days, all known after the close of the last."""

    strategy: str
    description: str
    days: pl.DataFrame
    """`BACKTEST_SCHEMA`, ascending, at least one."""
    judgement: Judgement
    trials_where: str
    """The universe that trials are counted on."""
    rebalance: str
    """The rule by which the book is decided anew, as the form has it."""
    own_offset: int
    """The strategy's own place among the offsets of that rule."""
    signal: Signal | None
    universe: str
    """Its name, and how far back its history holds."""
    caveats: tuple[str, ...]
    survivorship: Survivorship | None
    delistings: DelistingSensitivity | None
    settings: tuple[tuple[str, str], ...]
    """Parts of the form with what they say, then digests."""
    capacity: Capacity | None = None
    reference: ReferenceResult | None = None
    """None where the strategy names no benchmark and no factors."""


def tear_sheet(
    name: str, form: StrategyForm, deployment: Deployment, first: date | None = None, last: date | None = None
) -> TearSheet:
    """The tear sheet of `name` from `first` to `last`, by default over all stored days.

    Raises `InvalidInput` where no such day is stored or its settings were others, `MissingDays` where one lacks.
    """
    lake, calendar = deployment.lake, form.calendar
    span = stored_span(name, form, lake)
    days = stored_backtest(name, form, lake, first or span[0], last or span[1])
    sessions = days["date"].to_list()
    predictions = lake.scan(f"{name}/predictions", sessions).select("symbol", "date", "score", "model_id").collect()
    prices = lake.read(f"{form.prices.key}/prices", sessions)
    delistings = lake.read(f"{form.prices.key}/delistings", sessions)
    source = form.prices.build()
    universe = form.universe.build(source, (sessions[0], sessions[-1]), lake, calendar)
    return TearSheet(
        strategy=name,
        description=form.description or "",
        days=days,
        judgement=judge(name, form, days, deployment.database, deployment.now()),
        trials_where=universe_of(form),
        rebalance=str(form.backtest.rebalance),
        own_offset=_own_offset(form),
        signal=signal_of(
            predictions,
            prices,
            delistings,
            calendar,
            sessions,
            form.label.horizon_days,
            universe.sectors_on(sessions) if form.universe.says_sectors else None,
        ),
        universe=f"{universe.name}: {universe.history}",
        caveats=_caveats(source.caveat, universe),
        survivorship=survivorship_of(universe, predictions, prices, sessions, calendar),
        delistings=delisting_sensitivity(days),
        settings=_settings(name, form, predictions),
        capacity=capacity_of(days, prices),
        reference=against_reference(form.reference, days) if form.reference else None,
    )


def _caveats(of_source: str | None, universe: Universe) -> tuple[str, ...]:
    return tuple(dict.fromkeys(caveat for caveat in (of_source, universe.caveat) if caveat))


def _settings(name: str, form: StrategyForm, predictions: pl.DataFrame) -> tuple[tuple[str, str], ...]:
    parts = {
        part: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")
        for part, value in form.model_dump(mode="json", exclude_none=True).items()
    }
    models = predictions.sort("date")["model_id"].drop_nulls().unique(maintain_order=True).to_list()
    digests = {
        "strategy's digest": form.trial_digest,
        "back-test's digest": form.definition("backtest_metrics"),
        "code version": code_version(),
        "models": f"{len(models)}, the last being {models[-1]}" if models else "none",
    }
    return tuple({"name": name, **parts, **digests}.items())


def _own_offset(form: StrategyForm) -> int:
    chosen = form.backtest.rebalance_offset
    return default_offset(form.backtest.rebalance) if chosen is None else chosen
