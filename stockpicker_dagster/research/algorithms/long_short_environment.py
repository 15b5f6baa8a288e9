"""The long-short book as a world to act in: each step is a day's cross-section, and the action is one score a stock.

Scores become a dollar-neutral book of gross exposure one; the reward is what it earns until the next step, after the
costs of trading into it and less a penalty on risk. The interface is Gymnasium's. Nothing here learns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.research.algorithms.tables import Blocks, Values, Vector, labelled_rows
from stockpicker_dagster.research.cross_section import date_blocks

if TYPE_CHECKING:
    import gymnasium

BOUND = 10.0
"""Scores of an action lie between this and its negative."""
RETURN = "label_return"
"""The column of returns, as fractions; a table without it is earned by its label."""


@dataclass(frozen=True)
class CrossSections:
    """The stocks of each date, what is known of them, and what holding them until the label's end returns.

    `before[row]` is the row of the same stock on the date `horizon` dates earlier, -1 where it was not there.
    """

    features: Values
    returns: Vector
    blocks: Blocks
    before: NDArray[np.int64]
    horizon: int

    @classmethod
    def of(cls, frame: pl.DataFrame, features: Sequence[str], label: str, part: str, horizon: int) -> "CrossSections":
        """From the labelled rows of a table; a step goes `horizon` dates ahead, so that holdings do not overlap."""
        rows, values = labelled_rows(frame, features, label, part)
        returns = rows[RETURN if RETURN in rows.columns else label].cast(pl.Float64).fill_null(0.0).to_numpy()
        blocks = date_blocks(rows["date"])
        before = np.full(rows.height, -1, dtype=np.int64)
        if "symbol" in rows.columns:
            symbols = rows["symbol"].to_list()
            places: list[dict[str, int]] = [
                {symbols[row]: row for row in range(first, last)}
                for first, last in zip(blocks[:-1].tolist(), blocks[1:].tolist(), strict=True)
            ]
            for date in range(horizon, len(places)):
                for symbol, row in places[date].items():
                    before[row] = places[date - horizon].get(symbol, -1)
        return cls(values, returns, blocks, before, horizon)

    @property
    def dates(self) -> int:
        return len(self.blocks) - 1

    @property
    def widest(self) -> int:
        """Stocks on the date that has most."""
        return int(np.diff(self.blocks).max())

    def rows(self, date: int) -> slice:
        """The rows of a date."""
        return slice(int(self.blocks[date]), int(self.blocks[date + 1]))


@dataclass(frozen=True)
class Terms:
    """What trading costs and risk is worth.

    `cost_bps` are basis points of every notional traded. The reward of a step is 100 x its net return (per cent) less
    `risk_penalty` / 2 x the square of that.
    """

    cost_bps: float = 0.0
    risk_penalty: float = 0.0


def book_of(scores: Vector) -> Vector:
    """The dollar-neutral weights of gross exposure one in proportion to the scores; none where all scores are equal."""
    centred = scores - scores.sum() / len(scores)
    gross = np.abs(centred).sum()
    return np.asarray(centred / gross if gross > 1e-12 else np.zeros(len(scores)))


@dataclass
class Book:
    """A book walking through cross-sections; `weights` are those of the stocks of `date`, before it trades there."""

    market: CrossSections
    terms: Terms
    date: int
    weights: Vector

    @classmethod
    def empty(cls, market: CrossSections, terms: Terms, date: int) -> "Book":
        """A book of nothing before it trades on `date`."""
        own = market.rows(date)
        return cls(market, terms, date, np.zeros(own.stop - own.start))

    def trade(self, scores: Vector) -> tuple[float, float, float]:
        """Trade into the book of `scores` and hold it to the next step: (gross return, cost, turnover), fractions."""
        target = book_of(scores)
        own = self.market.rows(self.date)
        # What left the universe was sold before: its notional is in `leaving`.
        turnover = float(np.abs(target - self.weights).sum())
        returns = self.market.returns[own]
        gross = float((target * returns).sum())
        cost = 1e-4 * self.terms.cost_bps * turnover
        drifted = target * (1.0 + returns) / (1.0 + gross)
        self.date += self.market.horizon
        if not self.ended:
            following = self.market.rows(self.date)
            before = self.market.before[following]
            self.weights = np.where(before >= 0, drifted[np.maximum(before, own.start) - own.start], 0.0)
            left = float(np.abs(drifted).sum() - np.abs(self.weights).sum())
            # A stock that is in the universe no more is sold when it leaves.
            cost += 1e-4 * self.terms.cost_bps * max(left, 0.0)
            turnover += max(left, 0.0)
        return gross, cost, turnover

    @property
    def ended(self) -> bool:
        """Whether there is no further date to trade on."""
        return self.date >= self.market.dates

    def reward(self, gross: float, cost: float) -> float:
        """What the step is worth to whoever learns from it."""
        net = 100.0 * (gross - cost)
        return net - 0.5 * self.terms.risk_penalty * net * net


@lru_cache(maxsize=1)
def environment_class() -> "Callable[[CrossSections, Terms, int], gymnasium.Env[Any, Any]]":
    """The environment as a class; made on demand because Gymnasium is an extra."""
    import gymnasium

    class LongShortBook(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
        """One episode is a walk of `length` steps from a date drawn at random, beginning without positions.

        The observation has one row for each of as many stocks as the widest date has: the scaled features, the current
        weight times the number of stocks, and whether the row is a stock at all. The action is a score for each row;
        those of empty rows count for nothing. `info` tells the step's gross return, cost and turnover.
        """

        metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

        def __init__(self, market: CrossSections, terms: Terms, length: int) -> None:
            self._market, self._terms, self._length = market, terms, length
            self._book = Book.empty(market, terms, 0)
            self._steps = 0
            shape = (market.widest, market.features.shape[1] + 2)
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
            self.action_space = gymnasium.spaces.Box(-BOUND, BOUND, (market.widest,), np.float32)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[NDArray[np.float32], dict[str, Any]]:
            """Begin at a random date; `options={"date": i}` begins at that one."""
            super().reset(seed=seed)
            latest = max(1, self._market.dates - self._market.horizon * (self._length - 1))
            drawn = int(self.np_random.integers(latest))
            self._book = Book.empty(self._market, self._terms, (options or {}).get("date", drawn))
            self._steps = 0
            return self._observed(), {}

        def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            """Trade on the scores and go to the next date. The walk is cut off, never at an end of its own."""
            stocks = len(self._book.weights)
            gross, cost, turnover = self._book.trade(np.asarray(action, dtype=np.float64)[:stocks])
            reward = self._book.reward(gross, cost)
            self._steps += 1
            cut_off = self._book.ended or self._steps >= self._length
            if self._book.ended:
                self._book = Book.empty(self._market, self._terms, self._market.dates - 1)
            return self._observed(), reward, False, cut_off, {"gross": gross, "cost": cost, "turnover": turnover}

        def _observed(self) -> NDArray[np.float32]:
            assert self.observation_space.shape is not None
            seen = np.zeros(self.observation_space.shape, dtype=np.float32)
            own, stocks = self._market.rows(self._book.date), len(self._book.weights)
            seen[:stocks, :-2] = self._market.features[own]
            seen[:stocks, -2] = stocks * self._book.weights
            seen[:stocks, -1] = 1.0
            return seen

    return LongShortBook
