"""Dated lists in the lake: past days never change, and what is known only today says so."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes import snapshots
from stockpicker_dagster.market.universes.listed import MemberList, packaged_list
from stockpicker_dagster.market.universes.member_tables import MEMBERS_SCHEMA
from stockpicker_dagster.storage.lake import Lake

FRIDAY = datetime(2024, 1, 5, 12, tzinfo=UTC)
MONDAY = FRIDAY + timedelta(days=3)
LONG_AGO, LATER = date(2005, 1, 3), date(2030, 1, 2)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def a_list(*members: tuple[str, str], origin: str = "a list") -> MemberList:
    rows = [(symbol, None, sector, None) for symbol, sector in members]
    return MemberList(pl.DataFrame(rows, schema=MEMBERS_SCHEMA, orient="row"), origin)


def test_a_list_is_in_force_from_the_day_after_it_was_stored(lake: Lake) -> None:
    snapshots.store_snapshot(lake, "sp100", a_list(("A", "X"), ("B", "X")), FRIDAY)
    snapshots.store_snapshot(lake, "sp100", a_list(("A", "Y"), ("C", "X")), MONDAY)
    universe = snapshots.listed_universe(lake, "sp100")
    assert universe.members(MONDAY.date()) == ["A", "B"]
    assert universe.members(MONDAY.date() + timedelta(days=1)) == ["A", "C"]
    assert universe.symbols_ever(LONG_AGO, LATER) == ["A", "B", "C"]
    assert universe.restricted_to_sector("Y").members(MONDAY.date()) == []
    assert universe.restricted_to_sector("Y").members(LATER) == ["A"]


def test_the_first_list_stands_for_every_day_before_it_and_that_is_not_point_in_time(lake: Lake) -> None:
    snapshots.store_snapshot(lake, "sp100", a_list(("A", "X"), ("B", "X"), origin="the publisher"), FRIDAY)
    universe = snapshots.listed_universe(lake, "sp100")
    assert universe.members(LONG_AGO) == ["A", "B"]
    assert not universe.point_in_time
    assert universe.point_in_time_since == date(2024, 1, 6)
    assert "the list of 2024-01-05 (the publisher) stands for every day before it, which is not point in time" in str(
        universe.caveat
    )
    assert "never compared with the public list" in str(universe.caveat)


def test_a_list_that_arrives_later_changes_no_day_up_to_its_own(lake: Lake) -> None:
    """Whatever arrives, and whenever: what a backfill finds is what the day found."""
    days = [LONG_AGO, *(FRIDAY.date() + timedelta(days=n) for n in range(-5, 30))]
    found: dict[date, list[str]] = {}
    for week, members in enumerate(["AB", "BC", "BC", "CD", "AD"]):
        now = FRIDAY + timedelta(days=7 * week)
        snapshots.store_snapshot(lake, "sp100", a_list(*((symbol, "X") for symbol in members)), now)
        universe = snapshots.listed_universe(lake, "sp100")
        seen = {day: universe.members(day) for day in days if day <= now.date()}
        assert {day: members for day, members in seen.items() if day in found} == found
        found = seen


def test_a_second_list_on_the_first_ones_day_does_not_take_its_place(lake: Lake) -> None:
    snapshots.store_snapshot(lake, "sp100", a_list(("A", "X")), FRIDAY)
    before = snapshots.listed_universe(lake, "sp100").members(LONG_AGO)
    stored = snapshots.store_snapshot(lake, "sp100", a_list(("B", "X")), FRIDAY + timedelta(hours=1))
    universe = snapshots.listed_universe(lake, "sp100")
    assert universe.members(LONG_AGO) == before == ["A"]
    assert universe.members(stored.in_force_from) == ["B"]


def test_a_clock_that_goes_back_puts_no_list_before_another(lake: Lake) -> None:
    for members, now in (("A", FRIDAY), ("B", MONDAY), ("C", MONDAY - timedelta(days=2))):
        snapshots.store_snapshot(lake, "sp100", a_list((members, "X")), now)
    universe = snapshots.listed_universe(lake, "sp100")
    assert [universe.members(day) for day in (MONDAY.date(), LATER)] == [["A"], ["C"]]


def test_without_a_stored_list_the_packaged_one_is_used_and_labelled(lake: Lake) -> None:
    universe = snapshots.listed_universe(lake, "sp500")
    assert universe.history == "not point in time"
    assert f"S&P 500: today's list ({packaged_list('sp500').origin})" in str(universe.caveat)
    assert "members have no sector" in str(universe.caveat)
    with pytest.raises(InvalidInput, match="no list of the Russell 3000"):
        snapshots.listed_universe(lake, "russell3000")


def test_the_list_of_the_first_run_is_kept_whatever_the_package_says_later(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.keep_first_list(lake, "sp100", FRIDAY)
    before = snapshots.listed_universe(lake, "sp100")
    monkeypatch.setattr(snapshots, "packaged_list", lambda name: a_list(("NEW", "X")))
    snapshots.keep_first_list(lake, "sp100", MONDAY)
    assert snapshots.listed_universe(lake, "sp100").spells.equals(before.spells)
    assert "NEW" not in before.members(LATER)


def test_changes_name_who_joined_who_left_and_whose_sector_changed() -> None:
    old, new = a_list(("A", "X"), ("B", "X"), ("C", "Y")), a_list(("A", "X"), ("C", "X"), ("D", "Y"))
    changes = snapshots.changes_between(old.members, new.members)
    assert (changes.joined, changes.left, changes.sector_changed) == (("D",), ("B",), (("C", "Y", "X"),))
    assert changes.lines() == ["D joined", "B left", "C sector Y → X"]
    assert snapshots.changes_between(old.members, old.members).lines() == []
