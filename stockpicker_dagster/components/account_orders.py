"""How a strategy's plan reaches its account: what the desk needs is read from the lake and the form, nothing decided.

Whether there is a proposal, what a person decided and what is sent are questions of the ledger, answered in `trading`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise

import polars as pl

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.daily_volume import mean_daily_volumes
from stockpicker_dagster.market.identity import REUSED_AFTER
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster.market.sources import Venue
from stockpicker_dagster.market.sources.silence import DELISTED_AFTER
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.strategy_form.authorship import author_of
from stockpicker_dagster.strategy_form.reading import STRATEGIES
from stockpicker_dagster.trading.accounts import read_account
from stockpicker_dagster.trading.brokers.connections import capabilities_of
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.desk import (
    booked_through,
    execute_approved,
    executed_before,
    fees_of_borrowed,
    held_symbols,
    propose,
)
from stockpicker_dagster.trading.execution import ExecutionReport
from stockpicker_dagster.trading.flatten import When, propose_flattening
from stockpicker_dagster.training.models import describe_stored_model

EXECUTIONS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "proposal": pl.String(),
    "side": pl.String(),
    "phase": pl.String(),
    "quantity": pl.String(),
    "filled": pl.String(),
    "price": pl.String(),
    "status": pl.String(),
    "reason": pl.String(),
}
"""One row an order of the proposal made after the close of `date`. Quantities in shares and prices in currency are
exact decimals, as the ledger has them; price is the mean fill price, null without a fill."""

_STALE_SESSIONS = (10, REUSED_AFTER + DELISTED_AFTER)
"""How many sessions back a price is looked for where a held stock did not trade on the planned session: nearly all have
one in the first of them, and who has none in the last counts as delisted."""

VOLUME_SESSIONS = 20
"""Over how many sessions, up to the planned one, the daily volume is averaged that an opening is measured against."""


@dataclass(frozen=True)
class Proposed:
    """The id of the registered proposal, or None, and a sentence about it."""

    proposal_id: str | None
    sentence: str


@dataclass(frozen=True)
class Executed:
    """The orders of a session in `EXECUTIONS_SCHEMA`, and a sentence about them."""

    orders: pl.DataFrame
    sentence: str


def propose_rebalance(
    deployment: Deployment, strategy: str, form: StrategyForm, session: date, plan: pl.DataFrame, run: str = ""
) -> Proposed:
    """Proposes the plan of `session`, if that is the venue's current session and one on which the strategy decides.

    `run` is the id of the Dagster run that made the plan, kept in the proposal; empty where there is none.
    """
    targets = plan.filter(pl.col("date") == session)
    if session < form.first_served:
        return Proposed(None, f"no proposal: the first model of {strategy!r} serves from {form.first_served}")
    if targets.is_empty():
        return Proposed(None, f"no proposal: {strategy!r} decides nothing after the close of {session}")
    lake, account = deployment.lake, form.trading.account
    prices_table = f"{form.prices.key}/prices"
    latest = lake.days(prices_table)[-1]
    if session != latest:
        return Proposed(None, f"no proposal: {session} is history, the last session stored is {latest}")
    model = _serving_model(lake, strategy, form, session)
    references = _last_prices(lake, prices_table, form.calendar, session, held_symbols(deployment.database, account))
    references.update(targets.select("symbol", "reference_price").drop_nulls().iter_rows())
    venue = _venue(form, lake)
    outcome = propose(
        deployment.database,
        account_id=account,
        strategy=strategy,
        author=author_of(STRATEGIES / strategy / "defs.yaml"),
        session=session,
        targets=dict(targets.select("symbol", "target_weight").iter_rows()),
        reference_prices=references,
        volumes=_mean_volumes(form, lake, session, targets["symbol"]),
        corporate_actions=list(_corporate_actions(deployment, form, session)),
        venue=venue,
        venue_name=form.prices.key,
        latest_stored=latest,
        model_id=model["model_id"],
        code_version=code_version(),
        data_version=model["data_version"],
        limits=form.trading.limits.model_dump(exclude_none=True),
        now=deployment.now(),
        run=run,
        tickers=identities_in_force(lake, form.prices.key).renamed(venue.trade_session(session)),
    )
    return Proposed(outcome.id, outcome.reason if outcome.id else f"no proposal: {outcome.reason}")


def execute_session(deployment: Deployment, strategy: str, form: StrategyForm, session: date) -> Executed:
    """Executes what a person approved of `session`, or resumes it; without an approval nothing is sent.

    The orders are those of every execution of the session, the newest last: a flattening adds to what a rebalance did.
    """
    venue = _venue(form, deployment.lake)
    report = execute_approved(deployment.database, strategy, session, venue, deployment.now)
    earlier = executed_before(deployment.database, strategy, session, report.proposal)
    orders = pl.concat([_orders(each, session) for each in (*earlier, report)])
    return Executed(orders, report.message)


def flatten_account(
    deployment: Deployment, account: str, who: str, when: When, forms: Callable[[], Mapping[str, StrategyForm]]
) -> str:
    """Proposes to close everything in an account; the proposal's id. `forms` are read for the embedded broker alone."""
    now, database = deployment.now(), deployment.database
    with database.connect() as connection:
        known = read_account(connection, account)
    if not capabilities_of(known.broker).embedded:
        return propose_flattening(database, account, who, now, when=when)
    form = forms().get(known.strategy or "")
    if form is None:
        return propose_flattening(database, account, who, now)
    latest = deployment.lake.days(f"{form.prices.key}/prices")[-1]
    venue = _venue(form, deployment.lake)
    return propose_flattening(database, account, who, now, venue=venue, latest_stored=latest)


def _venue(form: StrategyForm, lake: Lake) -> Venue:
    """The venue of the strategy's prices, which is asked about securities by their ids."""
    return form.prices.build(identities_in_force(lake, form.prices.key)).venue()


def _orders(report: ExecutionReport, session: date) -> pl.DataFrame:
    rows = [
        {
            "symbol": order.symbol,
            "date": session,
            "proposal": report.proposal,
            "side": order.side,
            "phase": order.phase,
            "quantity": str(order.quantity),
            "filled": str(order.filled),
            "price": None if order.price is None else str(order.price),
            "status": order.status,
            "reason": order.reason,
        }
        for order in report.orders
    ]
    return pl.DataFrame(rows, schema=EXECUTIONS_SCHEMA)


def _serving_model(lake: Lake, strategy: str, form: StrategyForm, session: date) -> dict[str, str]:
    return describe_stored_model(lake.bundle(f"{strategy}/trained_model", form.period_key(session) or UNPARTITIONED))


def _last_prices(
    lake: Lake, table: str, calendar: TradingCalendar, session: date, symbols: Sequence[str]
) -> dict[str, float]:
    """The last close of each symbol while it counts as listed: a held stock may not have traded on the session."""
    found: dict[str, float] = {}
    for sessions in _STALE_SESSIONS:
        missing = sorted(set(symbols) - found.keys())
        wanted = set(calendar.sessions(calendar.offset(session, -sessions), session)) if missing else set()
        days = [day for day in lake.days(table) if day in wanted]
        if days:
            closes = lake.read(table, days).filter(pl.col("symbol").is_in(missing)).sort("date")
            found |= dict(closes.group_by("symbol").agg(pl.col("close").last()).iter_rows())
    return found


def _mean_volumes(form: StrategyForm, lake: Lake, session: date, symbols: pl.Series) -> dict[str, float]:
    """Mean daily volumes in shares of the session, known by its close; fewer sessions where the prices begin."""
    days = form.calendar.sessions(form.prices.start, session)[-VOLUME_SESSIONS:]
    rows = lake.read(f"{form.prices.key}/prices", days).filter(pl.col("symbol").is_in(symbols.implode()))
    return mean_daily_volumes(rows, len(days))


def _corporate_actions(deployment: Deployment, form: StrategyForm, session: date) -> Iterator[CorporateAction]:
    """What became known since the account was last booked, up to `session`; nothing before its first proposal."""
    lake, account = deployment.lake, form.trading.account
    after = booked_through(deployment.database, account)
    if after is None or after >= session:
        return
    days = form.calendar.sessions(after, session)[1:]
    prices = lake.read(f"{form.prices.key}/prices", days)
    before = pl.concat([lake.read(f"{form.prices.key}/prices", [after]), prices])
    for previous, day in pairwise([after, *days]):
        closed = before.filter(pl.col("date") == previous).select("symbol", "close").drop_nulls()
        closes = {symbol: _exact(close) for symbol, close in closed.iter_rows()}
        yield from fees_of_borrowed(deployment.database, account, after, day, previous, closes)
    for row in prices.filter((pl.col("dividend") > 0) | (pl.col("split_ratio") != 1)).iter_rows(named=True):
        if row["dividend"] > 0:
            yield CorporateAction(row["date"], row["symbol"], "dividend", _exact(row["dividend"]))
        if row["split_ratio"] != 1:
            yield CorporateAction(row["date"], row["symbol"], "split", _exact(row["split_ratio"]), _exact(row["close"]))
    for row in lake.read(f"{form.prices.key}/delistings", days).iter_rows(named=True):
        last = _last_prices(lake, f"{form.prices.key}/prices", form.calendar, row["last_session"], [row["symbol"]])
        if row["symbol"] in last:
            amount = None if row["return"] is None else _exact(row["return"])
            yield CorporateAction(row["date"], row["symbol"], "delisting", amount, _exact(last[row["symbol"]]))


def _exact(figure: float) -> Decimal:
    return Decimal(str(figure))
