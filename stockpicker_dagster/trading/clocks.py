"""Whose clock says that time is up: ours, the database's and the broker's, which have to agree where money is real.

An expiry is over when the latest of them says so. On real venues clocks that are more than two seconds apart stop
everything: a clock that jumped back would bring an expired approval to life.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from stockpicker_dagster.errors import StockPickerError

if TYPE_CHECKING:
    from stockpicker_dagster.trading.brokers import Broker

MOST_SKEW = timedelta(seconds=2)
ASK_AGAIN_AFTER = timedelta(seconds=20)
"""For how long the broker's offset is believed, so that not every order costs a request for the time."""


class ClockSkew(StockPickerError):
    """Two clocks that decide about an expiry are too far apart."""


def latest_time(connection: Connection, mode: str, now: datetime) -> datetime:
    """The later of `now` and the database's clock; raises `ClockSkew` in live mode where they are too far apart.

    A SQLite file has no clock of its own, and a paper account may live in a simulated time: there it is `now`.
    """
    if mode == "paper" or connection.dialect.name != "postgresql":
        return now
    theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)
    _check("the database", theirs, now)
    return max(now, theirs)


class Clocks:
    """The three clocks of one execution; `real` says that the venue is, so that they have to agree."""

    def __init__(self, local: Callable[[], datetime], engine: Engine, broker: "Broker", mode: str, real: bool) -> None:
        self._local = local
        self._engine = engine
        self._broker = broker
        self._mode = mode
        self.real = real
        self._asked_at: datetime | None = None
        self._asked_tick = 0.0
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The latest of the clocks; raises `ClockSkew` on a real venue, `BrokerUnavailable` where it does not say."""
        now = self._local()
        if not self.real:
            return now
        if self._stale(now):
            before = self._local()
            theirs = self._broker.clock().now
            after = self._local()
            # The answer was given somewhere between question and arrival.
            middle = before + (after - before) / 2
            _check(f"broker {self._broker.name}", theirs, middle, allowance=(after - before) / 2)
            with self._engine.connect() as connection:
                latest_time(connection, self._mode, after)
            self._ahead = max(theirs - middle, timedelta())
            self._asked_at = now = after
            self._asked_tick = time.monotonic()
        return now + self._ahead

    def at_once(self, connection: Connection) -> datetime:
        """As `now`, without asking the broker: by its offset as last heard, and by the database's clock.

        Raises `ClockSkew` in live mode where the database's is too far away.
        """
        now = self._local()
        return max(latest_time(connection, self._mode, now), now + self._ahead)

    def _stale(self, now: datetime) -> bool:
        """Whether to ask again: never asked, asked long ago, or our clock was set since."""
        if self._asked_at is None:
            return True
        passed = (now - self._asked_at).total_seconds()
        ticked = time.monotonic() - self._asked_tick
        return passed >= ASK_AGAIN_AFTER.total_seconds() or abs(passed - ticked) > MOST_SKEW.total_seconds() / 4


def _check(whose: str, theirs: datetime, ours: datetime, allowance: timedelta = timedelta()) -> None:
    apart = abs(theirs - ours)
    if apart - allowance > MOST_SKEW:
        raise ClockSkew(
            f"the clock of {whose} says {theirs:%H:%M:%S.%f} and ours {ours:%H:%M:%S.%f} UTC, "
            f"{apart.total_seconds():.1f} s apart; more than {MOST_SKEW.total_seconds():.0f} s is not safe, so nothing "
            "is sent: set the clock right"
        )
