"""Figures of features, taken while their pieces pass by, and what Dagster shows of them."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.components.feature_view import DayFigures, FeatureView, columns_table, stored_before
from stockpicker_dagster.storage.lake import DEFINITION, Lake

DAY = date(2024, 1, 2)
DAYS = [DAY + timedelta(days=number) for number in range(8)]
NAMES = ("x", "y")


def table(days: list[date], seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    count = len(days) * 30
    values = rng.normal(size=(count, 2)).astype(np.float32)
    frame = pl.DataFrame(
        {
            "symbol": [f"S{number:02d}" for number in range(30)] * len(days),
            "date": [day for day in days for _ in range(30)],
            "x": values[:, 0],
            "y": values[:, 1],
        },
        schema_overrides={"x": pl.Float32, "y": pl.Float32},
    )
    return frame.with_columns(y=pl.when(pl.col("symbol") < "S03").then(None).otherwise(pl.col("y")))


NOTHING = table(DAYS[:1]).clear()


def test_figures_say_how_many_values_there_are_and_between_what() -> None:
    frame = table(DAYS[:2]).with_columns(x=pl.when(pl.col("symbol") == "S05").then(np.inf).otherwise(pl.col("x")))
    figures = DayFigures.of(frame, NAMES)
    assert figures.days == tuple(DAYS[:2])
    assert figures.stocks.tolist() == [30, 30]
    assert figures.values.tolist() == [[30, 27], [30, 27]]
    assert figures.broken.tolist() == [[1, 0], [1, 0]]
    assert figures.coverage.tolist() == [[1.0, 0.9], [1.0, 0.9]]
    first = frame.filter(pl.col("date") == DAY)["y"]
    assert (figures.smallest[0, 1], figures.largest[0, 1]) == (first.min(), first.max())


def test_figures_of_pieces_are_those_of_the_whole_and_the_pieces_stay_as_they_are() -> None:
    frame = table(DAYS)
    pieces = [(DAYS[:5], frame[: 5 * 30]), (DAYS[5:6], frame[5 * 30 : 6 * 30]), (DAYS[6:], frame[6 * 30 :])]
    view, whole = FeatureView(NAMES, NOTHING), FeatureView(NAMES, NOTHING)
    passed = list(view.watched(pieces))
    assert all(mine is theirs for (_, mine), (_, theirs) in zip(passed, pieces, strict=True))
    whole.look_at(DAYS, frame)
    assert view.figures.days == whole.figures.days == tuple(DAYS)
    for name in ("stocks", "values", "broken", "smallest", "largest"):
        np.testing.assert_array_equal(getattr(view.figures, name), getattr(whole.figures, name))
    assert view.metadata() == whole.metadata()


def test_the_table_of_columns_has_null_rates_quantiles_and_the_correlation_with_the_day_before() -> None:
    frame = table(DAYS[:2])
    today, before = frame[30:], frame[:30]
    rows = columns_table(frame, NAMES, DAYS[1]).value.splitlines()
    cells = [cell.strip() for cell in rows[2].split("|")[1:-1]]
    assert cells[:2] == ["x", "0.0%"]
    assert float(cells[3]) == pytest.approx(np.median(today["x"].to_numpy()), rel=1e-2)
    assert float(cells[5]) == pytest.approx(np.corrcoef(today["x"], before["x"])[0, 1], rel=1e-2)
    assert rows[3].split("|")[2].strip() == "10.0%"
    alone = columns_table(today, NAMES, DAYS[1]).value.splitlines()
    assert alone[2].split("|")[6].strip() == ""


def test_the_view_shows_coverage_columns_and_distributions_and_nothing_for_nothing() -> None:
    view = FeatureView(NAMES, NOTHING)
    assert view.metadata() == {}
    view.look_at(DAYS[:3], table(DAYS[:3]))
    shown = view.metadata()
    assert set(shown) == {"coverage", "columns_last_day", "distributions_last_day"}
    for picture in ("coverage", "distributions_last_day"):
        assert shown[picture].value.startswith(f"![{picture.replace('_', ' ')}](data:image/png;base64,")


def test_counts_of_another_table_replace_those_of_the_same_sessions() -> None:
    full = DayFigures.of(table(DAYS[:3]).with_columns(y=pl.lit(0.0, pl.Float32)), NAMES)
    raw = DayFigures.of(table(DAYS[1:3]), NAMES)
    assert full.counting(raw).values.tolist() == [[30, 30], [30, 27], [30, 27]]


def test_only_sessions_before_of_the_same_definition_are_looked_back_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert stored_before(lake, "s/t", NAMES, "now", DAYS[0]).schema == NOTHING.schema
    lake.write_days("s/t", table(DAYS), DAYS, lambda year: [date(year, 12, 31)], {DEFINITION: "now"})
    found = stored_before(lake, "s/t", NAMES, "now", DAYS[7])
    assert found["date"].unique().sort().to_list() == DAYS[2:7]
    assert stored_before(lake, "s/t", NAMES, "other", DAYS[7]).is_empty()
