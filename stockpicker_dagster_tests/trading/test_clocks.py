"""Where money is real, clocks that disagree stop everything, and the latest of them ends an approval."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading.clocks import Clocks, ClockSkew, latest_time

NOW = datetime(2024, 3, 5, 14, tzinfo=UTC)


def clocks(engine: Engine, ahead: float, moments: list[datetime] | None = None, real: bool = True) -> tuple[Any, Any]:
    """Clocks of a broker that is `ahead` by some seconds; `moments` are what ours says, one after another."""
    ours = SimpleNamespace(now=NOW, asked=0)

    def local() -> datetime:
        if moments:
            ours.now = moments.pop(0)
        return ours.now

    def broker_clock() -> Any:
        ours.asked += 1
        return SimpleNamespace(now=ours.now + timedelta(seconds=ahead))

    broker: Any = SimpleNamespace(name="fake", clock=broker_clock)
    return Clocks(local, engine, broker, "live", real), ours


@pytest.mark.parametrize("ahead", [2.5, -2.5, 3600.0, -86_400.0])
def test_a_skew_of_more_than_two_seconds_stops(ledger_engine: Engine, ahead: float) -> None:
    with pytest.raises(ClockSkew, match="set the clock right"):
        clocks(ledger_engine, ahead)[0].now()
    assert clocks(ledger_engine, ahead, real=False)[0].now() == NOW


@pytest.mark.parametrize(("ahead", "expected"), [(1.5, 1.5), (-1.5, 0.0), (0.0, 0.0)])
def test_a_small_skew_counts_against_the_approval(ledger_engine: Engine, ahead: float, expected: float) -> None:
    assert clocks(ledger_engine, ahead)[0].now() == NOW + timedelta(seconds=expected)


@pytest.mark.parametrize("jump", [-3600, -2, 2, 3600])
def test_a_clock_that_is_set_in_between_is_noticed(ledger_engine: Engine, jump: int) -> None:
    watch, ours = clocks(ledger_engine, 0.0)
    watch.now()
    watch.now()
    assert ours.asked == 1
    ours.now = NOW + timedelta(seconds=jump)
    watch.now()
    assert ours.asked == 2


def test_the_database_has_a_say_on_postgresql(any_engine: Engine) -> None:
    with transaction(any_engine) as connection:
        if any_engine.dialect.name == "sqlite":
            assert latest_time(connection, "live", NOW) == NOW
            return
        assert latest_time(connection, "paper", NOW) == NOW
        with pytest.raises(ClockSkew, match="the database"):
            latest_time(connection, "live", NOW)
        now = datetime.now(UTC)
        assert timedelta() <= latest_time(connection, "live", now) - now < timedelta(seconds=2)
