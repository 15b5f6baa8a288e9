"""What the rules of a book ask to know of its stocks beside scores and prices: sectors, styles and fees of borrowing.

Whether sectors are point in time is the universe's to say (`Universe.caveat`). Neutralizing features is another matter,
in `research.neutralization`.
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
    if not form.backtest.rules().needs_sectors or not sessions:
        return None
    universe = form.universe.build(form.prices.build(), (sessions[0], sessions[-1]), lake, form.calendar)
    sectors = universe.sectors_on(sessions)
    if sectors["sector"].null_count() == sectors.height:
        raise InvalidInput(
            f"the back-test is to be neutral to sectors, and the universe {universe.name!r} says no member's; "
            "leave it out, or give the list a column sector"
        )
    return sectors


def book_styles(name: str, form: StrategyForm, lake: Lake, sessions: Sequence[date]) -> pl.DataFrame | None:
    """`symbol`, `date` and the features of strategy `name` that its book is neutral to, scaled; None where none is.

    Known after each close. Raises `MissingDays` where they are not stored.
    """
    styles = form.backtest.rules().styles
    if not styles or not sessions:
        return None
    return lake.scan(styles_table(name), sessions).select("symbol", "date", *styles).collect()


def styles_table(name: str) -> str:
    """Where the scaled features of a strategy are."""
    return f"{name}/scaled_features"


def borrow_fees(form: StrategyForm) -> pl.DataFrame | None:
    """`symbol`, `date` and `bps_per_year` of the stocks whose fee the form names, from the first day of prices on."""
    fees = form.backtest.borrow_bps_by_name
    if not fees:
        return None
    return pl.DataFrame(
        {"symbol": list(fees), "date": [form.prices.start] * len(fees), "bps_per_year": list(fees.values())},
        schema={"symbol": pl.String, "date": pl.Date, "bps_per_year": pl.Float64},
    )
