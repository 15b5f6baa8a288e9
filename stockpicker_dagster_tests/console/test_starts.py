"""Runs started from the console: one at a time for a strategy, and what they print can be read while they print it."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stockpicker_dagster.console.starts import AlreadyRunning, Starts
from stockpicker_dagster.errors import InvalidInput

NOW = datetime(2024, 3, 4, 10, tzinfo=UTC)
SAYS = (
    "import sys, time; print('begun', flush=True); time.sleep(float(sys.argv[1] == 'slow') * 60); print('\\x1b[Kended')"
)


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path / "runs", (sys.executable, "-c", SAYS))


def _wait(question) -> None:
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_followed_to_its_end(starts: Starts) -> None:
    begun = starts.start("quick", "rob", NOW)
    _wait(lambda: not begun.under_way)
    assert (begun.status, begun.text()) == (0, "begun\nended\n")
    assert starts.latest("quick") == begun
    assert [each.strategy for each in starts.all()] == ["quick"]


def test_a_strategy_is_run_once_at_a_time(starts: Starts) -> None:
    begun = starts.start("slow", "rob", NOW)
    try:
        _wait(lambda: "begun" in begun.text())
        with pytest.raises(AlreadyRunning, match="'slow' is being run already"):
            starts.start("slow", "ada", NOW)
        other = starts.start("quick", "ada", NOW)
        _wait(lambda: not other.under_way)
    finally:
        assert begun.process is not None
        begun.process.kill()
        begun.process.wait()


def test_another_server_can_read_what_was_printed(starts: Starts) -> None:
    begun = starts.start("quick", "rob", NOW)
    _wait(lambda: not begun.under_way)
    found = Starts(starts.folder).latest("quick")
    assert found is not None
    assert (found.started_at, found.text(), found.status) == (NOW, "begun\nended\n", None)


@pytest.mark.parametrize("name", ["../up", "-rf", "Quick", "a b", ""])
def test_only_names_of_strategies_are_started(name: str, starts: Starts) -> None:
    with pytest.raises(InvalidInput):
        starts.start(name, "rob", NOW)
