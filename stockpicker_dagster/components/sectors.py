"""The sectors that a sector-neutral book balances, as its universe says them.

Whether they are point in time is the universe's to say (`Universe.caveat`). Neutralizing features is another matter, in
`research.neutralization`.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm


def book_sectors(form: StrategyForm, lake: Lake, sessions: Sequence[date]) -> pl.DataFrame | None:
    """`symbol`, `date` and `sector` of every member on ascending `sessions`; None where the book asks for none.

    Raises `InvalidInput` where the universe says no member's sector, since such a book would be neutral in name only.
    """
    if form.backtest.neutral != "sector" or not sessions:
        return None
    universe = form.universe.build(form.prices.build(), (sessions[0], sessions[-1]), lake, form.calendar)
    sectors = universe.sectors_on(sessions)
    if sectors["sector"].null_count() == sectors.height:
        raise InvalidInput(
            f"backtest neutral 'sector' needs sectors, and the universe {universe.name!r} says no member's; "
            "leave it out, or give the list a column sector"
        )
    return sectors
