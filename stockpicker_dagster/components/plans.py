"""The plans of one run: what a strategy would hold after each deciding close, from what is stored.

The arithmetic is `research.plan`, and the functions under it are those of the back-test.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from stockpicker_dagster.components.book_traits import book_sectors, book_styles
from stockpicker_dagster.research.plan import PLAN_SCHEMA, plan_rebalance
from stockpicker_dagster.research.rebalancing import rebalance_days
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm


def make_plans(name: str, form: StrategyForm, lake: Lake, days: Sequence[date]) -> pl.DataFrame:
    """The plans of `days`, ascending sessions, in `PLAN_SCHEMA`; days before the first model have none.

    Where a target follows from those before it, they are worked out from the stored scores since the first. Raises
    `MissingDays` where predictions, prices or features that decide are not stored.
    """
    rules, calendar = form.backtest.rules(), form.calendar
    served = calendar.sessions(form.first_served, days[-1]) if form.first_served <= days[-1] else []
    sessions = served if rules.remembers else list(days)
    if not sessions:
        return pl.DataFrame(schema=PLAN_SCHEMA)
    history = calendar.sessions(form.prices.start, sessions[0])[:-1]
    look_back = history[-rules.look_back :] if rules.look_back else []
    return plan_rebalance(
        lake.read(f"{name}/predictions", sessions),
        lake.read(f"{form.prices.key}/prices", [*look_back, *sessions]),
        sessions,
        days,
        rebalance_days(sessions, rules.rebalance, calendar, rules.rebalance_offset),
        rules,
        look_back=look_back,
        sectors=book_sectors(form, lake, sessions),
        styles=book_styles(name, form, lake, sessions),
    )
