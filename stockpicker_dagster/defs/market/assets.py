"""The market's assets, shared by every strategy: prices once a source, features once a feature set on it.

Nothing is computed here: prices come from `market`, features from `research`, and both reach the lake through the I/O
manager. What belongs to one strategy is in `components`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import dagster as dg
import polars as pl

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.metadata import column_schema, describe_last, lines_plot, row_counts
from stockpicker_dagster.components.partitions import looking_back, sessions_of, trading_days
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.collection import collect
from stockpicker_dagster.market.prices import CONTRACT, PRICES_SCHEMA
from stockpicker_dagster.market.restatements import StoredPast
from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.research.features.computation import compute, first_needed
from stockpicker_dagster.research.features.declaration import FeatureSet, feature_set
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION, DayTable, Lake
from stockpicker_dagster.storage.symbol_sets import incomplete_days, store_symbol_set
from stockpicker_dagster.strategy_form import CALENDAR, PricesForm, StrategyForm, definition_of

_LONGEST_YEAR = 255
"""More sessions than any year has: an anchor lies at most this far before a look-back."""

_COLLECTED = ("prices", "delistings", "quarantine")

Strategies = Mapping[str, StrategyForm]


def market_definitions(strategies: Strategies) -> dg.Definitions:
    """The assets of every price source and feature set that the strategies use.

    Raises `InvalidInput` if two strategies give one source different settings.
    """
    assets: list[dg.AssetsDefinition] = []
    for form, users in _sources(strategies):
        assets.append(_prices(form, users))
        for name in sorted({user.features.set for user in users.values()}):
            chosen = feature_set(name)
            if form.split_adjusted:
                chosen = chosen.without_price_level()
            assets.append(_features(form, chosen, users))
    return dg.Definitions(assets=assets)


def _sources(strategies: Strategies) -> Iterator[tuple[PricesForm, Strategies]]:
    """Each source with the strategies on it."""
    by_key: dict[str, dict[str, StrategyForm]] = {}
    for name, strategy in strategies.items():
        by_key.setdefault(strategy.prices.key, {})[name] = strategy
    for key, users in by_key.items():
        (first, shared), *others = users.items()
        for other, strategy in others:
            if strategy.prices != shared.prices:
                raise InvalidInput(
                    f"strategies {first!r} and {other!r} give the price source {key!r} different settings "
                    f"({_settings(shared.prices)} and {_settings(strategy.prices)}); make them equal, or give one "
                    "of them another `prices: {name: ...}`"
                )
        yield shared.prices, users


def _settings(form: PricesForm) -> str:
    return ", ".join(f"{name} {value}" for name, value in form.model_dump(exclude_none=True).items())


def symbols_in_use(users: Strategies, source: PriceSource) -> list[str] | None:
    """Every symbol that was, is or will be a member of a universe on `source`; None for all that the source has."""
    if source.kind == "simulated":
        return None
    last = trading_calendar(CALENDAR).last_day
    universes = [user.universe.build(source, last) for user in users.values()]
    return sorted({symbol for universe in universes for symbol in universe.symbols_ever(source.start, last)})


def _owners(users: Strategies) -> list[str]:
    return sorted({user.dagster_owner for user in users.values()})


def _prices(form: PricesForm, users: Strategies) -> dg.AssetsDefinition:
    table = f"{form.key}/prices"

    @dg.asset(
        key=[form.key, "prices"],
        partitions_def=trading_days(form.start),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=form.key,
        kinds={form.source, "parquet"},
        owners=_owners(users),
        description=f"Daily prices as traded, with splits, dividends and delistings, from the source {form.key!r}.",
        metadata={"dagster/column_schema": column_schema(PRICES_SCHEMA)},
        check_specs=checks.specs(dg.AssetKey([form.key, "prices"]), checks.PRICES),
        # With checks beside it, the annotation alone would say that nothing is stored.
        dagster_type=dg.Any,
    )
    def prices(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.MaterializeResult:
        days = sessions_of(context)
        source, lake = form.build(), deployment.lake
        symbols = symbols_in_use(users, source)
        if lake.days_of_another_definition(table, definition_of(form, CONTRACT)):
            raise InvalidInput(
                f"the price source {form.key!r} was stored under other settings than {_settings(form)}; "
                "give the new one another name with `prices: {name: ...}`, or take the change back"
            )
        incomplete = incomplete_days(lake, table, symbols)
        fetched = collect(source, symbols, days, _stored_past(lake, form.key, days, incomplete))
        rejected = fetched.quarantine["reason"].value_counts().sort("reason")
        note = {**store_symbol_set(lake, table, symbols), DEFINITION: definition_of(form, CONTRACT)}
        describe_last(
            context,
            {
                "caveat": source.caveat or "none",
                "quarantined": fetched.quarantine.height,
                "quarantined_by_reason": {row["reason"]: row["count"] for row in rejected.to_dicts()},
                "delistings": fetched.delistings.height,
                **lines_plot("stocks_with_prices", fetched.prices.group_by("date").len().sort("date")),
            },
        )
        return dg.MaterializeResult(
            value=DayTable(
                fetched.prices,
                note=note,
                beside={f"{form.key}/delistings": fetched.delistings, f"{form.key}/quarantine": fetched.quarantine},
            ),
            metadata=row_counts(context, fetched.prices, days),
            check_results=[
                checks.contract_holds(fetched.prices),
                checks.no_empty_sessions(fetched.prices, days),
                checks.every_symbol_asked_for({day: incomplete[day] for day in incomplete.keys() - set(days)}),
            ],
        )

    return prices


def _stored_past(
    lake: Lake, source: str, days: Sequence[date], never_asked: Mapping[date, Sequence[str]]
) -> StoredPast:
    """What is stored of those of `days` that were collected before."""
    again = sorted(set(days) & set(lake.days(f"{source}/prices")))
    if not again:
        return StoredPast()
    prices, delistings, quarantine = (lake.read(f"{source}/{table}", again) for table in _COLLECTED)
    return StoredPast(prices, delistings, quarantine, never_asked)


def _features(form: PricesForm, features: FeatureSet, users: Strategies) -> dg.AssetsDefinition:
    calendar = trading_calendar(CALENDAR)

    @dg.asset(
        key=[form.key, features.name, "features"],
        ins={
            "prices": dg.AssetIn(
                [form.key, "prices"], partition_mapping=looking_back(features.lookback + _LONGEST_YEAR)
            )
        },
        partitions_def=trading_days(form.start),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=form.key,
        kinds={"numba", "parquet"},
        owners=_owners(users),
        description=f"The feature set {features.name!r} of every stock, from prices up to the day alone.",
        metadata={"dagster/column_schema": _feature_columns(features)},
        check_specs=checks.specs(dg.AssetKey([form.key, features.name, "features"]), checks.FEATURES),
        dagster_type=dg.Any,
    )
    def feature_table(context: dg.AssetExecutionContext, prices: pl.LazyFrame) -> dg.MaterializeResult:
        days = sessions_of(context)
        since = first_needed(days, features.lookback, calendar, form.start)
        loaded = prices.filter(pl.col("date") >= since).collect()
        table = compute(features, loaded, days, calendar, form.start, loaded_from=since)
        describe_last(
            context,
            {
                "features": len(features.names),
                "lookback_sessions": features.lookback,
                "null_rate_last_day": _null_rates(table, features.names, days[-1]),
            },
        )
        return dg.MaterializeResult(
            value=DayTable(table, note={DEFINITION: definition_of(form, features.name)}),
            metadata=row_counts(context, table, days),
            check_results=[checks.finite_or_null(table, features.names)],
        )

    return feature_table


def _feature_columns(features: FeatureSet) -> dg.TableSchema:
    described = [
        dg.TableColumn(each.name, "Float32", description=each.description.splitlines()[0]) for each in features.features
    ]
    return dg.TableSchema([dg.TableColumn("symbol", "String"), dg.TableColumn("date", "Date"), *described])


def _null_rates(table: pl.DataFrame, names: Sequence[str], day: date) -> dg.MarkdownMetadataValue:
    last = table.filter(pl.col("date") == day)
    rows = [f"| {name} | {last[name].null_count() / max(1, last.height):.1%} |" for name in names]
    return dg.MetadataValue.md("\n".join(["| feature | null |", "| --- | --- |", *rows]))
