"""Universes through a whole strategy: whoever decides, days alone equal days in a range, and nothing looks ahead."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stockpicker_dagster.market.universes.listed import MemberList
from stockpicker_dagster.market.universes.member_tables import MEMBERS_SCHEMA
from stockpicker_dagster.market.universes.snapshots import store_snapshot
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    END,
    EVENING,
    LAST_TRADED,
    START,
    SYMBOLS,
    TEST,
    TRAIN,
    Pipeline,
    files_form,
    stored_files,
)

SCALED = "narrow/scaled_features"
ALONE = CALENDAR.sessions(date(2023, 1, 31), date(2023, 2, 2))
"""Sessions run one by one; the members of `top` are chosen anew among them, on the first session of February."""

UNIVERSES: dict[str, dict[str, Any]] = {
    "top": {"top": 8, "by": "dollar_volume", "rebalance": "monthly"},
    "liquid": {"symbols": list(SYMBOLS), "min_price": 39.0, "min_dollar_volume": 8_200_000.0},
    "listed": {"name": "sp100"},
}


@pytest.fixture(scope="module")
def collected(price_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The prices and features of the hand-made market."""
    pipeline = Pipeline(tmp_path_factory.mktemp("collected"), {"any": files_form(price_file)})
    pipeline.materialize(pipeline.collecting[:2], START, END)
    return pipeline


def list_of(*symbols: str) -> MemberList:
    rows = [(symbol, None, "X", None) for symbol in sorted(symbols)]
    return MemberList(pl.DataFrame(rows, schema=MEMBERS_SCHEMA, orient="row"), "a publisher")


def at_noon(day: date) -> datetime:
    return datetime.combine(day, time(17), UTC)


Runs = Callable[[str, Path], Pipeline]


@pytest.fixture
def narrow(collected: Pipeline, price_file: Path) -> Runs:
    """Gives a strategy with one of `UNIVERSES` on what is collected, in a folder of its own; sp100 has a first list."""

    def in_folder(universe: str, folder: Path) -> Pipeline:
        root = collected.copied_to(folder).root
        store_snapshot(Lake(root / "lake"), "sp100", list_of(*SYMBOLS[:10]), at_noon(START))
        form = files_form(price_file, universe=UNIVERSES[universe])
        return Pipeline(root, {"narrow": form})

    return in_folder


@pytest.mark.parametrize("universe", UNIVERSES)
def test_days_run_alone_are_those_of_a_range(narrow: Runs, tmp_path: Path, universe: str) -> None:
    """A list that is stored on one of the evenings changes the days after it, in a later backfill as on the day."""
    daily, backfill = narrow(universe, tmp_path / "daily"), narrow(universe, tmp_path / "backfill")
    for day in ALONE:
        daily.materialize([SCALED], day)
        if day == ALONE[1]:
            store_snapshot(daily.lake, "sp100", list_of(*SYMBOLS[2:12]), at_noon(day))
            store_snapshot(backfill.lake, "sp100", list_of(*SYMBOLS[2:12]), at_noon(day))
    backfill.materialize([SCALED], ALONE[0], ALONE[-1])
    alone, range_ = (stored_files(each.lake, lambda name: name.startswith(SCALED)) for each in (daily, backfill))
    assert alone == range_
    sizes = backfill.lake.read(SCALED, ALONE).group_by("date").agg(pl.col("symbol").sort()).sort("date")["symbol"]
    assert len({tuple(symbols) for symbols in sizes}) > 1
    assert all(2 <= len(symbols) < 13 for symbols in sizes)


def test_what_is_filtered_out_keeps_its_label_and_a_held_stock_is_sold_at_its_price(
    narrow: Runs, tmp_path: Path
) -> None:
    pipeline = narrow("liquid", tmp_path / "home")
    pipeline.materialize([SCALED], TRAIN[0], END)
    pipeline.train()
    pipeline.serve(TEST[0], END)
    days = CALENDAR.sessions(TEST[0], END)
    members = pipeline.lake.read(SCALED, days).select("symbol", "date")
    tested = pl.read_parquet(pipeline.lake.bundle("narrow/datasets", "fixed") / "test.parquet")
    known = CALENDAR.sessions(TEST[0], EVENING)
    # A row a member and day: whoever drops out the day after still has the return that was earned.
    expected = members.filter(pl.col("date").is_in(known))
    assert tested.filter(pl.col("date").is_in(known)).select("symbol", "date").sort("date", "symbol").equals(expected)
    assert tested.filter(pl.col("date").is_in(known) & (pl.col("symbol") != LAST_TRADED[0]))["label"].null_count() == 0
    assert members.group_by("symbol").len()["len"].min() < len(days)  # type: ignore[operator]
    book = pipeline.lake.read("narrow/backtest_metrics", days)
    assert book["net_return"].is_finite().all()
    assert book["net_return"].abs().max() < 0.1  # type: ignore[operator]
