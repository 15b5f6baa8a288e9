"""Bad input, end to end: one clear error or a named, counted rejection, and nothing already stored is lost."""

import errno
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from stockpicker_dagster import runs
from stockpicker_dagster.cli import main
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market.collection import NotYetAvailable
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    EVENING,
    LAST_TRADED,
    START,
    Pipeline,
    day_bytes,
    differing_files,
    files_form,
    market_rows,
    stored_files,
)

pytestmark = pytest.mark.xdist_group("pipelines")

NEXT = CALENDAR.next_session(EVENING)
LISTED_THEN = market_rows().filter(pl.col("date") == NEXT)["symbol"].to_list()


def _with_file(evening_run: Pipeline, folder: Path, rows: pl.DataFrame) -> Pipeline:
    """What was stored on `EVENING`, and a price file of `rows` to go on with."""
    rows.write_csv(folder / "prices.csv")
    copy = evening_run.copied_to(folder / "home")
    return Pipeline(copy.root, {"momentum": files_form(folder / "prices.csv")})


def _on_next(symbol: str, **figures: pl.Expr | float) -> pl.DataFrame:
    """The market up to `NEXT`, with some figures of one stock's last row replaced."""
    row = (pl.col("symbol") == symbol) & (pl.col("date") == NEXT)
    values = {name: value if isinstance(value, pl.Expr) else pl.lit(value) for name, value in figures.items()}
    return (
        market_rows()
        .filter(pl.col("date") <= NEXT)
        .with_columns(pl.when(row).then(value).otherwise(pl.col(name)).alias(name) for name, value in values.items())
    )


def _duplicated(different: bool) -> pl.DataFrame:
    rows = _on_next("GGG")
    twin = rows.filter((pl.col("symbol") == "GGG") & (pl.col("date") == NEXT))
    return pl.concat([rows, twin.with_columns(volume=pl.col("volume") + different)])


HUNDREDFOLD = {name: pl.col(name) * 150 for name in ("open", "high", "low", "close")}


@pytest.mark.parametrize(
    ("rows", "reason", "rejected", "kept"),
    [
        (_on_next("GGG", close=-1.0), "non_positive_price", 1, False),
        (_on_next("GGG", low=0.0), "non_positive_price", 1, False),
        (_on_next("GGG", open=float("nan")), "missing_price", 1, False),
        (_on_next("GGG", high=pl.col("low") - 1), "high_below_low", 1, False),
        (_on_next("GGG", close=pl.col("high") + 1), "open_or_close_outside_range", 1, False),
        (_on_next("GGG", **HUNDREDFOLD), "hundredfold_jump", 1, False),
        (_on_next("GGG", volume=-5.0), "negative_volume", 1, False),
        (_on_next("GGG", split_ratio=0.0), "bad_split_ratio", 1, False),
        (_on_next("GGG", dividend=1e6), "dividend_not_below_previous_close", 1, False),
        (_duplicated(different=True), "duplicate_row", 2, False),
        (_duplicated(different=False), "duplicate_row", 1, True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bad_row_is_quarantined_by_name_and_counted_and_the_others_are_stored(
    evening_run: Pipeline, tmp_path: Path, rows: pl.DataFrame, reason: str, rejected: int, kept: bool
) -> None:
    pipeline = _with_file(evening_run, tmp_path, rows)
    before = stored_files(pipeline.lake)
    result = pipeline.materialize([pipeline.prices], NEXT)
    metadata = result.asset_materializations_for_node("hand_made__prices")[-1].metadata
    assert metadata["quarantined"].value == rejected
    assert metadata["quarantined_by_reason"].value == {reason: rejected}
    quarantine = pipeline.lake.read("hand_made/quarantine", [NEXT])
    assert quarantine.select("symbol", "date", "reason").rows() == [("GGG", NEXT, reason)] * rejected
    stored = pipeline.lake.read(pipeline.prices, [NEXT])["symbol"].to_list()
    assert stored == [symbol for symbol in LISTED_THEN if symbol != "GGG" or kept]
    after = stored_files(pipeline.lake)
    assert {name: after[name] for name in before} == before


def test_the_day_goes_on_without_the_stock_whose_row_was_rejected(evening_run: Pipeline, tmp_path: Path) -> None:
    pipeline = _with_file(evening_run, tmp_path, _on_next("GGG", close=-1.0))
    pipeline.materialize((*pipeline.collecting, *pipeline.serving), NEXT)
    ranked = pipeline.lake.read("momentum/predictions", [NEXT])["symbol"].sort().to_list()
    assert ranked == [symbol for symbol in LISTED_THEN if symbol != "GGG"]


def test_an_empty_day_is_an_empty_file_and_a_warning_that_names_it(evening_run: Pipeline, tmp_path: Path) -> None:
    after = CALENDAR.next_session(NEXT)
    rows = market_rows().filter((pl.col("date") <= after) & (pl.col("date") != NEXT))
    pipeline = _with_file(evening_run, tmp_path, rows)
    result = pipeline.materialize((*pipeline.collecting, *pipeline.serving), NEXT, after)
    check = next(each for each in result.get_asset_check_evaluations() if each.check_name == "no_empty_sessions")
    assert not check.passed
    assert check.metadata["first"].value == str(NEXT)
    for table in (*pipeline.collecting, "momentum/predictions", "momentum/rebalance_orders"):
        assert pipeline.lake.read(table, [NEXT]).is_empty()
    assert not pipeline.lake.read("momentum/predictions", [after]).is_empty()


def test_a_symbol_that_disappears_is_delisted_when_that_is_known_and_its_past_stays(
    evening_run: Pipeline, tmp_path: Path
) -> None:
    last = CALENDAR.offset(LAST_TRADED[1], 10)
    pipeline = _with_file(evening_run, tmp_path, market_rows().filter(pl.col("date") <= last))
    past = CALENDAR.sessions(START, EVENING)
    before = day_bytes(pipeline.lake, pipeline.prices, past)
    pipeline.materialize([pipeline.prices], NEXT, last)
    days = CALENDAR.sessions(NEXT, last)
    assert LAST_TRADED[0] not in pipeline.lake.read(pipeline.prices, days)["symbol"].to_list()
    delistings = pipeline.lake.read("hand_made/delistings", days)
    assert delistings.select("symbol", "last_session", "known_at").rows() == [(*LAST_TRADED, last)]
    assert day_bytes(pipeline.lake, pipeline.prices, past) == before


def _revised(rows: pl.DataFrame) -> pl.DataFrame:
    bb = pl.col("symbol") == "BBB"
    return rows.with_columns(pl.when(bb).then(pl.col("volume") * 2).otherwise(pl.col("volume")).alias("volume"))


def _vanished(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("symbol") != "BBB")


@pytest.mark.parametrize(("revise", "says"), [(_revised, r"volume \S+ -> \S+"), (_vanished, "no longer has this row")])
def test_a_vendors_revision_is_named_and_the_stored_rows_stay(
    evening_run: Pipeline, tmp_path: Path, revise: Callable[[pl.DataFrame], pl.DataFrame], says: str
) -> None:
    pipeline = _with_file(evening_run, tmp_path, revise(market_rows().filter(pl.col("date") <= EVENING)))
    days = CALENDAR.sessions(date(2023, 1, 3), EVENING)
    before = stored_files(pipeline.lake, lambda name: "/quarantine/" not in name)
    result = pipeline.materialize([pipeline.prices], days[0], days[-1])
    metadata = result.asset_materializations_for_node("hand_made__prices")[-1].metadata
    # One more is found in the stored session before, with which every run compares the source.
    assert metadata["quarantined_by_reason"].value == {"restated": len(days) + 1}
    quarantine = pipeline.lake.read("hand_made/quarantine", days)
    assert quarantine["symbol"].to_list() == ["BBB"] * (len(days) + 1)
    assert quarantine["detail"].str.contains(says).all()
    assert differing_files(before, stored_files(pipeline.lake, lambda name: "/quarantine/" not in name)) == []


def _columns(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    return lambda path: change(market_rows()).write_csv(path)


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (_columns(lambda rows: rows.drop("volume")), InvalidInput, "lacks volume; found: symbol, date"),
        (_columns(lambda rows: rows.drop("dividend", "split_ratio")), InvalidInput, "lacks adj_close .or dividend"),
        (
            _columns(lambda rows: rows.with_columns(Close=pl.col("close"))),
            InvalidInput,
            "has both close and Close, which mean the same; keep one",
        ),
        (_columns(lambda rows: rows.with_columns(close=pl.lit("dear"))), InvalidInput, "dear"),
        (_columns(lambda rows: rows.with_columns(date=pl.lit("13.01.2023"))), InvalidInput, "13.01.2023"),
        (lambda path: path.unlink(), InvalidInput, "does not exist; put it there"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00PAR1"), InvalidInput, "prices.csv"),
        (
            _columns(lambda rows: rows.filter(pl.col("date") <= EVENING)),
            NotYetAvailable,
            f"ends on {EVENING} and was asked for {NEXT}",
        ),
    ],
)
def test_a_file_that_cannot_be_understood_is_one_clear_error_and_the_lake_stays(
    evening_run: Pipeline,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    error: type[StockPickerError],
    sentence: str,
) -> None:
    pipeline = _with_file(evening_run, tmp_path, market_rows())
    spoil(tmp_path / "prices.csv")
    before = stored_files(pipeline.lake)
    with pytest.raises(error, match=sentence) as raised:
        pipeline.materialize([pipeline.prices], NEXT)
    assert "\n" not in str(raised.value).strip()
    assert stored_files(pipeline.lake) == before


# Forms, as a person meets them: a file with a line, through the command


def _form(**changes: Any) -> dict[str, Any]:
    form: dict[str, Any] = {
        "owner": "research",
        "universe": {"name": "simulated"},
        "prices": {"source": "simulated", "start": "2022-10-03", "stocks": 20},
        "features": {"set": "short"},
        "periods": {
            "train": ["2022-11-07", "2022-12-02"],
            "validation": ["2022-12-05", "2022-12-16"],
            "test": ["2022-12-20", "2023-03-31"],
        },
    }
    return form | changes


def _periods(**changes: Any) -> dict[str, Any]:
    return {"periods": _form()["periods"] | changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"universe": {"name": "sp5000"}}, "'sp5000' is not allowed; allowed: 'simulated'"),
        ({"algorithm": {"name": "crystal_ball"}}, "'crystal_ball' is unknown; known: boosted_trees, "),
        ({"features": {"set": "short", "names": ["momentun"]}}, "'momentun' is not in the set 'short'"),
        (
            {"features": {"set": "astrology"}},
            "feature set 'astrology' is unknown; known: alpha158, factors, multi_factor",
        ),
        (_periods(train=["2022-12-02", "2022-11-07"]), "train is reversed: it begins on 2022-12-02"),
        (_periods(validation=["2022-12-01", "2022-12-16"]), "validation begins on 2022-12-01"),
        (_periods(test=["2022-12-16", "2023-03-31"]), "test begins on 2022-12-16"),
        (_periods(train=["2022-10-10", "2022-12-02"]), "the earliest possible training day is 2022-11-01"),
    ],
    ids=["universe", "algorithm", "feature", "feature set", "reversed", "overlapping", "overlapping test", "history"],
)
def test_a_bad_strategy_is_one_sentence_with_file_and_line_and_nothing_runs(
    changes: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "strategies" / "broken" / "defs.yaml"
    file.parent.mkdir(parents=True)
    document = {"type": "stockpicker_dagster.components.StockPickerStrategy", "attributes": _form(**changes)}
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    monkeypatch.setattr(runs, "STRATEGIES", tmp_path / "strategies")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    answer = CliRunner().invoke(main, ["run", "broken"])
    assert answer.exit_code == 1
    complaints = [line for line in answer.stderr.splitlines() if line.startswith("Error: ")]
    assert len(complaints) == 1
    assert complaints[0].startswith(f"Error: {file}:")
    assert sentence in complaints[0]
    assert list((tmp_path / "home" / "lake").iterdir()) == []


# A disk that is full


def _full_disk_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next `writes` files fit; then the disk is full, and says so half-way through a file."""
    left, write = [writes], Path.write_bytes

    def write_bytes(path: Path, content: bytes) -> int:
        if left[0] <= 0:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        left[0] -= 1
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def _same_or_new(before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Every file is as it was, or was not there before; none is a torn or a temporary one."""
    return {name: after.get(name) for name in before} == before and not [n for n in after if "/." in n]


@pytest.mark.parametrize("writes", [0, 2, 4, 7])
def test_a_full_disk_loses_nothing_and_the_next_run_goes_on(
    evening_run: Pipeline, whole_run: Pipeline, tmp_path: Path, writes: int
) -> None:
    pipeline = _with_file(evening_run, tmp_path, market_rows())
    daily = (*pipeline.collecting, *pipeline.serving)
    before = stored_files(pipeline.lake)
    with pytest.MonkeyPatch.context() as patch:
        _full_disk_after(writes, patch)
        with pytest.raises(StockPickerError, match=r"cannot be written \(No space left on device\).*run again"):
            pipeline.materialize(daily, NEXT)
    assert _same_or_new(before, stored_files(pipeline.lake))
    pipeline.materialize(daily, NEXT)
    day = f"{NEXT}.parquet"
    own, expected = (stored_files(each.lake, lambda name: name.endswith(day)) for each in (pipeline, whole_run))
    assert len(expected) == len(pipeline.daily_tables)
    assert differing_files(own, expected) == []


@pytest.mark.parametrize("writes", [0, 6])
def test_a_full_disk_keeps_the_model_that_was_there(evening_run: Pipeline, tmp_path: Path, writes: int) -> None:
    pipeline = evening_run.copied_to(tmp_path / "home")
    before = stored_files(pipeline.lake)
    with pytest.MonkeyPatch.context() as patch:
        _full_disk_after(writes, patch)
        with pytest.raises(StockPickerError, match=r"cannot be written \(No space left on device\)"):
            pipeline.train()
    # What was begun under a hidden name is no bundle, and the next attempt clears it away.
    assert differing_files(before, stored_files(pipeline.lake, lambda name: "/." not in name)) == []
    pipeline.train()
    assert differing_files(before, stored_files(pipeline.lake)) == []


def test_a_disk_that_fills_while_a_year_is_made_one_file_loses_no_day(price_file: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "home", {"momentum": files_form(price_file)})
    last = date(2022, 12, 30)
    pipeline.materialize([pipeline.prices], START, CALENDAR.previous_session(last))
    before = stored_files(pipeline.lake)
    with pytest.MonkeyPatch.context() as patch:
        _full_disk_after(2, patch)
        with pytest.raises(StockPickerError, match=r"prices/year=2022/year.parquet cannot be written"):
            pipeline.materialize([pipeline.prices], last)
    assert {name: content for name, content in stored_files(pipeline.lake).items() if "/prices/" in name} == {
        name: content for name, content in before.items() if "/prices/" in name
    }
    pipeline.materialize([pipeline.prices], last)
    assert pipeline.lake.missing(pipeline.prices, CALENDAR.sessions(START, last)) == []


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    answer = CliRunner().invoke(main, ["doctor"])
    assert answer.exit_code == 1
    assert f"{tmp_path / 'file' / 'home'} cannot be written" in answer.stderr
