"""Tries the features of a module of one's own before any of them is stored, once for each version of it.

What is tried is in `research.features.honesty`. That a version passed is remembered in the state folder, so that a
daily run pays nothing; a new version of the module or of this program is tried again.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.home import home
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.research.features.computation import first_needed
from stockpicker_dagster.research.features.declaration import FeatureSet
from stockpicker_dagster.research.features.honesty import try_on, try_on_invented_prices
from stockpicker_dagster.research.features.panel import PANEL_COLUMNS

_DAYS, _STOCKS = 21, 12
"""How many real sessions and stocks a set is tried on: the last of a run, and those whose symbols come first."""


def tried_on_invented_prices(features: FeatureSet, code: str, calendar: TradingCalendar) -> None:
    """Tries the set of the module version `code` on invented prices, unless that version has passed.

    Raises `DishonestFeature` where a feature looks ahead or is not what it declares.
    """
    passed = _passed(features.name, code, "invented")
    if not passed.exists():
        try_on_invented_prices(features, calendar)
        _remember(passed)


def tried_on_real_prices(
    features: FeatureSet,
    code: str,
    source: str,
    prices: pl.LazyFrame,
    days: Sequence[date],
    calendar: TradingCalendar,
    start: date,
) -> None:
    """Tries the set on the last of `days`, with the prices that they are computed from, unless it passed on `source`.

    One day alone shows nothing that looks ahead: it is left for a longer run. Raises `DishonestFeature` as above.
    """
    passed, last = _passed(features.name, code, source), list(days)[-_DAYS:]
    if passed.exists() or len(last) < 2:
        return
    rows = prices.filter(pl.col("date").is_between(first_needed(last, features.lookback, calendar, start), last[-1]))
    symbols = rows.filter(pl.col("date") == last[-1]).select("symbol").sort("symbol").head(_STOCKS).collect()["symbol"]
    few = rows.filter(pl.col("symbol").is_in(symbols.to_list())).select("symbol", "date", *PANEL_COLUMNS).collect()
    if not few.is_empty():
        try_on(features, few, last, calendar, start)
        _remember(passed)


def _passed(name: str, code: str, where: str) -> Path:
    return home().root / "tried_features" / f"{name}-{code}-{code_version()}-{where}"


def _remember(passed: Path) -> None:
    passed.parent.mkdir(parents=True, exist_ok=True)
    passed.touch()
