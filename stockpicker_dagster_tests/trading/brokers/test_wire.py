"""Over HTTP three things are never confused: not sent, answered, and nobody knows."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import stopwatch
from stockpicker_dagster.trading.brokers import BrokerUnavailable
from stockpicker_dagster.trading.brokers.wire import NoAnswer, NotSent, Pace, Patience, Wire
from stockpicker_dagster_tests.trading.brokers.faulty_server import AFTER, FaultyServer

QUICK = Patience(connect=1, read=0.3, whole=0.6, attempts=3, first_wait=0.01, longest_wait=0.05, refused_for=0.2)
SECRET = "hunter-two"


class Echo(FaultyServer):
    """Counts what has an effect."""

    def __init__(self) -> None:
        super().__init__()
        self.effects = 0

    def respond(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> tuple[int, Any]:
        self.effects += method == "POST"
        return 200, {"asked": path, "query": query, "body": body, "price": Decimal("0.1")}


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as running:
        yield running


def wire(server: Echo, **more: Any) -> Wire:
    settings: dict[str, Any] = {"patience": QUICK, "secrets": (SECRET,), **more}
    return Wire(server.url, {"Authorization": SECRET}, **settings)


def test_figures_of_an_answer_stay_exact(server: Echo) -> None:
    answer = wire(server).ask("/a", {"x": 1, "left_out": None})
    assert answer.body == {"asked": "/a", "query": {"x": "1"}, "body": None, "price": Decimal("0.1")}


@pytest.mark.parametrize(
    "kind", ["hang", "drop", *[fault for fault in AFTER if fault[0] in "dh" and "html" not in fault]]
)
def test_a_request_without_an_answer_is_made_once_and_nobody_knows(server: Echo, kind: str) -> None:
    server.play(kind, times=None)
    with pytest.raises(NoAnswer):
        wire(server).send("POST", "/orders", {"id": "1"})
    assert server.count("POST") == 1
    assert server.effects == kind.endswith("_after")


@pytest.mark.parametrize("kind", ["504_after", "500_after", "html_500_after", "redirect"])
def test_a_status_is_handed_on_and_nothing_is_sent_again(server: Echo, kind: str) -> None:
    server.play(kind)
    answer = wire(server).send("POST", "/orders", {"id": "1"})
    assert answer.status in (302, 500, 504)
    assert server.count("POST") == 1


@pytest.mark.parametrize("kind", ["html_200_after", "truncated_after"])
def test_what_is_no_json_is_no_answer_to_read(server: Echo, kind: str) -> None:
    server.play(kind)
    answer = wire(server).send("POST", "/orders", {"id": "1"})
    assert answer.succeeded
    assert answer.body is None


def test_without_a_connection_nothing_was_sent() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NotSent):
        Wire(f"http://127.0.0.1:{port}", {}, patience=QUICK).send("POST", "/orders", {})


def test_a_request_refused_as_one_too_many_is_sent_again_when_the_broker_says(server: Echo) -> None:
    waits: list[float] = []
    patient = Patience(read=1, first_wait=0.01, refused_for=60)
    server.play("429", times=2, retry_after="7")
    answer = wire(server, patience=patient, wait=waits.append).send("POST", "/orders", {"id": "1"})
    assert answer.status == 200
    assert server.effects == 1
    assert [7 <= pause < 7.02 for pause in waits] == [True, True]
    assert waits[0] != waits[1]


def test_patience_with_refusals_ends(server: Echo) -> None:
    waits: list[float] = []
    server.play("429", times=None, retry_after="25")
    patient = Patience(read=1, first_wait=0.01, refused_for=60)
    assert wire(server, patience=patient, wait=waits.append).send("POST", "/orders", {}).status == 429
    assert len(waits) == 2


def test_a_wait_that_raises_leaves_nothing_sent(server: Echo) -> None:
    def halted(seconds: float) -> None:
        raise RuntimeError("halted")

    server.play("429", times=None)
    with pytest.raises(RuntimeError, match="halted"):
        wire(server, wait=halted).send("POST", "/orders", {})
    assert server.effects == 0


@pytest.mark.parametrize(("no_at", "broken_off"), [(1, 0), (2, 1)], ids=["before", "at the last moment"])
def test_what_the_last_word_forbids_has_no_effect(server: Echo, no_at: int, broken_off: int) -> None:
    asked: list[int] = []

    def last_word() -> str | None:
        asked.append(server.effects)
        return "halted by ada" if len(asked) == no_at else None

    with pytest.raises(NotSent, match="halted by ada"):
        wire(server).send("POST", "/orders", {"id": "1"}, last_word=last_word)
    assert asked == [0] * no_at
    # The next request, on whatever connection, is a whole one.
    assert wire(server).send("POST", "/orders", {"id": "2"}, last_word=lambda: None).body["body"] == {"id": "2"}
    assert (server.effects, server.broken_off) == (1, broken_off)


def test_the_last_word_is_asked_for_every_attempt(server: Echo) -> None:
    asked: list[int] = []
    server.play("429", times=2, retry_after="0")

    def last_word() -> str | None:
        asked.append(server.count("POST"))
        return None if server.count("POST") < 2 else "expired"

    with pytest.raises(NotSent, match="expired"):
        wire(server, patience=Patience(first_wait=0.01)).send("POST", "/orders", {}, last_word=last_word)
    assert asked == [0, 0, 1, 1, 2]
    assert server.effects == 0


def test_a_process_that_stood_still_while_it_asked_asks_again(server: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was true before a pause is not believed after it: of the clocks, one that runs through it is enough."""
    hours, asked = {"passed": 0.0}, []
    monkeypatch.setattr(stopwatch, "CLOCKS", (lambda: 7.0, lambda: hours["passed"] * 3600))

    def last_word() -> str | None:
        asked.append(hours["passed"])
        if len(asked) == 2:
            hours["passed"] += 1
        return "expired" if asked[-1] else None

    with pytest.raises(NotSent, match="expired"):
        wire(server).send("POST", "/orders", {}, last_word=last_word)
    assert (asked, server.effects) == ([0, 0, 1], 0)


def test_a_process_that_stands_still_every_time_sends_nothing(server: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = {"passed": 0.0}
    monkeypatch.setattr(stopwatch, "CLOCKS", (lambda: hours["passed"] * 3600,))

    def last_word() -> None:
        hours["passed"] += 1

    with pytest.raises(NotSent, match="stands still again and again"):
        wire(server).send("POST", "/orders", {}, last_word=last_word)
    assert server.effects == 0


def test_questions_are_repeated_and_then_given_up(server: Echo) -> None:
    waits: list[float] = []
    asking = wire(server, wait=waits.append)
    for kind in ("504", "429"):
        server.play(kind, method="GET")
    assert asking.ask("/a").status == 200
    server.play("html_500", method="GET", times=None)
    with pytest.raises(BrokerUnavailable, match="failed 3 times when asked for /a, at last with status 500"):
        asking.ask("/a")
    assert all(0 < pause <= 0.05 for pause in waits)


def test_retry_after_may_be_a_moment_of_the_servers_clock(server: Echo) -> None:
    waits: list[float] = []
    server.clock = lambda: datetime(2020, 1, 1, tzinfo=UTC)  # type: ignore[method-assign]
    server.play("429", retry_after=format_datetime(server.clock() + timedelta(seconds=9), usegmt=True))
    wire(server, patience=Patience(first_wait=0.01), wait=waits.append).send("POST", "/orders", {})
    assert 9 <= waits[0] < 9.02


def test_a_dripping_answer_ends_too() -> None:
    """Bytes that keep coming reset the time-out of reading, but not that of the whole."""
    import threading
    import time

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                try:
                    for _ in range(100):
                        connection.sendall(b" ")
                        time.sleep(0.05)
                except OSError:
                    return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(NoAnswer, match="not complete"):
            Wire(url, {}, patience=QUICK).send("POST", "/orders", {})
        thread.join()


@pytest.mark.parametrize(
    "url", ["http://api.example.org", "http://127.0.0.1.example.org", "ftp://127.0.0.1", "https://"]
)
def test_credentials_do_not_travel_over_an_open_line(url: str) -> None:
    with pytest.raises(InvalidInput, match="open line"):
        Wire(url, {})


def test_a_url_with_a_password_in_it_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidInput) as refused:
        Wire("https://me:hunter-two@api.example.org", {})
    assert SECRET not in str(refused.value)


def test_secrets_are_masked_in_what_is_said(server: Echo) -> None:
    assert wire(server).masked(f"key {SECRET} is wrong") == "key ... is wrong"
    assert SECRET not in repr(wire(server))


def test_the_pace_keeps_a_sliding_minute() -> None:
    clock = {"now": 0.0}
    pace = Pace(3, reserve=1, clock=lambda: clock["now"])
    for moment in (0.0, 10.0):
        clock["now"] = moment
        assert pace.wait_needed(urgent=False) == 0
    assert pace.wait_needed(urgent=False) == 50.0
    assert pace.wait_needed(urgent=True) == 0
    assert pace.wait_needed(urgent=True) == 50.0
    clock["now"] = 60.0
    assert pace.wait_needed(urgent=False) == 10.0
    clock["now"] = 70.0
    assert pace.wait_needed(urgent=False) == 0
    assert Pace(None).wait_needed(urgent=False) == 0
