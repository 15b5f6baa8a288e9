"""The facts that companies reported, of the stocks of one price source: which became known on each session.

Only sources with a strategy whose feature set needs them have this asset. Facts come from `market.fundamentals`; what
features make of them is `research.features.fundamental_factors`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import dagster as dg
import polars as pl

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.metadata import column_schema, describe_last, row_counts
from stockpicker_dagster.components.partitions import sessions_of, trading_days
from stockpicker_dagster.market.fundamentals.edgar import Reported, fetch_facts
from stockpicker_dagster.market.fundamentals.facts import (
    FACTS_CONTRACT,
    FACTS_SCHEMA,
    keep_the_stored_facts,
    keep_the_stored_filers,
)
from stockpicker_dagster.market.fundamentals.sec_client import SecClient
from stockpicker_dagster.market.fundamentals.statements import HISTORY, first_day_needed, statements
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION, DayTable, Lake
from stockpicker_dagster.storage.symbol_sets import incomplete_days, store_symbol_set
from stockpicker_dagster.strategy_form import PricesForm, definition_of

CAVEAT = "symbols are matched to companies by today's list of tickers, also for days before it was first read"
FACTS_LOOKBACK = HISTORY.days * 5 // 7 + 1
"""Sessions whose facts a day's statements may depend on: no stretch of days has more."""
_SHOWN = 20


def facts_table(form: PricesForm) -> str:
    """The lake's name for the facts of the stocks of one source."""
    return f"{form.key}/fundamentals"


def fundamentals(
    form: PricesForm, owners: Sequence[str], symbols_in_use: Callable[[Lake], Sequence[str]]
) -> dg.AssetsDefinition:
    """The asset of the facts of `symbols_in_use(lake)`: every symbol that a strategy asking for facts may ever pick."""
    table, filers_table = facts_table(form), f"{form.key}/filers"
    calendar = form.exchange_calendar

    @dg.asset(
        key=[form.key, "fundamentals"],
        # Which security a ticker means is learned with the prices: facts of a day are given to it after them.
        deps=[dg.AssetKey([form.key, "prices"])],
        partitions_def=trading_days(form.start, form.calendar),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=form.key,
        kinds={"parquet"},
        owners=list(owners),
        description="Figures that companies reported to the SEC, by the session after whose close they were known.",
        metadata={"dagster/column_schema": column_schema(FACTS_SCHEMA)},
        check_specs=checks.specs(dg.AssetKey([form.key, "fundamentals"]), checks.FUNDAMENTALS),
        dagster_type=dg.Any,
    )
    def reported_facts(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.MaterializeResult:
        days = sessions_of(context)
        lake, definition = deployment.lake, definition_of(form, FACTS_CONTRACT)
        symbols, identities = symbols_in_use(lake), identities_in_force(lake, form.key)
        # The SEC lists companies under their tickers of today, and stored rows have ids.
        tickers = identities.latest_tickers(symbols, deployment.now().date())
        reported = fetch_facts(SecClient.from_environment(), tickers, days, form.start, calendar, context.log.info)
        reported = replace(
            reported,
            facts=identities.identified_as_listed(reported.facts),
            filers=identities.identified_as_listed(reported.filers),
        )
        again = _days_collected_before(lake, table, definition, days)
        facts, revised = keep_the_stored_facts(reported.facts, _stored(lake, table, again))
        filers = keep_the_stored_filers(reported.filers, _stored(lake, filers_table, again))
        incomplete = incomplete_days(lake, table, symbols)
        describe_last(context, _description(reported, facts, revised))
        return dg.MaterializeResult(
            value=DayTable(
                facts,
                note={**store_symbol_set(lake, table, symbols), DEFINITION: definition},
                beside={filers_table: filers},
            ),
            metadata=row_counts(context, facts, days),
            check_results=[
                checks.nothing_known_early(facts),
                checks.every_company_answered(tickers, reported.unknown_symbols, reported.without_figures),
                checks.every_symbol_asked_for({day: incomplete[day] for day in incomplete.keys() - set(days)}),
            ],
        )

    return reported_facts


def statements_in_force(facts: pl.LazyFrame, days: Sequence[date]) -> pl.DataFrame:
    """The statements that the features of `days` (ascending) may use."""
    return statements(facts.filter(pl.col("date") >= first_day_needed(days[0])).collect(), days)


def _days_collected_before(lake: Lake, table: str, definition: str, days: Sequence[date]) -> list[date]:
    """Those of `days` that are stored in the shape of today."""
    return sorted((set(days) & set(lake.days(table))) - set(lake.days_of_another_definition(table, definition)))


def _stored(lake: Lake, table: str, days: Sequence[date]) -> pl.DataFrame | None:
    return lake.read(table, days) if days else None


def _description(reported: Reported, facts: pl.DataFrame, revised: int) -> dict[str, object]:
    return {
        "caveat": CAVEAT,
        "reports": facts["filing"].n_unique(),
        "companies": facts["cik"].n_unique(),
        "symbols_without_a_company": ", ".join(reported.unknown_symbols[:_SHOWN]) or "none",
        "companies_without_figures": dict(list(reported.without_figures.items())[:_SHOWN]),
        "figures_left_out": dict(reported.left_out),
        "figures_that_differ_from_the_stored": revised,
    }
