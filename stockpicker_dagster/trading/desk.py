"""The trading desk: what the assets and the commands call to propose, execute, halt and reconcile.

It puts the rooms of trading together in their order and turns what stands in the way into an answer with a reason. The
arithmetic is in `rebalance` and `risk`, the guarantees in `proposal`, `approval` and `execution`.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Engine, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import accounts, ledger, risk
from stockpicker_dagster.trading.accounts import Account, AccountBoundElsewhere, Halted, halt_in_force
from stockpicker_dagster.trading.approval import expire_due
from stockpicker_dagster.trading.brokers import Broker, BrokerUnavailable, Capabilities
from stockpicker_dagster.trading.brokers.by_security import by_security
from stockpicker_dagster.trading.brokers.connections import capabilities_of, connect
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.clocks import ClockSkew
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.execution import Clock, ExecutionReport, NotApproved, execute, observe
from stockpicker_dagster.trading.locks import LockHeld
from stockpicker_dagster.trading.order_times import EXCHANGE, OrderTimes, rebalance_times
from stockpicker_dagster.trading.proposal import ProposalDocument, ProposalRefused, build, load, register, state_of
from stockpicker_dagster.trading.rebalance import Bounds, Plan, UnpricedHolding, plan_orders
from stockpicker_dagster.trading.rebalance import Venue as Tradable
from stockpicker_dagster.trading.reconciliation import Reconciliation, accept, reconcile
from stockpicker_dagster.trading.tickers import Tickers, known_tickers, tell_tickers, tickers_of
from stockpicker_dagster.trading.trader_reports import trader_of

if TYPE_CHECKING:  # the price sources bring a data frame library, which trading has no use for
    from stockpicker_dagster.market.sources import Venue

ZERO = Decimal(0)
_BASIS_POINT = Decimal("0.0001")
RECONCILED_WITHIN = timedelta(hours=1)
"""How old the agreement of the books may be that a plan for a live account rests on."""
_NAMED = 5
"""How many names a sentence lists."""

Connect = Callable[[Engine, str], Broker]
"""From an account to its broker."""


@dataclass(frozen=True)
class ProposalOutcome:
    """The registered proposal, or the reason why there is none (`id` and `document` are then None)."""

    id: str | None
    document: ProposalDocument | None
    reason: str


class _NoProposal(Exception):
    """Carries the reason out of the middle of `propose`: an answer on its way out, not an error."""


def propose(
    engine: Engine,
    *,
    account_id: str,
    strategy: str,
    author: str,
    session: date,
    targets: Mapping[str, float],
    reference_prices: Mapping[str, float],
    volumes: Mapping[str, float],
    corporate_actions: Iterable[CorporateAction],
    venue: "Venue",
    venue_name: str,
    latest_stored: date,
    model_id: str,
    code_version: str,
    data_version: str,
    limits: Mapping[str, object],
    now: datetime,
    tickers: Mapping[str, str | None] | None = None,
    connect: Connect = connect,
    run: str = "",
) -> ProposalOutcome:
    """Turns the account-free plan of `session` into a registered proposal, or says why there is none.

    `targets` are signed weights of equity and `reference_prices` closing prices of `session` in currency as traded, for
    the targets and for everything held (`held_symbols`). `volumes` are mean daily volumes in shares, as they count in
    `session`, up to its close: an opening is made as small as the limit on its share of it asks for, and a name without
    one is not opened. `corporate_actions` are those after `booked_through` up to `session`; the embedded broker books
    them before planning, a real one knows its own. `tickers` says what securities are called in the session traded in,
    where that is not their id (None: their ticker is another one's now). The account is made on paper if there is none.
    There is no proposal, with a reason, where `session` is not the venue's current one, the window is closed, trading
    is halted, the books differ, a decided proposal is not ended, a limit would be broken, the broker would refuse an
    order, a held name has no price, or nothing is to trade. Raises `InvalidInput` for limits that do not exist or
    loosen the account's, and for figures that cannot be.
    """
    account = accounts.ensure_paper_account(engine, account_id, now)
    allowed = risk.tightened(account.limits, limits)
    weights, prices = _decimals(targets, "the target weight"), _decimals(reference_prices, "the price")
    traded = _decimals(volumes, "the daily volume")
    try:
        able = capabilities_of(account.broker)
        _refuse_other_market(account, able, venue)
        closes = _open_until(venue, session, latest_stored, now)
        broker = _ready_account(engine, account, strategy, venue, now, tickers or {}, connect)
        _book(engine, account.id, broker, corporate_actions, session, now)
        books = _read_books(engine, account.id, broker)
        names, weights = _names(account, weights, books, tickers or {})
        plan, equity = _plan(account, allowed, able, weights, prices, traded, books, session, venue)
        times = _times(able, venue.trade_session(session), len(plan.orders), closes, now)
        document = build(
            account,
            strategy=strategy,
            author=author,
            limits=allowed,
            session=session,
            trade_session=venue.trade_session(session),
            venue_name=venue_name,
            venue_simulated=venue.simulated,
            cash=books.cash,
            equity=equity,
            holdings=books.held,
            targets=weights,
            prices=prices,
            plan=plan,
            volumes=traded,
            model_id=model_id,
            data_version=data_version,
            code_version=code_version,
            created_at=now,
            expires_at=closes if times is None else times.expires_at,
            run=run,
            decide_by=None if times is None else times.decide_by,
            auction_openings=times is None,
            auction_reductions=times is None or times.reductions == "opg",
            tickers=names.renamed,
        )
        _refuse_what_the_broker_would(document, able)
        identity = register(engine, document)
    except (_NoProposal, ProposalRefused, UnpricedHolding, AccountBoundElsewhere, BrokerUnavailable) as reason:
        return ProposalOutcome(None, None, str(reason))
    until = document.decidable_until
    sentence = f"proposal {identity} waits for a decision until {until:%Y-%m-%d %H:%M} UTC"
    return ProposalOutcome(identity, document, "; ".join([sentence, *_told_over_volume(plan, allowed, traded)]))


def execute_approved(
    engine: Engine,
    strategy: str,
    session: date,
    venue: "Venue",
    now: datetime | Clock,
    connect: Connect = connect,
) -> ExecutionReport:
    """Executes, resumes or settles what was approved of a strategy's session; nothing approved is a report saying so.

    A live proposal is only looked at: its trader executes it, and so it is where a trader has the account. A halt, a
    silent broker, or an approval that no longer holds, is a report too. Raises only what must never pass unseen, such
    as stored bytes that do not match their digest.
    """
    wanted = (
        select(ledger.proposals.c.id, ledger.proposals.c.account)
        .join(ledger.outcomes, ledger.outcomes.c.proposal == ledger.proposals.c.id)
        .where(
            ledger.proposals.c.strategy == strategy,
            ledger.proposals.c.session == session,
            ledger.outcomes.c.outcome == "approved",
        )
        .order_by(ledger.outcomes.c.sequence.desc())
        .limit(1)
    )
    with engine.connect() as connection:
        approved = connection.execute(wanted).one_or_none()
    if approved is None:
        return ExecutionReport(None, "nothing", f"no proposal of {strategy!r} for {session} is approved")
    if load(engine, approved.id).document.mode != "paper":
        return observe(engine, approved.id)
    try:
        return execute(engine, approved.id, connect(engine, approved.account), venue, now)
    except LockHeld:
        return observe(engine, approved.id)
    except (BrokerUnavailable, ClockSkew) as reason:
        return ExecutionReport(
            approved.id, "working", f"{reason}; execute again later", observe(engine, approved.id).orders
        )
    except Halted as reason:
        return ExecutionReport(approved.id, "halted", str(reason))
    except NotApproved as reason:
        return ExecutionReport(approved.id, "nothing", str(reason))


def executed_before(engine: Engine, strategy: str, session: date, newest: str | None) -> list[ExecutionReport]:
    """What the ledger knows of the session's other executions, oldest first: a flattening follows one, for example.

    `newest` is the proposal that is told of elsewhere.
    """
    wanted = (
        select(ledger.executions.c.proposal)
        .join(ledger.proposals, ledger.executions.c.proposal == ledger.proposals.c.id)
        .where(
            ledger.proposals.c.strategy == strategy,
            ledger.proposals.c.session == session,
            ledger.executions.c.proposal != (newest or ""),
            ledger.executions.c.status != "lapsed",
        )
        .order_by(ledger.executions.c.claimed_at, ledger.executions.c.proposal)
    )
    with engine.connect() as connection:
        earlier = connection.execute(wanted).scalars().all()
    return [observe(engine, proposal) for proposal in earlier]


def held_symbols(engine: Engine, account_id: str) -> list[str]:
    """The names that the account holds, whose prices a proposal needs; none where there is no such account yet."""
    with engine.connect() as connection:
        return sorted(ledger.held_quantities(connection, account_id))


def fees_of_borrowed(
    engine: Engine, account_id: str, since: date, session: date, previous: date, closes: Mapping[str, Decimal]
) -> list[CorporateAction]:
    """What borrowing costs over the nights from `previous` to `session`, by its `closes` in currency, one event a name.

    For every name that is held, or was traded after `since`: who was short by then is known when it is booked.
    """
    fills = ledger.fills
    with engine.connect() as connection:
        rate = accounts.read_account(connection, account_id).costs.borrow_bps_per_year * _BASIS_POINT
        wanted = select(fills.c.symbol).where(fills.c.account == account_id, fills.c.session > since)
        names = {*ledger.held_quantities(connection, account_id), *connection.execute(wanted).scalars()}
    years = Decimal((session - previous).days) / 365
    priced = sorted(name for name in names if closes.get(name, ZERO) > 0)
    return [CorporateAction(session, name, "borrow", closes[name] * rate * years) for name in priced if rate]


def booked_through(engine: Engine, account_id: str) -> date | None:
    """The session up to which the account's corporate actions are booked; None before its first proposal."""
    with engine.connect() as connection:
        return connection.execute(
            select(ledger.accounts.c.booked_through).where(ledger.accounts.c.id == account_id)
        ).scalar_one_or_none()


def halt(
    engine: Engine, account_id: str | None, who: str, reason: str, now: datetime, connect: Connect = connect
) -> int:
    """Halts one account, or all where `account_id` is None, and cancels its working orders; says how many.

    Orders of a live account are cancelled by its trader, which alone reaches the broker. So are those of another
    account whose broker is not reached from here; the halt itself stands in any case.
    """
    accounts.halt(engine, account_id, who, reason, now)
    with engine.connect() as connection:
        table = ledger.accounts
        every = (
            connection.execute(select(table.c.id).where(table.c.mode == "paper").order_by(table.c.id)).scalars().all()
        )
    cancelled = 0
    for identity in every if account_id is None else set(every) & {account_id}:
        with suppress(BrokerUnavailable, InvalidInput):
            broker = connect(engine, identity)
            open_orders = broker.open_orders()
            with engine.connect() as connection:
                own = ledger.own_intents(connection, identity, [order.client_order_id for order in open_orders])
            for order in open_orders:
                if order.client_order_id in own:
                    broker.cancel(order.client_order_id, f"halted by {who}: {reason}")
                    cancelled += 1
    return cancelled


def reconcile_account(engine: Engine, account_id: str, now: datetime, connect: Connect = connect) -> Reconciliation:
    """Compares the account's books with the broker's, and halts it if they differ.

    Raises `UnknownAccount`, `BrokerUnavailable`, or `InvalidInput` where this process has no credentials.
    """
    with engine.connect() as connection:
        accounts.read_account(connection, account_id)
    return reconcile(engine, connect(engine, account_id), now)


def accept_books(
    engine: Engine, account_id: str, who: str, reason: str, now: datetime, connect: Connect = connect
) -> Reconciliation:
    """Takes the broker's books for the truth, as a person decided; raises as `reconcile_account`, and as `accept`."""
    with engine.connect() as connection:
        accounts.read_account(connection, account_id)
    return accept(engine, connect(engine, account_id), who, reason, now)


@dataclass(frozen=True)
class _Books:
    """What a plan starts from: signed shares and cash, and signed shares that orders of others are still to trade."""

    held: Mapping[str, Decimal]
    cash: Decimal
    at_work: Mapping[str, Decimal] = field(default_factory=dict)


def _refuse_other_market(account: Account, able: Capabilities, venue: "Venue") -> None:
    """Orders for real stocks are never made of invented prices, nor of another exchange's."""
    if able.embedded:
        return
    if venue.simulated:
        raise _NoProposal(
            f"account {account.id!r} is at {account.broker}, where real stocks are traded, and the prices are "
            "invented; give the strategy an account on paper"
        )
    if venue.exchange != EXCHANGE:
        raise _NoProposal(
            f"account {account.id!r} is at {account.broker}, which trades here on the calendar {EXCHANGE}, and the "
            f"prices are of {venue.exchange}"
        )


def _open_until(venue: "Venue", session: date, latest_stored: date, now: datetime) -> datetime:
    window = venue.window(session, latest_stored, now)
    if window is None:
        raise _NoProposal(f"{session} is not the current session (the last one stored is {latest_stored})")
    if now < window.opens:
        raise _NoProposal(f"proposals for {session} open at {window.opens:%Y-%m-%d %H:%M} UTC")
    if now >= window.closes:
        raise _NoProposal(f"the window for {session} closed at {window.closes:%Y-%m-%d %H:%M} UTC")
    return window.closes


def _ready_account(
    engine: Engine,
    account: Account,
    strategy: str,
    venue: "Venue",
    now: datetime,
    tickers: Mapping[str, str | None],
    connect: Connect,
) -> Broker | None:
    """Makes the account ready to be planned on: earlier work settled, books agreeing, the strategy bound.

    Its broker; None where a trader alone reaches that, whose last agreement of the books has to be recent then. Raises
    `_NoProposal` where the account is not ready.
    """
    if reason := halt_in_force(engine, account.id):
        raise _NoProposal(f"account {account.id!r} is {reason}")
    expire_due(engine, now)
    broker = None
    if not capabilities_of(account.broker).embedded:
        tell_tickers(engine, account.id, tickers, now)
    if _has_trader(engine, account, now):
        _rely_on_trader(engine, account, now)
    else:
        broker = connect(engine, account.id)
        _settle_earlier(engine, broker, venue, now)
        books = reconcile(engine, broker, now)
        if not books.agrees:
            raise _NoProposal(f"account {account.id!r} is halted, its books differ: {'; '.join(books.differences)}")
    with transaction(engine) as connection:
        ledger.lock_account(connection, account.id)
        accounts.bind_strategy(connection, account.id, strategy)
        names = known_tickers(connection, account.id)
    return None if broker is None else by_security(broker, names)


def _has_trader(engine: Engine, account: Account, now: datetime) -> bool:
    if account.mode != "paper":
        return True
    trader = trader_of(engine, account.id)
    return trader is not None and trader.running(now)


def _rely_on_trader(engine: Engine, account: Account, now: datetime) -> None:
    trader = trader_of(engine, account.id)
    if trader is None or trader.reconciled_at is None or now - trader.reconciled_at > RECONCILED_WITHIN:
        said = (
            "never" if trader is None or trader.reconciled_at is None else f"{trader.reconciled_at:%Y-%m-%d %H:%M} UTC"
        )
        raise _NoProposal(
            f"the books of account {account.id!r} last agreed with the broker's: {said}; its trader has to run "
            f"(`stockpicker trader {account.id}`)"
        )
    holder = _holder(engine, account.id)
    if holder is not None:
        raise _NoProposal(f"proposal {holder} is still being executed by the trader of account {account.id!r}")


def _holder(engine: Engine, account_id: str) -> str | None:
    """The account's proposal that is being executed."""
    with engine.connect() as connection:
        holder = connection.execute(
            select(ledger.open_proposals.c.proposal).where(ledger.open_proposals.c.account == account_id)
        ).scalar_one_or_none()
        return holder if holder is not None and state_of(connection, holder) == "executing" else None


def _settle_earlier(engine: Engine, broker: Broker, venue: "Venue", now: datetime) -> None:
    """Settles an execution whose orders were waiting for an open that is known by now."""
    holder = _holder(engine, broker.account_id)
    if holder is None:
        return
    try:
        report = execute(engine, holder, broker, venue, now)
    except (LockHeld, ClockSkew) as reason:
        raise _NoProposal(f"proposal {holder} is still being executed: {reason}") from reason
    if report.status not in ("finished", "aborted"):
        raise _NoProposal(f"proposal {holder} is still being executed: {report.message}")


def _book(
    engine: Engine,
    account_id: str,
    broker: Broker | None,
    actions: Iterable[CorporateAction],
    session: date,
    now: datetime,
) -> None:
    events = list(actions)
    ahead = [event for event in events if event.session > session]
    if ahead:
        raise InvalidInput(
            f"the {ahead[0].kind} of {ahead[0].symbol} is on {ahead[0].session}, after the planned session {session}; "
            "pass events up to that session only"
        )
    if isinstance(broker, PaperBroker):
        broker.apply_corporate_actions(events, now)
    with transaction(engine) as connection:
        ledger.lock_account(connection, account_id)
        connection.execute(
            update(ledger.accounts).where(ledger.accounts.c.id == account_id).values(booked_through=session)
        )


def _read_books(engine: Engine, account_id: str, broker: Broker | None) -> _Books:
    """The books, which have just agreed with the broker's."""
    at_work: dict[str, Decimal] = {}
    for order in broker.open_orders() if broker is not None else ():
        left = (order.quantity or ZERO) - order.filled_quantity
        at_work[order.symbol] = at_work.get(order.symbol, ZERO) + (left if order.side == "buy" else -left)
    with engine.connect() as connection:
        return _Books(
            ledger.held_quantities(connection, account_id), accounts.read_account(connection, account_id).cash, at_work
        )


def _names(
    account: Account, weights: Mapping[str, Decimal], books: _Books, tickers: Mapping[str, str | None]
) -> tuple[Tickers, dict[str, Decimal]]:
    """What the broker calls everything concerned, and the targets that have a name there."""
    names, nameless = tickers_of({*weights, *books.held}, tickers)
    if stuck := sorted(nameless & set(books.held)):
        raise _NoProposal(
            f"{', '.join(stuck)}, held in account {account.id!r}, has no ticker of its own any more; close it at the "
            "broker, or say in the symbol changes what it is called"
        )
    return names, {symbol: weight for symbol, weight in weights.items() if symbol not in nameless}


def _times(able: Capabilities, trade_session: date, orders: int, closes: datetime, now: datetime) -> OrderTimes | None:
    """The deadlines at a real exchange; None at the embedded broker, which fills all of it in its venue's auction."""
    if able.embedded:
        return None
    times = rebalance_times(able, trade_session, orders, trading_calendar(EXCHANGE))
    if now >= min(times.decide_by, closes):
        raise _NoProposal(
            f"orders for {trade_session} had to be decided by {times.decide_by:%Y-%m-%d %H:%M} UTC to be sent in time"
        )
    return times


def _refuse_what_the_broker_would(document: ProposalDocument, able: Capabilities) -> None:
    """Nobody is asked to approve what the broker takes from nobody."""
    reasons = [
        f"{order.symbol}: {reason}"
        for order in document.orders
        if (reason := able.refusal("sp-", order.side, order.quantity, order.order_type, order.time_in_force))
    ]
    if reasons:
        raise _NoProposal(f"{len(reasons)} orders cannot be sent to {document.broker}: {'; '.join(reasons[:3])}")


def _plan(
    account: Account,
    limits: risk.Limits,
    able: Capabilities,
    targets: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    volumes: Mapping[str, Decimal],
    books: _Books,
    session: date,
    venue: "Venue",
) -> tuple[Plan, Decimal]:
    """The orders and the equity they are sized on; raises `_NoProposal` where none are wanted or a limit is broken."""
    unpriced = sorted(set(books.held) - set(prices))
    if unpriced:
        raise UnpricedHolding(f"no price on {session} for {', '.join(unpriced)}, held in account {account.id!r}")
    state = risk.AccountState(books.cash, books.held)
    equity = state.equity(prices)
    if equity <= 0:
        raise _NoProposal(f"the equity of account {account.id!r} is {equity:.2f}; nothing can be sized on it")
    may_open = risk.opening_shares(limits, volumes)
    bounds = Bounds(limits.position, limits.gross, limits.order_notional, may_open)
    tradable = Tradable(
        # Openings are limit orders, unless the broker is its own auction.
        fractional_longs=able.fractional_longs and ("limit", "day") in able.fractional_orders,
        fractional_holdings=able.fractional_longs,
    )
    plan = plan_orders(targets, prices, books.held, equity, account.policy, tradable, books.at_work, bounds)
    if not plan.orders:
        told = _told_over_volume(plan, limits, volumes)
        asked = f"may not trade what {session} asks for" if told else f"holds what {session} asks for"
        raise _NoProposal("; ".join([f"nothing to trade: account {account.id!r} {asked}", *told]))
    age = (venue.trade_session(session) - session).days
    breaches = risk.check(plan.orders, limits, state, prices, age, risk.Market(volumes=volumes))
    if breaches:
        raise _NoProposal("limits would be broken: " + "; ".join(breach.message for breach in breaches))
    return plan, equity


def _told_over_volume(plan: Plan, limits: risk.Limits, volumes: Mapping[str, Decimal]) -> list[str]:
    """What is opened less of than was planned, the first names with their figures; nothing where nothing is."""
    if not plan.over_volume:
        return []
    opened = {order.symbol: order.quantity for order in plan.orders if order.phase == "openings"}
    figures = [
        f"{opened.get(symbol, ZERO)} of {wanted} shares of {symbol}, whose mean daily volume is "
        + (f"{volumes[symbol]:.0f}" if symbol in volumes else "not known")
        for symbol, wanted in sorted(plan.over_volume.items())
    ]
    more = f" and {len(figures) - _NAMED} more" if len(figures) > _NAMED else ""
    return [f"the limit `volume_share` of {limits.volume_share} lets it open {', '.join(figures[:_NAMED])}{more}"]


def _decimals(figures: Mapping[str, float], what: str) -> dict[str, Decimal]:
    """Floats as the decimals that they are written as; raises `InvalidInput` for one that is not finite."""
    exact = {symbol: Decimal(str(figure)) for symbol, figure in figures.items()}
    for symbol, figure in exact.items():
        if not figure.is_finite():
            raise InvalidInput(f"{what} of {symbol} is {figure}; leave the name out where there is none")
    return exact
