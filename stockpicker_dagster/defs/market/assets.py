"""The market's assets, shared by every strategy: prices once a source, features once a feature set on it.

Nothing is computed here: prices come from `market` and reach the lake through the I/O manager. The asset of features is
in `features`, what belongs to one strategy in `components`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial

import dagster as dg
import polars as pl

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.metadata import column_schema, describe_last, lines_plot, row_counts
from stockpicker_dagster.components.partitions import sessions_of, trading_days
from stockpicker_dagster.compute import Place
from stockpicker_dagster.defs.market.features import features_asset
from stockpicker_dagster.defs.market.fundamentals import fundamentals
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market import quality
from stockpicker_dagster.market.collection import collect, redecided, restated_since, sampled_session
from stockpicker_dagster.market.corrections import Decisions
from stockpicker_dagster.market.decision_records import (
    days_before_a_decision,
    decision_notes,
    load_decisions,
    refuse_days_before_a_decision,
)
from stockpicker_dagster.market.identity import Identities, SymbolChange
from stockpicker_dagster.market.identity_records import Learned, learn, learn_from
from stockpicker_dagster.market.prices import CONTRACT, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.restatements import StoredPast
from stockpicker_dagster.market.sources import Fetched, PriceSource
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION, DayTable, Lake
from stockpicker_dagster.storage.symbol_sets import incomplete_days, store_symbol_set
from stockpicker_dagster.strategy_form import PricesForm, StrategyForm, definition_of

_COLLECTED = ("prices", "delistings", "quarantine")

Strategies = Mapping[str, StrategyForm]


def market_definitions(strategies: Strategies) -> dg.Definitions:
    """The assets of every price source and feature set that the strategies use.

    Raises `InvalidInput` if two strategies give one source different settings.
    """
    assets: list[dg.AssetsDefinition] = []
    for form, users in _sources(strategies):
        assets.append(_prices(form, users))
        if asking := {name: user for name, user in users.items() if user.features.fundamentals}:
            assets.append(fundamentals(form, _owners(asking), partial(_symbols_with_companies, asking, form)))
        for _, shared in sorted({user.features.name: user.features for user in users.values()}.items()):
            chosen = shared.declared()
            if form.split_adjusted:
                chosen = chosen.without_price_level()
            assets.append(features_asset(form, chosen, _owners(users), shared, _place(users, shared.name)))
    return dg.Definitions(assets=assets)


def _place(users: Strategies, name: str) -> Place:
    """Where a feature set is computed: on Spark, or else in jobs, if any strategy that uses it asks for that."""
    asked = {user.features.compute for user in users.values() if user.features.name == name}
    return "spark" if "spark" in asked else "processing" if "processing" in asked else "local"


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


def symbols_in_use(users: Strategies, source: PriceSource, lake: Lake) -> list[str] | None:
    """Every symbol that was, is or will be a member of a universe on `source`; None for all that the source has."""
    if source.kind == "simulated":
        return None
    asked = [user.universe.symbols_ever(source, user.calendar.last_day, lake) for user in users.values()]
    named = [symbols for symbols in asked if symbols is not None]
    return sorted(set().union(*named)) if len(named) == len(asked) else None


def _symbols_with_companies(users: Strategies, form: PricesForm, lake: Lake) -> list[str]:
    """Every symbol in use, for strategies that ask what companies report: their forms name all symbols beforehand."""
    symbols = symbols_in_use(users, form.build(), lake)
    assert symbols is not None
    return symbols


def _owners(users: Strategies) -> list[str]:
    return sorted({user.dagster_owner for user in users.values()})


def _prices(form: PricesForm, users: Strategies) -> dg.AssetsDefinition:
    table = f"{form.key}/prices"

    @dg.asset(
        key=[form.key, "prices"],
        partitions_def=trading_days(form.start, form.calendar),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=form.key,
        kinds={form.kind, "parquet"},
        owners=_owners(users),
        description=f"Daily prices as traded, with splits, dividends and delistings, from the source {form.key!r}.",
        metadata={"dagster/column_schema": column_schema(PRICES_SCHEMA)},
        check_specs=checks.specs(dg.AssetKey([form.key, "prices"]), checks.PRICES),
        # With checks beside it, the annotation alone would say that nothing is stored.
        dagster_type=dg.Any,
    )
    def prices(
        context: dg.AssetExecutionContext, deployment: Deployment
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        days = sessions_of(context)
        source, lake = form.build(), deployment.lake
        for user in users.values():
            user.universe.keep_list(lake, deployment.now())
        symbols = symbols_in_use(users, source, lake)
        if lake.days_of_another_definition(table, definition_of(form, CONTRACT)):
            raise InvalidInput(
                f"the price source {form.key!r} was stored under other settings than {_settings(form)}; "
                "give the new one another name with `prices: {name: ...}`, or take the change back"
            )
        decisions = load_decisions(lake, form.key)
        undecided = days_before_a_decision(lake, table, decisions)
        refuse_days_before_a_decision(form.key, undecided, days)
        incomplete = incomplete_days(lake, table, symbols)
        learned = learn_from(lake, source, symbols, form.stated_changes(), days[-1])
        asked = _asked(learned.identities, symbols)
        past = _stored_past(lake, form.key, days, _never_asked(learned.identities, symbols, incomplete))
        past = replace(past, redecided=redecided(decisions, sorted(set(days) & set(undecided))))
        source, fetched, learned = _collected(form, lake, learned, asked, days, past, decisions)
        earlier = _prices_before(lake, table, days[0], asked)
        figures = quality.sessions(fetched.prices, fetched.quarantine, days, earlier)
        refused = quality.refusals(figures, decisions.accepted_days)
        if refused:
            # Reported before the step fails, so that Dagster's pages name what was wrong; nothing is stored.
            yield checks.whole_sessions(refused)
            raise quality.SessionRefused(quality.refusal_message(form.key, refused))
        confirmed, restated = _compared_with_stored_past(source, decisions, lake, table, days)
        quarantine = pl.concat([fetched.quarantine, restated]).sort("date", "symbol", "reason", maintain_order=True)
        note = {**store_symbol_set(lake, table, symbols), DEFINITION: definition_of(form, CONTRACT)}
        describe_last(
            context,
            {
                "caveat": source.caveat or "none",
                "quarantined": quarantine.height,
                "quarantined_by_reason": _counts(quarantine, "reason"),
                "flagged_lately": _flagged_lately(fetched.prices, earlier),
                "rows_by_source": _counts(fetched.prices, "source"),
                "unanswered": dict(fetched.unanswered),
                "disagreements_between_sources": _disagreements(fetched),
                "delistings": fetched.delistings.height,
                "symbol_changes": [str(change) for change in learned.identities.changes if change.day in set(days)],
                "symbol_changes_left_out": {str(change): why for change, why in learned.left_out.items()},
                "decisions_in_force": len(decisions.in_force),
                **lines_plot("stocks_with_prices", fetched.prices.group_by("date").len().sort("date")),
            },
        )
        yield dg.MaterializeResult(
            value=DayTable(
                fetched.prices,
                note=note,
                day_notes=decision_notes(decisions, days),
                beside={f"{form.key}/delistings": fetched.delistings, f"{form.key}/quarantine": quarantine},
            ),
            metadata=row_counts(context, fetched.prices, days),
            check_results=[
                checks.contract_holds(fetched.prices),
                checks.whole_sessions(refused),
                confirmed,
                checks.members_have_prices(_coverage(users, source, lake, fetched.prices, days[-1])),
                checks.no_empty_sessions(fetched.prices, days),
                checks.every_symbol_asked_for({day: incomplete[day] for day in incomplete.keys() - set(days)}),
            ],
        )

    return prices


def _collected(
    form: PricesForm,
    lake: Lake,
    learned: Learned,
    symbols: Sequence[str] | None,
    days: Sequence[date],
    past: StoredPast,
    decisions: Decisions,
) -> tuple[PriceSource, Fetched, Learned]:
    """What the source has for `days` under the ids that are in force, with the tickers that were re-used meanwhile.

    A re-use that stored rows contradict is none: the ticker goes on under the id that it has there.
    """
    source = form.build(learned.identities)
    fetched = collect(source, symbols, days, past, decisions)
    found = learn(lake, form.key, fetched.reused)
    left_out = {**learned.left_out, **found.left_out}
    if found.left_out:
        goes_on = [SymbolChange(change.new, change.new, change.day) for change in found.left_out]
        source = form.build(learn(lake, form.key, goes_on).identities)
        fetched = collect(source, symbols, days, past, decisions)
        found = learn(lake, form.key, fetched.reused)
    return source, fetched, replace(found, left_out=left_out)


def _asked(identities: Identities, symbols: Sequence[str] | None) -> list[str] | None:
    """The tickers in use, and the ids of the securities that they are known to stand for."""
    return None if symbols is None else sorted({*symbols, *identities.known_securities_of(symbols)})


def _never_asked(
    identities: Identities, symbols: Sequence[str] | None, incomplete: Mapping[date, Sequence[str]]
) -> dict[date, list[str]]:
    """By day, the securities that come into use only now: those of new tickers, unless an earlier ticker meant them."""
    found: dict[date, list[str]] = {}
    for day, names in incomplete.items():
        before = identities.securities_of(sorted(set(symbols or ()) - set(names)))
        found[day] = sorted(set(identities.securities_of(names)) - set(before))
    return found


def _stored_past(
    lake: Lake, source: str, days: Sequence[date], never_asked: Mapping[date, Sequence[str]]
) -> StoredPast:
    """What is stored of those of `days` that were collected before."""
    again = sorted(set(days) & set(lake.days(f"{source}/prices")))
    if not again:
        return StoredPast()
    prices, delistings, quarantine = (lake.read(f"{source}/{table}", again) for table in _COLLECTED)
    return StoredPast(prices, delistings, quarantine, never_asked)


def _prices_before(lake: Lake, table: str, day: date, symbols: Sequence[str] | None) -> pl.DataFrame | None:
    """The stored prices of the last sessions before `day`, of the symbols that are still asked for."""
    earlier = [each for each in lake.days(table) if each < day][-quality.TRAILING :]
    if not earlier:
        return None
    rows = lake.read(table, earlier)
    return rows if symbols is None else rows.filter(pl.col("symbol").is_in(symbols))


def _flagged_lately(prices: pl.DataFrame, earlier: pl.DataFrame | None) -> dict[str, int]:
    """How many rows of the last sessions, stored ones included, are flagged for what; the data report has all."""
    since = prices["date"].unique().sort().tail(quality.TRAILING).min() if prices.height else None
    recent = prices if since is None else prices.filter(pl.col("date") >= since)
    return _counts(quality.flagged(recent if earlier is None else pl.concat([earlier, recent])), "flag")


def _compared_with_stored_past(
    source: PriceSource, decisions: Decisions, lake: Lake, table: str, days: Sequence[date]
) -> tuple[dg.AssetCheckResult, pl.DataFrame]:
    """The check of one stored session against what the source says now, and the rows to quarantine for it."""
    nothing = pl.DataFrame(schema=QUARANTINE_SCHEMA)
    session = sampled_session(lake.days(table), days[0])
    if session is None:
        return checks.stored_past_confirmed(None, nothing), nothing
    try:
        restated = restated_since(source, decisions, lake.read(table, [session]), days[0])
    except StockPickerError as error:
        # The day itself has its prices; that the past could not be compared is said, and is no reason to lose them.
        return checks.stored_past_confirmed(session, nothing, str(error)), nothing
    return checks.stored_past_confirmed(session, restated), restated


def _coverage(users: Strategies, source: PriceSource, lake: Lake, prices: pl.DataFrame, day: date) -> dict[str, float]:
    """The share of each strategy's members on `day` that have a price; universes made of prices are left out."""
    priced = set(prices.filter(pl.col("date") == day)["symbol"])
    shares: dict[str, float] = {}
    for name, user in users.items():
        if user.universe.needs_prices:
            continue
        universe = user.universe.build(source, (day, day), lake, user.calendar)
        if members := set(universe.members(day)):
            shares[name] = len(members & priced) / len(members)
    return shares


def _disagreements(fetched: Fetched) -> dict[str, int]:
    """How many rows the sources of a chain disagree about, by likely cause; empty where there is one source."""
    return {} if fetched.disagreements is None else _counts(fetched.disagreements, "cause")


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(frame[column].cast(pl.String).fill_null("unknown").value_counts().sort(column).iter_rows())
