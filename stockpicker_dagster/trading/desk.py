"""The trading desk: what the assets and the commands call to propose, execute, halt and reconcile.

It puts the rooms of trading together in their order and turns what stands in the way into an answer with a reason. The
arithmetic is in `rebalance` and `risk`, the guarantees in `proposal`, `approval` and `execution`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Engine, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import accounts, ledger, risk
from stockpicker_dagster.trading.accounts import Account, AccountBoundElsewhere, Halted, halt_in_force
from stockpicker_dagster.trading.approval import expire_due
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.execution import Clock, ExecutionReport, NotApproved, execute
from stockpicker_dagster.trading.proposal import ProposalDocument, ProposalRefused, build, register, state_of
from stockpicker_dagster.trading.rebalance import Bounds, Plan, UnpricedHolding, plan_orders
from stockpicker_dagster.trading.reconciliation import Reconciliation, reconcile

if TYPE_CHECKING:  # the price sources bring a data frame library, which trading has no use for
    from stockpicker_dagster.market.sources import Venue

ZERO = Decimal(0)


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
    corporate_actions: Iterable[CorporateAction],
    venue: "Venue",
    venue_name: str,
    latest_stored: date,
    model_id: str,
    code_version: str,
    data_version: str,
    limits: Mapping[str, object],
    now: datetime,
) -> ProposalOutcome:
    """Turns the account-free plan of `session` into a registered proposal, or says why there is none.

    `targets` are signed weights of equity and `reference_prices` closing prices of `session` in currency as traded, for
    the targets and for everything held (`held_symbols`). `corporate_actions` are those after `booked_through` up to
    `session`; they are booked before planning. The account is made on paper if there is none. There is no proposal,
    with a reason, where `session` is not the venue's current one, the window is closed, trading is halted, the books
    differ, a decided proposal is not ended, a limit would be broken, a held name has no price, or nothing is to trade.
    Raises `InvalidInput` for limits that do not exist or loosen the account's, and for figures that cannot be.
    """
    account = accounts.ensure_paper_account(engine, account_id, now)
    allowed = risk.tightened(account.limits, limits)
    weights, prices = _decimals(targets, "the target weight"), _decimals(reference_prices, "the price")
    try:
        closes = _open_until(venue, session, latest_stored, now)
        broker = _ready_account(engine, account, strategy, venue, now)
        _book(engine, broker, corporate_actions, session, now)
        held, cash = broker.positions(), broker.cash()
        plan, equity = _plan(account, allowed, weights, prices, held, cash, session, venue)
        document = build(
            account,
            strategy=strategy,
            author=author,
            limits=allowed,
            session=session,
            trade_session=venue.trade_session(session),
            venue_name=venue_name,
            venue_simulated=venue.simulated,
            cash=cash,
            equity=equity,
            holdings=held,
            targets=weights,
            prices=prices,
            plan=plan,
            model_id=model_id,
            data_version=data_version,
            code_version=code_version,
            created_at=now,
            expires_at=closes,
        )
        identity = register(engine, document)
    except (_NoProposal, ProposalRefused, UnpricedHolding, AccountBoundElsewhere) as reason:
        return ProposalOutcome(None, None, str(reason))
    return ProposalOutcome(
        identity, document, f"proposal {identity} waits for a decision until {closes:%Y-%m-%d %H:%M} UTC"
    )


def execute_approved(
    engine: Engine, strategy: str, session: date, venue: "Venue", now: datetime | Clock
) -> ExecutionReport:
    """Executes, resumes or settles what was approved of a strategy's session; nothing approved is a report saying so.

    A halt, or an approval that no longer holds, is a report too. Raises only what must never pass unseen, such as
    stored bytes that do not match their digest.
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
    try:
        return execute(engine, approved.id, PaperBroker(engine, approved.account), venue, now)
    except Halted as reason:
        return ExecutionReport(approved.id, "halted", str(reason))
    except NotApproved as reason:
        return ExecutionReport(approved.id, "nothing", str(reason))


def held_symbols(engine: Engine, account_id: str) -> list[str]:
    """The names that the account holds, whose prices a proposal needs; none where there is no such account yet."""
    with engine.connect() as connection:
        return sorted(ledger.held_quantities(connection, account_id))


def booked_through(engine: Engine, account_id: str) -> date | None:
    """The session up to which the account's corporate actions are booked; None before its first proposal."""
    with engine.connect() as connection:
        return connection.execute(
            select(ledger.accounts.c.booked_through).where(ledger.accounts.c.id == account_id)
        ).scalar_one_or_none()


def halt(engine: Engine, account_id: str | None, who: str, reason: str, now: datetime) -> int:
    """Halts one account, or all where `account_id` is None, and cancels its working orders; says how many."""
    accounts.halt(engine, account_id, who, reason, now)
    with engine.connect() as connection:
        every = connection.execute(select(ledger.paper_accounts.c.account)).scalars().all()
    cancelled = 0
    for identity in every if account_id is None else [account_id]:
        broker = PaperBroker(engine, identity)
        for order in broker.open_orders():
            broker.cancel(order.client_order_id, f"halted by {who}: {reason}")
            cancelled += 1
    return cancelled


def reconcile_account(engine: Engine, account_id: str, now: datetime) -> Reconciliation:
    """Compares the account's books with the broker's, and halts it if they differ; raises `UnknownAccount`."""
    with engine.connect() as connection:
        accounts.read_account(connection, account_id)
    return reconcile(engine, PaperBroker(engine, account_id), now)


def _open_until(venue: "Venue", session: date, latest_stored: date, now: datetime) -> datetime:
    window = venue.window(session, latest_stored, now)
    if window is None:
        raise _NoProposal(f"{session} is not the current session (the last one stored is {latest_stored})")
    if now < window.opens:
        raise _NoProposal(f"proposals for {session} open at {window.opens:%Y-%m-%d %H:%M} UTC")
    if now >= window.closes:
        raise _NoProposal(f"the window for {session} closed at {window.closes:%Y-%m-%d %H:%M} UTC")
    return window.closes


def _ready_account(engine: Engine, account: Account, strategy: str, venue: "Venue", now: datetime) -> PaperBroker:
    """The account's broker, with earlier work settled and the strategy bound; raises `_NoProposal` where it is not."""
    if account.mode != "paper" or account.broker != PaperBroker.name:
        raise _NoProposal(
            f"account {account.id!r} is {account.mode} at {account.broker}; only paper accounts trade here"
        )
    if reason := halt_in_force(engine, account.id):
        raise _NoProposal(f"account {account.id!r} is {reason}")
    broker = PaperBroker(engine, account.id)
    expire_due(engine, now)
    _settle_earlier(engine, broker, venue, now)
    books = reconcile(engine, broker, now)
    if not books.agrees:
        raise _NoProposal(f"account {account.id!r} is halted, its books differ: {'; '.join(books.differences)}")
    with transaction(engine) as connection:
        ledger.lock_account(connection, account.id)
        accounts.bind_strategy(connection, account.id, strategy)
    return broker


def _settle_earlier(engine: Engine, broker: PaperBroker, venue: "Venue", now: datetime) -> None:
    """Settles an execution whose orders were waiting for an open that is known by now."""
    with engine.connect() as connection:
        holder = connection.execute(
            select(ledger.open_proposals.c.proposal).where(ledger.open_proposals.c.account == broker.account_id)
        ).scalar_one_or_none()
        under_way = holder is not None and state_of(connection, holder) == "executing"
    if holder is None or not under_way:
        return
    report = execute(engine, holder, broker, venue, now)
    if report.status not in ("finished", "aborted"):
        raise _NoProposal(f"proposal {holder} is still being executed: {report.message}")


def _book(
    engine: Engine, broker: PaperBroker, actions: Iterable[CorporateAction], session: date, now: datetime
) -> None:
    events = list(actions)
    ahead = [event for event in events if event.session > session]
    if ahead:
        raise InvalidInput(
            f"the {ahead[0].kind} of {ahead[0].symbol} is on {ahead[0].session}, after the planned session {session}; "
            "pass events up to that session only"
        )
    broker.apply_corporate_actions(events, now)
    with transaction(engine) as connection:
        ledger.lock_account(connection, broker.account_id)
        connection.execute(
            update(ledger.accounts).where(ledger.accounts.c.id == broker.account_id).values(booked_through=session)
        )


def _plan(
    account: Account,
    limits: risk.Limits,
    targets: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    held: Mapping[str, Decimal],
    cash: Decimal,
    session: date,
    venue: "Venue",
) -> tuple[Plan, Decimal]:
    """The orders and the equity they are sized on; raises `_NoProposal` where none are wanted or a limit is broken."""
    unpriced = sorted(set(held) - set(prices))
    if unpriced:
        raise UnpricedHolding(f"no price on {session} for {', '.join(unpriced)}, held in account {account.id!r}")
    state = risk.AccountState(cash, held)
    equity = state.equity(prices)
    if equity <= 0:
        raise _NoProposal(f"the equity of account {account.id!r} is {equity:.2f}; nothing can be sized on it")
    bounds = Bounds(limits.position, limits.gross, limits.order_notional)
    plan = plan_orders(targets, prices, held, equity, account.policy, bounds=bounds)
    if not plan.orders:
        raise _NoProposal(f"nothing to trade: account {account.id!r} holds what {session} asks for")
    age = (venue.trade_session(session) - session).days
    breaches = risk.check(plan.orders, limits, state, prices, age)
    if breaches:
        raise _NoProposal("limits would be broken: " + "; ".join(breach.message for breach in breaches))
    return plan, equity


def _decimals(figures: Mapping[str, float], what: str) -> dict[str, Decimal]:
    """Floats as the decimals that they are written as; raises `InvalidInput` for one that is not finite."""
    exact = {symbol: Decimal(str(figure)) for symbol, figure in figures.items()}
    for symbol, figure in exact.items():
        if not figure.is_finite():
            raise InvalidInput(f"{what} of {symbol} is {figure}; leave the name out where there is none")
    return exact
