import threading
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from stockpicker_dagster.market.sources.yahoo_patience import Gate, Limits, pause, retry_after

NOW = datetime(2024, 6, 14, 12, tzinfo=UTC)


def test_waits_double_up_to_the_longest_and_differ_by_chance() -> None:
    limits = Limits(first_wait=1.0, longest_wait=60.0)
    spans = [sorted(pause(limits, failures) for _ in range(200)) for failures in range(7)]
    for failures, waits in enumerate(spans):
        longest = min(60.0, 2.0**failures)
        assert longest / 2 <= waits[0] < waits[-1] <= longest
    assert all(low[-1] < high[-1] for low, high in pairwise(spans))
    assert pause(limits, 10_000) <= 60.0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("Fri, 14 Jun 2024 12:01:30 GMT", 90.0),
        ("Fri, 14 Jun 2024 11:00:00 GMT", 0.0),
        ("soon", None),
        (None, None),
    ],
)
def test_when_yahoo_wants_us_back_is_understood_as_seconds_or_as_a_date(
    said: str | None, seconds: float | None
) -> None:
    assert retry_after({} if said is None else {"Retry-After": said}, NOW) == seconds


def test_one_refusal_holds_every_thread_back_and_many_at_once_count_once() -> None:
    gate = Gate(Limits(first_wait=0.2, longest_wait=100.0))
    for _ in range(20):
        gate.refused(429, None)
    began = time.monotonic()
    passed: list[float] = []

    def ask() -> None:
        assert gate.wait()
        passed.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(passed) == 4
    assert min(passed) > 0.09


def test_patience_ends_before_a_wait_that_would_outlast_it() -> None:
    gate = Gate(Limits(patience=60.0))
    gate.refused(429, 3600.0)
    assert not gate.wait()
    assert gate.reason == "HTTP status 429, it asks to be left alone for 3600 s"
    gate = Gate(Limits(patience=7200.0))
    gate.refused(429, 3600.0)
    gate.close()
    assert not gate.wait()
