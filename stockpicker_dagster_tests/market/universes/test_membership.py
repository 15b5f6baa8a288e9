"""Membership: who was in on a day, and in which sector, from spells and from dated lists."""

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
    Universe,
    from_file,
    from_spells,
    from_symbols,
)
from stockpicker_dagster.market.universes.membership import spells_of_snapshots

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
    rows = [(s, start, start + timedelta(days=days) if days else None, None, None) for s, start, days in spells]
    frame = pl.DataFrame(rows, schema=SPELLS_SCHEMA, orient="row")
    universe = from_spells("any", frame, point_in_time=True, caveat=None)
    by_hand = [
        (symbol, day)
        for day in sessions
        for symbol in "ABC"
        if any(s == symbol and start <= day and (end is None or day < end) for s, start, end, *_ in rows)
    ]
    assert universe.membership(sessions).rows() == by_hand
    assert [(symbol, day) for day in sessions for symbol in universe.members(day)] == by_hand
    touching = universe.spells.with_columns(before=pl.col("end").shift(1).over("symbol"))
    assert touching.filter(pl.col("start") <= pl.col("before")).is_empty()


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


def dated_lists(rows: list[tuple[date, str, str | None]]) -> pl.DataFrame:
    schema = {"date": pl.Date, "symbol": pl.String, "sector": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(industries=pl.lit(None, dtype=pl.List(pl.String)))


LISTS = st.dictionaries(DAYS, st.dictionaries(st.sampled_from("ABCD"), st.sampled_from(["X", "Y", None]), min_size=1))


@settings(max_examples=50, deadline=None)
@given(lists=LISTS.filter(bool), sessions=st.sets(DAYS, max_size=10).map(sorted))
def test_membership_between_dated_lists_is_that_of_the_list_before(
    lists: dict[date, dict[str, str | None]], sessions: list[date]
) -> None:
    rows = [(day, symbol, sector) for day, members in lists.items() for symbol, sector in members.items()]
    universe = from_spells("any", spells_of_snapshots(dated_lists(rows)), point_in_time=True, caveat=None)
    in_force = {day: max((each for each in lists if each <= day), default=None) for day in sessions}
    by_hand = [
        (symbol, day, sector)
        for day in sessions
        for symbol, sector in sorted(lists[in_force[day]].items() if in_force[day] else [])  # type: ignore[index]
    ]
    assert universe.sectors_on(sessions).rows() == by_hand
    assert universe.membership(sessions).rows() == [row[:2] for row in by_hand]


def test_a_universe_says_in_words_since_when_it_is_point_in_time() -> None:
    spells = pl.DataFrame(schema=SPELLS_SCHEMA)
    assert Universe("u", True, spells, None).history == "point in time"
    assert Universe("u", False, spells, None).history == "not point in time"
    since = Universe("u", False, spells, None, date(2024, 1, 6))
    assert since.history == "point in time since 2024-01-06, not before"


def test_an_industry_restricts_by_any_of_its_names() -> None:
    rows = [
        ("A", None, None, "X", ["Banks", "Lenders"]),
        ("B", None, None, "X", ["Lenders"]),
        ("C", None, None, "X", None),
    ]
    universe = from_spells(
        "listed", pl.DataFrame(rows, schema=SPELLS_SCHEMA, orient="row"), point_in_time=True, caveat=None
    )
    assert universe.restricted_to_industry("lenders").members(date(2024, 1, 2)) == ["A", "B"]
    assert universe.restricted_to_industry("Banks").name == "listed: Banks"
    with pytest.raises(
        InvalidInput, match="industry 'Bank' is unknown in the universe 'listed'; known: Banks, Lenders"
    ):
        universe.restricted_to_industry("Bank")
    with pytest.raises(InvalidInput, match="known: none, because its list has no industry column"):
        from_symbols(["A", "B"]).restricted_to_industry("Banks")


def test_an_empty_list_and_unsorted_sessions_are_refused() -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        from_symbols([])
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


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=6),
    st.lists(st.integers(0, 30), min_size=2, max_size=12, unique=True),
)
def test_two_days_have_one_digest_exactly_if_they_have_the_same_members(
    spells: list[tuple[str, int, int]], days: list[int]
) -> None:
    began = date(2020, 1, 1)
    rows = [
        (name, began + timedelta(start), began + timedelta(start + length), None, None)
        for name, start, length in spells
    ]
    universe = from_spells("u", pl.DataFrame(rows, SPELLS_SCHEMA, orient="row"), point_in_time=True, caveat=None)
    sessions = [began + timedelta(day) for day in sorted(days)]
    digests = universe.digests(sessions)
    for one in sessions:
        for other in sessions:
            assert (digests[one] == digests[other]) == (universe.members(one) == universe.members(other))
