"""Prices from files into the lake: 3,000 stocks over 20 years at once, and one more day for as many.

The whole path is timed, as a run takes it: reading the file, judging every row, the checks, and storing. There is no
peer that does the same work; the targets are three minutes and 4 GiB for the whole, and two seconds for a day. Starting
the process and loading the definitions are reported apart. Run it with
`.venv/bin/python benchmarks/ingest.py [--json] [--stocks 3000] [--years 20]`.
"""

import argparse
import io
import json
import os
import resource
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

WHOLE_SECONDS, WHOLE_GIB, DAY_SECONDS = 180.0, 4.0, 2.0
LAST = date(2024, 12, 30)
"""Not the last session of its year, on which the year's days are put into one file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--stocks", type=int, default=3000)
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--run", nargs=4, metavar=("SYMBOLS", "START", "FIRST", "LAST"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        symbols, *days = options.run
        print(json.dumps(run(int(symbols), *map(date.fromisoformat, days))))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["STOCKPICKER_HOME"] = home
        days = sessions(options.years)
        folder = Path(home) / "prices"
        folder.mkdir()
        write_market(folder, options.stocks, days)
        if not options.json:
            size = sum(file.stat().st_size for file in folder.iterdir()) / 2**30
            print(f"{options.stocks} stocks, {len(days)} sessions, {size:.2f} GiB of files; one process for each run")
        append = hold_back(folder, days[-1])
        whole = measure(options.stocks, days[0], days[0], days[-2])
        append()
        day = measure(options.stocks, days[0], days[-1], days[-1])
    results = [
        {
            "name": f"ingest_{options.stocks}_{options.years}y",
            "target": WHOLE_SECONDS,
            "target_gib": WHOLE_GIB,
            **whole,
        },
        {"name": f"append_day_{options.stocks}", "target": DAY_SECONDS, **day},
    ]
    print(json.dumps({"benchmark": "ingest", "results": results}))


def sessions(years: int) -> list[date]:
    from stockpicker_dagster.market.calendar import trading_calendar

    return trading_calendar("XNYS").sessions(date(LAST.year - years + 1, 1, 1), LAST)


def write_market(folder: Path, stocks: int, days: list[date]) -> None:
    """One file a year, as vendors give them: as-traded prices with dividends and splits, every stock on every day."""
    rng = np.random.default_rng(7)
    names = [f"S{number:04d}" for number in range(stocks)]
    close = 20.0 + 60.0 * rng.random(stocks)
    for year in sorted({day.year for day in days}):
        of_year = [day for day in days if day.year == year]
        shape = (len(of_year), stocks)
        splits = np.where(rng.random(shape) < 1e-4, 2.0, 1.0)
        dividends = np.where(rng.random(shape) < 0.012, 0.25, 0.0)
        # Prices are pulled back to their level, so that none wanders off within twenty years.
        closes = close / np.cumprod(splits, axis=0) * np.exp(0.015 * rng.standard_normal(shape).cumsum(axis=0) * 0.2)
        closes = np.maximum(closes, 1.0).round(2)
        opens = (closes * (1 + 0.005 * rng.standard_normal(shape))).round(2)
        close = np.where(closes[-1] < 5.0, 50.0, closes[-1])
        frame = pl.DataFrame(
            {
                "symbol": np.tile(np.array(names), len(of_year)),
                "date": pl.Series(of_year).repeat_by(stocks).explode(),
                "open": opens.ravel(),
                "high": (np.maximum(opens, closes) * 1.004).ravel(),
                "low": (np.minimum(opens, closes) * 0.996).ravel(),
                "close": closes.ravel(),
                "volume": rng.integers(10_000, 5_000_000, shape).astype(np.float64).ravel(),
                "dividend": dividends.ravel(),
                "split_ratio": splits.ravel(),
            }
        )
        frame.write_parquet(folder / f"{year}.parquet")


def hold_back(folder: Path, day: date) -> Callable[[], int]:
    """Takes the last day out of its file; what is returned brings it as a file of its own."""
    path = folder / f"{day.year}.parquet"
    rows = pl.read_parquet(path)
    rows.filter(pl.col("date") != day).write_parquet(path)
    content = io.BytesIO()
    rows.filter(pl.col("date") == day).write_parquet(content)
    return lambda: (folder / f"{day}.parquet").write_bytes(content.getvalue())


def measure(stocks: int, start: date, first: date, last: date) -> dict[str, Any]:
    """One run in a process of its own, as a schedule would start it."""
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, str(Path(__file__)), "--run", str(stocks), str(start), str(first), str(last)],
        check=True,
        capture_output=True,
        text=True,
    )
    told = json.loads(answer.stdout.splitlines()[-1])
    return {"peer": None, "peer_s": None, "ratio": None, **told, "process_s": round(time.monotonic() - began, 2)}


def run(stocks: int, start: date, first: date, last: date) -> dict[str, float]:
    """One run of the prices of `first` to `last`: seconds from start to success, and the peak memory of the process."""
    began = time.monotonic()
    import dagster as dg

    from stockpicker_dagster.definitions import bind
    from stockpicker_dagster.defs.market.assets import market_definitions
    from stockpicker_dagster.home import prepare_home
    from stockpicker_dagster.strategy_form import StrategyForm

    prepare_home(announce=False)
    form = StrategyForm.model_validate(
        {
            "owner": "benchmark",
            "universe": {"symbols": [f"S{number:04d}" for number in range(stocks)]},
            "prices": {"source": "files", "path": "prices", "basis": "as_traded", "start": start},
            "periods": {"train_years": 1, "validation_years": 1, "retrain": "yearly"},
        }
    )
    job = bind(market_definitions({"ingest": form})).resolve_implicit_global_asset_job_def()
    loaded = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["files", "prices"])],
            tags={"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        record = instance.get_run_record_by_id(result.run_id)
    assert record is not None
    assert record.start_time is not None
    assert record.end_time is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "ours_s": round(record.end_time - record.start_time, 2),
        "load_s": round(loaded - began, 2),
        "peak_gib": round(peak / 2**30, 2),
    }


if __name__ == "__main__":
    main()
