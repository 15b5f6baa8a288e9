"""The calendar against the published facts of the New York Stock Exchange and against pandas' business days."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.tseries.holiday import USFederalHolidayCalendar

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import DailyCycle, TradingCalendar, trading_calendar

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


@pytest.mark.parametrize(
    "closed",
    [
        *(date(2001, 9, day) for day in (11, 12, 13, 14)),  # the attacks
        date(2012, 10, 29),  # the storm Sandy
        date(2012, 10, 30),
        date(2018, 12, 5),  # the mourning for George Bush
        date(2025, 1, 9),  # the mourning for Jimmy Carter
    ],
)
def test_new_york_was_closed_on_days_that_nobody_had_planned(closed: date) -> None:
    assert not NYSE.is_session(closed)
    assert closed in NYSE.weekday_holidays(closed, closed)


@pytest.mark.parametrize(
    ("exchange", "day", "opens", "closes"),
    [
        ("XNYS", date(2024, 11, 29), "14:30", "18:00"),
        ("XNYS", date(2024, 12, 24), "14:30", "18:00"),
        ("XLON", date(2024, 12, 24), "08:00", "12:30"),
        ("XLON", date(2024, 12, 31), "08:00", "12:30"),
        ("XLON", date(2024, 7, 1), "07:00", "15:30"),
        ("XHKG", date(2024, 2, 9), "01:30", "04:00"),
        ("XHKG", date(2024, 12, 24), "01:30", "04:00"),
        ("XTKS", date(2024, 11, 1), "00:00", "06:00"),
        ("XTKS", date(2024, 11, 5), "00:00", "06:30"),  # half an hour more from that day on
    ],
)
def test_exchanges_open_and_close_as_they_published(exchange: str, day: date, opens: str, closes: str) -> None:
    calendar = trading_calendar(exchange)
    assert [f"{at(day):%H:%M}" for at in (calendar.open_at, calendar.close_at)] == [opens, closes]


@pytest.mark.parametrize(
    ("exchange", "closed"),
    [
        ("XLON", date(2022, 9, 19)),  # the Queen's funeral
        ("XLON", date(2023, 5, 8)),  # the coronation
        ("XTKS", date(2019, 5, 1)),  # the new emperor
        ("XHKG", date(2023, 7, 17)),  # the typhoon Talim
    ],
)
def test_other_exchanges_close_on_days_of_their_own(exchange: str, closed: date) -> None:
    assert not trading_calendar(exchange).is_session(closed)


STOCK_EXCHANGES = ["XNYS", "XLON", "XTKS", "XHKG", "XASX", "XNZE", "XETR", "XBOM", "XSTU", "BVMF"]


@pytest.mark.parametrize("exchange", STOCK_EXCHANGES)
def test_every_day_is_complete_after_its_close_and_collected_before_the_next_open(exchange: str) -> None:
    """In every season, by the time zone database alone."""
    calendar = trading_calendar(exchange)
    cycle, local = calendar.daily_cycle, ZoneInfo(calendar.time_zone)
    for day in calendar.sessions(date(2021, 1, 4), date(2026, 6, 30)):
        complete = datetime.combine(day + timedelta(1), time(), ZoneInfo(cycle.complete_in))
        next_open = calendar.open_at(calendar.next_session(day))
        assert calendar.close_at(day) <= complete < next_open
        assert calendar.last_completed(complete) == day
        assert calendar.last_completed(complete - timedelta(seconds=1)) < day
        evening = datetime.combine(day, cycle.collected_at, local)
        collected = evening if evening >= calendar.close_at(day) else evening + timedelta(1)
        assert complete <= collected < next_open
        assert calendar.session_collected_at(collected) == day


def test_new_york_is_complete_at_midnight_utc_and_collected_at_a_quarter_past_eight() -> None:
    assert NYSE.daily_cycle == DailyCycle("UTC", time(20, 15))
    assert trading_calendar("XLON").daily_cycle == DailyCycle("Etc/GMT-5", time(20, 45))


def test_an_exchange_has_one_name_here() -> None:
    assert TradingCalendar("NYSE").name == "XNYS"
    assert TradingCalendar("LSE").name == "XLON"


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
        (lambda: TradingCalendar("xlonn"), "'xlonn' is unknown; known:.*; did you mean XLON"),
        (lambda: TradingCalendar("XTAE"), "XTAE is named by this release.*cannot be built"),
        (lambda: trading_calendar("XSAU").daily_cycle, "XSAU has sessions on Saturdays or Sundays"),
        (lambda: trading_calendar("CMES").daily_cycle, "CMES leaves no hour"),
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
