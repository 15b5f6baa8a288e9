"""What `compute: spark` costs where there is little to do, and where it starts to pay: the same work with and without.

On invented prices, on Spark's `local[2]`, that is on as many cores as are used without it: what is measured is the way
to Spark and back, which a larger cluster does not shorten. `own_feature` is a feature of one's own in plain Python,
which one process cannot spread over its cores; the shipped sets are compiled and use all of them already. Every time is
the best of several, warm; the start of the session is reported apart. Run it with `.venv/bin/python benchmarks/spark.py
[--json]`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from features import CALENDAR, as_frame, best_of, invented

from stockpicker_dagster.compute import Compute
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.spark import OnSpark
from stockpicker_dagster.compute.spark_session import SETTINGS, spark_session
from stockpicker_dagster.home import Home
from stockpicker_dagster.research.cross_section import scale_at
from stockpicker_dagster.research.features import FeatureSet, Panel, feature, feature_set
from stockpicker_dagster.research.features.computation import compute_by_year

START = date(2012, 1, 3)
DAYS = CALENDAR.sessions(date(2012, 7, 2), date(2012, 12, 31))
"""Half a year: 126 sessions, and as many before them."""
SIZES = (100, 3000)


@feature(lookback=20, inputs=("close", "adjustment"), scale_invariant=True)
def own_feature(panel: Panel) -> np.ndarray:
    """Share of 20 sessions on which P rose, counted one by one in Python."""
    close = panel.adjusted_close
    values = np.full(panel.shape, np.nan)
    for column in range(panel.shape[1]):
        prices = close[:, column].tolist()
        for row in range(panel.since, len(prices)):
            window = prices[row - 19 : row + 1]
            values[row, column] = sum(later > sooner for sooner, later in pairwise(window)) / 20
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / SETTINGS).write_text("spark.master local[2]\n")
        began = time.perf_counter()
        session = spark_session(Home(Path(folder)))
        start_s = time.perf_counter() - began
    there = OnSpark(session)
    results = []
    for stocks in SIZES:
        for name, work in works(stocks).items():
            here_s, here = best_of(2, partial(work, IN_PROCESS))
            first = time.perf_counter()
            work(there)
            first_s = time.perf_counter() - first
            spark_s, found = best_of(2, partial(work, there))
            assert found.equals(here)
            results.append(
                {
                    "name": f"{name}_{stocks}",
                    "rows": here.height,
                    "in_process_s": round(here_s, 3),
                    "spark_s": round(spark_s, 3),
                    "spark_first_s": round(first_s, 2),
                    "ratio": round(here_s / spark_s, 2),
                }
            )
            if not options.json:
                print(json.dumps(results[-1]))
    print(json.dumps({"benchmark": "spark", "start_s": round(start_s, 1), "results": results}))


def works(stocks: int) -> dict[str, Callable[[Compute], pl.DataFrame]]:
    sessions = CALENDAR.sessions(START, DAYS[-1])
    prices = as_frame(sessions, invented(len(sessions), stocks, seed=1))
    alpha158 = feature_set("alpha158")

    def features(chosen: FeatureSet, where: Compute) -> pl.DataFrame:
        ((_, table),) = compute_by_year(chosen, prices.lazy(), DAYS, CALENDAR, START, where=where)
        return table

    computed = features(alpha158, IN_PROCESS)

    def scaling(where: Compute) -> pl.DataFrame:
        return scale_at(where, computed, alpha158.names, "standard")

    own: dict[str, Any] = {"own_feature": partial(features, FeatureSet.of("own", [own_feature]))}
    return {"alpha158": partial(features, alpha158), "scaling": scaling, **own}


if __name__ == "__main__":
    main()
