"""How many shares of a stock trade on a day: what an order is measured against, before it is made.

Split-adjusted to the shares of the last session, so that a split within the window does not make a stock look more or
less traded than it is. The same thing in currency, over a longer window, is in `universes.dollar_volume`.
"""

import math

import polars as pl


def mean_daily_volumes(prices: pl.DataFrame, sessions: int) -> dict[str, float]:
    """The mean number of shares traded a session, by symbol, over the `sessions` sessions that `prices` is of.

    `prices` has `symbol`, `date`, `volume` (shares, as traded that day) and `split_ratio` (new shares per old, on the
    first day on which the new ones trade), no row after the session that decides; the answer is in shares of the last
    day, whole ones, rounded down. A session without a row of the stock counts as one without a trade, so that a
    newcomer's first days do not look like a month of them. A stock without any row is not in the answer.
    """
    if not sessions:
        return {}
    # A volume is in the shares of its own day: only the splits after that change its count.
    later = pl.col("split_ratio").cum_prod(reverse=True).over("symbol") / pl.col("split_ratio")
    adjusted = (
        prices.sort("symbol", "date")
        .select("symbol", shares=pl.col("volume") * later)
        .group_by("symbol", maintain_order=True)
        .agg(pl.col("shares").sum() / sessions)
    )
    # The last digits of a product of ratios are no shares.
    return {symbol: float(math.floor(round(shares, 6))) for symbol, shares in adjusted.iter_rows()}
