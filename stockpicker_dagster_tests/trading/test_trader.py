"""The trader executes what is approved, once, whatever it is told, whenever it is killed, however often it starts."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import OperationalError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import open_database
from stockpicker_dagster.trading import accounts, desk, ledger, locks, reconciliation
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.brokers.alpaca import AlpacaBroker
from stockpicker_dagster.trading.flatten import propose_flattening
from stockpicker_dagster.trading.locks import Fenced, LockHeld
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.people.sign_in import Proof
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster.trading.signatures import TrustedKeys, load_trusted_keys, make_signing_key
from stockpicker_dagster.trading.trader import Pace, Trader
from stockpicker_dagster.trading.trader_reports import TraderReport, trader_of
from stockpicker_dagster_tests.trading.brokers.alpaca_server import AlpacaServer
from stockpicker_dagster_tests.trading.brokers.exchange import TUESDAY
from stockpicker_dagster_tests.trading.people.conftest import cheap_hashes
from stockpicker_dagster_tests.trading.stands import CALENDAR, WEDNESDAY, AlpacaStand

__all__ = ["cheap_hashes"]

BOOK = {"AAA": 0.4, "BBB": -0.4}
TURNED = {"AAA": 0.2, "BBB": -0.2, "CCC": 0.2, "BRK-B": -0.2}
QUICK = Pace(look=0.01, again=0.0, trouble=0.0, reconcile=1000.0, beat=0.05, blind=0.0)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "PAUSES", (0.001,))
    # Days pass here in which the broker's limit on requests would be one minute's.
    unhurried = replace(AlpacaBroker.capabilities, requests_per_minute=1_000_000)
    monkeypatch.setattr(AlpacaBroker, "capabilities", unhurried)


@pytest.fixture
def stand(new_ledger: Callable[[], Engine]) -> Iterator[AlpacaStand]:
    with AlpacaServer() as server:
        yield AlpacaStand(new_ledger(), server)


def trader(stand: AlpacaStand, trusted: TrustedKeys | None = None, **more: Any) -> Trader:
    def reach(engine: Engine, account: str, wait: Callable[[float], None]) -> Any:
        return stand.connect(engine, account)

    return Trader(stand.engine, "us", reach, trusted or TrustedKeys(), now=lambda: stand.now, pace=QUICK, **more)


def report(stand: AlpacaStand) -> TraderReport:
    found = trader_of(stand.engine, "us")
    assert found is not None
    return found


def approved(stand: AlpacaStand, targets: dict[str, float] = BOOK) -> str:
    proposal = stand.proposed(targets)
    stand.approve(proposal)
    return proposal


def trade_a_day(stand: AlpacaStand, **more: Any) -> None:
    """The trader over an evening, the open, and the fills after it."""
    trader(stand, **more).serve(rounds=1)
    stand.market.open_session(CALENDAR.next_session(stand.session))
    for _ in range(2):
        trader(stand, **more).serve(rounds=1)
        stand.fill_all()
    trader(stand, **more).serve(rounds=1)


def assert_sent_once(stand: AlpacaStand) -> None:
    """Every order at the broker is one intent of the ledger, and no intent is two orders."""
    with stand.engine.connect() as connection:
        intents = connection.execute(select(ledger.order_intents.c.id)).scalars().all()
    ids = [order.client_id for order in stand.market.orders]
    assert len(ids) == len(set(ids))
    assert set(ids) <= set(intents)


def test_what_is_approved_is_executed_and_nothing_else(stand: AlpacaStand) -> None:
    proposal = stand.proposed(BOOK)
    trader(stand).serve(rounds=2)
    assert stand.market.orders == []
    stand.approve(proposal)
    trade_a_day(stand)
    assert load(stand.engine, proposal).state == "executed"
    assert stand.books() == stand.market.positions == {"AAA": Decimal(7840), "BBB": Decimal(-7840)}
    assert_sent_once(stand)
    assert report(stand).state == "stopped"


def test_a_trader_reconciles_at_its_start_and_says_how_it_is(stand: AlpacaStand) -> None:
    trader(stand).serve(rounds=1)
    said = report(stand)
    assert said.reconciled_at == stand.now
    assert said.problem == ""
    assert "stopped" in said.sentence(said.seen_at)
    later = said.seen_at + timedelta(minutes=2)
    assert "not running, start it with `stockpicker trader us`" in said.sentence(later)


def test_a_second_trader_is_refused_while_the_first_one_lives(stand: AlpacaStand) -> None:
    lock = locks.take(stand.engine, "us")
    with pytest.raises(LockHeld, match="being traded by"):
        trader(stand).serve(rounds=1)
    locks.release(stand.engine, lock)
    trader(stand).serve(rounds=1)


def test_a_trader_that_was_taken_over_commits_nothing_more(stand: AlpacaStand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.rebalance(BOOK)
    approved(stand, {"AAA": 0.2, "BBB": -0.2})
    sent = 0
    old = trader(stand)
    step = old._step

    def taken_over(reached: str) -> None:
        nonlocal sent
        sent += reached == "after_submit"
        if reached == "before_intent" and sent == 1:
            monkeypatch.setattr(locks, "LEASE", timedelta())
            locks.take(stand.engine, "us")
        step(reached)

    monkeypatch.setattr(old, "_step", taken_over)
    with pytest.raises(Fenced):
        old.serve(rounds=5)
    assert len(stand.market.orders) == 3
    trade_a_day(stand)
    assert stand.books() == stand.market.positions
    assert_sent_once(stand)


def test_books_that_differ_at_the_start_keep_a_rebalance_waiting(stand: AlpacaStand) -> None:
    approved(stand)
    stand.market.positions["CCC"] = Decimal(5)
    trader(stand).serve(rounds=2)
    assert stand.market.orders == []
    assert "CCC is 0 shares in the ledger and 5 by broker alpaca" in report(stand).problem
    assert accounts.is_halted(stand.engine, "us")


@pytest.mark.long
def test_a_silent_broker_is_a_problem_that_passes(stand: AlpacaStand) -> None:
    approved(stand)
    stand.server.play("drop", "/v2/account", "GET", times=None)
    trader(stand).serve(rounds=1)
    assert "nothing was sent" in report(stand).problem
    stand.server.faults.clear()
    trade_a_day(stand)
    assert report(stand).problem == ""
    assert stand.books().keys() == {"AAA", "BBB"}


def test_clocks_that_are_apart_send_nothing(stand: AlpacaStand) -> None:
    approved(stand)
    slow = trader(stand)
    slow._now = lambda: stand.now - timedelta(seconds=5)
    slow.serve(rounds=2)
    assert stand.market.orders == []
    assert "5.0 s apart" in report(stand).problem


def test_an_approval_that_was_not_used_in_time_is_never_used(stand: AlpacaStand) -> None:
    proposal = approved(stand)
    stand.market.at(TUESDAY, 9, 29)
    trader(stand).serve(rounds=2)
    stand.market.open_session()
    trader(stand).serve(rounds=2)
    assert (load(stand.engine, proposal).state, stand.market.orders) == ("lapsed", [])


def test_a_halt_in_mid_basket_cancels_within_a_second(stand: AlpacaStand) -> None:
    stand.rebalance(BOOK)
    approved(stand, {"AAA": 0.2, "BBB": -0.2})
    serving = threading.Thread(target=(running := trader(stand)).serve, daemon=True)
    serving.start()
    while sum(order.open for order in stand.market.orders) < 2:
        time.sleep(0.01)
    accounts.halt(stand.engine, "us", "os:risk", "stop", stand.now)
    halted_at = time.monotonic()
    while any(order.open for order in stand.market.orders) and time.monotonic() - halted_at < 20:
        time.sleep(0.01)
    assert not any(order.open for order in stand.market.orders)
    running._stop.set()
    serving.join()
    assert "halted by os:risk" in report(stand).state or report(stand).state == "stopped"


def test_a_halt_while_the_books_are_compared_ends_nothing_but_the_comparison(stand: AlpacaStand) -> None:
    running = trader(stand)
    wait, waited = running._wait, []

    def halted_meanwhile(seconds: float) -> None:
        if not waited:
            accounts.halt(stand.engine, "us", "os:risk", "stop", stand.now)
        waited.append(seconds)
        wait(seconds)

    running._wait = halted_meanwhile  # type: ignore[method-assign]
    trader(stand).serve(rounds=1)
    stand.market.positions["AAA"] = Decimal(1)
    running.serve(rounds=2)
    assert waited
    assert "AAA is 0 shares in the ledger and 1" in report(stand).problem


def test_an_unreadable_ledger_cancels_what_is_working(stand: AlpacaStand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.rebalance(BOOK)
    approved(stand, {"AAA": 0.2, "BBB": -0.2})
    running = trader(stand)
    running.serve(rounds=2)
    assert sum(order.open for order in stand.market.orders) == 2
    stand.market.place("by-hand", "CCC", "buy", Decimal(5), "market", "day")
    lock = locks.take(stand.engine, "us")

    def unreadable() -> None:
        raise OperationalError("SELECT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(stand.engine, "connect", unreadable)
    running._round(lock)
    assert [order.client_id for order in stand.market.orders if order.open] == ["by-hand"]


def test_a_stop_ends_between_two_orders_and_the_rest_follows_later(stand: AlpacaStand) -> None:
    stand.rebalance(BOOK)
    approved(stand, {"AAA": 0.2, "BBB": -0.2})
    stop = threading.Event()
    ending = trader(stand, stop=stop)
    step = ending._step

    def stopped(reached: str) -> None:
        if reached == "after_record":
            stop.set()
        step(reached)

    ending._step = stopped  # type: ignore[method-assign]
    ending.serve()
    assert len(stand.market.orders) == 3
    trade_a_day(stand)
    assert stand.books() == stand.market.positions
    assert_sent_once(stand)


def test_accounts_that_have_no_use_for_a_trader_are_refused(stand: AlpacaStand) -> None:
    ensure_paper_account(stand.engine, "paper", stand.now)
    with pytest.raises(InvalidInput, match="needs no trader"):
        Trader(stand.engine, "paper", lambda *_: None, TrustedKeys()).serve()  # type: ignore[arg-type, return-value]


# -- live -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(new_ledger: Callable[[], Engine]) -> Iterator[AlpacaStand]:
    """A live account with an approver."""
    with AlpacaServer() as server:
        stand = AlpacaStand(new_ledger(), server, mode="live", live_enabled=True)
        directory.add_person(stand.engine, "ada", "administrator", "a long password", "os:me", stand.now)
        directory.add_person(stand.engine, "ann", "approver", "a long password", "ada", stand.now)
        yield stand


def keys(folder: Path) -> tuple[Any, TrustedKeys]:
    signer = make_signing_key(folder)
    (folder / "trusted").write_text(signer.public_text)
    return signer, load_trusted_keys(folder / "trusted")


def test_a_live_account_trades_through_its_trader_alone(
    live: AlpacaStand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, trusted = keys(tmp_path)
    with pytest.raises(InvalidInput, match="no key is trusted"):
        trader(live).serve()
    assert "last agreed with the broker's: never" in live.propose(BOOK).reason
    trader(live, trusted).serve(rounds=1)

    def elsewhere(*_: object) -> None:
        raise AssertionError("only the trader may reach the broker")

    reach = live.connect
    monkeypatch.setattr(live, "connect", elsewhere)
    proposal = live.proposed(BOOK)
    proof = Proof("ann", "password", live.now)
    decide(live.engine, proposal, "ann", "approve", "", live.now, proof=proof, signer=signer)
    seen = live.execute()
    assert (seen.status, live.market.orders) == ("working", [])
    assert desk.halt(live.engine, "us", "os:me", "lunch", live.now, connect=live.connect) == 0
    accounts.resume(live.engine, "us", "os:me", live.now)
    monkeypatch.setattr(live, "connect", reach)
    trade_a_day(live, trusted=trusted)
    assert live.books() == {"AAA": Decimal(7840), "BBB": Decimal(-7840)}
    assert live.execute().status == "finished"
    assert_sent_once(live)


@pytest.mark.parametrize("forged", ["decision", "other key", "claim", "replay"])
def test_rows_that_were_written_by_hand_execute_nothing(live: AlpacaStand, tmp_path: Path, forged: str) -> None:
    signer, trusted = keys(tmp_path / "desk")
    trader(live, trusted).serve(rounds=1)
    proposal = live.proposed(BOOK)
    found = load(live.engine, proposal)
    with live.engine.begin() as connection:
        if forged == "claim":
            connection.execute(
                ledger.executions.insert().values(
                    digest=found.digest, proposal=proposal, status="claimed", detail="", claimed_at=live.now
                )
            )
        elif forged == "decision":
            row = {"proposal": proposal, "person": "ann", "decision": "approve", "reason": "", "decided_at": live.now}
            connection.execute(ledger.decisions.insert().values(**row, method="password"))
            ledger.record_outcome(connection, proposal, "approved", "ann", live.now)
    proof = Proof("ann", "password", live.now)
    if forged == "other key":
        eve, _ = keys(tmp_path / "eve")
        decide(live.engine, proposal, "ann", "approve", "", live.now, proof=proof, signer=eve)
    if forged == "replay":
        # A signed approval of another proposal, put under this one.
        decide(live.engine, proposal, "ann", "approve", "", live.now, proof=proof, signer=signer)
        with live.engine.connect() as connection:
            signed = connection.execute(select(ledger.decisions.c.signature)).scalar_one()
        accounts.halt(live.engine, "us", "os:me", "x", live.now)
        live.market.at(TUESDAY, 20, 15)
        live.session = TUESDAY
        accounts.resume(live.engine, "us", "os:me", live.now)
        trader(live, trusted).serve(rounds=2)
        second = live.proposed(BOOK)
        row = {"proposal": second, "person": "ann", "decision": "approve", "reason": "", "decided_at": live.now}
        with live.engine.begin() as connection:
            values = {**row, "method": "password", "key": signer.key, "signature": signed}
            connection.execute(ledger.decisions.insert().values(**values))
            ledger.record_outcome(connection, second, "approved", "ann", live.now)
    trader(live, trusted).serve(rounds=1)
    live.market.open_session(CALENDAR.next_session(live.session))
    trader(live, trusted).serve(rounds=1)
    assert live.market.orders == []
    assert "is not executed" in report(live).problem or forged == "replay"


def test_changed_bytes_execute_nothing_and_are_said(live: AlpacaStand, tmp_path: Path) -> None:
    signer, trusted = keys(tmp_path)
    trader(live, trusted).serve(rounds=1)
    proposal = live.proposed(BOOK)
    decide(
        live.engine, proposal, "ann", "approve", "", live.now, proof=Proof("ann", "password", live.now), signer=signer
    )
    with live.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER proposals_no_UPDATE"))
        document = connection.execute(text("SELECT document FROM proposals")).scalar_one()
        connection.execute(text("UPDATE proposals SET document = :d"), {"d": document.replace(b"7840", b"9840")})
    trader(live, trusted).serve(rounds=1)
    assert live.market.orders == []
    assert "the stored bytes have digest" in report(live).problem


# -- killed -----------------------------------------------------------------------------------------------------------


def _serve_and_die(url: str, stand: AlpacaStand, steps: int) -> None:
    """Serves until it has come so many steps far, and is gone then, as if the machine had lost its power."""
    stand.engine = open_database(url)
    dying = trader(stand)
    left = steps

    def die(_reached: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    dying._step = die  # type: ignore[method-assign]
    dying.serve(rounds=2)


def test_a_trader_killed_at_any_instant_is_taken_up_by_the_next_one(stand: AlpacaStand) -> None:
    """Real processes, killed without warning while orders go out; the last one brings it to its end."""
    stand.rebalance(BOOK)
    proposal = approved(stand, TURNED)
    url, dice = str(stand.engine.url), random.Random(5)
    stand.engine.dispose()
    fork = multiprocessing.get_context("fork")
    killed = 0
    for opened in (False, True):
        if opened:
            stand.market.open_session(TUESDAY + timedelta(days=1))
        for _ in range(2):
            child = fork.Process(target=_serve_and_die, args=(url, stand, dice.randint(1, 4)), daemon=True)
            child.start()
            child.join(30)
            killed += child.exitcode == -signal.SIGKILL
            # By now an order that was not answered would have arrived.
            stand.market.advance(minutes=3)
            if opened:
                stand.fill_all()
    assert killed >= 2
    for _ in range(4):
        stand.market.advance(minutes=3)
        trader(stand).serve(rounds=2)
        stand.fill_all()
    assert load(stand.engine, proposal).state == "executed"
    assert stand.books() == stand.market.positions
    assert_sent_once(stand)


def _serve_and_stand_still(url: str, stand: AlpacaStand, orders: int) -> None:
    """Serves, and stands still between committing to so many orders and sending the last of them."""
    stand.engine = open_database(url)
    pausing = trader(stand)
    left = orders

    def stop(reached: str) -> None:
        nonlocal left
        left -= reached == "after_intent"
        if reached == "after_intent" and not left:
            os.kill(os.getpid(), signal.SIGSTOP)
            # Its clock is right again at once; one that was wrong would be reason enough to send nothing.
            stand.market.advance(minutes=9)

    pausing._step = stop  # type: ignore[method-assign]
    # Nothing else in this process looks after its lock.
    pausing._beat = lambda *_: None  # type: ignore[method-assign]
    pausing.serve(rounds=1)


def test_a_trader_that_stood_still_sends_nothing_once_another_has_taken_over(
    stand: AlpacaStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, stopped with an order in its hand while the next one brings the basket to its end."""
    stand.rebalance(BOOK)
    proposal = approved(stand, {"AAA": 0.2, "BBB": -0.2})
    url = str(stand.engine.url)
    stand.engine.dispose()
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=_serve_and_stand_still, args=(url, stand, 2), daemon=True)
    child.start()
    assert child.pid is not None
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    monkeypatch.setattr(locks, "LEASE", timedelta())
    for _ in range(3):
        stand.market.advance(minutes=3)
        trader(stand).serve(rounds=1)
    posted = stand.server.count("POST", "/v2/orders")
    os.kill(child.pid, signal.SIGCONT)
    child.join(30)
    assert child.exitcode == 1  # `Fenced`, out of the process
    assert stand.server.count("POST", "/v2/orders") == posted
    stand.market.open_session(WEDNESDAY)
    trader(stand).serve(rounds=2)
    assert load(stand.engine, proposal).state == "executed"
    assert stand.books() == stand.market.positions
    assert_sent_once(stand)


# -- flattening -------------------------------------------------------------------------------------------------------


def test_a_flattening_passes_a_halt_and_ends_what_was_under_way(stand: AlpacaStand) -> None:
    stand.rebalance(BOOK)
    under_way = approved(stand, {"AAA": 0.6, "BBB": -0.2})
    trader(stand).serve(rounds=2)
    assert sum(order.open for order in stand.market.orders) == 1
    accounts.halt(stand.engine, "us", "os:risk", "out of here", stand.now)
    flattening = propose_flattening(stand.engine, "us", "os:risk", stand.now, when="open", connect=stand.connect)
    trader(stand).serve(rounds=2)
    assert not any(order.open for order in stand.market.orders)
    assert load(stand.engine, flattening).state == "open"
    stand.approve(flattening)
    trader(stand).serve(rounds=2)
    assert load(stand.engine, under_way).state == "executed"
    stand.market.open_session(TUESDAY + timedelta(days=1))
    trader(stand).serve(rounds=2)
    assert load(stand.engine, flattening).state == "executed"
    assert stand.books() == stand.market.positions == {}
    assert_sent_once(stand)
    with stand.engine.connect() as connection:
        sent = connection.execute(
            select(func.count()).select_from(ledger.order_intents).where(ledger.order_intents.c.phase == "openings")
        ).scalar_one()
    assert sent == 2
