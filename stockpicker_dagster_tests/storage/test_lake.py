"""The lake: what is stored depends only on which days are, nothing missing is silent, and no failure loses a day."""

import multiprocessing
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage import lake as lake_file
from stockpicker_dagster.storage.lake import (
    DEFINITION,
    Bundle,
    Lake,
    MissingBundle,
    MissingDays,
    MixedDefinitions,
    describe_days,
)

# Years of six sessions are whole soon.
SESSIONS = {year: [date(year, month, 3) for month in range(1, 12, 2)] for year in (2020, 2021, 2022)}
ALL = [day for year in SESSIONS.values() for day in year]


def of_year(year: int) -> Sequence[date]:
    return SESSIONS[year]


def rows(days: Sequence[date], scale: float = 1.0) -> pl.DataFrame:
    """Two stocks a day; the third day of a year is empty."""
    full = [day for day in days if day.month != 5]
    return pl.DataFrame(
        {
            "symbol": ["A", "B"] * len(full),
            "date": [day for day in full for _ in range(2)],
            "x": [scale * (day.toordinal() + number) for day in full for number in range(2)],
        },
        schema={"symbol": pl.String, "date": pl.Date, "x": pl.Float64},
    )


def write(lake: Lake, days: Sequence[date], scale: float = 1.0, note: str = "n") -> None:
    lake.write_days("t", rows(days, scale), days, of_year, {"by": note})


def contents(lake: Lake) -> dict[str, bytes]:
    """Every file under the root but locks, by name."""
    files = [path for path in lake.root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(lake.root)): path.read_bytes() for path in files}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_range_at_once_and_its_days_one_by_one_store_the_same_bytes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    days = data.draw(st.lists(st.sampled_from(ALL), unique=True, min_size=1).map(sorted))
    pieces = data.draw(st.permutations(days))
    cut = data.draw(st.integers(0, len(pieces)))
    at_once, in_pieces = (Lake(tmp_path_factory.mktemp("lake")) for _ in range(2))
    write(at_once, days)
    write(in_pieces, sorted(pieces[:cut]))
    for day in pieces[cut:]:
        write(in_pieces, [day])
    assert contents(at_once) == contents(in_pieces)
    assert at_once.days("t") == days
    assert at_once.read("t", days).equals(rows(days))


def test_a_year_that_is_whole_is_one_file(lake: Lake) -> None:
    write(lake, SESSIONS[2020][:-1])
    assert len(contents(lake)) == 5
    write(lake, SESSIONS[2020][-1:])
    assert list(contents(lake)) == ["t/year=2020/year.parquet"]
    assert lake.days("t") == SESSIONS[2020]
    assert lake.read("t", SESSIONS[2020]).equals(rows(SESSIONS[2020]))
    assert lake.read("t", SESSIONS[2020][1:3]).equals(rows(SESSIONS[2020][1:3]))


def test_rewriting_a_day_of_a_whole_year_changes_that_day_alone(lake: Lake) -> None:
    write(lake, ALL)
    again = SESSIONS[2021][1]
    write(lake, [again], scale=-1.0, note="again")
    expected = pl.concat([rows([day], -1.0 if day == again else 1.0) for day in ALL])
    assert lake.read("t", ALL).equals(expected)
    assert [day for day, note in lake.notes("t").items() if note == {"by": "again"}] == [again]


def test_a_crash_after_the_years_file_was_written_changes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write(lake, SESSIONS[2020][:-1], scale=5.0)

    class Crash(Exception):
        pass

    def crash(path: Path, missing_ok: bool = False) -> None:
        if not path.name.startswith("."):
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", crash)
        with pytest.raises(Crash):
            write(lake, SESSIONS[2020])
    assert len(contents(lake)) == 6  # the year beside the older days that it replaces
    assert lake.read("t", SESSIONS[2020]).equals(rows(SESSIONS[2020]))
    write(lake, SESSIONS[2020][:1])
    assert list(contents(lake)) == ["t/year=2020/year.parquet"]


def test_a_table_that_begins_earlier_keeps_the_days_of_its_first_year(lake: Lake) -> None:
    later = SESSIONS[2020][2:]
    lake.write_days("t", rows(later), later, lambda _: later)
    assert list(contents(lake)) == ["t/year=2020/year.parquet"]
    write(lake, SESSIONS[2020][:1])
    assert lake.days("t") == [SESSIONS[2020][0], *later]
    assert lake.read("t", lake.days("t")).equals(rows(lake.days("t")))


def test_an_empty_day_is_stored_and_a_missing_one_raises_naming_table_and_days(lake: Lake) -> None:
    empty, absent = SESSIONS[2020][2], SESSIONS[2020][3]
    write(lake, [empty])
    assert lake.read("t", [empty]).is_empty()
    assert lake.missing("t", [absent, empty]) == [absent]
    with pytest.raises(MissingDays, match=f"t was never materialized for {absent}; materialize that day first"):
        lake.read("t", [empty, absent])
    with pytest.raises(MissingDays, match=r"12 days \(2021-01-03 to 2022-11-03\)") as raised:
        lake.scan("t", [empty, *SESSIONS[2021], *SESSIONS[2022]])
    assert raised.value.days == [*SESSIONS[2021], *SESSIONS[2022]]
    with pytest.raises(InvalidInput, match="no session was asked for when reading t"):
        lake.read("t", [])


def test_days_are_described_in_a_few_words() -> None:
    assert describe_days(ALL[:1]) == "2020-01-03"
    assert describe_days(ALL[:2]) == "2 days (2020-01-03, 2020-03-03)"


def test_rows_of_days_that_are_not_written_are_refused(lake: Lake) -> None:
    with pytest.raises(InvalidInput, match="t was given rows of 2020-03-03 while writing 2020-01-03"):
        lake.write_days("t", rows(ALL[:2]), ALL[:1], of_year)
    assert lake.days("t") == []


@pytest.mark.parametrize("change", ["rename", "retype", "add", "drop"])
@pytest.mark.parametrize("other", [SESSIONS[2020][1], SESSIONS[2021][1]])
def test_days_with_different_columns_are_refused_naming_the_table(lake: Lake, change: str, other: date) -> None:
    changed = {
        "rename": lambda frame: frame.rename({"x": "y"}),
        "retype": lambda frame: frame.with_columns(pl.col("x").cast(pl.Float32)),
        "add": lambda frame: frame.with_columns(y=1.0),
        "drop": lambda frame: frame.drop("x"),
    }[change](rows([other]))
    write(lake, ALL[:1])
    lake.write_days("t", changed, [other], of_year)
    with pytest.raises(StockPickerError, match="t holds days with different columns between 2020-01-03"):
        lake.read("t", [ALL[0], other])


def test_a_whole_year_takes_no_day_with_different_columns(lake: Lake) -> None:
    write(lake, SESSIONS[2020])
    before = contents(lake)
    day = SESSIONS[2020][:1]
    with pytest.raises(StockPickerError, match=r"different columns in 2020.*every session of 2020 in one run"):
        lake.write_days("t", rows(day).rename({"x": "y"}), day, of_year)
    assert contents(lake) == before
    lake.write_days("t", rows(SESSIONS[2020]).rename({"x": "y"}), SESSIONS[2020], of_year)
    assert lake.read("t", day).columns == ["symbol", "date", "y"]


def test_a_disk_that_refuses_is_one_clear_error_and_nothing_stored_is_lost(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, ALL[:4])
    before = contents(lake)

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        for refused in (
            lambda: write(lake, ALL[:2], scale=9.0),
            lambda: write(lake, SESSIONS[2020], scale=9.0),
            lambda: lake.write_file("t/note.json", b"1"),
            lambda: lake.write_bundle("models", "k", Bundle({"a": b"1"})),
        ):
            with pytest.raises(StockPickerError, match=r"cannot be written \(No space left on device\); nothing"):
                refused()
    assert {name: data for name, data in contents(lake).items() if not name.startswith("models/.")} == before
    assert lake.bundles("models") == []


def test_a_lake_in_the_place_of_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StockPickerError, match="cannot be written"):
        write(Lake(tmp_path / "taken"), ALL[:1])


def _write_every_other(root: Path, offset: int) -> None:
    lake = Lake(root)
    for day in ALL[offset::2]:
        write(lake, [day])


def test_two_processes_may_write_one_table_at_once(lake: Lake, tmp_path: Path) -> None:
    # Threads of these libraries do not survive a fork.
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_every_other, args=(lake.root, offset)) for offset in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    alone = Lake(tmp_path / "alone")
    write(alone, ALL)
    assert contents(lake) == contents(alone)


@pytest.mark.parametrize("name", ["..", "../t", "a/../../b", "/etc", "a//b", "", "."])
def test_names_that_leave_the_lake_are_refused(lake: Lake, name: str) -> None:
    for use in (
        lambda: lake.days(name),
        lambda: lake.read_file(name),
        lambda: lake.write_file(name, b""),
        lambda: lake.bundle("t", name),
        lambda: lake.write_bundle("t", name, Bundle({})),
    ):
        with pytest.raises(InvalidInput, match="is no name of a table in the lake; a name is"):
            use()
    assert not lake.root.exists()


def test_a_bundle_is_replaced_as_a_whole(lake: Lake) -> None:
    frame = rows(ALL[:1])
    lake.write_bundle("models", "2020-01-01", Bundle({"old": b"1", "both": b"2"}))
    lake.write_bundle("models", "2020-01-01", Bundle({"both": b"3", "table.parquet": frame}))
    folder = lake.bundle("models", "2020-01-01")
    assert sorted(path.name for path in folder.iterdir()) == ["both", "table.parquet"]
    assert (folder / "both").read_bytes() == b"3"
    assert pl.read_parquet(folder / "table.parquet").equals(frame)
    assert lake.bundles("models") == ["2020-01-01"]
    assert lake.bundles("nothing") == []
    with pytest.raises(MissingBundle, match="models was never materialized for '2021-01-01'; materialize it first"):
        lake.bundle("models", "2021-01-01")


def test_a_bundle_that_was_being_written_when_its_writer_died_is_not_there(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            lake.write_bundle("models", "k", Bundle({"a": b"1"}))
    assert lake.bundles("models") == []
    lake.write_bundle("models", "k", Bundle({"a": b"2"}))
    assert (lake.bundle("models", "k") / "a").read_bytes() == b"2"


def test_files_are_read_as_written_and_absent_ones_are_none(lake: Lake) -> None:
    assert lake.read_file("a/b.json") is None
    lake.write_file("a/b.json", b"{}")
    assert lake.read_file("a/b.json") == b"{}"


def test_equal_frames_are_equal_bytes_whatever_their_chunks() -> None:
    whole = rows(ALL)
    pieces = pl.concat([rows([day]) for day in ALL], rechunk=False)
    assert lake_file.parquet_bytes([whole], {}) == lake_file.parquet_bytes([pieces], {})


def test_a_bundle_whose_replacement_was_cut_off_is_still_there(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_bundle("s/model", "2024-01-01", Bundle({"a": b"old"}))
    (tmp_path / "s/model/2024-01-01").rename(tmp_path / "s/model/.2024-01-01.old")
    assert lake.bundles("s/model") == ["2024-01-01"]
    assert (lake.bundle("s/model", "2024-01-01") / "a").read_bytes() == b"old"
    lake.write_bundle("s/model", "2024-01-01", Bundle({"a": b"new"}))
    assert (lake.bundle("s/model", "2024-01-01") / "a").read_bytes() == b"new"


def test_days_of_two_definitions_are_not_mixed_but_all_may_be_made_again(tmp_path: Path) -> None:
    lake, days = Lake(tmp_path), [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]
    empty = pl.DataFrame(schema={"date": pl.Date()})
    lake.write_days("t", empty, days[:2], lambda _: days, {DEFINITION: "old"})
    assert lake.days_of_another_definition("t", "old") == []
    assert lake.days_of_another_definition("t", "new") == days[:2]
    lake.refuse_mixture("t", "old", days[2:])
    lake.refuse_mixture("t", "new", days)
    with pytest.raises(MixedDefinitions, match=r"definition of t has changed since 2024-01-02 were stored"):
        lake.refuse_mixture("t", "new", days[1:])
