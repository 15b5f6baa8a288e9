"""`compute` leaves the answer of a function that it was told of, and executes no other."""

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.compute.travelling import packed, pickled, unpacked
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.container.compute import (
    ANSWER,
    BY,
    CODE,
    DIGEST,
    ENGINE,
    FRAMES,
    FUNCTION,
    PYTHON,
    SCHEMA,
    compute,
    python_version,
)
from stockpicker_dagster.training.container.layout import Layout
from stockpicker_dagster_tests.research.price_frames import START, same_bytes, sessions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = pl.DataFrame({"symbol": ["B", "A", "B"], "date": sessions(START, START) * 3, "x": [1.0, None, -0.0]})
SORTED = partial(pl.DataFrame.sort, by=["symbol", "x"])


def refusing(frame: pl.DataFrame) -> pl.DataFrame:
    raise InvalidInput("keep one row a day and symbol")


def broken(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col("absent"))


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A job that sorts three rows."""
    there = Layout(tmp_path / "ml")
    monkeypatch.setenv(CODE, code_version())
    monkeypatch.setenv(PYTHON, python_version())
    monkeypatch.setenv(BY, "symbol")
    monkeypatch.setenv(ENGINE, "process")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    there.processing_input.mkdir(parents=True)
    (there.processing_input / FRAMES[0]).write_bytes(packed(ROWS))
    (there.processing_input / SCHEMA).write_bytes(packed(ROWS.clear()))
    given(there, pickled(SORTED), monkeypatch)
    return there


def given(layout: Layout, function: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout.processing_input / FUNCTION).write_bytes(function)
    monkeypatch.setenv(DIGEST, hashlib.sha256(function).hexdigest())


def answer(layout: Layout) -> pl.DataFrame:
    assert [path.name for path in layout.processing_output.iterdir()] == [ANSWER]
    return unpacked((layout.processing_output / ANSWER).read_bytes())


def test_the_answer_is_that_of_the_function_here(layout: Layout) -> None:
    assert compute(layout) == 0
    assert same_bytes(answer(layout), SORTED(ROWS))
    assert not layout.message.exists()


@pytest.mark.xdist_group("spark")
def test_on_spark_it_is_the_same(layout: Layout, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE, "spark")
    before = len(spark.sparkContext.statusTracker().getJobIdsForGroup(None))
    assert compute(layout) == 0
    assert same_bytes(answer(layout), SORTED(ROWS))
    assert len(spark.sparkContext.statusTracker().getJobIdsForGroup(None)) > before


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (DIGEST, "0" * 64, "is not the one that the job names in STOCKPICKER_FUNCTION, and is not executed"),
        (CODE, "0" * 16, "build the image of this version and push it"),
        (PYTHON, "2.7", "'2.7' and the image's '3."),
    ],
)
def test_what_the_job_does_not_name_is_not_executed(
    layout: Layout, variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stockpicker_dagster.compute.travelling.unpickled", lambda content: pytest.fail("executed"))
    monkeypatch.setenv(variable, value)
    assert compute(layout) == 1
    assert said in layout.message.read_text()
    assert not layout.processing_output.exists()


def test_why_it_failed_is_the_message(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    given(layout, pickled(refusing), monkeypatch)
    assert compute(layout) == 1
    assert layout.message.read_text() == "keep one row a day and symbol"
    given(layout, pickled(broken), monkeypatch)
    assert compute(layout) == 1
    assert layout.message.read_text().startswith("computing failed with ColumnNotFoundError: ")
    assert not layout.processing_output.exists()
