"""How good a series of daily returns was: the field's plain figures, one function each, and their summary.

Formulas as in Bacon, *Practical Portfolio Performance Measurement and Attribution* (2008), with 252 sessions a year.
Whether a figure can be told from luck is not asked here. Every function takes simple daily returns as fractions,
`(T,)`, raises `InvalidInput` where one is NaN or infinite, and answers NaN where the figure is undefined (too few
sessions, or a return that never moves).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput

SESSIONS_PER_YEAR = 252
_STILL = 1e-12
"""A standard deviation below this is rounding, not risk."""


@dataclass(frozen=True)
class Drawdown:
    """The deepest fall of compounded wealth below its earlier peak; the peak may be the start."""

    depth: float
    """A fraction of the peak, 0.2 being a fall by 20 %; 0.0 if wealth never fell."""
    length: int
    """Sessions from the peak until wealth is back at it, or to the end if it never is."""


@dataclass(frozen=True)
class Performance:
    """A back-test in one glance; fractions per year unless said otherwise, NaN where undefined."""

    sessions: int
    net_annual_return: float
    gross_annual_return: float
    volatility: float
    """Of net returns."""
    net_sharpe: float
    gross_sharpe: float
    max_drawdown: float
    """Of net wealth, a fraction of its peak."""
    max_drawdown_sessions: int
    hit_rate: float
    """The share of sessions with a gain among those with a gain or a loss, net."""
    turnover_per_year: float
    """Notional bought plus sold over equity: 4.0 is one whole turn of a 100 % long, 100 % short book."""
    mean_gross_exposure: float
    mean_net_exposure: float
    mean_longs: float
    mean_shorts: float
    commission_per_year: float
    spread_per_year: float
    impact_per_year: float
    borrow_per_year: float
    cost_per_year: float
    """Commission, spread, impact and borrow fee together: the arithmetic drag on the return."""


def annual_return(returns: ArrayLike, periods: int = SESSIONS_PER_YEAR) -> float:
    """The compounded (geometric) return per year of so many periods; -1.0 if everything is lost."""
    values = finite(returns)
    if not len(values):
        return float("nan")
    growth = np.maximum(1.0 + values, 0.0).prod()
    return float(growth ** (periods / len(values)) - 1.0)


def volatility(returns: ArrayLike) -> float:
    """The standard deviation (ddof 1) per year."""
    values = finite(returns)
    return float(values.std(ddof=1) * np.sqrt(SESSIONS_PER_YEAR)) if len(values) > 1 else float("nan")


def sharpe(returns: ArrayLike) -> float:
    """The arithmetic mean over the standard deviation (ddof 1), times sqrt(252); no risk-free rate is subtracted.

    A long-short book finances itself, so its return is an excess return already.
    """
    return float(sharpes(np.asarray(returns, dtype=np.float64).reshape(-1, 1))[0])


def sharpes(returns: ArrayLike) -> NDArray[np.float64]:
    """`sharpe` of each column of `(T, n)` returns, such as those of random books; NaN for a column that never moves."""
    values = finite(returns)
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    deviation = values.std(axis=0, ddof=1)
    moves = deviation > _STILL
    return np.where(moves, values.mean(axis=0) / np.where(moves, deviation, 1.0), np.nan) * np.sqrt(SESSIONS_PER_YEAR)


def max_drawdown(returns: ArrayLike) -> Drawdown:
    """The deepest drawdown of compounded returns, the earliest one if several are as deep."""
    values = finite(returns)
    wealth = np.concatenate([[1.0], np.cumprod(1.0 + values)])
    peaks = np.maximum.accumulate(wealth)
    falls = 1.0 - wealth / peaks
    trough = int(falls.argmax())
    if falls[trough] == 0.0:
        return Drawdown(0.0, 0)
    peak = int(np.flatnonzero(wealth[:trough] == peaks[trough])[-1])
    recovered = np.flatnonzero(wealth[trough:] >= peaks[trough])
    end = trough + int(recovered[0]) if len(recovered) else len(values)
    return Drawdown(float(falls[trough]), end - peak)


def hit_rate(returns: ArrayLike) -> float:
    """The share of positive returns among those that are not zero, so that idle sessions count neither way."""
    values = finite(returns)
    moved = int((values != 0.0).sum())
    return float((values > 0.0).sum() / moved) if moved else float("nan")


def per_year(daily: ArrayLike) -> float:
    """The mean of a daily flow (turnover, a cost) times 252."""
    return _mean(daily) * SESSIONS_PER_YEAR


def summary(
    *,
    net_return: ArrayLike,
    gross_return: ArrayLike,
    turnover: ArrayLike,
    gross_exposure: ArrayLike,
    net_exposure: ArrayLike,
    longs: ArrayLike,
    shorts: ArrayLike,
    commission: ArrayLike,
    spread: ArrayLike,
    impact: ArrayLike,
    borrow: ArrayLike,
) -> Performance:
    """The `Performance` of the sessions given, arrays `(T,)` as named and defined in `engine.BookHistory`.

    They may come from a run or from stored days; sessions before the first trade are part of the figures, so cut them
    off first if they should not be. Raises `InvalidInput` where the lengths differ.
    """
    columns = (turnover, gross_exposure, net_exposure, longs, shorts, commission, spread, impact, borrow)
    lengths = {len(np.asarray(column)) for column in (net_return, gross_return, *columns)}
    if len(lengths) != 1:
        raise InvalidInput(f"a summary of columns with {sorted(lengths)} sessions; all must have the same number")
    drawdown = max_drawdown(net_return)
    costs = [per_year(cost) for cost in (commission, spread, impact, borrow)]
    return Performance(
        sessions=lengths.pop(),
        net_annual_return=annual_return(net_return),
        gross_annual_return=annual_return(gross_return),
        volatility=volatility(net_return),
        net_sharpe=sharpe(net_return),
        gross_sharpe=sharpe(gross_return),
        max_drawdown=drawdown.depth,
        max_drawdown_sessions=drawdown.length,
        hit_rate=hit_rate(net_return),
        turnover_per_year=per_year(turnover),
        mean_gross_exposure=_mean(gross_exposure),
        mean_net_exposure=_mean(net_exposure),
        mean_longs=_mean(longs),
        mean_shorts=_mean(shorts),
        commission_per_year=costs[0],
        spread_per_year=costs[1],
        impact_per_year=costs[2],
        borrow_per_year=costs[3],
        cost_per_year=sum(costs),
    )


def _mean(daily: ArrayLike) -> float:
    values = finite(daily)
    return float(values.mean()) if len(values) else float("nan")


def finite(returns: ArrayLike) -> NDArray[np.float64]:
    """The returns as float64; `InvalidInput`, naming the row, where one is NaN or infinite."""
    values = np.asarray(returns, dtype=np.float64)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InvalidInput(
            f"value {values[row]} in row {row} is not finite; a back-test has a figure for every session"
        )
    return values
