"""Every event is told once to each target that wants it, a failing target is tried again, and nothing leaks."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import halt, resume
from stockpicker_dagster.trading.notifications.delivery import ATTEMPTS, LEASE, Drained, drain, send
from stockpicker_dagster.trading.notifications.network import LOOPBACK_ALLOWED
from stockpicker_dagster.trading.notifications.outbox import put, ranking_notice
from stockpicker_dagster.trading.notifications.targets import disable_target, set_target
from stockpicker_dagster_tests.trading.notifications.receivers import Webhook, mailbox, posted

PRICES = {"AAA": 50.0, "BBB": 20.0}


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setenv(LOOPBACK_ALLOWED, "1")
    with Webhook() as running:
        yield running


@pytest.fixture
def told(trading_desk: Any, webhook: Webhook) -> Any:
    """A desk whose notices go to the webhook."""
    set_target(trading_desk.engine, "hook", webhook.address, "ann", trading_desk.now - timedelta(days=1))
    return trading_desk


def rows(desk: Any) -> list[Any]:
    with desk.engine.connect() as connection:
        return list(connection.execute(select(ledger.outbox).order_by(ledger.outbox.c.id)))


def test_a_rebalance_is_told_from_proposal_to_end_and_each_event_once(told: Any, webhook: Webhook) -> None:
    identity = str(told.propose({"AAA": 0.5, "BBB": -0.5}, PRICES, volumes={"AAA": 5_000.0, "BBB": 1e9}).id)
    assert drain(told.engine, told.now) == Drained(1, 1, 0, 0)
    told.approve(identity)
    told.execute(identity)
    halt(told.engine, "paper", "ann", "lunch", told.now)
    resume(told.engine, "paper", "ann", told.now)
    assert drain(told.engine, told.now).sent == 4
    assert drain(told.engine, told.now) == Drained(0, 0, 0, 0)
    assert posted(webhook) == [
        "StockPicker: momentum proposes 2 orders on paper",
        f"StockPicker: proposal {identity} of momentum is approved",
        f"StockPicker: execution of {identity} on paper finished",
        "StockPicker: account paper halted",
        "StockPicker: account paper resumed",
    ]
    text = webhook.taken[0]["message"]
    assert f"Proposal {identity}" in text
    assert "1 to buy, 1 to short" in text
    assert "Less is opened than planned, for the limit `volume_share` of 0.1 of a mean day: AAA" in text
    assert "Orders: 2 filled" in webhook.taken[2]["message"]


def test_mail_arrives_with_subject_and_text(told: Any) -> None:
    with mailbox() as (port, messages):
        address = f"mailto://127.0.0.1:{port}/?from=me@example.org&to=you@example.org&mode=insecure"
        assert send(address, "StockPicker: account paper halted", "by ann") is None
    assert "account paper halted" in messages[0]
    assert "by ann" in messages[0]


@pytest.mark.parametrize("fault", ["500", "504", "429", "drop", "html_500"])
def test_a_target_that_fails_is_tried_again_with_longer_and_longer_pauses(
    told: Any, webhook: Webhook, fault: str
) -> None:
    told.proposed({"AAA": 0.5}, PRICES)
    webhook.play(fault, times=None)
    assert drain(told.engine, told.now) == Drained(1, 0, 1, 0)
    [row] = rows(told)
    assert (row.status, row.attempts) == ("waiting", 1)
    assert row.due_at == told.now + timedelta(seconds=30)
    assert webhook.address not in row.last_error
    assert drain(told.engine, told.now + timedelta(seconds=29)) == Drained(0, 0, 0, 0)
    drain(told.engine, told.now + timedelta(seconds=30))
    assert rows(told)[0].due_at == told.now + timedelta(seconds=90)
    webhook.faults.clear()
    assert drain(told.engine, told.now + timedelta(minutes=5)).sent == 1
    assert len(webhook.taken) == 1


def test_patience_ends_and_so_does_the_use_of_a_notice(told: Any) -> None:
    halt(told.engine, "paper", "ann", "lunch", told.now)
    moment = told.now
    for _ in range(ATTEMPTS):
        drain(told.engine, moment, deliver=lambda url, subject, body: "no")
        moment += timedelta(hours=2)
    assert [(row.status, row.attempts, row.last_error) for row in rows(told)] == [("failed", ATTEMPTS, "no")]


def test_a_proposal_that_expired_is_not_announced_any_more(told: Any, webhook: Webhook) -> None:
    told.proposed({"AAA": 0.5}, PRICES)
    drain(told.engine, told.now, deliver=lambda url, subject, body: "no")
    assert drain(told.engine, told.now + timedelta(hours=30)).given_up == 1
    assert rows(told)[0].status == "expired"
    assert webhook.taken == []


def test_a_process_that_dies_while_sending_loses_nothing(told: Any, webhook: Webhook) -> None:
    told.proposed({"AAA": 0.5}, PRICES)

    def die(url: str, subject: str, body: str) -> str | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(told.engine, told.now, deliver=die)
    assert rows(told)[0].status == "sending"
    # Nobody else sends it while its process may be alive.
    assert drain(told.engine, told.now + LEASE / 2) == Drained(0, 0, 0, 0)
    assert drain(told.engine, told.now + LEASE).sent == 1


def test_each_target_gets_its_kinds_from_when_it_was_set(told: Any, webhook: Webhook) -> None:
    halt(told.engine, "paper", "ann", "lunch", told.now)
    set_target(told.engine, "late", webhook.address, "ann", told.now + timedelta(minutes=1))
    set_target(told.engine, "picky", webhook.address, "ann", told.now - timedelta(days=1), ["ranking"])
    disable_target(told.engine, "hook", told.now)
    assert drain(told.engine, told.now) == Drained(0, 0, 0, 0)
    notice = ranking_notice("momentum", "2024-03-04", ["AAA"], ["BBB"], "no rebalance is proposed", told.now)
    assert [put(told.engine, notice, told.now), put(told.engine, notice, told.now)] == [1, 0]
    drain(told.engine, told.now)
    assert posted(webhook) == ["StockPicker: ranking of momentum, 2024-03-04"]
    assert "Most undervalued: AAA" in webhook.taken[0]["message"]


def test_a_target_that_was_disabled_gets_nothing_that_waits(told: Any, webhook: Webhook) -> None:
    told.proposed({"AAA": 0.5}, PRICES)
    drain(told.engine, told.now, deliver=lambda url, subject, body: "no")
    disable_target(told.engine, "hook", told.now)
    assert drain(told.engine, told.now + timedelta(hours=1)).given_up == 1
    assert webhook.taken == []


def test_names_with_markup_arrive_as_text(told: Any, webhook: Webhook) -> None:
    halt(told.engine, "paper", "<script>ann</script>", "a\\n[link](http://evil.example.org)", told.now)
    drain(told.engine, told.now)
    [document] = webhook.taken
    assert document["message"] == "Account paper halted by <script>ann</script>: a\\n[link](http://evil.example.org)"


def test_two_processes_draining_at_once_send_each_notice_once(told: Any, webhook: Webhook) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for number in range(6):
        put(told.engine, ranking_notice("momentum", f"2024-03-{number:02d}", [], [], "nothing", told.now), told.now)
    with ThreadPoolExecutor(4) as pool:
        passes = list(pool.map(lambda _: drain(told.engine, told.now), range(4)))
    assert sum(done.sent for done in passes) == 6
    assert len(webhook.taken) == 6
