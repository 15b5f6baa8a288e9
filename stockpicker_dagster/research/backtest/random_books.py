"""Books made by luck, under the strategy's own rules, costs and calendar, to hold the strategy's result against.

A *permuted* book follows the strategy's own score panel under one fixed permutation of the stocks' identities, so that
its scores move, stay and turn over as the strategy's do while knowing nothing of the stocks they land on. *Fresh picks*
draw new names at every decision and are shown before costs only: they turn over far more than a strategy does, so
after costs almost any noise beats them. What the comparison proves is the verdict's to say.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.backtest.engine import (
    Rules,
    make_ledger,
    make_legs,
    make_ranking,
    make_records,
    make_tape,
    make_terms,
)
from stockpicker_dagster.research.backtest.market_data import MarketData

Floats = NDArray[np.float64]

_BOOKS_AT_ONCE = 16
"""Books that share one reading of the prices: their positions together fit a core's cache."""


@dataclass(frozen=True)
class RandomBooks:
    """The days of `n` random books, `(T, n)` each, dated and defined as in `engine.BookHistory`; no NaN anywhere.

    `label` says in words what they are, for every figure drawn from them. A book whose equity is gone returns -1.0 on
    that session and 0.0 from then on; `ruined` `(n,)` is the row of that session, -1 for a book that lives.
    """

    label: str
    net_return: Floats
    gross_return: Floats
    turnover: Floats
    ruined: NDArray[np.int64]


@dataclass(frozen=True)
class Percentile:
    """Where a strategy stands among random books; a tie counts against it."""

    percentile: float
    """The share of books that it beats, 0 to 100."""
    p_value: float
    """(1 + books at least as good) / (books + 1), exact under the permutation null (Phipson and Smyth 2010)."""
    books: int


def permuted_books(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    *,
    books: int,
    seed: int,
    workers: int | None = None,
) -> RandomBooks:
    """`books` random books on the strategy's own scores, arguments as in `engine.run`.

    In book *b* the score of stock *i* goes to stock *sigma(i)*; where that is no scored member on the day, the score is
    dropped. *sigma* is grown as stocks are first scored (alphabetically within a day), by the Fisher-Yates shuffle
    inside out: uniform over the permutations of the stocks seen so far, and a newcomer moves at most one older stock.
    So nothing before its first day changes. Draws come from SplitMix64 by counter: `seed` and the number of the book
    fix it, whatever `books` or `workers` (threads; default: one per core) are. Equal scores rank alphabetically by the
    stock they came from. Raises as `engine.run` does, except that ruin is a result here (see `RandomBooks`).
    """
    label = f"{books} books on the strategy's own scores under permuted identities, after the same costs"
    return _simulate(kernels.PERMUTED, label, scores, market, rules, decision_days, books, seed, workers)


def fresh_picks(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    *,
    books: int,
    seed: int,
    workers: int | None = None,
) -> RandomBooks:
    """`books` random books of names drawn afresh from the scored members at every decision, before all costs.

    Legs are as large as the strategy's and always equally weighted. Draws are fixed by `seed`, the number of the book
    and the date. For comparison with gross results only: see the head of this file.
    """
    costless = replace(
        rules, commission_bps=0.0, spread_bps=0.0, borrow_bps_per_year=0.0, cash_interest_bps_per_year=0.0
    )
    label = f"{books} books of fresh random picks at every decision, before costs"
    return _simulate(kernels.FRESH, label, scores, market, costless, decision_days, books, seed, workers)


def percentile(strategy: float, books: ArrayLike) -> Percentile:
    """Where one figure of the strategy (such as its net Sharpe) stands among the same figure of random books, `(n,)`.

    A NaN of a book (it never traded) counts as at least as good. Raises `InvalidInput` if the strategy's figure is NaN
    or there is no book.

    >>> percentile(0.5, [0.1, 0.5, 0.9, 0.2])
    Percentile(percentile=50.0, p_value=0.6, books=4)
    """
    figures = np.asarray(books, dtype=np.float64)
    if np.isnan(strategy) or figures.ndim != 1 or not len(figures):
        raise InvalidInput(
            f"a figure of {strategy} among random books of shape {figures.shape} has no percentile; "
            "it needs a strategy that traded and at least one book"
        )
    beaten = int((figures < strategy).sum())
    count = len(figures)
    return Percentile(100.0 * beaten / count, (1 + count - beaten) / (count + 1), count)


def _simulate(
    mode: int,
    label: str,
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    books: int,
    seed: int,
    workers: int | None,
) -> RandomBooks:
    if books < 1 or not 0 <= seed < 2**63:
        raise InvalidInput(
            f"{books} random books with seed {seed}: ask for at least one, and a seed from 0 to 2**63 - 1"
        )
    tape, ranking = make_tape(market, rules), make_ranking(scores, market, decision_days)
    legs, terms = make_legs(rules), make_terms(rules)
    records = make_records(len(market.sessions), books)
    no_ledger = make_ledger(0, 0)

    def block(first: int) -> None:
        count = min(_BOOKS_AT_ONCE, books - first)
        kernels.simulate(mode, seed, first, count, tape, ranking, legs, terms, records, no_ledger)

    # Blocks write to columns of their own and the kernel holds no lock, so threads change nothing but the time.
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done in [pool.submit(block, first) for first in range(0, books, _BOOKS_AT_ONCE)]:
            done.result()
    return RandomBooks(label, *records)
