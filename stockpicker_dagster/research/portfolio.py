"""From the scores of one day to the target weights of a long-short book.

The same compiled functions weight the plan that is proposed today and every book of the back-test, so that the two
cannot drift apart. When the weights are traded is `research.rebalancing`; what trading them costs, and targets that
depend on earlier ones, are `research.backtest.engine`.
"""

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import kernels

Weighting = Literal["equal", "score", "rank", "volatility"]
Neutrality = Literal["dollar", "beta", "sector", "exposures"]

SESSIONS_PER_YEAR: Final = 252

_WEIGHTINGS: Final[dict[str, int]] = {
    "equal": kernels.EQUAL,
    "score": kernels.BY_SCORE,
    "rank": kernels.BY_RANK,
    "volatility": kernels.BY_VOLATILITY,
}
_NEUTRALITIES: Final[dict[str, int]] = {
    "dollar": kernels.DOLLAR,
    "beta": kernels.BETA,
    "sector": kernels.SECTOR,
    "exposures": kernels.EXPOSURES,
}


def target_weights(
    scores: ArrayLike,
    long: float,
    short: float,
    weights: Weighting = "equal",
    volatility: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Weights as fractions of equity, `(N,)` like `scores`: the long leg sums to +1, the short leg to -1.

    `scores` are those of one session, higher being more attractive, NaN where a stock is no member or not scored; they
    are known after that session's close. `long` and `short` are numbers of names (int) or fractions of the scored names
    in (0, 1) (float; rounded down, at least one). `short` may be 0: a long-only book.

    - `equal`: every name of a leg alike. `score`: in proportion to |score - median of the day's scores|. `rank`: in
      proportion to the distance of its rank from the middle rank. `volatility`: in proportion to 1 / `volatility`
      `(N,)`, where a name without one counts as the most volatile known of its leg. Alike where a leg has no
      proportions, as when all of it equals the median.
    - Of equal scores the earlier position ranks higher; callers pass the symbols in alphabetical order.
    - With fewer scored names than `long + short`, both legs shrink in proportion, rounded down and at least one name
      each, so that no name is in both. One scored name fills no long-short book, and no scored name none at all: all
      weights are 0.

    Raises `InvalidInput` for infinite scores or a size or weighting that is not allowed.

    >>> target_weights([0.3, float("nan"), -0.1, 0.2, 0.1], long=2, short=1).tolist()
    [0.5, 0.0, -1.0, 0.5, 0.0]
    """
    panel = checked_scores(np.asarray(scores, dtype=np.float64).reshape(1, -1))
    legs = leg_rule(long, short, weights)
    names = panel.shape[1]
    if weights == "volatility" and volatility is None:
        raise InvalidInput("weights 'volatility' need the volatility of every name; give it, or take equal weights")
    known = np.full((1, names), np.nan) if volatility is None else np.asarray(volatility, dtype=np.float64)
    ranking = rank(panel, np.arange(names), np.ones(1, dtype=np.bool_))
    result = np.zeros((1, names))
    traits = no_traits()._replace(volatility=known.reshape(1, names))
    kernels.plan(ranking, traits, legs, 0, no_positions(1, names, 1, 0.0), result)
    return result[0]


def leg_rule(
    long: float,
    short: float,
    weights: Weighting,
    *,
    hold_band: float = 1.0,
    sleeves: int = 1,
    gross: float | None = None,
    max_weight: float | None = None,
    neutral: Neutrality = "dollar",
    volatility_target: float | None = None,
) -> kernels.Legs:
    """How the book is chosen, in the form that the kernels read; the units are those of `engine.Rules`.

    Raises `InvalidInput` for what is not allowed.
    """
    if weights not in _WEIGHTINGS:
        raise InvalidInput(f"weights {weights!r} is unknown; known: {', '.join(get_args(Weighting))}")
    if neutral not in _NEUTRALITIES:
        raise InvalidInput(f"neutral {neutral!r} is unknown; known: {', '.join(get_args(Neutrality))}")
    if long == 0:
        raise InvalidInput("long is 0; a book holds at least one name long, as a number of names or a fraction")
    sizes = *_leg("long", long), *_leg("short", short)
    if neutral != "dollar" and short == 0:
        raise InvalidInput(f"neutral {neutral!r} needs a short leg, and short is 0; hold names short or leave it out")
    if not 1.0 <= hold_band < np.inf:
        raise InvalidInput(f"hold_band is {hold_band!r}; give a multiple of the leg's size of at least 1")
    if isinstance(sleeves, bool) or not isinstance(sleeves, int) or not 1 <= sleeves <= 252:
        raise InvalidInput(f"sleeves is {sleeves!r}; give a whole number from 1 to 252")
    if gross is not None and not 0.0 < gross < np.inf:
        raise InvalidInput(f"gross is {gross!r}; give a positive multiple of the equity, such as 2.0")
    if max_weight is not None and not 0.0 < max_weight < np.inf:
        raise InvalidInput(f"max_weight is {max_weight!r}; give a positive fraction of the equity, such as 0.05")
    if volatility_target is not None and not 0.0 < volatility_target < np.inf:
        raise InvalidInput(
            f"volatility_target is {volatility_target!r}; give the standard deviation of a year's return, such as 0.1"
        )
    each = 1.0 if gross is None else gross / (2.0 if short else 1.0)
    return kernels.Legs(
        *sizes,
        weighting=_WEIGHTINGS[weights],
        hold_band=float(hold_band),
        sleeves=sleeves,
        long_gross=each,
        short_gross=each,
        cap=np.inf if max_weight is None else float(max_weight),
        neutral=_NEUTRALITIES[neutral],
        volatility=np.inf if volatility_target is None else volatility_target / np.sqrt(SESSIONS_PER_YEAR),
    )


def no_traits() -> kernels.Traits:
    """What is known of stocks where the rules ask for nothing but scores."""
    nothing, nowhere = np.zeros((0, 0)), np.zeros((0, 0), dtype=np.int64)
    return kernels.Traits(nothing, nothing, nowhere, 0, np.zeros((0, 0, 0)), nothing, 0)


def rank(
    scores: NDArray[np.float64],
    by_name: NDArray[np.int64],
    decision_days: NDArray[np.bool_],
    *,
    day_number: NDArray[np.int64] | None = None,
    appeared: NDArray[np.int64] | None = None,
    peer_group: NDArray[np.int64] | None = None,
) -> kernels.Ranking:
    """The score panel `(T, N)` sorted by day, and the order in which its stocks were first scored.

    Equal scores rank `by_name`. `appeared` are the columns scored before the first session, in their order;
    `peer_group` `(N,)` numbers the groups within which random books exchange identities (none: one group).
    """
    shape = scores.shape
    columns, ranked, scored = np.zeros(shape, np.uint32), np.zeros(shape), np.zeros(shape[0], np.int64)
    decision = np.ascontiguousarray(decision_days, dtype=np.bool_)
    kernels.rank(scores, by_name, decision, columns, ranked, scored)
    is_scored = ~np.isnan(scores)
    first = np.where(is_scored.any(axis=0), is_scored.argmax(axis=0), shape[0]) if shape[0] else np.zeros(shape[1])
    if appeared is not None:
        # Before the first session, in the order in which they came.
        first[appeared] = np.arange(len(appeared)) - len(appeared)
    column_of = np.lexsort((np.argsort(by_name), first)).astype(np.int64)
    groups = np.zeros(shape[1], np.int64) if peer_group is None else peer_group
    by_group = np.argsort(groups[column_of], kind="stable")
    starts = np.searchsorted(groups[column_of][by_group], groups[column_of], side="left")
    return kernels.Ranking(
        columns=columns,
        scores=ranked,
        scored=scored,
        is_scored=is_scored,
        decision=decision,
        column_of=column_of,
        row_of=np.argsort(column_of).astype(np.int64),
        appeared=np.searchsorted(np.sort(first), np.arange(shape[0]), side="right").astype(np.int64),
        day_number=np.zeros(shape[0], np.int64) if day_number is None else day_number,
        peers=column_of[by_group],
        peer_base=starts.astype(np.int64),
        peers_before=(np.argsort(by_group) - starts).astype(np.int64),
    )


def no_positions(books: int, names: int, sleeves: int, capital: float) -> kernels.Books:
    """Books that hold nothing but cash."""
    return kernels.Books(
        cash=np.full(books, capital),
        equity=np.full(books, capital),
        short_value=np.zeros(books),
        borrow_fee=np.zeros(books),
        gone=np.zeros(books, dtype=np.bool_),
        shares=np.zeros((books, names)),
        held=np.zeros(books, dtype=np.int64),
        held_columns=np.zeros((books, names), dtype=np.uint32),
        targets=np.zeros((books, sleeves), dtype=np.int64),
        target_columns=np.zeros((books, sleeves, names), dtype=np.uint32),
        target_weights=np.zeros((books, sleeves, names)),
    )


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
