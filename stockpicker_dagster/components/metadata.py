"""What assets show in Dagster: column schemas, rows a day and small plots.

Plots are PNG pictures inside Markdown, which Dagster's pages draw without fetching anything.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from stockpicker_dagster.research.backtest.days import COSTS, returns_matrix
from stockpicker_dagster.research.backtest.risk_ratios import drawdowns
from stockpicker_dagster.research.backtest.rolling import rolling_sharpes, rolling_window

_INK = "#1f4e79"
_BAND = "#d99a4e"
_LINES = (("#0072B2", "-"), ("#D55E00", "--"), ("#E69F00", ":"), ("#AA4A87", "-."))
"""Colours that colour-blind readers can tell apart, and dashes for print."""
_COUNTED_DAYS = 60


def column_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """A table's columns as Dagster shows them."""
    return dg.TableSchema([dg.TableColumn(name, str(kind)) for name, kind in schema.items()])


def row_counts(context: dg.AssetExecutionContext, frame: pl.DataFrame, days: Sequence[date]) -> dict[str, Any]:
    """The number of rows made by the run, as in `day_counts`."""
    counts = dict(frame.group_by("date").len().iter_rows())
    return day_counts(context, {day: counts.get(day, 0) for day in days})


def day_counts(context: dg.AssetExecutionContext, counts: Mapping[date, int]) -> dict[str, Any]:
    """The number of rows made by the run; in a run of few sessions each partition carries its own as well.

    Dagster checks every partition's metadata against all partitions of the run, which takes too long for thousands.
    """
    if len(counts) <= _COUNTED_DAYS:
        for day, count in counts.items():
            context.add_asset_metadata({"dagster/partition_row_count": count}, partition_key=str(day))
    return {"dagster/row_count": sum(counts.values()), "sessions": len(counts)}


def describe_last(context: dg.AssetExecutionContext, metadata: Mapping[str, Any]) -> None:
    """Attaches what describes a whole run to its last partition.

    Metadata of an output is stored with every partition of the run, and a plot in each of a thousand events fills the
    disk.
    """
    if context.assets_def.partitions_def is None:
        context.add_output_metadata(metadata)
    else:
        context.add_asset_metadata(metadata, partition_key=max(context.partition_keys))


def lines_plot(name: str, frame: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    """Each further column of `frame` over its first one; nothing for fewer than two rows."""
    if frame.height < 2:
        return {}
    figure, axes = _axes()
    for column in frame.columns[1:]:
        axes.plot(frame[frame.columns[0]].to_list(), frame[column].to_numpy(), linewidth=1.2, color=_INK, label=column)
    return {name: _picture(figure, axes, name.replace("_", " "))}


def histogram(name: str, values: np.ndarray, unit: str) -> dict[str, dg.MetadataValue]:
    """How `values` are distributed; nothing for fewer than two."""
    if len(values) < 2:
        return {}
    figure, axes = _axes()
    axes.hist(values, bins=40, color=_INK)
    axes.set_xlabel(unit)
    return {name: _picture(figure, axes, name.replace("_", " "))}


def bars(name: str, labels: Sequence[str], values: Sequence[float]) -> dict[str, dg.MetadataValue]:
    """One horizontal bar a label."""
    if not labels:
        return {}
    figure, axes = _axes(height=0.22 * len(labels) + 1.0)
    axes.barh(range(len(labels)), values, color=_INK)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.invert_yaxis()
    return {name: _picture(figure, axes, name.replace("_", " "))}


def distributions(name: str, columns: Mapping[str, np.ndarray]) -> dict[str, dg.MetadataValue]:
    """One row a column: how its values spread from the 1st (left) to the 99th percentile (right), darker where more.

    Columns with fewer than two different values have an empty row.
    """
    if not columns:
        return {}
    shares = np.array([_shares(values) for values in columns.values()])
    figure, axes = _axes(height=0.13 * len(columns) + 0.8)
    axes.imshow(shares, aspect="auto", cmap="Blues", extent=(1, 99, len(columns) - 0.5, -0.5), interpolation="nearest")
    axes.grid(visible=False)
    axes.set_yticks(range(len(columns)), columns, fontsize=5)
    axes.set_xlabel("from the 1st to the 99th percentile", fontsize=7)
    axes.set_xticks([])
    return {name: _picture(figure, axes, name.replace("_", " "))}


def _shares(values: np.ndarray, bins: int = 48) -> np.ndarray:
    low, high = np.percentile(values, [1, 99]) if len(values) > 1 else (0.0, 0.0)
    if not low < high:
        return np.zeros(bins)
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    return counts / max(counts.max(), 1)


def equity_plot(
    name: str, days: Sequence[date], own: np.ndarray, books: np.ndarray, caveat: str = ""
) -> dict[str, dg.MetadataValue]:
    """Compounded net returns of the strategy over the 5th to 95th percentile of random books, from equity 1.

    `caveat` is part of the picture, so that it stays with it wherever the picture goes.
    """
    if len(days) < 2:
        return {}
    figure, axes = _axes()
    draw_equity(axes, days, own, books)
    return {name: _picture(figure, axes, "; ".join(filter(None, ("equity after costs, start = 1", caveat))))}


def backtest_plots(days: pl.DataFrame, caveat: str = "") -> dict[str, dg.MetadataValue]:
    """Stored days (`BACKTEST_SCHEMA`) as pictures: wealth among random books, drawdown, rolling Sharpe ratio, costs.

    `caveat` is part of each picture. A picture for which there are too few days is left out.
    """
    if days.height < 2:
        return {}
    sessions, net = days["date"].to_list(), days["net_return"].to_numpy()
    books = returns_matrix(days["random_net_returns"])
    lines = {
        "drawdown": ("drawdown after costs, part of the peak", {"drawdown": -drawdowns(net)}),
        "costs": ("costs so far, part of equity", {kind: days[kind].cum_sum().to_numpy() for kind in COSTS}),
    }
    if window := rolling_window(days.height):
        rolling = {"strategy": rolling_sharpes(net[:, None], window)[:, 0]}
        lines["rolling_sharpe"] = (f"Sharpe ratio after costs, last {window} sessions", rolling)
    pictures = equity_plot("equity", sessions, net, books, caveat)
    for name, (title, drawn) in lines.items():
        figure, axes = _axes()
        for (label, values), (colour, dash) in zip(drawn.items(), _LINES, strict=False):
            axes.plot(sessions, values, color=colour, linestyle=dash, linewidth=1.2, label=label)
        if len(drawn) > 1:
            axes.legend(loc="upper left", fontsize=7, frameon=False)
        pictures[name] = _picture(figure, axes, "; ".join(filter(None, (title, caveat))))
    return pictures


def draw_equity(axes: Any, days: Sequence[date], own: np.ndarray, books: np.ndarray) -> None:
    """The curve of `own` daily returns (T,) in the band of `books` (T, n), on matplotlib axes."""
    wealth = np.cumprod(1 + books, axis=0)
    low, middle, high = np.percentile(wealth, [5, 50, 95], axis=1)
    axes.fill_between(days, low, high, color=_BAND, alpha=0.35, linewidth=0, label="random books, 5 to 95 %")
    axes.plot(days, middle, color=_BAND, linewidth=1.0, linestyle="--", label="random books, median")
    axes.plot(days, np.cumprod(1 + own), color=_INK, linewidth=1.5, label="strategy")
    axes.legend(loc="upper left", fontsize=7, frameon=False)


def _axes(height: float = 2.6) -> tuple[Any, Any]:
    # The figure is made without pyplot, whose global state is not safe in a server's threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, height), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _picture(figure: Any, axes: Any, title: str) -> dg.MarkdownMetadataValue:
    axes.set_title(title, fontsize=9, loc="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
