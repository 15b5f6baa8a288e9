"""The plots: what plotly.js takes, drawn from the right numbers, and told apart without colours."""

import itertools
from datetime import date

import numpy as np
import pandas as pd
import pytest

from stockpicker_dagster.tear_sheet import plots
from stockpicker_dagster.tear_sheet.plots import Plot
from stockpicker_dagster.tear_sheet.sections import sections
from stockpicker_dagster_tests.tear_sheet.invented import invented_sheet, invented_signal

DAYS = [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]


@pytest.fixture(scope="module")
def every_plot() -> list[Plot]:
    return [plot for section in sections(invented_sheet(signal=invented_signal())) for plot in section.plots]


def test_every_promised_plot_is_drawn_once(every_plot: list[Plot]) -> None:
    assert [plot.name for plot in every_plot] == [
        "equity_net",
        "drawdown",
        "rolling_sharpe",
        "equity_gross",
        "random_sharpes",
        "by_year",
        "offsets",
        "exposures",
        "turnover",
        "costs",
        "quantile_fan",
        "rank_ic",
        "ic_decay",
    ]


def test_plotly_knows_every_property(every_plot: list[Plot]) -> None:
    """Plotly's own classes refuse a misspelt name or a value that the browser would drop in silence."""
    from plotly.graph_objects import Figure

    for plot in every_plot:
        assert len(Figure(data=list(plot.data), layout=plot.layout).data) == len(plot.data)


def test_axes_say_what_they_count_and_every_plot_is_told_in_words(every_plot: list[Plot]) -> None:
    for plot in every_plot:
        assert plot.layout["yaxis"]["title"]["text"]
        assert len(plot.description) > 40
        assert "nan" not in plot.description


def test_lines_of_one_plot_differ_in_more_than_colour(every_plot: list[Plot]) -> None:
    def shape(trace: dict) -> tuple:
        line, marker = trace.get("line", {}), trace.get("marker", {})
        return trace["type"], line.get("dash"), line.get("width"), trace.get("fill"), marker.get("symbol")

    for plot in every_plot:
        for first, second in itertools.combinations(plot.data, 2):
            assert shape(dict(first)) != shape(dict(second)), plot.name


def test_the_band_of_three_books_holds_their_wealth() -> None:
    books = np.column_stack([np.full(3, drift) for drift in (-0.1, 0.0, 0.1)])
    plot = plots.equity("equity", "title", DAYS, np.full(3, 0.2), books, "books", "before all costs")
    lower, upper, middle, own = (trace["y"] for trace in plot.data)
    assert own == pytest.approx([1.2, 1.44, 1.728], rel=1e-5)
    assert middle == [1.0, 1.0, 1.0]
    # The 5th of three percentiles at 0, 50 and 100 lies a tenth of the way from the lowest to the middle one.
    assert lower[-1] == pytest.approx(0.9 * 0.9**3 + 0.1, rel=1e-5)
    assert upper[-1] == pytest.approx(0.9 * 1.1**3 + 0.1, rel=1e-5)
    assert "above 3 of theirs" in plot.description


def test_wealth_that_multiplies_is_drawn_on_a_logarithmic_axis_and_says_so() -> None:
    grown = plots.equity("equity", "t", DAYS, np.full(3, 0.9), np.zeros((3, 2)), "books", "gross")
    assert grown.layout["yaxis"]["type"] == "log"
    assert "logarithmic" in grown.description
    ruined = plots.equity("equity", "t", DAYS, np.array([5.0, 0.0, 0.0]), np.full((3, 2), -1.0), "books", "gross")
    assert ruined.layout["yaxis"]["type"] == "linear"


def test_a_gap_is_drawn_as_one_and_never_as_zero() -> None:
    values = np.array([np.nan, 1.0, np.inf])
    plot = plots.rolling_sharpe(DAYS, values, values, values, 2)
    assert plot.data[-1]["y"] == [None, 1.0, None]


def test_a_trailing_mean_counts_known_values_only() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    values[[0, 3, 20, 21, 49]] = np.nan
    known = pd.Series(values).dropna()
    expected = known.rolling(7).mean().reindex(range(50)).to_numpy()
    np.testing.assert_allclose(plots.trailing_mean(values, 7), expected, rtol=1e-12)
    assert np.isnan(plots.trailing_mean(values[:4], 7)).all()
