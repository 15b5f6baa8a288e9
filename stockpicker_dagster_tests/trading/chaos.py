"""Randomized executions: one rebalance, a broker that misbehaves, a process that dies, and what must hold at the end.

Everything follows from one seed. An execution is planned on a random book, approved or not, and driven by short-lived
executors, or traders, that crash, or are killed, at random instants, against a broker that drops answers, delivers
late, repeats, fills in parts, rejects, or is silent. Meanwhile somebody halts, in mid-basket too, or flattens the
account. Then the faults stop, and one clean executor has to bring it to its end. The benchmark and the tests share this
file.
"""

import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, func, insert, select
from sqlalchemy.exc import OperationalError

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.sources import Window
from stockpicker_dagster.storage.database import migrate, open_database, transaction
from stockpicker_dagster.trading import accounts, ledger
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.brokers import (
    TERMINAL,
    BrokerOrder,
    BrokerUnavailable,
    Lookup,
    OrderRequest,
    Quote,
    Rejected,
    Submission,
    Unknown,
    last_refusal,
    not_sent,
)
from stockpicker_dagster.trading.brokers.capabilities import Capabilities
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.execution import CHECKPOINTS, ExecutionReport, execute
from stockpicker_dagster.trading.flatten import propose_flattening
from stockpicker_dagster.trading.ledger import Fill
from stockpicker_dagster.trading.proposal import build, load, register
from stockpicker_dagster.trading.rebalance import PHASES, plan_orders
from stockpicker_dagster.trading.reconciliation import reconcile
from stockpicker_dagster.trading.risk import AccountState, Limits
from stockpicker_dagster.trading.signatures import TrustedKeys
from stockpicker_dagster.trading.trader import Pace, Trader

ACCOUNT = "paper"
AUTHOR = "os:author"
SESSION = date(2024, 3, 4)
NOW = datetime(2024, 3, 5, 1, 15, tzinfo=UTC)
NAMES = ("AAA", "BBB", "CCC", "DDD", "EEE")
ZERO = Decimal(0)
STEPS = (*CHECKPOINTS, "submit", "fill", "asked")
"""Where an executor can die: at its own steps, inside the broker's transactions, and while it asks."""
HURRIED = Pace(look=0.0, again=0.0, trouble=0.0, reconcile=0.0, blind=0.0)


class Crash(RuntimeError):
    """The executor died here."""


@dataclass
class Market:
    """Opening prices that are known, or not yet."""

    prices: Mapping[str, Decimal]
    opened: bool = True
    simulated: bool = True
    exchange: str = "XNYS"

    def window(self, session: date, latest_stored: date, now: datetime) -> Window | None:
        """Always open."""
        return Window(now - timedelta(hours=1), now + timedelta(hours=12))

    def trade_session(self, session: date) -> date:
        """The next day."""
        return session + timedelta(days=1)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """The prices, once open."""
        return {name: self.prices[name] for name in symbols if name in self.prices} if self.opened else None


@dataclass
class Faults:
    """What goes wrong, drawn as the execution goes; `rate` 0 is a calm day. `die` ends the executor where it says."""

    dice: random.Random
    rate: float
    die: Callable[[], None]
    doomed: str | None = None
    countdown: int = 0
    crossings: list[str] = field(default_factory=list)
    """Orders that would have taken a position across zero, had the broker not refused to fill them."""

    def strikes(self, _request: str) -> bool:
        """Whether something goes wrong with this request: `submit`, `find`, `cancel`, a question or a fill."""
        return self.dice.random() < self.rate

    def reached(self, step: str) -> None:
        """Dies at the step that was drawn, at its n-th time; now and then the database is locked instead."""
        if step == self.doomed:
            self.countdown -= 1
            if self.countdown <= 0:
                self.doomed = None
                self.die()
        if step in ("before_intent", "before_end") and self.rate and self.dice.random() < self.rate / 10:
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))


class ChaoticBroker:
    """A broker behind a bad line: its books are the paper broker's, what comes back of them is not always the truth.

    What is on its way to it is in `late`, which can be shared by the brokers of executors that follow each other.
    """

    name = "paper"
    base_url = PaperBroker.base_url
    account_id = ACCOUNT

    def __init__(
        self,
        engine: Engine,
        faults: Faults,
        prices: Mapping[str, Decimal],
        capabilities: Capabilities,
        late: list[OrderRequest] | None = None,
    ) -> None:
        self.capabilities = capabilities
        self._faults = faults
        self._prices = prices
        self._books = PaperBroker(engine, ACCOUNT, faults.reached, available=self._available)
        self._late = [] if late is None else late

    def submit(self, request: OrderRequest) -> Submission:
        """Takes the order, or not, and says so, or not; too late, or against the last word, it does not leave."""
        if request.not_after is not None and request.submitted_at >= request.not_after:
            return not_sent(request, "it was to be sent before")
        if (refused := last_refusal(request)) is not None:
            return refused
        # It has left: when it arrives, nobody is asked any more.
        request = replace(request, last_word=None)
        if self._faults.strikes("submit"):
            match self._faults.dice.randrange(6):
                case 0:
                    return Unknown("no answer, and nothing arrived")
                case 1:
                    self._take(request)
                    return Unknown("no answer, but the order arrived")
                case 2:
                    self._late.append(request)
                    return Unknown("no answer, and the order is on its way")
                case 3:
                    return Rejected("the borrow is gone")
                case 4:
                    self._take(request)
                    raise BrokerUnavailable("an answer that cannot be read")
                case 5:
                    self._take(request)
                    return self._take(request)  # sent twice by some proxy in between
        return self._take(request)

    def _take(self, request: OrderRequest) -> Submission:
        return self._books.submit(request)

    def find(self, client_order_id: str) -> Lookup:
        """Says how the order stands, or nothing; what was on its way arrives meanwhile."""
        self._faults.reached("asked")
        if self._faults.strikes("find"):
            return Unknown("no answer")
        self._trade()
        return self._books.find(client_order_id)

    def cancel(self, client_order_id: str, reason: str) -> Lookup:
        """Cancels, or not, and says so, or not."""
        if self._faults.strikes("cancel"):
            if self._faults.dice.random() < 0.5:
                self._books.cancel(client_order_id, reason)
            return Unknown("no answer")
        return self._books.cancel(client_order_id, reason)

    def positions(self) -> dict[str, Decimal]:
        """What is held, or no answer."""
        self._answer()
        return self._books.positions()

    def cash(self) -> Decimal:
        """The cash, or no answer."""
        self._answer()
        return self._books.cash()

    def account(self) -> Any:
        """The account, or no answer."""
        self._answer()
        return self._books.account()

    def clock(self) -> Any:
        """The time."""
        return self._books.clock()

    def open_orders(self) -> Sequence[BrokerOrder]:
        """What is working, or no answer."""
        self._answer()
        return self._books.open_orders()

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """The fills, now and then all of them again."""
        return self._books.fills_since(None if self._faults.strikes("fills") else fill_id)

    def movements_since(self, since: datetime) -> Sequence[Any]:
        """None."""
        return []

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Any]:
        """Easy."""
        return dict.fromkeys(symbols, "easy")

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """The prices, a little wide."""
        return {name: Quote(name, self._prices[name], self._prices[name], self._prices[name], NOW) for name in symbols}

    def arrive(self) -> None:
        """What was on its way arrives."""
        late = self._late.copy()
        self._late.clear()
        for request in late:
            if not isinstance(self._books.find(request.client_order_id), BrokerOrder):
                self._take(request)

    def _answer(self) -> None:
        if self._faults.strikes("question") and self._faults.dice.random() < 0.3:
            raise BrokerUnavailable("no answer")

    def _available(self, _symbol: str) -> Decimal | None:
        return Decimal(self._faults.dice.randrange(0, 900)) if self._faults.strikes("fill") else None

    def _trade(self) -> None:
        """Nothing happens between questions where fills come with an auction."""


class AuctionChaos(ChaoticBroker):
    """Fills at the open."""

    def fill_at_open(self, trade_session: date, opens: Mapping[str, Decimal], now: datetime) -> int:
        """See `AuctionBroker.fill_at_open`; what was on its way arrives before."""
        self.arrive()
        return self._books.fill_at_open(trade_session, opens, now)


class StreetChaos(ChaoticBroker):
    """Fills a working order now and then while it is asked about it, in parts."""

    def _trade(self) -> None:
        if self._late and self._faults.dice.random() < 0.5:
            self.arrive()
        for order in self._books.open_orders():
            if self._faults.dice.random() < 0.6 and order.quantity is not None:
                left = order.quantity - order.filled_quantity
                part = left if self._faults.dice.random() < 0.6 else Decimal(self._faults.dice.randint(1, int(left)))
                try:
                    self._books.fill_part(order.client_order_id, part, self._prices[order.symbol], NOW)
                except StockPickerError as error:
                    self._faults.crossings.append(str(error))
                    self._books.cancel(order.client_order_id, "it would cross zero")


class ShortTrader(Trader):
    """A trader of an account that is kept here, for a few rounds; `reached` is told of its steps."""

    def __init__(self, engine: Engine, broker: ChaoticBroker, now: Callable[[], datetime], reached: Any) -> None:
        super().__init__(engine, ACCOUNT, lambda *_: broker, TrustedKeys(), now=now, pace=HURRIED)
        self._told = reached

    def _refuse_useless(self) -> accounts.Account:
        with self._engine.connect() as connection:
            return accounts.read_account(connection, ACCOUNT)

    def _step(self, step: str) -> None:
        super()._step(step)
        self._told(step)


@dataclass
class Outcome:
    """What one randomized execution came to; `halted` counts halts in mid-pass, but for those in forked processes."""

    seed: int
    approved: bool
    trader: bool = False
    killed: int = 0
    crashed: int = 0
    halted: int = 0
    flattened: bool = False
    status: str = ""
    violations: list[str] = field(default_factory=list)


def make_template(folder: Path) -> Path:
    """A migrated ledger with the account, to be copied for every execution."""
    path = folder / "template.sqlite"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    roomy = Limits(position=Decimal(3), net=Decimal(3), gross=Decimal(5), order_notional=Decimal(500_000))
    ensure_paper_account(engine, ACCOUNT, NOW, cash=100_000, limits=roomy)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path


def open_ledger(path: Path) -> Engine:
    """A ledger that outlives a process, though not a power cut: nothing here waits for the disk."""
    engine = open_database(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine


def propose(
    engine: Engine,
    targets: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    auction: bool,
    session: date = SESSION,
    now: datetime = NOW,
) -> str:
    """Registers a proposal that trades the account to `targets` on the day after `session`, as the desk would."""
    with engine.connect() as connection:
        account = accounts.read_account(connection, ACCOUNT)
        held = ledger.held_quantities(connection, ACCOUNT)
    equity = AccountState(account.cash, held).equity(prices)
    document = build(
        account,
        strategy="chaos",
        author=AUTHOR,
        limits=account.limits,
        session=session,
        trade_session=session + timedelta(days=1),
        venue_name="set",
        venue_simulated=True,
        cash=account.cash,
        equity=equity,
        holdings=held,
        targets=targets,
        prices=prices,
        plan=plan_orders(targets, prices, held, equity, account.policy),
        volumes=dict.fromkeys(prices, Decimal(10**9)),
        model_id="m",
        data_version="d",
        code_version="c",
        created_at=now,
        expires_at=now + timedelta(hours=12),
        auction_openings=auction,
        auction_reductions=auction,
    )
    return register(engine, document)


class Stand:
    """One ledger file in `folder` that is put back to its beginning for every execution."""

    def __init__(self, folder: Path) -> None:
        self.template = make_template(folder)
        self.path = folder / "ledger.sqlite"
        shutil.copyfile(self.template, self.path)
        self.engine = open_ledger(self.path)

    def run(self, seed: int, kill: bool) -> Outcome:
        """One randomized execution from `seed`; with `kill`, executors are ended by a real SIGKILL."""
        self.engine.dispose()
        for leftover in self.path.parent.glob(f"{self.path.name}*"):
            leftover.unlink()
        shutil.copyfile(self.template, self.path)
        return _Run(seed, self.engine, kill).go()

    def close(self) -> None:
        """Lets go of the ledger."""
        self.engine.dispose()


class _Run:
    def __init__(self, seed: int, engine: Engine, kill: bool) -> None:
        self.engine, self.kill = engine, kill
        self.dice = dice = random.Random(seed)
        self.prices = {name: Decimal(dice.randint(500, 20_000)) / 100 for name in NAMES}
        self.market = Market(self.prices, opened=dice.random() < 0.7)
        self.auction = dice.random() < 0.5
        self.forgetful = dice.random() < 0.3
        self.now = NOW
        self.outcome = Outcome(seed, approved=dice.random() < 0.85, trader=not self.auction and dice.random() < 0.5)
        self.proposals: list[str] = []
        """The rebalance, and the flattening after it, if somebody proposes one."""
        self.approved: set[str] = set()
        self.may_lapse: set[str] = set()
        """What was approved but makes way for a flattening."""

    def go(self) -> Outcome:
        self._hold_something()
        self.proposals.append(self._propose())
        self._decide(self.proposals[0])
        for _ in range(self.dice.randint(1, 4)):
            self._storm()
            self._something_happens()
        reports = self._calm()
        self.outcome.status = reports[0].status if reports[0] is not None else "nothing"
        self._check(reports)
        return self.outcome

    # -- how it begins ------------------------------------------------------------------------------------------------

    def _hold_something(self) -> None:
        held = {name: Decimal(self.dice.randint(-300, 300)) for name in NAMES if self.dice.random() < 0.6}
        with transaction(self.engine) as connection:
            # Shorts that are worth more than half of the cash would leave nothing to size a plan on.
            cash = accounts.read_account(connection, ACCOUNT).cash
            while sum((held[name] * self.prices[name] for name in held), ZERO) < -cash / 2:
                held = {name: (quantity / 2).to_integral_value() for name, quantity in held.items()}
            for symbol, quantity in held.items():
                connection.execute(
                    insert(ledger.corporate_actions).values(
                        account=ACCOUNT,
                        session=SESSION,
                        symbol=symbol,
                        kind="split",
                        quantity_change=quantity,
                        cash=ZERO,
                        detail="held before",
                        recorded_at=NOW,
                    )
                )
            for book in (ledger.positions, ledger.paper_positions):
                ledger.move_positions(connection, book, ACCOUNT, list(held.items()))

    def _propose(self) -> str:
        targets = {name: Decimal(self.dice.randint(-40, 40)) / 100 for name in NAMES if self.dice.random() < 0.8}
        return propose(self.engine, targets, self.prices, self.auction)

    def _decide(self, proposal: str) -> None:
        if self.outcome.approved:
            decide(self.engine, proposal, "os:approver", "approve", "", NOW)
            self.approved.add(proposal)
        elif self.dice.random() < 0.5:
            decide(self.engine, proposal, "os:approver", "deny", "no", NOW)
        elif self.dice.random() < 0.5:
            with transaction(self.engine) as connection:  # a forged outcome, without anybody's decision
                ledger.record_outcome(connection, proposal, "approved", "forged", NOW)

    # -- what happens -------------------------------------------------------------------------------------------------

    def _broker(self, engine: Engine, faults: Faults) -> ChaoticBroker:
        able = Capabilities(
            shorts=True,
            verified="chaos",
            holds_openings=self.auction and self.dice.random() < 0.7,
            client_id_window=timedelta(hours=24) if self.forgetful else None,
            late_arrival=timedelta(seconds=30),
            client_id_length=128,
        )
        kind = AuctionChaos if self.auction else StreetChaos
        return kind(engine, faults, self.prices, able)

    def _storm(self) -> None:
        """One executor, faults and all; it may be halted, or end by crashing or by being killed."""
        proposal = self.dice.choice(self.proposals)
        seed, step, times = self.dice.random(), self.dice.choice(STEPS), self.dice.randint(1, 4)
        # Inside the broker's transactions nobody else writes to the same file.
        halts = self.dice.random() < 0.3 and step not in ("submit", "fill")
        happens = self._halt_at(step) if halts else _kill if self.kill else _crash
        if not self.kill:
            self._pass(self.engine, proposal, Faults(random.Random(seed), 0.15, happens, step, times))
            return
        self.engine.dispose()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self._pass(self.engine, proposal, Faults(random.Random(seed), 0.15, happens, step, times))
                code = bool(self.outcome.violations)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        self.outcome.killed += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            self.outcome.violations.append("an executor that was not killed failed, or broke a promise")

    def _halt_at(self, step: str) -> Callable[[], None]:
        """Somebody halts the account at this step; what is being committed to at that instant is committed to."""

        def halt() -> None:
            accounts.halt(self.engine, ACCOUNT, "os:risk", "a look", self.now)
            self.outcome.halted += 1
            self.most = self._committed() + (step == "before_intent")

        return halt

    def _pass(self, engine: Engine, proposal: str, faults: Faults) -> None:
        broker = self._broker(engine, faults)
        self.most: int | None = None
        try:
            if self.outcome.trader:
                ShortTrader(engine, broker, lambda: self.now, faults.reached).serve(rounds=2)
            else:
                execute(engine, proposal, broker, self.market, lambda: self.now, faults.reached)
        except (Crash, StockPickerError, OperationalError) as error:
            self.outcome.crashed += isinstance(error, Crash)
        if self.most is not None and self._committed() > self.most and not self._flattens():
            self.outcome.violations.append("committed to an order after a halt")
        faults.doomed = None  # what arrives from now on arrives without an executor that could die of it
        if faults.dice.random() < 0.7:
            broker.arrive()
        self.outcome.violations.extend(faults.crossings)

    def _something_happens(self) -> None:
        self.now += timedelta(seconds=self.dice.choice((1, 5, 45, 900)))
        match self.dice.randrange(9):
            case 0:
                accounts.halt(self.engine, ACCOUNT, "os:risk", "a look", self.now)
            case 1:
                _resume(self.engine, self.now)
            case 2:
                self.market.opened = True
            case 3:
                self.now -= timedelta(seconds=self.dice.choice((1, 600)))  # a clock that is set back
            case 4 if self.proposals[0] in self.approved:
                with suppress(StockPickerError):
                    decide(self.engine, self.proposals[0], "os:second", "deny", "too large", self.now)
                    self.approved.discard(self.proposals[0])
            case 5 if len(self.proposals) == 1:
                self._flatten()

    def _flatten(self) -> None:
        """Somebody proposes to close everything; it may be decided at once, or later."""
        try:
            asked = {"venue": self.market, "latest_stored": SESSION}
            self.proposals.append(propose_flattening(self.engine, ACCOUNT, "os:risk", self.now, **asked))  # type: ignore[arg-type]
        except StockPickerError:  # nothing is held
            return
        self.may_lapse.add(self.proposals[0])
        if self.dice.random() < 0.7:
            self._decide_flattening()

    def _decide_flattening(self) -> None:
        approves = self.dice.random() < 0.75
        decide(self.engine, self.proposals[1], "os:risk", "approve" if approves else "deny", "out", self.now)
        if approves:
            self.approved.add(self.proposals[1])
            self.outcome.flattened = True

    def _flattens(self) -> bool:
        """Whether an approved flattening may send orders, which passes a halt."""
        return self.proposals[-1] in self.approved and len(self.proposals) > 1

    def _committed(self) -> int:
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(ledger.order_intents)).scalar_one()

    def _calm(self) -> list[ExecutionReport | None]:
        """The faults stop, the market opens; a clean executor brings everything to its end, if it may."""
        _resume(self.engine, self.now)
        self.market.opened = True
        self.now = max(self.now, NOW) + timedelta(minutes=2)
        if len(self.proposals) > 1 and load(self.engine, self.proposals[1]).state == "open":
            self._decide_flattening()
        return [self._end(proposal) for proposal in reversed(self.proposals)][::-1]

    def _end(self, proposal: str) -> ExecutionReport | None:
        report = None
        for _ in range(60):
            faults = Faults(random.Random(self.dice.random()), 0.0, _crash)
            broker = self._broker(self.engine, faults)
            try:
                report = execute(self.engine, proposal, broker, self.market, lambda: self.now)
            except StockPickerError as error:
                made_way = proposal in self.may_lapse and load(self.engine, proposal).state == "lapsed"
                if proposal in self.approved and not made_way:
                    self.outcome.violations.append(f"an approved proposal could not be ended: {error}")
                return None
            self.outcome.violations.extend(faults.crossings)
            if report.status in ("finished", "aborted"):
                return report
            if report.status == "halted":
                _resume(self.engine, self.now)
            self.now += timedelta(minutes=1)
        self.outcome.violations.append(f"not ended after sixty calm minutes: {report.message if report else ''}")
        return report

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _check(self, reports: Sequence[ExecutionReport | None]) -> None:
        wrong = self.outcome.violations
        with self.engine.connect() as connection:
            orders = connection.execute(select(ledger.paper_orders)).all()
            committed = {row.id: row for row in connection.execute(select(ledger.order_intents))}
            told = {row.intent: row for row in connection.execute(select(ledger.broker_orders))}
            fills = connection.execute(select(ledger.paper_fills).order_by(ledger.paper_fills.c.sequence)).all()
            entered = connection.execute(select(ledger.fills)).all()
            claimed = connection.execute(select(ledger.executions)).all()
        if {intent.proposal for intent in committed.values()} - self.approved:
            wrong.append("orders without an approval")
        if {row.proposal for row in claimed if row.status != "lapsed"} - self.approved:
            wrong.append("claimed without an approval")
        documents = {proposal: load(self.engine, proposal).document for proposal in self.proposals}
        wanted = {(p, o.symbol, o.phase, o.slice): o for p, document in documents.items() for o in document.orders}
        ended = {report.proposal for report in reports if report and report.status in ("finished", "aborted")}
        sums: dict[tuple[str, str, str, int], Decimal] = {}
        for row in orders:
            intent = committed.get(row.client_order_id)
            if intent is None:
                wrong.append(f"an order without an intent: {row.client_order_id}")
                continue
            key = (intent.proposal, intent.symbol, intent.phase, intent.slice)
            if (row.symbol, row.side, row.quantity) != (intent.symbol, intent.side, intent.quantity):
                wrong.append(f"the order at the broker is not the one committed to: {key}")
            if key not in wanted or wanted[key].side != row.side or row.quantity > wanted[key].quantity:
                wrong.append(f"more than was approved: {key}")
            sums[key] = sums.get(key, ZERO) + row.filled_quantity
            if intent.proposal in ended and row.status not in TERMINAL:
                wrong.append(f"a live order after the end: {key}")
            answer = told.get(row.client_order_id)
            if answer is None or answer.filled_quantity != row.filled_quantity:
                wrong.append(f"ledger and broker differ about an order: {key}")
        for key, total in sums.items():
            if key in wanted and total > wanted[key].quantity:
                wrong.append(f"filled twice: {key} {total} of {wanted[key].quantity}")
        self._check_sequence(documents[self.proposals[0]].holdings, fills, committed)
        if sorted(f.fill_id for f in entered) != sorted(str(f.sequence) for f in fills):
            wrong.append("the ledger does not have the broker's fills")
        books = reconcile(self.engine, PaperBroker(self.engine, ACCOUNT), self.now)
        wrong.extend(books.differences)

    def _check_sequence(
        self, holdings: Mapping[str, Decimal], fills: Sequence[Any], committed: Mapping[str, Any]
    ) -> None:
        """No fill crosses zero, and no opening of a proposal fills before the name's reduction has ended."""
        book = dict(holdings)
        latest: dict[tuple[str, str], int] = {}
        for fill in fills:
            before = book.get(fill.symbol, ZERO)
            book[fill.symbol] = before + fill.quantity
            if before * book[fill.symbol] < 0:
                self.outcome.violations.append(f"{fill.symbol} crossed zero: {before} to {book[fill.symbol]}")
            intent = committed[fill.client_order_id]
            place, name = PHASES.index(intent.phase), (intent.proposal, fill.symbol)
            if place < latest.get(name, 0):
                self.outcome.violations.append(f"{fill.symbol} was reduced after it was opened")
            latest[name] = place


def _resume(engine: Engine, now: datetime) -> None:
    with suppress(StockPickerError):
        accounts.resume(engine, ACCOUNT, "os:risk", now)


def _crash() -> None:
    raise Crash


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
