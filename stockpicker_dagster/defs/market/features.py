"""The features of the stocks of one price source: one asset for each feature set that a strategy on it uses.

Nothing is computed here: features come from `research`, what is shown of them from `components`. A long range is made
and stored a calendar year at a time, so that it needs no more memory than a year.
"""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg
import polars as pl

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.computing import Computing
from stockpicker_dagster.components.feature_trials import tried_on_invented_prices, tried_on_real_prices
from stockpicker_dagster.components.feature_view import FeatureView, stored_before
from stockpicker_dagster.components.metadata import day_counts, describe_last
from stockpicker_dagster.components.partitions import looking_back, sessions_of, trading_days
from stockpicker_dagster.compute import Place
from stockpicker_dagster.defs.market.fundamentals import FACTS_LOOKBACK, statements_in_force
from stockpicker_dagster.research.features.computation import compute_by_year
from stockpicker_dagster.research.features.declaration import FeatureSet
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION, DayPieces
from stockpicker_dagster.strategy_form import FeaturesForm, PricesForm, features_definition

_LONGEST_YEAR = 255
"""More sessions than any year has: an anchor lies at most this far before a look-back."""


def features_asset(
    form: PricesForm, features: FeatureSet, owners: Sequence[str], shared: FeaturesForm, compute: Place
) -> dg.AssetsDefinition:
    """The asset `<source>/<feature set>/features`, computed at the place `compute`; `shared` is what a form says of it.

    A set from a module of one's own is tried before anything of it is stored.
    """
    calendar, code = form.exchange_calendar, shared.code
    key = dg.AssetKey([form.key, features.name, "features"])

    @dg.asset(
        key=key,
        ins={
            "prices": dg.AssetIn(
                [form.key, "prices"], partition_mapping=looking_back(features.lookback + _LONGEST_YEAR)
            ),
            **_facts_needed(form, features),
        },
        partitions_def=trading_days(form.start, form.calendar),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=form.key,
        kinds={"spark" if compute == "spark" else "numba", "parquet"},
        owners=owners,
        description=f"The feature set {features.name!r} of every stock, from prices up to the day alone.",
        metadata={"dagster/column_schema": _feature_columns(features)},
        check_specs=checks.specs(key, checks.FEATURES),
        dagster_type=dg.Any,
    )
    def feature_table(
        context: dg.AssetExecutionContext,
        deployment: Deployment,
        computing: Computing,
        prices: pl.LazyFrame,
        **facts: pl.LazyFrame,
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        days = sessions_of(context)
        if code is not None:
            tried_on_invented_prices(features, code, calendar)
            tried_on_real_prices(features, code, form.key, prices, days, calendar, form.start)
        note = {DEFINITION: features_definition(form, features.name, code)}
        before = stored_before(deployment.lake, key.to_user_string(), features.names, note[DEFINITION], days[0])
        view = FeatureView(features.names, before)

        def statements(some: Sequence[date]) -> pl.DataFrame | None:
            return next((statements_in_force(each, some) for each in facts.values()), None)

        def pieces() -> Iterator[tuple[Sequence[date], pl.DataFrame]]:
            where = computing.at(compute, shared.own_modules)
            yield from view.watched(compute_by_year(features, prices, days, calendar, form.start, statements, where))
            # Everything is stored now, and Dagster has not yet written down that it is.
            figures = view.figures
            counts = dict(zip(figures.days, figures.stocks.tolist(), strict=True))
            context.add_asset_metadata(day_counts(context, {day: counts.get(day, 0) for day in days}))
            described = {"features": len(features.names), "lookback_sessions": features.lookback}
            describe_last(context, {**described, **view.metadata()})

        yield dg.MaterializeResult(value=DayPieces(pieces(), note=note, made_from=f"{form.key}/prices"))
        yield checks.finite_or_null(view.figures)
        yield checks.coverage_holds(view.figures, days)
        yield checks.columns_vary(view.figures, days)

    return feature_table


def _facts_needed(form: PricesForm, features: FeatureSet) -> dict[str, dg.AssetIn]:
    """The input of what companies reported, for a set that depends on it."""
    if not features.fundamentals:
        return {}
    return {"facts": dg.AssetIn([form.key, "fundamentals"], partition_mapping=looking_back(FACTS_LOOKBACK))}


def _feature_columns(features: FeatureSet) -> dg.TableSchema:
    described = [
        dg.TableColumn(each.name, "Float32", description=each.description.splitlines()[0]) for each in features.features
    ]
    return dg.TableSchema([dg.TableColumn("symbol", "String"), dg.TableColumn("date", "Date"), *described])
