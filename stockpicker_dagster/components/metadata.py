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

_INK = "#1f4e79"
_BAND = "#d99a4e"
_COUNTED_DAYS = 60


def column_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """A table's columns as Dagster shows them."""
    return dg.TableSchema([dg.TableColumn(name, str(kind)) for name, kind in schema.items()])


def row_counts(context: dg.AssetExecutionContext, frame: pl.DataFrame, days: Sequence[date]) -> dict[str, Any]:
    """The number of rows made by the run; in a run of few sessions each partition carries its own as well.

    Dagster checks every partition's metadata against all partitions of the run, which takes too long for thousands.
    """
    if len(days) <= _COUNTED_DAYS:
        counts = dict(frame.group_by("date").len().iter_rows())
        for day in days:
            context.add_asset_metadata({"dagster/partition_row_count": counts.get(day, 0)}, partition_key=str(day))
    return {"dagster/row_count": frame.height, "sessions": len(days)}


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
