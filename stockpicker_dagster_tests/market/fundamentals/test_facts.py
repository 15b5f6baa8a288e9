from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.fundamentals.facts import (
    CONCEPTS,
    ITEMS,
    as_first_reported,
    keep_the_stored_facts,
    keep_the_stored_filers,
    known_session,
    latest_known,
)
from stockpicker_dagster_tests.market.fundamentals.companies import ACME, ALL, INCOME, TURN
from stockpicker_dagster_tests.market.fundamentals.fact_frames import facts_of

CALENDAR = trading_calendar("XNYS")
NEW_YORK = ZoneInfo("America/New_York")
FACTS = facts_of(ALL)


def acme_income(facts: pl.DataFrame) -> dict[date, float]:
    own = facts.filter((pl.col("symbol") == "ACME") & (pl.col("concept") == INCOME))
    return dict(
        own.filter(pl.col("start").dt.month() == 1, pl.col("end").dt.month() == 12).select("end", "value").rows()
    )


def test_a_concept_means_one_figure() -> None:
    assert len(CONCEPTS) == sum(len(item.concepts) for item in ITEMS)
    assert all(concept.split(":")[0] in ("us-gaap", "dei") for concept in CONCEPTS)


# When a filing is known


@pytest.mark.parametrize(
    ("filed", "accepted", "known"),
    [
        ("2024-05-02", "2024-05-02T15:59:59", "2024-05-02"),
        ("2024-05-02", "2024-05-02T16:00:00", "2024-05-03"),
        ("2024-05-03", "2024-05-03T20:30:00", "2024-05-06"),  # a Friday evening
        ("2024-05-06", "2024-05-03T18:10:00", "2024-05-06"),  # after 17:30 a filing counts for the next day
        ("2024-11-29", "2024-11-29T12:59:59", "2024-11-29"),
        ("2024-11-29", "2024-11-29T13:00:00", "2024-12-02"),  # the half-day after Thanksgiving
        ("2024-07-04", "2024-07-04T10:00:00", "2024-07-05"),  # a holiday
        ("2024-05-02", None, "2024-05-03"),
        ("2024-05-04", None, "2024-05-06"),  # a Saturday
    ],
)
def test_a_filing_counts_for_the_first_session_that_closes_after_it(
    filed: str, accepted: str | None, known: str
) -> None:
    moment = None if accepted is None else datetime.fromisoformat(accepted)
    assert known_session(date.fromisoformat(filed), moment, CALENDAR) == date.fromisoformat(known)


@given(
    at=st.datetimes(datetime(2015, 1, 5), datetime(2025, 12, 20)),
    written_in_utc=st.booleans(),
    later=st.integers(0, 3),
)
def test_no_filing_is_known_before_it_was_accepted_or_filed_however_its_time_is_written(
    at: datetime, written_in_utc: bool, later: int
) -> None:
    accepted = at.replace(tzinfo=NEW_YORK)
    written = accepted.astimezone(UTC).replace(tzinfo=None) if written_in_utc else at
    filed = at.date() + timedelta(days=later)
    known = known_session(filed, written, CALENDAR)
    assert CALENDAR.is_session(known)
    assert known >= filed
    assert CALENDAR.close_at(known) > accepted.astimezone(UTC)
    assert known <= known_session(filed, None, CALENDAR)


# Views


def test_first_reported_and_latest_known_are_both_there() -> None:
    assert acme_income(as_first_reported(FACTS)) == {date(2018, 12, 31): 40.0, date(2019, 12, 31): 60.0}
    latest = {
        day: acme_income(latest_known(FACTS, day)) for day in (date(2020, 4, 14), date(2020, 4, 15), date(2020, 5, 4))
    }
    assert list(latest.values()) == [
        {date(2018, 12, 31): 40.0},
        {date(2018, 12, 31): 35.0, date(2019, 12, 31): 60.0},
        {date(2018, 12, 31): 35.0, date(2019, 12, 31): 20.0},
    ]


@given(day=st.dates(date(2018, 8, 1), date(2020, 6, 30)), seed=st.integers(0, 1000))
def test_a_view_as_of_a_day_knows_nothing_later_and_no_order_of_rows(day: date, seed: int) -> None:
    earlier = FACTS.filter(pl.col("known_at") <= day)
    shuffled = FACTS.sample(fraction=1.0, shuffle=True, seed=seed)
    assert latest_known(shuffled, day).equals(latest_known(earlier, date(2030, 1, 2)))
    first = as_first_reported(shuffled)
    assert as_first_reported(earlier).equals(first.filter(pl.col("known_at") <= day))


# The stored past


def test_what_was_stored_of_a_report_stays_and_reports_and_symbols_that_lack_are_added() -> None:
    stored = facts_of([ACME]).filter(pl.col("filing") != "0000001001-19-000002")
    revised = FACTS.with_columns(
        value=pl.when(pl.col("filing") == "0000001001-20-000002").then(pl.col("value") + 1).otherwise(pl.col("value"))
    )
    kept, differing = keep_the_stored_facts(revised, stored)
    assert differing == 2
    assert kept.sort(kept.columns).equals(FACTS.sort(kept.columns))
    again, differing = keep_the_stored_facts(FACTS, kept)
    assert differing == 0
    assert again.equals(kept)
    assert keep_the_stored_facts(FACTS, None) == (FACTS, 0)


def test_a_report_that_the_source_no_longer_has_stays_and_is_counted() -> None:
    kept, differing = keep_the_stored_facts(facts_of([TURN]), facts_of([ACME, TURN]))
    assert differing == facts_of([ACME]).height
    assert set(kept["symbol"]) == {"ACME", "TURN"}


def test_the_company_that_a_symbol_once_had_stays_with_its_days() -> None:
    day = date(2020, 1, 2)
    schema = {"symbol": pl.String, "date": pl.Date, "cik": pl.String, "source": pl.String}
    stored = pl.DataFrame([("A", day, "1", "edgar")], schema=schema, orient="row")
    fresh = pl.DataFrame([("A", day, "2", "edgar"), ("B", day, None, "edgar")], schema=schema, orient="row")
    assert keep_the_stored_filers(fresh, stored)["cik"].to_list() == ["1", None]
    assert keep_the_stored_filers(fresh, None).equals(fresh)
