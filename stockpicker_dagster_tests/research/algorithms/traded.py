"""Invented markets that a long-short book can be traded on, with a known signal; no test lives here."""

from datetime import date, timedelta

import numpy as np
import polars as pl

FEATURES = [f"f{number}" for number in range(4)]
DEVIATION = 0.02


def traded(
    seed: int, days: int = 300, stocks: int = 30, ic: float = 0.06, leak: bool = False, persistence: float = 0.0
) -> pl.DataFrame:
    """Returns of standard deviation 2 % of which `ic` is the correlation with (f0 + f1) / sqrt(2).

    With `leak`, f2 is the return itself. `persistence` is the first autocorrelation of every feature.
    """
    rng = np.random.default_rng([seed, days, stocks])
    features = rng.normal(size=(days, stocks, len(FEATURES)))
    for day in range(1, days if persistence else 0):
        features[day] = persistence * features[day - 1] + np.sqrt(1 - persistence**2) * features[day]
    signal = (features[..., 0] + features[..., 1]) / np.sqrt(2)
    returns = DEVIATION * (ic * signal + np.sqrt(1 - ic**2) * rng.normal(size=(days, stocks)))
    if leak:
        features[..., 2] = returns / DEVIATION
    dates = [date(2015, 1, 1) + timedelta(days=day) for day in range(days) for _ in range(stocks)]
    symbols = [f"S{number:03d}" for number in range(stocks)] * days
    columns = {name: features[..., place].ravel().astype(np.float32) for place, name in enumerate(FEATURES)}
    flat = returns.ravel()
    return pl.DataFrame(
        {"symbol": symbols, "date": dates, "label": flat, "label_return": flat, "truth": signal.ravel(), **columns}
    )
