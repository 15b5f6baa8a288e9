"""What a model learns to predict: the return that a score made after the close of a day could have earned.

The score of day t trades at the open of t + 1 and is held until the open of t + 1 + h. Raw returns are made by
`forward_returns`; `transform` sets them against the mean of that day's universe. Which rows a model may be trained on
is decided in `splits`. Labels relative to the cross-section follow Gu, Kelly and Xiu (2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.cross_section import (
    check_quantiles,
    date_blocks,
    finite_values,
    scale_blocks,
    winsorize_blocks,
)
from stockpicker_dagster.research.features.panel import Panel

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar

Transform = Literal["rank", "standard", "none"]
Matrix = NDArray[np.float64]


def forward_returns(
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    calendar: "TradingCalendar",
    horizon_days: int,
    through: date | None = None,
    missing_delisting_return: float = 0.0,
) -> pl.DataFrame:
    """The total return from the open of t + 1 to the open of t + 1 + h, for every price row (symbol, t).

    It is open_{t+1+h} / open_{t+1} x the product of `adjustment` over t + 2 .. t + 1 + h, less one: splits and
    dividends that go ex while the stock is held are in it. Where the exit has no open, the last close up to t + 1 + h
    stands in, and the return of a delisting known by then is added to it (`missing_delisting_return` where the source
    does not know one). `horizon_days` is h, in sessions. `through` is the last session of the data, by default that of
    the last row of `prices`.

    Returns `symbol`, `date` (t), `label_return` (Float64, a fraction) and `known_on` (the session t + 1 + h, after
    whose close the label is known), sorted by date, then symbol. `label_return` is null where there was no open on
    t + 1: nobody could trade. Rows known only after `through` are absent, and every other row is the same whether or
    not later prices exist. Raises `InvalidInput` for a horizon below one or a repeated price row.
    """
    if horizon_days < 1:
        raise InvalidInput(f"label horizon_days {horizon_days} is not allowed; it must be at least 1 session")
    last = through or prices["date"].max()
    first = prices["date"].min()
    sessions = calendar.sessions(first, last) if isinstance(first, date) and isinstance(last, date) else []
    symbols = prices["symbol"].unique().sort().to_list()
    panel = Panel.from_prices(prices, sessions, symbols)
    events = _Delistings.of(delistings, sessions, symbols, missing_delisting_return)
    values = _forward_returns(
        panel.open,
        panel.close,
        panel.adjustment,
        events.starts,
        events.last_row,
        events.known_row,
        events.returns,
        horizon_days,
    )
    rows, columns = np.nonzero(panel.present[: max(0, len(sessions) - 1 - horizon_days)])
    days = pl.Series(sessions, dtype=pl.Date)
    return pl.DataFrame(
        {
            "symbol": pl.Series(symbols, dtype=pl.String).gather(columns),
            "date": days.gather(rows),
            "label_return": pl.Series(values[rows, columns], dtype=pl.Float64, nan_to_null=True),
            "known_on": days.gather(rows + 1 + horizon_days),
        }
    )


def transform(
    returns: pl.DataFrame,
    members: pl.DataFrame,
    method: Transform = "rank",
    winsorize: tuple[float, float] | None = None,
) -> pl.DataFrame:
    """The label of every member of the universe: its return less the mean of that day's members, then transformed.

    `returns` comes from `forward_returns`; `members` holds `symbol` and `date`, the membership as of each day, so that
    leaving the universe later removes no label. Transformations, one date at a time: `rank` to [-0.5, 0.5], `standard`
    (z-score with the population deviation) or `none`; `winsorize` first moves excess returns outside these two
    quantiles of the day onto them.

    Returns the rows of `returns` that are members, with a column `label` (Float64), sorted by date, then symbol; null
    where `label_return` is, in which case the stock counts in no mean and no rank. Raises `InvalidInput` for an unknown
    method or wrong quantiles.
    """
    if method not in get_args(Transform):
        raise InvalidInput(f"label transform {method!r} is unknown; known: {', '.join(get_args(Transform))}")
    check_quantiles(winsorize)
    rows = returns.join(members.select("symbol", "date").unique(), on=["symbol", "date"], how="semi")
    rows = rows.sort("date", "symbol")
    values, blocks = finite_values(rows["label_return"]), date_blocks(rows["date"])
    labels = winsorize_blocks(_less_mean(values, blocks), blocks, winsorize)
    if method != "none":
        labels = scale_blocks(labels, blocks, method, "neutral")
    labels[np.isnan(values)] = np.nan
    return rows.with_columns(pl.Series("label", labels, dtype=pl.Float64, nan_to_null=True))


@njit(cache=True, nogil=True)
def _less_mean(values: NDArray[np.float64], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values less the mean of the observed values of their block."""
    result = values.copy()
    for index in range(len(blocks) - 1):
        total, count = 0.0, 0
        for row in range(blocks[index], blocks[index + 1]):
            if not np.isnan(values[row]):
                total += values[row]
                count += 1
        for row in range(blocks[index], blocks[index + 1]):
            result[row] = values[row] - total / max(count, 1)
    return result


@dataclass(frozen=True)
class _Delistings:
    """Delistings sorted by symbol: those of symbol i are at `starts[i]` to `starts[i + 1]`; sessions as panel rows."""

    starts: NDArray[np.int64]
    last_row: NDArray[np.int64]
    known_row: NDArray[np.int64]
    returns: NDArray[np.float64]

    @classmethod
    def of(
        cls, delistings: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str], missing_return: float
    ) -> "_Delistings":
        columns = pl.DataFrame(
            {"symbol": symbols, "column": np.arange(len(symbols))}, schema_overrides={"symbol": pl.String}
        )
        events = delistings.join(columns, on="symbol").sort("column", "known_at")
        days = np.array(sessions, dtype="datetime64[D]")
        return cls(
            starts=np.searchsorted(events["column"].to_numpy(), np.arange(len(symbols) + 1)),
            last_row=np.searchsorted(days, events["last_session"].to_numpy(), side="right") - 1,
            known_row=np.searchsorted(days, events["known_at"].to_numpy(), side="left"),
            returns=events["return"].fill_null(missing_return).to_numpy(),
        )


@njit(cache=True, nogil=True)
def _forward_returns(
    opens: Matrix,
    closes: Matrix,
    adjustment: Matrix,
    starts: NDArray[np.int64],
    last_row: NDArray[np.int64],
    known_row: NDArray[np.int64],
    returns: NDArray[np.float64],
    horizon: int,
) -> Matrix:
    """Every window multiplies its own adjustments, so that no value depends on where the panel begins or ends."""
    sessions, symbols = opens.shape
    result = np.full((sessions, symbols), np.nan)
    for row in range(sessions - 1 - horizon):
        entry, leave = row + 1, row + 1 + horizon
        for column in range(symbols):
            if not opens[entry, column] > 0.0:
                continue
            growth, value = 1.0, opens[entry, column]
            if closes[entry, column] > 0.0:
                value = closes[entry, column]
            for held in range(entry + 1, leave + 1):
                growth *= adjustment[held, column]
                if closes[held, column] > 0.0:
                    value = closes[held, column] * growth
            if opens[leave, column] > 0.0:
                value = opens[leave, column] * growth
            else:
                for event in range(starts[column], starts[column + 1]):
                    if last_row[event] >= entry and known_row[event] <= leave:
                        value *= 1.0 + returns[event]
            result[row, column] = value / opens[entry, column] - 1.0
    return result
