"""Universes: membership as of the day, honest caveats, and one clear sentence for each bad file."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes import (
    SPELLS_SCHEMA,
    TODAYS_SECTORS,
    from_file,
    from_spells,
    from_symbols,
    normalise_symbol,
)

SPELLS = """ticker,start_date,end_date,Sector
AAA,2020-01-02,2020-06-01,Energy
BRK.B,2019-01-01,,Financials
CCC,,2020-03-02,Energy
AAA,2021-01-04,,Energy
"""


def written(folder: Path, text: str, name: str = "members.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_members_are_those_of_the_day_and_the_end_date_is_the_first_day_out(tmp_path: Path) -> None:
    universe = from_file(written(tmp_path, SPELLS))
    assert universe.point_in_time
    assert universe.members(date(2020, 1, 1)) == ["BRK-B", "CCC"]
    assert universe.members(date(2020, 1, 2)) == ["AAA", "BRK-B", "CCC"]
    assert universe.members(date(2020, 3, 2)) == ["AAA", "BRK-B"]
    assert universe.members(date(2020, 6, 1)) == ["BRK-B"]
    assert universe.members(date(2024, 6, 3)) == ["AAA", "BRK-B"]


def test_symbols_ever_counts_everyone_who_was_in_for_a_day(tmp_path: Path) -> None:
    universe = from_file(written(tmp_path, SPELLS))
    assert universe.symbols_ever(date(2020, 2, 28), date(2020, 3, 2)) == ["AAA", "BRK-B", "CCC"]
    assert universe.symbols_ever(date(2020, 7, 1), date(2020, 12, 31)) == ["BRK-B"]


DAYS = st.dates(date(2020, 1, 1), date(2020, 3, 1))
SPELL = st.tuples(st.sampled_from(["A", "B", "C"]), DAYS, st.integers(1, 30) | st.none())


@settings(max_examples=50, deadline=None)
@given(spells=st.lists(SPELL, max_size=8), sessions=st.sets(DAYS, max_size=10).map(sorted))
def test_merging_spells_changes_no_membership(spells: list[tuple[str, date, int | None]], sessions: list[date]) -> None:
    rows = [(s, start, None if days is None else start + timedelta(days=days), None) for s, start, days in spells]
    frame = pl.DataFrame(rows, schema=SPELLS_SCHEMA, orient="row")
    universe = from_spells("any", frame, point_in_time=True, caveat=None)
    by_hand = [
        (symbol, day)
        for day in sessions
        for symbol in "ABC"
        if any(s == symbol and start <= day and (end is None or day < end) for s, start, end, _ in rows)
    ]
    assert universe.membership(sessions).rows() == by_hand
    assert [(symbol, day) for day in sessions for symbol in universe.members(day)] == by_hand
    touching = universe.spells.with_columns(before=pl.col("end").shift(1).over("symbol"))
    assert touching.filter(pl.col("start") <= pl.col("before")).is_empty()


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


def test_sectors_restrict_and_unknown_ones_are_answered_with_the_known(tmp_path: Path) -> None:
    universe = from_file(written(tmp_path, SPELLS))
    energy = universe.restricted_to_sector("energy")
    assert energy.symbols_ever(date(2019, 1, 1), date(2024, 1, 1)) == ["AAA", "CCC"]
    assert energy.caveat == TODAYS_SECTORS
    assert universe.sector_of("BRK.B") == "Financials"
    assert from_symbols(["AAA"]).sector_of("AAA") is None
    with pytest.raises(InvalidInput, match="'Enrgy' is unknown in the universe 'members'; known: Energy, Financials"):
        universe.restricted_to_sector("Enrgy")
    with pytest.raises(InvalidInput, match="ZZZ never was a member"):
        universe.sector_of("ZZZ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,sector\nAAA,Energy\n", "no column symbol or ticker; found: name, sector"),
        ("symbol,start_date\nAAA,2020-01-02\n", "both start_date and end_date, or neither"),
        ("symbol,start_date,end_date\nAAA,2020-01-02,2019-01-02\n", "AAA from 2020-01-02 to 2019-01-02"),
        ("symbol,start_date,end_date\nAAA,2.1.2020,\n", "start_date '2.1.2020' is no date"),
        ("symbol,sector\nAAA,Energy\nAAA,Utilities\n", "AAA is in the sectors Energy and Utilities at once"),
        ("symbol\n", "has no rows"),
        ("symbol,sector\n,Energy\n", "names a ticker"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_file(written(tmp_path, text))


def test_missing_files_and_empty_lists_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.csv does not exist"):
        from_file("nowhere.csv")
    with pytest.raises(InvalidInput, match="is empty"):
        from_symbols([])
    with pytest.raises(InvalidInput, match="is empty"):
        normalise_symbol("  ")
    with pytest.raises(InvalidInput, match="ascending"):
        from_symbols(["A"]).membership([date(2024, 1, 3), date(2024, 1, 2)])


@pytest.mark.real_data
def test_the_real_index_has_about_five_hundred_members_on_every_day(real_data: Path) -> None:
    folder = real_data / "universes"
    universe = from_file(folder / "sp500_membership_1996_2024.csv")
    assert universe.point_in_time
    first_days = [date(year, 1, 2) for year in range(2000, 2025)]
    counts = universe.membership(first_days).group_by("date").len()["len"]
    assert 480 <= counts.min() <= counts.max() <= 510  # type: ignore[operator]
    assert "BRK-B" in universe.members(date(2024, 3, 8))
    assert from_file(folder / "russell3000_2025-05-21.csv").sectors()
