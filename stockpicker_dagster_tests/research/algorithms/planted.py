"""Tables in which the label follows the features in a known way; no test lives here."""

from datetime import date, timedelta

import numpy as np
import polars as pl

FEATURES = [f"f{number}" for number in range(6)]


def table(
    seed: int, days: int = 60, stocks: int = 30, signal: float = 0.5, shape: str = "linear", first: int = 2015
) -> pl.DataFrame:
    """Standard normal features; the label is `signal` x something of unit variance + a standard normal number.

    `shape` is `linear` in f0 and f1, or `product`: f0 x f1, which no linear model can see. Days differ in size. `truth`
    is the predictable part.
    """
    rng = np.random.default_rng([seed, days, stocks])
    sizes = rng.integers(stocks // 2, stocks + stocks // 2 + 1, days)
    rows = int(sizes.sum())
    features = rng.normal(size=(rows, len(FEATURES))).astype(np.float32)
    one, two = features[:, 0].astype(float), features[:, 1].astype(float)
    truth = signal * (one * two if shape == "product" else (one - two) / np.sqrt(2))
    dates = [date(first, 1, 1) + timedelta(days=day) for day, size in enumerate(sizes) for _ in range(size)]
    columns = {name: features[:, place] for place, name in enumerate(FEATURES)}
    label = truth + rng.normal(size=rows)
    symbols = [f"S{row:06d}" for row in range(rows)]
    return pl.DataFrame({"symbol": symbols, "date": dates, "label": label, "truth": truth, **columns})


def matrix(frame: pl.DataFrame) -> np.ndarray:
    return frame.select(FEATURES).to_numpy()


def rank_ic(frame: pl.DataFrame, scores: np.ndarray) -> float:
    """The mean over dates of Spearman's correlation of scores and label, by Polars."""
    daily = (
        frame.with_columns(score=pl.Series(scores))
        .group_by("date")
        .agg(pl.corr("score", "label", method="spearman").alias("ic"))
    )
    mean = daily["ic"].mean()
    assert isinstance(mean, float)
    return mean


def share_of_achievable(frame: pl.DataFrame, scores: np.ndarray) -> float:
    """The rank IC of the scores as a share of what knowing the truth would give."""
    return rank_ic(frame, scores) / rank_ic(frame, frame["truth"].to_numpy())
