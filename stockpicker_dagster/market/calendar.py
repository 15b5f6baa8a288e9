"""The trading calendar: which days are sessions of an exchange, in which order, and when each opens and closes.

Sessions, half-days and unscheduled closures come from the `exchange_calendars` package; this file only turns them into
plain dates and fast look-ups. Nothing here reads the clock: both ends of the calendar are fixed, so that the answer for
a day never depends on the day on which it is asked, and `now` is always an argument.
"""

from datetime import UTC, date, datetime
from functools import lru_cache

import exchange_calendars
import numpy as np
import pandas as pd

from stockpicker_dagster.errors import InvalidInput

CALENDAR_START = date(1990, 1, 1)
CALENDAR_END = date(2050, 12, 31)


class TradingCalendar:
    """The sessions of one exchange from 1990 to 2050, a *session* being the `datetime.date` of a trading day.

    Announced rules are extrapolated into the future; a closure that is announced later comes with a newer release of
    `exchange_calendars`. Every method raises `InvalidInput` for a date outside `first_day` to `last_day`.

    >>> calendar = trading_calendar("XNYS")
    >>> calendar.next_session(date(2024, 3, 28))  # Good Friday follows
    datetime.date(2024, 4, 1)
    >>> calendar.close_at(date(2024, 11, 29)).isoformat()  # the half-day after Thanksgiving
    '2024-11-29T18:00:00+00:00'
    """

    def __init__(self, name: str = "XNYS") -> None:
        """`name` is a market identifier code such as `XNYS` (New York) or `XLON` (London); unknown: `InvalidInput`."""
        self.name = name
        exchange, self.first_day, self.last_day = _load(name)
        self._days = exchange.sessions.to_numpy().astype("datetime64[D]")
        self._sessions: list[date] = self._days.tolist()
        self._open_seconds = _epoch_seconds(exchange.opens)
        self._close_seconds = _epoch_seconds(exchange.closes)

    def __repr__(self) -> str:
        return f"TradingCalendar({self.name!r})"

    def sessions(self, first: date, last: date) -> list[date]:
        """The sessions from `first` to `last`, both included; empty if there are none."""
        return self._sessions[self._position(first, "left") : self._position(last, "right")]

    def count(self, first: date, last: date) -> int:
        """How many sessions lie from `first` to `last`, both included; 0 if `last` precedes `first`."""
        return max(0, self._position(last, "right") - self._position(first, "left"))

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on `day`, be it only half of it."""
        return self._position(day, "right") > self._position(day, "left")

    def index(self, session: date) -> int:
        """The position of `session` in the calendar, 0 for its first one; `InvalidInput` if it is no session."""
        position = self._position(session, "left")
        if position == len(self._sessions) or self._sessions[position] != _as_date(session):
            raise InvalidInput(
                f"{session} is no session of {self.name}; the nearest ones are {self._neighbours(position)}"
            )
        return position

    def offset(self, session: date, sessions: int) -> date:
        """The session that lies `sessions` after `session` (before it, if negative)."""
        return self._at(self.index(session) + sessions)

    def next_session(self, day: date) -> date:
        """The first session strictly after `day`, which need not be a session."""
        return self._at(self._position(day, "right"))

    def previous_session(self, day: date) -> date:
        """The last session strictly before `day`, which need not be a session."""
        return self._at(self._position(day, "left") - 1)

    def first_session_of_year(self, year: int) -> date:
        """The first session of a calendar year."""
        if not self.first_day.year <= year <= self.last_day.year:
            raise InvalidInput(
                f"year {year} is outside the calendar {self.name}; "
                f"it covers {self.first_day.year} to {self.last_day.year}"
            )
        return self._at(self._position(max(date(year, 1, 1), self.first_day), "left"))

    def open_at(self, session: date) -> datetime:
        """The opening of the continuous session, in UTC."""
        return datetime.fromtimestamp(self._open_seconds[self.index(session)], UTC)

    def close_at(self, session: date) -> datetime:
        """The close, in UTC; on a half-day the early one."""
        return datetime.fromtimestamp(self._close_seconds[self.index(session)], UTC)

    def weekday_holidays(self, first: date, last: date) -> list[date]:
        """Mondays to Fridays from `first` to `last`, both included, on which the exchange does not trade."""
        self._position(first, "left")
        self._position(last, "left")
        days = np.arange(np.datetime64(first, "D"), np.datetime64(last, "D") + 1)
        closed = days[np.is_busday(days) & ~np.isin(days, self._days)]
        return closed.tolist()

    def last_completed(self, now: datetime) -> date:
        """The last session whose daily partition has opened at `now`.

        The partition of day D opens at 00:00 UTC of D + 1, which is after the close of New York all year round.
        `now` must carry a time zone (`InvalidInput`).
        """
        if now.tzinfo is None:
            raise InvalidInput(f"the time {now} has no time zone; pass one that is aware, in UTC")
        return self.previous_session(now.astimezone(UTC).date())

    def _position(self, day: date, side: str) -> int:
        day = _as_date(day)
        if not self.first_day <= day <= self.last_day:
            raise InvalidInput(
                f"{day} is outside the calendar {self.name}; it covers {self.first_day} to {self.last_day}"
            )
        return int(np.searchsorted(self._days, np.datetime64(day, "D"), side=side))  # type: ignore[call-overload]

    def _at(self, position: int) -> date:
        if not 0 <= position < len(self._sessions):
            raise InvalidInput(
                f"the session asked for lies outside the calendar {self.name}; "
                f"it covers {self._sessions[0]} to {self._sessions[-1]}"
            )
        return self._sessions[position]

    def _neighbours(self, position: int) -> str:
        nearest = self._sessions[max(0, position - 1) : position + 1]
        return " and ".join(str(session) for session in nearest)


@lru_cache(maxsize=8)
def trading_calendar(name: str = "XNYS") -> TradingCalendar:
    """The one `TradingCalendar` of that name in this process; building it takes a fraction of a second."""
    return TradingCalendar(name)


def _load(name: str) -> tuple[exchange_calendars.ExchangeCalendar, date, date]:
    """The exchange's calendar between our fixed ends, or between its own where its holidays are known for less."""
    try:
        known = exchange_calendars.get_calendar(name)
    except exchange_calendars.errors.InvalidCalendarName as error:
        names = ", ".join(sorted(exchange_calendars.get_calendar_names(include_aliases=False)))
        raise InvalidInput(f"calendar {name!r} is unknown; known: {names}") from error
    earliest, latest = known.bound_min(), known.bound_max()
    first = CALENDAR_START if earliest is None else max(CALENDAR_START, earliest.date())
    last = CALENDAR_END if latest is None else min(CALENDAR_END, latest.date())
    return exchange_calendars.get_calendar(name, start=str(first), end=str(last)), first, last


def _as_date(day: date) -> date:
    return day.date() if isinstance(day, datetime) else day


def _epoch_seconds(times: pd.Series) -> list[int]:
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64).tolist()
