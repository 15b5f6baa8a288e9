"""The compiled arithmetic of long-short books: choosing the legs, trading them at the open, marking them at the close.

One book and a thousand random ones run through the very same functions, which is why a random book that happens to be
the strategy is the strategy to the last bit. They share one file because Numba's cache on disk notices a change only in
the file that holds the calling function. Checks of input and the meaning of the results are not here but in
`portfolio`, `engine` and `random_books`.

Many books advance together. The positions of all of them that follow the same stock's score stand in one row, so that
one instruction moves several books: a permuted book differs from the strategy only in which stock a row stands for.

Every sum runs in a fixed order (no `fastmath`, no BLAS): over the stocks in the order of first being scored, each book
for itself. So neither a symbol that lists later nor the number of books computed beside it moves a single bit.
"""

from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Columns = NDArray[np.int64]
Places = NDArray[np.uint32]
"""Columns again, as small as they are stored a thousand times over."""
Sides = NDArray[np.int8]

OWN: Final = 0
"""The strategy's own scores."""
PERMUTED: Final = 1
"""The strategy's scores under one permutation of the stocks' identities per book."""
FRESH: Final = 2
"""New names drawn at every decision."""

EQUAL: Final = 0
BY_SCORE: Final = 1
BY_RANK: Final = 2
BY_VOLATILITY: Final = 3
"""How the names of a leg share its weight; see `portfolio.Weighting`."""

DOLLAR: Final = 0
BETA: Final = 1
SECTOR: Final = 2
EXPOSURES: Final = 3
"""What the legs balance; see `portfolio.Neutrality`."""

DAYS_PER_YEAR: Final = 365.0
VOLATILITY_WINDOW: Final = 60
"""Sessions whose returns say how volatile a target is."""
_SMALL: Final = 1e-10
_NO_WEIGHT: Final = 1e-9
"""What is left of a weight, as a part of it, that counts as nothing."""
_NEWTON_STEPS: Final = 50
"""More than any book was seen to need; each is one regression."""
_INNER: Final[dict[str, Any]] = {
    "nogil": True,
    "error_model": "numpy",
    "cache": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
"""How functions are compiled that only others here call: a way in from Python would take a fifth of the time."""
_WHOLE: Final = 1e-9
"""0.29 of 100 names are 29 names, although 0.29 * 100 is a little less in binary."""


class Legs(NamedTuple):
    """How the book is chosen: a leg holds `*_fraction` of the scored names if positive, else `*_names`."""

    long_names: int
    long_fraction: float
    short_names: int
    short_fraction: float
    weighting: int
    hold_band: float
    """A held name stays while it ranks within so many times its leg's size; 1.0 for no band."""
    sleeves: int
    """Every decision renews one of so many equal parts of the book."""
    long_gross: float
    """What the long leg sums to, as a fraction of equity."""
    short_gross: float
    cap: float
    """The largest weight of one name within a sleeve, infinite for none."""
    neutral: int
    volatility: float
    """The standard deviation of a session's return that a target may have, infinite for any."""


class Tape(NamedTuple):
    """What the market did: `(T, N)` unless said otherwise; a mark is 0 before a name's first price, and never NaN."""

    fill_mark: Floats
    """The price at which the book is valued before it trades."""
    close_mark: Floats
    trade_price: Floats
    """The price at which trades are filled, NaN for a name that cannot be traded."""
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
    impact: Floats
    """Trading a notional of x costs `impact` * x ** 1.5; (0, 0) without impact."""
    borrow_rate: Floats
    """What borrowing costs from the close on, per year; (0, 0) where all names cost the same."""
    traded_before: bool
    """Whether the close before the first session was a decision."""


class Ranking(NamedTuple):
    """The score panel, sorted: after decision t the columns `columns[t, :scored[t]]`, highest score first."""

    columns: Places
    scores: Floats
    scored: Columns
    """(T,) how many names are scored; 0 where nothing is decided."""
    is_scored: Flags
    decision: Flags
    """(T,) whether the close of t is a decision."""
    column_of: Columns
    """(N,) the columns in the order of first being scored."""
    row_of: Columns
    """(N,) the place of each column in that order."""
    appeared: Columns
    """(T,) how many names have been scored on t or before."""
    day_number: Columns
    """(T,) the date as days since 1970, the counter of fresh draws."""
    peers: Columns
    """(N,) the columns grouped by the sector of their first day, in the order of first being scored."""
    peer_base: Columns
    """(N,) where the sector of each newcomer begins in `peers`."""
    peers_before: Columns
    """(N,) how many of its sector came before each newcomer."""


class Traits(NamedTuple):
    """What is known of each stock after each close, `(T, N)`; (0, 0) where the rules do not ask for it."""

    volatility: Floats
    beta: Floats
    sector: Columns
    """From 0 on."""
    sectors: int
    exposures: Floats
    """(T, N, K) market and styles; 0 where unknown."""
    returns: Floats
    """(look_back + T, N) of each session, those before the first included; 0 where unknown."""
    sessions: int
    """T."""


class Terms(NamedTuple):
    """Rates as fractions: of traded notional, of short value per year, of cash per year; capital in currency."""

    capital: float
    commission: float
    commission_per_share: float
    half_spread: float
    borrow: float
    cash_interest: float
    short_interest: float


class Books(NamedTuple):
    """The state of B books after a close, changed in place."""

    cash: Floats
    equity: Floats
    short_value: Floats
    borrow_fee: Floats
    """Per year."""
    gone: Flags
    shares: Floats
    """(B, N)"""
    held: Columns
    held_columns: Places
    """(B, N) the names held; only the first `held` count."""
    targets: Columns
    """(B, sleeves)"""
    target_columns: Places
    """(B, sleeves, N) the last decision of each sleeve; only the first `targets` count."""
    target_weights: Floats


class Records(NamedTuple):
    """Where the returns of all books go, `(T, books)` each, as fractions of the equity at the close before."""

    net_return: Floats
    gross_return: Floats
    turnover: Floats
    ruined: Columns
    """(books,) the session on which equity was gone, -1 if it never was, -2 if it was before the first."""


class Ledger(NamedTuple):
    """What is kept of the strategy's own book besides its returns, `(T,)` each; empty arrays for random books."""

    equity: Floats
    cash: Floats
    overnight: Floats
    commission: Floats
    spread: Floats
    impact: Floats
    borrow: Floats
    interest: Floats
    dividends: Floats
    delistings: Floats
    bought: Floats
    shares: Floats
    """(T, N) held after the close."""


class Block(NamedTuple):
    """Books that advance together, stock by stock: row *i* of a matrix `(N, B)` is the *i*-th stock ever scored.

    What a book holds because of that stock's score is in row *i*, in whichever stock its permutation sends it to.
    """

    shares: Floats
    target: Floats
    """What the next trade aims at, as a fraction of equity; zero from one trade to the next decision."""
    image: Places
    """The column that each row stands for; (N, 1) where no book is permuted."""
    held: Flags
    """(N,) whether any book may hold shares by this row."""
    aimed: Flags
    """(N,) whether any book may have a target in this row."""
    image_of: Places
    """(B, N) the same by book: the column that each column's score goes to; (1, N) where no book is permuted."""
    row_of: Places
    """(B, N) the row that stands for each column; (1, N) where no book is permuted."""


class Day(NamedTuple):
    """What one session did to each book of a block, `(B,)` each, in currency."""

    value: Floats
    """Of all positions, at whatever price was read last."""
    short_value: Floats
    """Of the short positions, negative."""
    at_open: Floats
    """Equity at the prices of the fill, dividends booked, before the night's fees."""
    equity: Floats
    """The same after the night's fees: what trades are made to a fraction of."""
    traded: Floats
    """Notional bought and sold, not netted."""
    traded_shares: Floats
    bought: Floats
    """Notional bought less notional sold."""
    commission: Floats
    impact: Floats
    borrow: Floats
    interest: Floats
    dividends: Floats
    delistings: Floats
    fee: Floats
    """What the short positions cost per year from this close on."""
    price: Floats
    """Whatever is read for the row at hand."""
    at_close: Floats
    """What the row at hand is worth at the close."""


class Scratch(NamedTuple):
    """Working space of one block of books, `(N,)` each; `target` and `sides` are all zero between uses."""

    target: Floats
    sides: Sides
    columns: Places
    scores: Floats
    group: Places
    group_scores: Floats
    places: Columns
    goal_columns: Places
    goal_weights: Floats


# ---- the legs -------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(**_INNER)
def _wanted(scored: int, names: int, fraction: float) -> int:
    if fraction > 0.0:
        return min(scored, max(1, int(np.floor(fraction * scored + _WHOLE))))
    return names


@numba.njit(**_INNER)
def _select(
    ranked: Places, scored: int, names: int, band: int, side: int, sides: Sides, columns: Places, places: Columns
) -> None:
    """Choose a leg of `names`: held names that rank within `band`, then the best of the others; in order of rank.

    `side` is 1 to choose from the top and -1 from the bottom; `sides` says which leg each column was in.
    """
    kept = 0
    if band > names:
        for step in range(band):
            kept += sides[ranked[step if side > 0 else scored - 1 - step]] == side
        kept = min(kept, names)
    new, taken, step = names - kept, 0, 0
    while taken < names:
        place = step if side > 0 else scored - 1 - step
        column = ranked[place]
        stays = kept > 0 and sides[column] == side
        if stays or new > 0:
            kept, new = (kept - 1, new) if stays else (kept, new - 1)
            goes_to = taken if side > 0 else names - 1 - taken
            columns[goes_to], places[goes_to] = column, place
            taken += 1
        step += 1


@numba.njit(**_INNER)
def _share_out(
    t: int,
    legs: Legs,
    traits: Traits,
    scores: Floats,
    scored: int,
    names: int,
    columns: Places,
    places: Columns,
    weights: Floats,
) -> None:
    """Write what each name of a leg takes of it into `weights[:names]`, positive and summing to 1."""
    total = 0.0
    if names > 0 and legs.weighting != EQUAL:
        if legs.weighting == BY_SCORE:
            middle = 0.5 * scores[(scored - 1) // 2] + 0.5 * scores[scored // 2]
            for slot in range(names):
                weights[slot] = abs(scores[places[slot]] - middle)
        elif legs.weighting == BY_RANK:
            for slot in range(names):
                weights[slot] = abs(places[slot] - 0.5 * (scored - 1))
        else:
            _inverse_volatility(traits.volatility[t], names, columns, weights)
        for slot in range(names):
            total += weights[slot]
    # A leg whose scores all equal the median has no proportions to follow.
    if total > 0.0 and np.isfinite(total):
        for slot in range(names):
            weights[slot] = weights[slot] / total
    elif names > 0:
        weights[:names] = 1.0 / names


@numba.njit(**_INNER)
def _inverse_volatility(volatility: Floats, names: int, columns: Places, weights: Floats) -> None:
    """A name without a known volatility counts as the most volatile one that is known."""
    smallest = np.inf
    for slot in range(names):
        weights[slot] = 1.0 / volatility[columns[slot]] if volatility[columns[slot]] > 0.0 else np.nan
        if weights[slot] < smallest:
            smallest = weights[slot]
    for slot in range(names):
        if np.isnan(weights[slot]):
            weights[slot] = smallest if np.isfinite(smallest) else 0.0


@numba.njit(**_INNER)
def _scale(weights: Floats, names: int, gross: float, side: float, cap: float) -> None:
    """Give a leg that sums to 1 its gross weight and its sign, no name more than `cap`.

    What a capped name loses goes to the others in proportion; if all of them are capped the leg is smaller.
    """
    for slot in range(names):
        weights[slot] = side * (weights[slot] * gross)
    if cap < np.inf:
        _cap(weights, names, cap)


@numba.njit(**_INNER)
def _cap(weights: Floats, names: int, cap: float) -> None:
    for _ in range(names):
        excess, free = 0.0, 0.0
        for slot in range(names):
            size = abs(weights[slot])
            if size > cap:
                excess += size - cap
                weights[slot] = cap if weights[slot] > 0.0 else -cap
            elif size < cap:
                free += size
        if excess <= 0.0 or free <= 0.0:
            return
        for slot in range(names):
            if abs(weights[slot]) < cap:
                weights[slot] += excess * weights[slot] / free


@numba.njit(**_INNER)
def _leg_beta(beta: Floats, names: int, columns: Places, weights: Floats) -> float:
    """An unknown beta counts as 1, that of the market."""
    total = 0.0
    for slot in range(names):
        known = beta[columns[slot]]
        total += weights[slot] * (1.0 if np.isnan(known) else known)
    return total


@numba.njit(**_INNER)
def _finish_legs(
    t: int,
    legs: Legs,
    traits: Traits,
    scores: Floats,
    scored: int,
    longs: int,
    shorts: int,
    part: float,
    columns: Places,
    places: Columns,
    weights: Floats,
) -> int:
    """Weight the names in `columns`, `longs` and then `shorts`, chosen from `scored` names; return how many there are.

    `part` is what this group of stocks has of the book.
    """
    both = longs + shorts
    _share_out(t, legs, traits, scores, scored, longs, columns, places, weights)
    _share_out(t, legs, traits, scores, scored, shorts, columns[longs:], places[longs:], weights[longs:])
    long_gross, short_gross = legs.long_gross * part, legs.short_gross * part
    if legs.neutral == BETA:
        long_beta = _leg_beta(traits.beta[t], longs, columns, weights)
        short_beta = _leg_beta(traits.beta[t], shorts, columns[longs:], weights[longs:])
        if long_beta > 0.0 and short_beta > 0.0:
            gross = long_gross + short_gross
            long_gross = gross * short_beta / (long_beta + short_beta)
            short_gross = gross * long_beta / (long_beta + short_beta)
    if legs.neutral == EXPOSURES:
        weights[longs:both] *= -1.0
        return _balance(t, legs, traits, both, columns, weights)
    _scale(weights, longs, long_gross, 1.0, legs.cap)
    _scale(weights[longs:], shorts, short_gross, -1.0, legs.cap)
    return both


@numba.njit(**_INNER)
def _balance(t: int, legs: Legs, traits: Traits, names: int, columns: Places, weights: Floats) -> int:
    """Change signed weights so that nothing is left of any exposure, and scale them to their gross; return how many.

    Each changes in proportion to its size, by as little as is needed (least squares), and none changes its side: what
    is left of a weight, as a part of it, is `max(0, 1 - side x exposures . slopes)`, and the slopes are those at which
    the dual of this quadratic program, half the sum of `size x left ** 2`, is least. It is convex and quadratic in
    pieces, so that Newton's steps with a line search end at it. Where the largest would be above the cap, all shrink;
    where no weights on these sides are neutral, none is left.
    """
    names = _keep_two_sided(t, traits, names, columns, weights)
    count = max(traits.sectors, 1) + traits.exposures.shape[2]
    slopes, aim, trial = np.zeros(count), np.zeros(count), np.zeros(count)
    left, left_at_aim = np.ones(names), np.ones(names)
    loss = np.inf
    for _ in range(_NEWTON_STEPS):
        before = loss if loss < np.inf else _left(t, traits, names, columns, weights, slopes, left)
        _newton_aim(t, traits, names, columns, weights, left, aim)
        at_aim = _left(t, traits, names, columns, weights, aim, left_at_aim)
        settled = True
        for slot in range(names):
            settled = settled and (left[slot] > 0.0) == (left_at_aim[slot] > 0.0)
        loss, step = at_aim, 1.0
        trial[:] = aim
        # A step of less than a thousandth of a millionth changes nothing that counts.
        while not settled and loss >= before and step > 1e-9:
            step *= 0.5
            trial[:] = slopes + step * (aim - slopes)
            loss = _left(t, traits, names, columns, weights, trial, left_at_aim)
        if not settled and loss >= before:
            break
        slopes[:] = trial
        left[:] = left_at_aim
        if settled:
            break
    gross, largest, kept = 0.0, 0.0, 0
    for slot in range(names):
        if left[slot] > _NO_WEIGHT:
            columns[kept], weights[kept] = columns[slot], weights[slot] * left[slot]
            gross += abs(weights[kept])
            largest = max(largest, abs(weights[kept]))
            kept += 1
    if kept > 0:
        weights[:kept] *= min((legs.long_gross + legs.short_gross) / gross, legs.cap / largest)
    return kept


@numba.njit(**_INNER)
def _left(t: int, traits: Traits, names: int, columns: Places, weights: Floats, slopes: Floats, left: Floats) -> float:
    """What is left of each weight under these slopes, into `left`; return the sum of its squares, each by its size."""
    loss = 0.0
    for slot in range(names):
        left[slot] = max(0.0, 1.0 - np.sign(weights[slot]) * _explained(t, traits, slopes, columns[slot]))
        loss += abs(weights[slot]) * left[slot] ** 2
    return loss


@numba.njit(**_INNER)
def _newton_aim(
    t: int, traits: Traits, names: int, columns: Places, weights: Floats, left: Floats, aim: Floats
) -> None:
    """The slopes of a regression of the sides on the exposures over the weights of which something is left."""
    groups, styles = max(traits.sectors, 1), traits.exposures.shape[2]
    matrix = np.zeros((groups + styles, groups + styles))
    aim[:] = 0.0
    for slot in range(names):
        if left[slot] <= 0.0:
            continue
        group = _group(t, traits, columns[slot])
        of_stock, weight = traits.exposures[t, columns[slot]], weights[slot]
        size = abs(weight)
        matrix[group, group] += size
        aim[group] += weight
        for i in range(styles):
            matrix[groups + i, group] += size * of_stock[i]
            aim[groups + i] += weight * of_stock[i]
            for j in range(i + 1):
                matrix[groups + i, groups + j] += size * of_stock[i] * of_stock[j]
    _solve(matrix, aim)


@numba.njit(**_INNER)
def _keep_two_sided(t: int, traits: Traits, names: int, columns: Places, weights: Floats) -> int:
    """Leave out names without a weight and those of a sector with one side alone, which nothing could balance; return
    how many are left.
    """
    sides = np.zeros((max(traits.sectors, 1), 2), dtype=np.bool_)
    for slot in range(names):
        if weights[slot] != 0.0:
            sides[_group(t, traits, columns[slot]), int(weights[slot] > 0.0)] = True
    kept = 0
    for slot in range(names):
        if weights[slot] != 0.0 and sides[_group(t, traits, columns[slot])].all():
            columns[kept], weights[kept] = columns[slot], weights[slot]
            kept += 1
    return kept


@numba.njit(**_INNER)
def _group(t: int, traits: Traits, column: int) -> int:
    """The sector of a stock; 0 where the rules know of none."""
    return traits.sector[t, column] if traits.sectors > 0 else 0


@numba.njit(**_INNER)
def _explained(t: int, traits: Traits, slopes: Floats, column: int) -> float:
    """What sector (or constant) and exposures of a stock come to, each times its slope."""
    groups = max(traits.sectors, 1)
    total = slopes[_group(t, traits, column)]
    for i in range(traits.exposures.shape[2]):
        total += slopes[groups + i] * traits.exposures[t, column, i]
    return total


@numba.njit(**_INNER)
def _solve(matrix: Floats, values: Floats) -> None:
    """Solve a symmetric system in place, given by its lower half (Cholesky); what nothing is known of becomes 0."""
    count = len(values)
    for i in range(count):
        whole = matrix[i, i]
        for j in range(i + 1):
            left = matrix[i, j]
            for k in range(j):
                left -= matrix[i, k] * matrix[j, k]
            if j < i:
                matrix[i, j] = left / matrix[j, j] if matrix[j, j] > 0.0 else 0.0
            else:
                # A direction that the ones before it already span.
                matrix[i, i] = np.sqrt(left) if left > _SMALL * whole else 0.0
    for i in range(count):
        for k in range(i):
            values[i] -= matrix[i, k] * values[k]
        values[i] = values[i] / matrix[i, i] if matrix[i, i] > 0.0 else 0.0
    for i in range(count - 1, -1, -1):
        for k in range(i + 1, count):
            values[i] -= matrix[k, i] * values[k]
        values[i] = values[i] / matrix[i, i] if matrix[i, i] > 0.0 else 0.0


# ---- what is shared by all books ------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, error_model="numpy")
def marks(
    opens: Floats, closes: Floats, fills: Floats, adjustment: Floats, last_price: Floats
) -> tuple[Floats, Floats, Floats]:
    """The price at which each name is marked at the fill and at the close: its own, or the last one known.

    A stale price is carried over a split or a dividend by the day's adjustment, so that neither makes a profit.
    Before its first price a name's mark is 0, so that nothing held of it is worth nothing. `last_price` is the last one
    before the first session; that of the last session is returned third.
    """
    sessions, names = opens.shape
    fill_mark, close_mark = np.empty((sessions, names)), np.empty((sessions, names))
    last = last_price.copy()
    for t in range(sessions):
        for c in range(names):
            stale = last[c] / adjustment[t, c] if np.isnan(opens[t, c]) else opens[t, c]
            fill = stale if np.isnan(fills[t, c]) else fills[t, c]
            last[c] = stale if np.isnan(closes[t, c]) else closes[t, c]
            fill_mark[t, c] = 0.0 if np.isnan(fill) else fill
            close_mark[t, c] = 0.0 if np.isnan(last[c]) else last[c]
    return fill_mark, close_mark, last


@numba.njit(cache=True, nogil=True, error_model="numpy")
def rank(scores: Floats, by_name: Columns, decision: Flags, columns: Places, ranked: Floats, scored: Columns) -> None:
    """Sort each deciding session's scored names from the highest score down, equal scores in the order `by_name`."""
    sessions, names = scores.shape
    present = np.empty(names, dtype=np.int64)
    negated = np.empty(names)
    for t in range(sessions):
        if not decision[t]:
            continue
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def splitmix64(state: np.uint64) -> np.uint64:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014) on `state` plus the golden gamma."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def draw(key: np.uint64, counter: int, below: int) -> int:
    """An integer in [0, `below`), uniform up to a bias of `below` / 2**64, fixed by `key` and `counter` alone."""
    return int(splitmix64(key ^ splitmix64(np.uint64(counter))) % np.uint64(below))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def book_key(seed: int, book: int) -> np.uint64:
    """The key of one book's draws, whatever the number of books."""
    return splitmix64(splitmix64(np.uint64(seed)) ^ np.uint64(book))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def grow_permutation(image: Places, known: int, now: int, key: np.uint64, ranking: Ranking) -> None:
    """Extend a permutation of the first `known` stocks scored to the first `now`, in place.

    By Fisher and Yates, inside out: uniform over the permutations of every size on the way, within a sector where there
    are several, and each newcomer moves at most one older stock. `image` holds the column that each column's score
    goes to.
    """
    for newcomer in range(known, now):
        column, older = ranking.column_of[newcomer], ranking.peers_before[newcomer]
        swapped = draw(key, newcomer, older + 1)
        other = ranking.peers[ranking.peer_base[newcomer] + swapped]
        image[column] = image[other] if swapped < older else column
        image[other] = column


# ---- one book, one decision -----------------------------------------------------------------------------------------


@numba.njit(**_INNER)
def _decide(
    t: int,
    mode: int,
    ranking: Ranking,
    traits: Traits,
    legs: Legs,
    image: Places,
    key: np.uint64,
    scratch: Scratch,
    columns: Places,
    weights: Floats,
) -> int:
    """Write one sleeve's target after the close of t over its last one, names with a weight only; return how many."""
    if _ends_suffice(t, mode, ranking, legs):
        scored, longs, shorts = _ends(t, ranking, legs, image, columns)
        if scored >= 0:
            return _finish_legs(
                t, legs, traits, scratch.scores, scored, longs, shorts, 1.0, columns, scratch.places, weights
            )
    scored = 0
    for place in range(ranking.scored[t]):
        column = ranking.columns[t, place]
        if mode == PERMUTED:
            column = image[column]
            if not ranking.is_scored[t, column]:
                continue
        scratch.columns[scored] = column
        scratch.scores[scored] = ranking.scores[t, place]
        scored += 1
    if legs.neutral == SECTOR:
        return _decide_by_sector(t, mode, ranking, traits, legs, key, scored, scratch, columns, weights)
    longs, shorts = leg_sizes(scored, legs)
    return _decide_group(
        t, mode, ranking, traits, legs, key, scratch.columns, scratch.scores, scored, longs, shorts, 1.0, 0,
        scratch, columns, weights,
    )  # fmt: skip


@numba.njit(**_INNER)
def _ends_suffice(t: int, mode: int, ranking: Ranking, legs: Legs) -> bool:
    """Whether the two ends of a permuted ranking are all that the target depends on."""
    plain = legs.hold_band == 1.0 and (legs.weighting == EQUAL or legs.weighting == BY_VOLATILITY)
    return mode == PERMUTED and plain and legs.neutral != SECTOR


@numba.njit(**_INNER)
def _ends(t: int, ranking: Ranking, legs: Legs, image: Places, columns: Places) -> tuple[int, int, int]:
    """Walk a permuted ranking from its two ends inwards until both legs are full.

    Returns how many names are scored (where that is not known: how many have been seen) and both sizes; -1 scored if
    the number has to be known and is not.
    """
    listed = ranking.scored[t]
    if listed == ranking.appeared[t]:
        # Every stock ever scored is scored today, and so is every image of one.
        longs, shorts = leg_sizes(listed, legs)
        for place in range(longs):
            columns[place] = image[ranking.columns[t, place]]
        for place in range(shorts):
            columns[longs + place] = image[ranking.columns[t, listed - shorts + place]]
        return listed, longs, shorts
    if legs.long_fraction > 0.0 or legs.short_fraction > 0.0:
        return -1, 0, 0
    longs, shorts = legs.long_names, legs.short_names
    if longs + shorts > listed:
        return -1, 0, 0
    first, last, chosen = 0, listed - 1, 0
    while chosen < longs and first <= last:
        column = image[ranking.columns[t, first]]
        first += 1
        # Written over by the next one if it is not scored: quicker than a branch that nobody can foresee.
        columns[chosen] = column
        chosen += ranking.is_scored[t, column]
    while chosen < longs + shorts and first <= last:
        column = image[ranking.columns[t, last]]
        last -= 1
        columns[2 * longs + shorts - 1 - chosen] = column
        chosen += ranking.is_scored[t, column]
    return (chosen, longs, shorts) if chosen == longs + shorts else (-1, 0, 0)


@numba.njit(**_INNER)
def _decide_group(
    t: int,
    mode: int,
    ranking: Ranking,
    traits: Traits,
    legs: Legs,
    key: np.uint64,
    ranked: Places,
    scores: Floats,
    scored: int,
    longs: int,
    shorts: int,
    part: float,
    counter: int,
    scratch: Scratch,
    columns: Places,
    weights: Floats,
) -> int:
    """Choose and weight both legs from one group of ranked names."""
    places = scratch.places
    if mode == FRESH:
        _draw_names(t, ranking, key, ranked, scored, longs + shorts, counter)
        for slot in range(longs + shorts):
            columns[slot], places[slot] = ranked[slot], slot
    else:
        long_band = min(scored - shorts, int(np.floor(longs * legs.hold_band + _WHOLE)))
        short_band = min(scored - longs, int(np.floor(shorts * legs.hold_band + _WHOLE)))
        _select(ranked, scored, longs, long_band, 1, scratch.sides, columns, places)
        _select(ranked, scored, shorts, short_band, -1, scratch.sides, columns[longs:], places[longs:])
    return _finish_legs(t, legs, traits, scores, scored, longs, shorts, part, columns, places, weights)


@numba.njit(**_INNER)
def _decide_by_sector(
    t: int,
    mode: int,
    ranking: Ranking,
    traits: Traits,
    legs: Legs,
    key: np.uint64,
    scored: int,
    scratch: Scratch,
    columns: Places,
    weights: Floats,
) -> int:
    """Both legs within each sector, as many names and as much weight as the sector has of the scored names.

    A sector too small for a name on either side is left out, and the others share its part.
    """
    if scored == 0:
        return 0
    longs, shorts = leg_sizes(scored, legs)
    sizes = np.zeros((3, traits.sectors), dtype=np.int64)
    for place in range(scored):
        sizes[0, traits.sector[t, scratch.columns[place]]] += 1
    below, balanced = 0, 0
    for sector in range(traits.sectors):
        members = sizes[0, sector]
        sector_longs = (below + members) * longs // scored - below * longs // scored
        sector_shorts = (below + members) * shorts // scored - below * shorts // scored
        sector_shorts = min(sector_shorts, members - sector_longs)
        below += members
        if sector_longs > 0 and sector_shorts > 0:
            sizes[1, sector], sizes[2, sector] = sector_longs, sector_shorts
            balanced += members
    chosen, before = 0, 0
    for sector in range(traits.sectors):
        if sizes[1, sector] > 0:
            count = 0
            for place in range(scored):
                if traits.sector[t, scratch.columns[place]] == sector:
                    scratch.group[count] = scratch.columns[place]
                    scratch.group_scores[count] = scratch.scores[place]
                    count += 1
            chosen += _decide_group(
                t, mode, ranking, traits, legs, key, scratch.group, scratch.group_scores, count, sizes[1, sector],
                sizes[2, sector], count / balanced, before, scratch, columns[chosen:], weights[chosen:],
            )  # fmt: skip
        before += sizes[0, sector]
    return chosen


@numba.njit(**_INNER)
def _draw_names(
    t: int, ranking: Ranking, key: np.uint64, names: Places, scored: int, wanted: int, counter: int
) -> None:
    """Bring `wanted` of the `scored` names to the front by chance (Fisher and Yates, stopped early)."""
    day_key = splitmix64(key ^ np.uint64(ranking.day_number[t]))
    for place in range(wanted):
        drawn = place + draw(day_key, counter + place, scored - place)
        names[place], names[drawn] = names[drawn], names[place]


@numba.njit(**_INNER)
def _renew(
    t: int,
    mode: int,
    ranking: Ranking,
    traits: Traits,
    legs: Legs,
    image: Places,
    key: np.uint64,
    decisions: int,
    scratch: Scratch,
    targets: Columns,
    columns: Places,
    weights: Floats,
) -> None:
    """Decide anew for the oldest of one book's sleeves."""
    sleeve = decisions % legs.sleeves
    if legs.hold_band == 1.0:
        targets[sleeve] = _decide(t, mode, ranking, traits, legs, image, key, scratch, columns[sleeve], weights[sleeve])
        return
    last = columns[sleeve, : targets[sleeve]].copy()
    for slot in range(len(last)):
        scratch.sides[last[slot]] = np.sign(weights[sleeve, slot])
    targets[sleeve] = _decide(t, mode, ranking, traits, legs, image, key, scratch, columns[sleeve], weights[sleeve])
    for column in last:
        scratch.sides[column] = 0


@numba.njit(**_INNER)
def _goal(
    t: int, decisions: int, legs: Legs, traits: Traits, scratch: Scratch, books: Books, b: int
) -> tuple[int, Places, Floats]:
    """What book b trades to after so many decisions, the last of them after the close of t: how many names, which, and
    their weights, the mean of its sleeves, scaled down to the volatility allowed.
    """
    targets, columns, weights = books.targets[b], books.target_columns[b], books.target_weights[b]
    if legs.sleeves == 1 and legs.volatility == np.inf:
        return targets[0], columns[0], weights[0]
    count = 0
    for age in range(legs.sleeves):
        # Oldest first, so that the sum does not depend on which sleeve that is.
        sleeve = (decisions + age) % legs.sleeves
        for slot in range(targets[sleeve]):
            column = columns[sleeve, slot]
            if scratch.sides[column] == 0:
                scratch.sides[column] = 1
                scratch.goal_columns[count] = column
                count += 1
            scratch.target[column] += weights[sleeve, slot] / legs.sleeves
    for slot in range(count):
        column = scratch.goal_columns[slot]
        scratch.goal_weights[slot] = scratch.target[column]
        scratch.target[column], scratch.sides[column] = 0.0, 0
    if legs.volatility < np.inf:
        deviation = _deviation(t, traits, count, scratch.goal_columns, scratch.goal_weights)
        if deviation > legs.volatility:
            scratch.goal_weights[:count] *= legs.volatility / deviation
    return count, scratch.goal_columns, scratch.goal_weights


@numba.njit(**_INNER)
def _deviation(t: int, traits: Traits, count: int, columns: Places, weights: Floats) -> float:
    """The standard deviation (ddof 1) that these weights would have had over the last sessions up to t; 0 where there
    are fewer than half of them.
    """
    last = len(traits.returns) - traits.sessions + t
    # The first row has no session before it.
    sessions = min(VOLATILITY_WINDOW, last)
    if 2 * sessions < VOLATILITY_WINDOW:
        return 0.0
    total, squares = 0.0, 0.0
    earned = np.zeros(sessions)
    for place in range(sessions):
        row = traits.returns[last - sessions + 1 + place]
        for slot in range(count):
            earned[place] += weights[slot] * row[columns[slot]]
        total += earned[place]
    for place in range(sessions):
        squares += (earned[place] - total / sessions) ** 2
    return np.sqrt(squares / (sessions - 1))


# ---- a block of books -----------------------------------------------------------------------------------------------


@numba.njit(**_INNER)
def _make_block(permuted: bool, names: int, count: int, ranking: Ranking) -> Block:
    """A block without positions. Books that are not permuted share one image, that of every stock on itself."""
    images = count if permuted else 1
    block = Block(
        np.zeros((names, count)), np.zeros((names, count)), np.zeros((names, images), dtype=np.uint32),
        np.zeros(names, dtype=np.bool_), np.zeros(names, dtype=np.bool_),
        np.zeros((images, names), dtype=np.uint32), np.zeros((images, names), dtype=np.uint32),
    )  # fmt: skip
    if not permuted:
        for row in range(names):
            column = ranking.column_of[row]
            block.image[row, 0], block.image_of[0, column], block.row_of[0, column] = column, column, row
    return block


@numba.njit(**_INNER)
def _make_day(count: int) -> Day:
    return Day(
        np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count),
        np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count),
        np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count),
    )  # fmt: skip


@numba.njit(**_INNER)
def _grow(block: Block, b: int, known: int, now: int, key: np.uint64, ranking: Ranking) -> None:
    """Extend the permutation of one book; what it holds and aims at stays in the same stocks, if in another row."""
    for newcomer in range(known, now):
        grow_permutation(block.image_of[b], newcomer, newcomer + 1, key, ranking)
        column = ranking.column_of[newcomer]
        stands_for = block.image_of[b, column]
        if stands_for != column:
            row = block.row_of[b, stands_for]
            block.image[row, b], block.row_of[b, column] = column, row
            block.shares[newcomer, b], block.shares[row, b] = block.shares[row, b], 0.0
            block.target[newcomer, b], block.target[row, b] = block.target[row, b], 0.0
            block.held[newcomer] |= block.held[row]
            block.aimed[newcomer] |= block.aimed[row]
        block.image[newcomer, b], block.row_of[b, stands_for] = stands_for, newcomer


@numba.njit(**_INNER)
def _load(block: Block, books: Books) -> None:
    """Lay out what the books hold in the rows of the block."""
    one = len(block.row_of) == 1
    for b in range(len(books.cash)):
        row_of = block.row_of[0 if one else b]
        for place in range(books.held[b]):
            column = books.held_columns[b, place]
            block.shares[row_of[column], b] = books.shares[b, column]
            block.held[row_of[column]] = True


@numba.njit(**_INNER)
def _store(block: Block, books: Books) -> None:
    """The reverse of `_load`."""
    one = block.image.shape[1] == 1
    books.shares[:] = 0.0
    for b in range(len(books.cash)):
        held = 0
        for row in range(len(block.held)):
            if block.held[row] and block.shares[row, b] != 0.0:
                column = block.image[row, 0 if one else b]
                books.shares[b, column] = block.shares[row, b]
                books.held_columns[b, held] = column
                held += 1
        books.held[b] = held


@numba.njit(**_INNER)
def _read(values: Floats, row: int, block: Block, into: Floats) -> None:
    """What a session's `values` `(N,)` are for the stock that each book has in this row."""
    if block.image.shape[1] == 1:
        into[:] = values[block.image[row, 0]]
        return
    image = block.image[row]
    for b in range(len(into)):
        into[b] = values[image[b]]


@numba.njit(**_INNER)
def _list_rows(flags: Flags, others: Flags, rows: Columns) -> int:
    """List the rows of either flag, ascending; return how many there are."""
    count = 0
    for row in range(len(flags)):
        if flags[row] or others[row]:
            rows[count] = row
            count += 1
    return count


# ---- one block, one session -----------------------------------------------------------------------------------------


@numba.njit(**_INNER)
def _advance(
    t: int, tape: Tape, terms: Terms, books: Books, block: Block, trades: bool, scratch: Scratch, day: Day
) -> None:
    """Take a block of books from the close of t - 1 to the close of t.

    Money moves in the order in which it does in life: the night's borrow fee and interest, dividends and splits before
    the open, trades at the fill, marks at the close, then delistings.
    """
    count, rows, cash = len(books.cash), scratch.places, books.cash
    held = _list_rows(block.held, block.held, rows)
    years = tape.calendar_days[t] / DAYS_PER_YEAR
    for b in range(count):
        day.borrow[b] = books.borrow_fee[b] * years
    if terms.short_interest == terms.cash_interest:
        for b in range(count):
            day.interest[b] = terms.cash_interest * cash[b] * years
    else:
        for b in range(count):
            shorts = books.short_value[b]
            day.interest[b] = (terms.cash_interest * (cash[b] - shorts) + terms.short_interest * shorts) * years
    day.dividends[:] = 0.0
    if tape.action_day[t]:
        _book_actions(t, tape, block, rows[:held], day)
        for b in range(count):
            cash[b] += day.dividends[b]
    day.value[:] = 0.0
    for row in rows[:held]:
        _read(tape.fill_mark[t], row, block, day.price)
        shares = block.shares[row]
        for b in range(count):
            day.value[b] += shares[b] * day.price[b]
    for b in range(count):
        day.at_open[b] = cash[b] + day.value[b]
        cash[b] += day.interest[b] - day.borrow[b]
        day.equity[b] = cash[b] + day.value[b]
    if trades:
        held = _trade(t, tape, block, rows, day)
        for b in range(count):
            day.commission[b] = day.traded[b] * terms.commission + day.traded_shares[b] * terms.commission_per_share
            cash[b] = cash[b] - day.bought[b] - day.commission[b] - day.traded[b] * terms.half_spread - day.impact[b]
    else:
        day.bought[:], day.traded[:], day.impact[:], day.commission[:] = 0.0, 0.0, 0.0, 0.0
    day.delistings[:] = 0.0
    if tape.delisting_day[t]:
        _close_delisted(t, tape, block, rows[:held], cash, day)
    _mark(t, tape, terms, block, rows[:held], day)


@numba.njit(**_INNER)
def _book_actions(t: int, tape: Tape, block: Block, rows: Columns, day: Day) -> None:
    """Split the shares; book the dividends, per share before the split: received on longs, owed on shorts."""
    for row in rows:
        shares = block.shares[row]
        _read(tape.dividend[t], row, block, day.price)
        for b in range(len(shares)):
            day.dividends[b] += shares[b] * day.price[b]
        _read(tape.split_ratio[t], row, block, day.price)
        for b in range(len(shares)):
            shares[b] *= day.price[b]


@numba.njit(**_INNER)
def _trade(t: int, tape: Tape, block: Block, rows: Columns, day: Day) -> int:
    """Trade every name that can be to its weight of the equity at the fill; list the rows held after, and return how
    many there are. The target of a name that cannot be traded is dropped.
    """
    day.bought[:], day.traded[:], day.traded_shares[:], day.impact[:] = 0.0, 0.0, 0.0, 0.0
    listed, kept = _list_rows(block.held, block.aimed, rows), 0
    for place in range(listed):
        row = rows[place]
        shares, target = block.shares[row], block.target[row]
        _read(tape.trade_price[t], row, block, day.price)
        if tape.impact.size > 0:
            _add_impact(t, tape, row, block, day)
        for b in range(len(shares)):
            price = day.price[b]
            can = not np.isnan(price)
            wanted = target[b] * day.equity[b] / price
            wanted = wanted if can else shares[b]
            change = wanted - shares[b]
            notional = change * price
            notional = notional if can else 0.0
            day.bought[b] += notional
            day.traded[b] += abs(notional)
            day.traded_shares[b] += abs(change)
            shares[b] = wanted
            target[b] = 0.0
        block.aimed[row] = False
        block.held[row] = np.any(shares != 0.0)
        if block.held[row]:
            rows[kept] = row
            kept += 1
    return kept


@numba.njit(**_INNER)
def _add_impact(t: int, tape: Tape, row: int, block: Block, day: Day) -> None:
    """What trading this row, not yet traded at `day.price`, moves the price against the book."""
    one = block.image.shape[1] == 1
    for b in range(len(day.price)):
        price = day.price[b]
        if not np.isnan(price):
            change = block.target[row, b] * day.equity[b] / price - block.shares[row, b]
            size = abs(change * price)
            day.impact[b] += tape.impact[t, block.image[row, 0 if one else b]] * size * np.sqrt(size)


@numba.njit(**_INNER)
def _close_delisted(t: int, tape: Tape, block: Block, rows: Columns, cash: Floats, day: Day) -> None:
    """Turn positions in names delisted on t into what their holders received."""
    one = block.image.shape[1] == 1
    for row in rows:
        for b in range(len(cash)):
            column = block.image[row, 0 if one else b]
            if tape.delisted[t, column] and block.shares[row, b] != 0.0:
                paid = block.shares[row, b] * tape.close_mark[t, column] * (1.0 + tape.delisting_return[t, column])
                cash[b] += paid
                day.delistings[b] += paid
                block.shares[row, b] = 0.0


@numba.njit(**_INNER)
def _mark(t: int, tape: Tape, terms: Terms, block: Block, rows: Columns, day: Day) -> None:
    """The value of all positions and of the short ones at the close, and what borrowing these costs per year."""
    count = len(day.value)
    day.value[:], day.short_value[:], day.fee[:] = 0.0, 0.0, 0.0
    by_name = tape.borrow_rate.size > 0
    for row in rows:
        shares = block.shares[row]
        _read(tape.close_mark[t], row, block, day.price)
        for b in range(count):
            position = shares[b] * day.price[b]
            day.value[b] += position
            day.short_value[b] += position if position < 0.0 else 0.0
        if by_name:
            for b in range(count):
                day.at_close[b] = shares[b] * day.price[b]
            _read(tape.borrow_rate[t], row, block, day.price)
            for b in range(count):
                position = day.at_close[b]
                day.fee[b] -= (position if position < 0.0 else 0.0) * day.price[b]
    if not by_name:
        for b in range(count):
            day.fee[b] = terms.borrow * -day.short_value[b]


@numba.njit(**_INNER)
def _record(t: int, slot: int, terms: Terms, books: Books, block: Block, records: Records, day: Day) -> None:
    """Write down the session's returns and what the books are worth now; a book that is worth nothing is gone."""
    for b in range(len(books.cash)):
        before, equity = books.equity[b], books.cash[b] + day.value[b]
        if books.gone[b]:
            continue
        if min(equity, day.at_open[b]) <= 0.0:
            books.gone[b], records.ruined[slot + b] = True, t
            records.net_return[t, slot + b], records.gross_return[t, slot + b] = -1.0, -1.0
            # From here on it holds nothing, so that it stands in nobody's way.
            books.cash[b], books.equity[b], books.short_value[b], books.borrow_fee[b] = 0.0, 0.0, 0.0, 0.0
            block.shares[:, b] = 0.0
            continue
        paid = day.commission[b] + day.traded[b] * terms.half_spread + day.borrow[b] + day.impact[b]
        records.net_return[t, slot + b] = (equity - before) / before
        records.gross_return[t, slot + b] = (equity - before + paid - day.interest[b]) / before
        records.turnover[t, slot + b] = day.traded[b] / before
        books.equity[b], books.short_value[b], books.borrow_fee[b] = equity, -day.short_value[b], day.fee[b]


@numba.njit(**_INNER)
def _keep(t: int, before: float, terms: Terms, books: Books, block: Block, ledger: Ledger, day: Day) -> None:
    """Write the ledger of the only book of a block, which was worth `before` at the close of t - 1."""
    ledger.equity[t] = books.equity[0]
    ledger.cash[t] = books.cash[0]
    ledger.overnight[t] = (day.at_open[0] - before) / before
    ledger.commission[t] = day.commission[0] / before
    ledger.spread[t] = day.traded[0] * terms.half_spread / before
    ledger.impact[t] = day.impact[0] / before
    ledger.borrow[t] = day.borrow[0] / before
    ledger.interest[t] = day.interest[0] / before
    ledger.dividends[t] = day.dividends[0]
    ledger.delistings[t] = day.delistings[0]
    ledger.bought[t] = day.bought[0]
    for row in range(len(block.held)):
        if block.held[row]:
            ledger.shares[t, block.image[row, 0]] = block.shares[row, 0]


# ---- one block, one decision ----------------------------------------------------------------------------------------


@numba.njit(**_INNER)
def _aim(t: int, decisions: int, legs: Legs, traits: Traits, scratch: Scratch, books: Books, block: Block) -> None:
    """Lay out what every book trades to after so many decisions, the last of them after the close of t."""
    one = block.image.shape[1] == 1
    for b in range(len(books.cash)):
        if not books.gone[b]:
            row_of = block.row_of[0 if one else b]
            goals, columns, weights = _goal(t, decisions, legs, traits, scratch, books, b)
            for slot in range(goals):
                row = row_of[columns[slot]]
                block.target[row, b] = weights[slot]
                block.aimed[row] = True


@numba.njit(**_INNER)
def _all_alike(t: int, mode: int, ranking: Ranking, legs: Legs) -> bool:
    """Whether all permuted books decide alike but for whom their rows stand for.

    They do if every stock ever scored is scored today, and nothing but the scores decides.
    """
    plain = legs.weighting != BY_VOLATILITY and legs.neutral == DOLLAR and legs.hold_band == 1.0 and legs.sleeves == 1
    plain = plain and legs.volatility == np.inf
    return mode == PERMUTED and plain and ranking.scored[t] == ranking.appeared[t]


@numba.njit(**_INNER)
def _aim_alike(t: int, ranking: Ranking, traits: Traits, legs: Legs, scratch: Scratch, block: Block) -> None:
    """What `_renew` and `_aim` come to for books that decide alike, from one decision."""
    scored = ranking.scored[t]
    longs, shorts = leg_sizes(scored, legs)
    for slot in range(longs + shorts):
        scratch.places[slot] = slot if slot < longs else scored - shorts + slot - longs
        scratch.columns[slot] = ranking.columns[t, scratch.places[slot]]
    count = _finish_legs(
        t, legs, traits, ranking.scores[t], scored, longs, shorts, 1.0, scratch.columns, scratch.places,
        scratch.goal_weights,
    )  # fmt: skip
    for slot in range(count):
        row = ranking.row_of[scratch.columns[slot]]
        block.target[row, :] = scratch.goal_weights[slot]
        block.aimed[row] = True


# ---- many books, all sessions ---------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, error_model="numpy")
def simulate(
    mode: int,
    seed: int,
    first_book: int,
    slot: int,
    decisions: int,
    tape: Tape,
    ranking: Ranking,
    traits: Traits,
    legs: Legs,
    terms: Terms,
    books: Books,
    records: Records,
    ledger: Ledger,
) -> None:
    """Take `books`, the first of which has the number `first_book`, through all sessions, session by session.

    Books advance together so that a session's prices are read once for all of them; none reads another's state. A book
    whose equity is gone loses exactly everything that day and stays at zero. `decisions` is how many there have been
    before; `slot` is the column of the first book in `records`. `mode` OWN takes one book, and also fills the `ledger`.
    """
    sessions, names = tape.fill_mark.shape
    count = len(books.cash)
    scratch, day, block = make_scratch(names), _make_day(count), _make_block(mode == PERMUTED, names, count, ranking)
    known = 0
    for t in range(sessions):
        if mode == PERMUTED and ranking.appeared[t] > known:
            for b in range(count):
                _grow(block, b, known, ranking.appeared[t], book_key(seed, first_book + b), ranking)
            known = ranking.appeared[t]
        if t == 0:
            _load(block, books)
            if tape.traded_before:
                _aim(-1, decisions, legs, traits, scratch, books, block)
        before = books.equity[0]
        _advance(t, tape, terms, books, block, ranking.decision[t - 1] if t > 0 else tape.traded_before, scratch, day)
        _record(t, slot, terms, books, block, records, day)
        if mode == OWN and not books.gone[0]:
            _keep(t, before, terms, books, block, ledger, day)
        if not ranking.decision[t]:
            continue
        # The last decision is written down book by book: the next run goes on from it.
        if t + 1 < sessions and _all_alike(t, mode, ranking, legs):
            _aim_alike(t, ranking, traits, legs, scratch, block)
        else:
            for b in range(count):
                if not books.gone[b]:
                    _renew(
                        t, mode, ranking, traits, legs, block.image_of[b if mode == PERMUTED else 0],
                        book_key(seed, first_book + b), decisions, scratch, books.targets[b], books.target_columns[b],
                        books.target_weights[b],
                    )  # fmt: skip
            _aim(t, decisions + 1, legs, traits, scratch, books, block)
        decisions += 1
    _store(block, books)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def make_scratch(names: int) -> Scratch:
    """Working space for that many names."""
    return Scratch(
        np.zeros(names), np.zeros(names, dtype=np.int8), np.empty(names, dtype=np.uint32), np.empty(names),
        np.empty(names, dtype=np.uint32), np.empty(names), np.empty(names, dtype=np.int64),
        np.empty(names, dtype=np.uint32), np.empty(names),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def plan(ranking: Ranking, traits: Traits, legs: Legs, decisions: int, books: Books, weights: Floats) -> None:
    """Write the target after each decision into `weights`, `(T, N)` of zeros, as `simulate` does for its own book."""
    sessions, names = weights.shape
    scratch = make_scratch(names)
    nowhere = np.empty(0, np.uint32)
    for t in range(sessions):
        if ranking.decision[t]:
            _renew(
                t, OWN, ranking, traits, legs, nowhere, np.uint64(0), decisions, scratch,
                books.targets[0], books.target_columns[0], books.target_weights[0],
            )  # fmt: skip
            decisions += 1
            goals, goal_columns, goal_weights = _goal(t, decisions, legs, traits, scratch, books, 0)
            for slot in range(goals):
                weights[t, goal_columns[slot]] = goal_weights[slot]
