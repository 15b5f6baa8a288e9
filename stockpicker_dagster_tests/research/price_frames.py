"""Small invented price frames in the price contract, for the tests of this room; no test lives here."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA

CALENDAR = trading_calendar("XNYS")
START = date(2018, 1, 2)


def sessions(first: date, last: date) -> list[date]:
    return CALENDAR.sessions(first, last)


def prices_from(
    symbol: str,
    days: Sequence[date],
    close: np.ndarray,
    open: np.ndarray | None = None,
    high: np.ndarray | None = None,
    low: np.ndarray | None = None,
    volume: np.ndarray | float = 1000.0,
    split_ratio: np.ndarray | float = 1.0,
    adjustment: np.ndarray | float = 1.0,
) -> pl.DataFrame:
    """The rows of one stock; what is not given is quiet: no range, no events."""
    close = np.asarray(close, dtype=float)
    open = close if open is None else open
    columns = {
        "symbol": [symbol] * len(days),
        "date": list(days),
        "open": open,
        "high": np.maximum(open, close) if high is None else high,
        "low": np.minimum(open, close) if low is None else low,
        "close": close,
        "volume": np.broadcast_to(np.asarray(volume, dtype=float), close.shape),
        "dividend": np.zeros(len(close)),
        "split_ratio": np.broadcast_to(np.asarray(split_ratio, dtype=float), close.shape),
        "adjustment": np.broadcast_to(np.asarray(adjustment, dtype=float), close.shape),
        "known_at": [None] * len(close),
        "source": ["test"] * len(close),
    }
    return pl.DataFrame(columns, schema=PRICES_SCHEMA)


def random_stock(symbol: str, days: Sequence[date], seed: int, gap_share: float = 0.03) -> pl.DataFrame:
    """A random walk with ranges, volumes, splits, dividends and days without a row."""
    rng = np.random.default_rng(seed)
    count = len(days)
    split = np.where(rng.random(count) < 0.006, rng.choice([2.0, 3.0, 0.5], count), 1.0)
    payout = np.where(rng.random(count) < 0.016, 0.007, 0.0)
    split[0], payout[0] = 1.0, 0.0
    growth = rng.normal(0.0003, 0.02, count)
    growth[rng.random(count) < 0.05] = 0.0
    close = rng.uniform(10, 200) * np.cumprod(np.exp(growth) * (1 - payout) / split)
    open = close * np.exp(rng.normal(0, 0.008, count))
    frame = prices_from(
        symbol,
        days,
        close=close,
        open=open,
        high=np.maximum(open, close) * (1 + rng.exponential(0.006, count)),
        low=np.minimum(open, close) / (1 + rng.exponential(0.006, count)),
        volume=np.round(rng.lognormal(12, 0.6, count)),
        split_ratio=split,
        adjustment=split / (1 - payout),
    )
    quiet = (split == 1.0) & (payout == 0.0)
    return frame.filter(pl.Series((rng.random(count) >= gap_share) | ~quiet))


def random_market(days: Sequence[date], stocks: int, seed: int = 0) -> pl.DataFrame:
    """Random stocks; the second lists late, the third disappears early and the fourth is halted for a while."""
    frames = [random_stock(f"S{number}", days, 1000 * seed + number) for number in range(stocks)]
    if stocks > 3:
        third = len(days) // 3
        frames[1] = frames[1].filter(pl.col("date") >= days[third])
        frames[2] = frames[2].filter(pl.col("date") <= days[2 * third])
        frames[3] = frames[3].filter(~pl.col("date").is_between(days[third], days[third + 30]))
    return pl.concat(frames).sort("date", "symbol")


def no_delistings() -> pl.DataFrame:
    return pl.DataFrame(schema=DELISTINGS_SCHEMA)


def same_bytes(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether two frames hold the same columns, rows and bits; null equals null alone."""
    if first.schema != second.schema or first.height != second.height:
        return False
    return all(_bits(first[name]) == _bits(second[name]) for name in first.columns)


def _bits(column: pl.Series) -> tuple[bytes, list[object]]:
    if column.dtype.is_float():
        return column.is_null().to_numpy().tobytes() + column.fill_null(0.0).to_numpy().tobytes(), []
    return b"", column.to_list()
