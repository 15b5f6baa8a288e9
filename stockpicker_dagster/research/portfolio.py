"""From the scores of one day to the target weights of a long-short book.

The same compiled functions weight the plan that is proposed today and every book of the back-test, so that the two
cannot drift apart. When the weights are traded is `research.rebalancing`; what trading them costs is
`research.backtest.engine`.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import kernels

Weighting = Literal["equal", "score"]


def target_weights(scores: ArrayLike, long: float, short: float, weights: Weighting = "equal") -> NDArray[np.float64]:
    """Weights as fractions of equity, `(N,)` like `scores`: the long leg sums to +1, the short leg to -1.

    `scores` are those of one session, higher being more attractive, NaN where a stock is no member or not scored; they
    are known after that session's close. `long` and `short` are numbers of names (int) or fractions of the scored names
    in (0, 1) (float; rounded down, at least one). `short` may be 0: a long-only book.

    - `equal`: every name of a leg alike. `score`: in proportion to |score - median of the day's scores|, or alike where
      all of a leg equal the median.
    - Of equal scores the earlier position ranks higher; callers pass the symbols in alphabetical order.
    - With fewer scored names than `long + short`, both legs shrink in proportion, rounded down and at least one name
      each, so that no name is in both. One scored name fills no long-short book, and no scored name none at all: all
      weights are 0.

    Raises `InvalidInput` for infinite scores or a size or weighting that is not allowed.

    >>> target_weights([0.3, float("nan"), -0.1, 0.2, 0.1], long=2, short=1).tolist()
    [0.5, 0.0, -1.0, 0.5, 0.0]
    """
    panel = checked_scores(np.asarray(scores, dtype=np.float64).reshape(1, -1))
    names = panel.shape[1]
    columns, ranked = np.empty((1, names), dtype=np.int64), np.empty((1, names))
    scored = np.empty(1, dtype=np.int64)
    kernels.rank(panel, np.arange(names), columns, ranked, scored)
    legs = leg_rule(long, short, weights)
    longs, shorts = kernels.leg_sizes(scored[0], legs)
    ranked_weights = np.zeros(names)
    kernels.fill_weights(ranked[0], scored[0], longs, shorts, legs.by_score, ranked_weights)
    result = np.zeros(names)
    result[columns[0, : scored[0]]] = ranked_weights[: scored[0]]
    return result


def leg_rule(long: float, short: float, weights: Weighting) -> kernels.Legs:
    """The sizes and the weighting of both legs in the form that the kernels read; `InvalidInput` if not allowed."""
    if weights not in get_args(Weighting):
        raise InvalidInput(f"weights {weights!r} is unknown; known: {', '.join(get_args(Weighting))}")
    if long == 0:
        raise InvalidInput("long is 0; a book holds at least one name long, as a number of names or a fraction")
    return kernels.Legs(*_leg("long", long), *_leg("short", short), weights == "score")


def checked_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """`scores` themselves, or `InvalidInput` if one of them is infinite (NaN means not scored)."""
    if np.isinf(scores).any():
        session, column = np.argwhere(np.isinf(scores))[0]
        raise InvalidInput(
            f"score {scores[session, column]} in row {session}, column {column} is not finite; use NaN for no score"
        )
    return scores


def _leg(name: str, size: float) -> tuple[int, float]:
    if isinstance(size, int | np.integer) and not isinstance(size, bool) and size >= 0:
        return int(size), 0.0
    if isinstance(size, float) and (0.0 < size < 1.0 or (size == 0.0 and name == "short")):
        return 0, float(size)
    raise InvalidInput(
        f"{name} is {size!r}; give a whole number of names, or a fraction of the scored names between 0 and 1"
    )
