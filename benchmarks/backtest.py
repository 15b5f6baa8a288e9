"""A thousand random long-short books with costs and borrow fees: 500 stocks x 2,520 sessions, daily decisions.

The peer is vectorbt's portfolio simulation on the same target weights, without the borrow fee, which it does not know;
it is measured on few books and scaled up, because a thousand take it about eleven minutes. Run it with
`.venv/bin/python benchmarks/backtest.py [--json]`.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from datetime import date

import numpy as np
from scipy.signal import lfilter

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.backtest.engine import Rules, run, targets
from stockpicker_dagster.research.backtest.market_data import MarketData
from stockpicker_dagster.research.backtest.random_books import permuted_books, permuted_figures, standing

STOCKS, SESSIONS, BOOKS, PEER_BOOKS = 500, 2520, 1000, 2
TARGET_SECONDS = 2.0
RULES = Rules(50, 50, rebalance="daily", commission_bps=1.0, spread_bps=5.0, borrow_bps_per_year=50.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    options = parser.parse_args()
    market, scores = invented_market()
    decisions = np.ones(SESSIONS, dtype=bool)
    permuted_books(scores, market, RULES, decisions, books=2, seed=1)
    before = peak_gib()
    seconds = min(
        timed(lambda: permuted_books(scores, market, RULES, decisions, books=BOOKS, seed=1)) for _ in range(3)
    )
    peak = peak_gib()
    own = run(scores, market, RULES, decisions)
    streamed = timed(
        lambda: standing(own.net_return, permuted_figures(scores, market, RULES, decisions, books=10_000, seed=1))
    )
    streamed_peak = peak_gib()
    weights = targets(scores, market, RULES, decisions)
    peer = vectorbt_seconds(market, weights) * BOOKS / PEER_BOOKS
    result = {
        "name": "random_picks_1000",
        "ours_s": round(seconds, 2),
        "peer": f"vectorbt, {PEER_BOOKS} books scaled to {BOOKS}",
        "peer_s": round(peer, 1),
        "ratio": round(peer / seconds, 1),
        "target": TARGET_SECONDS,
        "peak_gib": round(peak, 2),
        "before_gib": round(before, 2),
        "streamed_10000_s": round(streamed, 2),
        "streamed_peak_gib": round(streamed_peak, 2),
    }
    if not options.json:
        print(f"{BOOKS} books of {STOCKS} x {SESSIONS}: {seconds:.2f} s, vectorbt about {peer:.0f} s")
    print(json.dumps({"benchmark": "backtest", "results": [result]}))


def invented_market() -> tuple[MarketData, np.ndarray]:
    """Random walks, and scores that persist (autoregressive, .98) as those of real strategies do."""
    rng = np.random.default_rng(0)
    shape = (SESSIONS, STOCKS)
    closes = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, shape), axis=0))
    sessions = trading_calendar("XNYS").sessions(date(2010, 1, 4), date(2030, 1, 1))[:SESSIONS]
    market = MarketData(
        sessions=tuple(sessions),
        symbols=tuple(f"S{number:03d}" for number in range(STOCKS)),
        open=closes * np.exp(rng.normal(0.0, 0.003, shape)),
        close=closes,
        dividend=np.zeros(shape),
        split_ratio=np.ones(shape),
        adjustment=np.ones(shape),
        delisted=np.zeros(shape, dtype=bool),
        delisting_return=np.full(shape, np.nan),
    )
    return market, np.asarray(lfilter([1.0], [1.0, -0.98], rng.normal(size=shape), axis=0))


def vectorbt_seconds(market: MarketData, weights: np.ndarray) -> float:
    """Books of the same weights at once, as groups that share their cash; the first, compiling run is not counted."""
    import vectorbt

    books = [np.roll(weights, number, axis=1) for number in range(PEER_BOOKS)]

    def simulate(days: int) -> None:
        orders = np.full((SESSIONS, PEER_BOOKS * STOCKS), np.nan)
        orders[1:] = np.concatenate(books, axis=1)[:-1]
        portfolio = vectorbt.Portfolio.from_orders(
            np.tile(market.close[:days], PEER_BOOKS),
            size=orders[:days],
            size_type="targetpercent",
            price=np.tile(market.open[:days], PEER_BOOKS),
            val_price=np.tile(market.open[:days], PEER_BOOKS),
            fees=(RULES.commission_bps + RULES.spread_bps / 2) * 1e-4,
            group_by=np.repeat(np.arange(PEER_BOOKS), STOCKS),
            cash_sharing=True,
            call_seq="auto",
            init_cash=RULES.capital,
            freq="1D",
        )
        portfolio.returns()

    simulate(20)
    return timed(lambda: simulate(SESSIONS))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_gib() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
