"""What a back-test's history may owe to names that are missing from its universe.

Chooses what the scored stocks are compared with; the estimate itself is `market.universes.survivorship`.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.universes import TopRule, Universe, top_by_dollar_volume
from stockpicker_dagster.market.universes.survivorship import LEAST_BESIDE, Survivorship, estimate_survivorship


def survivorship_of(
    universe: Universe,
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    served: Sequence[date],
    calendar: TradingCalendar,
) -> Survivorship:
    """The estimate over the sessions `served`, whose scored stocks are `predictions` and whose rows are `prices`."""
    ranked = predictions.select("symbol", "date")
    comparison = None
    hindsight_until = None if universe.point_in_time else universe.point_in_time_since or date.max
    if hindsight_until is not None and prices["symbol"].n_unique() >= LEAST_BESIDE * ranked["symbol"].n_unique():
        # Chosen from the back-test's own days, so that the comparison begins as soon as a window of them has passed.
        comparison = top_by_dollar_volume(
            TopRule(max(2, round(ranked.height / len(served)))),
            (served[0], served[-1]),
            lambda sessions: prices.lazy().filter(pl.col("date").is_in(list(sessions))),
            calendar,
            served[0],
        ).membership(served)
    return estimate_survivorship(
        universe.membership(served), ranked, prices, hindsight_until=hindsight_until, comparison=comparison
    )
