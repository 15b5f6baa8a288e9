"""Whatever people, processes, markets and a broker do, in whatever order: every promise holds after each step.

Hypothesis, and dice, play all of them against a model that knows nothing but who has decided what: several proposals in
a row, a quorum of two with four eyes, halts, expiries, forgeries, executors that crash or are overtaken, and a broker
that loses answers, delivers late, fills in parts, rejects, repeats, or says that something else is held. At the end of
every play a clean executor has to bring what was claimed to its end.
"""

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.exc import OperationalError

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import accounts, ledger
from stockpicker_dagster.trading.approval import DecisionRefused, Expired, decide
from stockpicker_dagster.trading.brokers import TERMINAL, OrderRequest
from stockpicker_dagster.trading.brokers.capabilities import Capabilities
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.execution import CHECKPOINTS, ExecutionReport, execute
from stockpicker_dagster.trading.proposal import ProposalDocument, ProposalRefused, load
from stockpicker_dagster.trading.rebalance import PHASES
from stockpicker_dagster.trading.reconciliation import reconcile
from stockpicker_dagster_tests.trading import chaos
from stockpicker_dagster_tests.trading.chaos import ACCOUNT, AUTHOR, ZERO, Crash, Faults, Market

NAMES = ("AAA", "BBB", "CCC")
PEOPLE = ("os:ann", "os:bob", "os:cyd", AUTHOR)
QUORUM = 2
LATE = timedelta(seconds=30)

weights = st.tuples(*[st.integers(-40, 40)] * len(NAMES)).map(
    lambda drawn: {name: Decimal(weight) / 100 for name, weight in zip(NAMES, drawn, strict=True)}
)
misbehaviour = st.fixed_dictionaries(
    {"submit": st.lists(st.integers(0, 6), min_size=2, max_size=4)},
    optional={
        request: st.lists(st.integers(0, 2), min_size=1, max_size=3)
        for request in ("find", "cancel", "fills", "question", "fill")
    },
)
"""What becomes of one request of a kind after another: 0 is as it should be, the others are the broker's cases."""

Misbehaviour = dict[str, list[int]]
CALM: Misbehaviour = {}

price_moves = st.lists(st.integers(900, 1_100), min_size=3, max_size=3)

dooms = st.tuples(st.sampled_from((*chaos.STEPS, *CHECKPOINTS[:5])), st.sampled_from((1, 1, 1, 2, 3)))
"""Where something happens to an executor: at the n-th time that it reaches a step, if it does."""

WHAT = ("crash", "locked", "overtaken", "overtaken", "halt", "expiry")
disturbances = st.fixed_dictionaries(
    {
        "script": misbehaviour,
        "seed": st.integers(0, 99),
        "doom": dooms,
        "what": st.sampled_from(WHAT),
        "other": misbehaviour,
    }
)
"""One pass of an executor, and what happens in the middle of it; `other` is what its successor meets."""

OBSTACLES = ("one short", "forgery", "claim", "bytes", "quorum", "quorum back", "halt", "expiry", "denial")
obstacles = st.sampled_from((None, None, None, *OBSTACLES))
"""What stands in the way of a proposal that is else approved at once and tried."""

passes = st.lists(disturbances, min_size=1, max_size=3)


class Dice(random.Random):
    """Random, but for the next choice of what goes wrong."""

    chosen: int | None = None

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """The chosen case, once, where a fault is drawn."""
        if stop is None and self.chosen is not None:
            chosen, self.chosen = self.chosen, None
            return chosen % start
        return super().randrange(start, stop, step)


class Script(Faults):
    """Faults that follow a script, and then none."""

    def __init__(self, script: Misbehaviour, seed: int, die: Callable[[], None], doom: tuple[str, int] | None) -> None:
        self.script = {request: list(lines) for request, lines in script.items()}
        self.chooser = Dice(seed)
        super().__init__(self.chooser, 0.0, die, *(doom or (None, 0)))

    def strikes(self, request: str) -> bool:
        """The next line of the script for such a request."""
        lines = self.script.get(request)
        line = lines.pop(0) if lines else 0
        self.chooser.chosen = line - 1 if line else None
        return line > 0


@dataclass
class Known:
    """What the model knows of a proposal: who decided what, and what may therefore become of it."""

    document: ProposalDocument
    state: str = "open"
    approvals: set[str] = field(default_factory=set)
    deciders: set[str] = field(default_factory=set)


class TradingStates(RuleBasedStateMachine):
    """One account, one evening after another."""

    template: Path
    place: Path
    seen: Counter[str]
    """Set by the test: a migrated ledger, where its copies go, and how often what happened in all plays."""

    def __init__(self) -> None:
        super().__init__()
        shutil.copyfile(self.template, self.place)
        self.engine: Engine = chaos.open_ledger(self.place)
        with transaction(self.engine) as connection:
            connection.execute(update(ledger.accounts).values(approvals_needed=QUORUM, four_eyes=True))
        self.needed = QUORUM
        self.session, self.now = chaos.SESSION, chaos.NOW
        self.proposals: dict[str, Known] = {}
        self.late: list[OrderRequest] = []
        self.halted = False
        self.crossings: list[str] = []
        self.misled: set[int] = set()

    def teardown(self) -> None:
        """A clean executor ends what was claimed, and then the books agree."""
        try:
            self._end_everything()
        finally:
            self.engine.dispose()
            for leftover in self.place.parent.glob(f"{self.place.name}*"):
                leftover.unlink()

    # -- proposals and people -----------------------------------------------------------------------------------------

    @initialize(
        prices=st.lists(st.integers(500, 20_000), min_size=3, max_size=3),
        auction=st.booleans(),
        forgetful=st.booleans(),
        holds=st.booleans(),
        opened=st.sampled_from((True, True, False)),
        plan=weights,
        obstacle=obstacles,
        tried=passes,
    )
    def begin(
        self,
        prices: list[int],
        auction: bool,
        forgetful: bool,
        holds: bool,
        opened: bool,
        plan: dict[str, Decimal],
        obstacle: str | None,
        tried: list[dict[str, Any]],
    ) -> None:
        """A market, a broker, and a first evening."""
        self.prices = dict(zip(NAMES, (Decimal(price) / 100 for price in prices), strict=True))
        self.market = Market(self.prices, opened)
        self.auction = auction
        self.able = Capabilities(
            shorts=True,
            verified="states",
            holds_openings=auction and holds,
            client_id_window=timedelta(hours=24) if forgetful else None,
            late_arrival=LATE,
            client_id_length=128,
        )
        self._rebalance(plan, obstacle, tried)

    def _rebalance(self, plan: dict[str, Decimal], obstacle: str | None, tried: list[dict[str, Any]]) -> None:
        """A plan that enough people approve, if it can be proposed; what is in its way is tried; then executors."""
        before = len(self.proposals)
        self.propose(plan)
        if len(self.proposals) == before:
            return
        if obstacle in ("quorum back", "one short", "claim", "forgery"):
            self._meet(obstacle)
        for person in PEOPLE[: min(self.needed, 3)]:
            if person not in self._proposal(-1)[1].deciders:
                self.decide(person, "approve", -1)
        if obstacle in ("quorum", "halt", "expiry", "denial", "bytes"):
            self._meet(obstacle)
        for drawn in tried:
            if not self.halted and self._under_way():
                self.run_an_executor(drawn)

    def _meet(self, obstacle: str) -> None:
        """Puts something in the way of the newest proposal, and tries to execute it all the same."""
        identity, known = self._proposal(-1)
        self.seen[obstacle] += 1
        calm = Script(CALM, 0, _crash, None)
        if obstacle == "quorum back":
            # Asked for more people for a while: enough for now have approved, but nobody has said so.
            self._ask_for(self.needed + 1)
        if obstacle in ("quorum back", "one short", "forgery", "claim"):
            for person in PEOPLE[: self.needed - 1]:
                self.decide(person, "approve", -1)
        match obstacle:
            case "quorum back":
                self._ask_for(self.needed - 1)
            case "quorum":
                self._ask_for(self.needed + 1)
            case "forgery" if known.state == "open":
                with transaction(self.engine) as connection:
                    ledger.record_outcome(connection, identity, "approved", "forged", self.now)
                known.state = "approved"
            case "halt":
                self.halt()
            case "expiry":
                self._expire(known)
            case "denial" if known.state in ("open", "approved"):
                self.decide("os:cyd", "deny", -1)
            case "claim" if known.state == "open":
                self._forge_claim(identity, known)
                return
            case "bytes":
                self._change_bytes(identity)
                return
        self._pass(-1, calm)
        if obstacle == "halt":
            self.resume()

    @rule(plan=weights)
    def propose(self, plan: dict[str, Decimal]) -> None:
        """A new plan supersedes what is undecided, ends what was never claimed in time, and else is refused."""
        holding = [known for known in self.proposals.values() if known.state in ("open", "approved", "executing")]
        void = [known for known in holding if self.now >= known.document.expires_at]
        traded = {known.document.session for known in self.proposals.values() if known.state in ("executing", "ended")}
        try:
            identity = chaos.propose(self.engine, plan, self.prices, self.auction, self.session, self.now)
        except ProposalRefused:
            again = any(known.document.created_at == self.now for known in self.proposals.values())
            denied = any(known.state == "denied" for known in self.proposals.values())
            decided = any(known.state in ("approved", "executing", "forged") for known in self.proposals.values())
            assert decided or denied or again or self.session in traded
            return
        if identity in self.proposals:
            return
        for known in holding:
            assert known.state == "open" or known in void
            known.state = {"open": "superseded", "approved": "lapsed"}[known.state]
        self.proposals[identity] = Known(load(self.engine, identity).document)

    @precondition(lambda self: self.proposals)
    @rule(
        person=st.sampled_from(PEOPLE),
        decision=st.sampled_from(("approve", "approve", "deny")),
        which=st.integers(-2, -1),
    )
    def decide(self, person: str, decision: str, which: int) -> None:
        """One person decides; what follows is what the model expects."""
        identity, known = self._proposal(which)
        expected = self._expected(known, person, decision)
        try:
            outcome = str(decide(self.engine, identity, person, decision, "because", self.now).outcome)  # type: ignore[arg-type]
        except DecisionRefused:
            outcome = "refused"
        except Expired:
            outcome = "expired"
        assert outcome == expected
        if outcome == "refused":
            return
        if outcome != "None":
            known.state = outcome
        if outcome != "expired":
            known.deciders.add(person)
            known.approvals |= {person} if decision == "approve" else set()

    def _ask_for(self, people: int) -> None:
        self.needed = people
        with transaction(self.engine) as connection:
            connection.execute(update(ledger.accounts).values(approvals_needed=people))

    def _forge_claim(self, identity: str, known: Known) -> None:
        """Somebody writes into the ledger that it is being executed; nothing is ever sent for it."""
        row = {"digest": known.document.digest, "proposal": identity, "status": "claimed", "detail": ""}
        with transaction(self.engine) as connection:
            connection.execute(insert(ledger.executions).values(**row, claimed_at=self.now))
        known.state = "forged"
        assert self._attempt(identity, Script(CALM, 0, _crash, None)) is None

    def _change_bytes(self, identity: str) -> None:
        """Somebody writes other orders into an approved proposal for a moment; nothing is sent for them."""
        table, committed = ledger.proposals, self._count(ledger.order_intents)
        with transaction(self.engine) as connection:
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS proposals_no_UPDATE")
            true = connection.execute(select(table.c.document).where(table.c.id == identity)).scalar_one()
            false = true.replace(b'"quantity":"', b'"quantity":"1')
            connection.execute(update(table).where(table.c.id == identity).values(document=false))
        if false != true:
            assert self._attempt(identity, Script(CALM, 0, _crash, None)) is None
        assert self._count(ledger.order_intents) == committed
        with transaction(self.engine) as connection:
            connection.execute(update(table).where(table.c.id == identity).values(document=true))

    def _expected(self, known: Known, person: str, decision: str) -> str:
        if known.state == "open" and self.now >= known.document.expires_at:
            return "expired"
        if known.state != "open" and (known.state, decision) != ("approved", "deny"):
            return "refused"
        if person in known.deciders or (decision, person) == ("approve", AUTHOR):
            return "refused"
        if decision == "deny":
            return "denied"
        return "approved" if len(known.approvals | {person}) >= self.needed else "None"

    @precondition(lambda self: self.proposals and self._proposal(-1)[1].state in ("open", "approved"))
    @rule(what=st.sampled_from(("denial", "denial", "forgery", "quorum", "bytes")))
    def somebody_interferes(self, what: str) -> None:
        """Somebody denies what was approved, or forges an approval or other orders, or more people are asked for."""
        if what != "forgery" or self.now < self._proposal(-1)[1].document.expires_at:
            self._meet(what)

    # -- executors ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._under_way() and not self.halted)
    @rule(drawn=disturbances)
    def run_an_executor(self, drawn: dict[str, Any]) -> None:
        """One pass against a broker that misbehaves, and something happens in the middle of it.

        It crashes, or finds the database locked; or another process believes it dead and takes over, or somebody halts,
        or the proposal's time ends, after which it commits to nothing more.
        """
        script, seed, doom, what, other = (drawn[name] for name in ("script", "seed", "doom", "what", "other"))
        committed_then: list[int] = []

        def happens() -> None:
            if what == "crash" or doom[0] not in CHECKPOINTS:
                raise Crash
            if what == "locked":
                raise OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))
            self._interrupt(what, Script(other, seed, _crash, None))
            # What is being committed to at this instant is committed to already for whoever halts.
            at_it = what != "overtaken" and doom[0] == "before_intent"
            committed_then.append(self._count(ledger.order_intents) + at_it)

        self._pass(-1, Script(script, seed, happens, doom))
        if committed_then:
            self.seen[what] += 1
            assert self._count(ledger.order_intents) <= committed_then[0], f"committed to an order after {what}"

    def _interrupt(self, what: str, faults: Script) -> None:
        if what == "overtaken":
            with transaction(self.engine) as connection:
                connection.execute(update(ledger.execution_locks).values(renewed_at=chaos.NOW))
            self._attempt(self._proposal(-1)[0], faults)
        elif what == "halt":
            accounts.halt(self.engine, ACCOUNT, "os:risk", "a look", self.now)
        else:
            self._expire(self._proposal(-1)[1])

    @precondition(lambda self: self.proposals)
    @rule(which=st.integers(-3, -1), seed=st.integers(0, 99))
    def run_a_calm_executor(self, which: int, seed: int) -> None:
        """One pass without anything that goes wrong; where trading is halted, nothing is working after it."""
        identity, known = self._proposal(which)
        self._pass(which, Script(CALM, seed, _crash, None))
        if self.halted and known.state == "executing":
            assert self._live(identity) == []

    @precondition(lambda self: self._under_way() and len(self.proposals) not in self.misled)
    @rule(more=st.integers(1, 50))
    def run_an_executor_that_is_told_wrong_positions(self, more: int) -> None:
        """The broker says that something else is held: nothing is sent on that."""
        self.misled.add(len(self.proposals))
        committed = self._count(ledger.order_intents)
        sent = self._at_the_broker() | {request.client_order_id for request in self.late}
        self._pass(-1, Script(CALM, more, _crash, None), wrong=Decimal(more))
        assert self._count(ledger.order_intents) == committed
        assert self._at_the_broker() <= sent

    def _pass(self, which: int, faults: Script, wrong: Decimal = ZERO) -> ExecutionReport | None:
        identity, known = self._proposal(which)
        may_claim = known.state == "approved" and len(known.approvals) >= self.needed
        in_time, halted = self.now < known.document.expires_at, self.halted
        committed = self._count(ledger.order_intents)
        report = self._attempt(identity, faults, wrong)
        claim = self._claim(identity)
        self.halted = accounts.is_halted(self.engine, ACCOUNT)
        if known.state not in ("executing", "ended", "forged"):
            assert (claim is not None) == (known.state == "lapsed" or (may_claim and not (in_time and halted)))
            if may_claim and claim is not None:
                known.state = "executing" if in_time else "lapsed"
                assert (claim == "lapsed") == (not in_time)
        if claim in ("finished", "aborted"):
            known.state = "ended"
        if halted or not in_time:
            assert self._count(ledger.order_intents) == committed, "an order after a halt or an expiry"
        if currently_in_test_context():
            note(f"{report.status if report else 'raised'}: {report.message if report else ''}; {known.state}")
        return report

    def _attempt(self, identity: str, faults: Script, wrong: Decimal = ZERO) -> ExecutionReport | None:
        kind = chaos.AuctionChaos if self.auction else chaos.StreetChaos
        broker = kind(self.engine, faults, self.prices, self.able, self.late)
        faults.crossings = self.crossings
        if wrong:
            truth = broker.positions
            broker.positions = lambda: {**truth(), "AAA": truth().get("AAA", ZERO) + wrong}  # type: ignore[method-assign]
        with suppress(Crash, StockPickerError, OperationalError):
            report = execute(self.engine, identity, broker, self.market, lambda: self.now, faults.reached)
            self.seen[report.status] += 1
            return report
        self.seen["raised"] += 1
        return None

    # -- the world ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 45, 900, 900, 46_800)), lost=st.booleans())
    def wait(self, seconds: int, lost: bool) -> None:
        """Time passes, the market opens; what was on its way to the broker arrives in time, or never."""
        self._deliver(lost)
        self.market.opened = True
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: not self._under_way())
    @rule(
        prices=price_moves, plan=weights, opened=st.sampled_from((True, True, False)), obstacle=obstacles, tried=passes
    )
    def rebalance_on_another_evening(
        self,
        prices: list[int],
        plan: dict[str, Decimal],
        opened: bool,
        obstacle: str | None,
        tried: list[dict[str, Any]],
    ) -> None:
        """Another day with its prices and its plan."""
        self._deliver(lost=False)
        self.session += timedelta(days=1)
        self.now = max(self.now, chaos.NOW + (self.session - chaos.SESSION))
        self.prices.update(
            {
                name: (self.prices[name] * factor / 1000).quantize(Decimal("0.01"))
                for name, factor in zip(NAMES, prices, strict=True)
            }
        )
        self.market.opened = opened
        self._rebalance(plan, obstacle, tried)

    @precondition(lambda self: self._under_way())
    @rule()
    def halt(self) -> None:
        """Somebody halts the account."""
        accounts.halt(self.engine, ACCOUNT, "os:risk", "a look", self.now)
        self.halted = True

    @precondition(lambda self: self.halted)
    @rule()
    def resume(self) -> None:
        """Somebody lifts the halt."""
        accounts.resume(self.engine, ACCOUNT, "os:risk", self.now)
        self.halted = False

    def compare_the_books(self) -> None:
        """With a broker that tells the truth, the books agree at any time."""
        assert reconcile(self.engine, PaperBroker(self.engine, ACCOUNT), self.now).differences == ()

    def _expire(self, known: Known) -> None:
        """Its time is over; what was on its way has arrived long before."""
        self._deliver(lost=False)
        self.now = max(self.now, known.document.expires_at)

    def _deliver(self, lost: bool) -> None:
        if lost:
            self.late.clear()
        kind = chaos.AuctionChaos if self.auction else chaos.StreetChaos
        kind(self.engine, Script(CALM, 0, _crash, None), self.prices, self.able, self.late).arrive()

    def _end_everything(self) -> None:
        if not self.proposals:
            return
        self._deliver(lost=False)
        if self.halted:
            self.resume()
        self.market.opened = True
        for which, known in enumerate(list(self.proposals.values())):
            for _ in range(60):
                if known.state != "executing":
                    break
                self.now += timedelta(minutes=10)
                report = self._pass(which, Script(CALM, 1, _crash, None))
                assert report is None or report.status != "halted", report.message
            assert known.state != "executing", "a claimed proposal could not be brought to its end"
        self.promises_hold()
        self.compare_the_books()
        self.seen["fills"] += self._count(ledger.fills)
        self.seen["proposals"] += len(self.proposals)

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        """Nothing unapproved, twice or across zero, nothing believed that is not so, and books that add up."""
        with self.engine.connect() as connection:
            orders = connection.execute(select(ledger.paper_orders)).all()
            committed = {row.id: row for row in connection.execute(select(ledger.order_intents))}
            told = {row.intent: row for row in connection.execute(select(ledger.broker_orders))}
            fills = connection.execute(select(ledger.paper_fills).order_by(ledger.paper_fills.c.sequence)).all()
            entered = {row.fill_id: row for row in connection.execute(select(ledger.fills))}
            book = ledger.held_quantities(connection, ACCOUNT)
            cash = accounts.read_account(connection, ACCOUNT).cash
        claimed = {identity for identity, known in self.proposals.items() if known.state in ("executing", "ended")}
        assert {row.proposal for row in committed.values()} <= claimed, "an order without an approval"
        self._check_orders(orders, committed)
        self._check_beliefs({row.client_order_id: row for row in orders}, committed, told)
        self._check_fills(fills, committed)
        self._check_books(fills, entered, book, cash)
        assert self.crossings == []

    def _check_orders(self, orders: Sequence[Any], committed: dict[str, Any]) -> None:
        most: dict[tuple[str, str, str, int], Decimal] = {}
        live: set[tuple[str, str, str, int]] = set()
        for row in orders:
            assert row.client_order_id in committed, "an order that nobody committed to"
            intent = committed[row.client_order_id]
            assert (row.symbol, row.side, row.quantity) == (intent.symbol, intent.side, intent.quantity)
            key = (intent.proposal, intent.symbol, intent.phase, intent.slice)
            if row.status not in TERMINAL:
                assert key not in live, f"two live orders: {key}"
                live.add(key)
            still = row.filled_quantity if row.status in TERMINAL else row.quantity
            most[key] = most.get(key, ZERO) + still
        for (identity, symbol, phase, slice_), quantity in most.items():
            approved = [
                order.quantity
                for order in self.proposals[identity].document.orders
                if (order.symbol, order.phase, order.slice) == (symbol, phase, slice_)
            ]
            assert quantity <= sum(approved, ZERO), f"more than was approved: {symbol} {phase} {quantity} of {approved}"

    def _check_beliefs(self, orders: dict[str, Any], committed: dict[str, Any], told: dict[str, Any]) -> None:
        under_way = {request.client_order_id for request in self.late}
        for identity, said in told.items():
            truth = orders.get(identity)
            if said.status in TERMINAL:
                ended = truth is None or truth.status in TERMINAL
                assert ended, f"believed {said.status}, but it lives"
                assert identity not in under_way, f"believed {said.status}, but it is on its way"
            if truth is not None:
                assert said.filled_quantity <= truth.filled_quantity
        for identity, intent in committed.items():
            if self.proposals[intent.proposal].state == "ended":
                assert identity in told, "ended without knowing of every order"
                assert told[identity].status in TERMINAL, "ended with a live order"
                filled = orders[identity].filled_quantity if identity in orders else ZERO
                assert told[identity].filled_quantity == filled, "ended without knowing what was filled"

    def _check_fills(self, fills: Sequence[Any], committed: dict[str, Any]) -> None:
        held: dict[str, Decimal] = {}
        latest: dict[tuple[str, str], int] = {}
        for fill in fills:
            before = held.get(fill.symbol, ZERO)
            held[fill.symbol] = before + fill.quantity
            assert before * held[fill.symbol] >= 0, f"{fill.symbol} crossed zero: {before} to {held[fill.symbol]}"
            intent = committed[fill.client_order_id]
            place, name = PHASES.index(intent.phase), (intent.proposal, fill.symbol)
            assert place >= latest.get(name, 0), f"{fill.symbol} was reduced after it was opened"
            latest[name] = place

    def _check_books(
        self, fills: Sequence[Any], entered: dict[str, Any], book: dict[str, Decimal], cash: Decimal
    ) -> None:
        at_the_broker = PaperBroker(self.engine, ACCOUNT)
        there, money = dict(at_the_broker.positions()), at_the_broker.cash()
        assert set(entered) <= {str(fill.sequence) for fill in fills}, "a fill that the broker does not know"
        for fill in fills:
            known = entered.get(str(fill.sequence))
            if known is None:  # not asked for yet
                there[fill.symbol] = there.get(fill.symbol, ZERO) - fill.quantity
                money += fill.quantity * fill.price + fill.commission
            else:
                same = (known.symbol, known.quantity, known.price, known.commission)
                assert same == (fill.symbol, fill.quantity, fill.price, fill.commission)
        assert {name: held for name, held in there.items() if held} == book
        assert money == cash

    # -- small things -------------------------------------------------------------------------------------------------

    def _proposal(self, which: int) -> tuple[str, Known]:
        names = list(self.proposals)
        identity = names[max(which, -len(names))]
        return identity, self.proposals[identity]

    def _under_way(self) -> bool:
        """Whether the newest proposal, the only one that can hold the account, may be executed or is."""
        return bool(self.proposals) and self._proposal(-1)[1].state in ("approved", "executing")

    def _live(self, identity: str) -> list[str]:
        orders, committed = ledger.paper_orders, ledger.order_intents
        wanted = (
            select(orders.c.client_order_id)
            .join(committed, committed.c.id == orders.c.client_order_id)
            .where(committed.c.proposal == identity, orders.c.status == "working")
        )
        with self.engine.connect() as connection:
            return list(connection.execute(wanted).scalars())

    def _at_the_broker(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.execute(select(ledger.paper_orders.c.client_order_id)).scalars())

    def _count(self, table: Any) -> int:
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    def _claim(self, identity: str) -> str | None:
        table = ledger.executions
        with self.engine.connect() as connection:
            return connection.execute(select(table.c.status).where(table.c.proposal == identity)).scalar_one_or_none()


def _crash() -> None:
    raise Crash


@pytest.fixture
def machine(tmp_path: Path) -> type[TradingStates]:
    """The machine with a ledger to copy."""
    memory = Path("/dev/shm")
    place = (memory if memory.is_dir() else tmp_path) / f"states-{tmp_path.parent.name}-{tmp_path.name}.sqlite"
    own = {"template": chaos.make_template(tmp_path), "place": place, "seen": Counter()}
    return type("Machine", (TradingStates,), own)


class Player:
    """Plays the machine by dice; the first evening of one seed after another comes to each obstacle and disturbance."""

    def __init__(self, machine: type[TradingStates], seed: int) -> None:
        self.seed, self.dice = seed, random.Random(seed)
        self.state = machine()

    def play(self, moves: int) -> None:
        """Some evenings; every promise is looked at after each move."""
        dice, state = self.dice, self.state
        evening = {**self._evening(), "obstacle": (*OBSTACLES, None, None, None)[self.seed % 12]}
        evening["tried"][0] |= {"what": WHAT[self.seed % 5], "doom": (CHECKPOINTS[1 + self.seed % 4], 1)}
        try:
            state.begin(
                prices=[dice.randint(500, 20_000) for _ in NAMES],
                auction=dice.random() < 0.5,
                forgetful=dice.random() < 0.5,
                holds=dice.random() < 0.5,
                **evening,
            )
            state.promises_hold()
            for _ in range(moves):
                self._move()
                state.promises_hold()
        finally:
            state.teardown()

    def _move(self) -> None:
        dice, state = self.dice, self.state
        match dice.randrange(10):
            case 0 | 1 if state._under_way() and not state.halted:
                state.run_an_executor(self._disturbance())
            case 2 if state.proposals:
                state.run_a_calm_executor(dice.randint(-3, -1), dice.randrange(99))
            case 3 if state.proposals and state._proposal(-1)[1].state in ("open", "approved"):
                state.somebody_interferes(dice.choice(("denial", "forgery", "quorum", "bytes")))
            case 4 if state._under_way() and len(state.proposals) not in state.misled:
                state.run_an_executor_that_is_told_wrong_positions(dice.randint(1, 50))
            case 5 if state._under_way() and not state.halted:
                state.halt()
                state.run_a_calm_executor(-1, dice.randrange(99))
            case 6 if state.proposals:
                state.decide(dice.choice(PEOPLE), dice.choice(("approve", "approve", "deny")), dice.randint(-2, -1))
            case 7:
                state.propose(self._plan())
            case _ if state.halted:
                state.resume()
            case _ if state._under_way():
                state.wait(dice.choice((1, 45, 900, 900, 46_800)), dice.random() < 0.3)
            case _:
                moves = [dice.randint(900, 1_100) for _ in NAMES]
                state.rebalance_on_another_evening(prices=moves, **self._evening())

    def _evening(self) -> dict[str, Any]:
        return {
            "plan": self._plan(),
            "opened": self.dice.random() < 0.7,
            "obstacle": self.dice.choice((*OBSTACLES, *[None] * len(OBSTACLES))),
            "tried": [self._disturbance() for _ in range(self.dice.randint(1, 3))],
        }

    def _plan(self) -> dict[str, Decimal]:
        return {name: Decimal(self.dice.randint(-40, 40)) / 100 for name in NAMES}

    def _disturbance(self) -> dict[str, Any]:
        return {
            "script": self._misbehaviour(),
            "seed": self.dice.randrange(100),
            "doom": (self.dice.choice((*chaos.STEPS, *CHECKPOINTS[:5])), self.dice.choice((1, 1, 1, 2, 3))),
            "what": self.dice.choice(WHAT),
            "other": self._misbehaviour(),
        }

    def _misbehaviour(self) -> Misbehaviour:
        dice = self.dice
        lines = {"submit": [dice.randint(0, 6) * (dice.random() < 0.6) for _ in range(4)]}
        for request in ("find", "cancel", "fills", "question", "fill"):
            if dice.random() < 0.4:
                lines[request] = [dice.randint(0, 2) for _ in range(dice.randint(1, 3))]
        return lines


PLAYS = 36
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_every_promise_holds_after_every_step(machine: type[TradingStates]) -> None:
    quick = settings(
        max_examples=15,
        phases=[Phase.generate],  # a failure is told at once: to make it smaller takes minutes, without this line
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=CHECKS,
    )
    run_state_machine_as_test(machine, settings=quick)
    # A machine that plays nothing would find nothing.
    assert machine.seen["fills"] > 10
    assert machine.seen["proposals"] > 15


def test_every_promise_holds_in_plays_by_dice(machine: type[TradingStates]) -> None:
    for seed in range(PLAYS):
        Player(machine, seed).play(moves=4)
    assert machine.seen["fills"] > PLAYS
    assert min(machine.seen[each] for each in (*OBSTACLES, "overtaken", "halt", "expiry", "finished")) >= PLAYS / 12


@pytest.mark.long
@pytest.mark.timeout(5_000)
def test_every_promise_holds_in_many_long_plays_by_dice(machine: type[TradingStates]) -> None:
    for seed in range(10_000, 10_400):
        Player(machine, seed).play(moves=25)


@pytest.mark.long
@pytest.mark.timeout(5_000)
def test_every_promise_holds_after_every_step_of_long_plays(machine: type[TradingStates]) -> None:
    deep = settings(
        max_examples=400, stateful_step_count=50, deadline=None, database=None, suppress_health_check=CHECKS
    )
    run_state_machine_as_test(machine, settings=deep)
