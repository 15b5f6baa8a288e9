"""One strategy's daily run: 500 simulated stocks, six daily assets, the model present.

There is no peer that does the same work; the target is ten seconds from RUN_START to RUN_SUCCESS. Starting the process
and loading the definitions are reported apart. Run it with `.venv/bin/python benchmarks/daily.py [--json]`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

TARGET_SECONDS = 10.0
STOCKS = 500
START, MODEL_FROM, LAST = date(2022, 1, 3), date(2024, 7, 1), date(2024, 9, 30)
FORM = {
    "owner": "benchmark",
    "universe": {"name": "simulated"},
    "prices": {"source": "simulated", "start": START, "stocks": STOCKS, "seed": 7},
    "periods": {
        "train": [date(2023, 2, 1), date(2023, 12, 29)],
        "validation": [date(2024, 1, 2), date(2024, 6, 28)],
        "test": [MODEL_FROM, date(2024, 12, 31)],
    },
    "backtest": {"long": 50, "short": 50, "rebalance": "daily", "simulations": 1000},
}
DAILY = (
    "simulated/prices",
    "simulated/factors/features",
    "daily/scaled_features",
    "daily/predictions",
    "daily/backtest_metrics",
    "daily/rebalance_orders",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--one-day", type=date.fromisoformat, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_day:
        print(json.dumps(run(DAILY, options.one_day, options.one_day)))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["STOCKPICKER_HOME"] = home
        days = prepare()
        if not options.json:
            print(f"{STOCKS} stocks, history from {START} to {days[-4]} stored; now three days, one process each")
        best = min((measure(day) for day in days[-3:]), key=lambda seconds: seconds["dagster_s"])
    result = {
        "name": "daily_500",
        "ours_s": round(best["dagster_s"], 2),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": TARGET_SECONDS,
        "dagster_s": round(best["dagster_s"], 2),
        "load_s": round(best["load_s"], 2),
        "process_s": round(best["process_s"], 2),
    }
    print(json.dumps({"benchmark": "daily", "results": [result]}))


def prepare() -> list[date]:
    """Stores everything but the last three days; returns all days."""
    from stockpicker_dagster.market.calendar import trading_calendar

    days = trading_calendar("XNYS").sessions(START, LAST)
    run(DAILY[:3], days[0], days[-4])
    run(("daily/datasets", "daily/trained_model"), None, None)
    run(DAILY[3:], days[0], days[-4])
    return days


def measure(day: date) -> dict[str, float]:
    """One day in a process of its own, as a schedule would run it."""
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, str(Path(__file__)), "--one-day", str(day)], check=True, capture_output=True, text=True
    )
    return json.loads(answer.stdout.splitlines()[-1]) | {"process_s": time.monotonic() - began}


def run(assets: tuple[str, ...], first: date | None, last: date | None) -> dict[str, float]:
    """One run over the days `first` to `last`: seconds to load the definitions, and from start to success."""
    began = time.monotonic()
    import dagster as dg

    from stockpicker_dagster.components.strategy import strategy_definitions
    from stockpicker_dagster.definitions import bind
    from stockpicker_dagster.defs.market.assets import market_definitions
    from stockpicker_dagster.home import prepare_home
    from stockpicker_dagster.strategy_form import StrategyForm

    prepare_home(announce=False)
    form = StrategyForm.model_validate(FORM)
    definitions = bind(dg.Definitions.merge(strategy_definitions("daily", form), market_definitions({"daily": form})))
    job = definitions.resolve_implicit_global_asset_job_def()
    loaded = time.monotonic()
    tags = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset.split("/")) for asset in assets],
            tags=tags if first else {},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        record = instance.get_run_record_by_id(result.run_id)
    assert record is not None
    assert record.start_time is not None
    assert record.end_time is not None
    return {"load_s": loaded - began, "dagster_s": record.end_time - record.start_time}


if __name__ == "__main__":
    main()
