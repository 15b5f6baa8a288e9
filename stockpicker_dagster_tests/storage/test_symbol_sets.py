"""Symbol sets: which stored days were never asked for a symbol that is in use now."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.storage.symbol_sets import EVERY_SYMBOL, incomplete_days, store_symbol_set

FIRST, SECOND = date(2024, 1, 2), date(2024, 1, 3)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def store(lake: Lake, day: date, symbols: list[str] | None) -> None:
    frame = pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date})
    lake.write_days("s/prices", frame, [day], lambda _: [FIRST, SECOND], store_symbol_set(lake, "s/prices", symbols))


def test_days_stored_before_a_symbol_was_added_are_incomplete_until_they_are_stored_again(lake: Lake) -> None:
    store(lake, FIRST, ["A"])
    store(lake, SECOND, ["B", "A"])
    assert incomplete_days(lake, "s/prices", ["A", "B", "C"]) == {FIRST: ["B", "C"], SECOND: ["C"]}
    assert incomplete_days(lake, "s/prices", ["A", "B"]) == {FIRST: ["B"]}
    store(lake, FIRST, ["A", "B"])
    assert incomplete_days(lake, "s/prices", ["B", "A"]) == {}


def test_a_day_that_was_asked_for_everything_lacks_nothing(lake: Lake) -> None:
    store(lake, FIRST, None)
    assert incomplete_days(lake, "s/prices", ["A"]) == {}


def test_a_day_that_was_asked_for_some_symbols_is_incomplete_once_all_are_needed(lake: Lake) -> None:
    store(lake, FIRST, ["A"])
    store(lake, SECOND, None)
    assert incomplete_days(lake, "s/prices", None) == {FIRST: [EVERY_SYMBOL]}


def test_a_set_whose_file_is_lost_counts_as_never_asked_for(lake: Lake) -> None:
    store(lake, FIRST, ["A"])
    for path in (lake.root / "s" / "prices.symbols").iterdir():
        path.unlink()
    assert incomplete_days(lake, "s/prices", ["A"]) == {FIRST: ["A"]}


def test_the_order_and_repetition_of_symbols_do_not_matter(lake: Lake) -> None:
    notes = [store_symbol_set(lake, "s/prices", symbols) for symbols in (["A", "B"], ["B", "A", "A"], ["A"])]
    assert notes[0] == notes[1] != notes[2]
    assert len(list((lake.root / "s" / "prices.symbols").iterdir())) == 2
