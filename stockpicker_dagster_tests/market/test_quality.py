"""Whole sessions are refused for what they are, ordinary ones pass, and flags name what a person should look at."""

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl
import pytest

from stockpicker_dagster.market import quality
from stockpicker_dagster.market.prices import PRICES_SCHEMA, QUARANTINE_SCHEMA

DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(12)]
STOCKS = [f"S{number:02d}" for number in range(40)]


def prices(days: Sequence[date] = DAYS, stocks: Sequence[str] = STOCKS) -> pl.DataFrame:
    """Closes that all differ from one day to the next."""
    rows = [
        (symbol, day, *[10.0 + number + 0.01 * day.day] * 4, 1000.0 + day.day, 0.0, 1.0, 1.0, None, "test")
        for day in days
        for number, symbol in enumerate(stocks)
    ]
    return pl.DataFrame(rows, schema=PRICES_SCHEMA, orient="row")


def rejected(day: date, rows: int, reason: str = "missing_price") -> pl.DataFrame:
    nothing = dict.fromkeys(QUARANTINE_SCHEMA, None)
    return pl.DataFrame(
        [{**nothing, "symbol": f"R{number}", "date": day, "reason": reason} for number in range(rows)],
        schema=QUARANTINE_SCHEMA,
    )


NONE = rejected(DAYS[0], 0)


def refused(frame: pl.DataFrame, quarantine: pl.DataFrame = NONE, **options: set[date]) -> list[tuple[date, str]]:
    found = quality.refusals(quality.sessions(frame, quarantine, DAYS), **options)
    return [(each.day, each.reason) for each in found]


def test_ordinary_sessions_pass() -> None:
    assert refused(prices()) == []
    # One in ten may be lacking, and one in two unchanged.
    assert refused(prices().filter((pl.col("date") != DAYS[8]) | (pl.col("symbol") < "S36"))) == []


def test_a_session_with_fewer_rows_than_usual_is_partial_and_an_empty_one_is_too() -> None:
    partial = prices().filter((pl.col("date") != DAYS[8]) | (pl.col("symbol") < "S35"))
    assert refused(partial) == [(DAYS[8], "it has 35 rows where 40 are usual")]
    assert refused(prices().filter(pl.col("date") != DAYS[8])) == [(DAYS[8], "it has 0 rows where 40 are usual")]
    assert refused(partial, accepted_days={DAYS[8]}) == []


def test_the_first_sessions_of_a_source_have_nothing_to_be_compared_with() -> None:
    assert refused(prices().filter((pl.col("date") != DAYS[3]) | (pl.col("symbol") < "S25"))) == []


def test_a_session_that_is_the_one_before_sent_again_is_stale() -> None:
    again = prices([DAYS[7]]).with_columns(date=pl.lit(DAYS[8]))
    stale = pl.concat([prices().filter(pl.col("date") != DAYS[8]), again.filter(pl.col("symbol") < "S21")])
    stale = pl.concat([stale, prices([DAYS[8]]).filter(pl.col("symbol") >= "S21")])
    assert refused(stale.sort("date", "symbol")) == [(DAYS[8], "52% of its closes are those of the session before")]


def test_a_session_of_which_much_was_rejected_is_broken_but_restatements_are_no_rows_of_it() -> None:
    assert refused(prices(), rejected(DAYS[8], 5)) == [(DAYS[8], "5 of its 45 rows were rejected")]
    assert refused(prices(), rejected(DAYS[8], 4)) == []
    assert refused(prices(), rejected(DAYS[8], 5, "restated")) == []


def test_a_share_of_a_few_rows_is_no_evidence() -> None:
    few = prices(stocks=STOCKS[:10])
    assert refused(few.filter((pl.col("date") != DAYS[8]) | (pl.col("symbol") < "S02"))) == []


def test_days_one_by_one_are_judged_as_in_a_range() -> None:
    frame = prices().filter((pl.col("date") != DAYS[8]) | (pl.col("symbol") < "S25"))
    quarantine = rejected(DAYS[9], 7)
    whole = quality.sessions(frame, quarantine, DAYS)
    for day in DAYS:
        of_day = pl.col("date") == day
        earlier = frame.filter(pl.col("date") < day)
        alone = quality.sessions(frame.filter(of_day), quarantine.filter(of_day), [day], earlier)
        assert alone.equals(whole.filter(of_day))


def test_the_message_names_every_session_and_the_way_out() -> None:
    found = [quality.Refusal(day, "why") for day in DAYS]
    message = quality.refusal_message("mine", found)
    assert "12 sessions" in message
    assert "and 7 more" in message
    assert all(str(day) in message for day in DAYS)
    assert "stockpicker data accept-day mine 2024-01-01" in message


@pytest.mark.parametrize(
    ("closes", "volumes", "flags"),
    [
        ([10.0, 10.1, 10.2], [1, 2, 3], {}),
        ([10.0, 16.0, 16.1], [1, 2, 3], {1: "extreme_move"}),
        ([10.0, 4.0, 4.1], [1, 2, 3], {1: "extreme_move"}),
        ([10.0, 100.0, 10.5], [1, 2, 3], {1: "likely_bad_print", 2: "extreme_move"}),
        ([10.0, 10.0, 10.1], [5, 5, 5], {1: "repeated_row"}),
        ([10.0, 10.0, 10.1], [5, 0, 5], {1: "zero_volume"}),
    ],
)
def test_rows_are_flagged_for_what_they_may_be(closes: list[float], volumes: list[int], flags: dict[int, str]) -> None:
    rows = [
        ("A", day, *[close] * 4, float(volume), 0.0, 1.0, 1.0, None, "test")
        for day, close, volume in zip(DAYS, closes, volumes, strict=False)
    ]
    found = quality.flagged(pl.DataFrame(rows, schema=PRICES_SCHEMA, orient="row"))
    assert {DAYS.index(day): flag for day, flag in found.select("date", "flag").iter_rows()} == flags
    assert set(found["flag"]) <= set(quality.FLAGS)


def test_a_split_is_no_extreme_move() -> None:
    rows = [
        ("A", DAYS[0], *[100.0] * 4, 9.0, 0.0, 1.0, 1.0, None, "t"),
        ("A", DAYS[1], *[10.0] * 4, 9.0, 0.0, 10.0, 10.0, None, "t"),
    ]
    assert quality.flagged(pl.DataFrame(rows, schema=PRICES_SCHEMA, orient="row")).is_empty()
