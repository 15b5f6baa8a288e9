"""The compiled loops behind `signal_quality` and `signal_study`.

Panels are `(T, N)` float64 with NaN for what is missing. `groups` `(T, N)` has the number of the group that a stock is
in on the day, -1 for none; every figure has a leading axis of groups. Each kernel fills the sessions from `first` up to
`last` and computes each of them by itself in the order of the columns, so that threads, neighbouring sessions and
columns without a value move no bit. What the figures mean is said where they are asked for.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.research.order_statistics import rank_keys, write_keys

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEWEST_STOCKS = 3
"""Below it a correlation is none, or always one."""


@numba.njit(cache=True, nogil=True)
def rank_days(panel: Floats, first: int, last: int, ranks: Floats) -> None:
    """Fills `ranks` `(T, N)`: the average rank, from 1, of each value among all of its day; NaN where there is none."""
    names = panel.shape[1]
    values, value_ranks = np.empty(names), np.empty(names)
    keys, spare = np.empty(names, dtype=np.int64), np.empty(names, dtype=np.int64)
    order = np.empty((2, names), dtype=np.int32)
    for t in range(first, last):
        count = 0
        for c in range(names):
            if not np.isnan(panel[t, c]):
                values[count] = panel[t, c]
                count += 1
        write_keys(values[:count], keys[:count])
        rank_keys(keys[:count], spare[:count], order[:, :count], value_ranks[:count])
        place = 0
        for c in range(names):
            ranks[t, c] = np.nan
            if not np.isnan(panel[t, c]):
                ranks[t, c] = value_ranks[place]
                place += 1


@numba.njit(cache=True, nogil=True)
def information_coefficients(
    scores: Floats,
    returns: Floats,
    score_ranks: Floats,
    return_ranks: Floats,
    groups: Integers,
    first: int,
    last: int,
    ic: Floats,
    rank_ic: Floats,
) -> None:
    """Fills `ic` and `rank_ic`, `(G, T)` each: Pearson's and Spearman's correlation of scores and returns.

    The ranks are those of `rank_days`; the few stocks that have both values are ranked anew from them.
    """
    names = scores.shape[1]
    x, y, x_ranks, y_ranks = np.empty(names), np.empty(names), np.empty(names), np.empty(names)
    smaller = np.empty(2 * names + 2, dtype=np.int64)
    for t in range(first, last):
        for group in range(len(ic)):
            count = 0
            for c in range(names):
                if groups[t, c] == group and not (np.isnan(scores[t, c]) or np.isnan(returns[t, c])):
                    x[count], y[count] = scores[t, c], returns[t, c]
                    x_ranks[count], y_ranks[count] = score_ranks[t, c], return_ranks[t, c]
                    count += 1
            ic[group, t] = rank_ic[group, t] = np.nan
            if count >= FEWEST_STOCKS:
                ic[group, t] = correlation(x[:count], y[:count])
                _rank_again(x_ranks[:count], smaller)
                _rank_again(y_ranks[:count], smaller)
                rank_ic[group, t] = correlation(x_ranks[:count], y_ranks[:count])


@numba.njit(cache=True, nogil=True)
def quantiles_of_days(
    score_ranks: Floats,
    groups: Integers,
    group_count: int,
    quantiles: int,
    first: int,
    last: int,
    group_ranks: Floats,
    quantile: Integers,
) -> None:
    """Fills `group_ranks` (average, from 1) and `quantile` (1 to `quantiles`, 0 for none), `(T, N)`, within each group.

    A quantile begins above the linearly interpolated one of its lower edge. So the stock with `below` smaller scores
    among `count` is in quantile ceil(below x quantiles / (count - 1)), and at least in the first: integers, which no
    rounding moves. A group without distinct edges has none (pandas may keep edges that only its rounding sets apart).
    """
    names = score_ranks.shape[1]
    ranks, ascending = np.empty(names), np.empty(names)
    places = np.empty(names, dtype=np.int64)
    smaller = np.empty(2 * names + 2, dtype=np.int64)
    for t in range(first, last):
        group_ranks[t], quantile[t] = np.nan, 0
        for group in range(group_count):
            count = 0
            for c in range(names):
                if groups[t, c] == group and not np.isnan(score_ranks[t, c]):
                    ranks[count], places[count] = score_ranks[t, c], c
                    count += 1
            _rank_again(ranks[:count], smaller)
            for place in range(count):
                group_ranks[t, places[place]] = ranks[place]
            _count_smaller(ranks[:count], smaller)
            for place in range(count):
                tied = int(2 * ranks[place])
                ascending[smaller[tied] : smaller[tied + 1]] = ranks[place]
            if not _edges_differ(ascending[:count], quantiles):
                continue
            for place in range(count):
                below = smaller[int(2 * ranks[place])]
                quantile[t, places[place]] = max(1, -(-below * quantiles // (count - 1)))


@numba.njit(cache=True, nogil=True)
def _edges_differ(ascending: Floats, quantiles: int) -> bool:
    """Whether no two neighbouring edges are the same number, which ties over a whole quantile would make them."""
    last = len(ascending) - 1
    if last < 1:
        return False
    for edge in range(quantiles):
        if ascending[last * edge // quantiles] == ascending[-(-last * (edge + 1) // quantiles)]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _rank_again(ranks: Floats, smaller: Integers) -> None:
    """Replaces average ranks among many by those among the ones given; `smaller` is work space."""
    _count_smaller(ranks, smaller)
    for place in range(len(ranks)):
        tied = int(2 * ranks[place])
        ranks[place] = 0.5 * (smaller[tied] + smaller[tied + 1] + 1)


@numba.njit(cache=True, nogil=True)
def _count_smaller(ranks: Floats, smaller: Integers) -> None:
    """Fills `smaller` at twice a rank with how many of `ranks` are smaller, and after it with those up to it."""
    highest = 0
    for place in range(len(ranks)):
        highest = max(highest, int(2 * ranks[place]))
    smaller[: highest + 2] = 0
    for place in range(len(ranks)):
        smaller[int(2 * ranks[place]) + 1] += 1
    for place in range(1, highest + 2):
        smaller[place] += smaller[place - 1]


@numba.njit(cache=True, nogil=True)
def quantile_returns(
    quantile: Integers, returns: Floats, groups: Integers, first: int, last: int, result: Floats
) -> None:
    """Fills `result` `(G, T, Q)`: the mean return of each quantile, less that of all stocks in one of the group's."""
    group_count, _, quantiles = result.shape
    totals, counts = np.empty((group_count, quantiles + 1)), np.empty((group_count, quantiles + 1))
    for t in range(first, last):
        totals[:], counts[:] = 0.0, 0.0
        for c in range(quantile.shape[1]):
            if quantile[t, c] > 0 and not np.isnan(returns[t, c]):
                for place in (0, quantile[t, c]):
                    totals[groups[t, c], place] += returns[t, c]
                    counts[groups[t, c], place] += 1.0
        for group in range(group_count):
            for place in range(quantiles):
                result[group, t, place] = np.nan
                if counts[group, place + 1] > 0.0:
                    mean = totals[group, place + 1] / counts[group, place + 1]
                    result[group, t, place] = mean - totals[group, 0] / counts[group, 0]


@numba.njit(cache=True, nogil=True)
def quantile_turnover(quantile: Integers, groups: Integers, lag: int, first: int, last: int, result: Floats) -> None:
    """Fills `result` `(G, T, Q)`: the share of a quantile's stocks that were not in it `lag` sessions before.

    NaN where the quantile was empty on either session.
    """
    group_count, _, quantiles = result.shape
    shape = (group_count, quantiles + 1)
    now, before, new = np.empty(shape), np.empty(shape), np.empty(shape)
    for t in range(first, last):
        result[:, t] = np.nan
        if t < lag:
            continue
        now[:], before[:], new[:] = 0.0, 0.0, 0.0
        for c in range(quantile.shape[1]):
            if quantile[t - lag, c] > 0:
                before[groups[t - lag, c], quantile[t - lag, c]] += 1.0
            if quantile[t, c] > 0:
                now[groups[t, c], quantile[t, c]] += 1.0
                if quantile[t - lag, c] != quantile[t, c] or groups[t - lag, c] != groups[t, c]:
                    new[groups[t, c], quantile[t, c]] += 1.0
        for group in range(group_count):
            for place in range(quantiles):
                if now[group, place + 1] > 0.0 and before[group, place + 1] > 0.0:
                    result[group, t, place] = new[group, place + 1] / now[group, place + 1]


@numba.njit(cache=True, nogil=True)
def rank_autocorrelation(ranks: Floats, groups: Integers, lag: int, first: int, last: int, result: Floats) -> None:
    """Fills `result` `(G, T)`: Pearson's correlation of ranks with those `lag` sessions before, stocks in both."""
    names = ranks.shape[1]
    x, y = np.empty(names), np.empty(names)
    for t in range(first, last):
        for group in range(len(result)):
            result[group, t] = np.nan
            if t < lag:
                continue
            count = 0
            for c in range(names):
                if (groups[t, c] == group and groups[t - lag, c] == group) and not (
                    np.isnan(ranks[t, c]) or np.isnan(ranks[t - lag, c])
                ):
                    x[count], y[count] = ranks[t, c], ranks[t - lag, c]
                    count += 1
            if count >= FEWEST_STOCKS:
                result[group, t] = correlation(x[:count], y[:count])


@numba.njit(cache=True, nogil=True)
def correlation(x: Floats, y: Floats) -> float:
    """Pearson's; NaN where a side does not vary."""
    mean_x, mean_y = x.sum() / len(x), y.sum() / len(y)
    xx, yy, xy = 0.0, 0.0, 0.0
    for place in range(len(x)):
        dx, dy = x[place] - mean_x, y[place] - mean_y
        xx += dx * dx
        yy += dy * dy
        xy += dx * dy
    # A side whose variance is below 1e-12 of its scale is constant but for rounding.
    if xx <= 1e-12 * len(x) * mean_x * mean_x or yy <= 1e-12 * len(y) * mean_y * mean_y:
        return np.nan
    return min(1.0, max(-1.0, xy / np.sqrt(xx * yy)))
