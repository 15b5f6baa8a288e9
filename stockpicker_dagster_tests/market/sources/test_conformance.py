"""What every price source promises, whoever it is: the same tests over all of them, on one invented market.

What is particular to one source is tested in its own file. The simulated market makes its own rows, so the tests that
need given rows leave it out.
"""

from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Fetched, PriceSource
from stockpicker_dagster.market.sources.simulated import SimulatedMarket
from stockpicker_dagster_tests.market.sources.invented_market import (
    ASKED,
    BAD_PRINT,
    DELISTED_ON,
    GONE,
    NYSE,
    SATURDAY,
    SESSIONS,
    START,
    SYMBOLS,
    UNKNOWN,
    Market,
    invented_market,
)
from stockpicker_dagster_tests.market.sources.served import SERVED

EVERYTHING = [*SYMBOLS, UNKNOWN]
SINGLE_DAYS = [ASKED[0], *ASKED[4:6], BAD_PRINT, ASKED[15], SESSIONS[96], NYSE.next_session(SATURDAY), DELISTED_ON]
"""Days of events, seams and rejected rows, on which a difference between day and range would show."""

market = lru_cache(invented_market)

given_rows = pytest.mark.parametrize("kind", SERVED, indirect=True, scope="module")
as_traded_rows = pytest.mark.parametrize(
    "kind", [kind for kind in SERVED if kind != "files_split_adjusted"], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=[*SERVED, "simulated"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PriceSource]:
    if kind == "simulated":
        yield SimulatedMarket("simulated", START, stocks=12, seed=19)
        return
    with SERVED[kind](market(), tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture(scope="module")
def symbols(source: PriceSource) -> list[str]:
    """Every symbol that the source has, and one that nobody has."""
    if source.kind == "simulated":
        return [*source.fetch(None, SESSIONS[:130]).prices["symbol"].unique().sort(), UNKNOWN]
    return EVERYTHING


@pytest.fixture(scope="module")
def answer(source: PriceSource, symbols: list[str]) -> Fetched:
    return source.fetch(symbols, ASKED)


def assert_same(mine: Fetched, theirs: Fetched) -> None:
    for name in ("prices", "delistings", "quarantine"):
        assert_frame_equal(getattr(mine, name), getattr(theirs, name), check_exact=True)


def together(answers: list[Fetched]) -> Fetched:
    parts = {name: pl.concat([getattr(each, name) for each in answers]) for name in ("prices", "delistings")}
    return Fetched(**parts, quarantine=pl.concat([each.quarantine for each in answers]))


def on_days(answer: Fetched, days: list[date]) -> Fetched:
    """The part of an answer that belongs to some sessions; a row for a Saturday belongs to the Monday after."""
    of_day = pl.col("date").is_in(days)
    session = pl.col("date").map_elements(
        lambda day: day if NYSE.is_session(day) else NYSE.next_session(day), return_dtype=pl.Date
    )
    quarantine = answer.quarantine.filter(session.is_in(days)) if answer.quarantine.height else answer.quarantine
    return Fetched(answer.prices.filter(of_day), answer.delistings.filter(of_day), quarantine)


# Shape


def test_an_answer_has_the_contracts_columns_sorted_by_date_and_symbol(source: PriceSource, answer: Fetched) -> None:
    assert isinstance(source, PriceSource)
    assert dict(answer.prices.schema) == PRICES_SCHEMA
    assert dict(answer.delistings.schema) == DELISTINGS_SCHEMA
    assert dict(answer.quarantine.schema) == QUARANTINE_SCHEMA
    assert answer.prices.height > 400
    key = answer.prices.select("date", "symbol")
    assert_frame_equal(key, key.sort("date", "symbol"))
    assert key.is_unique().all()


def test_every_row_names_where_it_comes_from(kind: str, source: PriceSource, answer: Fetched) -> None:
    known = {"chain": {"mine", "alpaca"}}.get(kind, {source.name})
    assert set(answer.prices["source"]) == known
    assert set(answer.quarantine["source"]) <= known


def test_no_session_and_no_symbol_give_empty_frames(source: PriceSource) -> None:
    for empty in (source.fetch(["DIV"], []), source.fetch([], ASKED[:1])):
        assert dict(empty.prices.schema) == PRICES_SCHEMA
        assert empty.prices.is_empty()
        assert empty.delistings.is_empty()
        assert empty.quarantine.is_empty()


# What is asked for


def test_only_symbols_that_were_asked_for_are_answered(
    source: PriceSource, symbols: list[str], answer: Fetched
) -> None:
    some = symbols[1:4]
    wanted = pl.col("symbol").is_in(some)
    expected = Fetched(answer.prices.filter(wanted), answer.delistings.filter(wanted), answer.quarantine.filter(wanted))
    assert_same(source.fetch(some, ASKED), expected)


def test_an_unknown_symbol_invents_no_row(source: PriceSource, answer: Fetched) -> None:
    for frame in (answer.prices, answer.delistings, answer.quarantine):
        assert UNKNOWN not in frame["symbol"]
    assert source.fetch([UNKNOWN], ASKED[:2]).prices.is_empty()


def test_days_before_the_start_are_refused(source: PriceSource, symbols: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"2021-12-31.*2022-01-03"):
        source.fetch(symbols, [date(2021, 12, 31)])


def test_days_that_are_not_complete_are_refused(kind: str, source: PriceSource, symbols: list[str]) -> None:
    available = source.available_through()
    if kind == "simulated":
        assert available is None
        return
    assert available is not None
    with pytest.raises(InvalidInput, match=str(NYSE.next_session(available))):
        source.fetch(symbols, [NYSE.next_session(available)])


# Time


def test_days_one_by_one_in_any_order_are_the_range(source: PriceSource, symbols: list[str], answer: Fetched) -> None:
    shuffled = SINGLE_DAYS[::-2] + SINGLE_DAYS[-2::-2]
    assert sorted(shuffled) == sorted(SINGLE_DAYS)
    single = {day: source.fetch(symbols, [day]) for day in shuffled}
    assert_same(together([single[day] for day in sorted(single)]), on_days(answer, SINGLE_DAYS))


def test_a_range_in_pieces_is_the_range(source: PriceSource, symbols: list[str], answer: Fetched) -> None:
    pieces = [source.fetch(symbols, days) for days in (ASKED[:17], ASKED[17:])]
    assert_same(together(pieces), answer)


@given_rows
@pytest.mark.parametrize("last", [SESSIONS[95], DELISTED_ON], ids=str)
def test_the_future_is_not_used(kind: str, answer: Fetched, tmp_path: Path, last: date) -> None:
    """Deleting, or changing, every row and event after a day leaves the answer about it and earlier days as it was."""
    days = [day for day in ASKED if day <= last]
    futures: list[Market] = [market().until(last), market().spoilt_after(last)]
    for future in futures[1:] if kind == "files_split_adjusted" else futures:
        with SERVED[kind](future, tmp_path) as source:
            found = source.fetch(EVERYTHING, days)
            if kind == "files_split_adjusted":
                # Such a file restates the past; what must stay are the returns.
                found, answer = as_returns(found), as_returns(answer)
            assert_same(found, on_days(answer, days))


def as_returns(answer: Fetched) -> Fetched:
    """The answer with what a later split cannot change."""
    growth = (pl.col("close") * pl.col("adjustment") / pl.col("close").shift(1).over("symbol")).round(9)
    dollars = (pl.col("close") * pl.col("volume")).round(4)
    prices = answer.prices.select("symbol", "date", growth.alias("growth"), dollars.alias("dollars"))
    rejected = answer.quarantine.select("symbol", "date", "reason")
    return Fetched(prices, answer.delistings, rejected)


# Rows and events


@given_rows
def test_every_row_is_accepted_or_quarantined(answer: Fetched) -> None:
    came_in = market().rows.filter(pl.col("date").is_between(ASKED[0], ASKED[-1]))
    both = pl.concat([answer.prices.select("symbol", "date"), answer.quarantine.select("symbol", "date")])
    assert_frame_equal(both.unique().sort("symbol", "date"), came_in.select("symbol", "date").sort("symbol", "date"))
    rejected = answer.quarantine.select("symbol", "date", "reason").unique().sort("symbol")
    assert rejected.rows() == [("BAD", BAD_PRINT, "high_below_low"), ("SATU", SATURDAY, "not_a_session")]


@as_traded_rows
def test_prices_and_events_are_those_of_the_market(answer: Fetched) -> None:
    """As traded, whatever the vendor makes of them; the expectation is worked out from the invented rows alone."""
    expected = market().truth().filter(pl.col("date").is_in(ASKED))
    found = answer.prices.sort("symbol", "date").select(expected.columns)
    assert_frame_equal(found, expected, check_exact=False, rel_tol=1e-12)


@given_rows
def test_total_returns_are_those_of_the_market(answer: Fetched) -> None:
    """Whatever the basis, and however rows were filled, cumulated returns are the same."""
    growth = (pl.col("close") * pl.col("adjustment") / pl.col("close").shift(1).over("symbol")).alias("growth")
    mine = answer.prices.sort("symbol", "date").select("symbol", "date", growth).drop_nulls()
    true = market().truth().select("symbol", "date", growth)
    both = mine.join(true, on=["symbol", "date"])
    assert both.height == mine.height > 400
    assert both.filter((pl.col("growth") / pl.col("growth_right") - 1).abs() > 1e-9).is_empty()


def test_events_were_known_when_they_took_effect(answer: Fetched) -> None:
    eventful = (pl.col("dividend") > 0) | (pl.col("split_ratio") != 1)
    events = answer.prices.filter(eventful)
    assert events.height >= 3
    assert (events["known_at"] <= events["date"]).all()
    assert answer.prices.filter(~eventful & (pl.col("adjustment") == 1))["known_at"].null_count() == (
        answer.prices.height - events.height
    )


def test_a_delisting_is_listed_once_on_the_day_it_was_known(kind: str, source: PriceSource, answer: Fetched) -> None:
    assert (answer.delistings["date"] == answer.delistings["known_at"]).all()
    assert answer.delistings["date"].is_between(ASKED[0], ASKED[-1]).all()
    assert answer.delistings.select("symbol", "last_session").is_unique().all()
    if kind != "simulated":
        [row] = answer.delistings.rows(named=True)
        assert (row["symbol"], row["last_session"], row["date"], row["return"]) == ("GONE", GONE, DELISTED_ON, None)


# What surrounds the rows


def test_a_source_says_what_reports_must_repeat_and_opens_its_venue(source: PriceSource, symbols: list[str]) -> None:
    assert source.caveat
    opens = source.venue().opens(ASKED[3], symbols)
    assert opens is not None
    rows = source.fetch(symbols, [ASKED[3]]).prices
    assert {symbol: float(price) for symbol, price in opens.items()} == pytest.approx(
        dict(rows.select("symbol", "open").iter_rows()), abs=1e-4
    )
