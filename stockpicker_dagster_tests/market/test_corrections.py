"""Decisions: what is in force follows from the records alone, and every record survives as it was written."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.corrections import Decisions, Record, parsed_figures

MONDAY, TUESDAY, WEDNESDAY = WEEK = [date(2024, 1, 8), date(2024, 1, 9), date(2024, 1, 10)]
NOON = datetime(2024, 2, 1, 12, tzinfo=UTC)


def record(number: int, day: date = TUESDAY, symbol: str | None = "A", **changes: Any) -> Record:
    settled = {"kind": "correct", "why": "wrong", "who": "os:me", "when": NOON, "after": {"close": 10.0 + number}}
    return Record(number, day=day, symbol=symbol, **{**settled, **changes})


def test_the_last_record_about_a_row_holds_until_it_is_taken_back() -> None:
    first, second = record(1), record(2)
    back = record(3, kind="take_back", takes_back=2, after={})
    assert Decisions((first, second)).in_force == [second]
    assert Decisions((first, second, back)).in_force == [first]
    assert Decisions((first, record(2, kind="take_back", takes_back=1, after={}))).rows == ()


def test_a_session_that_was_let_through_is_no_row() -> None:
    decisions = Decisions((record(1, symbol=None, kind="accept_day", after={}),))
    assert decisions.accepted_days == {TUESDAY}
    assert decisions.rows == ()
    assert decisions.digests(WEEK) == dict.fromkeys(WEEK)


def test_a_day_depends_on_decisions_about_it_and_about_earlier_days_alone() -> None:
    before, after = Decisions(), Decisions((record(1),))
    changed = [day for day in WEEK if before.digests(WEEK)[day] != after.digests(WEEK)[day]]
    assert changed == [TUESDAY, WEDNESDAY]
    # Who decided, when, why and in which order changes nothing that is stored.
    other = (record(1, WEDNESDAY, "B"), record(2, after={"close": 11.0}, who="os:you", why="again"))
    same = (record(1), record(2, WEDNESDAY, "B", after={"close": 11.0}))
    assert Decisions(other).digests(WEEK) == Decisions(same).digests(WEEK)


def test_what_was_taken_back_leaves_days_as_if_it_had_never_been_decided() -> None:
    back = record(2, kind="take_back", takes_back=1, after={})
    assert Decisions((record(1), back)).digests(WEEK) == Decisions().digests(WEEK)
    assert Decisions((record(1), back)).first_decided() == {"A": TUESDAY}


def test_only_what_is_in_force_can_be_taken_back() -> None:
    decisions = Decisions((record(1), record(2)))
    assert decisions.record(2).number == 2
    with pytest.raises(InvalidInput, match="decision 1 is not in force; in force: 2"):
        decisions.record(1)


def test_a_record_says_who_decided_what_when_and_why() -> None:
    said = record(1, before={"close": 1000.0, "reason": "hundredfold_jump"}, after={"close": 10.0}).sentence()
    assert said == (
        "correct A 2024-01-09 [rejected as hundredfold_jump, close 1000.0 -> 10.0] by os:me, "
        "2024-02-01 12:00 UTC: wrong"
    )


def test_figures_are_read_and_anything_else_is_refused_by_name() -> None:
    assert parsed_figures(["close=12.3", "volume=5000"]) == {"close": 12.3, "volume": 5000.0}
    for words in ([], ["close"], ["close=x"], ["closing=1"], ["close=nan"], ["close=inf"]):
        with pytest.raises(InvalidInput, match=r"close=12\.3"):
            parsed_figures(words)
