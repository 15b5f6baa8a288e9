"""The trading calendar: which days are sessions of an exchange, in which order, and when each opens and closes.

Sessions, half-days and unscheduled closures come from the `exchange_calendars` package; this file only turns them into
plain dates and fast look-ups. Nothing here reads the clock: both ends of the calendar are fixed, so that the answer for
a day never depends on the day on which it is asked, and `now` is always an argument.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

from stockpicker_dagster.errors import InvalidInput

if TYPE_CHECKING:
    # Imported where they are used: pandas takes longer to load than a small model takes to train.
    import pandas as pd
    from exchange_calendars import ExchangeCalendar

CALENDAR_START = date(1990, 1, 1)
CALENDAR_END = date(2050, 12, 31)

_SETTLED_AFTER = timedelta(hours=4, minutes=15)
"""So long after the regular close vendors have the day's bars; in New York that is a quarter past eight."""
_BEFORE_OPEN = 1
"""Hours that must be left from the moment when a day is complete to the next open."""
_EAST, _WEST = 14, -12
"""The fixed offsets from UTC, in hours, that have a name in the time zone database."""


@dataclass(frozen=True)
class DailyCycle:
    """When a session is complete, and when it is collected.

    Session D is complete at the midnight that ends D in the time zone `complete_in`, of a fixed offset from UTC: after
    the close of D and before the next open, in every season. It is collected at the local time `collected_at` of the
    exchange, which is later.
    """

    complete_in: str
    collected_at: time


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
        exchange, self.first_day, self.last_day = _load(name)
        self.name: str = exchange.name
        self.time_zone = str(exchange.tz)
        self._regular_close: time = exchange.close_times[-1][1]
        self._days = exchange.sessions.to_numpy().astype("datetime64[D]")
        self._sessions: list[date] = self._days.tolist()
        self._open_seconds = _epoch_seconds(exchange.opens)
        self._close_seconds = _epoch_seconds(exchange.closes)

    def __repr__(self) -> str:
        return f"TradingCalendar({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is the one of that process, by name."""
        return trading_calendar, (self.name,)

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

    @cached_property
    def daily_cycle(self) -> DailyCycle:
        """When sessions are complete and collected: in New York at midnight UTC and at 20:15.

        They are complete at the last whole hour of UTC before they are collected, `_SETTLED_AFTER` the regular close;
        where no time zone has its midnight so early, as in Sydney, both are later. Raises `InvalidInput` for an
        exchange that trades on weekends, or leaves no hour between its close and the next open.
        """
        if not np.is_busday(self._days).all():
            raise InvalidInput(
                f"calendar {self.name} has sessions on Saturdays or Sundays, and weeks of trading are Monday to Friday "
                "here; choose another exchange"
            )
        local_midnights = self._days.astype("datetime64[s]").astype(np.int64) - self._utc_offsets
        collected_after = timedelta(hours=self._regular_close.hour, minutes=self._regular_close.minute) + _SETTLED_AFTER
        hours = self._hours_after_midnight_utc(local_midnights + int(collected_after.total_seconds()))
        earliest = int(np.ceil(self._hours_after_midnight_utc(np.array(self._close_seconds)).max()))
        latest = int(np.floor(self._hours_after_midnight_utc(np.array(self._open_seconds[1:])).min())) - _BEFORE_OPEN
        complete = min(max(int(np.floor(hours.min())), 24 - _EAST), 24 - _WEST)
        if not earliest <= complete <= latest:
            raise InvalidInput(
                f"calendar {self.name} leaves no hour between a close and the next open in which a day is complete all "
                "year round; choose the calendar of a stock exchange"
            )
        late = max(0, complete - int(np.floor(hours.min())))
        settled = datetime.combine(self.first_day, time()) + collected_after + timedelta(hours=late)
        east = 24 - complete
        zone = "UTC" if east == 0 else f"Etc/GMT{-east:+d}"
        return DailyCycle(zone, settled.time())

    def session_collected_at(self, moment: datetime) -> date:
        """The day that is collected by a run due at `moment`, which carries a time zone; it need not be a session."""
        return moment.astimezone(ZoneInfo(self.daily_cycle.complete_in)).date() - timedelta(days=1)

    def last_completed(self, now: datetime) -> date:
        """The last session that is complete at `now`, which must carry a time zone (`InvalidInput`).

        In New York session D is complete at 00:00 UTC of D + 1; see `daily_cycle` for other exchanges.
        """
        if now.tzinfo is None:
            raise InvalidInput(f"the time {now} has no time zone; pass one that is aware, in UTC")
        return self.previous_session(now.astimezone(ZoneInfo(self.daily_cycle.complete_in)).date())

    @property
    def _utc_offsets(self) -> np.ndarray:
        """Seconds by which the exchange's clock is ahead of UTC at each close."""
        import pandas as pd

        closes = pd.to_datetime(pd.Series(self._close_seconds), unit="s", utc=True)
        local = closes.dt.tz_convert(self.time_zone).dt.tz_localize(None)
        return np.array(_epoch_seconds(local)) - np.array(self._close_seconds)

    def _hours_after_midnight_utc(self, seconds: np.ndarray) -> np.ndarray:
        """Hours from the UTC midnight at which a session's date begins; seconds belong to the last of the sessions
        that they are as many as, from the first on."""
        return (seconds - self._days[: len(seconds)].astype("datetime64[s]").astype(np.int64)) / 3600

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


def _load(name: str) -> tuple["ExchangeCalendar", date, date]:
    """The exchange's calendar between our fixed ends, or between its own where its holidays are known for less."""
    import exchange_calendars

    try:
        known = exchange_calendars.get_calendar(name)
    except exchange_calendars.errors.InvalidCalendarName as error:
        names = sorted(exchange_calendars.get_calendar_names(include_aliases=False))
        close = get_close_matches(name.upper(), [*names, *exchange_calendars.get_calendar_names()], n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
        raise InvalidInput(f"calendar {name!r} is unknown; known: {', '.join(names)}{meant}") from error
    except (NotImplementedError, ValueError) as error:
        raise InvalidInput(
            f"calendar {name} is named by this release of exchange_calendars, but cannot be built; choose another one"
        ) from error
    earliest, latest = known.bound_min(), known.bound_max()
    first = CALENDAR_START if earliest is None else max(CALENDAR_START, earliest.date())
    last = CALENDAR_END if latest is None else min(CALENDAR_END, latest.date())
    return exchange_calendars.get_calendar(name, start=str(first), end=str(last)), first, last


def _as_date(day: date) -> date:
    return day.date() if isinstance(day, datetime) else day


def _epoch_seconds(times: "pd.Series") -> list[int]:
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64).tolist()
