from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.market.fundamentals.statements import STATEMENTS_SCHEMA
from stockpicker_dagster.research.features.fundamentals import FIGURES, Fundamentals
from stockpicker_dagster_tests.research.price_frames import CALENDAR

DAYS = CALENDAR.sessions(date(2020, 1, 2), date(2021, 12, 31))
SYMBOLS = ["A", "B", "C"]


def table(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(STATEMENTS_SCHEMA) | row for row in rows], schema=STATEMENTS_SCHEMA)


FIRST = {"symbol": "A", "known_at": date(2020, 2, 3), "period_end": date(2019, 12, 31), "assets": 10.0}
SECOND = {"symbol": "A", "known_at": date(2020, 5, 1), "period_end": date(2020, 3, 31), "assets": 20.0, "revenue": 5.0}
OTHER = {"symbol": "C", "known_at": date(2020, 3, 2), "shares": 7.0, "shares_as_of": date(2020, 2, 28)}


def column(figure: str, symbol: str, *rows: dict[str, object]) -> dict[date, float]:
    """The figure of one symbol on the days on which it is there."""
    values = Fundamentals.from_statements(table(*rows), DAYS, SYMBOLS)[figure][:, SYMBOLS.index(symbol)]
    return {day: value for day, value in zip(DAYS, values, strict=True) if np.isfinite(value)}


def test_a_statement_counts_from_its_session_until_the_next_one() -> None:
    assets = column("assets", "A", FIRST, SECOND, OTHER)
    assert min(assets) == date(2020, 2, 3)
    assert assets[date(2020, 4, 30)] == 10.0
    assert assets[date(2020, 5, 1)] == 20.0
    assert min(column("revenue", "A", SECOND, FIRST, OTHER)) == date(2020, 5, 1)
    assert column("assets", "B", FIRST, SECOND) == {}
    assert column("assets", "C", OTHER) == {}


def test_an_old_figure_is_a_missing_one() -> None:
    assert max(column("assets", "A", FIRST)) == date(2021, 7, 1)  # 548 days after the end of 2019
    counted = column("shares", "C", OTHER)
    assert (min(counted), max(counted)) == (date(2020, 3, 2), date(2021, 2, 26))  # 366 days end on a Sunday


def test_a_newer_statement_without_a_figure_hides_the_older_one() -> None:
    silent = {"symbol": "A", "known_at": date(2020, 6, 1), "shares": 3.0, "shares_as_of": date(2020, 5, 29)}
    assert max(column("assets", "A", FIRST, silent)) == date(2020, 5, 29)


def test_a_figure_that_nobody_reported_is_missing_and_all_figures_have_the_shape_of_the_panel() -> None:
    for statements in (table(), table(FIRST, OTHER)):
        fundamentals = Fundamentals.from_statements(statements, DAYS, SYMBOLS)
        for figure in FIGURES:
            assert fundamentals[figure].shape == (len(DAYS), len(SYMBOLS))
        assert np.isnan(fundamentals["net_income"]).all()
