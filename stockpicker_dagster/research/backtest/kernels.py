"""The compiled arithmetic of long-short books: choosing the legs, trading them at the open, marking them at the close.

One book and a thousand random ones run through the very same functions, which is why a random book that happens to be
the strategy is the strategy to the last bit. They share one file because Numba's cache on disk notices a change only in
the file that holds the calling function. Checks of input and the meaning of the results are not here but in
`portfolio`, `engine` and `random_books`.

Every sum runs in a fixed order (no `fastmath`, no BLAS): over the names held, in the order in which they were bought.
So neither a symbol that lists later nor the number of books computed beside it moves a single bit.
"""

from typing import Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Columns = NDArray[np.int64]

OWN: Final = 0
"""The strategy's own scores."""
PERMUTED: Final = 1
"""The strategy's scores under one permutation of the stocks' identities per book."""
FRESH: Final = 2
"""New names drawn at every decision."""

DAYS_PER_YEAR: Final = 365.0
_WHOLE: Final = 1e-9
"""0.29 of 100 names are 29 names, although 0.29 * 100 is a little less in binary."""


class Legs(NamedTuple):
    """How many names each leg holds: `*_fraction` of the scored names if positive, else `*_names`."""

    long_names: int
    long_fraction: float
    short_names: int
    short_fraction: float
    by_score: bool


class Tape(NamedTuple):
    """What the market did: `(T, N)` unless said otherwise; marks are never NaN from a name's first price on."""

    open_mark: Floats
    close_mark: Floats
    tradable: Flags
    dividend: Floats
    split_ratio: Floats
    action_day: Flags
    """(T,) whether any name has a dividend or a split."""
    delisted: Flags
    delisting_return: Floats
    delisting_day: Flags
    """(T,) whether any name is delisted."""
    calendar_days: Floats
    """(T,) days since the session before, 0 on the first."""


class Ranking(NamedTuple):
    """The score panel, sorted: on session t the columns `columns[t, :scored[t]]`, highest score first."""

    columns: Columns
    scores: Floats
    scored: Columns
    """(T,) how many names are scored."""
    is_scored: Flags
    decision: Flags
    """(T,) whether the close of t is a decision."""
    appearance: Columns
    """(N,) the place of each column in the order of first being scored."""
    column_of: Columns
    """(N,) the inverse of `appearance`."""
    appeared: Columns
    """(T,) how many names have been scored on t or before."""
    day_number: Columns
    """(T,) the date as days since 1970, the counter of fresh draws."""


class Terms(NamedTuple):
    """Rates as fractions: of traded notional, of short value per year, of cash per year; capital in currency."""

    capital: float
    commission: float
    half_spread: float
    borrow: float
    cash_interest: float


class Records(NamedTuple):
    """Where the returns of all books go, `(T, books)` each, as fractions of the equity at the close before."""

    net_return: Floats
    gross_return: Floats
    turnover: Floats
    ruined: Columns
    """(books,) the session on which equity was gone, -1 if it never was."""


class Ledger(NamedTuple):
    """What is kept of the strategy's own book besides its returns, `(T,)` each; empty arrays for random books."""

    equity: Floats
    overnight: Floats
    commission: Floats
    spread: Floats
    borrow: Floats
    interest: Floats
    shares: Floats
    """(T, N) held after the close."""


class Day(NamedTuple):
    """What one session did to one book; money in currency, `held` the number of names after the close."""

    held: int
    cash: float
    equity: float
    short_value: float
    """Of the short positions, positive."""
    traded: float
    """Notional bought and sold, not netted."""
    at_open: float
    """Equity at the open, dividends booked, before the night's fees."""
    borrow: float
    interest: float


# ---- the legs -------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def leg_sizes(scored: int, legs: Legs) -> tuple[int, int]:
    """How many names the long and the short leg hold of `scored` names; see `portfolio.target_weights`."""
    longs = _wanted(scored, legs.long_names, legs.long_fraction)
    shorts = _wanted(scored, legs.short_names, legs.short_fraction)
    if longs + shorts <= scored:
        return longs, shorts
    if scored == 0 or (scored == 1 and longs > 0 and shorts > 0):
        return 0, 0
    both = longs + shorts
    shrunk_longs = scored * longs // both
    shrunk_shorts = scored * shorts // both
    if longs > 0 and shrunk_longs == 0:
        shrunk_longs = 1
        shrunk_shorts = min(shrunk_shorts, scored - 1)
    if shorts > 0 and shrunk_shorts == 0:
        shrunk_shorts = 1
        shrunk_longs = min(shrunk_longs, scored - 1)
    return shrunk_longs, shrunk_shorts


@numba.njit(cache=True, nogil=True)
def _wanted(scored: int, names: int, fraction: float) -> int:
    if fraction > 0.0:
        return min(scored, max(1, int(np.floor(fraction * scored + _WHOLE))))
    return names


@numba.njit(cache=True, nogil=True)
def fill_weights(ranked: Floats, scored: int, longs: int, shorts: int, by_score: bool, weights: Floats) -> None:
    """Write the weights of `scored` names ranked from the highest score down into `weights[:scored]`."""
    for place in range(scored):
        weights[place] = 0.0
    _fill_leg(ranked, scored, 0, longs, 1.0, by_score, weights)
    _fill_leg(ranked, scored, scored - shorts, scored, -1.0, by_score, weights)


@numba.njit(cache=True, nogil=True)
def _fill_leg(ranked: Floats, scored: int, first: int, last: int, side: float, by_score: bool, weights: Floats) -> None:
    total = 0.0
    if by_score and last > first:
        median = 0.5 * ranked[(scored - 1) // 2] + 0.5 * ranked[scored // 2]
        for place in range(first, last):
            weights[place] = abs(ranked[place] - median)
            total += weights[place]
    # A leg whose scores all equal the median has no proportions to follow.
    proportional = total > 0.0 and np.isfinite(total)
    for place in range(first, last):
        weights[place] = side * (weights[place] / total if proportional else 1.0 / (last - first))


# ---- what is shared by all books ------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def marks(opens: Floats, closes: Floats, adjustment: Floats) -> tuple[Floats, Floats]:
    """The price at which each name is marked at the open and at the close: its own, or the last one known.

    A stale price is carried over a split or a dividend by the day's adjustment, so that neither makes a profit.
    """
    sessions, names = opens.shape
    open_mark, close_mark = np.empty((sessions, names)), np.empty((sessions, names))
    last = np.full(names, np.nan)
    for t in range(sessions):
        for c in range(names):
            carried = last[c] / adjustment[t, c]
            open_mark[t, c] = carried if np.isnan(opens[t, c]) else opens[t, c]
            close_mark[t, c] = open_mark[t, c] if np.isnan(closes[t, c]) else closes[t, c]
            last[c] = close_mark[t, c]
    return open_mark, close_mark


@numba.njit(cache=True, nogil=True)
def rank(scores: Floats, by_name: Columns, columns: Columns, ranked: Floats, scored: Columns) -> None:
    """Sort each session's scored names from the highest score down, equal scores in the order `by_name`."""
    sessions, names = scores.shape
    present = np.empty(names, dtype=np.int64)
    negated = np.empty(names)
    for t in range(sessions):
        count = 0
        for c in by_name:
            if not np.isnan(scores[t, c]):
                present[count] = c
                negated[count] = -scores[t, c]
                count += 1
        scored[t] = count
        order = np.argsort(negated[:count], kind="mergesort")
        for place in range(count):
            columns[t, place] = present[order[place]]
            ranked[t, place] = -negated[order[place]]


# ---- random numbers by counter --------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def splitmix64(state: np.uint64) -> np.uint64:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014) on `state` plus the golden gamma."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def draw(key: np.uint64, counter: int, below: int) -> int:
    """An integer in [0, `below`), uniform up to a bias of `below` / 2**64, fixed by `key` and `counter` alone."""
    return int(splitmix64(key ^ splitmix64(np.uint64(counter))) % np.uint64(below))


@numba.njit(cache=True, nogil=True)
def book_key(seed: int, book: int) -> np.uint64:
    """The key of one book's draws, whatever the number of books."""
    return splitmix64(splitmix64(np.uint64(seed)) ^ np.uint64(book))


@numba.njit(cache=True, nogil=True)
def grow_permutation(destination: Columns, known: int, now: int, key: np.uint64) -> None:
    """Extend a permutation of `known` identities to `now` ones, in place (Fisher and Yates, inside out).

    Uniform over the permutations of every size on the way, and each newcomer moves at most one older identity.
    """
    for newcomer in range(known, now):
        swapped = draw(key, newcomer, newcomer + 1)
        destination[newcomer] = destination[swapped] if swapped < newcomer else newcomer
        destination[swapped] = newcomer


# ---- one book, one session ------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _decide(
    t: int,
    mode: int,
    ranking: Ranking,
    legs: Legs,
    destination: Columns,
    key: np.uint64,
    columns: Columns,
    scores: Floats,
    weights: Floats,
) -> int:
    """Write the book's target after the close of t, names with a weight only; return how many there are."""
    if mode == FRESH:
        return _pick(t, ranking, legs, key, columns, weights)
    scored = 0
    for place in range(ranking.scored[t]):
        column = ranking.columns[t, place]
        if mode == PERMUTED:
            column = ranking.column_of[destination[ranking.appearance[column]]]
            if not ranking.is_scored[t, column]:
                continue
        columns[scored] = column
        scores[scored] = ranking.scores[t, place]
        scored += 1
    longs, shorts = leg_sizes(scored, legs)
    fill_weights(scores, scored, longs, shorts, legs.by_score, weights)
    return _close_ranks(scored, longs, shorts, columns, weights)


@numba.njit(cache=True, nogil=True)
def _close_ranks(scored: int, longs: int, shorts: int, columns: Columns, weights: Floats) -> int:
    """Move the short leg up to the long one, over the names that are in neither."""
    for place in range(shorts):
        columns[longs + place] = columns[scored - shorts + place]
        weights[longs + place] = weights[scored - shorts + place]
    return longs + shorts


@numba.njit(cache=True, nogil=True)
def _pick(t: int, ranking: Ranking, legs: Legs, key: np.uint64, columns: Columns, weights: Floats) -> int:
    """Draw both legs from the scored names, equally weighted (Fisher and Yates, stopped when the legs are full)."""
    scored = ranking.scored[t]
    longs, shorts = leg_sizes(scored, legs)
    for place in range(scored):
        columns[place] = ranking.columns[t, place]
    day_key = splitmix64(key ^ np.uint64(ranking.day_number[t]))
    for place in range(longs + shorts):
        drawn = place + draw(day_key, place, scored - place)
        columns[place], columns[drawn] = columns[drawn], columns[place]
        weights[place] = 1.0 / longs if place < longs else -1.0 / shorts
    return longs + shorts


@numba.njit(cache=True, nogil=True)
def _advance(
    t: int,
    tape: Tape,
    terms: Terms,
    shares: Floats,
    held_columns: Columns,
    held: int,
    cash: float,
    short_value: float,
    trades: bool,
    target_columns: Columns,
    target_weights: Floats,
    targets: int,
    target: Floats,
) -> Day:
    """Take one book from the close of t - 1 to the close of t.

    `target` is scratch space of zeros, (N,). Money moves in the order in which it does in life: the night's borrow fee
    and interest, dividends and splits before the open, trades at the open, marks at the close, then delistings.
    """
    years = tape.calendar_days[t] / DAYS_PER_YEAR
    borrow = terms.borrow * short_value * years
    interest = terms.cash_interest * cash * years
    if tape.action_day[t]:
        cash += _book_actions(t, tape, shares, held_columns, held)
    at_open = cash + _value(tape.open_mark[t], shares, held_columns, held)
    cash += interest - borrow
    traded = 0.0
    if trades:
        held, cash, traded = _trade(
            t, tape, terms, shares, held_columns, held, cash, target_columns, target_weights, targets, target
        )
    if tape.delisting_day[t]:
        held, cash = _close_delisted(t, tape, shares, held_columns, held, cash)
    value, shorts = 0.0, 0.0
    for place in range(held):
        position = shares[held_columns[place]] * tape.close_mark[t, held_columns[place]]
        value += position
        shorts += min(position, 0.0)
    return Day(held, cash, cash + value, -shorts, traded, at_open, borrow, interest)


@numba.njit(cache=True, nogil=True)
def _value(prices: Floats, shares: Floats, held_columns: Columns, held: int) -> float:
    value = 0.0
    for place in range(held):
        value += shares[held_columns[place]] * prices[held_columns[place]]
    return value


@numba.njit(cache=True, nogil=True)
def _book_actions(t: int, tape: Tape, shares: Floats, held_columns: Columns, held: int) -> float:
    """Split the shares; return the dividends, per share before the split: received on longs, owed on shorts."""
    received = 0.0
    for place in range(held):
        column = held_columns[place]
        received += shares[column] * tape.dividend[t, column]
        shares[column] *= tape.split_ratio[t, column]
    return received


@numba.njit(cache=True, nogil=True)
def _trade(
    t: int,
    tape: Tape,
    terms: Terms,
    shares: Floats,
    held_columns: Columns,
    held: int,
    cash: float,
    target_columns: Columns,
    target_weights: Floats,
    targets: int,
    target: Floats,
) -> tuple[int, float, float]:
    """Trade every name that opens to its weight of the equity at the open; return names held, cash and notional."""
    equity = cash + _value(tape.open_mark[t], shares, held_columns, held)
    for place in range(targets):
        target[target_columns[place]] = target_weights[place]
    bought, traded = 0.0, 0.0
    for place in range(targets):
        column = target_columns[place]
        if shares[column] == 0.0 and tape.tradable[t, column]:
            # Listed behind the names held, it gets its shares below.
            held_columns[held] = column
            held += 1
    kept = 0
    for place in range(held):
        column = held_columns[place]
        if tape.tradable[t, column]:
            price = tape.open_mark[t, column]
            wanted = target[column] * equity / price
            notional = (wanted - shares[column]) * price
            bought += notional
            traded += abs(notional)
            shares[column] = wanted
        if shares[column] != 0.0:
            held_columns[kept] = column
            kept += 1
    for place in range(targets):
        target[target_columns[place]] = 0.0
    return kept, cash - bought - traded * terms.commission - traded * terms.half_spread, traded


@numba.njit(cache=True, nogil=True)
def _close_delisted(
    t: int, tape: Tape, shares: Floats, held_columns: Columns, held: int, cash: float
) -> tuple[int, float]:
    """Turn positions in names delisted on t into what their holders received."""
    kept = 0
    for place in range(held):
        column = held_columns[place]
        if tape.delisted[t, column]:
            cash += shares[column] * tape.close_mark[t, column] * (1.0 + tape.delisting_return[t, column])
            shares[column] = 0.0
        else:
            held_columns[kept] = column
            kept += 1
    return kept, cash


# ---- many books, all sessions ---------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def simulate(
    mode: int,
    seed: int,
    first_book: int,
    books: int,
    tape: Tape,
    ranking: Ranking,
    legs: Legs,
    terms: Terms,
    records: Records,
    ledger: Ledger,
) -> None:
    """Run `books` books from number `first_book` on through all sessions, session by session.

    Books advance together so that a session's prices are read once for all of them; none reads another's state. A book
    whose equity is gone loses exactly everything that day and stays at zero. `mode` OWN also fills the `ledger`.
    """
    sessions, names = tape.open_mark.shape
    shares = np.zeros((books, names))
    held_columns = np.empty((books, names), dtype=np.int64)
    target_columns = np.empty((books, names), dtype=np.int64)
    target_weights = np.empty((books, names))
    destination = np.empty((books, names), dtype=np.int64)
    held = np.zeros(books, dtype=np.int64)
    targets = np.zeros(books, dtype=np.int64)
    cash = np.full(books, terms.capital)
    equity = np.full(books, terms.capital)
    short_value = np.zeros(books)
    scratch, scores = np.zeros(names), np.empty(names)
    known = 0
    for t in range(sessions):
        for b in range(books):
            book = first_book + b
            if mode == PERMUTED:
                grow_permutation(destination[b], known, ranking.appeared[t], book_key(seed, book))
            if records.ruined[book] >= 0:
                continue
            trades = t > 0 and ranking.decision[t - 1]
            before = equity[b]
            day = _advance(
                t,
                tape,
                terms,
                shares[b],
                held_columns[b],
                held[b],
                cash[b],
                short_value[b],
                trades,
                target_columns[b],
                target_weights[b],
                targets[b],
                scratch,
            )
            held[b], cash[b], equity[b], short_value[b] = day.held, day.cash, day.equity, day.short_value
            _record(t, book, before, day, terms, records)
            if mode == OWN:
                _keep(t, before, day, terms, shares[b], ledger)
            if ranking.decision[t]:
                targets[b] = _decide(
                    t,
                    mode,
                    ranking,
                    legs,
                    destination[b],
                    book_key(seed, book),
                    target_columns[b],
                    scores,
                    target_weights[b],
                )
        known = ranking.appeared[t]


@numba.njit(cache=True, nogil=True)
def _record(t: int, book: int, before: float, day: Day, terms: Terms, records: Records) -> None:
    if min(day.equity, day.at_open) <= 0.0:
        records.ruined[book] = t
        records.net_return[t, book] = -1.0
        records.gross_return[t, book] = -1.0
        return
    paid = day.traded * terms.commission + day.traded * terms.half_spread + day.borrow
    records.net_return[t, book] = (day.equity - before) / before
    records.gross_return[t, book] = (day.equity - before + paid - day.interest) / before
    records.turnover[t, book] = day.traded / before


@numba.njit(cache=True, nogil=True)
def _keep(t: int, before: float, day: Day, terms: Terms, shares: Floats, ledger: Ledger) -> None:
    ledger.equity[t] = day.equity
    ledger.overnight[t] = (day.at_open - before) / before
    ledger.commission[t] = day.traded * terms.commission / before
    ledger.spread[t] = day.traded * terms.half_spread / before
    ledger.borrow[t] = day.borrow / before
    ledger.interest[t] = day.interest / before
    ledger.shares[t] = shares
