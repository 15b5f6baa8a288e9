"""A real Spark on two cores: what it computes has the bytes of what is computed here."""

import sys
import types
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.compute import spark as spark_room
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.spark import ComputeFailed, OnSpark
from stockpicker_dagster.research.cross_section import scale_at
from stockpicker_dagster.research.features import compute, feature_set
from stockpicker_dagster.research.features.computation import compute_by_year
from stockpicker_dagster.research.neutralization import Exposures
from stockpicker_dagster_tests.research.price_frames import CALENDAR, START, random_market, same_bytes, sessions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.xdist_group("spark")

DAYS = sessions(START, date(2019, 2, 15))
WANTED = DAYS[-40:]
"""Over a turn of the year, so that there are two anchors and two jobs."""
KEYS = {"symbol": pl.String, "date": pl.Date}


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return random_market(DAYS, 21, seed=5)


def joined(pieces: Any) -> pl.DataFrame:
    return pl.concat(table for _, table in pieces)


@pytest.mark.parametrize("name", ["alpha158", "factors"])
def test_features_by_symbol_are_bit_identical(spark: "SparkSession", market: pl.DataFrame, name: str) -> None:
    features = feature_set(name)
    there = joined(compute_by_year(features, market.lazy(), WANTED, CALENDAR, START, where=OnSpark(spark)))
    assert same_bytes(there, compute(features, market, WANTED, CALENDAR, START))
    assert there.height > 20 * 38


@pytest.mark.long
def test_scaling_by_date_is_bit_identical(spark: "SparkSession", market: pl.DataFrame) -> None:
    features = feature_set("factors")
    rows = compute(features, market, WANTED, CALENDAR, START)
    rng = np.random.default_rng(1)
    table = rows.select("symbol", "date").with_columns(
        sector=pl.Series(rng.choice(["Energy", "Utilities", "Financials"], rows.height)).set(
            pl.Series(rng.random(rows.height) < 0.1), None
        ),
        size=pl.Series(rng.normal(20, 2, rows.height)),
    )
    for exposures in (None, Exposures(table, "sector", ("size",))):
        arguments = (rows, features.names, "robust", "median", (0.02, 0.98), exposures)
        assert same_bytes(scale_at(OnSpark(spark), *arguments), scale_at(IN_PROCESS, *arguments))


def test_statements_of_companies_go_where_their_stocks_go(spark: "SparkSession") -> None:
    left = pl.DataFrame({"symbol": ["B", "A", "B"], "date": [START, START, DAYS[1]], "x": [1.0, 2.0, None]})
    right = pl.DataFrame({"symbol": ["A", "C", "B", "B"], "y": [-0.0, 7.0, np.nan, 3.0]})

    def beside(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
        counts = other.group_by("symbol").agg(pl.col("y").sum())
        return one.join(counts, on="symbol", how="left").sort("date", "symbol")

    schema = {**KEYS, "x": pl.Float64, "y": pl.Float64}
    assert same_bytes(OnSpark(spark).run(beside, [left, right], "symbol", schema), beside(left, right))
    nobody = right.clear()
    assert same_bytes(OnSpark(spark).run(beside, [left, nobody], "symbol", schema), beside(left, nobody))


def test_many_jobs_give_what_one_gives(
    spark: "SparkSession", market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = market.select("symbol", "date", "close")
    work, schema = partial(pl.DataFrame.sort, by=["date", "symbol"]), {**KEYS, "close": pl.Float64}
    expected = work(rows)
    jobs: list[int] = []
    job = OnSpark._job

    def counted(self: OnSpark, pickled: bytes, numbers: Sequence[int], sent: Sequence[list[bytes]]) -> Any:
        jobs.append(len(numbers))
        return job(self, pickled, numbers, sent)

    monkeypatch.setattr(OnSpark, "_job", counted)
    monkeypatch.setattr(spark_room, "_BYTES_AT_A_TIME", 1)
    assert same_bytes(OnSpark(spark).run(work, [rows], "symbol", schema), expected)
    assert jobs == [2, 2, 2, 1]


def test_nothing_to_do_needs_no_task(market: pl.DataFrame) -> None:
    none = OnSpark(None).run(lambda frame: frame, [market.clear()], "symbol", market.schema)  # type: ignore[arg-type]
    assert none.schema == market.schema


def test_the_reason_of_a_failed_task_is_a_sentence(spark: "SparkSession", market: pl.DataFrame) -> None:
    twice = pl.concat([market, market.filter(pl.col("symbol") == "S3")])
    pieces = compute_by_year(feature_set("factors"), twice.lazy(), WANTED, CALENDAR, START, where=OnSpark(spark))
    said = r"^a task on Spark failed: .*more than one row for S3 on .*; keep one row a day and symbol$"
    with pytest.raises(ComputeFailed, match=said):
        list(pieces)


OWN = """
import numpy as np
import polars as pl
from numba import njit

SCALE = 3.0

def helper(values):
    return tripled(values)

@njit
def tripled(values):
    return values * SCALE

def work(frame):
    return frame.select("symbol", "date", close=pl.Series(helper(frame["close"].to_numpy()))).sort("date", "symbol")
"""


@pytest.fixture
def own_module() -> Iterator[types.ModuleType]:
    """A module that no other process can import."""
    module = types.ModuleType("known_here_alone")
    sys.modules[module.__name__] = module
    exec(OWN, module.__dict__)
    yield module
    del sys.modules[module.__name__]


def test_functions_and_kernels_of_a_module_of_ones_own_travel_along(
    spark: "SparkSession", market: pl.DataFrame, own_module: types.ModuleType
) -> None:
    rows, schema = market.select("symbol", "date", "close"), {**KEYS, "close": pl.Float64}
    found = OnSpark(spark, [own_module.__name__]).run(own_module.work, [rows], "symbol", schema)
    assert same_bytes(found, own_module.work(rows))
    with pytest.raises(ComputeFailed, match="No module named 'known_here_alone'"):
        OnSpark(spark).run(own_module.work, [rows], "symbol", schema)
