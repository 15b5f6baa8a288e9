"""A signal's whole study: 500 stocks x 2,520 days, three horizons, against alphalens.

Both start from the scores and the returns that followed, and answer IC by day, mean returns by quantile and day with
their spread, turnover of every quantile and autocorrelation of ranks. Ours also has Pearson's IC, t statistics,
monotonicity and years, and, timed apart, the same in eleven sectors. alphalens' preparation of its table, which cuts
the quantiles, is part of its work; computing forward returns is part of neither's. Ours is the best of several runs,
alphalens' one run in the same process. Run it with `.venv/bin/python benchmarks/signal_quality.py [--json]`.
"""

import argparse
import contextlib
import io
import json
import time
import warnings
from datetime import date

import numpy as np

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.backtest.signal_study import Sectors, SignalStudy, signal_study

STOCKS, DAYS, HORIZONS, SECTORS = 500, 2520, (1, 5, 21), 11
TARGET_SECONDS = 0.5

Panel = np.ndarray
"""Float64 of shape (days, stocks)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    options = parser.parse_args()
    sessions = trading_calendar("XNYS").sessions(date(2010, 1, 4), date(2021, 1, 29))[:DAYS]
    scores, returns = invented()
    sectors = Sectors(tuple(f"sector {n}" for n in range(SECTORS)), np.tile(np.arange(STOCKS) % SECTORS, (DAYS, 1)))
    ours_s, study = best_of(7, scores, returns, sessions, None)
    with_sectors_s, _ = best_of(7, scores, returns, sessions, sectors)
    if not options.json:
        print(f"ours {ours_s:.3f} s, with {SECTORS} sectors {with_sectors_s:.3f} s; alphalens takes its time")
    peer_s, rank_ic = alphalens(scores, returns, sessions)
    result = {
        "name": "signal_quality",
        "ours_s": round(ours_s, 3),
        "peer": "alphalens-reloaded",
        "peer_s": round(peer_s, 2),
        "ratio": round(peer_s / ours_s, 1),
        "target": TARGET_SECONDS,
        "with_sectors_s": round(with_sectors_s, 3),
        "max_difference_of_rank_ic": float(np.abs(study.daily.rank_ic - rank_ic).max()),
    }
    print(json.dumps({"benchmark": "signal_quality", "results": [result]}))


def best_of(
    times: int, scores: Panel, returns: dict[int, Panel], sessions: list[date], sectors: Sectors | None
) -> tuple[float, SignalStudy]:
    """Seconds of the quickest run after a first one that compiles, and its result."""
    study = signal_study(scores, returns, sessions, sectors=sectors)
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        study = signal_study(scores, returns, sessions, sectors=sectors)
        seconds.append(time.perf_counter() - began)
    return min(seconds), study


def alphalens(scores: Panel, returns: dict[int, Panel], sessions: list[date]) -> tuple[float, Panel]:
    """Seconds of its work, and its daily rank IC, (horizons, days)."""
    import pandas as pd

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from alphalens import performance
        from alphalens.utils import get_clean_factor

        index = pd.MultiIndex.from_product([pd.DatetimeIndex(sessions), range(STOCKS)], names=["date", "asset"])
        factor = pd.Series(scores.ravel(), index=index)
        forward = pd.DataFrame({f"{h}D": panel.ravel() for h, panel in returns.items()}, index=index)
        began = time.perf_counter()
        table = get_clean_factor(factor, forward, quantiles=5, max_loss=1.0)
        rank_ic = performance.factor_information_coefficient(table)
        performance.mean_information_coefficient(table)
        means, _ = performance.mean_return_by_quantile(table, by_date=True)
        performance.mean_return_by_quantile(table)
        performance.compute_mean_returns_spread(means, 5, 1)
        for horizon in HORIZONS:
            for quantile in range(1, 6):
                performance.quantile_turnover(table["factor_quantile"], quantile, horizon)
            performance.factor_rank_autocorrelation(table, horizon)
        return time.perf_counter() - began, rank_ic.to_numpy().T


def invented() -> tuple[Panel, dict[int, Panel]]:
    """Persistent scores, and returns that know a little of them."""
    rng = np.random.default_rng(1)
    scores = np.empty((DAYS, STOCKS))
    scores[0] = rng.standard_normal(STOCKS)
    for day in range(1, DAYS):
        scores[day] = 0.95 * scores[day - 1] + np.sqrt(1.0 - 0.95**2) * rng.standard_normal(STOCKS)
    returns = {
        horizon: np.sqrt(horizon) * 0.02 * (0.02 * scores + rng.standard_normal(scores.shape)) for horizon in HORIZONS
    }
    return scores, returns


if __name__ == "__main__":
    main()
