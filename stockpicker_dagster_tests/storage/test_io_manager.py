"""The I/O manager: any range of days is one lazy frame, model periods are folders, nothing is configurable."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster.components.partitions import trading_days
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.storage.io_manager import UNPARTITIONED, LakeIOManager
from stockpicker_dagster.storage.lake import DECISIONS, Bundle, DayPieces, DayTable, Lake, MissingBundle, MissingDays

DAYS = trading_days(date(2023, 12, 1))
PERIODS = dg.TimeWindowPartitionsDefinition(start="2024-01-01", fmt="%Y-%m-%d", cron_schedule="0 0 1 * *")
WEEK = [date(2024, 1, day) for day in (2, 3, 4, 5)]
FRAME = pl.DataFrame({"symbol": ["A"] * 4, "date": WEEK, "x": [1.0, 2.0, 3.0, 4.0]})


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))


def _about(first: str | None, last: str | None, partitions: dg.PartitionsDefinition) -> dict[str, Any]:
    about: dict[str, Any] = {"asset_key": dg.AssetKey(["s", "t"])}
    if first is not None and last is not None:
        about |= {
            "asset_partitions_def": partitions,
            "asset_partition_key_range": dg.PartitionKeyRange(first, last),
        }
    return about


def store(value: Any, first: str | None, last: str | None, partitions: dg.PartitionsDefinition = DAYS) -> None:
    LakeIOManager().handle_output(dg.build_output_context(**_about(first, last, partitions)), value)


def load(first: str | None, last: str | None, partitions: dg.PartitionsDefinition = DAYS) -> Any:
    return LakeIOManager().load_input(dg.build_input_context(**_about(first, last, partitions)))


def test_it_has_no_field_that_a_run_could_redirect() -> None:
    assert LakeIOManager.model_fields == {}


def test_a_range_is_stored_by_day_and_loaded_as_one_lazy_frame() -> None:
    store(FRAME, "2024-01-02", "2024-01-05")
    assert Lake(home().lake).days("s/t") == WEEK
    loaded = load("2024-01-03", "2024-01-04")
    assert isinstance(loaded, pl.LazyFrame)
    assert loaded.collect().equals(FRAME[1:3])


def test_a_year_is_whole_with_its_last_session() -> None:
    """December 2023 has twenty sessions from the first, and no partition for Christmas."""
    december = [date.fromisoformat(key) for key in DAYS.get_partition_keys_in_range(DECEMBER)]
    assert len(december) == 20
    frame = pl.DataFrame({"symbol": ["A"] * 20, "date": december})
    store(frame[:-1], str(december[0]), str(december[-2]))
    folder = home().lake / "s" / "t" / "year=2023"
    assert len(list(folder.glob("2023-*.parquet"))) == 19
    store(frame[-1:], str(december[-1]), str(december[-1]))
    assert [path.name for path in folder.glob("*.parquet")] == ["year.parquet"]
    assert load(str(december[0]), str(december[-1])).collect().equals(frame)


DECEMBER = dg.PartitionKeyRange("2023-12-01", "2023-12-29")


def test_days_without_rows_are_stored_as_empty() -> None:
    store(FRAME.clear(), "2024-01-02", "2024-01-05")
    assert load("2024-01-02", "2024-01-05").collect().is_empty()


def test_what_lies_beside_a_table_is_stored_for_the_same_days() -> None:
    store(DayTable(FRAME, {"asked": "A"}, {"s/beside": FRAME.head(1)}), "2024-01-02", "2024-01-05")
    lake = Lake(home().lake)
    assert lake.read("s/beside", WEEK).equals(FRAME.head(1))
    assert lake.notes("s/t") == {day: {"asked": "A"} for day in WEEK}


def test_pieces_are_stored_one_after_the_other_and_leave_the_files_of_the_whole() -> None:
    seen = []

    def pieces() -> Iterator[tuple[list[date], pl.DataFrame]]:
        for days in (WEEK[:1], WEEK[1:]):
            seen.append(Lake(home().lake).days("s/t"))
            yield days, FRAME.filter(pl.col("date").is_in(days))

    store(DayPieces(pieces(), {"made": "so"}), "2024-01-02", "2024-01-05")
    assert seen == [[], WEEK[:1]]
    folder = home().lake / "s" / "t" / "year=2024"
    in_pieces = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    store(DayTable(FRAME, {"made": "so"}), "2024-01-02", "2024-01-05")
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == in_pieces


def test_what_is_made_from_a_table_takes_over_the_decisions_that_its_days_were_made_under() -> None:
    lake = Lake(home().lake)
    decided = {WEEK[2]: {DECISIONS: "one"}, WEEK[3]: {DECISIONS: "two"}}
    lake.write_days("s/prices", FRAME, WEEK, lambda _: WEEK, {"asked": "A"}, decided)
    pieces = DayPieces([(WEEK[:3], FRAME[:3]), (WEEK[3:], FRAME[3:])], made_from="s/prices")
    for value in (DayTable(FRAME, made_from="s/prices"), pieces):
        store(value, "2024-01-02", "2024-01-05")
        assert lake.notes("s/t") == {WEEK[0]: {}, WEEK[1]: {}, **decided}


def test_pieces_that_leave_a_day_out_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="s/t was made without 2024-01-05"):
        store(DayPieces([(WEEK[:3], FRAME[:3])]), "2024-01-02", "2024-01-05")


def test_a_day_that_was_never_stored_raises_naming_it() -> None:
    store(FRAME[:1], "2024-01-02", "2024-01-02")
    with pytest.raises(MissingDays, match="s/t was never materialized for 2024-01-03"):
        load("2024-01-02", "2024-01-03")


def test_bundles_are_loaded_by_the_keys_of_their_periods() -> None:
    store({"2024-01-01": Bundle({"a": b"1"}), "2024-02-01": Bundle({"a": b"2"})}, "2024-01-01", "2024-02-01", PERIODS)
    loaded = load("2024-01-01", "2024-02-01", PERIODS)
    assert {key: (folder / "a").read_bytes() for key, folder in loaded.items()} == {
        "2024-01-01": b"1",
        "2024-02-01": b"2",
    }
    with pytest.raises(MissingBundle, match="2024-03-01"):
        load("2024-03-01", "2024-03-01", PERIODS)


def test_an_asset_without_partitions_has_one_bundle() -> None:
    with pytest.raises(MissingBundle, match=UNPARTITIONED):
        load(None, None)
    store({UNPARTITIONED: Bundle({"a": b"1"})}, None, None)
    assert (load(None, None)[UNPARTITIONED] / "a").read_bytes() == b"1"


def test_anything_else_is_refused_naming_the_asset_and_what_it_returned() -> None:
    with pytest.raises(InvalidInput, match="s/t returned a int; the lake keeps frames and bundles"):
        store(3, "2024-01-02", "2024-01-02")
    with pytest.raises(InvalidInput, match="a table of days needs an asset with daily partitions"):
        store(FRAME, "2024-01-01", "2024-01-01", PERIODS)
