"""Small strategies whose back-test days are stored in a state folder of their own; no test lives here."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster_tests.components.forms import FIXED, strategy_form

CALENDAR = trading_calendar("XNYS")
SERVED = CALENDAR.sessions(date(2022, 6, 1), date(2022, 10, 31))
BOOKS = 40


def served_form(**changes: Any) -> StrategyForm:
    """A strategy whose model serves `SERVED`."""
    periods = {**FIXED, "test": [SERVED[0], SERVED[-1]]}
    return strategy_form(prices={"start": date(2020, 1, 2), "stocks": 12}, periods=periods, **changes)


def book(days: Sequence[date], mean: float, seed: int) -> pl.DataFrame:
    """Stored days with returns of that daily mean, 1 % volatility, and random books around zero."""
    rng = np.random.default_rng(seed)
    net = rng.normal(mean, 0.01, len(days))
    costs = {"commission": 0.0001, "spread": 0.0002, "impact": 0.0, "borrow": 0.0, "interest": 0.0}
    frame = pl.DataFrame(
        {
            "date": days,
            "net_return": net,
            "gross_return": net + 0.0003,
            **costs,
            "equity": 1e6 * np.cumprod(1 + net),
            "turnover": 0.4,
            "gross_exposure": 2.0,
            "net_exposure": 0.0,
            "longs": 3,
            "shorts": 3,
            "positions": [[] for _ in days],
            "random_net_returns": rng.normal(-0.0003, 0.01, (len(days), BOOKS)),
            "fresh_gross_returns": rng.normal(0.0, 0.01, (len(days), BOOKS)),
            "random_turnover": 0.4,
            "offset_net_returns": np.column_stack([net + 0.0001 * shift for shift in range(-2, 3)]),
            "offset_gross_returns": np.column_stack([net + 0.0003] * 5),
            "unknown_delistings": 0,
            "cautious_net_return": net,
        }
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in BACKTEST_SCHEMA.items())


def store(deployment: Deployment, name: str, form: StrategyForm, days: pl.DataFrame) -> None:
    """As the asset stores them."""
    note = {DEFINITION: form.definition("backtest_metrics")}
    year = CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))
    deployment.lake.write_days(f"{name}/backtest_metrics", days, days["date"].to_list(), lambda _: year, note)
