"""Reading the back-test days of a strategy, all of one definition and without a gap.

What the days hold is `research.backtest.days`; what they are worth is asked by the other files here.
"""

from datetime import date

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.lake import Lake, describe_days
from stockpicker_dagster.strategy_form import StrategyForm


def stored_span(name: str, form: StrategyForm, lake: Lake) -> tuple[date, date]:
    """The first and the last session that the strategy's stored back-test covers; `InvalidInput` if there is none."""
    begin = form.first_served
    served = [day for day in lake.days(f"{name}/backtest_metrics") if day >= begin]
    if not served:
        raise InvalidInput(f"{name!r} has no back-test yet; `stockpicker run {name}` makes one")
    return form.calendar.sessions(begin, served[-1])[0], served[-1]


def stored_backtest(name: str, form: StrategyForm, lake: Lake, first: date, last: date) -> pl.DataFrame:
    """The days from `first` to `last` in `BACKTEST_SCHEMA`, ascending; days before the first model have no row.

    Raises `InvalidInput` for a span without a session or days that were made under other settings than the strategy has
    now, and `MissingDays` where one is not stored.
    """
    table, begin = f"{name}/backtest_metrics", max(first, form.first_served)
    sessions = form.calendar.sessions(begin, last) if begin <= last else []
    if not sessions:
        raise InvalidInput(
            f"{name!r} has no session from {first} to {last}; its first model serves from {form.first_served}"
        )
    other = lake.days_of_another_definition(table, form.definition("backtest_metrics"))
    if stale := [day for day in other if begin <= day <= last]:
        raise InvalidInput(
            f"{table} of {describe_days(stale)} were made before the strategy was changed; `stockpicker run {name}` "
            "makes them again"
        )
    return lake.read(table, sessions)
