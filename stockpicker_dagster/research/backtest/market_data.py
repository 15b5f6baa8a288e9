"""The prices of a back-test as dense matrices, sessions by symbols, built from the stored long frames.

Nothing is filled in here and nothing adjusted: what happened on a session without a row is the engine's to decide.
The columns are in an order that never changes when later sessions bring new symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput


@dataclass(frozen=True)
class MarketData:
    """What the market did on `sessions` (T) to `symbols` (N); all matrices are `(T, N)` float64.

    A row of session *t* is known after the close of *t*. Symbols are ordered by their first row, then by name, so that
    a symbol that lists later becomes a later column.
    """

    sessions: tuple[date, ...]
    symbols: tuple[str, ...]
    open: NDArray[np.float64]
    """Currency as traded; NaN without a row."""
    close: NDArray[np.float64]
    """Currency as traded; NaN without a row."""
    dividend: NDArray[np.float64]
    """Currency per share before the day's split; 0.0 without a row."""
    split_ratio: NDArray[np.float64]
    """New shares per old; 1.0 without a row."""
    adjustment: NDArray[np.float64]
    """split_ratio / (1 - dividend / previous close); 1.0 without a row."""
    delisted: NDArray[np.bool_]
    """Whether a delisting takes effect: on the session it became known, or the last session if that is later."""
    delisting_return: NDArray[np.float64]
    """From the last close to what holders received, as a fraction; NaN where unknown or not delisted."""

    @cached_property
    def by_name(self) -> NDArray[np.int64]:
        """The columns in alphabetical order of their symbols, the order in which equal scores rank."""
        return np.argsort(np.array(self.symbols, dtype=np.str_), kind="stable").astype(np.int64)

    @cached_property
    def day_number(self) -> NDArray[np.int64]:
        """The sessions as days since 1970-01-01, `(T,)`."""
        return _day_numbers(self.sessions)

    def panel(self, frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
        """One column of a long frame (`symbol`, `date`, ...) as a `(T, N)` matrix; NaN without a row or where null.

        Raises `InvalidInput` for a row that is no session or symbol of this market, and for duplicate rows.
        """
        place = _Places(self.sessions, self.symbols, frame, column)
        return place.matrix(frame, column, np.nan)


def market_data(prices: pl.DataFrame, delistings: pl.DataFrame, sessions: Sequence[date]) -> MarketData:
    """The matrices of `prices` (`market.prices.PRICES_SCHEMA`) and `delistings` on ascending `sessions`.

    A delisting of a symbol without a price in the range, or effective outside it, concerns no position and is left out.
    Raises `InvalidInput` for a price row outside `sessions`, a duplicate row, a price that is not positive, or an event
    that is null or out of its range.
    """
    if not all(earlier < later for earlier, later in pairwise(sessions)):
        raise InvalidInput("the sessions of a back-test are not ascending and distinct; sort them")
    _check(prices)
    firsts = prices.group_by("symbol").agg(pl.col("date").min()).sort("date", "symbol")
    symbols = tuple(firsts["symbol"].to_list())
    places = _Places(sessions, symbols, prices, "prices")
    delisted, delisting_return = _delistings(delistings, sessions, symbols)
    return MarketData(
        sessions=tuple(sessions),
        symbols=symbols,
        open=places.matrix(prices, "open", np.nan),
        close=places.matrix(prices, "close", np.nan),
        dividend=places.matrix(prices, "dividend", 0.0),
        split_ratio=places.matrix(prices, "split_ratio", 1.0),
        adjustment=places.matrix(prices, "adjustment", 1.0),
        delisted=delisted,
        delisting_return=delisting_return,
    )


class _Places:
    """Where each row of a long frame goes in a dense matrix."""

    def __init__(self, sessions: Sequence[date], symbols: Sequence[str], frame: pl.DataFrame, what: str) -> None:
        self.shape = (len(sessions), len(symbols))
        days = frame["date"].cast(pl.Int32).to_numpy()
        known = _day_numbers(sessions)
        self.rows = np.searchsorted(known, days)
        stray = self.rows == len(known)
        stray[~stray] = known[self.rows[~stray]] != days[~stray]
        columns = _columns_of(frame["symbol"], symbols)
        stray |= columns < 0
        if stray.any():
            first = frame.row(int(np.argmax(stray)), named=True)
            raise InvalidInput(
                f"{what}: {first['symbol']} on {first['date']} is not among the market's {self.shape[0]} sessions and "
                f"{self.shape[1]} symbols; cut the frame to them first"
            )
        self.columns = columns
        _refuse_duplicates(frame, self.rows * self.shape[1] + columns, what)

    def matrix(self, frame: pl.DataFrame, column: str, default: float) -> NDArray[np.float64]:
        values = np.full(self.shape, default)
        values[self.rows, self.columns] = frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        return values


def _columns_of(names: pl.Series, symbols: Sequence[str]) -> NDArray[np.int64]:
    """The column of each name, -1 for one that is none of `symbols`."""
    column_of = pl.DataFrame({"symbol": pl.Series(symbols, dtype=pl.String), "column": np.arange(len(symbols))})
    joined = names.to_frame("symbol").join(column_of, on="symbol", how="left", maintain_order="left")
    return joined["column"].fill_null(-1).cast(pl.Int64).to_numpy()


def _refuse_duplicates(frame: pl.DataFrame, cells: NDArray[np.int64], what: str) -> None:
    _, first_of = np.unique(cells, return_index=True)
    if len(first_of) < len(cells):
        repeated = np.setdiff1d(np.arange(len(cells)), first_of)[0]
        row = frame.row(int(repeated), named=True)
        raise InvalidInput(f"{what}: {row['symbol']} has more than one row on {row['date']}; keep one")


def _check(prices: pl.DataFrame) -> None:
    allowed = {
        "open": ~(pl.col("open") <= 0),
        "close": ~(pl.col("close") <= 0),
        "dividend": pl.col("dividend") >= 0,
        "split_ratio": pl.col("split_ratio") > 0,
        "adjustment": pl.col("adjustment") > 0,
    }
    for column, rule in allowed.items():
        default = column in ("open", "close")
        fine = rule.fill_null(default) & (pl.col(column).is_finite().fill_null(default) | pl.lit(default))
        wrong = prices.filter(~fine | pl.col(column).is_infinite().fill_null(False))
        if wrong.height:
            row = wrong.row(0, named=True)
            raise InvalidInput(
                f"{column} of {row['symbol']} on {row['date']} is {row[column]}; "
                "stored prices are positive and events known, so fetch that day again"
            )


def _delistings(
    delistings: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    delisted = np.zeros((len(sessions), len(symbols)), dtype=np.bool_)
    returns = np.full(delisted.shape, np.nan)
    row_of = {session: row for row, session in enumerate(sessions)}
    column_of = {symbol: column for column, symbol in enumerate(symbols)}
    for delisting in delistings.iter_rows(named=True):
        effective = max(delisting["date"], delisting["last_session"])
        row, column = row_of.get(effective), column_of.get(delisting["symbol"])
        if row is None or column is None:
            continue
        delisted[row, column] = True
        if delisting["return"] is not None:
            returns[row, column] = delisting["return"]
    return delisted, returns


def _day_numbers(sessions: Sequence[date]) -> NDArray[np.int64]:
    return np.array(sessions, dtype="datetime64[D]").astype(np.int64)
