"""Statements about tickers in a lake: they count from when they are met, and give no stored row another id."""

from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import Identities, SymbolChange
from stockpicker_dagster.market.identity_records import identities_in_force, learn, learn_from
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.storage.lake import Lake

NYSE = trading_calendar()
DAYS = NYSE.sessions(date(2022, 6, 1), date(2022, 6, 30))
CHANGE = SymbolChange("FB", "META", date(2022, 6, 9))
REUSE = SymbolChange("", "ABC", date(2022, 6, 9))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def store(lake: Lake, symbol: str, days: Sequence[date]) -> None:
    rows = pl.DataFrame({"symbol": [symbol] * len(days), "date": days, "close": [1.0] * len(days)})
    lake.write_days("mine/prices", rows, days, lambda year: NYSE.sessions(date(year, 1, 1), date(year, 12, 31)))


def test_what_was_learned_stays_in_force(lake: Lake) -> None:
    assert identities_in_force(lake, "mine") == Identities()
    learned = learn(lake, "mine", [CHANGE, REUSE])
    assert learned.left_out == {}
    assert set(learned.identities.changes) == {CHANGE, REUSE}
    assert identities_in_force(lake, "mine") == learned.identities
    # A line taken out of the file again does not take back what rows were stored under.
    assert learn(lake, "mine", []).identities == learned.identities
    assert identities_in_force(lake, "other") == Identities()


def test_a_change_known_by_its_day_is_in_force_whatever_was_stored_before(lake: Lake) -> None:
    store(lake, "FB", [day for day in DAYS if day < CHANGE.day])
    assert learn(lake, "mine", [CHANGE]).identities.security_of("META", CHANGE.day) == "FB"


@pytest.mark.parametrize("symbol", ["META", "FB"])
def test_a_change_learned_after_the_fact_gives_no_stored_row_another_id(lake: Lake, symbol: str) -> None:
    store(lake, symbol, DAYS)
    learned = learn(lake, "mine", [CHANGE, REUSE])
    assert list(learned.left_out) == [CHANGE]
    assert "another id already" in learned.left_out[CHANGE]
    assert learned.identities.security_of("META", DAYS[-1]) == "META"
    assert identities_in_force(lake, "mine").changes == (REUSE,)
    assert list(learn(lake, "mine", [CHANGE]).left_out) == [CHANGE]


def test_rows_of_others_do_not_stand_in_the_way(lake: Lake) -> None:
    store(lake, "AAPL", DAYS)
    assert learn(lake, "mine", [CHANGE]).left_out == {}


def test_a_re_use_learned_late_leaves_the_stored_rows_one_security(lake: Lake) -> None:
    store(lake, "ABC", DAYS)
    assert list(learn(lake, "mine", [REUSE]).left_out) == [REUSE]


def test_what_contradicts_the_record_is_left_out_with_the_reason(lake: Lake) -> None:
    learn(lake, "mine", [CHANGE])
    other = SymbolChange("FB", "FACE", CHANGE.day)
    learned = learn(lake, "mine", [other])
    assert "what becomes of FB" in learned.left_out[other]
    assert learned.identities.changes == (CHANGE,)


def test_a_change_that_a_vendor_tells_twice_is_one(lake: Lake) -> None:
    learn(lake, "mine", [CHANGE])
    again = SymbolChange("FB", "META", date(2022, 6, 13))
    learned = learn(lake, "mine", [again])
    assert (learned.identities.changes, learned.left_out) == ((CHANGE,), {})


def test_tickers_swapped_on_one_day_are_learned_together(lake: Lake) -> None:
    day = date(2022, 6, 9)
    store(lake, "A", [each for each in DAYS if each < day])
    swap = [SymbolChange("A", "B", day), SymbolChange("B", "A", day)]
    assert learn(lake, "mine", swap).identities.security_of("B", day) == "A"


class Told(FilesSource):
    """A source that is told of changes, as a vendor is."""

    asked: tuple[object, ...] = ()

    def symbol_changes(self, symbols: Collection[str], first: date, last: date) -> list[SymbolChange]:
        self.asked = (symbols, first, last)
        return [CHANGE, SymbolChange("OLDER", "OLD", DAYS[0])]


def test_what_the_source_is_told_counts_beside_what_the_user_states(lake: Lake, tmp_path: Path) -> None:
    source = Told("mine", tmp_path / "none.csv", "as_traded", DAYS[0])
    learned = learn_from(lake, source, ["META"], [REUSE], DAYS[-1])
    assert set(learned.identities.changes) == {CHANGE, REUSE}
    # From the source's start, so that a day fetched late knows what one fetched early did.
    assert source.asked == (["META"], DAYS[0], DAYS[-1])
