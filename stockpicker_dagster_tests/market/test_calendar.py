"""The calendar against the published facts of the New York Stock Exchange and against pandas' business days."""

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.tseries.holiday import USFederalHolidayCalendar

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar

NYSE = trading_calendar("XNYS")
DAYS = st.dates(date(1990, 1, 10), date(2050, 12, 20))


def test_holidays_are_those_that_the_exchange_published_for_2024() -> None:
    published = [(1, 1), (1, 15), (2, 19), (3, 29), (5, 27), (6, 19), (7, 4), (9, 2), (11, 28), (12, 25)]
    holidays = NYSE.weekday_holidays(date(2024, 1, 1), date(2024, 12, 31))
    assert holidays == [date(2024, month, day) for month, day in published]


def test_unscheduled_closures_are_no_sessions() -> None:
    assert not NYSE.is_session(date(2001, 9, 11))
    assert not NYSE.is_session(date(2012, 10, 29))
    assert NYSE.next_session(date(2001, 9, 10)) == date(2001, 9, 17)


def test_holidays_and_sessions_make_up_all_weekdays() -> None:
    first, last = date(2005, 1, 1), date(2024, 12, 31)
    weekdays = [day.date() for day in pd.bdate_range(first, last)]
    assert sorted(NYSE.sessions(first, last) + NYSE.weekday_holidays(first, last)) == weekdays


def test_christmas_is_never_a_session() -> None:
    federal = USFederalHolidayCalendar().holidays("2000-01-01", "2030-12-31")
    christmas = [day.date() for day in federal if day.month == 12 and day.weekday() < 5 and day.day == 25]
    assert christmas
    assert not any(NYSE.is_session(day) for day in christmas)


def test_half_days_close_early_and_daylight_saving_moves_utc() -> None:
    assert NYSE.close_at(date(2024, 11, 29)) == datetime(2024, 11, 29, 18, 0, tzinfo=UTC)
    assert NYSE.open_at(date(2024, 1, 3)) == datetime(2024, 1, 3, 14, 30, tzinfo=UTC)
    assert NYSE.open_at(date(2024, 7, 3)) == datetime(2024, 7, 3, 13, 30, tzinfo=UTC)
    assert NYSE.close_at(date(2024, 7, 3)) == datetime(2024, 7, 3, 17, 0, tzinfo=UTC)


def test_a_session_completes_at_midnight_utc() -> None:
    friday = date(2026, 11, 20)
    assert NYSE.last_completed(datetime(2026, 11, 20, 23, 59, tzinfo=UTC)) == date(2026, 11, 19)
    assert NYSE.last_completed(datetime(2026, 11, 21, 0, 0, tzinfo=UTC)) == friday
    assert NYSE.last_completed(datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) == friday
    new_york_evening = datetime(2026, 11, 20, 19, 0, tzinfo=timezone(timedelta(hours=-5)))
    assert NYSE.last_completed(new_york_evening) == friday


@settings(max_examples=50, deadline=None)
@given(day=DAYS)
def test_next_and_previous_session_are_the_nearest_on_either_side(day: date) -> None:
    after, before = NYSE.next_session(day), NYSE.previous_session(day)
    assert before < day < after
    between = NYSE.sessions(before, after)
    assert between == ([before, day, after] if NYSE.is_session(day) else [before, after])


@settings(max_examples=50, deadline=None)
@given(day=DAYS, steps=st.integers(-5, 5))
def test_offset_index_and_count_agree(day: date, steps: int) -> None:
    session = NYSE.next_session(day)
    moved = NYSE.offset(session, steps)
    assert NYSE.index(moved) - NYSE.index(session) == steps
    assert NYSE.count(min(session, moved), max(session, moved)) == abs(steps) + 1


def test_first_session_of_year() -> None:
    assert NYSE.first_session_of_year(2024) == date(2024, 1, 2)
    assert NYSE.first_session_of_year(1990) == date(1990, 1, 2)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: TradingCalendar("XNYX"), "'XNYX' is unknown; known:.*XNYS"),
        (lambda: NYSE.sessions(date(1980, 1, 1), date(2000, 1, 1)), "1980-01-01 is outside.*1990-01-01 to 2050-12-31"),
        (lambda: NYSE.index(date(2024, 3, 29)), "2024-03-29 is no session.*2024-03-28 and 2024-04-01"),
        (lambda: NYSE.next_session(date(2050, 12, 31)), "outside the calendar"),
        (lambda: NYSE.first_session_of_year(2051), "year 2051"),
        (lambda: NYSE.last_completed(datetime(2024, 1, 2)), "no time zone"),
    ],
)
def test_impossible_questions_are_refused_with_the_way_out(ask, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput, match=message):
        ask()


def test_other_exchanges_are_cut_to_what_is_known_of_them() -> None:
    tokyo = trading_calendar("XTKS")
    assert tokyo.first_day == date(1997, 1, 1)
    assert not tokyo.is_session(date(2024, 5, 3))
