"""The account-free plan of a rebalance: target weights and reference prices after a deciding close.

What an account would have to buy and sell for it is `trading.rebalance`; whether it may is `trading.risk`.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.research.portfolio import Weighting, target_weights

PLAN_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "target_weight": pl.Float64(),
    "score": pl.Float64(),
    "rank": pl.Int32(),
    "reference_price": pl.Float64(),
    "model_id": pl.String(),
}
"""One row per stock to be held. target_weight: fraction of equity, negative when short; the long leg sums to 1, the
short one to -1; reference_price: the close of `date`, in currency as traded. Known after the close of `date`."""


def plan_rebalance(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    days: Sequence[date],
    deciding: NDArray[np.bool_],
    long: int | float,
    short: int | float,
    weights: Weighting,
) -> pl.DataFrame:
    """The plans of `days`, in `PLAN_SCHEMA`, sorted by date, then symbol; a day that decides nothing has no rows.

    `deciding` says which of `days` decide (`research.rebalancing`). A stock without a close on the day is not planned.
    """
    priced = predictions.join(prices.select("symbol", "date", "close"), on=["symbol", "date"], how="inner")
    by_day = {key[0]: part for key, part in priced.partition_by("date", as_dict=True).items()}
    plans = [pl.DataFrame(schema=PLAN_SCHEMA)]
    for day, decides in zip(days, deciding, strict=True):
        if decides and day in by_day:
            ranked = by_day[day].sort("symbol")
            targets = target_weights(ranked["score"].to_numpy(), long, short, weights)
            plan = ranked.with_columns(
                pl.Series("target_weight", targets), pl.col("close").alias("reference_price")
            ).filter(pl.col("target_weight") != 0)
            plans.append(plan.select(list(PLAN_SCHEMA)))
    return pl.concat(plans)
