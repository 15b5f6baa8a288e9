"""A copy sorted by stock changes nothing but the time: what is read is always what the lake holds now."""

import threading
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.console.views.histories import Histories
from stockpicker_dagster.storage.lake import Lake, MissingDays
from stockpicker_dagster_tests.training import small_strategy

TABLE, COLUMNS = "simulated/prices", ("close", "adjustment")
CALENDAR = small_strategy.CALENDAR
# The end of a whole year, which is one file, and the beginning of one that is not.
DAYS = CALENDAR.sessions(date(2021, 1, 1), date(2022, 2, 28))


def _year(number: int) -> list[date]:
    return CALENDAR.sessions(date(number, 1, 1), date(number, 12, 31))


def _rows(days: Sequence[date], shift: float = 0.0) -> pl.DataFrame:
    symbols = pl.DataFrame({"symbol": ["AAA", "BBB", "CCC"]})
    rows = pl.DataFrame({"date": days}).join(symbols, how="cross").select("symbol", "date")
    close = pl.int_range(pl.len()).cast(pl.Float64) + shift
    return rows.with_columns(close=close, adjustment=pl.lit(1.0), other=pl.lit("not asked for"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    made.write_days(TABLE, _rows(DAYS), DAYS, _year)
    assert (tmp_path / "lake" / TABLE / "year=2021" / "year.parquet").is_file()
    return made


def _prepared(lake: Lake, folder: Path) -> Histories:
    """Copies of everything, made."""
    histories = Histories(lake, folder)
    histories.prepare(TABLE, COLUMNS)
    _wait(folder, 2)
    return histories


def _wait(folder: Path, copies: int) -> None:
    for _ in range(2_000):
        if len(list(folder.rglob("[0-9]*.parquet"))) >= copies:
            return
        threading.Event().wait(0.005)
    raise AssertionError(list(folder.rglob("*")))


def _from_lake(lake: Lake, days: Sequence[date], symbol: str = "BBB") -> pl.DataFrame:
    return lake.read(TABLE, days).filter(pl.col("symbol") == symbol).select("date", *COLUMNS).sort("date")


@pytest.mark.parametrize("days", [DAYS, DAYS[-20:], DAYS[100:280], DAYS[3:4], DAYS[::7]], ids=len)
@pytest.mark.parametrize("symbol", ["AAA", "BBB", "CCC", "NOPE"])
def test_with_and_without_copies_the_rows_are_the_lakes(
    symbol: str, days: list[date], lake: Lake, tmp_path: Path
) -> None:
    expected = _from_lake(lake, days, symbol)
    assert_frame_equal(Histories(lake, None).rows(TABLE, days, symbol, COLUMNS), expected)
    assert_frame_equal(_prepared(lake, tmp_path / "copies").rows(TABLE, days, symbol, COLUMNS), expected)


def test_copies_are_what_is_read(lake: Lake, tmp_path: Path) -> None:
    """Told apart by a copy that somebody bent, with what it says of its origin left as it is."""
    histories = _prepared(lake, tmp_path / "copies")
    [bent] = (tmp_path / "copies").rglob("2021.parquet")
    said = {name: text for name, text in pl.read_parquet_metadata(bent).items() if name.startswith("stockpicker")}
    pl.read_parquet(bent).with_columns(close=pl.lit(-1.0)).write_parquet(bent, metadata=said)
    assert set(histories.rows(TABLE, DAYS[:20], "AAA", COLUMNS)["close"]) == {-1.0}


def test_a_new_session_is_there_at_once(lake: Lake, tmp_path: Path) -> None:
    histories = _prepared(lake, tmp_path / "copies")
    more = CALENDAR.sessions(date(2022, 3, 1), date(2022, 3, 4))
    lake.write_days(TABLE, _rows(more, 1e6), more, _year)
    days = [*DAYS, *more]
    assert_frame_equal(histories.rows(TABLE, days, "CCC", COLUMNS), _from_lake(lake, days, "CCC"))


@pytest.mark.parametrize("changed", [DAYS[5], DAYS[-5]], ids=["in a whole year", "in this year"])
def test_a_session_that_was_made_again_is_not_shown_as_it_was(changed: date, lake: Lake, tmp_path: Path) -> None:
    histories = _prepared(lake, tmp_path / "copies")
    lake.write_days(TABLE, _rows([changed], 5e5), [changed], _year)
    for _ in range(2):
        assert_frame_equal(histories.rows(TABLE, DAYS, "AAA", COLUMNS), _from_lake(lake, DAYS, "AAA"))
        histories.prepare(TABLE, COLUMNS)
        threading.Event().wait(0.05)


def test_a_session_that_was_never_stored_raises_as_in_the_lake(lake: Lake, tmp_path: Path) -> None:
    histories = _prepared(lake, tmp_path / "copies")
    with pytest.raises(MissingDays):
        histories.rows(TABLE, [*DAYS, date(2022, 3, 1)], "AAA", COLUMNS)


def test_a_broken_copy_is_as_good_as_none(lake: Lake, tmp_path: Path) -> None:
    _prepared(lake, tmp_path / "copies")
    for copy in (tmp_path / "copies").rglob("*.parquet"):
        copy.write_bytes(b"PAR1 nothing of use PAR1")
    fresh = Histories(lake, tmp_path / "copies")
    assert_frame_equal(fresh.rows(TABLE, DAYS, "AAA", COLUMNS), _from_lake(lake, DAYS, "AAA"))


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("in the way")
    histories = Histories(lake, tmp_path / "copies")
    for _ in range(3):
        assert_frame_equal(histories.rows(TABLE, DAYS, "AAA", COLUMNS), _from_lake(lake, DAYS, "AAA"))
        threading.Event().wait(0.02)
