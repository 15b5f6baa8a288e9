"""How much money a strategy can carry before its own trading eats it.

Market impact by the square-root law (Almgren, Thum, Hauptmann and Li 2005; Grinold and Kahn): trading a fraction q of a
day's volume moves the price by `coefficient` x daily volatility x sqrt(q). Fractions of capital traded, costs of other
kinds and returns are taken as they were back-tested.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import SESSIONS_PER_YEAR

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Capacity:
    """Amounts in currency; infinite where nothing limits them, 0.0 where there is nothing to lose."""

    half_of_return: float
    """The capital at which impact takes half of the mean return before it."""
    break_even: float
    """The capital at which impact takes all of it."""
    at_one_percent_of_volume: float
    """The capital at which one trade in ten exceeds 1 % of the stock's daily volume."""


def capacity(
    mean_return: float,
    traded: Floats,
    dollar_volume: Floats,
    volatility: Floats,
    *,
    sessions: int,
    coefficient: float = 1.0,
) -> Capacity:
    """Capacity from every trade of a back-test.

    `mean_return` per year, net of all costs but impact; per trade `(n,)`: `traded`, the notional as a positive fraction
    of equity; `dollar_volume` of the stock, in currency, and its daily `volatility`, both known at the decision;
    `sessions` is the length of the back-test. Impact per year at capital C is sum(traded x coefficient x volatility x
    sqrt(traded C / dollar_volume)) x 252 / sessions, which grows as sqrt(C). Raises `InvalidInput` for lengths that
    differ, values that are not positive and finite, or no session.
    """
    arrays = {"traded": traded, "dollar_volume": dollar_volume, "volatility": volatility}
    if len({np.shape(values) for values in arrays.values()}) != 1 or sessions < 1:
        shapes = ", ".join(f"{name} {np.shape(values)}" for name, values in arrays.items())
        raise InvalidInput(f"trades over {sessions} sessions with {shapes}; give one figure of each for every trade")
    for name, values in arrays.items():
        if not (np.isfinite(values) & (np.asarray(values) > 0.0)).all():
            raise InvalidInput(f"a trade has a {name} that is not positive and finite; leave out what was not traded")
    if not len(traded):
        return Capacity(np.inf, np.inf, np.inf)
    # Impact per year at a capital of one unit; at C it is this times sqrt(C).
    unit = coefficient * float((traded * volatility * np.sqrt(traded / dollar_volume)).sum())
    unit *= SESSIONS_PER_YEAR / sessions
    bearable = max(mean_return, 0.0)
    break_even = (bearable / unit) ** 2
    return Capacity(
        half_of_return=break_even / 4.0,
        break_even=break_even,
        at_one_percent_of_volume=float(0.01 / np.quantile(traded / dollar_volume, 0.9)),
    )
