"""The tables: every figure has a unit and a definition, and months compound as pandas says."""

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from stockpicker_dagster.evaluation.against_reference import AgainstReference, ReferenceResult
from stockpicker_dagster.research.backtest.capacity import Capacity
from stockpicker_dagster.research.backtest.days import summarize
from stockpicker_dagster.research.backtest.factor_model import against_benchmark, factor_model
from stockpicker_dagster.tear_sheet import tables
from stockpicker_dagster_tests.tear_sheet.invented import SESSIONS, invented_days, invented_sheet, invented_signal

NET = invented_days()["net_return"].to_numpy()


def test_months_and_years_compound() -> None:
    series = pd.Series(1.0 + NET, index=pd.DatetimeIndex(SESSIONS))
    months = (series.resample("ME").prod() - 1.0) * 100.0
    years = (series.resample("YE").prod() - 1.0) * 100.0
    table = tables.months_table(SESSIONS, NET)
    assert [row.year for row in table] == [2021, 2022, 2023]
    shown = [float(cell.shown) for row in table for cell in row.months if cell is not None]
    assert shown == pytest.approx(months.to_list(), abs=0.0501)
    assert [float(row.whole.shown) for row in table] == pytest.approx(years.to_list(), abs=0.0501)


def test_a_month_without_a_session_is_empty_and_a_book_that_stood_still_is_not() -> None:
    (row,) = tables.months_table([date(2024, 3, 8), date(2024, 5, 9)], np.zeros(2))
    assert [month for month, cell in enumerate(row.months, 1) if cell is not None] == [3, 5]
    assert row.months[2] == tables.Cell("+0.0", 0)


def test_a_gain_is_never_tinted_as_a_loss() -> None:
    cells = [cell for row in tables.months_table(SESSIONS, NET) for cell in (*row.months, row.whole) if cell]
    assert all(cell.tint * float(cell.shown) >= 0.0 for cell in cells)
    assert {cell.tint for cell in cells} >= {-1, 0, 1}


def test_every_figure_has_a_value_and_a_definition() -> None:
    sheet, days = invented_sheet(), invented_days()
    summary = summarize(days)
    assert summary is not None
    assert sheet.judgement.verdict is not None
    signal = invented_signal()
    rows = [
        *tables.verdict_rows(sheet.judgement.verdict, "simulated on simulated"),
        *tables.performance_rows(summary, days),
        *tables.signal_rows(signal.study, signal.own),
    ]
    assert len({row.name for row in rows}) > 35
    for row in rows:
        assert row.shown
        assert "nan" not in row.shown
        assert row.definition.endswith(".")


def test_figures_that_do_not_exist_are_dashes_and_never_numbers() -> None:
    verdict = invented_sheet().judgement.verdict
    assert verdict is not None
    without = replace(verdict, minimum_track_record=math.inf, break_even_cost=math.nan, overfitting=None, offsets=None)
    shown = {row.name: row.shown for row in tables.verdict_rows(without, "here")}
    assert shown["Least track record"] == "never"
    assert shown["Break-even costs"] == "– times"
    assert shown["Probability of over-fitting"] == "–"
    assert "Over rebalance offsets" not in shown


def test_costs_are_told_by_kind_and_add_up() -> None:
    days = invented_days()
    summary = summarize(days)
    assert summary is not None
    row = next(row for row in tables.performance_rows(summary, days) if row.name == "Costs")
    paid = sum(252.0 * 100.0 * float(days[kind].mean()) for kind in ("commission", "spread", "impact", "borrow"))  # type: ignore[arg-type]
    assert row.shown == f"{paid:.2f} % per year"
    assert "borrow 0.50 %" in row.definition


def test_benchmark_and_factors_are_shown_with_the_sessions_that_they_cover() -> None:
    market, size = np.random.default_rng(2).normal(size=(2, len(NET))) * 0.01
    figures = AgainstReference(
        SESSIONS[0],
        SESSIONS[-1],
        len(SESSIONS),
        "mkt",
        against_benchmark(NET, market),
        factor_model(NET, {"mkt": market, "smb": size}),
    )
    rows = tables.reference_rows(ReferenceResult(figures, ""))
    assert [row.name for row in rows][:2] == ["Beta against mkt", "Alpha against mkt"]
    assert [row.name for row in rows][-2:] == ["Beta on mkt", "Beta on smb"]
    assert f"{SESSIONS[0]} to {SESSIONS[-1]}" in rows[0].definition
    assert tables.reference_rows(ReferenceResult(None, "no file")) == []


def test_capacity_is_in_currency() -> None:
    rows = tables.capacity_rows(Capacity(half_of_return=1e6, break_even=4e6, at_one_percent_of_volume=2.5e5))
    assert [row.shown for row in rows] == ["1,000,000 in currency", "4,000,000 in currency", "250,000 in currency"]
