"""The loops behind `alpha158`: one pass over the past gives a statistic of every window at once.

Inputs have the shape (sessions, symbols), float64, NaN where nothing was observed; `windows` are lengths in sessions,
ascending. `answers` is filled: float32 of shape (statistics, windows, sessions from row `since` on, symbols), NaN where
undefined. What the statistics mean, and where they come from, is said in `alpha158`.

Every value is computed afresh from the rows of its own window, newest first, so that its bytes depend on nothing else:
neither on where the matrix begins or ends, nor on its other symbols. Sums are of differences from the window's newest
value: as that is itself in the window, they lose at most a factor of its length in precision, whatever the price. Only
the sorted windows of `quantiles` are kept from row to row, which rounds nothing.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.research.features.rolling import VARIANCE_FLOOR, Matrix

Windows = NDArray[np.int64]
Statistics = NDArray[np.float32]

FLAT = 1e-9
"""Adjusted prices that differ by less than this part of themselves are equal: factors round, prices move in ticks."""

# The kernels take `_BLOCK` symbols at a time. What a pass adds up for them is the rows of one small scratch matrix: it
# stays in the processor's nearest cache, and the compiler sees that its rows do not overlap, and handles several
# symbols with one instruction. Without `fastmath` nothing is reordered. `answers` comes from outside because NumPy,
# unlike Numba, asks the system for large pages, without which touching new memory takes longer than the arithmetic.
_BLOCK = 64


@njit(cache=True, nogil=True, error_model="numpy")
def _store(answers: Statistics, scratch: Matrix, first: int, which: int, row: int, left: int, width: int) -> None:
    """Copies the scratch rows from `first` on to the statistics of one window, session and block of symbols."""
    for statistic in range(answers.shape[0]):
        place = answers[statistic, which, row, left : left + width]
        found = scratch[first + statistic]
        for at in range(width):
            place[at] = found[at]


@njit(cache=True, nogil=True, error_model="numpy")
def changes(values: Matrix) -> Matrix:
    """The difference from the session before; exactly zero where it is rounding, NaN where either is unobserved."""
    result = np.full(values.shape, np.nan)
    for row in range(1, values.shape[0]):
        for column in range(values.shape[1]):
            value, before = values[row, column], values[row - 1, column]
            change = value - before
            result[row, column] = 0.0 if abs(change) <= FLAT * max(abs(value), abs(before)) else change
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def candle(open: Matrix, high: Matrix, low: Matrix, close: Matrix, since: int, answers: Statistics) -> None:
    """The nine shapes of a session's candle, then open, high, low and typical price over the close; one window.

    What is divided by the range of the session is 0 where there is no range.
    """
    rows, columns = close.shape
    for row in range(since, rows):
        for column in range(columns):
            first, top, bottom, last = open[row, column], high[row, column], low[row, column], close[row, column]
            span, upper, lower = top - bottom, max(first, last), min(first, last)
            per_span = 1.0 / span if span != 0.0 else 0.0
            answer = answers[:, 0, row - since, column]
            answer[0] = (last - first) / first
            answer[1] = span / first
            answer[2] = (last - first) * per_span
            answer[3] = (top - upper) / first
            answer[4] = (top - upper) * per_span
            answer[5] = (lower - bottom) / first
            answer[6] = (lower - bottom) * per_span
            answer[7] = (2.0 * last - top - bottom) / first
            answer[8] = (2.0 * last - top - bottom) * per_span
            answer[9] = first / last
            answer[10] = top / last
            answer[11] = bottom / last
            answer[12] = (top + bottom + last) / 3.0 / last


@njit(cache=True, nogil=True, error_model="numpy")
def past_ratios(close: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """The close one window ago over the close."""
    rows, columns = close.shape
    for which in range(len(windows)):
        for row in range(since, rows):
            past = row - windows[which]
            for column in range(columns):
                ratio = close[max(past, 0), column] / close[row, column]
                answers[0, which, row - since, column] = ratio if past >= 0 else np.nan


_COUNT, _LAG, _LAG2, _SUM, _SQUARES, _PRODUCTS, _BELOW, _EQUAL, _TREND = range(9)


@njit(cache=True, nogil=True, error_model="numpy")
def trend(close: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """Mean, deviation, slope, R squared, residual and rank of the close, in that order.

    Mean, sample deviation, slope a session and the newest session's residual are divided by the close; the rank is
    that of the close among the observed ones, ties in the middle, over their number.
    """
    rows, columns = close.shape
    scratch = np.empty((_TREND + 6, _BLOCK))
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for row in range(since, rows):
            newest = close[row, left : left + width]
            scratch[:] = 0.0
            lag = 0
            for which in range(len(windows)):
                while lag < windows[which] and lag <= row:
                    past, ago = close[row - lag, left : left + width], float(lag)
                    for at in range(width):
                        difference = past[at] - newest[at]
                        observed = 1.0 if difference == difference else 0.0
                        difference = difference if abs(difference) > FLAT * newest[at] else 0.0
                        scratch[_COUNT, at] += observed
                        scratch[_LAG, at] += ago * observed
                        scratch[_LAG2, at] += ago * ago * observed
                        scratch[_SUM, at] += difference
                        scratch[_SQUARES, at] += difference * difference
                        scratch[_PRODUCTS, at] += ago * difference
                        scratch[_BELOW, at] += 1.0 if difference < 0.0 else 0.0
                        scratch[_EQUAL, at] += observed if difference == 0.0 else 0.0
                    lag += 1
                for at in range(width):
                    last, count, total = newest[at], scratch[_COUNT, at], scratch[_SUM, at]
                    squares = scratch[_SQUARES, at]
                    mean, mean_lag = total / count, scratch[_LAG, at] / count
                    within = squares - mean * total
                    within = (
                        within if within > VARIANCE_FLOOR * (squares + last * (2.0 * total + last * count)) else np.nan
                    )
                    spread = scratch[_LAG2, at] - mean_lag * scratch[_LAG, at]
                    together = scratch[_PRODUCTS, at] - mean_lag * total
                    slope = together / spread
                    scratch[_TREND, at] = (last + mean) / last
                    scratch[_TREND + 1, at] = math.sqrt(within / (count - 1.0)) / last
                    scratch[_TREND + 2, at] = -slope / last
                    scratch[_TREND + 3, at] = together * slope / within
                    scratch[_TREND + 4, at] = (slope * mean_lag - mean) / last
                    scratch[_TREND + 5, at] = (scratch[_BELOW, at] + 0.5 * (scratch[_EQUAL, at] + 1.0)) / count
                _store(answers, scratch, _TREND, which, row - since, left, width)


@njit(cache=True, nogil=True, error_model="numpy")
def quantiles(close: Matrix, windows: Windows, shares: Matrix, since: int, answers: Statistics) -> None:
    """The quantiles of the observed closes, one for each of `shares`, interpolated linearly, over the close.

    A window's closes are kept in order, those unobserved as infinite: the one that leaves is overwritten by the next
    larger ones, the one that enters is carried upward until it meets a larger one.
    """
    rows, columns = close.shape
    ordered = np.empty((np.max(windows) + 1, _BLOCK))
    entering, leaving, count = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK, dtype=np.int64)
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for which in range(len(windows)):
            window = windows[which]
            first = max(0, since - window + 1)
            ordered[:] = np.inf
            count[:] = 0
            for row in range(first, rows):
                for at in range(width):
                    new = close[row, left + at]
                    old = close[row - window, left + at] if row - window >= first else np.nan
                    count[at] += (1 if new == new else 0) - (1 if old == old else 0)
                    entering[at] = new if new == new else np.inf
                    leaving[at] = old if old == old else np.inf
                for place in range(window):
                    for at in range(width):
                        kept = ordered[place, at] if ordered[place, at] < leaving[at] else ordered[place + 1, at]
                        carried = entering[at]
                        ordered[place, at] = kept if kept < carried else carried
                        entering[at] = carried if kept < carried else kept
                if row >= since:
                    for share in range(len(shares)):
                        for at in range(width):
                            place = shares[share] * (count[at] - 1)
                            below = max(int(place), 0)
                            low = ordered[below, at]
                            high = ordered[below + 1, at] if place > below else low
                            value = low + (high - low) * (place - below)
                            answers[share, which, row - since, left + at] = value / close[row, left + at]


_TOP, _TOP_AGO, _BOTTOM, _BOTTOM_AGO, _HIGHS, _LOWS, _EXTREMES = range(7)


@njit(cache=True, nogil=True, error_model="numpy")
def extremes(high: Matrix, low: Matrix, close: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """Largest high, lowest low, place of the close between them, place of either in the window, place between those.

    Highs and lows are divided by the close. The place of the close is from 0 to 1, NaN where high and low are equal.
    Places in the window count from 1, the oldest session, and are divided by its length; of equal ones the oldest
    counts; NaN unless every session is observed.
    """
    rows, columns = close.shape
    scratch = np.empty((_EXTREMES + 6, _BLOCK))
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for row in range(since, rows):
            newest = close[row, left : left + width]
            scratch[:] = 0.0
            scratch[_TOP], scratch[_BOTTOM] = -np.inf, np.inf
            lag = 0
            for which in range(len(windows)):
                window = float(windows[which])
                while lag < window and lag <= row:
                    highs, lows = high[row - lag, left : left + width], low[row - lag, left : left + width]
                    ago = float(lag)
                    for at in range(width):
                        top, bottom = highs[at], lows[at]
                        higher, lower = top >= scratch[_TOP, at], bottom <= scratch[_BOTTOM, at]
                        scratch[_TOP_AGO, at] = ago if higher else scratch[_TOP_AGO, at]
                        scratch[_TOP, at] = top if higher else scratch[_TOP, at]
                        scratch[_BOTTOM_AGO, at] = ago if lower else scratch[_BOTTOM_AGO, at]
                        scratch[_BOTTOM, at] = bottom if lower else scratch[_BOTTOM, at]
                        scratch[_HIGHS, at] += 1.0 if top == top else 0.0
                        scratch[_LOWS, at] += 1.0 if bottom == bottom else 0.0
                    lag += 1
                for at in range(width):
                    last, top, bottom = newest[at], scratch[_TOP, at], scratch[_BOTTOM, at]
                    span = top - bottom
                    span = span if span > FLAT * top else np.nan
                    top_ago = scratch[_TOP_AGO, at] if scratch[_HIGHS, at] == window else np.nan
                    bottom_ago = scratch[_BOTTOM_AGO, at] if scratch[_LOWS, at] == window else np.nan
                    scratch[_EXTREMES, at] = top / last
                    scratch[_EXTREMES + 1, at] = bottom / last
                    scratch[_EXTREMES + 2, at] = (last - bottom) / span
                    scratch[_EXTREMES + 3, at] = (window - top_ago) / window
                    scratch[_EXTREMES + 4, at] = (window - bottom_ago) / window
                    scratch[_EXTREMES + 5, at] = (bottom_ago - top_ago) / window
                _store(answers, scratch, _EXTREMES, which, row - since, left, width)


_X0, _Y0, _X, _Y, _XX, _YY, _XY, _PAIRS, _CORRELATION = range(9)


@njit(cache=True, nogil=True, error_model="numpy")
def correlation(first: Matrix, second: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """Pearson's correlation over the sessions with both observed, from -1 to 1; NaN where either is constant."""
    rows, columns = first.shape
    scratch = np.empty((_CORRELATION + 1, _BLOCK))
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for row in range(since, rows):
            scratch[:] = 0.0
            for at in range(width):
                x, y = first[row, left + at], second[row, left + at]
                scratch[_X0, at] = x if x + y == x + y else 0.0
                scratch[_Y0, at] = y if x + y == x + y else 0.0
            lag = 0
            for which in range(len(windows)):
                while lag < windows[which] and lag <= row:
                    xs, ys = first[row - lag, left : left + width], second[row - lag, left : left + width]
                    for at in range(width):
                        x, y = xs[at] - scratch[_X0, at], ys[at] - scratch[_Y0, at]
                        observed = x + y == x + y
                        x, y = x if observed else 0.0, y if observed else 0.0
                        scratch[_PAIRS, at] += 1.0 if observed else 0.0
                        scratch[_X, at] += x
                        scratch[_Y, at] += y
                        scratch[_XX, at] += x * x
                        scratch[_YY, at] += y * y
                        scratch[_XY, at] += x * y
                    lag += 1
                for at in range(width):
                    pairs, x, y = scratch[_PAIRS, at], scratch[_X, at], scratch[_Y, at]
                    x0, y0 = scratch[_X0, at], scratch[_Y0, at]
                    xx, yy = scratch[_XX, at] - x * x / pairs, scratch[_YY, at] - y * y / pairs
                    xx = xx if xx > VARIANCE_FLOOR * (scratch[_XX, at] + x0 * (2.0 * x + x0 * pairs)) else np.nan
                    yy = yy if yy > VARIANCE_FLOOR * (scratch[_YY, at] + y0 * (2.0 * y + y0 * pairs)) else np.nan
                    value = (scratch[_XY, at] - x * y / pairs) / (math.sqrt(xx) * math.sqrt(yy))
                    value = value if value < 1.0 or value != value else 1.0
                    scratch[_CORRELATION, at] = value if value > -1.0 or value != value else -1.0
                _store(answers, scratch, _CORRELATION, which, row - since, left, width)


_UPS, _DOWNS, _SEEN, _SHARES = range(4)


@njit(cache=True, nogil=True, error_model="numpy")
def rises_and_falls(change: Matrix, values: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """The share of the window's sessions that rose, the share that fell, their difference.

    A session without a change did neither. NaN unless every session of the window has a value.
    """
    rows, columns = change.shape
    scratch = np.empty((_SHARES + 3, _BLOCK))
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for row in range(since, rows):
            scratch[:] = 0.0
            lag = 0
            for which in range(len(windows)):
                window = float(windows[which])
                while lag < window and lag <= row:
                    steps, seen = change[row - lag, left : left + width], values[row - lag, left : left + width]
                    for at in range(width):
                        scratch[_UPS, at] += 1.0 if steps[at] > 0.0 else 0.0
                        scratch[_DOWNS, at] += 1.0 if steps[at] < 0.0 else 0.0
                        scratch[_SEEN, at] += 1.0 if seen[at] == seen[at] else 0.0
                    lag += 1
                for at in range(width):
                    length = window if scratch[_SEEN, at] == window else np.nan
                    scratch[_SHARES, at] = scratch[_UPS, at] / length
                    scratch[_SHARES + 1, at] = scratch[_DOWNS, at] / length
                    scratch[_SHARES + 2, at] = (scratch[_UPS, at] - scratch[_DOWNS, at]) / length
                _store(answers, scratch, _SHARES, which, row - since, left, width)


_GAINS, _LOSSES, _PATH = range(3)


@njit(cache=True, nogil=True, error_model="numpy")
def gains_and_losses(change: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """The sum of rises over the sum of absolute changes, that of falls, their difference; NaN where nothing moved."""
    rows, columns = change.shape
    scratch = np.empty((_PATH + 3, _BLOCK))
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for row in range(since, rows):
            scratch[:] = 0.0
            lag = 0
            for which in range(len(windows)):
                while lag < windows[which] and lag <= row:
                    steps = change[row - lag, left : left + width]
                    for at in range(width):
                        scratch[_GAINS, at] += steps[at] if steps[at] > 0.0 else 0.0
                        scratch[_LOSSES, at] -= steps[at] if steps[at] < 0.0 else 0.0
                    lag += 1
                for at in range(width):
                    gains, losses = scratch[_GAINS, at], scratch[_LOSSES, at]
                    path = gains + losses
                    scratch[_PATH, at] = gains / path
                    scratch[_PATH + 1, at] = losses / path
                    scratch[_PATH + 2, at] = (gains - losses) / path
                _store(answers, scratch, _PATH, which, row - since, left, width)


_ORIGIN, _NUMBER, _TOTAL, _TOTAL2, _MOMENTS = range(5)


@njit(cache=True, nogil=True, error_model="numpy")
def moments(values: Matrix, windows: Windows, since: int, answers: Statistics) -> None:
    """Mean over the newest value, sample deviation over it, sample deviation over the mean.

    The first two are NaN where the newest value is zero or unobserved; a deviation that is rounding is NaN.
    """
    rows, columns = values.shape
    scratch = np.empty((_MOMENTS + 3, _BLOCK))
    for left in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - left)
        for row in range(since, rows):
            newest = values[row, left : left + width]
            scratch[:] = 0.0
            for at in range(width):
                scratch[_ORIGIN, at] = newest[at] if newest[at] == newest[at] else 0.0
            lag = 0
            for which in range(len(windows)):
                while lag < windows[which] and lag <= row:
                    past = values[row - lag, left : left + width]
                    for at in range(width):
                        difference = past[at] - scratch[_ORIGIN, at]
                        seen = difference == difference
                        difference = difference if seen else 0.0
                        scratch[_NUMBER, at] += 1.0 if seen else 0.0
                        scratch[_TOTAL, at] += difference
                        scratch[_TOTAL2, at] += difference * difference
                    lag += 1
                for at in range(width):
                    number, total, origin = scratch[_NUMBER, at], scratch[_TOTAL, at], scratch[_ORIGIN, at]
                    squares = scratch[_TOTAL2, at]
                    mean, within = origin + total / number, squares - total * total / number
                    floor = VARIANCE_FLOOR * (squares + origin * (2.0 * total + origin * number))
                    deviation = math.sqrt((within if within > floor else np.nan) / (number - 1.0))
                    unit = origin if origin > 0.0 else np.nan
                    scratch[_MOMENTS, at] = mean / unit
                    scratch[_MOMENTS + 1, at] = deviation / unit
                    scratch[_MOMENTS + 2, at] = deviation / mean
                _store(answers, scratch, _MOMENTS, which, row - since, left, width)
