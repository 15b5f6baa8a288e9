"""The back-test days of one run: gone on from where the books stood, or run from the first session.

Which of the two it was changes the time and not a byte. The arithmetic is `research.backtest.days`, the stored books
are `evaluation.carried_books`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from stockpicker_dagster.components.book_traits import book_sectors, book_styles, borrow_fees, styles_table
from stockpicker_dagster.evaluation.carried_books import Origins, carried_books, keep_books
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA, run_days
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm


@dataclass(frozen=True)
class MadeDays:
    """The rows of a run, and in a sentence where it began."""

    table: pl.DataFrame
    began: str


def make_backtest_days(name: str, form: StrategyForm, lake: Lake, days: Sequence[date]) -> MadeDays:
    """The back-test rows of `days`, ascending sessions, and the books after the last ones stored for the next run.

    Days before the first model have no row. Raises `MissingDays` where predictions or prices are not stored.
    """
    calendar, rules = form.calendar, form.backtest.rules()
    served = calendar.sessions(form.first_served, days[-1]) if form.first_served <= days[-1] else []
    if not served:
        return MadeDays(pl.DataFrame(schema=BACKTEST_SCHEMA), "no model serves these days")
    table, predictions = f"{name}/backtest_metrics", f"{name}/predictions"
    prices, delistings = f"{form.prices.key}/prices", f"{form.prices.key}/delistings"
    history = [day for day in calendar.sessions(form.prices.start, days[-1]) if day < served[0]]
    earlier = history[-rules.look_back :] if rules.look_back else []
    inputs = (predictions, prices, *([styles_table(name)] if rules.styles else []))
    origins = Origins(lake, form.definition("backtest_metrics"), inputs, [*earlier, *served])

    before = [day for day in served if day < days[0]]
    books = carried_books(lake, table, before[-1], origins) if before else None
    sessions = served[len(before) :] if books else served
    passed = [*earlier, *served[: len(served) - len(sessions)]]
    look_back = passed[-rules.look_back :] if rules.look_back else []
    run = run_days(
        lake.scan(predictions, sessions).select("symbol", "date", "score").collect(),
        lake.read(prices, [*look_back, *sessions]),
        lake.read(delistings, served),
        sessions,
        days,
        rules,
        calendar,
        form.backtest.simulations,
        form.backtest.seed,
        look_back=look_back,
        resume_from=books,
        sectors=book_sectors(form, lake, sessions),
        borrow_rates=borrow_fees(form),
        styles=book_styles(name, form, lake, sessions),
    )
    # An earlier day that is made again leaves the newest books, from which the next session goes on.
    if not any(day > days[-1] for day in lake.days(table)):
        keep_books(lake, table, run.states, origins, before[-1] if books else None)
    return MadeDays(run.days, f"went on from {before[-1]}" if books else f"ran from the first session, {served[0]}")
