"""Records of decisions: appended, never rewritten, and known to every day that is stored afterwards."""

import threading
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.corrections import Decisions
from stockpicker_dagster.market.decision_records import (
    DecisionsOutstanding,
    append_record,
    days_before_a_decision,
    decision_notes,
    definition_under,
    load_decisions,
    refuse_days_before_a_decision,
)
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster_tests.market.test_corrections import MONDAY, TUESDAY, WEDNESDAY, WEEK, record


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def store(lake: Lake, decisions: Decisions) -> None:
    frame = pl.DataFrame({"symbol": ["A"] * 3, "date": WEEK})
    lake.write_days("s/prices", frame, WEEK, lambda _: WEEK, day_notes=decision_notes(decisions, WEEK))


def test_a_record_comes_back_as_it_was_written_under_the_next_number(lake: Lake) -> None:
    assert load_decisions(lake, "s").records == ()
    first = append_record(lake, "s", record(0, before={"close": 1.0, "reason": "hundredfold_jump"}))
    second = append_record(lake, "s", record(0, symbol=None, kind="accept_day"))
    assert [first.number, second.number] == [1, 2]
    assert load_decisions(lake, "s").records == (first, second)
    assert load_decisions(lake, "t").records == ()


def test_two_writers_never_share_a_number(lake: Lake) -> None:
    writers = [threading.Thread(target=append_record, args=(lake, "s", record(0))) for _ in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [each.number for each in load_decisions(lake, "s").records] == list(range(1, 13))


def test_a_record_that_cannot_be_read_stops_everything(lake: Lake) -> None:
    append_record(lake, "s", record(0))
    (lake.root / "s" / "decisions" / "000001.json").write_text("{")
    with pytest.raises(StockPickerError, match=r"000001\.json cannot be read"):
        load_decisions(lake, "s")


def test_days_stored_before_a_decision_are_named_until_they_are_stored_again(lake: Lake) -> None:
    store(lake, Decisions())
    decisions = Decisions((record(1),))
    assert days_before_a_decision(lake, "s/prices", Decisions()) == []
    assert days_before_a_decision(lake, "s/prices", decisions) == [TUESDAY, WEDNESDAY]
    store(lake, decisions)
    assert days_before_a_decision(lake, "s/prices", decisions) == []
    assert lake.decisions("s/prices", WEEK).keys() == {TUESDAY, WEDNESDAY}
    back = Decisions((*decisions.records, record(2, kind="take_back", takes_back=1)))
    assert days_before_a_decision(lake, "s/prices", back) == [TUESDAY, WEDNESDAY]


def test_nothing_is_built_on_days_that_a_decision_changed() -> None:
    refuse_days_before_a_decision("s", [TUESDAY], WEEK)
    with pytest.raises(DecisionsOutstanding, match=r"2 days \(2024-01-09, 2024-01-10\).*--from 2024-01-09"):
        refuse_days_before_a_decision("s", [TUESDAY, WEDNESDAY], [MONDAY])


def test_what_was_made_from_earlier_prices_alone_keeps_its_definition() -> None:
    decisions = Decisions((record(1),))
    assert definition_under("abc", decisions, MONDAY) == "abc"
    assert definition_under("abc", decisions, TUESDAY) != "abc"
