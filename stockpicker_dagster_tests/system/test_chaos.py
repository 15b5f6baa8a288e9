"""Whatever breaks, and whenever: nothing unapproved, nothing twice, nothing across zero, and books that agree."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stockpicker_dagster_tests.trading.chaos import Stand

EXECUTIONS, KILLS = 150, 50


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A ledger in memory, where the machine has one for files."""
    memory = Path("/dev/shm")
    folder = tmp_path_factory.mktemp("chaos")
    if memory.is_dir():
        folder = memory / f"stockpicker-{folder.parent.name}-{folder.name}"
        folder.mkdir(exist_ok=True)
    made = Stand(folder)
    yield made
    made.close()
    for leftover in folder.iterdir():
        leftover.unlink()
    folder.rmdir()


def test_crashes_and_a_misbehaving_broker_break_no_promise(stand: Stand) -> None:
    outcomes = [stand.run(seed, kill=False) for seed in range(50_000, 50_000 + EXECUTIONS)]
    assert {o.seed: o.violations for o in outcomes if o.violations} == {}
    assert sum(outcome.crashed for outcome in outcomes) > EXECUTIONS / 3
    assert {outcome.status for outcome in outcomes} >= {"finished", "nothing"}
    assert min(sum(o.trader for o in outcomes), sum(o.flattened for o in outcomes)) > EXECUTIONS / 10
    assert sum(outcome.halted for outcome in outcomes) > EXECUTIONS / 30


def test_real_kills_break_no_promise(stand: Stand) -> None:
    outcomes = [stand.run(seed, kill=True) for seed in range(60_000, 60_000 + KILLS)]
    assert {o.seed: o.violations for o in outcomes if o.violations} == {}
    assert sum(outcome.killed for outcome in outcomes) > KILLS / 3
