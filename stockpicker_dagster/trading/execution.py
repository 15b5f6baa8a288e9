"""Executing an approved proposal: once, exactly, from its stored bytes, resumable after a crash at any instant.

A claim in the ledger makes it once. Every order's intent is committed before the broker hears of it, under an id that
follows from the proposal, so that whoever resumes asks the broker by that id instead of sending again. Reductions end
before openings begin. The approval is read from the database; neither the lake nor Dagster is asked for anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Engine, insert, select, update

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger, risk
from stockpicker_dagster.trading.accounts import Halted, halt_in_force, read_account
from stockpicker_dagster.trading.approval import approvals_given, approvals_needed
from stockpicker_dagster.trading.brokers import (
    TERMINAL,
    Absent,
    AuctionBroker,
    Broker,
    BrokerOrder,
    OrderRequest,
    Rejected,
    Unknown,
)
from stockpicker_dagster.trading.canonical import canonical_bytes, digest
from stockpicker_dagster.trading.proposal import (
    ProposedOrder,
    StoredProposal,
    denier_of,
    lapse,
    load,
    read_proposal,
    state_of,
)
from stockpicker_dagster.trading.rebalance import PHASES, Phase
from stockpicker_dagster.trading.reconciliation import import_fills, reconcile

if TYPE_CHECKING:  # the price sources bring a data frame library, which execution has no use for
    from stockpicker_dagster.market.sources import Venue

ZERO = Decimal(0)

Clock = Callable[[], datetime]
Checkpoint = Callable[[str], None]
"""Called with the name of each step as it is reached; a test makes it raise, which is a crash at that step."""

UNKNOWN = "unknown"
"""The status of an order that was committed to and of which the broker has not said anything yet."""

CHECKPOINTS = (
    "claimed",
    "before_intent",
    "after_intent",
    "after_submit",
    "after_record",
    "before_fill",
    "after_fill",
    "before_end",
)


class NotApproved(StockPickerError):
    """The proposal is not approved in the database, or not any more."""


class WrongBroker(StockPickerError):
    """The broker at hand is not the one that the proposal was made for."""


@dataclass(frozen=True)
class ExecutedOrder:
    """What became of one order: `filled` in shares, `price` the mean fill price in currency, None without a fill.

    `status` is the broker's, or `unsent`, or `unknown` while the broker has not been asked.
    """

    symbol: str
    side: str
    phase: str
    quantity: Decimal
    status: str
    filled: Decimal
    price: Decimal | None
    reason: str


@dataclass(frozen=True)
class ExecutionReport:
    """Where an execution stands. `nothing`: none was started. `working`: not ended; execute again later."""

    proposal: str | None
    status: Literal["nothing", "working", "halted", "finished", "aborted"]
    message: str
    orders: tuple[ExecutedOrder, ...] = ()


def no_checkpoint(_step: str) -> None:
    """The checkpoint of everyday use: nothing happens."""


def intent_id(account: str, proposal_digest: str, symbol: str, phase: str, slice_: int, attempt: int) -> str:
    """The id of an order's intent, which is its client id at the broker: the same order always has the same."""
    return "sp-" + digest(canonical_bytes([account, proposal_digest, symbol, phase, slice_, attempt]))[:40]


def execute(
    engine: Engine,
    reference: str,
    broker: Broker,
    venue: "Venue",
    now: datetime | Clock,
    checkpoint: Checkpoint = no_checkpoint,
) -> ExecutionReport:
    """Executes, resumes or settles the proposal whose digest starts with `reference`; an ended one is only reported.

    `now` is the time, or a clock that is read before every order. Raises `UnknownProposal`, `DigestMismatch`,
    `WrongBroker`, `NotApproved` or `Halted`; then nothing was sent by this call.
    """
    clock: Clock = now if callable(now) else lambda: now
    found = load(engine, reference)
    _refuse_other_broker(engine, found, broker)
    if found.state in ("executed", "aborted"):
        return _report_ended(engine, found)
    if found.state != "executing":
        _claim(engine, found.id, clock())
        checkpoint("claimed")
    return _Execution(engine, found, broker, venue, clock, checkpoint).run()


def _refuse_other_broker(engine: Engine, found: StoredProposal, broker: Broker) -> None:
    document = found.document
    with engine.connect() as connection:
        account = read_account(connection, document.account)
    at_hand = (broker.name, broker.account_id, account.mode, account.base_url)
    if at_hand != (document.broker, document.account, document.mode, document.base_url):
        raise WrongBroker(
            f"proposal {found.id} is for {document.broker} account {document.account!r} ({document.mode}, "
            f"{document.base_url}), not for {', '.join(at_hand)}; propose again on the account as it is now"
        )


def _claim(engine: Engine, identity: str, now: datetime) -> None:
    """Takes the one execution that the proposal allows; raises `NotApproved` or `Halted`."""
    too_late = False
    with transaction(engine) as connection:
        found = read_proposal(connection, identity)
        ledger.lock_account(connection, found.document.account)
        state = state_of(connection, identity)
        if state == "executing":
            return
        if state != "approved":
            by = denier_of(connection, identity)
            raise NotApproved(f"proposal {identity} is {state}{f' by {by}' if by else ''}, so nothing is executed")
        given, needed = approvals_given(connection, identity), approvals_needed(connection, found)
        if given < needed:
            raise NotApproved(
                f"proposal {identity} has {given} of the {needed} approvals it needs; nothing is executed"
            )
        too_late = now >= found.document.expires_at
        if too_late:
            lapse(connection, identity, now)
        else:
            _refuse_if_halted(engine, found.document.account)
            connection.execute(
                insert(ledger.executions).values(
                    digest=found.digest, proposal=identity, status="claimed", detail="", claimed_at=now
                )
            )
    if too_late:
        raise NotApproved(
            f"proposal {identity} was approved but expired at {found.document.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
            "run the strategy again for a new one"
        )


def _refuse_if_halted(engine: Engine, account: str) -> None:
    reason = halt_in_force(engine, account)
    if reason is not None:
        raise Halted(f"account {account!r} is {reason}; `stockpicker resume` lifts it")


class _Execution:
    """One claimed proposal on its way; all it knows is in the ledger, so that any process can take over."""

    def __init__(
        self,
        engine: Engine,
        found: StoredProposal,
        broker: Broker,
        venue: "Venue",
        clock: Clock,
        checkpoint: Checkpoint,
    ) -> None:
        self._engine = engine
        self._found = found
        self._document = found.document
        self._broker = broker
        self._venue = venue
        self._clock = clock
        self._checkpoint = checkpoint
        self._notes: dict[str, str] = {}
        """Why an order was not sent, by its intent's id."""
        self._absent: set[str] = set()
        """Which orders the broker said it does not know, by their intent's id."""
        self._stopped: list[str] = []
        """Why a whole phase was not sent."""

    def run(self) -> ExecutionReport:
        self._ask_broker()
        if halted := halt_in_force(self._engine, self._document.account):
            return self._halted(halted)
        if not self._statuses() and (refusal := self._drift()):
            return self._end("aborted", f"{refusal}; propose again")
        for phase in PHASES:
            if halted := self._send(phase):
                return self._halted(halted)
            self._settle()
            if self._stopped or (self._waiting() and not self._broker.capabilities.holds_openings):
                break
        return self._conclude()

    def _conclude(self) -> ExecutionReport:
        books = reconcile(self._engine, self._broker, self._clock())
        if not books.agrees:
            return self._halted(f"halted by reconciliation: {'; '.join(books.differences)}")
        statuses = self._statuses()
        if not statuses:
            return self._end("aborted", "; ".join(self._stopped) or "every order was left out")
        if waiting := len(self._waiting()):
            message = f"{waiting} orders wait for the open of {self._document.trade_session}; execute again later"
            return ExecutionReport(self._found.id, "working", message, self._orders())
        if unknown := list(statuses.values()).count(UNKNOWN):
            if not self._never_sent(statuses):
                message = (
                    f"the broker does not know {unknown} orders that may have been sent; look there, then execute again"
                )
                return ExecutionReport(self._found.id, "working", message, self._orders())
            self._close_never_sent(statuses)
        return self._end("finished", "; ".join(self._stopped))

    def _never_sent(self, statuses: Mapping[str, str]) -> bool:
        """Whether the broker, asked, has none of the unknown orders and none can still arrive there."""
        able = self._broker.capabilities
        table = ledger.order_intents
        wanted = select(table.c.id, table.c.created_at).where(table.c.proposal == self._found.id)
        with self._engine.connect() as connection:
            created = {row.id: row.created_at for row in connection.execute(wanted)}
        now = self._clock()
        return all(
            intent in self._absent and able.client_id_window is None and able.absence_is_final(created[intent], now)
            for intent, status in statuses.items()
            if status == UNKNOWN
        )

    def _close_never_sent(self, statuses: Mapping[str, str]) -> None:
        for intent, status in statuses.items():
            if status == UNKNOWN:
                reason = self._notes.get(intent, "it never reached the broker")
                self._record(BrokerOrder(intent, "", "cancelled", ZERO, reason))

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, phase: Phase) -> str | None:
        """Sends what may be sent of a phase; returns why trading is halted, if it is."""
        resendable = (None, UNKNOWN) if self._broker.capabilities.client_id_window is None else (None,)
        statuses = self._statuses()
        unsent = [
            order
            for order in self._document.orders
            if order.phase == phase and statuses.get(self._intent(order)) in resendable
        ]
        allowed = self._allowed(phase, unsent) if unsent else []
        for order in allowed:
            if halted := halt_in_force(self._engine, self._document.account):
                return halted
            if self._clock() >= self._document.expires_at:
                self._stop(unsent, f"{phase} were not sent: the proposal expired at {self._document.expires_at} UTC")
                break
            self._send_one(order)
        return None

    def _send_one(self, order: ProposedOrder) -> None:
        intent = self._intent(order)
        self._checkpoint("before_intent")
        self._commit_intent(order, intent)
        self._checkpoint("after_intent")
        request = OrderRequest(
            client_order_id=intent,
            symbol=order.symbol,
            side=order.side,
            quantity=order.quantity,
            phase=order.phase,
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            collar_low=order.collar_low,
            collar_high=order.collar_high,
            trade_session=self._document.trade_session,
            submitted_at=self._clock(),
        )
        answer = self._broker.submit(request)
        self._checkpoint("after_submit")
        if isinstance(answer, Unknown):
            self._note([order], answer.reason)
        elif isinstance(answer, Rejected):
            self._record(BrokerOrder(intent, "", "rejected", ZERO, answer.reason))
        else:
            self._record(answer)
        self._checkpoint("after_record")

    def _commit_intent(self, order: ProposedOrder, intent: str) -> None:
        with transaction(self._engine) as connection:
            ledger.lock_account(connection, self._document.account)
            if state_of(connection, self._found.id) != "executing":
                raise NotApproved(f"the execution of proposal {self._found.id} has ended; nothing more is sent")
            known = select(ledger.order_intents.c.id).where(ledger.order_intents.c.id == intent)
            if connection.execute(known).one_or_none() is not None:
                return
            connection.execute(
                insert(ledger.order_intents).values(
                    id=intent,
                    account=self._document.account,
                    proposal=self._found.id,
                    symbol=order.symbol,
                    side=order.side,
                    quantity=order.quantity,
                    phase=order.phase,
                    slice=1,
                    attempt=1,
                    created_at=self._clock(),
                )
            )

    # -- what may be sent ---------------------------------------------------------------------------------------------

    def _drift(self) -> str | None:
        """Why the account is not the one that was planned on, before the first order; None if it is."""
        held = self._broker.positions()
        planned = {symbol: quantity for symbol, quantity in self._document.holdings.items() if quantity}
        if held != planned:
            changed = sorted(symbol for symbol in {*held, *planned} if held.get(symbol) != planned.get(symbol))
            return f"holdings have changed since the plan was made: {', '.join(changed)}"
        if foreign := self._broker.open_orders():
            return f"{len(foreign)} orders of others are open on the account"
        return None

    def _allowed(self, phase: Phase, unsent: Sequence[ProposedOrder]) -> list[ProposedOrder]:
        """The orders of a phase that pass the limits on fresh positions and prices; why others do not is noted."""
        held = self._broker.positions()
        waiting = self._waiting()
        candidates = [order for order in unsent if waiting or not self._would_cross(order, held)]
        # What is under way, or comes after this phase, is part of the book that the limits are about.
        later = [] if phase == PHASES[-1] else [order for order in self._document.orders if order.phase != phase]
        state = risk.AccountState(self._broker.cash(), held)
        passing = self._within_limits([*candidates, *waiting, *later], state)
        return [order for order in candidates if order in passing]

    def _within_limits(self, orders: Sequence[ProposedOrder], state: risk.AccountState) -> list[ProposedOrder]:
        """The orders less those that break a limit by themselves; none where the basket that remains breaks one."""
        breaches = self._breaches(orders, state)
        own = {(breach.subject, breach.phase): breach.message for breach in breaches if breach.phase}
        broken = [order for order in orders if (order.symbol, order.phase) in own]
        if broken:
            for order in broken:
                self._note([order], own[order.symbol, order.phase])
            return self._within_limits([order for order in orders if order not in broken], state)
        if breaches:
            self._stop(orders, "nothing more is sent: " + "; ".join(breach.message for breach in breaches))
            return []
        return list(orders)

    def _breaches(self, orders: Sequence[ProposedOrder], state: risk.AccountState) -> list[risk.Breach]:
        with self._engine.connect() as connection:
            account = read_account(connection, self._document.account)
        limits = risk.strictest(self._document.limits, account.limits)
        age = (self._document.trade_session - self._document.session).days
        # The collar travels with each order and is kept by the broker, at the very price it fills at.
        found = risk.check(orders, limits, state, self._fresh_prices(), age)
        return [breach for breach in found if breach.limit != "collar"]

    def _would_cross(self, order: ProposedOrder, held: Mapping[str, Decimal]) -> bool:
        position = held.get(order.symbol, ZERO)
        crosses = order.phase == "openings" and position * order.signed_quantity < 0
        if crosses:
            self._note([order], f"to {order.side} {order.symbol} would cross zero: {position} shares are still held")
        return crosses

    def _fresh_prices(self) -> dict[str, Decimal]:
        opens = self._venue.opens(self._document.trade_session, sorted(self._document.prices)) or {}
        return {**self._document.prices, **opens}

    # -- what has become of it ----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Lets an auction broker fill at the open, once that is known, and takes note of what happened."""
        waiting = self._waiting()
        if waiting and isinstance(self._broker, AuctionBroker):
            session = self._document.trade_session
            opens = self._venue.opens(session, sorted({order.symbol for order in waiting}))
            if opens is not None:
                self._checkpoint("before_fill")
                self._broker.fill_at_open(session, opens, self._clock())
                self._checkpoint("after_fill")
        self._ask_broker()

    def _ask_broker(self) -> None:
        """Asks by id for every intent that is not known to have ended, and enters new fills."""
        answers = []
        for intent, status in self._statuses().items():
            answer = None if status in TERMINAL else self._broker.find(intent)
            if isinstance(answer, Absent):
                self._absent.add(intent)
            if isinstance(answer, BrokerOrder) and (status == UNKNOWN or answer.ended):
                answers.append(answer)
        self._record(*answers)
        import_fills(self._engine, self._broker, self._clock())

    def _record(self, *answers: BrokerOrder) -> None:
        """Enters what the broker said of orders, all in one transaction."""
        if not answers:
            return
        with transaction(self._engine) as connection:
            ledger.lock_account(connection, self._document.account)
            for answer in answers:
                _record_answer(connection, answer, self._clock())

    def _halted(self, reason: str) -> ExecutionReport:
        """Cancels what is working, which is always allowed, and leaves the rest for after a resumption."""
        answers = [self._broker.cancel(self._intent(order), reason) for order in self._waiting()]
        self._record(*[answer for answer in answers if isinstance(answer, BrokerOrder)])
        import_fills(self._engine, self._broker, self._clock())
        return ExecutionReport(self._found.id, "halted", reason, self._orders())

    def _end(self, status: Literal["finished", "aborted"], detail: str) -> ExecutionReport:
        self._checkpoint("before_end")
        with transaction(self._engine) as connection:
            ledger.lock_account(connection, self._document.account)
            connection.execute(
                update(ledger.executions)
                .where(ledger.executions.c.digest == self._found.digest, ledger.executions.c.status == "claimed")
                .values(status=status, detail=detail, ended_at=self._clock())
            )
            ledger.release_account(connection, self._found.id)
        orders = self._orders()
        return ExecutionReport(self._found.id, status, detail or _summary(orders), orders)

    # -- reading the ledger -------------------------------------------------------------------------------------------

    def _intent(self, order: ProposedOrder) -> str:
        return intent_id(self._document.account, self._found.digest, order.symbol, order.phase, 1, 1)

    def _statuses(self) -> dict[str, str]:
        """What the ledger knows of each committed intent: the broker's status, or UNKNOWN while it has none."""
        intents, told = ledger.order_intents, ledger.broker_orders
        wanted = (
            select(intents.c.id, told.c.status)
            .select_from(intents.outerjoin(told, intents.c.id == told.c.intent))
            .where(intents.c.proposal == self._found.id)
        )
        with self._engine.connect() as connection:
            return {intent: status or UNKNOWN for intent, status in connection.execute(wanted)}

    def _waiting(self) -> list[ProposedOrder]:
        """The orders that the broker has and that have not ended."""
        statuses = self._statuses()
        return [order for order in self._document.orders if statuses.get(self._intent(order)) == "working"]

    def _note(self, orders: Sequence[ProposedOrder], reason: str) -> None:
        self._notes.update({self._intent(order): reason for order in orders})

    def _stop(self, orders: Sequence[ProposedOrder], reason: str) -> None:
        self._note(orders, reason)
        self._stopped.append(reason)

    def _orders(self) -> tuple[ExecutedOrder, ...]:
        with self._engine.connect() as connection:
            return _executed_orders(connection, self._found, self._notes)


def _record_answer(connection: Connection, answer: BrokerOrder, now: datetime) -> None:
    said = {
        "broker_order": answer.broker_order_id,
        "status": answer.status,
        "filled_quantity": answer.filled_quantity,
        "reason": answer.reason,
        "updated_at": now,
    }
    table = ledger.broker_orders
    changed = connection.execute(update(table).where(table.c.intent == answer.client_order_id).values(**said))
    if not changed.rowcount:
        connection.execute(insert(table).values(intent=answer.client_order_id, **said))


def _report_ended(engine: Engine, found: StoredProposal) -> ExecutionReport:
    with engine.connect() as connection:
        ended = connection.execute(
            select(ledger.executions.c.status, ledger.executions.c.detail).where(
                ledger.executions.c.digest == found.digest
            )
        ).one()
        orders = _executed_orders(connection, found, {})
    return ExecutionReport(found.id, ended.status, ended.detail or _summary(orders), orders)


def _executed_orders(
    connection: Connection, found: StoredProposal, notes: Mapping[str, str]
) -> tuple[ExecutedOrder, ...]:
    intents, told = ledger.order_intents, ledger.broker_orders
    answers: dict[str, Any] = {
        row.id: row
        for row in connection.execute(
            select(intents.c.id, told.c.status, told.c.reason)
            .select_from(intents.outerjoin(told, intents.c.id == told.c.intent))
            .where(intents.c.proposal == found.id)
        )
    }
    filled: dict[str, list[tuple[Decimal, Decimal]]] = {}
    fills = ledger.fills
    for intent, quantity, price in connection.execute(
        select(fills.c.intent, fills.c.quantity, fills.c.price)
        .join(intents, fills.c.intent == intents.c.id)
        .where(intents.c.proposal == found.id)
    ):
        filled.setdefault(intent, []).append((abs(quantity), price))
    return tuple(_executed(order, found, answers, filled, notes) for order in found.document.orders)


def _executed(
    order: ProposedOrder,
    found: StoredProposal,
    answers: Mapping[str, Any],
    filled: Mapping[str, Sequence[tuple[Decimal, Decimal]]],
    notes: Mapping[str, str],
) -> ExecutedOrder:
    intent = intent_id(found.document.account, found.digest, order.symbol, order.phase, 1, 1)
    answer = answers.get(intent)
    parts = filled.get(intent, ())
    shares = sum((quantity for quantity, _ in parts), ZERO)
    paid = sum((quantity * price for quantity, price in parts), ZERO)
    status = "unsent" if answer is None else answer.status or UNKNOWN
    reason = (answer.reason if answer is not None else None) or notes.get(intent, "")
    return ExecutedOrder(
        symbol=order.symbol,
        side=order.side,
        phase=order.phase,
        quantity=order.quantity,
        status=status,
        filled=shares,
        price=paid / shares if shares else None,
        reason=reason,
    )


def _summary(orders: Sequence[ExecutedOrder]) -> str:
    complete = sum(order.filled == order.quantity for order in orders)
    return f"{complete} of {len(orders)} orders filled completely"
