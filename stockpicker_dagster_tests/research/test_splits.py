from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.splits import (
    LabelOverlap,
    TooLittleHistory,
    assert_purged,
    earliest_first_use,
    earliest_training_day,
    fixed_split,
    period_of,
    purged_folds,
    purged_walk_forward,
    split,
    walk_forward_periods,
    walk_forward_split,
)
from stockpicker_dagster_tests.research.price_frames import CALENDAR, sessions

START = date(2000, 1, 3)
CADENCES = ("weekly", "monthly", "quarterly", "yearly")
TRAIN, VALIDATION, TEST = (
    (date(2001, 1, 1), date(2003, 12, 31)),
    (date(2004, 1, 1), date(2004, 12, 31)),
    (date(2005, 1, 1), date(2006, 12, 31)),
)


def known_on(session: date, horizon: int) -> date:
    return CALENDAR.offset(session, 1 + horizon)


@pytest.mark.parametrize("cadence", CADENCES)
@settings(max_examples=50, deadline=None)
@given(start=st.dates(date(1990, 1, 1), date(2040, 1, 1)), length=st.integers(0, 900))
def test_periods_cover_every_day_once_whatever_is_asked_for(cadence: str, start: date, length: int) -> None:
    through = start + timedelta(days=length)
    periods = walk_forward_periods(start, through, cadence)  # type: ignore[arg-type]
    assert periods[0].serves_from <= start <= periods[0].serves_until
    assert periods[-1].serves_from <= through <= periods[-1].serves_until
    for earlier, later in pairwise(periods):
        assert later.serves_from == earlier.serves_until + timedelta(days=1)
    for period in periods:
        assert period.key == period.serves_from.isoformat()
        assert period_of(period.serves_until, cadence) == period  # type: ignore[arg-type]


def test_periods_are_whole_calendar_units() -> None:
    day = date(2024, 5, 15)
    bounds = {
        cadence: (found.serves_from, found.serves_until) for cadence in CADENCES for found in [period_of(day, cadence)]
    }  # type: ignore[arg-type]
    assert bounds == {
        "weekly": (date(2024, 5, 13), date(2024, 5, 19)),
        "monthly": (date(2024, 5, 1), date(2024, 5, 31)),
        "quarterly": (date(2024, 4, 1), date(2024, 6, 30)),
        "yearly": (date(2024, 1, 1), date(2024, 12, 31)),
    }


def test_an_unknown_cadence_and_reversed_days_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'daily' is unknown; known: weekly, monthly, quarterly, yearly"):
        walk_forward_periods(START, START, "daily")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="reversed"):
        walk_forward_periods(date(2005, 1, 1), date(2004, 1, 1), "weekly")


@settings(max_examples=50, deadline=None)
@given(horizon=st.integers(1, 60), gap=st.integers(0, 90), idle=st.integers(1, 90))
def test_exactly_the_labels_that_reach_too_far_are_purged(horizon: int, gap: int, idle: int) -> None:
    train = (date(2010, 1, 1), date(2010, 12, 31))
    validation = (train[1] + timedelta(days=1 + gap), date(2011, 12, 31))
    first_used = validation[1] + timedelta(days=idle)
    found = split(train, validation, horizon, first_used, CALENDAR)
    v = max(session for session in sessions(train[0], first_used) if session < first_used)
    first_validated = sessions(*validation)[0]
    assert found.last_known == v
    assert list(found.train) == [day for day in sessions(*train) if known_on(day, horizon) < first_validated]
    assert list(found.validation) == [day for day in sessions(*validation) if known_on(day, horizon) <= v]
    assert_purged(found.train, found.validation, horizon, CALENDAR, found.last_known)


def test_without_validation_training_is_purged_against_the_first_use() -> None:
    found = split(TRAIN, None, 5, date(2004, 1, 1), CALENDAR)
    assert found.validation == ()
    assert known_on(found.train[-1], 5) == found.last_known == date(2003, 12, 31)


@pytest.mark.parametrize("horizon", [1, 5, 21])
def test_one_session_more_is_a_label_overlap_that_names_it(horizon: int) -> None:
    found = split(TRAIN, VALIDATION, horizon, TEST[0], CALENDAR)
    one_more = CALENDAR.next_session(found.train[-1])
    with pytest.raises(LabelOverlap, match=f"training sessions from {one_more}"):
        assert_purged([*found.train, one_more], found.validation, horizon, CALENDAR, found.last_known)
    one_more = CALENDAR.next_session(found.validation[-1])
    with pytest.raises(LabelOverlap, match=f"validation sessions from {one_more} .* only after {found.last_known}"):
        assert_purged(found.train, [*found.validation, one_more], horizon, CALENDAR, found.last_known)
    with pytest.raises(LabelOverlap, match="training"):
        assert_purged(found.train, [], horizon, CALENDAR, found.train[-1])


@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("day", [date(2012, 2, 29), date(2012, 12, 31), date(2013, 7, 1)])
def test_a_walk_forward_model_is_known_before_its_period_begins(cadence: str, day: date) -> None:
    period = period_of(day, cadence)  # type: ignore[arg-type]
    found = walk_forward_split(period, 3, 0.5, 5, CALENDAR, START, 253)
    assert found.last_known < period.serves_from <= CALENDAR.next_session(found.last_known)
    assert known_on(found.validation[-1], 5) == found.last_known
    assert found.train[0] >= date(period.serves_from.year - 4, 6, 1)
    months = (found.last_known - found.train[0]).days / 30.44
    assert 40 < months < 43
    assert_purged(found.train, found.validation, 5, CALENDAR, found.last_known)


def test_five_years_and_one_before_a_quarter() -> None:
    found = walk_forward_split(period_of(date(2010, 5, 3), "quarterly"), 5, 1, 5, CALENDAR, START, 253)
    assert found.train[0] == date(2004, 4, 1)
    assert known_on(found.train[-1], 5) == date(2009, 3, 31)
    assert found.validation[0] == date(2009, 4, 1)
    assert known_on(found.validation[-1], 5) == found.last_known == date(2010, 3, 31)


def test_too_little_history_names_the_earliest_day_that_would_do() -> None:
    assert earliest_training_day(START, 253, CALENDAR) == date(2001, 1, 2)
    earliest = earliest_first_use(START, 253, 5, 1, CALENDAR)
    with pytest.raises(TooLittleHistory, match=f"on or after {earliest}"):
        walk_forward_split(period_of(date(2006, 12, 1), "monthly"), 5, 1, 5, CALENDAR, START, 253)
    first = next(p for p in walk_forward_periods(earliest, date(2009, 1, 1), "monthly") if p.serves_from >= earliest)
    assert first.key == "2007-01-01"
    assert walk_forward_split(first, 5, 1, 5, CALENDAR, START, 253).train[0] == date(2001, 1, 2)
    with pytest.raises(TooLittleHistory, match="the earliest possible training day is 2001-01-02"):
        fixed_split((date(2000, 12, 1), TRAIN[1]), VALIDATION, TEST, 5, CALENDAR, START, 253)


def test_fixed_periods_are_first_used_on_the_first_day_tested() -> None:
    found = fixed_split(TRAIN, VALIDATION, TEST, 5, CALENDAR, START, 253)
    assert found == split(TRAIN, VALIDATION, 5, TEST[0], CALENDAR)


def test_reversed_and_overlapping_periods_are_refused_by_name() -> None:
    def fixed(train=TRAIN, validation=VALIDATION, test=TEST, horizon=5) -> None:  # type: ignore[no-untyped-def]
        fixed_split(train, validation, test, horizon, CALENDAR, START, 253)

    with pytest.raises(InvalidInput, match="train period 2003-12-31 to 2001-01-01 is reversed"):
        fixed(train=TRAIN[::-1])
    with pytest.raises(InvalidInput, match="validation period 2004-12-31 to 2004-01-01 is reversed"):
        fixed(validation=VALIDATION[::-1])
    with pytest.raises(InvalidInput, match="test period 2006-12-31 to 2005-01-01 is reversed"):
        fixed(test=TEST[::-1])
    with pytest.raises(InvalidInput, match="validation period from 2003-12-31 overlaps the train period"):
        fixed(validation=(TRAIN[1], VALIDATION[1]))
    with pytest.raises(InvalidInput, match="test period from 2004-12-31 overlaps the validation period"):
        fixed(test=(VALIDATION[1], TEST[1]))
    with pytest.raises(InvalidInput, match="first used on 2004-12-31"):
        split(TRAIN, VALIDATION, 5, VALIDATION[1], CALENDAR)
    with pytest.raises(InvalidInput, match="horizon_days 0"):
        fixed(horizon=0)
    with pytest.raises(InvalidInput, match="validation period 2004-12-29 to 2004-12-31 has no session left"):
        fixed(validation=(date(2004, 12, 29), date(2004, 12, 31)))
    with pytest.raises(InvalidInput, match=r"train_years 0 "):
        walk_forward_split(period_of(date(2010, 1, 1), "yearly"), 0, 1, 5, CALENDAR, START, 253)
    with pytest.raises(InvalidInput, match=r"0\.3 years is no whole number of months"):
        walk_forward_split(period_of(date(2010, 1, 1), "yearly"), 1, 0.3, 5, CALENDAR, START, 253)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(90, 200), n_folds=st.integers(2, 6), horizon=st.integers(1, 6), tested=st.integers(1, 2))
def test_no_label_of_a_fold_touches_its_test(count: int, n_folds: int, horizon: int, tested: int) -> None:
    days = sessions(date(2015, 1, 1), date(2015, 12, 31))[:count]
    if tested >= n_folds:
        tested = 1
    folds = purged_folds(days, n_folds, horizon, tested)
    assert sorted({day for fold in folds for day in fold.test}) == days
    for fold in folds:
        spanned = {position + ahead for position in map(days.index, fold.test) for ahead in range(horizon + 2)}
        kept = set(map(days.index, fold.train))
        for position in range(len(days)):
            own = set(range(position, position + horizon + 2))
            touches = bool(own & spanned)
            embargoed = any(position - ahead in spanned for ahead in range(horizon + 1))
            assert (position in kept) == (not touches and not embargoed)


def test_impossible_folds_are_refused() -> None:
    days = sessions(date(2015, 1, 1), date(2015, 1, 31))
    with pytest.raises(InvalidInput, match="1 folds"):
        purged_folds(days, 1, 5)
    with pytest.raises(InvalidInput, match="no session is left to train on"):
        purged_folds(days, 2, 15)


def test_walk_forward_folds_are_tested_by_what_was_known_before_them() -> None:
    days = CALENDAR.sessions(date(2023, 1, 3), date(2023, 12, 29))
    folds = purged_walk_forward(days, 4, 5)
    assert len(folds) == 4
    assert [day for fold in folds for day in fold.test] == days[len(days) // 5 :]
    for fold in folds:
        first = days.index(fold.test[0])
        assert list(fold.train) == days[: first - 6]
        assert_purged(fold.train, fold.test, 5, CALENDAR)
    for wrong in (0, len(days)):
        with pytest.raises(InvalidInput, match="walk-forward folds"):
            purged_walk_forward(days, wrong, 5)
    with pytest.raises(InvalidInput, match="no session is left to train on before the test"):
        purged_walk_forward(days[:20], 4, 5)


def test_an_expanding_window_trains_from_the_first_full_day() -> None:
    period = period_of(date(2020, 6, 1), "yearly")
    rolling, expanding = (
        walk_forward_split(period, 2, 1, 5, CALENDAR, date(2010, 1, 4), 100, window) for window in (False, True)
    )
    assert expanding.train[0] == CALENDAR.offset(date(2010, 1, 4), 99)
    assert expanding.train[-len(rolling.train) :] == rolling.train
    assert (expanding.validation, expanding.last_known) == (rolling.validation, rolling.last_known)
