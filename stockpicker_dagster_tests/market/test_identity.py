"""Ids of securities: what a ticker means on a day, by the history of real ones, and re-uses that show in rows alone."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import (
    REUSED_AFTER,
    Identities,
    SymbolChange,
    read_symbol_changes,
    resumptions,
    with_identities,
)
from stockpicker_dagster.market.universes import SPELLS_SCHEMA, Universe, from_spells, from_symbols, normalise_symbol

NYSE = trading_calendar()
BALL_ETF = SymbolChange("META", "METV", date(2022, 1, 31))
FACEBOOK = SymbolChange("FB", "META", date(2022, 6, 9))
"""An exchange-traded fund gave up META, and months later Facebook took it."""
RENAMED = Identities().also([BALL_ETF, FACEBOOK])
BEFORE, AFTER = date(2022, 6, 8), date(2022, 6, 9)


def test_a_security_keeps_its_first_ticker_as_its_id() -> None:
    assert [RENAMED.security_of("FB", BEFORE), RENAMED.security_of("META", AFTER)] == ["FB", "FB"]
    assert [RENAMED.ticker_of("FB", day) for day in (BEFORE, AFTER)] == ["FB", "META"]
    assert RENAMED.security_of("META", date(2022, 1, 28)) == RENAMED.security_of("METV", date(2022, 1, 31)) == "META"
    assert RENAMED.ticker_of("META", date(2024, 1, 2)) == "METV"
    assert RENAMED.security_of("AAPL", AFTER) == RENAMED.ticker_of("AAPL", AFTER) == "AAPL"


def test_a_ticker_that_was_given_up_is_nobodys_until_another_company_takes_it() -> None:
    assert RENAMED.security_of("FB", AFTER) == "FB~2"
    assert RENAMED.known_securities_of(["FB"]) == ["FB"]
    taken = RENAMED.also([SymbolChange("", "FB", date(2025, 6, 26))])
    assert taken.security_of("FB", date(2025, 6, 26)) == "FB~2"
    assert taken.known_securities_of(["FB"]) == ["FB", "FB~2"]
    assert taken.listed_security("FB", date(2024, 1, 2)) == "FB"


def test_companies_may_swap_tickers_on_one_day() -> None:
    day = date(2020, 3, 2)
    swapped = Identities().also([SymbolChange("A", "B", day), SymbolChange("B", "A", day)])
    assert [swapped.security_of(ticker, day) for ticker in "AB"] == ["B", "A"]
    assert [swapped.ticker_of(security, day) for security in "AB"] == ["B", "A"]


def test_a_ticker_taken_back_is_the_same_security() -> None:
    there = SymbolChange("OLD", "NEW", date(2020, 3, 2))
    back = SymbolChange("NEW", "OLD", date(2021, 3, 1))
    known = Identities().also([there, back])
    assert known.security_of("OLD", date(2021, 3, 1)) == known.security_of("NEW", date(2020, 3, 2)) == "OLD"


def test_each_later_company_has_a_number_of_its_own() -> None:
    days = [date(2010, 3, 1), date(2015, 3, 2), date(2020, 3, 2)]
    known = Identities().also(SymbolChange("", "ABC", day) for day in days)
    assert [known.security_of("ABC", day) for day in days] == ["ABC~2", "ABC~3", "ABC~4"]
    assert known.security_of("ABC", date(2010, 2, 26)) == "ABC"


def test_whoever_took_up_a_vacated_ticker_may_leave_it_on_the_day_on_which_another_comes() -> None:
    days = [date(2020, 3, 2), date(2020, 3, 3)]
    known = Identities().also(
        [SymbolChange("B", "A", days[0]), SymbolChange("B", "C", days[1]), SymbolChange("", "B", days[1])]
    )
    assert [known.security_of(ticker, days[1]) for ticker in "ABC"] == ["B", "B~3", "B~2"]


_TICKERS = st.sampled_from("ABCDE")
_CHANGES = st.lists(
    st.builds(SymbolChange, st.one_of(st.just(""), _TICKERS), _TICKERS, st.dates(date(2010, 1, 1), date(2010, 3, 1))),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(changes=_CHANGES, day=st.dates(date(2009, 12, 1), date(2010, 4, 1)))
def test_on_every_day_a_ticker_has_one_security_and_a_security_at_most_one_ticker(
    changes: list[SymbolChange], day: date
) -> None:
    try:
        known = Identities().also(changes)
    except InvalidInput:
        return
    held = {ticker: known.security_of(ticker, day) for ticker in "ABCDE"}
    assert len(set(held.values())) == len(held)
    assert {ticker: known.ticker_of(security, day) for ticker, security in held.items()} == {
        each: each for each in held
    }


@settings(max_examples=100, deadline=None)
@given(changes=_CHANGES, cut=st.dates(date(2010, 1, 1), date(2010, 3, 1)))
def test_what_changes_later_renames_nothing_before(changes: list[SymbolChange], cut: date) -> None:
    try:
        whole = Identities().also(changes)
    except InvalidInput:
        return
    known = Identities().also(change for change in changes if change.day <= cut)
    days = [cut - timedelta(back) for back in (0, 5, 30)]
    assert [known.security_of(ticker, day) for ticker in "ABCDE" for day in days] == [
        whole.security_of(ticker, day) for ticker in "ABCDE" for day in days
    ]


def test_rows_are_named_one_by_one_and_stay_in_their_order() -> None:
    days = [date(2022, 6, 10), date(2022, 1, 3), date(2022, 6, 8), date(2022, 6, 9)]
    rows = pl.DataFrame(
        {"symbol": ["META", "META", "FB", "AAPL", "META", "FB"], "date": [*days, *days[:2]], "close": range(6)}
    )
    named = RENAMED.identified(rows)
    expected = [RENAMED.security_of(symbol, day) for symbol, day, _ in rows.iter_rows()]
    assert named["symbol"].to_list() == expected == ["FB", "META", "FB", "AAPL", "FB", "FB"]
    assert named.drop("symbol").equals(rows.drop("symbol"))
    assert Identities().identified(rows) is rows


def test_a_vendor_that_shows_all_history_under_todays_ticker_is_read_so() -> None:
    days = [date(2015, 1, 2), date(2022, 6, 10)]
    rows = pl.DataFrame({"symbol": ["META", "META", "METV", "FB"], "date": [*days, *days]})
    assert RENAMED.identified_as_listed(rows)["symbol"].to_list() == ["FB", "FB", "META", "FB"]


def test_names_are_asked_for_under_what_they_were_called() -> None:
    assert RENAMED.tickers_between("FB", date(2022, 6, 1), date(2022, 6, 30)) == ["FB", "META"]
    assert RENAMED.tickers_between("FB", date(2022, 6, 1), BEFORE) == ["FB"]
    assert RENAMED.tickers_between("FB", AFTER, AFTER) == ["META"]
    assert RENAMED.latest_tickers(["FB", "META"], BEFORE) == ["FB", "METV"]
    assert RENAMED.latest_tickers(["FB", "META"], AFTER) == ["META", "METV"]
    assert RENAMED.latest_tickers(["AAPL"], AFTER) == ["AAPL"]


@pytest.mark.parametrize("spelled", ["BRK.B", "BRK-B", "BRK/B", "BRK B", " BRK.B "])
def test_every_spelling_of_a_share_class_is_one_security(spelled: str, tmp_path: Path) -> None:
    assert normalise_symbol(spelled) == "BRK-B"
    path = tmp_path / "changes.csv"
    path.write_text(f"old,new,date\n{spelled},NEW,2024-01-02\n")
    assert read_symbol_changes(path) == (SymbolChange("BRK-B", "NEW", date(2024, 1, 2)),)


# Re-uses that show in rows


def traded(ticker: str, days: Sequence[date], volume: float = 100.0) -> pl.DataFrame:
    return pl.DataFrame({"symbol": ticker, "date": days, "close": 10.0, "volume": volume})


LAST = date(2015, 6, 30)


def resumed_after(missed: int) -> tuple[pl.DataFrame, date]:
    """A ticker that does not trade for `missed` sessions, and the day on which it trades again."""
    back = NYSE.offset(LAST, missed + 1)
    return traded("ABC", [NYSE.offset(LAST, -1), LAST, back, NYSE.next_session(back)]), back


def test_a_ticker_that_trades_again_after_half_a_year_is_another_company() -> None:
    rows, back = resumed_after(REUSED_AFTER + 1)
    assert resumptions(rows, Identities(), NYSE) == [SymbolChange("", "ABC", back)]
    rows, _ = resumed_after(REUSED_AFTER)
    assert resumptions(rows, Identities(), NYSE) == []


def test_rows_without_a_trade_do_not_keep_a_ticker_alive() -> None:
    rows, back = resumed_after(REUSED_AFTER + 1)
    filler = traded("ABC", NYSE.sessions(LAST + timedelta(1), back - timedelta(1)), volume=0.0)
    assert resumptions(pl.concat([rows, filler]), Identities(), NYSE) == [SymbolChange("", "ABC", back)]


def test_a_person_may_say_that_it_is_the_same_company() -> None:
    rows, back = resumed_after(REUSED_AFTER + 1)
    for day, found in ((back, []), (NYSE.offset(LAST, 5), []), (LAST, [SymbolChange("", "ABC", back)])):
        assert resumptions(rows, Identities().also([SymbolChange("ABC", "ABC", day)]), NYSE) == found


def test_trades_under_a_ticker_that_was_given_up_are_a_re_use() -> None:
    days = [date(2022, 6, 7), BEFORE, AFTER, date(2022, 6, 14)]
    rows = RENAMED.identified(pl.concat([traded("FB", [*days[:2], days[3]]), traded("META", days[2:])]))
    assert resumptions(rows, RENAMED, NYSE) == [SymbolChange("", "FB", date(2022, 6, 14))]


# Universes


def spells(*rows: tuple[str, date | None, date | None]) -> Universe:
    frame = pl.DataFrame([(*row, None, None) for row in rows], schema=SPELLS_SCHEMA, orient="row")
    return from_spells("mine", frame, point_in_time=True, caveat=None)


def test_members_listed_under_either_ticker_are_one_member() -> None:
    as_of_their_days = spells(("FB", date(2013, 12, 23), AFTER), ("META", AFTER, None))
    under_the_last = spells(("META", date(2013, 12, 23), None))
    for universe in (as_of_their_days, under_the_last):
        named = with_identities(universe, RENAMED)
        assert named.spells.select("symbol", "start", "end").rows() == [("FB", date(2013, 12, 23), None)]
        assert (named.point_in_time, named.caveat, named.name) == (True, None, "mine")


def test_a_list_that_came_late_to_a_change_still_means_the_same_company() -> None:
    stale = spells(("FB", date(2013, 12, 23), date(2022, 6, 13)), ("META", date(2022, 6, 13), None))
    assert with_identities(stale, RENAMED).members(date(2022, 6, 10)) == ["FB"]
    assert with_identities(from_symbols(["FB", "AAPL"]), RENAMED).members(date(2024, 1, 2)) == ["AAPL", "FB"]


def test_members_under_a_re_used_ticker_are_told_apart_by_day() -> None:
    reused = Identities().also([SymbolChange("", "ABC", date(2015, 3, 2))])
    named = with_identities(spells(("ABC", date(2005, 3, 1), None)), reused)
    assert named.members(date(2015, 2, 27)) == ["ABC"]
    assert named.members(date(2015, 3, 2)) == ["ABC~2"]


def test_a_universe_is_itself_where_nothing_is_known() -> None:
    universe = from_symbols(["A", "B"])
    assert with_identities(universe, Identities()) is universe


# The user's file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("old,new\nFB,META\n", r"lacks date; symbol changes have the columns old, new, date"),
        ("old,new,date\nFB,META,9.6.2022\n", r"line 2: FB,META,9.6.2022 is no symbol change; write"),
        ("old,new,date\nA,B,2020-01-02\nFB,,2022-06-09\n", r"line 3: FB,nothing,2022-06-09 is no symbol change"),
        ("old,new,date\nA~2,B,2020-01-02\n", r"line 2: .*A~2.* name tickers, not ids"),
        ("old,new,date\nA,B,2020-01-02\nA,C,2020-01-02\n", r"2020-01-02 say what becomes of A; keep one"),
        ("old,new,date\nA,C,2020-01-02\nB,C,2020-01-02\n", r"2020-01-02 say who takes up C; keep one"),
        ("", r"cannot be read as CSV"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "changes.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=says):
        read_symbol_changes(path)


def test_the_users_file_states_changes_re_uses_and_continuations(tmp_path: Path) -> None:
    path = tmp_path / "changes.csv"
    path.write_text("Date,Old,New\n2022-06-09, FB ,META\n2020-01-02,,TRUE\n2021-01-04,NA,NA\n")
    assert set(read_symbol_changes(path)) == {
        FACEBOOK,
        SymbolChange("", "TRUE", date(2020, 1, 2)),
        SymbolChange("NA", "NA", date(2021, 1, 4)),
    }
