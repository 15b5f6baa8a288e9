"""Scaling of 158 features by date, with imputation: 500 stocks x 2,520 days, against skfolio, scikit-learn and qlib.

On invented features of several distributions, three values in a hundred missing. Ours goes from a frame to a frame and
imputes; the peers do not impute: skfolio's transformers take one matrix (dates, stocks) for each feature,
scikit-learn's scaler one (stocks, features) for each date, qlib's processor one frame. Every time is the best of
several, warm, peers and ours in the same run; but a slow peer is measured once, and skfolio's ranks, which take
minutes, on `peer_features` of the features, multiplied up to all of them. Run it with
`.venv/bin/python benchmarks/cross_section.py [--json] [--only NAME]`.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.cross_section import Method, scale

STOCKS, DAYS, FEATURES, MISSING = 500, 2520, 158, 0.03
TARGETS: dict[Method, float] = {"standard": 1.0, "minmax": 1.0, "rank": 2.5, "robust": 2.5}
NAMES = tuple(f"{method}_158" for method in TARGETS)

Matrices = np.ndarray
"""Float32 of shape (features, dates, stocks), NaN where missing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--only", choices=NAMES, action="append", help="this benchmark alone; may be repeated")
    options = parser.parse_args()
    matrices = invented()
    frame = as_frame(matrices)
    results = []
    for method, target in TARGETS.items():
        name = f"{method}_158"
        if name in (options.only or NAMES):
            results.append({"name": name, **measure(method, frame, matrices), "target": target})
            if not options.json:
                print(json.dumps(results[-1]))
    print(json.dumps({"benchmark": "cross_section", "results": results}))


def measure(method: Method, frame: pl.DataFrame, matrices: Matrices) -> dict[str, Any]:
    names = frame.columns[2:]
    peer, times, features, work = PEERS[method]
    ours_s = best_of(5, lambda: scale(frame, names, method))
    peer_s = best_of(times, lambda: work(frame, matrices[:features])) * FEATURES / features
    return {
        "ours_s": round(ours_s, 3),
        "peer": peer,
        "peer_s": round(peer_s, 2),
        "peer_features": features,
        "ratio": round(peer_s / ours_s, 1),
    }


# Peers ----------------------------------------------------------------------------------------------------------------


def skfolio_standard(frame: pl.DataFrame, matrices: Matrices) -> None:
    from skfolio.preprocessing import CSStandardScaler

    for matrix in matrices:
        CSStandardScaler().fit_transform(matrix)


def skfolio_rank(frame: pl.DataFrame, matrices: Matrices) -> None:
    from skfolio.preprocessing import CSPercentileRankScaler

    for matrix in matrices:
        CSPercentileRankScaler().fit_transform(matrix)


def sklearn_minmax(frame: pl.DataFrame, matrices: Matrices) -> None:
    from sklearn.preprocessing import MinMaxScaler

    for day in range(matrices.shape[1]):
        MinMaxScaler().fit_transform(matrices[:, day].T)


def qlib_robust(frame: pl.DataFrame, matrices: Matrices) -> None:
    from qlib.data.dataset.processor import CSZScoreNorm

    # qlib keeps features under a first level of column names, and days and stocks in the index.
    stocks = frame.to_pandas().set_index(["date", "symbol"]).rename_axis(["datetime", "instrument"])
    stocks.columns = [["feature"] * stocks.shape[1], list(stocks.columns)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CSZScoreNorm(fields_group="feature", method="robust")(stocks)


PEERS: dict[Method, tuple[str, int, int, Callable[[pl.DataFrame, Matrices], None]]] = {
    "standard": ("skfolio CSStandardScaler", 3, FEATURES, skfolio_standard),
    "minmax": ("scikit-learn MinMaxScaler by date", 3, FEATURES, sklearn_minmax),
    "rank": ("skfolio CSPercentileRankScaler", 1, 16, skfolio_rank),
    "robust": ("qlib CSZScoreNorm(method='robust')", 1, FEATURES, qlib_robust),
}
"""By method: the peer, how often it is measured, on how many features, and its work.

skfolio scales neither to a range nor by quartiles.
"""


# Features -------------------------------------------------------------------------------------------------------------


def invented() -> Matrices:
    """Normal, fat-tailed, skewed and coarse features in turn."""
    rng = np.random.default_rng(1)
    matrices = np.empty((FEATURES, DAYS, STOCKS), dtype=np.float32)
    shape = matrices.shape[1:]
    kinds: tuple[Callable[[], np.ndarray], ...] = (
        lambda: rng.standard_normal(shape, dtype=np.float32),
        lambda: rng.standard_t(3, shape),
        lambda: rng.lognormal(12, 1, shape),
        lambda: rng.integers(0, 61, shape) / 60,
    )
    for feature, matrix in enumerate(matrices):
        matrix[:] = kinds[feature % len(kinds)]()
        matrix[rng.random(shape, dtype=np.float32) < MISSING] = np.nan
    return matrices


def as_frame(matrices: Matrices) -> pl.DataFrame:
    days = trading_calendar("XNYS").sessions(date(2010, 1, 4), date(2021, 1, 29))[:DAYS]
    features = {
        f"feature_{number}": pl.Series(matrix.ravel(), nan_to_null=True) for number, matrix in enumerate(matrices)
    }
    return pl.DataFrame(
        {
            "symbol": pl.Series([f"S{number:04d}" for number in range(STOCKS)]).gather(
                np.tile(np.arange(STOCKS), DAYS)
            ),
            "date": pl.Series(days, dtype=pl.Date).gather(np.repeat(np.arange(DAYS), STOCKS)),
            **features,
        }
    )


def best_of(times: int, work: Callable[[], Any]) -> float:
    if times > 1:
        work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
