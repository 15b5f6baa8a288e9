"""The fundamentals that features see: for each session and stock the statement in force, if it is young enough.

Statements come from `market.fundamentals`, what is made of them from `fundamental_factors`. Nothing is carried on past
its age: an old figure is a missing one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.market.fundamentals.statements import SHARES_AGE, STATEMENT_AGE, STATEMENTS_SCHEMA
from stockpicker_dagster.research.features.rolling import Matrix

SHARE_FIGURES = tuple(name for name in STATEMENTS_SCHEMA if name.startswith("shares"))
FIGURES = tuple(name for name in STATEMENTS_SCHEMA if name not in ("symbol", "known_at"))
"""What a feature may ask of the statements: the columns of `STATEMENTS_SCHEMA`, days as days since 1970."""


@dataclass(frozen=True, eq=False)
class Fundamentals:
    """The figures of the statements in force, each a matrix of shape (sessions, symbols) when asked for by name.

    A statement counts from the session at which it became known until the symbol's next one. Balances and flows are NaN
    once their period ended more than `STATEMENT_AGE` ago, counts of shares `SHARES_AGE` after they were counted; a
    figure that was not reported is NaN.
    """

    _columns: Mapping[str, NDArray[np.float64]]
    _accounts: NDArray[np.intp]
    _counts: NDArray[np.intp]

    @classmethod
    def from_statements(
        cls, statements: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]
    ) -> "Fundamentals":
        """The `statements` (in `STATEMENTS_SCHEMA`, in any order) of `symbols` on `sessions`, which are ascending."""
        ordered = statements.sort("symbol", "known_at")
        days = _days(pl.Series(sessions, dtype=pl.Date))
        columns = {
            name: _days(ordered[name]) if ordered[name].dtype == pl.Date else _floats(ordered[name]) for name in FIGURES
        }
        known = _days(ordered["known_at"])
        in_force = np.full((len(sessions), len(symbols)), -1, dtype=np.intp)
        first = dict(ordered.with_row_index("row").group_by("symbol").agg(pl.col("row").min()).iter_rows())
        count = dict(ordered.group_by("symbol").len().iter_rows())
        for column, symbol in enumerate(symbols):
            if symbol in first:
                begin = first[symbol]
                position = np.searchsorted(known[begin : begin + count[symbol]], days, side="right") - 1
                in_force[:, column] = np.where(position >= 0, begin + position, -1)
        return cls(
            columns,
            _young(in_force, days, columns["period_end"], STATEMENT_AGE),
            _young(in_force, days, columns["shares_as_of"], SHARES_AGE),
        )

    def __getitem__(self, figure: str) -> Matrix:
        """The figure at every session and symbol; NaN where there is none that counts."""
        rows = self._counts if figure in SHARE_FIGURES else self._accounts
        return _gathered(self._columns[figure], rows)


def _young(
    rows: NDArray[np.intp], days: NDArray[np.float64], dated: NDArray[np.float64], age: timedelta
) -> NDArray[np.intp]:
    """`rows` with -1 for what is dated more than `age` before the session, or not at all."""
    with np.errstate(invalid="ignore"):
        young = days[:, None] - _gathered(dated, rows) <= age.days
    return np.where(young, rows, -1)


def _gathered(values: NDArray[np.float64], rows: NDArray[np.intp]) -> Matrix:
    if not len(values):
        return np.full(rows.shape, np.nan)
    return np.where(rows >= 0, values[rows], np.nan)


def _days(dates: pl.Series) -> NDArray[np.float64]:
    return _floats(dates.to_physical())


def _floats(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).fill_null(np.nan).to_numpy()
