"""What assets show: columns, rows of each day, what describes a whole run once, and plots that draw what they say."""

import base64
import struct
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.components import metadata
from stockpicker_dagster_tests.tear_sheet.invented import invented_days

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
JANUARY = [date(2024, 1, 1) + timedelta(day) for day in range(100)]


def stored_metadata(
    describe: Callable[[dg.AssetExecutionContext], Mapping[str, Any] | None], days: int | None
) -> dict[str | None, Mapping[str, Any]]:
    """The metadata of each partition's event, where a run of the first `days` (None: no partitions) describes itself.

    What `describe` returns is given to the output itself.
    """

    @dg.asset(
        partitions_def=None if days is None else DAYS,
        backfill_policy=None if days is None else dg.BackfillPolicy.single_run(),
    )
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=dict(describe(context) or {}))

    ends = {} if days is None else {"start": JANUARY[0], "end": JANUARY[days - 1]}
    result = dg.materialize(
        [table],
        instance=dg.DagsterInstance.ephemeral(),
        tags={f"dagster/asset_partition_range_{end}": str(day) for end, day in ends.items()},
    )
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {event.partition: {name: value.value for name, value in event.metadata.items()} for event in events}


def test_a_schema_names_every_column_with_its_type() -> None:
    schema = metadata.column_schema({"symbol": pl.String(), "date": pl.Date(), "x": pl.Float32()})
    assert [(column.name, column.type) for column in schema.columns] == [
        ("symbol", "String"),
        ("date", "Date"),
        ("x", "Float32"),
    ]


def test_each_day_of_a_short_run_carries_its_own_rows_and_a_day_without_rows_none() -> None:
    frame = pl.DataFrame({"date": [JANUARY[0], JANUARY[0], JANUARY[2]]})
    stored = stored_metadata(lambda context: metadata.row_counts(context, frame, JANUARY[:3]), 3)
    rows = {day: each["dagster/partition_row_count"] for day, each in stored.items()}
    assert rows == {"2024-01-01": 2, "2024-01-02": 0, "2024-01-03": 1}
    assert all((each["dagster/row_count"], each["sessions"]) == (3, 3) for each in stored.values())


def test_a_long_run_carries_its_sum_alone() -> None:
    frame = pl.DataFrame({"date": JANUARY})
    stored = stored_metadata(lambda context: metadata.row_counts(context, frame, JANUARY), len(JANUARY))
    assert len(stored) == 100
    assert all(each["dagster/row_count"] == 100 for each in stored.values())
    assert not [day for day, each in stored.items() if "dagster/partition_row_count" in each]


@pytest.mark.parametrize(("days", "last"), [(3, "2024-01-03"), (1, "2024-01-01"), (None, None)])
def test_what_describes_a_run_is_stored_once_with_its_last_partition(days: int | None, last: str | None) -> None:
    def describe(context: dg.AssetExecutionContext) -> None:
        metadata.describe_last(context, {"note": "once"})

    stored = stored_metadata(describe, days)
    assert len(stored) == (days or 1)
    assert {partition for partition, each in stored.items() if each.get("note") == "once"} == {last}


def size_of_picture(value: dg.MetadataValue) -> tuple[int, int]:
    """Width and height in pixels, from the PNG's own header."""
    assert isinstance(value, dg.MarkdownMetadataValue)
    picture = base64.b64decode(value.value.partition("base64,")[2].removesuffix(")"), validate=True)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def test_every_plot_is_a_picture_inside_markdown_that_needs_no_network() -> None:
    own, books = np.full(3, 0.01), np.zeros((3, 5))
    plots = {
        **metadata.lines_plot("stocks_with_prices", pl.DataFrame({"date": JANUARY[:3], "n": [1, 2, 3]})),
        **metadata.histogram("scores", np.arange(5.0), "score"),
        **metadata.bars("ics", ["a", "b"], [0.1, 0.2]),
        **metadata.equity_plot("equity", JANUARY[:3], own, books),
        **metadata.distributions("spread", {"a": np.arange(50.0), "b": np.ones(50), "c": np.empty(0)}),
    }
    assert set(plots) == {"stocks_with_prices", "scores", "ics", "equity", "spread"}
    for value in plots.values():
        assert str(value.value).startswith("![")
        assert "http" not in str(value.value).partition("base64,")[0]
        width, height = size_of_picture(value)
        assert width == 630
        assert height > 80


def test_bars_grow_with_what_they_show() -> None:
    few, many = (metadata.bars("ics", list(map(str, range(count))), [0.1] * count)["ics"] for count in (2, 40))
    assert size_of_picture(many)[1] > 4 * size_of_picture(few)[1]


def test_too_little_to_draw_is_no_plot() -> None:
    assert metadata.lines_plot("n", pl.DataFrame({"date": JANUARY[:1], "n": [1]})) == {}
    assert metadata.histogram("n", np.ones(1), "n") == {}
    assert metadata.bars("n", [], []) == {}
    assert metadata.distributions("n", {}) == {}
    assert metadata.equity_plot("n", JANUARY[:1], np.zeros(1), np.zeros((1, 3))) == {}


def test_a_back_test_is_drawn_from_its_stored_days_as_far_as_they_reach() -> None:
    whole = invented_days(books=20)
    assert set(metadata.backtest_plots(whole, "simulated")) == {"equity", "drawdown", "rolling_sharpe", "costs"}
    assert set(metadata.backtest_plots(whole.head(50))) == {"equity", "drawdown", "costs"}
    assert metadata.backtest_plots(whole.head(1)) == {}
    for picture in metadata.backtest_plots(whole, "simulated").values():
        assert "simulated](data:image/png" in str(picture.value)


def test_the_equity_curve_compounds_and_lies_over_the_books_percentiles() -> None:
    from matplotlib.figure import Figure

    rng = np.random.default_rng(0)
    own, books = 0.01 * rng.standard_normal(30), 0.01 * rng.standard_normal((30, 200))
    axes = Figure().subplots()
    metadata.draw_equity(axes, JANUARY[:30], own, books)
    lines = {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()}
    np.testing.assert_allclose(lines["strategy"], np.exp(np.cumsum(np.log1p(own))), rtol=1e-12)
    wealth = np.sort(np.exp(np.cumsum(np.log1p(books), axis=0)), axis=1)
    np.testing.assert_allclose(lines["random books, median"], wealth[:, 99:101].mean(axis=1), rtol=1e-12)
    [band] = axes.collections
    outline = np.asarray(band.get_paths()[0].vertices, dtype=float)[:, 1]
    assert outline.min() > wealth.min()
    assert outline.max() < wealth.max()
    assert outline.max() > lines["random books, median"].max()
