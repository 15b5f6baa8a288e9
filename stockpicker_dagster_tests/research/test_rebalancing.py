"""Decision days against pandas and against what the calendar says."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.rebalancing import (
    RebalanceRule,
    default_offset,
    rebalance_days,
    rebalance_offsets,
)

CALENDAR = trading_calendar("XNYS")
SESSIONS = CALENDAR.sessions(date(2018, 1, 1), date(2020, 12, 31))
RULES: list[tuple[RebalanceRule, int]] = [
    (rule, offset) for rule in ("daily", "weekly", "monthly") for offset in rebalance_offsets(rule)
]


def decisions(rule: RebalanceRule, offset: int | None = None) -> list[date]:
    marks = rebalance_days(SESSIONS, rule, CALENDAR, offset)
    return [session for session, decides in zip(SESSIONS, marks, strict=True) if decides]


def test_every_session_decides_daily() -> None:
    assert decisions("daily") == SESSIONS


@pytest.mark.parametrize("offset", range(5))
def test_weekly_decides_once_in_every_week_on_or_before_its_weekday(offset: int) -> None:
    """Against a grouping by pandas' own weeks, which start on Mondays."""
    frame = pd.DataFrame({"day": pd.to_datetime(SESSIONS)})
    frame["week"] = frame["day"].dt.to_period("W")
    expected = [
        max((day for day in week["day"] if day.weekday() <= offset), default=week["day"].min()).date()
        for _, week in frame.groupby("week")
    ]
    assert decisions("weekly", offset) == expected


def test_weekly_takes_thursday_before_good_friday_and_tuesday_after_a_monday_holiday() -> None:
    assert date(2018, 3, 29) in decisions("weekly")
    assert date(2018, 1, 16) in decisions("weekly", 0)


@pytest.mark.parametrize("offset", [0, 3, 18])
def test_monthly_counts_back_from_the_last_session_of_the_month(offset: int) -> None:
    frame = pd.DataFrame({"day": pd.to_datetime(SESSIONS)})
    expected = [month["day"].iloc[-1 - offset].date() for _, month in frame.groupby(frame["day"].dt.to_period("M"))]
    assert decisions("monthly", offset) == expected


def test_a_month_with_too_few_sessions_decides_on_its_first() -> None:
    september = CALENDAR.sessions(date(2001, 9, 1), date(2001, 9, 30))
    assert len(september) == 15
    assert rebalance_days(september, "monthly", CALENDAR, 20).tolist() == [True] + [False] * 14


@pytest.mark.parametrize(("rule", "offset"), RULES)
def test_decisions_ignore_where_the_stored_sessions_begin_and_end(rule: RebalanceRule, offset: int) -> None:
    whole = rebalance_days(SESSIONS, rule, CALENDAR, offset)
    for first, last in [(0, 1), (3, 4), (7, 40), (100, 101), (200, 230)]:
        np.testing.assert_array_equal(rebalance_days(SESSIONS[first:last], rule, CALENDAR, offset), whole[first:last])


def test_the_default_offsets_are_friday_and_the_month_end() -> None:
    for rule in ("daily", "weekly", "monthly"):
        assert decisions(rule) == decisions(rule, default_offset(rule))
    assert date(2019, 11, 1) in decisions("weekly")
    assert date(2019, 10, 31) in decisions("monthly")


def test_the_ends_of_the_calendar_are_whole_weeks_too() -> None:
    last = CALENDAR.previous_session(CALENDAR.last_day)
    ends = CALENDAR.sessions(date(2050, 12, 1), last)
    assert rebalance_days(ends, "weekly", CALENDAR).sum() >= 4


@pytest.mark.parametrize(
    ("rule", "offset", "message"),
    [
        ("yearly", None, "rebalance rule 'yearly' is unknown; known: daily, weekly, monthly"),
        ("weekly", 5, "rebalance offset 5 is not allowed with 'weekly'; choose 0 to 4"),
        ("monthly", -1, "rebalance offset -1 is not allowed with 'monthly'; choose 0 to 20"),
        ("daily", 1, "rebalance offset 1 is not allowed with 'daily'; choose 0 to 0"),
        ("weekly", True, "rebalance offset True is not allowed"),
    ],
)
def test_rules_and_offsets_that_are_not_allowed_are_named(rule: RebalanceRule, offset: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rebalance_days(SESSIONS, rule, CALENDAR, offset)


def test_a_day_without_trading_is_refused() -> None:
    with pytest.raises(InvalidInput, match="2018-01-06"):
        rebalance_days([date(2018, 1, 6)], "daily", CALENDAR)
