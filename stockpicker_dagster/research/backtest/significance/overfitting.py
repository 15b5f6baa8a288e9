"""How likely the best of several configurations owes its place to over-fitting.

Combinatorially symmetric cross-validation of Bailey, Borwein, Lopez de Prado and Zhu, *The Probability of Backtest
Overfitting* (2017, Journal of Computational Finance 20(4)).
"""

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from stockpicker_dagster.errors import InvalidInput

BLOCKS = 16
"""The paper's choice: 12,870 ways to take half of the blocks."""


def probability_of_overfitting(returns: ArrayLike, blocks: int = BLOCKS) -> float:
    """The share of splits in which the in-sample best falls to the out-of-sample median or below.

    `returns` `(T, N)` are those of N configurations on the same sessions. The sessions are cut into `blocks` runs of
    equal length (a remainder at the start is left out); every half of them is in-sample once. The best is that of the
    highest Sharpe ratio; w is its average rank out of sample over N + 1, and a split counts where ln(w / (1 - w)) <= 0.
    About 0.5 where the configurations differ by luck alone, near 0 where the best really is. NaN if a configuration
    never moves in some half. Raises `InvalidInput` for fewer than two configurations, an odd or too small number of
    blocks, blocks of fewer than two sessions, or a value that is not finite.
    """
    panel = np.asarray(returns, dtype=np.float64)
    if panel.ndim != 2 or panel.shape[1] < 2:
        raise InvalidInput(f"returns of shape {panel.shape} have no choice in them; give at least two configurations")
    if blocks < 2 or blocks % 2 or len(panel) < 2 * blocks:
        raise InvalidInput(
            f"{len(panel)} sessions in {blocks} blocks: give an even number of blocks, of at least two sessions each"
        )
    if not np.isfinite(panel).all():
        raise InvalidInput("a configuration's return is NaN or infinite; a back-test has a figure for every session")
    length = len(panel) // blocks
    parts = panel[len(panel) - length * blocks :].reshape(blocks, length, -1)
    sums, squares = parts.sum(axis=1), (parts**2).sum(axis=1)
    chosen = list(combinations(range(blocks), blocks // 2))
    halves = np.zeros((len(chosen), blocks))
    halves[np.arange(len(chosen))[:, None], np.array(chosen)] = 1.0
    count = length * blocks // 2
    inside = _sharpes(halves @ sums, halves @ squares, count)
    outside = _sharpes((1.0 - halves) @ sums, (1.0 - halves) @ squares, count)
    if np.isnan(inside).any() or np.isnan(outside).any():
        return float("nan")
    best = inside.argmax(axis=1)
    of_best = outside[np.arange(len(best)), best][:, None]
    rank = (outside < of_best).sum(axis=1) + 0.5 * ((outside == of_best).sum(axis=1) + 1.0)
    return float((rank <= 0.5 * (panel.shape[1] + 1)).mean())


def _sharpes(total: np.ndarray, squares: np.ndarray, count: int) -> np.ndarray:
    mean = total / count
    variance = squares / count - mean**2
    # Below this part of its scale a variance is what subtraction left over.
    moves = variance > 1e-12 * squares / count
    return np.where(moves, mean / np.sqrt(np.where(moves, variance, 1.0)), np.nan)
