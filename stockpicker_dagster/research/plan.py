"""The account-free plan of a rebalance: target weights and reference prices after a deciding close.

What an account would have to buy and sell for it is `trading.rebalance`; whether it may is `trading.risk`.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.backtest.engine import Rules, targets
from stockpicker_dagster.research.backtest.market_data import market_data

PLAN_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "target_weight": pl.Float64(),
    "score": pl.Float64(),
    "rank": pl.Int32(),
    "reference_price": pl.Float64(),
    "model_id": pl.String(),
}
"""One row per stock to be held. target_weight: fraction of equity, negative when short; by default the long leg sums to
1, the short one to -1; reference_price: the close of `date`, in currency as traded, null where a name that is kept from
an earlier decision did not trade. Known after the close of `date`."""


def plan_rebalance(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    sessions: Sequence[date],
    days: Sequence[date],
    deciding: NDArray[np.bool_],
    rules: Rules,
    *,
    look_back: Sequence[date] = (),
    sectors: pl.DataFrame | None = None,
    styles: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The plans of `days`, in `PLAN_SCHEMA`, sorted by date, then symbol; a day that decides nothing has no rows.

    The targets are those of `engine.targets` under the same `rules`. `deciding` says which of `sessions` decide
    (`research.rebalancing`). Where `rules.remembers`, `sessions` begin with the first that has scores, because a target
    follows from the ones before it; otherwise they may be `days` alone. `prices` has the rows of `look_back` (as many
    sessions as `rules.look_back` before the first, or all there are) and of `sessions`; `sectors` and `styles` as in
    `market_data`.
    A stock without a close on the day is not chosen; a name kept from an earlier decision stays, with a null reference
    price if it did not trade, and a null score and rank if it is no longer scored.
    """
    current = prices.filter(pl.col("date").is_in(list(sessions)))
    priced = predictions.join(current.select("symbol", "date", "close"), on=["symbol", "date"], how="inner").drop_nulls(
        "close"
    )
    no_delistings = pl.DataFrame(schema=DELISTINGS_SCHEMA)
    known = prices.filter(pl.col("date").is_in([*look_back, *sessions]))
    market = market_data(
        known,
        no_delistings,
        sessions,
        trailing=rules.needs_trailing_risk,
        look_back=look_back,
        sectors=sectors,
        styles=styles,
    )
    weights = targets(market.panel(priced, "score"), market, rules, deciding)
    rows = [row for row, session in enumerate(sessions) if session in set(days)]
    places = [(row, column) for row in rows for column in np.flatnonzero(weights[row])]
    planned = pl.DataFrame(
        {
            "symbol": [market.symbols[column] for _, column in places],
            "date": [sessions[row] for row, _ in places],
            "target_weight": [float(weights[row, column]) for row, column in places],
        },
        schema={name: PLAN_SCHEMA[name] for name in ("symbol", "date", "target_weight")},
    )
    closes = current.select("symbol", "date", pl.col("close").alias("reference_price")).drop_nulls()
    scored = priced.select("symbol", "date", "score", "rank", "model_id")
    plan = planned.join(closes, on=["symbol", "date"], how="left").join(scored, on=["symbol", "date"], how="left")
    return plan.select(list(PLAN_SCHEMA)).sort("date", "symbol")
