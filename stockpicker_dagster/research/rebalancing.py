"""On which closes a strategy decides: daily, weekly, monthly or every k sessions, shifted by an offset.

A decision made after the close of session *t* is traded at the open of *t + 1*. What is decided lives in
`research.portfolio`; weeks and months are whole ones of the exchange's calendar, never those of the stored sessions,
so that a history that ends in the middle of a week does not turn its last day into the week's last session.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar

RebalanceWord = Literal["daily", "weekly", "monthly"]
RebalanceRule = RebalanceWord | int
"""A number is that of sessions from one decision to the next."""

LONGEST_STEP: Final = 252
_OFFSETS: Final[dict[str, range]] = {"daily": range(1), "weekly": range(5), "monthly": range(21)}
_DEFAULT_OFFSET: Final[dict[str, int]] = {"daily": 0, "weekly": 4, "monthly": 0}


def rebalance_offsets(rule: RebalanceRule) -> range:
    """Every offset that `rule` allows; a result that hangs on one of them should be averaged over all."""
    if isinstance(rule, int) and not isinstance(rule, bool) and 1 <= rule <= LONGEST_STEP:
        return range(rule)
    if rule not in _OFFSETS:
        raise InvalidInput(
            f"rebalance rule {rule!r} is unknown; known: {', '.join(get_args(RebalanceWord))}, or a number of sessions "
            f"from 1 to {LONGEST_STEP}"
        )
    return _OFFSETS[str(rule)]


def default_offset(rule: RebalanceRule) -> int:
    """The offset taken where none is given: Friday of a week, the last session of a month."""
    rebalance_offsets(rule)
    return 0 if isinstance(rule, int) else _DEFAULT_OFFSET[rule]


def rebalance_days(
    sessions: Sequence[date], rule: RebalanceRule, calendar: TradingCalendar, offset: int | None = None
) -> NDArray[np.bool_]:
    """Whether the close of each session is a decision, shape `(len(sessions),)`.

    - `daily`: every session; the offset can only be 0.
    - `weekly`: offset 0 (Monday) to 4 (Friday, the default): the last session of the ISO week on or before that
      weekday, or the week's first session if there is none.
    - `monthly`: offset 0 (the default) to 20: that many sessions before the month's last one, or the month's first
      session if it has fewer.
    - a number k: every k-th session of the exchange, counted from the first that `calendar` covers, whatever the stored
      history is; offset 0 (the default) to k - 1 decides that many sessions later.

    Known long before the day itself: only `calendar` is consulted. Raises `InvalidInput` for an unknown rule, an offset
    that the rule does not allow, or a date that is no session of `calendar`.
    """
    allowed = rebalance_offsets(rule)
    chosen = default_offset(rule) if offset is None else offset
    if isinstance(chosen, bool) or chosen not in allowed:
        raise InvalidInput(
            f"rebalance offset {chosen!r} is not allowed with {rule!r}; choose {allowed[0]} to {allowed[-1]}"
        )
    places = [calendar.index(session) for session in sessions]
    if isinstance(rule, int):
        return np.array([place % rule == chosen for place in places], dtype=np.bool_)
    if rule == "daily":
        return np.ones(len(sessions), dtype=np.bool_)
    decision_of = _weekly_decision if rule == "weekly" else _monthly_decision
    return _mark(sessions, decision_of, calendar, chosen)


def _mark(
    sessions: Sequence[date],
    decision_of: Callable[[date, TradingCalendar, int], date],
    calendar: TradingCalendar,
    offset: int,
) -> NDArray[np.bool_]:
    known: dict[tuple[int, int], date] = {}
    marks = np.zeros(len(sessions), dtype=np.bool_)
    for row, session in enumerate(sessions):
        period = session.isocalendar()[:2] if decision_of is _weekly_decision else (session.year, session.month)
        if period not in known:
            known[period] = decision_of(session, calendar, offset)
        marks[row] = session == known[period]
    return marks


def _weekly_decision(session: date, calendar: TradingCalendar, offset: int) -> date:
    monday = session - timedelta(days=session.weekday())
    week = _whole(monday, monday + timedelta(days=6), calendar)
    return max((day for day in week if day.weekday() <= offset), default=week[0])


def _monthly_decision(session: date, calendar: TradingCalendar, offset: int) -> date:
    next_month = (session.replace(day=28) + timedelta(days=4)).replace(day=1)
    month = _whole(session.replace(day=1), next_month - timedelta(days=1), calendar)
    return month[max(0, len(month) - 1 - offset)]


def _whole(first: date, last: date, calendar: TradingCalendar) -> list[date]:
    """The sessions of a period, clipped to the days that the calendar covers."""
    return calendar.sessions(max(first, calendar.first_day), min(last, calendar.last_day))
