"""Books made by luck, under the strategy's own rules, costs and calendar, to hold the strategy's result against.

A *permuted* book follows the strategy's own score panel under one fixed permutation of the stocks' identities, so that
its scores move, stay and turn over as the strategy's do while knowing nothing of the stocks they land on. *Fresh picks*
draw new names at every decision and are shown before costs only: they turn over far more than a strategy does, so
after costs almost any noise beats them. What the comparison proves is the verdict's to say.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.backtest.book_state import BookState
from stockpicker_dagster.research.backtest.engine import (
    Inputs,
    Rules,
    make_books,
    make_inputs,
    make_ledger,
    make_records,
    state_after,
)
from stockpicker_dagster.research.backtest.market_data import MarketData
from stockpicker_dagster.research.backtest.performance import sharpes

Floats = NDArray[np.float64]

_BOOKS_AT_ONCE = 128
"""Books that share one reading of the prices at most: what they hold together fits a core's cache."""
_ROUNDING = 1e-9
_BOOKS_IN_MEMORY = 512
"""Books whose days are in memory at once where only their figures are asked for."""


@dataclass(frozen=True)
class RandomBooks:
    """The days of `n` random books, `(T, n)` each, dated and defined as in `engine.BookHistory`; no NaN anywhere.

    `label` says in words what they are, for every figure drawn from them. A book whose equity is gone returns -1.0 on
    that session and 0.0 from then on; `ruined` `(n,)` is the row of that session, -1 for a book that lives, -2 for one
    that was gone before the first row.
    """

    label: str
    net_return: Floats
    gross_return: Floats
    turnover: Floats
    ruined: NDArray[np.int64]
    state: BookState | None
    """The books after the last session, to go on from; None if there was no session."""


@dataclass(frozen=True)
class Percentile:
    """Where a strategy stands among random books; a tie, up to rounding, counts against it."""

    percentile: float
    """The share of books that it beats, 0 to 100."""
    p_value: float
    """(1 + books at least as good) / (books + 1), exact under the permutation null (Phipson and Smyth 2010)."""
    books: int


@dataclass(frozen=True, eq=False)
class BookFigures:
    """What is left of many books when their days are not kept, `(n,)` each."""

    sharpe: Floats
    """As `performance.sharpe`; NaN for a book that never traded."""
    total_return: Floats
    """A fraction, over the whole span."""
    max_drawdown: Floats
    """A fraction of the peak, 0.2 being a fall by 20 %."""


@dataclass(frozen=True)
class Standing:
    """Where a strategy stands among random books, figure by figure; a smaller drawdown is better."""

    sharpe: Percentile
    total_return: Percentile
    max_drawdown: Percentile


def permuted_books(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    *,
    books: int,
    seed: int,
    workers: int | None = None,
    resume_from: BookState | None = None,
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
    return _simulate(kernels.PERMUTED, label, scores, market, rules, decision_days, books, seed, workers, resume_from)


def permuted_figures(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    *,
    books: int,
    seed: int,
    workers: int | None = None,
) -> BookFigures:
    """The figures of the books that `permuted_books` would give, whose days are not kept: any number fits in memory."""
    _check_request(books, seed)
    inputs = make_inputs(scores, market, rules, decision_days, None)
    parts = []
    for first in range(0, books, _BOOKS_IN_MEMORY):
        some = make_books(rules, len(market.symbols), min(_BOOKS_IN_MEMORY, books - first), None)
        records = make_records(len(market.sessions), len(some.cash))
        run_blocks(kernels.PERMUTED, seed, first, inputs, some, records, workers)
        parts.append(book_figures(records.net_return))
    return BookFigures(*(np.concatenate(figures) for figures in zip(*map(astuple, parts), strict=True)))


def book_figures(returns: Floats) -> BookFigures:
    """The figures of many books from their daily returns, `(T, n)`."""
    wealth = np.cumprod(1.0 + returns, axis=0)
    peak = np.maximum(np.maximum.accumulate(wealth, axis=0), 1.0)
    growth = wealth[-1] if len(wealth) else np.ones(returns.shape[1])
    fall = (1.0 - wealth / peak).max(axis=0, initial=0.0)
    return BookFigures(sharpe=sharpes(returns), total_return=growth - 1.0, max_drawdown=fall)


def standing(returns: Floats, books: BookFigures) -> Standing:
    """Where a strategy's daily returns, `(T,)`, stand among random books, by each figure; raises as `percentile`."""
    own = book_figures(np.asarray(returns, dtype=np.float64).reshape(-1, 1))
    return Standing(
        sharpe=percentile(float(own.sharpe[0]), books.sharpe),
        total_return=percentile(float(own.total_return[0]), books.total_return),
        max_drawdown=percentile(-float(own.max_drawdown[0]), -books.max_drawdown),
    )


def fresh_picks(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    *,
    books: int,
    seed: int,
    workers: int | None = None,
    resume_from: BookState | None = None,
) -> RandomBooks:
    """`books` random books of names drawn afresh from the scored members at every decision, before all costs.

    Legs are as large as the strategy's and always equally weighted. Draws are fixed by `seed`, the number of the book
    and the date. For comparison with gross results only: see the head of this file.
    """
    costless = replace(
        rules,
        weights="equal",
        hold_band=1.0,
        commission_bps=0.0,
        commission_per_share=0.0,
        spread_bps=0.0,
        impact_coefficient=0.0,
        borrow_bps_per_year=0.0,
        hard_to_borrow_bps_per_year=None,
        cash_interest_bps_per_year=0.0,
        short_interest_bps_per_year=None,
    )
    market = replace(market, borrow_rate=None)
    label = f"{books} books of fresh random picks at every decision, before costs"
    return _simulate(kernels.FRESH, label, scores, market, costless, decision_days, books, seed, workers, resume_from)


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
    # A book of the same stocks sums them in another order.
    beaten = int((figures < strategy - _ROUNDING * max(1.0, abs(strategy))).sum())
    count = len(figures)
    return Percentile(100.0 * beaten / count, (1 + count - beaten) / (count + 1), count)


def _simulate(
    mode: int,
    label: str,
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    count: int,
    seed: int,
    workers: int | None,
    resume_from: BookState | None,
) -> RandomBooks:
    _check_request(count, seed)
    inputs = make_inputs(scores, market, rules, decision_days, resume_from)
    books = make_books(rules, len(market.symbols), count, resume_from)
    records = make_records(len(market.sessions), count)
    records.ruined[books.gone] = -2
    run_blocks(mode, seed, 0, inputs, books, records, workers)
    return RandomBooks(label, *records, state=state_after(market, inputs, books))


def _check_request(books: int, seed: int) -> None:
    if books < 1 or not 0 <= seed < 2**63:
        raise InvalidInput(
            f"{books} random books with seed {seed}: ask for at least one, and a seed from 0 to 2**63 - 1"
        )


def run_blocks(
    mode: int,
    seed: int,
    first_book: int,
    inputs: Inputs,
    books: kernels.Books,
    records: kernels.Records,
    workers: int | None,
) -> None:
    """Take `books`, which begin with number `first_book`, through all sessions, on so many threads; see `kernels`."""
    no_ledger, threads = make_ledger(0, 0), workers or os.cpu_count() or 1
    count = len(books.cash)
    size = min(_BOOKS_AT_ONCE, -(-count // threads))

    def block(first: int) -> None:
        part = kernels.Books._make(values[first : first + size] for values in books)
        kernels.simulate(
            mode, seed, first_book + first, first, inputs.decisions, *inputs.for_kernels, part, records, no_ledger
        )

    # Blocks write to columns of their own and the kernel holds no lock, so threads change nothing but the time.
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(block, first) for first in range(0, count, size)]:
            done.result()
