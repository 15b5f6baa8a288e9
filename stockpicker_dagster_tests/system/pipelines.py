"""Whole strategies in folders of their own, run through Dagster as the project runs them, and compared byte for byte.

A `Pipeline` is one strategy, or several on shared prices, with its own state folder and its own Dagster; none of the
project's strategies is involved. The market of `market_rows` is made by hand, so that a test knows every event in it.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.components.strategy import strategy_definitions
from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.features import declaration, factors
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm

CALENDAR = trading_calendar("XNYS")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

START = date(2022, 10, 3)
TRAIN = (date(2022, 11, 7), date(2022, 12, 2))
VALIDATION = (date(2022, 12, 5), date(2022, 12, 16))
TEST = (date(2022, 12, 20), date(2023, 3, 31))
DAILY_FROM = date(2022, 12, 28)
END = date(2023, 2, 10)
"""The last session of the hand-made market. The year 2022 is over by then and stored as one file, and look-backs begin
in the new year, to whose first session the anchor of cumulated series has moved."""

EVENING = date(2023, 1, 13)
"""A day t in the middle: most kinds of event have happened, the others are about to."""

SPLIT = ("AAA", date(2023, 1, 5), 2.0)
DIVIDEND = ("BBB", date(2023, 1, 10), 0.75)
SPLIT_WITH_DIVIDEND = ("CCC", date(2023, 1, 17), 1.5, 0.5)
LISTED = ("NEW", date(2023, 1, 4))
LAST_TRADED = ("OUT", date(2023, 1, 12))
"""Everything that happens to the hand-made market's stocks, all of it between `DAILY_FROM` and `END`."""

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH", "JJJ", "KKK", "LLL", "MMM", "NEW", "OUT")

FEATURES = (
    factors.reversal_1w,
    factors.reversal_1m,
    factors.volatility_1m,
    factors.illiquidity,
    factors.dollar_volume,
    factors.bid_ask_spread,
    factors.overnight_momentum,
)
"""Features of short look-backs, so that a few months of prices are enough for a whole strategy."""


@pytest.fixture(scope="session", autouse=True)
def short_features() -> Iterator[None]:
    """Makes this file's `FEATURES` known as the feature set `short`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(declaration._SETS, "short", __name__)
        yield


def market_rows(symbols: Sequence[str] = SYMBOLS, first: date = START, last: date = END) -> pl.DataFrame:
    """A hand-made market as a price file holds it: as-traded prices with dividends and splits, by symbol and date.

    A stock's numbers depend on its name alone, not on the others in the file.
    """
    days = CALENDAR.sessions(first, last)
    return pl.concat(_stock_rows(symbol, days) for symbol in symbols).sort("symbol", "date")


def _stock_rows(symbol: str, days: Sequence[date]) -> pl.DataFrame:
    rng = np.random.default_rng([ord(letter) for letter in symbol])
    overnight, intraday = 0.006 * rng.standard_normal(len(days)), 0.012 * rng.standard_normal(len(days))
    dividends, splits = np.zeros(len(days)), np.ones(len(days))
    for name, day, *what in (SPLIT, (*DIVIDEND[:2], 1.0, DIVIDEND[2]), SPLIT_WITH_DIVIDEND):
        if name == symbol and day in days:
            splits[days.index(day)], dividends[days.index(day)] = (*what, 0.0)[:2]
    rows, close = [], 30.0 + 40.0 * rng.random()
    for at, day in enumerate(days):
        opens = round((close - dividends[at]) / splits[at] * (1.0 + overnight[at]), 2)
        close = round(opens * (1.0 + intraday[at]), 2)
        low, high = round(min(opens, close) * 0.995, 2), round(max(opens, close) * 1.005, 2)
        volume = float(rng.integers(50_000, 500_000))
        rows.append((symbol, day, opens, high, low, close, volume, dividends[at], splits[at]))
    columns = ["symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split_ratio"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    if symbol == LISTED[0]:
        frame = frame.filter(pl.col("date") >= LISTED[1])
    return frame.filter(pl.col("date") <= LAST_TRADED[1]) if symbol == LAST_TRADED[0] else frame


def files_form(path: Path, **changes: Any) -> StrategyForm:
    """A strategy with one model on the hand-made market; `changes` replace whole parts of the form."""
    form: dict[str, Any] = {
        "owner": "research",
        "universe": {"symbols": list(SYMBOLS)},
        "prices": {"source": "files", "name": "hand_made", "path": str(path), "basis": "as_traded", "start": START},
        "features": {"set": "short"},
        "periods": {"train": TRAIN, "validation": VALIDATION, "test": TEST},
        "backtest": {"long": 3, "short": 3, "rebalance": "weekly", "simulations": 20},
    }
    return StrategyForm.model_validate(form | changes)


def simulated_form(**changes: Any) -> StrategyForm:
    """A strategy with one model on a small simulated market, decided daily; `changes` replace whole parts of it."""
    form: dict[str, Any] = {
        "owner": "research",
        "universe": {"name": "simulated"},
        "prices": {"source": "simulated", "start": START, "stocks": 40, "seed": 3},
        "features": {"set": "short"},
        "periods": {"train": TRAIN, "validation": VALIDATION, "test": TEST},
        "backtest": {"long": 10, "short": 10, "rebalance": "daily", "simulations": 20},
    }
    return StrategyForm.model_validate(form | changes)


@dataclass
class Pipeline:
    """Strategies by name in the state folder `root`, the first of which is meant where none is named."""

    root: Path
    forms: Mapping[str, StrategyForm]
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def name(self) -> str:
        return next(iter(self.forms))

    @property
    def form(self) -> StrategyForm:
        return self.forms[self.name]

    @property
    def lake(self) -> Lake:
        return Lake(self.root / "lake")

    @property
    def prices(self) -> str:
        return f"{self.form.prices.key}/prices"

    @property
    def collecting(self) -> tuple[str, ...]:
        """The assets that need no model."""
        features = f"{self.form.prices.key}/{self.form.features.set}/features"
        return (self.prices, features, f"{self.name}/scaled_features")

    @property
    def training(self) -> tuple[str, ...]:
        return (f"{self.name}/datasets", f"{self.name}/trained_model")

    @property
    def serving(self) -> tuple[str, ...]:
        """The assets that need one."""
        return tuple(f"{self.name}/{asset}" for asset in ("predictions", "backtest_metrics", "rebalance_orders"))

    @property
    def daily_tables(self) -> tuple[str, ...]:
        """Every table of days that a run leaves in the lake."""
        source = self.form.prices.key
        return (*self.collecting, *self.serving, f"{source}/delistings", f"{source}/quarantine")

    @cached_property
    def job(self) -> dg.JobDefinition:
        parts = [strategy_definitions(name, form) for name, form in self.forms.items()]
        return bind(
            dg.Definitions.merge(*parts, market_definitions(self.forms))
        ).resolve_implicit_global_asset_job_def()

    @contextmanager
    def at_home(self) -> Iterator[Deployment]:
        """What runs inside finds this pipeline's state folder, and no other."""
        before = os.environ.get("STOCKPICKER_HOME")
        os.environ["STOCKPICKER_HOME"] = str(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            yield Deployment()
        finally:
            if before is None:
                del os.environ["STOCKPICKER_HOME"]
            else:
                os.environ["STOCKPICKER_HOME"] = before

    def materialize(
        self,
        assets: Sequence[str],
        first: date | str | None = None,
        last: date | str | None = None,
        run_config: Mapping[str, Any] = QUIET,
    ) -> dg.ExecuteInProcessResult:
        """One Dagster run over a range of partitions; an error of ours comes out as itself."""
        ends = {"start": first, "end": first if last is None else last}
        tags = {f"dagster/asset_partition_range_{end}": str(key) for end, key in ends.items()} if first else {}
        with self.at_home():
            try:
                return self.job.execute_in_process(
                    instance=self.instance,
                    asset_selection=[dg.AssetKey(asset.split("/")) for asset in assets],
                    tags=tags,
                    run_config=dict(run_config),
                )
            except Exception as error:
                raise _own(error) or error from error

    def collect(self, first: date, last: date | None = None) -> None:
        self.materialize(self.collecting, first, last)

    def train(self, first: str | None = None, last: str | None = None) -> None:
        self.materialize(self.training, first, last)

    def serve(self, first: date, last: date | None = None) -> None:
        self.materialize(self.serving, first, last)

    def run(self, first: date, last: date) -> None:
        """Everything from prices to plans, with the model of fixed periods."""
        self.collect(first, last)
        self.train()
        self.serve(first, last)

    def copied_to(self, root: Path) -> "Pipeline":
        """The same strategies and everything stored so far, in another folder."""
        # Folders of ended training jobs hold links to what was thrown away.
        shutil.copytree(self.root, root, symlinks=True)
        return Pipeline(root, self.forms)


def _own(error: BaseException | None) -> StockPickerError | None:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, StockPickerError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def stored_files(lake: Lake, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, bytes]:
    """Every file of the lake by its path below the root, locks left out."""
    paths = sorted(path for path in lake.root.rglob("*") if path.is_file() and path.name != ".lock")
    files = {path.relative_to(lake.root).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in files.items() if wanted(name)}


def day_bytes(lake: Lake, table: str, days: Sequence[date]) -> dict[date, tuple[bytes, dict[str, str]]]:
    """Each stored day by itself, bit by bit, with its note: for days that may lie in the one file of a whole year."""
    rows = lake.read(table, list(days))
    parts = {key[0]: part for key, part in rows.partition_by("date", as_dict=True, maintain_order=True).items()}
    notes = lake.notes(table)
    return {day: (_bytes(parts.get(day, rows.clear())), notes[day]) for day in days}


def _bytes(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()


def differing_files(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    """The paths that only one of two lakes has, or that differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
