"""Making back-test days: one more day costs a day where the books are stored, and every way gives the same bytes."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.components.backtest_days import make_backtest_days
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA, run_days
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DECISIONS, DEFINITION, Lake
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster_tests.evaluation.stored_strategies import CALENDAR, served_form
from stockpicker_dagster_tests.research.price_frames import random_market

SERVED = CALENDAR.sessions(date(2022, 6, 1), date(2022, 8, 12))
LAST = SERVED[-1]
FORM = served_form()
PRICES = random_market(SERVED, 12, seed=4)
PREDICTIONS = PRICES.select("symbol", "date").with_columns(
    score=pl.Series(np.random.default_rng(7).normal(size=PRICES.height))
)
TABLE = "mine/backtest_metrics"
BOOKS = f"{TABLE}.books"


def write(lake: Lake, table: str, rows: pl.DataFrame, days: Sequence[date], note: dict[str, str] | None = None) -> None:
    year = CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))
    lake.write_days(table, rows.filter(pl.col("date").is_in(list(days))), days, lambda _: year, note)


class Strategy:
    """The strategy `mine` with its inputs stored, whose back-test days are made and stored run by run."""

    def __init__(self, form: StrategyForm = FORM) -> None:
        self.form, self.lake = form, Deployment().lake
        write(self.lake, "simulated/prices", PRICES, SERVED)
        write(self.lake, "simulated/delistings", pl.DataFrame(schema=DELISTINGS_SCHEMA), SERVED)
        write(self.lake, "mine/predictions", PREDICTIONS, SERVED)

    def make(self, days: Sequence[date]) -> str:
        made = make_backtest_days("mine", self.form, self.lake, days)
        note = {DEFINITION: self.form.definition("backtest_metrics")}
        write(self.lake, TABLE, made.table, days, note)
        return made.began

    def files(self) -> dict[str, bytes]:
        places = (self.lake.root / "mine" / "backtest_metrics", self.lake.root / "mine" / "backtest_metrics.books")
        found = (path for place in places for path in sorted(place.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.lake.root)): path.read_bytes() for path in found if path.name != ".lock"}


@pytest.fixture
def strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Strategy]:
    """A strategy in a state folder of its own, as many as a test asks for."""
    count = iter(range(9))

    def place(form: StrategyForm = FORM) -> Strategy:
        monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / str(next(count))))
        return Strategy(form)

    return place


def test_days_made_one_by_one_are_those_of_one_run_and_so_are_the_books(strategy: Callable[..., Strategy]) -> None:
    whole, daily = strategy(), strategy()
    assert whole.make(SERVED) == "ran from the first session, 2022-06-01"
    daily.make(SERVED[:-4])
    for before, day in zip(SERVED[-5:-1], SERVED[-4:], strict=True):
        assert daily.make([day]) == f"went on from {before}"
    assert daily.files() == whole.files()
    assert daily.lake.bundles(BOOKS) == [str(day) for day in SERVED[-2:]]


def test_one_more_day_reads_that_day_alone(strategy: Callable[..., Strategy], monkeypatch: pytest.MonkeyPatch) -> None:
    place, runs = strategy(), []
    place.make(SERVED[:-1])

    def watched(predictions: pl.DataFrame, prices: pl.DataFrame, *rest: Any, **named: Any) -> Any:
        runs.append((predictions["date"].unique().to_list(), prices["date"].unique().to_list()))
        return run_days(predictions, prices, *rest, **named)

    monkeypatch.setattr("stockpicker_dagster.components.backtest_days.run_days", watched)
    place.make([LAST])
    assert runs == [([LAST], [LAST])]


def test_the_last_day_made_again_goes_on_from_the_one_before_and_changes_nothing(
    strategy: Callable[..., Strategy],
) -> None:
    place = strategy()
    place.make(SERVED)
    before = place.files()
    assert place.make([LAST]) == f"went on from {SERVED[-2]}"
    assert place.files() == before


def test_an_older_day_made_again_leaves_the_newest_books(strategy: Callable[..., Strategy]) -> None:
    place = strategy()
    place.make(SERVED[:-1])
    before = place.files()
    assert place.make(SERVED[5:8]).startswith("ran from the first")
    assert place.files() == before
    assert place.make([LAST]).startswith("went on")


def _broken(place: Strategy) -> None:
    (place.lake.bundle(BOOKS, str(SERVED[-2])) / "own.npz").write_bytes(b"cut off")


def _gone(place: Strategy) -> None:
    place.lake.keep_bundles(BOOKS, [])


def _book_missing(place: Strategy) -> None:
    (place.lake.bundle(BOOKS, str(SERVED[-2])) / "permuted.npz").unlink()


def _note_broken(place: Strategy) -> None:
    (place.lake.bundle(BOOKS, str(SERVED[-2])) / "made_from.json").write_bytes(b"[]")


def _decided(place: Strategy) -> None:
    """A decision about a price of the past: its day, and what follows from it, carry its mark."""
    write(place.lake, "simulated/prices", PRICES, SERVED[3:4], {DECISIONS: "one"})


def _other_day(place: Strategy) -> None:
    """The stored day says something else than the books: somebody made it otherwise."""
    row = place.lake.read(TABLE, [SERVED[-2]]).with_columns(equity=pl.col("equity") * 1.5)
    write(place.lake, TABLE, row, [SERVED[-2]], {DEFINITION: FORM.definition("backtest_metrics")})


@pytest.mark.parametrize("spoil", [_broken, _gone, _book_missing, _note_broken, _decided, _other_day])
def test_books_that_cannot_be_relied_on_are_not_gone_on_from(
    strategy: Callable[..., Strategy], spoil: Callable[[Strategy], None]
) -> None:
    whole, place = strategy(), strategy()
    whole.make(SERVED)
    place.make(SERVED[:-1])
    spoil(place)
    assert place.make([LAST]) == "ran from the first session, 2022-06-01"
    assert place.lake.read(TABLE, [LAST]).equals(whole.lake.read(TABLE, [LAST]))


def test_other_code_does_not_go_on_from_its_predecessors_books(
    strategy: Callable[..., Strategy], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = strategy()
    place.make(SERVED[:-1])
    monkeypatch.setattr("stockpicker_dagster.evaluation.carried_books.code_version", lambda: "other")
    assert place.make([LAST]).startswith("ran from the first")


def test_another_definition_does_not_go_on_from_the_books_of_the_old_one(strategy: Callable[..., Strategy]) -> None:
    place = strategy()
    place.make(SERVED[:-1])
    place.form = served_form(backtest={"long": 2, "short": 2, "simulations": 20})
    assert place.make([LAST]).startswith("ran from the first")


def test_days_before_the_first_model_have_no_row(strategy: Callable[..., Strategy]) -> None:
    early = CALENDAR.sessions(date(2022, 5, 30), date(2022, 5, 31))
    made = make_backtest_days("mine", FORM, strategy().lake, early)
    assert made.table.is_empty()
    assert dict(made.table.schema) == BACKTEST_SCHEMA
    place = strategy()
    made = make_backtest_days("mine", FORM, place.lake, [*early, *SERVED[:3]])
    assert made.table["date"].to_list() == SERVED[:3]
