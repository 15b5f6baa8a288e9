"""What the tear sheet says about the scores themselves, before any book is built on them.

Puts stored scores beside the returns that followed; the figures are those of `research.backtest.signal_study`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.research.backtest.signal_study import (
    Sectors,
    SignalStudy,
    cumulative_quantile_returns,
    signal_study,
)
from stockpicker_dagster.research.labels import forward_returns

Floats = NDArray[np.float64]

HORIZONS = (1, 5, 10, 21, 63)
"""Sessions over which the decay of the signal is shown, beside the label's own horizon: a day to a quarter."""


@dataclass(frozen=True, eq=False)
class Signal:
    """The scores of a span against the tradable returns that followed, as far as these are known."""

    sessions: tuple[date, ...]
    study: SignalStudy
    own: int
    """The place of the label's horizon among those of the study."""
    fan: Floats
    """Compounded returns of each quantile over one session, less those of all stocks, `(T, Q)`, lowest scores first."""


def signal_of(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    calendar: TradingCalendar,
    sessions: Sequence[date],
    horizon_days: int,
    sectors: pl.DataFrame | None = None,
) -> Signal | None:
    """The signal of `predictions` (`symbol`, `date`, `score`) on `sessions`; None if no return is known yet.

    `prices` and `delistings` have the rows of `sessions`, and returns are those known after the close of the last.
    `sectors` (`symbol`, `date`, `sector`) says in which sector a stock was on the day, null where unknown.
    """
    scored = predictions.select("symbol", "date", "score")
    symbols = scored["symbol"].unique().sort().to_list()
    horizons = sorted({*HORIZONS, horizon_days})
    if not symbols or len(sessions) < horizon_days + 2:
        return None
    returns = {
        horizon: _panel(
            forward_returns(prices, delistings, calendar, horizon, sessions[-1]), "label_return", sessions, symbols
        )
        for horizon in horizons
        if len(sessions) >= horizon + 2
    }
    grouped = None if sectors is None else _sectors(sectors, sessions, symbols)
    study = signal_study(_panel(scored, "score", sessions, symbols), returns, sessions, sectors=grouped)
    own = study.horizons.index(horizon_days)
    if not study.all_stocks[own].quality.days:
        return None
    return Signal(tuple(sessions), study, own, cumulative_quantile_returns(study.daily.quantile_returns[0], 1))


def _sectors(sectors: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]) -> Sectors | None:
    known = sectors.drop_nulls("sector")
    names = known["sector"].unique().sort().to_list()
    if not names:
        return None
    numbered = known.with_columns(place=pl.col("sector").replace_strict(names, list(range(len(names)))))
    return Sectors(tuple(names), np.nan_to_num(_panel(numbered, "place", sessions, symbols), nan=-1.0).astype(np.int64))


def _panel(rows: pl.DataFrame, name: str, sessions: Sequence[date], symbols: Sequence[str]) -> Floats:
    """The values, sessions by symbols, NaN where there is none; other days and symbols are left out."""
    panel = np.full((len(sessions), len(symbols)), np.nan)
    places = rows.join(pl.DataFrame({"symbol": symbols}).with_row_index("column"), on="symbol").join(
        pl.DataFrame({"date": sessions}).with_row_index("row"), on="date"
    )
    panel[places["row"].to_numpy(), places["column"].to_numpy()] = places[name].fill_null(float("nan")).to_numpy()
    return panel
