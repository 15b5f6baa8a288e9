"""A company that changes its ticker, one that takes up another's, and what is learned too late, through Dagster."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from stockpicker_dagster.market.identity import SymbolChange
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    END,
    START,
    SYMBOLS,
    Pipeline,
    differing_files,
    files_form,
    market_rows,
    stored_files,
)

CHANGED = date(2023, 1, 11)
"""In the middle of the back-test, on a day on which the company's stock is held."""
RECORD = "hand_made/prices.identities/changes.json"


def renamed(rows: pl.DataFrame, symbol: str = "CCC") -> pl.DataFrame:
    later = (pl.col("symbol") == symbol) & (pl.col("date") >= CHANGED)
    return rows.with_columns(symbol=pl.when(later).then(pl.lit("ZZZ")).otherwise("symbol"))


def pipeline_on(folder: Path, symbols: Sequence[str] = SYMBOLS) -> tuple[Pipeline, Path]:
    """A strategy on `prices.csv` in the folder, with the changes in `changes.csv`; and the first of them."""
    path = folder / "prices.csv"
    prices = {
        "source": "files",
        "name": "hand_made",
        "path": str(path),
        "basis": "as_traded",
        "start": START,
        "symbol_changes": str(folder / "changes.csv"),
    }
    (folder / "changes.csv").write_text("old,new,date\n")
    form = files_form(path, universe={"symbols": list(symbols)}, prices=prices)
    return Pipeline(folder / "home", {"momentum": form}), path


def stored(pipeline: Pipeline, table: str, first: date = START, last: date = END) -> pl.DataFrame:
    return pipeline.lake.read(table, [day for day in pipeline.lake.days(table) if first <= day <= last])


def test_a_change_of_ticker_leaves_the_files_of_a_company_that_kept_it(whole_run: Pipeline, tmp_path: Path) -> None:
    """Features, labels, the model, the held position and the plan go on; days one by one are as the days at once."""
    pipeline, path = pipeline_on(tmp_path)
    (tmp_path / "changes.csv").write_text(f"old,new,date\nCCC,ZZZ,{CHANGED}\n")
    renamed(market_rows()).write_csv(path)
    eve = CALENDAR.previous_session(CHANGED)
    pipeline.run(START, eve)
    for first, last in ((CHANGED, CHANGED), (CALENDAR.next_session(CHANGED), END)):
        pipeline.collect(first, last)
        pipeline.serve(first, last)
    pipeline.train()
    theirs, ours = stored_files(whole_run.lake), stored_files(pipeline.lake)
    assert differing_files(theirs, {name: content for name, content in ours.items() if name != RECORD}) == []
    held = stored(pipeline, "momentum/rebalance_orders", last=eve).filter(pl.col("symbol") == "CCC")
    assert held.height
    assert "ZZZ" not in stored(pipeline, "hand_made/prices")["symbol"].to_list()
    assert stored(pipeline, "hand_made/delistings")["symbol"].to_list() == ["OUT"]


def test_a_change_learned_after_the_fact_renames_no_stored_row(tmp_path: Path) -> None:
    pipeline, path = pipeline_on(tmp_path, [*SYMBOLS, "ZZZ"])
    renamed(market_rows()).write_csv(path)
    learned_on = CALENDAR.offset(CHANGED, 4)
    pipeline.materialize([pipeline.prices], START, CALENDAR.previous_session(learned_on))
    before = stored_files(pipeline.lake, lambda name: "/year=" in name)
    (tmp_path / "changes.csv").write_text(f"old,new,date\nCCC,ZZZ,{CHANGED}\nQQQ,YYY,{learned_on}\n")
    run = pipeline.materialize([pipeline.prices], learned_on, END)
    after = stored_files(pipeline.lake, lambda name: name in before)
    assert differing_files(before, after) == []
    [event] = [each for each in run.get_asset_materialization_events() if each.partition == str(END)]
    left_out = event.materialization.metadata["symbol_changes_left_out"].value
    assert left_out == {f"CCC -> ZZZ on {CHANGED}": "stored rows have another id already, and keep it"}
    late = stored(pipeline, "hand_made/prices", learned_on)
    assert late.filter(pl.col("symbol") == "ZZZ")["date"].n_unique() == CALENDAR.count(learned_on, END)
    in_force = identities_in_force(pipeline.lake, "hand_made")
    assert in_force.changes == (SymbolChange("QQQ", "YYY", learned_on),)


def with_a_re_used_ticker() -> tuple[pl.DataFrame, date]:
    """The market with one company that left long before its ticker trades again, and that day."""
    rows = market_rows()
    again = CALENDAR.next_session(date(2023, 1, 17))
    first = CALENDAR.sessions(date(2022, 3, 1), date(2022, 3, 31))
    gone = pl.DataFrame({**rows.filter(pl.col("symbol") == "DDD").row(0, named=True), "date": first})
    later = rows.filter((pl.col("symbol") != "DDD") | (pl.col("date") >= again))
    return pl.concat([gone, later]).sort("symbol", "date"), again


def test_a_ticker_that_was_taken_up_is_recorded_and_picked_under_its_new_id(tmp_path: Path) -> None:
    pipeline, path = pipeline_on(tmp_path)
    rows, again = with_a_re_used_ticker()
    rows.write_csv(path)
    last = CALENDAR.offset(again, 2)
    pipeline.collect(START, last)
    assert identities_in_force(pipeline.lake, "hand_made").changes == (SymbolChange("", "DDD", again),)
    picked = stored(pipeline, "momentum/scaled_features").filter(pl.col("symbol").str.starts_with("DDD"))
    assert picked.select("symbol", "date").rows() == [("DDD~2", day) for day in CALENDAR.sessions(again, last)]
    one_by_one, path = pipeline_on(_made(tmp_path / "daily"))
    rows.write_csv(path)
    one_by_one.materialize([pipeline.prices], START, CALENDAR.previous_session(again))
    for day in CALENDAR.sessions(again, last):
        one_by_one.materialize([pipeline.prices], day)
    daily = stored_files(one_by_one.lake)
    whole = stored_files(pipeline.lake, lambda name: name.startswith("hand_made/") and "/features/" not in name)
    assert differing_files(daily, whole) == []


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_re_use_learned_too_late_goes_on_under_the_id_of_the_stored_rows(tmp_path: Path) -> None:
    """The rows of the company before it came into the file only later."""
    pipeline, path = pipeline_on(tmp_path, ["BBB", "DDD"])
    rows, again = with_a_re_used_ticker()
    rows.filter(pl.col("date") >= START).write_csv(path)
    last = CALENDAR.offset(again, 3)
    pipeline.materialize([pipeline.prices], START, last)
    rows.write_csv(path)
    pipeline.materialize([pipeline.prices], CALENDAR.next_session(last), END)
    assert identities_in_force(pipeline.lake, "hand_made").changes == (SymbolChange("DDD", "DDD", again),)
    named = stored(pipeline, "hand_made/prices", again).filter(pl.col("symbol").str.starts_with("DDD"))
    assert named["symbol"].unique().to_list() == ["DDD"]
    assert named.height == CALENDAR.count(again, END)
