"""All the books of one back-test side by side: the strategy's own, its variants, and the random ones, day after day.

A variant is the same scores decided on another rebalance offset, or with another assumption about unknown delistings.
What each book does is `engine`'s and `random_books`' business; which of their figures are stored is that of `days`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.backtest.book_state import BookState
from stockpicker_dagster.research.backtest.engine import (
    BookHistory,
    Rules,
    make_books,
    make_inputs,
    make_ledger,
    make_records,
    run,
    state_after,
)
from stockpicker_dagster.research.backtest.market_data import MarketData
from stockpicker_dagster.research.backtest.random_books import RandomBooks, fresh_picks, permuted_books
from stockpicker_dagster.research.rebalancing import default_offset, rebalance_days, rebalance_offsets

CAUTIOUS_DELISTING_RETURN = -0.3
"""What unknown delisting returns are in the cautious book: Shumway (1997) measured -30 % for delistings for cause."""

_OWN, _CAUTIOUS, _PERMUTED, _FRESH = "own", "cautious", "permuted", "fresh"


@dataclass(frozen=True)
class Variant:
    """The returns of a variant of the own book, `(T,)` each; -1.0 on the day on which all is lost, then 0.0."""

    net_return: NDArray[np.float64]
    gross_return: NDArray[np.float64]


@dataclass(frozen=True)
class Books:
    """What happened to every book on the sessions of a run."""

    own: BookHistory
    offsets: tuple[Variant, ...]
    """One for each of `rebalance_offsets` of the rule, the own one among them."""
    cautious: Variant
    """The own one with every unknown delisting return at -30 %."""
    permuted: RandomBooks
    fresh: RandomBooks


@dataclass(frozen=True, eq=False)
class BookStates:
    """Every book after the close of one session, by name: what the next session goes on from."""

    states: Mapping[str, BookState]

    @property
    def session(self) -> date:
        return self.states[_OWN].session

    @property
    def symbols(self) -> tuple[str, ...]:
        """The market's columns, for `market_data`."""
        return tuple(str(symbol) for symbol in self.states[_OWN].symbols)

    @property
    def equity(self) -> float:
        """Of the strategy's own book, in currency."""
        return float(self.states[_OWN].equity[0])

    def to_files(self) -> dict[str, bytes]:
        """One file a book; the same states always give the same bytes."""
        return {f"{name}.npz": state.to_bytes() for name, state in self.states.items()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "BookStates":
        """What `to_files` made; `InvalidInput` if a file is broken or they are of different sessions."""
        states = {name.removesuffix(".npz"): BookState.from_bytes(content) for name, content in files.items()}
        if not {_OWN, _CAUTIOUS, _PERMUTED, _FRESH} <= set(states) or len({s.session for s in states.values()}) != 1:
            raise InvalidInput(f"{', '.join(files) or 'no file'}: these are not the states of one back-test's session")
        return cls(states)


def run_books(
    scores: NDArray[np.float64],
    market: MarketData,
    rules: Rules,
    calendar: TradingCalendar,
    *,
    books: int,
    seed: int,
    resume_from: BookStates | None = None,
) -> tuple[Books, BookStates]:
    """Every book over the sessions of `market` (at least one), from cash or from where `resume_from` left them.

    Arguments and errors as in `engine.run` and `random_books.permuted_books`; the columns of `market` begin with
    `resume_from.symbols`. Running sessions in two parts gives the same bytes as running them in one.
    """
    before = resume_from.states if resume_from else {}
    after: dict[str, BookState | None] = {}

    def decided(offset: int | None) -> NDArray[np.bool_]:
        return rebalance_days(market.sessions, rules.rebalance, calendar, offset)

    def variant(name: str, changed: Rules) -> Variant:
        deciding = decided(changed.rebalance_offset)
        found, after[name] = _variant(scores, market, changed, deciding, before.get(name))
        return found

    deciding = decided(rules.rebalance_offset)
    own = run(scores, market, rules, deciding, resume_from=before.get(_OWN))
    chosen = default_offset(rules.rebalance) if rules.rebalance_offset is None else rules.rebalance_offset
    offsets = tuple(
        Variant(own.net_return, own.gross_return)
        if offset == chosen
        else variant(f"offset_{offset}", replace(rules, rebalance_offset=offset))
        for offset in rebalance_offsets(rules.rebalance)
    )
    cautious = variant(_CAUTIOUS, replace(rules, assumed_delisting_return=CAUTIOUS_DELISTING_RETURN))
    permuted = permuted_books(
        scores, market, rules, deciding, books=books, seed=seed, resume_from=before.get(_PERMUTED)
    )
    fresh = fresh_picks(scores, market, rules, deciding, books=books, seed=seed, resume_from=before.get(_FRESH))
    after |= {_OWN: own.state, _PERMUTED: permuted.state, _FRESH: fresh.state}
    states = BookStates({name: state for name, state in sorted(after.items()) if state is not None})
    return Books(own, offsets, cautious, permuted, fresh), states


def _variant(
    scores: NDArray[np.float64],
    market: MarketData,
    rules: Rules,
    deciding: NDArray[np.bool_],
    resume_from: BookState | None,
) -> tuple[Variant, BookState | None]:
    """The own book under changed rules; its ruin is a result, unlike in `engine.run`: it must not stop the own one."""
    inputs = make_inputs(scores, market, rules, deciding, resume_from)
    book = make_books(rules, len(market.symbols), 1, resume_from)
    records = make_records(len(market.sessions), 1)
    ledger = make_ledger(*scores.shape)
    kernels.simulate(kernels.OWN, 0, 0, 0, inputs.decisions, *inputs.for_kernels, book, records, ledger)
    found = Variant(records.net_return[:, 0].copy(), records.gross_return[:, 0].copy())
    return found, state_after(market, inputs, book)
