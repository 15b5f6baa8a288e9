"""What a back-test traded, read off the positions of its stored days, and the capacity that follows.

A trade is the change of a position that splits do not explain, valued at the close of its session. Stocks that leave
the book by a delisting are not traded. The law of market impact is in `capacity`.
"""

import polars as pl

from stockpicker_dagster.research.backtest.capacity import Capacity, capacity
from stockpicker_dagster.research.backtest.performance import per_year

VOLUME_SESSIONS = 20
VOLATILITY_SESSIONS = 60
"""The longest windows of the figures before a trade; of the volatility, at least `VOLUME_SESSIONS` must be there."""


def trades_of(days: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """Every trade of stored `days` (`BACKTEST_SCHEMA`, ascending, without a gap), by date and symbol.

    `prices` has their rows. Columns: `symbol`, `date`, `traded` (notional as a positive fraction of the equity at the
    close before), `dollar_volume` (currency a session, mean of 20 sessions) and `volatility` (of daily returns, 60
    sessions), both of the sessions before the trade; null for the first sessions of a stock. The positions of the first
    day are its trades.
    """
    sessions = pl.DataFrame({"date": days["date"], "number": range(days.height)})
    equity = sessions.with_columns(equity=days["equity"].shift(1).fill_null(days["equity"][0]))
    held = days.select("date", pl.col("positions")).explode("positions").drop_nulls("positions").unnest("positions")
    held = held.join(sessions, on="date").select("symbol", "number", "shares")
    before = held.with_columns(pl.col("number") + 1).rename({"shares": "before"})
    changes = (
        held.join(before, on=["symbol", "number"], how="full", coalesce=True)
        .join(equity, on="number")
        .join(_market(prices), on=["symbol", "date"])
        .with_columns(bought=pl.col("shares").fill_null(0.0) - pl.col("before").fill_null(0.0) * pl.col("split_ratio"))
        .with_columns(traded=(pl.col("bought") * pl.col("close")).abs() / pl.col("equity"))
    )
    # Below a millionth of a millionth of the equity it is rounding in the count of shares.
    return changes.filter(pl.col("traded") > 1e-12).select(_COLUMNS).sort("date", "symbol")


def capacity_of(days: pl.DataFrame, prices: pl.DataFrame) -> Capacity | None:
    """The capacity of a book from its stored days; None if there are too few to know volumes before trades.

    The first 20 sessions, and trades in a stock without so many before, are left out of the impact. The return is net
    of all costs but the impact that was already booked.
    """
    later = days["date"][VOLUME_SESSIONS:]
    trades = trades_of(days, prices).filter(pl.col("date").is_in(later.implode())).drop_nulls()
    trades = trades.filter((pl.col("dollar_volume") > 0.0) & (pl.col("volatility") > 0.0))
    if trades.is_empty():
        return None
    return capacity(
        per_year((days["net_return"] + days["impact"]).to_numpy()),
        *(trades[name].to_numpy() for name in ("traded", "dollar_volume", "volatility")),
        sessions=len(later),
    )


_COLUMNS = ("symbol", "date", "traded", "dollar_volume", "volatility")


def _market(prices: pl.DataFrame) -> pl.DataFrame:
    """`close`, `split_ratio`, and the trailing figures that were known before each session."""
    change = (pl.col("close") * pl.col("adjustment") / pl.col("close").shift(1) - 1.0).over("symbol")
    return (
        prices.sort("symbol", "date")
        .with_columns(change=change, money=pl.col("close") * pl.col("volume"))
        .select(
            "symbol",
            "date",
            "close",
            "split_ratio",
            dollar_volume=pl.col("money").rolling_mean(VOLUME_SESSIONS).shift(1).over("symbol"),
            volatility=pl.col("change")
            .rolling_std(VOLATILITY_SESSIONS, min_samples=VOLUME_SESSIONS - 1)
            .shift(1)
            .over("symbol"),
        )
    )
