"""Draws the README's picture from the stored back-test of a strategy: its equity in the band of its random books.

Run it after `make demo`; the state folder is the one that every command uses. How the curve is drawn is the business of
`stockpicker_dagster.components.metadata`, which draws the same one in Dagster's pages.
"""

from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from stockpicker_dagster.components.metadata import draw_equity
from stockpicker_dagster.home import home
from stockpicker_dagster.research.backtest.days import returns_matrix
from stockpicker_dagster.storage.lake import Lake

PICTURE = Path(__file__).parent / "images" / "equity.png"


def draw(strategy: str, days: pl.DataFrame, caveat: str) -> Figure:
    """The figure for stored days of `backtest_metrics`, in order of date; `caveat` is part of its title."""
    figure = Figure(figsize=(8.0, 3.2), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    dates = days["date"].to_list()
    draw_equity(axes, dates, days["net_return"].to_numpy(), returns_matrix(days["random_net_returns"]))
    axes.set_title(f"{strategy}, {caveat}: equity after costs, start = 1", loc="left", fontsize=10)
    axes.margins(x=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure


def main() -> None:
    """Writes `docs/images/equity.png` from the demo's stored days."""
    lake, table = Lake(home().lake), "quickstart/backtest_metrics"
    figure = draw("quickstart", lake.read(table, lake.days(table)), "simulated market")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
