"""What has passed is what the clock says that runs through the pause, whichever that is."""

import time

import pytest

from stockpicker_dagster.trading import stopwatch
from stockpicker_dagster.trading.stopwatch import Stopwatch


@pytest.mark.parametrize("running", [0, 1, 2])
def test_one_clock_that_runs_is_enough(monkeypatch: pytest.MonkeyPatch, running: int) -> None:
    seconds = [5.0, 900.0, 7.0]
    monkeypatch.setattr(stopwatch, "CLOCKS", tuple(lambda at=at: seconds[at] for at in range(3)))
    watch = Stopwatch()
    assert watch.seconds() == 0
    seconds[running] += 60
    assert watch.seconds() == 60


def test_a_clock_that_is_set_back_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [5.0, 900.0]
    monkeypatch.setattr(stopwatch, "CLOCKS", (lambda: seconds[0], lambda: seconds[1]))
    watch = Stopwatch()
    seconds[:] = [8.0, 100.0]
    assert watch.seconds() == 3


def test_the_machine_s_clocks_run() -> None:
    watch = Stopwatch()
    time.sleep(0.01)
    assert watch.seconds() >= 0.01
