"""A day appended to files is judged as the whole of them would be, and any change of earlier rows is noticed."""

import random
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.sources import Fetched, files
from stockpicker_dagster.market.sources.file_tails import boundary
from stockpicker_dagster.market.sources.files import FilesSource

START, LAST = date(2022, 10, 3), date(2023, 4, 28)
DAYS = trading_calendar("XNYS").sessions(START, LAST)
SYMBOLS = [f"S{number}" for number in range(8)]
SATURDAY = date(2023, 2, 25)


def ugly_rows(seed: int) -> pl.DataFrame:
    """A market with gaps, halts, splits, dividends, jumps, rows without volume, copies, and one of a Saturday."""
    chance = random.Random(seed)
    rows = []
    for symbol in SYMBOLS:
        close, traded = chance.uniform(5, 100), True
        for day in DAYS:
            if chance.random() < 0.05:
                traded = not traded
            if chance.random() < 0.08:
                continue
            split = chance.choice([2.0, 0.5]) if chance.random() < 0.02 else 1.0
            dividend = round(close * chance.choice([0.01, 1.2]), 2) if chance.random() < 0.04 else 0.0
            if traded:
                close *= chance.uniform(0.97, 1.03) / split * (150.0 if chance.random() < 0.01 else 1.0)
            price = round(close, 2) if chance.random() > 0.02 else None
            row = (symbol, day, price, price, price, price, 500.0 if traded else 0.0, dividend, split)
            rows += [row] * (2 if chance.random() < 0.02 else 1)
        rows.append((symbol, SATURDAY, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0))
    columns = ["symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split_ratio"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    gone = (pl.col("symbol") == "S3") & (pl.col("date") > DAYS[100])
    return frame.filter(~gone)


def with_adjusted_closes(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows as a vendor tells them who gives nothing but an adjusted close."""
    factor = (pl.col("split_ratio") * (1 + pl.col("dividend") / 100)).cum_prod().over("symbol")
    return rows.with_columns(adj_close=pl.col("close") * factor).drop("dividend", "split_ratio")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


@pytest.fixture
def whole_loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows with every time that files are judged as a whole."""
    loads: list[Path] = []
    load = files._load

    def counted(path: Path, *rest: object) -> object:
        loads.append(path)
        return load(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "_load", counted)
    return loads


def source(path: Path, *, keeps_tail: bool = True, decisions: tuple[Decision, ...] = ()) -> FilesSource:
    return FilesSource("mine", path, "as_traded", START, keeps_tail=keeps_tail).corrected(decisions)


def same(one: Fetched, other: Fetched) -> None:
    assert_frame_equal(one.prices, other.prices)
    assert_frame_equal(one.delistings, other.delistings)
    assert_frame_equal(one.quarantine, other.quarantine)


Write = Callable[[Path, pl.DataFrame], None]


def one_file(folder: Path, rows: pl.DataFrame) -> None:
    rows.write_parquet(folder / "all.parquet")


def file_a_month(folder: Path, rows: pl.DataFrame) -> None:
    dated = rows.with_columns(month=pl.col("date").dt.strftime("%Y-%m"))
    for (month,), part in dated.partition_by("month", as_dict=True).items():
        path = folder / f"{month}.csv"
        text = part.drop("month").write_csv()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


@pytest.mark.parametrize(
    ("write", "given"),
    [(one_file, with_adjusted_closes), (file_a_month, lambda rows: rows)],
    ids=["one file with adjusted closes", "a file a month with events"],
)
def test_days_appended_one_by_one_are_judged_as_the_whole_is(
    folder: Path, whole_loads: list[Path], write: Write, given: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    rows = given(ugly_rows(1))
    for last in DAYS[-60::15]:
        write(folder, rows.filter(pl.col("date") <= last))
        if last == DAYS[-60]:
            source(folder).fetch(None, DAYS[:5])
            assert whole_loads.pop() == folder
        days = [day for day in DAYS if DAYS[-75] <= day <= last][-15:]
        appended = source(folder)
        answer = appended.fetch(None, days)
        assert appended.available_through() == last
        # A few symbols of an earlier day need no whole either.
        few = appended.fetch(SYMBOLS[:3], DAYS[20:25])
        assert whole_loads == []
        whole = source(folder, keeps_tail=False)
        same(answer, whole.fetch(None, days))
        same(few, whole.fetch(SYMBOLS[:3], DAYS[20:25]))
        whole_loads.clear()


@pytest.mark.parametrize(
    ("change", "notices"),
    [
        (lambda rows: rows, False),
        (lambda rows: rows.filter(pl.col("date") < DAYS[-10]), False),
        (lambda rows: rows.filter((pl.col("symbol") != "S1") | (pl.col("date") != DAYS[10])), True),
        (
            lambda rows: rows.with_columns(volume=pl.when(pl.col("date") == DAYS[10]).then(7.0).otherwise("volume")),
            True,
        ),
    ],
    ids=["nothing", "a later row", "a row gone", "a figure"],
)
def test_a_change_of_an_earlier_row_is_noticed(
    folder: Path, whole_loads: list[Path], change: Callable[[pl.DataFrame], pl.DataFrame], notices: bool
) -> None:
    rows = ugly_rows(3)
    one_file(folder, rows)
    source(folder).fetch(None, DAYS[-5:])
    whole_loads.clear()
    (folder / "all.parquet").unlink()
    changed = change(rows)
    one_file(folder, changed.with_columns(pl.col("close").alias("ignored")))
    last = changed.filter(pl.col("date").is_in(DAYS))["date"].max()
    answer = source(folder).fetch(None, [last])
    assert bool(whole_loads) is notices
    same(answer, source(folder, keeps_tail=False).fetch(None, [last]))


def test_another_decision_about_an_earlier_row_is_noticed_and_one_about_a_later_row_needs_no_whole(
    folder: Path, whole_loads: list[Path]
) -> None:
    one_file(folder, ugly_rows(4))
    source(folder).fetch(None, DAYS[-5:])
    whole_loads.clear()
    for day, loads in ((DAYS[-3], 0), (DAYS[3], 1)):
        decided = (Decision("S5", day, (("close", 3.0), ("high", 3.0), ("low", 3.0), ("open", 3.0))),)
        answer = source(folder, decisions=decided).fetch(None, DAYS[-5:])
        assert len(whole_loads) == loads
        same(answer, source(folder, keeps_tail=False, decisions=decided).fetch(None, DAYS[-5:]))
        whole_loads.clear()


def test_a_kept_tail_that_cannot_be_read_costs_time_alone(folder: Path, whole_loads: list[Path]) -> None:
    one_file(folder, ugly_rows(5))
    before = source(folder).fetch(None, DAYS[-5:])
    [seeds] = (folder.parent / "home" / "file_tails").rglob("seeds.parquet")
    seeds.write_bytes(b"broken")
    files._load_recent.cache_clear()
    whole_loads.clear()
    same(source(folder).fetch(None, DAYS[-5:]), before)
    assert whole_loads


def test_two_whole_months_lie_after_a_tail() -> None:
    assert boundary(date(2024, 3, 15)) == date(2024, 1, 31)
    assert boundary(date(2024, 1, 2)) == date(2023, 11, 30)
