"""The user's universe files: lists, spells and dated lists; one clear sentence for each bad file."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes import TODAYS_SECTORS, from_file, from_symbols

SPELLS = """ticker,start_date,end_date,Sector
AAA,2020-01-02,2020-06-01,Energy
BRK.B,2019-01-01,,Financials
CCC,,2020-03-02,Energy
AAA,2021-01-04,,Energy
"""
DATED = """date,symbol,sector
2020-01-02,AAA,Energy
2020-01-02,BRK.B,Financials
2020-02-03,AAA,Utilities
2020-02-03,CCC,Energy
"""


def written(folder: Path, text: str, name: str = "members.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_list_of_symbols_is_not_point_in_time_and_says_so(tmp_path: Path) -> None:
    listed = from_file(written(tmp_path, "Symbol,GICS Sector,Founded\nBRK.B,Financials,1839\nXOM,Energy,1870\n"))
    assert not listed.point_in_time
    assert listed.caveat == f"members as listed in members.csv, not point in time; {TODAYS_SECTORS}"
    assert listed.members(date(1999, 1, 4)) == ["BRK-B", "XOM"]
    picked = from_symbols(["XOM", "BRK.B", "XOM"])
    assert picked.members(date(1999, 1, 4)) == ["BRK-B", "XOM"]
    assert not picked.point_in_time
    assert "today's knowledge" in str(picked.caveat)


def test_a_parquet_file_gives_the_same_universe_as_a_csv(tmp_path: Path) -> None:
    csv = written(tmp_path, SPELLS)
    pl.read_csv(csv, try_parse_dates=True).write_parquet(tmp_path / "members.parquet")
    assert from_file(tmp_path / "members.parquet").spells.equals(from_file(csv).spells)


def test_rows_without_a_ticker_are_left_out_and_counted(tmp_path: Path) -> None:
    universe = from_file(written(tmp_path, "symbol,sector\nAAA,Energy\n-,Cash\n,Cash\n"))
    assert universe.members(date(2024, 1, 2)) == ["AAA"]
    assert "2 rows of members.csv without a ticker left out" in str(universe.caveat)


def test_dated_lists_hold_until_the_next_and_nobody_is_a_member_before_the_first(tmp_path: Path) -> None:
    universe = from_file(written(tmp_path, DATED))
    assert universe.point_in_time
    assert universe.caveat == "members after 2020-02-03 are those of that day's list, the last in members.csv"
    days = [date(2020, 1, 1), date(2020, 1, 2), date(2020, 2, 2), date(2020, 2, 3), date(2030, 1, 2)]
    assert [universe.members(day) for day in days] == [[], ["AAA", "BRK-B"], ["AAA", "BRK-B"], *[["AAA", "CCC"]] * 2]
    sectors = universe.sectors_on(days[2:4])
    assert sectors.filter(pl.col("symbol") == "AAA")["sector"].to_list() == ["Energy", "Utilities"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,sector\nAAA,Energy\n", "no column symbol or ticker; found: name, sector"),
        ("symbol,start_date\nAAA,2020-01-02\n", "both start_date and end_date, or neither"),
        ("symbol,start_date,end_date\nAAA,2020-01-02,2019-01-02\n", "AAA from 2020-01-02 to 2019-01-02"),
        ("symbol,start_date,end_date\nAAA,2.1.2020,\n", "start_date '2.1.2020' is no date"),
        ("symbol,sector\nAAA,Energy\nAAA,Utilities\n", "AAA is in the sectors Energy and Utilities at once"),
        ("symbol,date,start_date,end_date\nAAA,2020-01-02,,\n", "but not all three"),
        ("symbol,date\nAAA,\n", "1 rows of .* have no date"),
        ("symbol,date\nBRK.B,2020-01-02\nBRK-B,2020-01-02\n", "BRK-B twice on 2020-01-02"),
        ("symbol\n", "has no rows"),
        ("symbol,sector\n,Energy\n", "names a ticker"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_file(written(tmp_path, text))


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.csv does not exist"):
        from_file("nowhere.csv")
