"""The prices of a back-test as dense matrices, sessions by symbols, built from the stored long frames.

Nothing is filled in here and nothing adjusted: what happened on a session without a row is the engine's to decide.
The columns are in an order that never changes when later sessions bring new symbols.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.trailing_risk import TrailingRisk, trailing_risk


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
    high: NDArray[np.float64] | None = None
    """Currency as traded; NaN without a row. None, like `low` and `volume`, where the source does not say."""
    low: NDArray[np.float64] | None = None
    volume: NDArray[np.float64] | None = None
    """Shares; NaN without a row."""
    trailing: TrailingRisk | None = None
    """Volatility, beta and dollar volume of the recent past; None where not asked for."""
    sector: NDArray[np.str_] | None = None
    """The sector of the day, '' where unknown; None where no sectors were given."""
    borrow_rate: NDArray[np.float64] | None = None
    """The fee of borrowing a stock, a fraction per year, as listed on that day; NaN where not listed."""
    styles: Mapping[str, NDArray[np.float64]] | None = None
    """What stocks are exposed to, by name, known after each close; NaN where unknown. None where not given."""

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


def market_data(
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    sessions: Sequence[date],
    *,
    known: Sequence[str] = (),
    trailing: bool = False,
    look_back: Sequence[date] = (),
    sectors: pl.DataFrame | None = None,
    borrow_rates: pl.DataFrame | None = None,
    styles: pl.DataFrame | None = None,
) -> MarketData:
    """The matrices of `prices` (`market.prices.PRICES_SCHEMA`) and `delistings` on ascending `sessions`.

    `known` are the symbols of a `BookState` to go on from: they keep their columns. `trailing` asks for
    `TrailingRisk`; rows on `look_back`, the sessions right before the first, serve it alone. `sectors` has `symbol`,
    `date` and `sector`; `borrow_rates` has `symbol`, `date` and `bps_per_year`, each row valid from its date until
    the symbol's next one (null: listed no more); `styles` has `symbol`, `date` and a column a style.
    A delisting of a symbol without a price in the range, or effective
    outside it, concerns no position and is left out. Raises `InvalidInput` for a price row on another day, a
    duplicate row, a price that is not positive, or an event that is null or out of its range.
    """
    if not all(earlier < later for earlier, later in pairwise([*look_back, *sessions])):
        raise InvalidInput("the sessions of a back-test are not ascending and distinct; sort them")
    _check(prices)
    current = prices.filter(~pl.col("date").is_in(list(look_back))) if look_back else prices
    firsts = current.group_by("symbol").agg(pl.col("date").min()).sort("date", "symbol")
    new = firsts.filter(~pl.col("symbol").is_in(list(known))) if len(known) else firsts
    symbols = (*(str(symbol) for symbol in known), *new["symbol"].to_list())
    places = _Places(sessions, symbols, current, "prices")
    delisted, delisting_return = _delistings(delistings, sessions, symbols)
    given = set(prices.columns)
    return MarketData(
        sessions=tuple(sessions),
        symbols=symbols,
        open=places.matrix(current, "open", np.nan),
        close=places.matrix(current, "close", np.nan),
        dividend=places.matrix(current, "dividend", 0.0),
        split_ratio=places.matrix(current, "split_ratio", 1.0),
        adjustment=places.matrix(current, "adjustment", 1.0),
        delisted=delisted,
        delisting_return=delisting_return,
        high=places.matrix(current, "high", np.nan) if "high" in given else None,
        low=places.matrix(current, "low", np.nan) if "low" in given else None,
        volume=places.matrix(current, "volume", np.nan) if "volume" in given else None,
        trailing=trailing_risk(prices, look_back, sessions, symbols) if trailing else None,
        sector=None if sectors is None else _sectors(sectors, sessions, symbols),
        borrow_rate=None if borrow_rates is None else _borrow_rates(borrow_rates, sessions, symbols),
        styles=None if styles is None else _styles(styles, sessions, symbols),
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


def _sectors(sectors: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]) -> NDArray[np.str_]:
    """A row of a symbol or day that the market lacks concerns nothing here."""
    there = sectors.filter(pl.col("symbol").is_in(list(symbols)) & pl.col("date").is_in(list(sessions)))
    names = there["sector"].fill_null("")
    places = _Places(sessions, symbols, there, "sectors")
    values = np.full(places.shape, "", dtype=f"<U{max([1, *names.str.len_chars().to_list()])}")
    values[places.rows, places.columns] = names.to_numpy()
    return values


def _styles(
    styles: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]
) -> Mapping[str, NDArray[np.float64]]:
    """A row of a symbol or day that the market lacks concerns nothing here."""
    there = styles.filter(pl.col("symbol").is_in(list(symbols)) & pl.col("date").is_in(list(sessions)))
    places = _Places(sessions, symbols, there, "styles")
    return {name: places.matrix(there, name, np.nan) for name in styles.columns if name not in ("symbol", "date")}


def _borrow_rates(rates: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]) -> NDArray[np.float64]:
    days = _day_numbers(sessions)
    values = np.full((len(sessions), len(symbols)), np.nan)
    column_of = {symbol: column for column, symbol in enumerate(symbols)}
    for symbol, since, bps in rates.sort("symbol", "date").select("symbol", "date", "bps_per_year").iter_rows():
        if bps is not None and not 0.0 <= bps < np.inf:
            raise InvalidInput(
                f"the borrow fee of {symbol} from {since} is {bps}; give 0 or more basis points per year, or nothing"
            )
        if symbol in column_of:
            first = np.searchsorted(days, np.datetime64(since, "D").astype(np.int64))
            values[first:, column_of[symbol]] = np.nan if bps is None else bps * 1e-4
    return values


def _day_numbers(sessions: Sequence[date]) -> NDArray[np.int64]:
    return np.array(sessions, dtype="datetime64[D]").astype(np.int64)
