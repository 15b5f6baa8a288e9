"""Restatements: the stored past is never overwritten in silence."""

from datetime import date

import polars as pl
import pytest

from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.restatements import StoredPast, keep_the_stored_past
from stockpicker_dagster.market.sources import Fetched
from stockpicker_dagster.storage.symbol_sets import EVERY_SYMBOL

DAY, NEXT = date(2024, 1, 2), date(2024, 1, 3)


def prices(*rows: tuple[str, date, float]) -> pl.DataFrame:
    return pl.DataFrame(
        [(symbol, day, close, close, close, close, 100.0, 0.0, 1.0, 1.0, None, "test") for symbol, day, close in rows],
        schema=PRICES_SCHEMA,
        orient="row",
    )


def answer(*rows: tuple[str, date, float]) -> Fetched:
    return Fetched(prices(*rows), pl.DataFrame(schema=DELISTINGS_SCHEMA), pl.DataFrame(schema=QUARANTINE_SCHEMA))


def test_an_equal_answer_changes_nothing() -> None:
    stored = prices(("A", DAY, 10.0), ("B", DAY, 20.0))
    again = keep_the_stored_past(answer(("A", DAY, 10.0), ("B", DAY, 20.0)), StoredPast(stored))
    assert again.prices.equals(stored)
    assert again.quarantine.is_empty()


def test_a_revision_is_quarantined_with_both_figures_and_the_stored_row_stays() -> None:
    stored = prices(("A", DAY, 10.0))
    again = keep_the_stored_past(answer(("A", DAY, 10.5), ("A", NEXT, 11.0)), StoredPast(stored))
    assert again.prices.equals(prices(("A", DAY, 10.0), ("A", NEXT, 11.0)))
    [(symbol, day, reason, detail)] = again.quarantine.select("symbol", "date", "reason", "detail").rows()
    assert (symbol, day, reason) == ("A", DAY, "restated")
    assert "close 10.0 -> 10.5" in detail


@pytest.mark.parametrize("column", [name for name, kind in PRICES_SCHEMA.items() if kind == pl.Float64])
def test_a_revision_of_any_figure_is_noticed(column: str) -> None:
    stored = prices(("A", DAY, 10.0))
    revised = answer(("A", DAY, 10.0))
    changed = Fetched(revised.prices.with_columns(pl.col(column) + 0.5), revised.delistings, revised.quarantine)
    again = keep_the_stored_past(changed, StoredPast(stored))
    assert again.prices.equals(stored)
    assert again.quarantine["detail"].str.contains(column).all()
    assert again.quarantine.height == 1


def test_a_day_that_was_asked_for_some_symbols_takes_the_others_as_they_are() -> None:
    """Once every symbol is needed, those without a stored row are no revision; what is stored still is one."""
    past = StoredPast(prices(("A", DAY, 10.0), ("A", NEXT, 11.0)), never_asked={DAY: [EVERY_SYMBOL]})
    again = keep_the_stored_past(answer(("A", DAY, 10.5), ("B", DAY, 20.0), ("B", NEXT, 21.0)), past)
    assert again.prices.equals(prices(("A", DAY, 10.0), ("B", DAY, 20.0), ("A", NEXT, 11.0)))
    assert again.quarantine.select("symbol", "date").rows() == [("A", DAY), ("A", NEXT), ("B", NEXT)]


def test_noise_of_float_arithmetic_is_no_revision() -> None:
    again = keep_the_stored_past(answer(("A", DAY, 10.0 + 1e-12)), StoredPast(prices(("A", DAY, 10.0))))
    assert again.prices["close"].to_list() == [10.0]
    assert again.quarantine.is_empty()


def test_a_row_that_vanished_stays_and_is_quarantined() -> None:
    stored = prices(("A", DAY, 10.0), ("B", DAY, 20.0))
    again = keep_the_stored_past(answer(("A", DAY, 10.0)), StoredPast(stored), asked=["A", "B"])
    assert again.prices.equals(stored)
    assert again.quarantine["symbol"].to_list() == ["B"]
    assert "no longer has this row" in again.quarantine["detail"][0]


def test_a_symbol_that_was_not_asked_for_again_stays_and_is_no_revision() -> None:
    stored = prices(("A", DAY, 10.0), ("B", DAY, 20.0))
    again = keep_the_stored_past(answer(("A", DAY, 10.0)), StoredPast(stored), asked=["A"])
    assert again.prices.equals(stored)
    assert again.quarantine.is_empty()


def test_a_day_that_was_never_stored_is_taken_as_it_is() -> None:
    fresh = answer(("A", DAY, 10.0))
    assert keep_the_stored_past(fresh, StoredPast()) is fresh


def test_a_row_that_appears_later_is_a_revision_unless_its_symbol_was_never_asked_for() -> None:
    stored = prices(("A", DAY, 10.0))
    late = answer(("A", DAY, 10.0), ("B", DAY, 20.0), ("C", DAY, 30.0))
    again = keep_the_stored_past(late, StoredPast(stored, never_asked={DAY: ["C"]}))
    assert again.prices["symbol"].to_list() == ["A", "C"]
    [(symbol, day, reason, detail)] = again.quarantine.select("symbol", "date", "reason", "detail").rows()
    assert (symbol, day, reason) == ("B", DAY, "restated")
    assert "close is 20.0" in detail


def test_a_day_that_was_stored_empty_may_be_filled() -> None:
    past = StoredPast(prices(("A", DAY, 10.0)))
    again = keep_the_stored_past(answer(("A", DAY, 10.0), ("B", NEXT, 20.0)), past)
    assert again.prices["symbol"].to_list() == ["A", "B"]
    assert again.quarantine.is_empty()


def delisting(symbol: str, day: date, fraction: float | None) -> pl.DataFrame:
    return pl.DataFrame([(symbol, day, DAY, "merger", fraction, day)], schema=DELISTINGS_SCHEMA, orient="row")


def test_a_delisting_that_appears_or_changes_on_a_stored_day_is_a_revision() -> None:
    rows = prices(("A", DAY, 10.0), ("A", NEXT, 11.0))
    nothing = answer().quarantine
    for known in (delisting("B", NEXT, None).clear(), delisting("B", NEXT, -0.5)):
        again = keep_the_stored_past(Fetched(rows, delisting("B", NEXT, 0.1), nothing), StoredPast(rows, known))
        assert again.delistings.equals(known)
        assert again.quarantine.select("symbol", "date", "reason").rows() == [("B", NEXT, "restated")]
    same = keep_the_stored_past(
        Fetched(rows, delisting("B", NEXT, None), nothing), StoredPast(rows, delisting("B", NEXT, None))
    )
    assert same.quarantine.is_empty()
    assert same.delistings.height == 1


def test_what_was_quarantined_as_restated_stays_once_when_the_source_is_asked_again() -> None:
    stored = prices(("A", DAY, 10.0))
    first = keep_the_stored_past(answer(("A", DAY, 10.5)), StoredPast(stored))
    for now in (10.5, 10.0):
        again = keep_the_stored_past(answer(("A", DAY, now)), StoredPast(stored, quarantine=first.quarantine))
        assert again.quarantine.equals(first.quarantine)


REDECIDED = {"symbol": pl.String, "date": pl.Date, "itself": pl.Boolean}


def redecided(*rows: tuple[str, date, bool]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=REDECIDED, orient="row")


def test_a_row_that_was_decided_on_takes_the_place_of_the_stored_one_and_of_its_restatement() -> None:
    before = keep_the_stored_past(answer(("A", DAY, 10.5)), StoredPast(prices(("A", DAY, 10.0))))
    past = StoredPast(before.prices, quarantine=before.quarantine, redecided=redecided(("A", DAY, True)))
    again = keep_the_stored_past(answer(("A", DAY, 10.5)), past)
    assert again.prices["close"].to_list() == [10.5]
    assert again.quarantine.is_empty()


def test_after_a_decision_a_later_row_may_change_its_events_but_not_its_prices() -> None:
    stored = prices(("A", NEXT, 10.0), ("B", NEXT, 20.0))
    paid = answer(("A", NEXT, 10.0), ("B", NEXT, 21.0))
    paid = Fetched(paid.prices.with_columns(adjustment=pl.lit(1.05)), paid.delistings, paid.quarantine)
    past = StoredPast(stored, redecided=redecided(("A", NEXT, False), ("B", NEXT, False)))
    again = keep_the_stored_past(paid, past)
    assert again.prices.select("symbol", "close", "adjustment").rows() == [("A", 10.0, 1.05), ("B", 20.0, 1.0)]
    assert again.quarantine["symbol"].to_list() == ["B"]
