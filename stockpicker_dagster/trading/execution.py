"""Executing an approved proposal: once, exactly, from its stored bytes, resumable after a crash at any instant.

A claim in the ledger makes it once, a lock with a fencing number makes it one process. Every order's intent is
committed before the broker hears of it, under an id that follows from the proposal, so that whoever resumes asks the
broker by that id instead of sending again. Reductions end before openings begin, and one slice of openings before the
next. The approval is read from the database; neither the lake nor Dagster is asked for anything.

One call is one pass over the orders: it learns what has become of them, sends what may be sent, and says where things
stand. All that it knows is in the ledger, so that any process can make the next pass.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, Engine, insert, select, update

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import intents, ledger, locks, risk
from stockpicker_dagster.trading.accounts import Halted, halt_in_force, read_account
from stockpicker_dagster.trading.approval import approvals_needed, approvers, verify_signature
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
from stockpicker_dagster.trading.brokers.by_security import by_security
from stockpicker_dagster.trading.clocks import Clocks, ClockSkew, latest_time
from stockpicker_dagster.trading.intents import UNKNOWN, Attempt, Key, key_of
from stockpicker_dagster.trading.locks import Fenced, Lock
from stockpicker_dagster.trading.order_times import EXCHANGE, window_of
from stockpicker_dagster.trading.proposal import (
    ProposedOrder,
    StoredProposal,
    denier_of,
    lapse,
    load,
    read_proposal,
    state_of,
)
from stockpicker_dagster.trading.rebalance import PHASES
from stockpicker_dagster.trading.reconciliation import import_fills, reconcile
from stockpicker_dagster.trading.signatures import TrustedKeys
from stockpicker_dagster.trading.stopwatch import Stopwatch
from stockpicker_dagster.trading.tickers import Tickers

if TYPE_CHECKING:  # the price sources bring a data frame library, which execution has no use for
    from stockpicker_dagster.market.sources import Venue

ZERO = Decimal(0)
PATIENCE = timedelta(minutes=10)
"""How long a slice of limit orders may wait for fills before the rest of it is cancelled and the next one goes."""

ASK_AFTERWARDS_S = 5.0
"""Where handing over an order took longer, it is asked once more whether it may be sent, and cancelled if not."""

CHECK_AGAIN_S = 30.0
"""How long one check of the limits on fresh figures is good for while the orders of a phase go out."""

MINUTE = timedelta(minutes=1)

Clock = Callable[[], datetime]
Checkpoint = Callable[[str], None]
"""Called with the name of each step as it is reached; a test makes it raise, which is a crash at that step."""

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

Stage = tuple[str, int]
"""What goes together: a phase, and in it a slice."""


class NotApproved(StockPickerError):
    """The proposal is not approved in the database, or not any more."""


class WrongBroker(StockPickerError):
    """The broker at hand is not the one that the proposal was made for, or live trading is switched off."""


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


def execute(
    engine: Engine,
    reference: str,
    broker: Broker,
    venue: "Venue",
    now: datetime | Clock,
    checkpoint: Checkpoint = no_checkpoint,
    *,
    trusted: TrustedKeys | None = None,
    lock: Lock | None = None,
) -> ExecutionReport:
    """Executes, resumes or settles the proposal whose digest starts with `reference`; an ended one is only reported.

    `now` is the time, or a clock that is read before every order. `trusted` are the keys whose signatures are believed;
    a live proposal executes nothing without. `lock` is the account's, where the caller holds it already. Raises
    `UnknownProposal`, `DigestMismatch`, `WrongBroker`, `NotApproved`, `NotSigned`, `Halted` or `LockHeld`; then nothing
    was sent by this call. `Fenced`, `ClockSkew` and `BrokerUnavailable` stop it in the middle, and it can be resumed.
    """
    clock: Clock = now if callable(now) else lambda: now
    found = load(engine, reference)
    broker = by_security(broker, Tickers(found.document.tickers))
    _refuse_other_broker(engine, found, broker)
    if found.state in ("executed", "aborted"):
        return _report_ended(engine, found)
    real = not found.document.venue_simulated and _real(broker)
    clocks = Clocks(clock, engine, broker, found.document.mode, real)
    own = lock or locks.take(engine, found.document.account)
    try:
        if found.state != "executing":
            _refuse_other_number(found, broker)
            for earlier in _making_way(engine, found, clocks.now(), trusted):
                wound_down = _Execution(engine, earlier, broker, venue, clocks, checkpoint, own).wind_down(found.id)
                if wound_down is not None:
                    return replace(wound_down, proposal=found.id)
            _claim(engine, found.id, clocks.now(), own, trusted)
            checkpoint("claimed")
        else:
            _refuse_forged_claim(engine, found, trusted)
        return _Execution(engine, found, broker, venue, clocks, checkpoint, own).run()
    finally:
        if lock is None:
            locks.release(engine, own)


def observe(engine: Engine, reference: str) -> ExecutionReport:
    """Where the execution of a proposal stands, by what the ledger knows; nothing is asked and nothing sent."""
    found = load(engine, reference)
    if found.state in ("executed", "aborted"):
        return _report_ended(engine, found)
    if found.state not in ("approved", "executing"):
        return ExecutionReport(found.id, "nothing", f"proposal {found.id} is {found.state}")
    with engine.connect() as connection:
        orders = _executed_orders(connection, found, {})
    doing = "is being executed" if found.state == "executing" else "waits for its execution"
    return ExecutionReport(
        found.id, "working", f"proposal {found.id} {doing} by the trader of account {found.document.account!r}", orders
    )


def _making_way(
    engine: Engine, found: StoredProposal, now: datetime, trusted: TrustedKeys | None
) -> list[StoredProposal]:
    """The executions of the account that an approved flattening ends; raises as `_refuse_unapproved`."""
    if found.document.kind != "flatten" or now >= found.document.decidable_until:
        return []
    wanted = (
        select(ledger.executions.c.proposal)
        .join(ledger.proposals, ledger.executions.c.proposal == ledger.proposals.c.id)
        .where(ledger.proposals.c.account == found.document.account, ledger.executions.c.status == "claimed")
    )
    with engine.connect() as connection:
        _refuse_unapproved(connection, found, trusted)
        return [read_proposal(connection, identity) for identity in connection.execute(wanted).scalars().all()]


def _real(broker: Broker) -> bool:
    """Whether the broker lives in real time: one that is its own market follows whatever clock it is given."""
    return not isinstance(broker, AuctionBroker) and not broker.capabilities.manual


def _refuse_other_broker(engine: Engine, found: StoredProposal, broker: Broker) -> None:
    document = found.document
    with engine.connect() as connection:
        account = read_account(connection, document.account)
    at_hand = (broker.name, broker.account_id, account.mode, account.base_url, account.broker_account)
    proposed = (document.broker, document.account, document.mode, document.base_url, document.broker_account)
    if at_hand != proposed or broker.base_url != document.base_url:
        raise WrongBroker(
            f"proposal {found.id} is for {document.broker} account {document.account!r} ({document.mode}, "
            f"{document.base_url}), not for {', '.join(str(part) for part in at_hand)}; propose again on the account "
            "as it is now"
        )
    if document.mode == "live" and not account.live_enabled:
        raise WrongBroker(f"live trading is switched off for account {document.account!r}; nothing is sent")


def _refuse_other_number(found: StoredProposal, broker: Broker) -> None:
    """Asks the broker whose account it is, before anything is claimed for it."""
    wanted = found.document.broker_account
    if wanted is None:
        return
    status = broker.account()
    if status.number != wanted:
        raise WrongBroker(
            f"proposal {found.id} is for the broker's account {wanted}, but the credentials at hand are for "
            f"{status.number}; nothing is sent"
        )
    if status.blocked:
        raise WrongBroker(f"the broker takes no orders for account {wanted}: {status.blocked}")


def _claim(engine: Engine, identity: str, now: datetime, lock: Lock, trusted: TrustedKeys | None) -> None:
    """Takes the one execution that the proposal allows; raises `NotApproved`, `NotSigned` or `Halted`."""
    too_late = False
    with transaction(engine) as connection:
        found = read_proposal(connection, identity)
        ledger.lock_account(connection, found.document.account)
        locks.check(connection, lock)
        state = state_of(connection, identity)
        if state == "executing":
            return
        _refuse_unapproved(connection, found, trusted)
        _refuse_other_strategy(connection, found)
        too_late = latest_time(connection, found.document.mode, now) >= found.document.decidable_until
        if too_late:
            lapse(connection, identity, now)
        else:
            if found.document.kind != "flatten":
                _refuse_if_halted(engine, found.document.account)
            connection.execute(
                insert(ledger.executions).values(
                    digest=found.digest, proposal=identity, status="claimed", detail="", claimed_at=now
                )
            )
            _mark_equity(connection, found, now)
    if too_late:
        raise NotApproved(
            f"proposal {identity} was approved but expired at {found.document.decidable_until:%Y-%m-%d %H:%M:%S} UTC; "
            "run the strategy again for a new one"
        )


def _refuse_unapproved(connection: Connection, found: StoredProposal, trusted: TrustedKeys | None) -> None:
    """Raises `NotApproved` or `NotSigned` unless enough people have approved, as the database and the keys say now."""
    state = state_of(connection, found.id)
    if state != "approved":
        by = denier_of(connection, found.id)
        raise NotApproved(f"proposal {found.id} is {state}{f' by {by}' if by else ''}, so nothing is executed")
    if found.document.mode == "live" and not trusted:
        raise NotApproved(
            f"proposal {found.id} is live, and no key is trusted here to have signed its approval; nothing is executed"
        )
    given, needed = len(approvers(connection, found, trusted)), approvals_needed(connection, found)
    if given < needed:
        raise NotApproved(f"proposal {found.id} has {given} of the {needed} approvals it needs; nothing is executed")


def _refuse_other_strategy(connection: Connection, found: StoredProposal) -> None:
    """Raises `NotApproved` where an administrator has taken the account from the strategy since it was proposed."""
    document = found.document
    allowed = read_account(connection, document.account).allowed_strategies
    if document.kind == "rebalance" and allowed is not None and document.strategy not in allowed:
        raise NotApproved(
            f"proposal {found.id} is of strategy {document.strategy!r}, which may not trade in account "
            f"{document.account!r} any more; allowed there: {', '.join(allowed) or 'none'}; nothing is executed"
        )


def _refuse_forged_claim(engine: Engine, found: StoredProposal, trusted: TrustedKeys | None) -> None:
    """Raises `NotApproved` or `NotSigned` where a claim is there that no approval led to: somebody wrote it by hand.

    Who has lost the right to approve since the claim does not matter any more.
    """
    decided, outcome = ledger.decisions, ledger.outcomes
    live = found.document.mode != "paper"
    needed = 1 if found.document.kind == "flatten" or not live else found.document.approvals_needed
    with engine.connect() as connection:
        approved = connection.execute(
            select(outcome.c.proposal).where(outcome.c.proposal == found.id, outcome.c.outcome == "approved")
        ).one_or_none()
        rows = connection.execute(
            select(decided).where(decided.c.proposal == found.id, decided.c.decision == "approve")
        ).all()
    if live:
        for row in rows:
            verify_signature(found, row, trusted or TrustedKeys())
    if approved is None or len(rows) < needed:
        raise NotApproved(
            f"proposal {found.id} was claimed with {len(rows)} of the {needed} approvals that it needs; the database "
            "was changed behind the ledger, so nothing more is sent"
        )


def _refuse_if_halted(engine: Engine, account: str) -> None:
    reason = halt_in_force(engine, account)
    if reason is not None:
        raise Halted(f"account {account!r} is {reason}; `stockpicker resume` lifts it")


def _mark_equity(connection: Connection, found: StoredProposal, now: datetime) -> None:
    """Keeps what the account was worth when the first proposal for a session was claimed."""
    document, table = found.document, ledger.equity_marks
    here = (table.c.account == document.account) & (table.c.session == document.trade_session)
    if connection.execute(select(table.c.equity).where(here)).one_or_none() is None:
        connection.execute(
            insert(table).values(
                account=document.account, session=document.trade_session, equity=document.equity, marked_at=now
            )
        )


class _Execution:
    """One pass over one claimed proposal."""

    def __init__(
        self,
        engine: Engine,
        found: StoredProposal,
        broker: Broker,
        venue: "Venue",
        clocks: Clocks,
        checkpoint: Checkpoint,
        lock: Lock,
    ) -> None:
        self._engine = engine
        self._found = found
        self._document = found.document
        self._broker = broker
        self._venue = venue
        self._clocks = clocks
        self._checkpoint = checkpoint
        self._lock = lock
        self._notes: dict[Key, str] = {}
        """Why an order was not sent."""
        self._absent: set[str] = set()
        """Which attempts the broker said it does not know."""
        self._stopped: list[str] = []
        """Why nothing more is sent, in this pass or any other."""
        self._waits: list[str] = []
        """Why the rest is not sent yet."""
        self._pending: list[BrokerOrder] = []
        """What the broker said and is not entered yet: it goes with the next intent, in one transaction."""

    def run(self) -> ExecutionReport:
        self._learn()
        if halted := self._halt():
            return self._halted(halted)
        if refusal := self._drift():
            if not self._attempts():
                return self._end("aborted", f"{refusal}; propose again")
            self._stop(f"nothing more is sent: {refusal}")
        for stage in self._stages():
            if self._stopped:
                break
            if halted := self._send(stage):
                return self._halted(halted)
            self._settle()
            self._lose_patience(stage)
            if self._waits or (self._under_way(stage) and not self._broker.capabilities.holds_openings):
                break
        return self._conclude()

    def _stages(self) -> list[Stage]:
        found = {(order.phase, order.slice) for order in self._document.orders}
        return sorted(found, key=lambda stage: (PHASES.index(stage[0]), stage[1]))

    def _conclude(self) -> ExecutionReport:
        books = reconcile(self._engine, self._broker, self._clocks.now())
        if not books.agrees:
            return self._halted(f"halted by reconciliation: {'; '.join(books.differences)}")
        tried = self._attempts()
        if not tried and self._waits:
            return self._report("working", "; ".join(self._waits))
        if not tried:
            return self._end("aborted", "; ".join(self._stopped) or "every order was left out")
        working = sum(attempt.status == "working" for attempt in tried.values())
        unknown = [attempt for attempt in tried.values() if attempt.status == UNKNOWN]
        if working:
            return self._report("working", self._describe_wait(working))
        if unknown and not all(self._never_arrives(attempt) for attempt in unknown):
            message = (
                f"the broker does not know {len(unknown)} orders that may have been sent; look there, then execute "
                "again"
            )
            return self._report("working", message)
        if self._waits:
            return self._report("working", "; ".join(self._waits))
        self._close_unknown("it never reached the broker")
        return self._end("finished", "; ".join(self._stopped))

    def _close_unknown(self, reason: str) -> None:
        """Enters orders as ended that the broker does not know and never will."""
        unknown = [attempt for attempt in self._attempts().values() if attempt.status == UNKNOWN]
        self._record([BrokerOrder(a.id, "", "cancelled", ZERO, self._notes.get(a.key, reason)) for a in unknown])

    def _describe_wait(self, working: int) -> str:
        if isinstance(self._broker, AuctionBroker):
            return f"{working} orders wait for the open of {self._document.trade_session}; execute again later"
        return f"{working} orders are working at the broker; execute again later"

    def wind_down(self, successor: str) -> ExecutionReport | None:
        """Ends this execution for a flattening: cancels what is working; a report while something has not ended."""
        said = f"given up for the flattening {successor}"
        self._learn()
        self._cancel_working(said)
        waiting = [
            attempt
            for attempt in self._attempts().values()
            if not attempt.ended and not (attempt.status == UNKNOWN and self._never_arrives(attempt))
        ]
        if waiting:
            return self._report("working", f"{len(waiting)} orders of proposal {self._found.id} have yet to end")
        self._close_unknown(said)
        self._end("finished", said)
        return None

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, stage: Stage) -> str | None:
        """Sends what may be sent of a stage; returns why trading is halted, if it is."""
        waiting = self._sendable(stage)
        if not waiting:
            return None
        if reason := self._not_yet(waiting):
            self._waits.append(reason)
            return None
        checked_at = -CHECK_AGAIN_S
        allowed: dict[Key, Decimal] = {}
        try:
            for order, before in waiting:
                if halted := self._halt():
                    return halted
                if time.monotonic() - checked_at >= CHECK_AGAIN_S:
                    self._flush()
                    allowed, checked_at = self._allowed(stage, waiting), time.monotonic()
                if key_of(order) not in allowed:
                    continue
                if self._too_late(order) or self._too_many():
                    break
                self._send_one(order, before, allowed[key_of(order)])
        finally:
            self._flush()
        return None

    def _sendable(self, stage: Stage) -> list[tuple[ProposedOrder, Attempt | None]]:
        """The orders of a stage of which something may be sent, each with the attempt that is there already."""
        tried = self._attempts()
        found: list[tuple[ProposedOrder, Attempt | None]] = []
        for order in self._document.orders:
            before = tried.get(key_of(order))
            if (order.phase, order.slice) != stage:
                continue
            lost = before is not None and before.status == UNKNOWN and before.id in self._absent
            again = before is not None and before.may_be_tried_again and self._has_ended(before)
            if before is None or again or (lost and self._may_send_again(before)):
                found.append((order, before))
        return found

    def _has_ended(self, attempt: Attempt) -> bool:
        """Whether the broker, asked once more, agrees that an attempt has ended; one that lives is cancelled again.

        What the ledger says of it may have been written by somebody else, or may have been said too early.
        """
        answer = self._broker.find(attempt.id)
        if isinstance(answer, BrokerOrder) and answer.filled_quantity != attempt.filled:
            self._import_fills()
        if isinstance(answer, BrokerOrder) and answer.status in TERMINAL:
            return True
        if isinstance(answer, Absent) and self._broker.capabilities.absence_is_final(
            attempt.sent_at, self._clocks.now()
        ):
            return True
        if isinstance(answer, BrokerOrder):
            self._broker.cancel(attempt.id, attempt.reason)
        self._waits.append(f"an order of {attempt.key[0]} that a halt cancelled has yet to end at the broker")
        return False

    def _may_send_again(self, attempt: Attempt) -> bool:
        able, now = self._broker.capabilities, self._clocks.now()
        return able.absence_is_final(attempt.sent_at, now) and able.may_send_again(attempt.sent_at, now)

    def _not_yet(self, waiting: Sequence[tuple[ProposedOrder, Attempt | None]]) -> str | None:
        """Why orders wait: for the broker's window, and day orders for the market to be open, so that their limit and
        their time are about this session."""
        if isinstance(self._broker, AuctionBroker):
            return None
        if self._clocks.real and not self._broker.capabilities.manual:
            for time_in_force in sorted({order.time_in_force for order, _ in waiting}):
                opens = self._window(time_in_force)[0]
                if self._clocks.now() < opens:
                    return f"{len(waiting)} orders wait until {opens:%Y-%m-%d %H:%M} UTC, when they are taken"
        if not any(order.time_in_force == "day" for order, _ in waiting):
            return None
        if self._broker.clock().is_open is False:
            return f"{len(waiting)} orders wait for the market to open"
        return None

    def _window(self, time_in_force: str) -> tuple[datetime, datetime]:
        """From when until when orders are sent for the session that the proposal trades in."""
        session = self._document.trade_session
        opens, closes = window_of(self._broker.capabilities, time_in_force, session)
        if time_in_force == "day":
            opens = trading_calendar(EXCHANGE).open_at(session)
        return opens, closes

    def _too_late(self, order: ProposedOrder) -> bool:
        end = self._end_of_sending(order)
        if self._clocks.now() < end:
            return False
        self._stop(f"{order.phase} were not sent: the proposal expired at {end:%Y-%m-%d %H:%M:%S} UTC", order)
        return True

    def _end_of_sending(self, order: ProposedOrder) -> datetime:
        if order.time_in_force == "day":
            return self._document.expires_at
        if self._clocks.real and self._document.decide_by is not None:
            return min(self._document.expires_at, self._window(order.time_in_force)[1])
        return self._document.decidable_until

    def _too_many(self) -> bool:
        """Whether the account has sent as much within a minute as its limit allows; the rest goes with a later pass."""
        sent = intents.sent_since(self._engine, self._document.account, self._clocks.now() - MINUTE)
        breach = risk.check_burst(sent, self._limits())
        if breach is not None:
            self._waits.append(breach.message)
        return breach is not None

    def _send_one(self, order: ProposedOrder, before: Attempt | None, quantity: Decimal) -> None:
        self._checkpoint("before_intent")
        intent, quantity = self._commit_intent(order, before, quantity)
        self._checkpoint("after_intent")
        request = OrderRequest(
            client_order_id=intent,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            phase=order.phase,
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            collar_low=order.collar_low,
            collar_high=order.collar_high,
            trade_session=self._document.trade_session,
            submitted_at=self._clocks.now(),
            limit_price=order.limit_price,
            not_after=self._end_of_sending(order),
            sent_before=before is not None and before.status == UNKNOWN,
            last_word=lambda: self._last_word(order),
        )
        watch = Stopwatch()
        answer = self._broker.submit(request)
        self._checkpoint("after_submit")
        if watch.seconds() > ASK_AFTERWARDS_S:
            self._cancel_if_too_late(order, intent)
        if isinstance(answer, Unknown):
            self._notes[key_of(order)] = answer.reason
        elif isinstance(answer, Rejected) and answer.reason.startswith(intents.HALTED):
            # Not sent for a halt, and it may be sent after it, as what the halt cancelled.
            self._pending.append(BrokerOrder(intent, "", "cancelled", ZERO, answer.reason))
        elif isinstance(answer, Rejected):
            self._pending.append(BrokerOrder(intent, "", "rejected", ZERO, answer.reason))
        else:
            self._pending.append(replace(answer, client_order_id=intent))
        self._checkpoint("after_record")

    def _last_word(self, order: ProposedOrder) -> str | None:
        """Why an order that was committed to must not leave now, or None; asked by whoever sends it, as it leaves.

        A process may have stood still since it committed to it, for longer than anything lasts that was true then.
        Raises `Fenced`, `NotApproved` or `ClockSkew` where nothing more may be sent at all.
        """
        if halted := self._halt():
            return halted if halted.startswith(intents.HALTED) else f"{intents.HALTED}: {halted}"
        with self._engine.connect() as connection:
            locks.check(connection, self._lock)
            self._check_holding(connection)
            now = self._clocks.at_once(connection)
        end = self._end_of_sending(order)
        return None if now < end else f"the proposal expired at {end:%Y-%m-%d %H:%M:%S} UTC, before it could be sent"

    def _cancel_if_too_late(self, order: ProposedOrder, intent: str) -> None:
        """Cancels an order that was handed over slowly and must not be sent any more: it may have left too late."""
        try:
            why = self._last_word(order)
        except (Fenced, NotApproved, ClockSkew) as reason:
            self._broker.cancel(intent, str(reason))
            raise
        if why is not None:
            self._broker.cancel(intent, why)

    def _check_holding(self, connection: Connection) -> None:
        """Raises `NotApproved` unless the proposal is being executed, and the account is its own to trade."""
        if state_of(connection, self._found.id) != "executing":
            raise NotApproved(f"the execution of proposal {self._found.id} has ended; nothing more is sent")
        if not ledger.holds_account(connection, self._found.id):
            raise NotApproved(f"proposal {self._found.id} makes way for a flattening; nothing more of it is sent")

    def _commit_intent(self, order: ProposedOrder, before: Attempt | None, quantity: Decimal) -> tuple[str, Decimal]:
        """Commits to the next attempt, or to sending an unknown one again; says under which id and for how much."""
        # Read before the transaction: a broker's clock may have to be waited for.
        now = self._clocks.now()
        with transaction(self._engine) as connection:
            self._own(connection)
            intents.record(connection, self._pending, now)
            self._pending.clear()
            self._check_holding(connection)
            if before is not None and before.status == UNKNOWN:
                intents.mark_sent_again(connection, before.id, now)
                return before.id, before.quantity
            attempt = 1 if before is None else before.attempt + 1
            return intents.commit(connection, self._found, order, quantity, attempt, self._lock, now), quantity

    def _own(self, connection: Connection) -> None:
        """Takes the account's row, and makes sure that this process still is the one that sends."""
        ledger.lock_account(connection, self._document.account)
        locks.check_and_renew(connection, self._lock)

    # -- what may be sent ---------------------------------------------------------------------------------------------

    def _halt(self) -> str | None:
        """Why nothing may be sent now. A flattening passes a halt, but not a ledger that cannot be read."""
        reason = halt_in_force(self._engine, self._document.account)
        if reason is not None and self._document.kind == "flatten" and not reason.startswith("the ledger cannot"):
            return None
        return reason

    def _drift(self) -> str | None:
        """Why the account is not the one that was planned on, our own fills aside; None if it is.

        A flattening closes what is there: no more of anything than was approved, and nothing across zero.
        """
        if self._document.kind == "flatten":
            return self._foreign_orders()
        expected = dict(self._document.holdings)
        with self._engine.connect() as connection:
            for symbol, quantity in _own_fills(connection, self._found.id):
                expected[symbol] = expected.get(symbol, ZERO) + quantity
        expected = {symbol: quantity for symbol, quantity in expected.items() if quantity}
        held = self._broker.positions()
        if held != expected:
            # A fill may have come in between the two questions.
            self._import_fills()
            with self._engine.connect() as connection:
                expected = dict(self._document.holdings)
                for symbol, quantity in _own_fills(connection, self._found.id):
                    expected[symbol] = expected.get(symbol, ZERO) + quantity
            held = self._broker.positions()
        names = {*held, *expected}
        if changed := sorted(name for name in names if held.get(name, ZERO) != expected.get(name, ZERO)):
            return f"holdings have changed since the plan was made: {', '.join(changed)}"
        return self._foreign_orders()

    def _foreign_orders(self) -> str | None:
        own = {attempt.id for attempt in self._attempts().values()}
        foreign = [order for order in self._broker.open_orders() if order.client_order_id not in own]
        if foreign:
            return f"{len(foreign)} orders of others are open on the account"
        return None

    def _allowed(self, stage: Stage, waiting: Sequence[tuple[ProposedOrder, Attempt | None]]) -> dict[Key, Decimal]:
        """How much of each order passes the limits on fresh figures; why others do not is noted."""
        held = self._broker.positions()
        tried = self._attempts()
        traded = self._traded()
        under_way = [
            replace(order, quantity=tried[key_of(order)].quantity - tried[key_of(order)].filled)
            for order in self._document.orders
            if key_of(order) in tried and tried[key_of(order)].status in ("working", UNKNOWN)
        ]
        candidates = [
            replace(order, quantity=quantity)
            for order, before in waiting
            if (quantity := self._sendable_quantity(order, before, held, traded, bool(under_way))) > 0
        ]
        # What is under way, or comes after this stage, is part of the book that the limits are about.
        sent = {key_of(order) for order in (*candidates, *under_way)} | set(tried)
        stages = self._stages()
        coming = set(stages[stages.index(stage) + 1 :])
        later = [
            order
            for order in self._document.orders
            if key_of(order) not in sent and (order.phase, order.slice) in coming
        ]
        state = risk.AccountState(self._broker.cash(), held)
        again = {key_of(order) for order in candidates}
        basket = [*candidates, *(order for order in under_way if key_of(order) not in again), *later]
        passing = self._within_limits(basket, state)
        return {key_of(order): order.quantity for order in passing if key_of(order) in again}

    def _sendable_quantity(
        self,
        order: ProposedOrder,
        before: Attempt | None,
        held: Mapping[str, Decimal],
        traded: Mapping[Key, Decimal],
        under_way: bool,
    ) -> Decimal:
        """What is left of an order, which never takes the position across zero; zero where it must not go at all.

        `traded` is what fills add up to, which may be more than the broker said when it cancelled the order.
        """
        left = order.quantity - traded.get(key_of(order), ZERO)
        if before is not None:
            left = before.quantity if before.status == UNKNOWN else min(left, before.quantity - before.filled)
        position = held.get(order.symbol, ZERO)
        if order.phase == "reductions":
            closable = max(position if order.side == "sell" else -position, ZERO)
            if closable < left:
                self._notes[key_of(order)] = f"only {closable} shares of {order.symbol} were held to {order.side}"
            return min(left, closable) if before is None or before.status != UNKNOWN else left
        if position * order.signed_quantity < 0 and not (under_way and self._broker.capabilities.holds_openings):
            self._notes[key_of(order)] = (
                f"to {order.side} {order.symbol} would cross zero: {position} shares are still held"
            )
            return ZERO
        return left

    def _within_limits(self, orders: Sequence[ProposedOrder], state: risk.AccountState) -> list[ProposedOrder]:
        """The orders less those that break a limit by themselves; none where the basket that remains breaks one."""
        prices, unpriced = self._fresh_prices()
        market = self._market()
        left_out: set[Key] = set()
        for order in orders:
            if order.phase == "openings" and order.symbol in unpriced:
                self._notes[key_of(order)] = f"{order.symbol} has no fresh price"
                left_out.add(key_of(order))
        while True:
            remaining = [order for order in orders if key_of(order) not in left_out]
            breaches = self._breaches(remaining, state, prices, market)
            own = {(breach.subject, breach.phase): breach.message for breach in breaches if breach.phase}
            broken = [order for order in remaining if (order.symbol, order.phase) in own]
            if not broken:
                break
            for order in broken:
                self._notes[key_of(order)] = own[order.symbol, order.phase]
                left_out.add(key_of(order))
        if breaches:
            self._stop("nothing more is sent: " + "; ".join(breach.message for breach in breaches), *remaining)
            return []
        return remaining

    def _limits(self) -> risk.Limits:
        with self._engine.connect() as connection:
            account = read_account(connection, self._document.account)
        return risk.strictest(self._document.limits, account.limits)

    def _breaches(
        self,
        orders: Sequence[ProposedOrder],
        state: risk.AccountState,
        prices: Mapping[str, Decimal],
        market: risk.Market,
    ) -> list[risk.Breach]:
        age = (self._document.trade_session - self._document.session).days
        if self._document.kind == "flatten":
            return []  # it only reduces, and no limit keeps a book from becoming smaller
        found = risk.check(orders, self._limits(), state, prices, age, market)
        # The paper broker keeps the collar itself, at the very price it fills at.
        return [breach for breach in found if breach.limit != "collar" or not isinstance(self._broker, AuctionBroker)]

    def _market(self) -> risk.Market:
        shorts = sorted({order.symbol for order in self._document.orders if order.side == "short"})
        table = ledger.equity_marks
        here = (table.c.account == self._document.account) & (table.c.session == self._document.trade_session)
        with self._engine.connect() as connection:
            start = connection.execute(select(table.c.equity).where(here)).scalar_one_or_none()
        return risk.Market(
            volumes=self._document.volumes,
            borrow=self._broker.borrow(shorts) if shorts else {},
            start_equity=start,
            buying_power=self._broker.account().buying_power,
        )

    def _fresh_prices(self) -> tuple[dict[str, Decimal], set[str]]:
        """The latest prices of everything concerned, and the names for which only the planned one is known."""
        planned, names = self._document.prices, sorted(self._document.prices)
        if self._broker.capabilities.manual:
            # Nobody quotes here; the list tells the person within which prices to trade.
            return dict(planned), set()
        if isinstance(self._broker, AuctionBroker):
            return {**planned, **(self._venue.opens(self._document.trade_session, names) or {})}, set()
        fresh: dict[str, Decimal] = {}
        oldest = timedelta(days=int(self._limits().price_age_days))
        for symbol, quote in self._broker.quotes(names).items():
            price = (quote.bid + quote.ask) / 2 if quote.bid and quote.ask else quote.last
            if price is not None and price > 0 and self._clocks.now() - quote.at <= oldest:
                fresh[symbol] = price
        return {**planned, **fresh}, set(names) - set(fresh)

    # -- what has become of it ----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Lets an auction broker fill at the open, once that is known, and takes note of what happened."""
        waiting = sorted({attempt.key[0] for attempt in self._attempts().values() if attempt.status == "working"})
        if waiting and isinstance(self._broker, AuctionBroker):
            session = self._document.trade_session
            opens = self._venue.opens(session, waiting)
            if opens is not None:
                self._checkpoint("before_fill")
                self._broker.fill_at_open(session, opens, self._clocks.now())
                self._checkpoint("after_fill")
        self._learn()

    def _learn(self) -> None:
        """Asks by id for every attempt that is not known to have ended, and enters new fills."""
        answers = []
        for attempt in self._attempts().values():
            if attempt.ended:
                continue
            answer = self._broker.find(attempt.id)
            if isinstance(answer, Absent):
                self._absent.add(attempt.id)
                if attempt.status == "working" and self._clocks.now().date() > self._document.trade_session:
                    # Some brokers show the orders of a session in that session alone.
                    gone = "the broker does not show it any more, and its session is over"
                    answers.append(BrokerOrder(attempt.id, "", "expired", attempt.filled, gone))
            elif isinstance(answer, BrokerOrder) and (answer.status, answer.filled_quantity) != (
                attempt.status,
                attempt.filled,
            ):
                answers.append(replace(answer, client_order_id=attempt.id))
        self._record(answers)
        self._import_fills()

    def _lose_patience(self, stage: Stage) -> None:
        """Cancels what a slice of limit orders has left after a while, so that the rest of the book can go on."""
        if isinstance(self._broker, AuctionBroker):
            return
        now = self._clocks.now()
        if self._broker.capabilities.manual:
            if now >= self._document.expires_at:
                self._cancel_working("the session is over")
            return
        late = {
            attempt.key: attempt
            for attempt in self._attempts().values()
            if attempt.status == "working" and attempt.key[1:] == stage and now - attempt.sent_at >= PATIENCE
        }
        answers = [
            self._broker.cancel(late[key_of(order)].id, "not filled in time")
            for order in self._document.orders
            if order.order_type == "limit" and key_of(order) in late
        ]
        self._record([answer for answer in answers if isinstance(answer, BrokerOrder)])

    def _never_arrives(self, attempt: Attempt) -> bool:
        """Whether the broker, asked, does not know the order and never will.

        A broker that forgets ids is believed while it would still know this one, and once the session is over to which
        every order is limited; in between nobody can tell.
        """
        able, now = self._broker.capabilities, self._clocks.now()
        if attempt.id not in self._absent or not able.absence_is_final(attempt.sent_at, now):
            return False
        return able.may_send_again(attempt.sent_at, now) or now.date() > self._document.trade_session

    def _halted(self, reason: str) -> ExecutionReport:
        """Cancels what is working, which is always allowed, and leaves the rest for after a resumption."""
        self._flush()
        self._cancel_working(f"{intents.HALTED}: {reason}" if not reason.startswith(intents.HALTED) else reason)
        return self._report("halted", reason)

    def _cancel_working(self, said: str) -> None:
        answers = [
            self._broker.cancel(attempt.id, said)
            for attempt in self._attempts().values()
            if attempt.status in ("working", UNKNOWN) and attempt.id not in self._absent
        ]
        self._record([replace(a, reason=said) for a in answers if isinstance(a, BrokerOrder)])
        self._import_fills()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self._record(pending)

    def _record(self, answers: Iterable[BrokerOrder]) -> None:
        """Enters what the broker said of orders, all in one transaction."""
        said = list(answers)
        if not said:
            return
        now = self._clocks.now()
        with transaction(self._engine) as connection:
            self._own(connection)
            intents.record(connection, said, now)

    def _import_fills(self) -> None:
        import_fills(self._engine, self._broker, self._clocks.now())

    def _end(self, status: Literal["finished", "aborted"], detail: str) -> ExecutionReport:
        self._checkpoint("before_end")
        now = self._clocks.now()
        with transaction(self._engine) as connection:
            self._own(connection)
            connection.execute(
                update(ledger.executions)
                .where(ledger.executions.c.digest == self._found.digest, ledger.executions.c.status == "claimed")
                .values(status=status, detail=detail, ended_at=now)
            )
            ledger.release_account(connection, self._found.id)
        orders = self._orders()
        return ExecutionReport(self._found.id, status, detail or _summary(orders), orders)

    def _report(self, status: Literal["working", "halted"], message: str) -> ExecutionReport:
        return ExecutionReport(self._found.id, status, message, self._orders())

    # -- reading the ledger -------------------------------------------------------------------------------------------

    def _attempts(self) -> dict[Key, Attempt]:
        """The newest attempt at each order that was committed to."""
        with self._engine.connect() as connection:
            return {attempt.key: attempt for attempt in intents.attempts(connection, self._found.id)}

    def _traded(self) -> dict[Key, Decimal]:
        """The shares of each order that have changed hands, by its fills."""
        with self._engine.connect() as connection:
            filled = _fills_by_order(connection, self._found.id)
        return {key: sum((shares for shares, _ in parts), ZERO) for key, parts in filled.items()}

    def _under_way(self, stage: Stage) -> bool:
        """Whether the broker may still trade something of the stage."""
        return any(attempt.key[1:] == stage and not attempt.ended for attempt in self._attempts().values())

    def _stop(self, reason: str, *orders: ProposedOrder) -> None:
        self._notes.update({key_of(order): reason for order in orders})
        self._stopped.append(reason)

    def _orders(self) -> tuple[ExecutedOrder, ...]:
        with self._engine.connect() as connection:
            return _executed_orders(connection, self._found, self._notes)


def _own_fills(connection: Connection, proposal: str) -> list[tuple[str, Decimal]]:
    fills, committed = ledger.fills, ledger.order_intents
    wanted = (
        select(fills.c.symbol, fills.c.quantity)
        .join(committed, fills.c.intent == committed.c.id)
        .where(committed.c.proposal == proposal)
    )
    return [(row.symbol, row.quantity) for row in connection.execute(wanted)]


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
    connection: Connection, found: StoredProposal, notes: Mapping[Key, str]
) -> tuple[ExecutedOrder, ...]:
    tried = {attempt.key: attempt for attempt in intents.attempts(connection, found.id)}
    filled = _fills_by_order(connection, found.id)
    return tuple(
        _executed(order, tried.get(key_of(order)), filled.get(key_of(order), ()), notes.get(key_of(order), ""))
        for order in found.document.orders
    )


def _fills_by_order(connection: Connection, proposal: str) -> dict[Key, list[tuple[Decimal, Decimal]]]:
    """Shares, positive, and price of every fill of each order of the proposal."""
    filled: dict[Key, list[tuple[Decimal, Decimal]]] = {}
    fills, committed = ledger.fills, ledger.order_intents
    for row in connection.execute(
        select(committed.c.symbol, committed.c.phase, committed.c.slice, fills.c.quantity, fills.c.price)
        .join(fills, fills.c.intent == committed.c.id)
        .where(committed.c.proposal == proposal)
    ):
        filled.setdefault((row.symbol, row.phase, row.slice), []).append((abs(row.quantity), row.price))
    return filled


def _executed(
    order: ProposedOrder, attempt: Attempt | None, parts: Sequence[tuple[Decimal, Decimal]], note: str
) -> ExecutedOrder:
    shares = sum((quantity for quantity, _ in parts), ZERO)
    paid = sum((quantity * price for quantity, price in parts), ZERO)
    return ExecutedOrder(
        symbol=order.symbol,
        side=order.side,
        phase=order.phase,
        quantity=order.quantity,
        status="unsent" if attempt is None else attempt.status,
        filled=shares,
        price=paid / shares if shares else None,
        reason=(attempt.reason if attempt is not None else "") or note,
    )


def _summary(orders: Sequence[ExecutedOrder]) -> str:
    complete = sum(order.filled == order.quantity for order in orders)
    return f"{complete} of {len(orders)} orders filled completely"
