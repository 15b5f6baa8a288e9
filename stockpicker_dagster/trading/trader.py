"""The trader: one process for one account, which alone holds its broker's credentials, executes, and reconciles.

It waits for what people have approved, and asks nobody else: neither the lake nor Dagster. Everything it knows is in
the ledger, so that it can be killed at any instant and started again, here or elsewhere. A rebalance waits until the
books have agreed once since the start; a flattening does not.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.trading import ledger, locks
from stockpicker_dagster.trading.accounts import Account, Halted, halt_in_force, read_account
from stockpicker_dagster.trading.approval import expire_due
from stockpicker_dagster.trading.brokers import Broker, BrokerUnavailable
from stockpicker_dagster.trading.brokers.connections import capabilities_of
from stockpicker_dagster.trading.clocks import ClockSkew
from stockpicker_dagster.trading.execution import execute
from stockpicker_dagster.trading.locks import Fenced, Lock
from stockpicker_dagster.trading.order_times import EXCHANGE
from stockpicker_dagster.trading.proposal import read_proposal, state_of
from stockpicker_dagster.trading.reconciliation import reconcile
from stockpicker_dagster.trading.signatures import TRUSTED_KEYS, TrustedKeys
from stockpicker_dagster.trading.trader_reports import tell

if TYPE_CHECKING:  # the price sources bring a data frame library, which a trader has no use for
    from stockpicker_dagster.market.sources import Window

log = logging.getLogger(__name__)

Connect = Callable[[Engine, str, Callable[[float], None]], Broker]
"""From an account to its broker, which calls the function given while it has to wait for its rate limit."""


@dataclass(frozen=True)
class Pace:
    """How often a trader does what, in seconds.

    `look`: for decisions and halts. `again`: between two passes over an execution that waits for the broker; each asks
    it a dozen questions and one for every working order, of the few hundred a minute that it allows. `trouble`: before
    another try where something is wrong. `reconcile`: between two comparisons of the books. `beat`: between two signs
    of life. `blind`: how long the ledger may be unreadable before working orders are cancelled. `stuck`: how long one
    step may take before the account is given up.
    """

    look: float = 0.5
    again: float = 10.0
    trouble: float = 10.0
    reconcile: float = 900.0
    beat: float = 5.0
    blind: float = 5.0
    stuck: float = 600.0


class _Stopping(StockPickerError):
    """The process was asked to end."""


class Trader:
    """The trader of `account`. `trusted` are the keys whose signatures on live decisions are believed.

    `now` tells the time in UTC. `stop`, once set, ends the trader after the order that is on its way.
    """

    def __init__(
        self,
        engine: Engine,
        account: str,
        connect: Connect,
        trusted: TrustedKeys,
        *,
        stop: threading.Event | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: Pace = Pace(),
    ) -> None:
        self._engine = engine
        self._account = account
        self._connect = connect
        self._trusted = trusted
        self._stop = stop or threading.Event()
        self._now = now
        self._pace = pace
        self._broker: Broker | None = None
        self._place: tuple[object, ...] = ()
        self._state, self._problem = "starting", ""
        self._reconciled_at: datetime | None = None
        self._reconcile_due = self._work_due = 0.0
        self._halted_before: str | None = None
        self._in_halt = False
        self._moved_at = time.monotonic()
        self._blind_since: float | None = None
        self._over, self._news = threading.Event(), threading.Event()

    def serve(self, rounds: int | None = None) -> None:
        """Trades until it is asked to stop, or for so many rounds.

        Raises `LockHeld` where another process trades for the account, `Fenced` where one has taken it over, and
        `InvalidInput` for an account that has no use for a trader, or that this one could not trade.
        """
        self._reached(self._refuse_useless())
        lock = locks.take(self._engine, self._account)
        started_at = self._now()
        beating = threading.Thread(target=self._beat, args=(lock, started_at), name="beat", daemon=True)
        beating.start()
        try:
            while not self._stop.is_set() and rounds != 0:
                rounds = None if rounds is None else rounds - 1
                self._round(lock)
                self._stop.wait(self._pace.look)
        except _Stopping:
            pass
        finally:
            self._over.set()
            self._news.set()
            beating.join()
            with suppress(SQLAlchemyError, Fenced):
                self._tell(lock, started_at, "stopped")
                locks.release(self._engine, lock)

    # -- one round ----------------------------------------------------------------------------------------------------

    def _round(self, lock: Lock) -> None:
        """Looks once, and does what is due."""
        self._moved_at = time.monotonic()
        try:
            with self._engine.connect() as connection:
                account = read_account(connection, self._account)
            halted = halt_in_force(self._engine, self._account)
            self._blind_since, self._in_halt = None, halted is not None
            if halted != self._halted_before:
                self._halted_before, self._work_due = halted, 0.0
            if time.monotonic() >= self._reconcile_due:
                self._reconcile(account)
            if time.monotonic() >= self._work_due:
                self._work(account, lock, halted)
        except SQLAlchemyError as error:
            self._blind(error)
        except (Fenced, _Stopping):
            raise
        except Halted:
            # What is working has still to be cancelled, by a round that knows of the halt.
            self._work_due = 0.0
        except StockPickerError as error:
            self._trouble(str(error))

    def _reconcile(self, account: Account) -> None:
        self._reconcile_due = time.monotonic() + self._pace.trouble
        found = reconcile(self._engine, self._reached(account), self._now(), wait=self._wait)
        for entered in found.entered:
            log.info("%s: entered %s", self._account, entered)
        if not found.agrees:
            self._trouble("the books differ: " + "; ".join(found.differences))
            return
        self._reconciled_at = self._now()
        self._reconcile_due = time.monotonic() + self._pace.reconcile
        self._problem = ""

    def _work(self, account: Account, lock: Lock, halted: str | None) -> None:
        """Makes one pass over what is approved or under way."""
        expire_due(self._engine, self._now())
        try:
            proposal = self._proposal(halted)
        except StockPickerError as error:
            self._trouble(f"nothing is executed: {error}")
            return
        if proposal is None:
            self._say(halted or "waits for an approved proposal")
            self._work_due = time.monotonic() + self._pace.look
            return
        self._say(f"executes proposal {proposal}")
        try:
            report = execute(
                self._engine,
                proposal,
                self._reached(account),
                RealTime(),
                self._now,
                self._step,
                trusted=self._trusted,
                lock=lock,
            )
        except (Fenced, _Stopping, Halted, BrokerUnavailable, ClockSkew):
            raise
        except StockPickerError as error:
            # Not approved any more, not signed, changed bytes, another broker: nothing is sent, and it is said.
            self._trouble(f"proposal {proposal} is not executed: {error}")
            self._work_due = time.monotonic() + self._pace.trouble
            return
        log.info("%s: proposal %s %s: %s", self._account, proposal, report.status, report.message)
        self._problem = ""
        self._say(f"proposal {proposal} {report.status}: {report.message}")
        self._work_due = time.monotonic() + self._pace.again

    def _proposal(self, halted: str | None) -> str | None:
        """What is to be executed now: what holds the account, once approved; or what a halt has to cancel."""
        with self._engine.connect() as connection:
            holder = connection.execute(
                select(ledger.open_proposals.c.proposal).where(ledger.open_proposals.c.account == self._account)
            ).scalar_one_or_none()
            state = None if holder is None else state_of(connection, holder)
            if holder is not None and state in ("approved", "executing"):
                flattens = read_proposal(connection, holder).document.kind == "flatten"
                started = state == "executing"
                if flattens or (started and halted) or (halted is None and self._reconciled_at is not None):
                    return str(holder)
                return None
            if halted is None:
                return None
            claimed = (
                select(ledger.executions.c.proposal)
                .join(ledger.proposals, ledger.executions.c.proposal == ledger.proposals.c.id)
                .where(ledger.proposals.c.account == self._account, ledger.executions.c.status == "claimed")
            )
            return connection.execute(claimed.limit(1)).scalar_one_or_none()

    # -- the broker ---------------------------------------------------------------------------------------------------

    def _reached(self, account: Account) -> Broker:
        """The broker of the account as it is set up now."""
        place = (account.broker, account.mode, account.base_url, account.broker_account)
        if self._broker is None or place != self._place:
            self._broker, self._place = self._connect(self._engine, self._account, self._wait), place
        return self._broker

    def _wait(self, seconds: float) -> None:
        """Passes time for the broker's rate limit; a stop or a new halt ends the pass instead."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._moved_at = time.monotonic()
            if self._stop.wait(min(left, self._pace.look)):
                raise _Stopping("the trader was asked to stop")
            if not self._in_halt and (reason := halt_in_force(self._engine, self._account)):
                raise Halted(f"account {self._account!r} is {reason}")

    def _step(self, step: str) -> None:
        """Between two orders: what is committed to is sent, and nothing is committed to after a stop."""
        self._moved_at = time.monotonic()
        if step == "before_intent" and self._stop.is_set():
            raise _Stopping("the trader was asked to stop")

    def _blind(self, error: SQLAlchemyError) -> None:
        """An unreadable ledger counts as halted: after a moment what is working is cancelled, and nothing is sent."""
        self._blind_since = self._blind_since or time.monotonic()
        log.error("%s: the ledger cannot be read: %s", self._account, type(error).__name__)
        if self._broker is None or time.monotonic() - self._blind_since < self._pace.blind:
            return
        self._in_halt = True
        with suppress(BrokerUnavailable):
            for order in self._broker.open_orders():
                if order.client_order_id.startswith("sp-"):
                    self._broker.cancel(order.client_order_id, "halted: the ledger cannot be read")

    # -- signs of life ------------------------------------------------------------------------------------------------

    def _beat(self, lock: Lock, started_at: datetime) -> None:
        """Renews the lock and says how things are, at once where there is news, as long as the trader moves."""
        while not self._over.is_set():
            if time.monotonic() - self._moved_at > self._pace.stuck:
                log.error("%s: stuck for %.0f s; the account is given up", self._account, self._pace.stuck)
                return
            self._news.clear()
            try:
                locks.renew(self._engine, lock)
                self._tell(lock, started_at, self._state)
            except Fenced:
                # The next order of the other thread meets it, too.
                self._stop.set()
                return
            except SQLAlchemyError as error:
                log.error("%s: no sign of life: %s", self._account, type(error).__name__)
            self._news.wait(self._pace.beat)

    def _tell(self, lock: Lock, started_at: datetime, state: str) -> None:
        tell(self._engine, lock, started_at, datetime.now(UTC), state, self._problem, self._reconciled_at)

    def _say(self, state: str) -> None:
        if state != self._state:
            log.info("%s: %s", self._account, state)
            self._state = state
            self._news.set()

    def _trouble(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s: %s", self._account, problem)
            self._problem = problem
            self._news.set()
        self._work_due = max(self._work_due, time.monotonic() + self._pace.again)

    def _refuse_useless(self) -> Account:
        with self._engine.connect() as connection:
            account = read_account(connection, self._account)
        if capabilities_of(account.broker).embedded:
            raise InvalidInput(
                f"account {self._account!r} is on paper and kept in the ledger; what is approved there is executed by "
                "`stockpicker approve` or the pages, and needs no trader"
            )
        if account.mode == "live" and not self._trusted:
            raise InvalidInput(
                f"account {self._account!r} is live, and no key is trusted here to have signed a decision; put the "
                f"line of `stockpicker account signing-key` into keys/{TRUSTED_KEYS} of this machine's state folder"
            )
        return account


@dataclass(frozen=True)
class RealTime:
    """The venue of a trader: real exchanges, which tell it nothing but their calendar; see `Venue`."""

    simulated: bool = False
    exchange: str = EXCHANGE

    def window(self, session: date, latest_stored: date, now: datetime) -> "Window | None":
        """None: nothing is proposed by a trader."""
        return None

    def trade_session(self, session: date) -> date:
        """The next session of the exchange."""
        return trading_calendar(self.exchange).next_session(session)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """None: a real broker fills by itself."""
        return None
