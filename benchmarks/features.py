"""Alpha158: against qlib and KunQuant on 500 stocks x 2,520 days, one day of 3,000 stocks, and 3,000 stocks x 20 years.

All on invented prices. The comparisons are of whole answers: ours from a frame of prices to a frame of features; qlib's
`D.features` from its own files, caches off, on as many kernels as there are processors; KunQuant's from matrices to
matrices in single precision, compiled beforehand by a C++ compiler, on as many threads. Every time is the best of
several, warm; the first call in a fresh process is reported apart (`cold_s` with nothing compiled, `start_s` with
kernels kept from before). Run it with `.venv/bin/python benchmarks/features.py [--json] [--only NAME]`.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import PRICES_SCHEMA
from stockpicker_dagster.research.features.computation import compute, compute_by_year, first_needed
from stockpicker_dagster.research.features.declaration import feature_set
from stockpicker_dagster.storage.lake import Lake

CALENDAR = trading_calendar("XNYS")
START = date(2004, 1, 2)
PROCESSORS = len(os.sched_getaffinity(0))
NAMES = ("alpha158_vs_qlib", "alpha158_vs_kunquant", "append_day_3000", "russell3000_20y")
FASTER_THAN_QLIB, FASTER_THAN_KUNQUANT, APPEND_SECONDS, PEAK_GIB = 30.0, 2.0, 1.0, 8.0
RUSSELL = 3000
FIELDS = ("open", "high", "low", "close", "volume")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--only", choices=NAMES, action="append", help="this benchmark alone; may be repeated")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child[0]](options.child[1])))
        return
    results = []
    for name in options.only or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            results.append({"name": name, **BENCHMARKS[name](Path(folder))})
        if not options.json:
            print(json.dumps(results[-1]))
    print(json.dumps({"benchmark": "features", "results": results}))


# Against others -------------------------------------------------------------------------------------------------------


def against_qlib(folder: Path) -> dict[str, Any]:
    days, matrices = five_hundred_stocks(500)
    prices = as_frame(days, matrices)
    write_for_qlib(folder / "qlib", days, matrices)
    ours_s, ours = best_of(5, lambda: compute(feature_set("alpha158"), prices, days, CALENDAR, days[0]))
    peer_s, peers = best_of(2, lambda: qlib_features(folder / "qlib"))
    ours_s = min(ours_s, best_of(5, lambda: compute(feature_set("alpha158"), prices, days, CALENDAR, days[0]))[0])
    return {
        **ratio(ours_s, "qlib 0.9.7 D.features", peer_s, FASTER_THAN_QLIB),
        "kernels": PROCESSORS,
        "max_relative_difference": float(f"{max_relative_difference(ours, peers):.2g}"),
        "cold_s": first_call(folder / "nothing_compiled"),
        "start_s": first_call(folder / "nothing_compiled"),
    }


def write_for_qlib(folder: Path, days: list[date], matrices: dict[str, np.ndarray]) -> None:
    (folder / "calendars").mkdir(parents=True)
    (folder / "instruments").mkdir()
    (folder / "calendars" / "day.txt").write_text("".join(f"{day}\n" for day in days))
    stocks = symbols(matrices["close"].shape[1])
    spans = "".join(f"{stock}\t{days[0]}\t{days[-1]}\n" for stock in stocks)
    (folder / "instruments" / "all.txt").write_text(spans)
    typical = (matrices["high"] + matrices["low"] + matrices["close"]) / 3
    for column, stock in enumerate(stocks):
        place = folder / "features" / stock.lower()
        place.mkdir(parents=True)
        for field, matrix in {**matrices, "vwap": typical}.items():
            np.concatenate([[0], matrix[:, column]]).astype("<f4").tofile(place / f"{field}.day.bin")


def qlib_features(folder: Path) -> Any:
    import logging

    import qlib
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data import D
    from qlib.data.cache import H

    qlib.init(
        provider_uri=str(folder),
        expression_cache=None,
        dataset_cache=None,
        kernels=PROCESSORS,
        logging_level=logging.ERROR,
    )
    H.clear()
    expressions, names = Alpha158DL.get_feature_config()
    found = D.features(D.instruments("all"), expressions, disk_cache=0)
    return found.set_axis(names, axis=1)


def max_relative_difference(ours: pl.DataFrame, peers: Any) -> float:
    """Over all values that both define and that differ by more than the rounding of nothing, 1e-9."""
    order = peers.swaplevel().sort_index()
    worst = 0.0
    for name in peers.columns:
        mine, other = ours[name].to_numpy().astype(float), order[name].to_numpy().astype(float)
        difference = np.abs(mine - other)
        differs = np.isfinite(difference) & (difference > 1e-9)
        worst = max(worst, float(np.max(difference[differs] / np.abs(other[differs]), initial=0.0)))
    return worst


def against_kunquant(folder: Path) -> dict[str, Any]:
    days, matrices = five_hundred_stocks(504)
    prices = as_frame(days, matrices)
    began = time.perf_counter()
    run = compiled_kunquant(matrices)
    compiled_s = time.perf_counter() - began
    rounds = [
        (best_of(2, lambda: compute(feature_set("alpha158"), prices, days, CALENDAR, days[0]))[0], best_of(2, run)[0])
        for _ in range(4)
    ]
    ours_s, peer_s = map(min, zip(*rounds, strict=True))
    return {
        **ratio(ours_s, "KunQuant 0.1.12, single precision", peer_s, FASTER_THAN_KUNQUANT),
        "threads": PROCESSORS,
        "stocks": 504,
        "peer_compile_s": round(compiled_s, 1),
    }


def compiled_kunquant(matrices: dict[str, np.ndarray]) -> Callable[[], Any]:
    from KunQuant.Driver import KunCompilerConfig
    from KunQuant.jit import cfake
    from KunQuant.Op import Builder, Input, Output
    from KunQuant.predefined.Alpha158 import AllData
    from KunQuant.runner import KunRunner
    from KunQuant.Stage import Function

    builder = Builder()
    with builder:
        data = AllData(**{field: Input(field) for field in (*FIELDS, "amount")})
        prices = [(field.upper(), getattr(data, field)) for field in ("open", "high", "low", "vwap")]
        expressions, names = data.build({"kbar": {}, "price": {"windows": [0], "feature": prices}, "rolling": {}})
        for expression, name in zip(expressions, names, strict=True):
            Output(expression, name)
    settings = KunCompilerConfig(
        input_layout="TS", output_layout="TS", options={"opt_reduce": True, "fast_log": True, "no_fast_stat": "no_warn"}
    )
    library = cfake.compileit(
        [("alpha158", Function(builder.ops), settings)], "alpha158_of_kunquant", cfake.CppCompilerConfig()
    )
    module = library.getModule("alpha158")
    executor = KunRunner.createMultiThreadExecutor(PROCESSORS)
    amount = matrices["volume"] * (matrices["high"] + matrices["low"] + matrices["close"]) / 3
    inputs = {
        field: np.ascontiguousarray(matrix, dtype=np.float32)
        for field, matrix in {**matrices, "amount": amount}.items()
    }
    shape = matrices["close"].shape
    space = np.empty((len(names), *shape), dtype=np.float32)
    outputs = dict(zip(module.getOutputNames(), space, strict=True))
    return lambda: (KunRunner.runGraph(executor, module, inputs, 0, shape[0], outputs), library)


# The lake -------------------------------------------------------------------------------------------------------------


def append_day(folder: Path) -> dict[str, Any]:
    """One session of 3,000 stocks: its prices and those before it read, all features computed and stored."""
    lake, features = Lake(folder), feature_set("alpha158")
    days = CALENDAR.sessions(START, date(2006, 11, 30))
    for year in (2004, 2005, 2006):
        of_year = [day for day in days if day.year == year]
        store(lake, "prices", as_frame(of_year, invented(len(of_year), RUSSELL, seed=year)), of_year)
    for day in days[-8:-3]:
        store(lake, "features", features_from_lake(lake, day), [day])

    def append(day: date) -> Callable[[], None]:
        def work() -> None:
            table = features_from_lake(lake, day)
            store(lake, "features", table, [day])
            assert (table.height, len(table.columns)) == (RUSSELL, 2 + len(features.names))

        return work

    ours_s = min(best_of(1, append(day))[0] for day in days[-3:])
    return {**ratio(ours_s, None, None, APPEND_SECONDS), "stocks": RUSSELL}


def features_from_lake(lake: Lake, day: date) -> pl.DataFrame:
    features = feature_set("alpha158")
    needed = CALENDAR.sessions(first_needed([day], features.lookback, CALENDAR, START), day)
    ((_, table),) = compute_by_year(features, lake.scan("prices", needed), [day], CALENDAR, START)
    return table


def russell(folder: Path) -> dict[str, Any]:
    """All features of 3,000 stocks from the lake to the lake, in processes of their own."""
    lake = Lake(folder)
    years = range(2005, 2025)
    for year in (2004, *years):
        days = CALENDAR.sessions(date(year, 1, 1), date(year, 12, 31))
        store(lake, "prices", as_frame(days, invented(len(days), RUSSELL, seed=year)), days)
    measured = {}
    for count in (5, 10, 20):
        shutil.rmtree(folder / "features", ignore_errors=True)
        measured[count] = child("russell", f"{folder}:{count}")
    peak = max(each["peak_gib"] for each in measured.values())
    return {
        **ratio(measured[20]["seconds"], None, None, None),
        "peak_gib": round(peak, 2),
        "peak_gib_target": PEAK_GIB,
        "seconds_by_years": {count: round(each["seconds"], 1) for count, each in measured.items()},
        "processor_seconds_by_years": {count: round(each["processor_s"], 1) for count, each in measured.items()},
        "stored_gb": round(measured[20]["stored_gb"], 2),
        "rows": measured[20]["rows"],
    }


def russell_child(request: str) -> dict[str, Any]:
    folder, count = request.rsplit(":", 1)
    lake = Lake(Path(folder))
    days = CALENDAR.sessions(date(2005, 1, 1), date(2004 + int(count), 12, 31))
    began, rows = time.perf_counter(), 0
    prices = lake.scan("prices", CALENDAR.sessions(START, days[-1]))
    for of_year, table in compute_by_year(feature_set("alpha158"), prices, days, CALENDAR, START):
        store(lake, "features", table, of_year)
        rows += table.height
    seconds = time.perf_counter() - began
    stored = sum(path.stat().st_size for path in (Path(folder) / "features").rglob("*.parquet"))
    return {
        "seconds": seconds,
        "processor_s": time.process_time(),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "stored_gb": stored / 1e9,
        "rows": rows,
    }


def store(lake: Lake, table: str, frame: pl.DataFrame, days: list[date]) -> None:
    lake.write_days(table, frame, days, lambda year: CALENDAR.sessions(date(year, 1, 1), date(year, 12, 31)))


# Prices ---------------------------------------------------------------------------------------------------------------


def five_hundred_stocks(stocks: int) -> tuple[list[date], dict[str, np.ndarray]]:
    days = CALENDAR.sessions(date(2010, 1, 4), date(2021, 1, 29))[:2520]
    return days, invented(len(days), stocks, seed=1)


def invented(days: int, stocks: int, seed: int) -> dict[str, np.ndarray]:
    """Random walks with ranges and volumes, each of shape (days, stocks), in numbers that single precision holds."""
    rng = np.random.default_rng(seed)
    close = rng.uniform(10, 200, stocks) * np.cumprod(1 + rng.normal(3e-4, 0.02, (days, stocks)), axis=0)
    first = close * (1 + rng.normal(0, 0.008, close.shape))
    matrices = {
        "open": first,
        "high": np.maximum(first, close) * (1 + rng.exponential(0.006, close.shape)),
        "low": np.minimum(first, close) / (1 + rng.exponential(0.006, close.shape)),
        "close": close,
        "volume": np.round(rng.lognormal(12, 0.6, close.shape)),
    }
    return {field: matrix.astype(np.float32).astype(np.float64) for field, matrix in matrices.items()}


def as_frame(days: list[date], matrices: dict[str, np.ndarray]) -> pl.DataFrame:
    count, stocks = matrices["close"].shape
    quiet = {"dividend": 0.0, "split_ratio": 1.0, "adjustment": 1.0, "known_at": None, "source": "invented"}
    return pl.DataFrame(
        {
            "symbol": pl.Series(symbols(stocks)).gather(np.tile(np.arange(stocks), count)),
            "date": pl.Series(days, dtype=pl.Date).gather(np.repeat(np.arange(count), stocks)),
            **{field: matrix.ravel() for field, matrix in matrices.items()},
        }
    ).select(
        pl.lit(quiet[name], dtype=kind).alias(name) if name in quiet else pl.col(name)
        for name, kind in PRICES_SCHEMA.items()
    )


def symbols(stocks: int) -> list[str]:
    return [f"S{number:04d}" for number in range(stocks)]


# Measuring ------------------------------------------------------------------------------------------------------------


def best_of(times: int, work: Callable[[], Any]) -> tuple[float, Any]:
    work()
    seconds, answer = [], None
    for _ in range(times):
        answer = None
        began = time.perf_counter()
        answer = work()
        seconds.append(time.perf_counter() - began)
    return min(seconds), answer


def ratio(ours_s: float, peer: str | None, peer_s: float | None, target: float | None) -> dict[str, Any]:
    return {
        "ours_s": round(ours_s, 3),
        "peer": peer,
        "peer_s": None if peer_s is None else round(peer_s, 2),
        "ratio": None if peer_s is None else round(peer_s / ours_s, 1),
        "target": target,
    }


def first_call(compiled: Path) -> float:
    """Seconds of the first day of features in a fresh process that keeps its compiled kernels in `compiled`."""
    return round(child("first", "", NUMBA_CACHE_DIR=str(compiled))["seconds"], 2)


def first_child(_: str) -> dict[str, Any]:
    days, matrices = five_hundred_stocks(500)
    prices = as_frame(days[:100], {field: matrix[:100] for field, matrix in matrices.items()})
    began = time.perf_counter()
    compute(feature_set("alpha158"), prices, days[99:100], CALENDAR, days[0])
    return {"seconds": time.perf_counter() - began}


def child(name: str, request: str, **environment: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, __file__, "--child", name, request],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    return json.loads(answer.stdout.splitlines()[-1])


CHILDREN = {"first": first_child, "russell": russell_child}
BENCHMARKS = {
    "alpha158_vs_qlib": against_qlib,
    "alpha158_vs_kunquant": against_kunquant,
    "append_day_3000": append_day,
    "russell3000_20y": russell,
}

if __name__ == "__main__":
    main()
