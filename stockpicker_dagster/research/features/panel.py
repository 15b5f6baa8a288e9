"""The prices that features see: one matrix of shape (sessions, symbols) for each column of the price contract.

Adjusted prices cumulate forward from the panel's first row, its *anchor*, as Stambaugh's and CRSP's total-return
indices do; nothing is ever cumulated backward from the last row, so that no price knows a later split or dividend.
Which sessions a panel must hold is decided in `computation`; windows over its rows are in `rolling`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features.fundamentals import Fundamentals
from stockpicker_dagster.research.features.rolling import Matrix, lag

T = TypeVar("T")

PANEL_COLUMNS = ("open", "high", "low", "close", "volume", "split_ratio", "adjustment")
"""The columns of the price contract that features may depend on."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Daily prices of some stocks over consecutive sessions, float64, NaN where a stock has no row or no value.

    A row is known after the close of its session. `open`, `high`, `low` and `close` are in currency as traded that day,
    `volume` in shares of that day; `split_ratio` and `adjustment` are 1 where nothing happened. `present` marks the
    (session, symbol) pairs that have a row at all. Values are wanted from row `since` on: a formula may leave the rows
    before it NaN, and need not spend time on them.
    """

    sessions: tuple[date, ...]
    symbols: tuple[str, ...]
    present: NDArray[np.bool_]
    open: Matrix
    high: Matrix
    low: Matrix
    close: Matrix
    volume: Matrix
    split_ratio: Matrix
    adjustment: Matrix
    since: int = 0
    fundamentals: Fundamentals | None = None
    _made: dict[Callable[["Panel"], Any], Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_prices(
        cls,
        prices: pl.DataFrame,
        sessions: Sequence[date],
        symbols: Sequence[str],
        since: int = 0,
        statements: pl.DataFrame | None = None,
    ) -> "Panel":
        """The rows of `prices` on `sessions` (ascending) for `symbols`, all others left out, in any order.

        `statements`, if given, are those in force on the sessions from row `since` on (see `Fundamentals`).
        Raises `InvalidInput` if a column is missing or a (symbol, date) pair is there twice.
        """
        missing = [column for column in ("symbol", "date", *PANEL_COLUMNS) if column not in prices.columns]
        if missing:
            raise InvalidInput(f"the prices lack the columns {missing}; the price contract has all of them")
        rows = pl.DataFrame({"date": sessions, "row": np.arange(len(sessions))}, schema_overrides={"date": pl.Date})
        columns = pl.DataFrame(
            {"symbol": symbols, "column": np.arange(len(symbols))}, schema_overrides={"symbol": pl.String}
        )
        placed = prices.join(rows, on="date").join(columns, on="symbol")
        where = placed["row"].to_numpy() * len(symbols) + placed["column"].to_numpy()
        shape = (len(sessions), len(symbols))
        present = np.zeros(shape, dtype=bool)
        present.ravel()[where] = True
        if present.sum() != len(where):
            raise InvalidInput(
                f"the prices hold more than one row for {_repeated(placed)}; keep one row a day and symbol"
            )
        matrices = {column: _scatter(placed[column], where, shape) for column in PANEL_COLUMNS}
        for event in ("split_ratio", "adjustment"):
            matrices[event] = np.where(np.isnan(matrices[event]), 1.0, matrices[event])
        fundamentals = None if statements is None else Fundamentals.from_statements(statements, sessions, symbols)
        return cls(tuple(sessions), tuple(symbols), present, since=since, fundamentals=fundamentals, **matrices)

    @property
    def shape(self) -> tuple[int, int]:
        """(sessions, symbols)"""
        return len(self.sessions), len(self.symbols)

    def once(self, make: Callable[["Panel"], T]) -> T:
        """What `make` says of this panel, worked out once however many features ask for it."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(T, self._made[make])

    @cached_property
    def total_return_factor(self) -> Matrix:
        """The product of `adjustment` from the anchor through each session; sessions without a row carry it on."""
        return np.multiply.accumulate(self.adjustment, axis=0)

    @cached_property
    def adjusted_open(self) -> Matrix:
        """Open times `total_return_factor`: the value of one share held since the anchor, dividends reinvested."""
        return self.open * self.total_return_factor

    @cached_property
    def adjusted_high(self) -> Matrix:
        """High times `total_return_factor`."""
        return self.high * self.total_return_factor

    @cached_property
    def adjusted_low(self) -> Matrix:
        """Low times `total_return_factor`."""
        return self.low * self.total_return_factor

    @cached_property
    def adjusted_close(self) -> Matrix:
        """Close times `total_return_factor`."""
        return self.close * self.total_return_factor

    @cached_property
    def adjusted_volume(self) -> Matrix:
        """Volume in shares of the anchor: adjusted by splits only."""
        return self.volume / np.multiply.accumulate(self.split_ratio, axis=0)

    @cached_property
    def dollar_volume(self) -> Matrix:
        """Close times volume, both as traded: the currency that changed hands, whatever the splits."""
        return self.close * self.volume

    @cached_property
    def daily_return(self) -> Matrix:
        """Total return from the close of the preceding session, as a fraction; NaN if either session has no close."""
        return self.adjusted_close / lag(self.adjusted_close, 1) - 1.0

    @cached_property
    def overnight_return(self) -> Matrix:
        """Total return from the close of the preceding session to the open."""
        return self.adjusted_open / lag(self.adjusted_close, 1) - 1.0

    @cached_property
    def intraday_return(self) -> Matrix:
        """Return from the open to the close of the session."""
        return self.close / self.open - 1.0


def _scatter(values: pl.Series, where: NDArray[np.int64], shape: tuple[int, int]) -> Matrix:
    matrix = np.full(shape, np.nan)
    matrix.ravel()[where] = values.cast(pl.Float64).to_numpy()
    return matrix


def _repeated(rows: pl.DataFrame) -> str:
    symbol, day = rows.filter(pl.struct("symbol", "date").is_duplicated()).select("symbol", "date").sort("date").row(0)
    return f"{symbol} on {day}"
