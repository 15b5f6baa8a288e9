"""Whether deep reinforcement learning finds what is there: a planted signal, a leaked return, and when not to trade.

Invented markets of 1,000 days x 50 stocks, returns of 2 % a day. Without costs: a signal of information coefficient .06
is planted, and the rank IC of the policy's scores on later days is held against that of the truth; then the next return
itself is a feature, and the Sharpe ratio of the policy's book is held against that of the book in proportion to the
returns. With costs: an agent that pays them while learning against one that does not, both charged for them afterwards,
on a signal that persists (autoregression .97) and on one that is new every day. There is no peer; targets are shares of
the oracle's figure. Run it with `.venv/bin/python benchmarks/reinforcement_learning.py [--json]`; about a minute a
training on two idle cores, `--seeds 1` a fifth of the whole.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.research.algorithms.deep_reinforcement_learning import DeepReinforcementLearning, walk
from stockpicker_dagster.research.algorithms.long_short_environment import CrossSections, Terms, book_of
from stockpicker_dagster.research.algorithms.tables import Table

DAYS, STOCKS, DEVIATION = 1000, 50, 0.02
FEATURES = [f"f{number}" for number in range(8)]
LEAST_SHARE, LONGEST_S = 0.5, 120.0
STEPS_WITH_COSTS = 81_920
"""Twice the default: how much to keep of what is held is learned more slowly than what to hold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="only the results of these names, such as leaked_sac")
    options = parser.parse_args()
    planned: dict[str, Callable[[], dict[str, Any]]] = {}
    planned |= {f"planted_{method}": partial(planted, method, options.seeds) for method in ("a2c", "ppo")}
    planned |= {f"leaked_{method}": partial(leaked, method, options.seeds) for method in ("a2c", "ppo", "sac")}
    planned |= {f"costs_persistence_{kept:g}": partial(with_costs, kept, options.seeds) for kept in (0.97, 0.0)}
    results = []
    for name in options.only or planned:
        results.append(planned[name]())
        if not options.json:
            print(results[-1], flush=True)
    print(json.dumps({"benchmark": "reinforcement_learning", "results": results}))


def market(seed: int, ic: float = 0.06, leak: bool = False, persistence: float = 0.0, days: int = DAYS) -> pl.DataFrame:
    """Returns of which `ic` is the correlation with `truth`, two features; `leak` makes a third the return."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(days, STOCKS, len(FEATURES)))
    for day in range(1, days if persistence else 0):
        features[day] = persistence * features[day - 1] + np.sqrt(1.0 - persistence**2) * features[day]
    truth = (features[..., 0] + features[..., 1]) / np.sqrt(2.0)
    noise = rng.standard_t(5, size=truth.shape) * np.sqrt(3.0 / 5.0)
    returns = DEVIATION * (ic * truth + np.sqrt(1.0 - ic**2) * noise)
    if leak:
        features[..., 2] = returns / DEVIATION
    dates = [date(2010, 1, 1) + timedelta(days=day) for day in range(days) for _ in range(STOCKS)]
    symbols = [f"S{number:03d}" for number in range(STOCKS)] * days
    columns = {name: features[..., place].ravel().astype(np.float32) for place, name in enumerate(FEATURES)}
    flat = returns.ravel()
    return pl.DataFrame({"symbol": symbols, "date": dates, "label": flat, "truth": truth.ravel(), **columns})


def trained(seed: int, settings: dict[str, Any], **kind: Any) -> tuple[DeepReinforcementLearning, float]:
    """A model of one invented market, and how long it took, in seconds of the processor."""
    train, validation = market(100 + seed, **kind), market(200 + seed, days=250, **kind)
    began = time.process_time()
    model = DeepReinforcementLearning.fit(train, validation, FEATURES, "label", settings, seed)
    return model, time.process_time() - began


def planted(method: str, seeds: int) -> dict[str, Any]:
    """The rank IC on later days as a share of the oracle's."""
    shares, took = [], []
    for seed in range(seeds):
        model, seconds = trained(seed, {"method": method, "cost_bps": 0.0})
        later = market(300 + seed)
        table = Table.of(later, FEATURES, "label", "later")
        oracle = table.rank_ic(later["truth"].to_numpy())
        shares.append(table.rank_ic(model.predict(table.features, FEATURES)) / oracle)
        took.append(seconds)
    return _result(f"planted_{method}", "share_of_oracle_rank_ic", shares, took)


def leaked(method: str, seeds: int) -> dict[str, Any]:
    """The Sharpe ratio on later days as a share of the book's that knows the returns."""
    shares, took = [], []
    settings = {"method": method, "cost_bps": 0.0} | ({"steps": 8192} if method == "sac" else {})
    for seed in range(seeds):
        model, seconds = trained(seed, settings, leak=True)
        later = CrossSections.of(market(300 + seed, leak=True), FEATURES, "label", "later", 1)
        known = [later.returns[later.rows(day)] for day in range(later.dates)]
        oracle = np.array([(book_of(returns) * returns).sum() for returns in known])
        shares.append(_ratio(walk(model, later, Terms())[0]) / _ratio(oracle))
        took.append(seconds)
    return _result(f"leaked_{method}", "share_of_oracle_sharpe", shares, took)


def with_costs(persistence: float, seeds: int) -> dict[str, Any]:
    """Net Sharpe ratios a year and turnovers of an agent that pays 30 bp while learning, and of one that does not."""
    terms, figures = Terms(cost_bps=30.0), []
    for seed in range(seeds):
        later = CrossSections.of(market(300 + seed, 0.1, False, persistence), FEATURES, "label", "later", 1)
        row = []
        for cost in (30.0, 0.0):
            settings = {"cost_bps": cost, "steps": STEPS_WITH_COSTS}
            model, _ = trained(seed, settings, ic=0.1, persistence=persistence)
            gross, costs, turnover = walk(model, later, terms)
            row += [_ratio(gross - costs) * np.sqrt(252.0), float(turnover.mean())]
        figures.append(row)
    aware, aware_turnover, blind, blind_turnover = np.median(np.array(figures), axis=0).tolist()
    ahead = [round(float(each[0] - each[2]), 3) for each in figures]
    return {
        "name": f"costs_persistence_{persistence:g}",
        "seeds": seeds,
        "aware_net_sharpe": round(aware, 3),
        "aware_turnover": round(aware_turnover, 3),
        "blind_net_sharpe": round(blind, 3),
        "blind_turnover": round(blind_turnover, 3),
        "aware_less_blind_of_each": ahead,
        "aware_turnover_of_each": [round(float(each[1]), 3) for each in figures],
        "ours_s": None,
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": "aware no worse than blind" if persistence else "aware does not trade",
    }


def _ratio(returns: np.ndarray) -> float:
    """Mean over deviation; 0 for a book that never traded."""
    return float(returns.mean() / returns.std()) if returns.any() else 0.0


def _result(name: str, figure: str, shares: list[float], took: list[float]) -> dict[str, Any]:
    return {
        "name": name,
        "seeds": len(shares),
        figure: round(statistics.median(shares), 3),
        "of_each": [round(share, 3) for share in shares],
        "ours_s": round(statistics.median(took), 1),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": f"median at least {LEAST_SHARE} of the oracle's, {LONGEST_S:.0f} s a seed",
    }


if __name__ == "__main__":
    main()
