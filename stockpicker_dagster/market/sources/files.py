"""Prices from the user's own files: one Parquet or CSV file, or a folder of them.

A file is read whole, brought into the price contract row by row in order of date, and kept in memory until it changes
on disk. What a row becomes depends on it and on earlier rows only, so that a file which has grown gives the old days
unchanged. Judging rows is the matter of `market.prices`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.prices import (
    DELISTINGS_SCHEMA,
    QUARANTINE_SCHEMA,
    inferred_adjustment,
    validate,
)
from stockpicker_dagster.market.sources import Basis, Fetched, Window
from stockpicker_dagster.market.universes import normalise_symbol

DELISTED_AFTER = 10
"""A symbol without a row for so many sessions, while others have rows, counts as delisted on the last of them."""

AUCTION_CUT_OFF = timedelta(minutes=2)
"""Orders for the opening auction in New York are taken until two minutes before the open."""

_ALIASES = {"ticker": "symbol", "adj._close": "adj_close", "adjusted_close": "adj_close", "adjclose": "adj_close"}
_REQUIRED = ("symbol", "date", "open", "high", "low", "close", "volume")
_EVENTS = ("dividend", "split_ratio")
_NULLS = ["", "null", "None", "NA", "N/A"]


class FilesSource:
    """A price source on the user's files.

    Columns, in any order and in upper or lower case: `symbol` or `ticker`; `date` (a date, or text as 2024-03-08);
    `open`, `high`, `low`, `close`, `volume`; and either `dividend` (currency per pre-split share) or `split_ratio` (new
    shares per old), or both, or `adj_close`, from which they are inferred as `market.prices` says. Others are ignored,
    and `adj_close` is too where events are given. `basis` says whether prices are as traded on their day or restated
    for later splits (`split_adjusted`, as most downloads are).

    A symbol whose rows stop is reported as delisted, with an unknown return, on the tenth session of the file that it
    misses; should it come back, its rows go on. Raises `InvalidInput`, on the first use rather than when made, if the
    files are missing or cannot be understood.
    """

    kind = "files"

    def __init__(self, name: str, path: str | Path, basis: Basis, start: date) -> None:
        if basis not in ("as_traded", "split_adjusted"):
            raise InvalidInput(f"basis {basis!r} is unknown; known: as_traded, split_adjusted")
        self.name = name
        self.path = Path(path)
        self.basis: Basis = basis
        self.start = start
        restated = "prices restated for later splits; " if basis == "split_adjusted" else ""
        self.caveat: str | None = f"{restated}delisting returns unknown"

    def __repr__(self) -> str:
        return f"FilesSource({self.name!r}, {str(self.path)!r}, basis={self.basis!r}, start={self.start})"

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """See `PriceSource.fetch`. A row rejected for a day without trading is reported on the session after it.

        Raises `InvalidInput` for a session before `start`, and for one after the last in the files, which may yet come.
        """
        book = self._book()
        if not sessions:
            return Fetched(book.prices.clear(), book.delistings.clear(), book.quarantine.clear().drop("reported_on"))
        if sessions[0] < self.start:
            raise InvalidInput(f"{sessions[0]} precedes the start of source {self.name!r}, which is {self.start}")
        if book.last_session is None:
            raise self._without_rows(book)
        if sessions[-1] > book.last_session:
            raise InvalidInput(
                f"source {self.name!r} has no row after {book.last_session}, and {sessions[-1]} was asked for; "
                f"add newer rows to {self.path}"
            )
        wanted = None if symbols is None else [normalise_symbol(symbol) for symbol in symbols]
        quarantine = _rows_on(book.quarantine, "reported_on", sessions, wanted).drop("reported_on")
        source = pl.lit(self.name).alias("source")
        return Fetched(
            _rows_on(book.prices, "date", sessions, wanted).with_columns(source),
            _rows_on(book.delistings, "date", sessions, wanted),
            quarantine.with_columns(source),
        )

    def available_through(self) -> date | None:
        """The last session with an accepted row; `InvalidInput` if there is none at all."""
        book = self._book()
        if book.last_session is None:
            raise self._without_rows(book)
        return book.last_session

    def symbols(self) -> list[str]:
        """Every symbol with an accepted row, in alphabetical order."""
        return self._book().prices["symbol"].unique().sort().to_list()

    def venue(self) -> "ExchangeVenue":
        """New York, with the opening prices that the file brings."""
        return ExchangeVenue(trading_calendar("XNYS"), self)

    def _without_rows(self, book: "_Book") -> InvalidInput:
        reasons = book.quarantine["reason"].value_counts().sort("reason").iter_rows()
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons) or "it has no rows"
        return InvalidInput(f"source {self.name!r} has not one acceptable row in {self.path} ({counted}); correct them")

    def _book(self) -> "_Book":
        return _load(self.path, self.basis, _fingerprint(self.path))


@dataclass(frozen=True)
class ExchangeVenue:
    """A real exchange, as far as paper trading on daily files needs it."""

    calendar: TradingCalendar
    source: FilesSource
    simulated: bool = False

    def window(self, session: date, latest_stored: date, now: datetime) -> Window | None:
        """From the close of `session` to two minutes before the next open, if that lies ahead and prices are stored."""
        if session != latest_stored or session != self.calendar.last_completed(now):
            return None
        opens, next_open = self.calendar.close_at(session), self.calendar.open_at(self.trade_session(session))
        window = Window(opens, next_open - AUCTION_CUT_OFF)
        return window if now < window.closes else None

    def trade_session(self, session: date) -> date:
        """The next session of the exchange."""
        return self.calendar.next_session(session)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """The opening prices in the file, to a hundredth of a cent; None until it has rows of `session`."""
        available = self.source.available_through()
        if available is None or available < session:
            return None
        prices = self.source.fetch(list(symbols), [session]).prices
        return {symbol: Decimal(f"{price:.4f}") for symbol, price in prices.select("symbol", "open").iter_rows()}


@dataclass(frozen=True)
class _Book:
    """Everything that the files say. `quarantine` has one column more, the session on which a row is reported."""

    prices: pl.DataFrame
    delistings: pl.DataFrame
    quarantine: pl.DataFrame
    last_session: date | None


def _rows_on(
    frame: pl.DataFrame, column: str, sessions: Sequence[date], symbols: Collection[str] | None
) -> pl.DataFrame:
    """The rows of some sessions and symbols; `frame` is sorted by `column`, so that a day is found without a scan."""
    first = frame[column].search_sorted(sessions[0], side="left")
    last = frame[column].search_sorted(sessions[-1], side="right")
    rows = frame.slice(first, last - first)
    rows = rows.filter(pl.col(column).is_in(pl.Series(sessions, dtype=pl.Date()).implode()))
    return rows if symbols is None else rows.filter(pl.col("symbol").is_in(symbols))


Fingerprint = tuple[tuple[str, int, int], ...]


def _fingerprint(path: Path) -> Fingerprint:
    """Name, time of change and size of every file, by which a change on disk shows."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".parquet", ".csv"))
        if not files:
            raise InvalidInput(f"the folder {path} has no .parquet or .csv file; put the price files there")
    elif not path.is_file():
        raise InvalidInput(f"the price file {path} does not exist; put it there, or correct the path in the strategy")
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=2)
def _load(path: Path, basis: Basis, fingerprint: Fingerprint) -> _Book:
    rows = _with_known_events(_read_all([Path(file) for file, _, _ in fingerprint]), path, basis)
    calendar = trading_calendar("XNYS")
    sessions = _sessions_around(rows, calendar)
    prices, quarantine = validate(rows, basis=basis, sessions=sessions)
    trading_days = prices["date"].unique().sort()
    return _Book(
        prices,
        _delistings(prices, trading_days),
        _with_report_session(quarantine, sessions),
        trading_days[-1] if len(trading_days) else None,
    )


def _read_all(files: list[Path]) -> pl.DataFrame:
    """The rows of all files by symbol and date: the required columns, and events in `_EVENTS` or in `adj_close`."""
    tables = [_read(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        if table.columns != tables[0].columns:
            raise InvalidInput(
                f"{file} has the columns {', '.join(table.columns)} where {files[0]} has "
                f"{', '.join(tables[0].columns)}; give all files of a folder the same"
            )
    return pl.concat(tables).sort("symbol", "date", maintain_order=True)


def _read(file: Path) -> pl.DataFrame:
    try:
        is_parquet = file.suffix.lower() == ".parquet"
        table = pl.scan_parquet(file) if is_parquet else pl.scan_csv(file, infer_schema=False)
        found = table.collect_schema().names()
        table = table.select(pl.col(column).alias(name) for name, column in _columns(file, found).items())
        if not is_parquet:
            table = table.with_columns(_blanks_as_null(column) for column in table.collect_schema())
        rows = table.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the price file {file} cannot be read as Parquet or CSV: {error}") from error
    numbers = [name for name in rows.columns if name not in ("symbol", "date")]
    rows = rows.with_columns(_dates(rows["date"], file), *[_floats(rows[name], file) for name in numbers])
    return _with_normal_symbols(rows, file)


def _blanks_as_null(column: str) -> pl.Expr:
    """The text column with the words for "unknown" as nulls; among symbols they are tickers, such as Nasdaq's NA."""
    unknown = [""] if column == "symbol" else _NULLS
    return pl.when(~pl.col(column).is_in(unknown)).then(pl.col(column)).alias(column)


def _columns(file: Path, found: list[str]) -> dict[str, str]:
    """Our name -> the file's name of every column to read."""
    by_name: dict[str, str] = {}
    for column in found:
        name = column.strip().casefold().replace(" ", "_")
        name = _ALIASES.get(name, name)
        if name in by_name and name in (*_REQUIRED, *_EVENTS, "adj_close"):
            raise InvalidInput(f"{file} has both {by_name[name]} and {column}, which mean the same; keep one of them")
        by_name[name] = column
    events = [name for name in _EVENTS if name in by_name] or [name for name in ("adj_close",) if name in by_name]
    missing = [name for name in _REQUIRED if name not in by_name]
    if not events:
        missing.append("adj_close (or dividend and split_ratio)")
    if missing:
        raise InvalidInput(f"{file} lacks {', '.join(missing)}; found: {', '.join(found)}")
    return {name: by_name[name] for name in (*_REQUIRED, *events)}


def _dates(column: pl.Series, file: Path) -> pl.Series:
    if column.dtype != pl.String:
        return column.cast(pl.Date)
    days = column.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    wrong = column.filter(days.is_null() & column.is_not_null())
    if len(wrong):
        raise InvalidInput(f"{file}: date {wrong[0]!r} is not understood ({len(wrong)} rows); write it as 2024-03-08")
    return days


def _floats(column: pl.Series, file: Path) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    wrong = column.filter(numbers.is_null() & column.is_not_null())
    if len(wrong):
        raise InvalidInput(f"{file}: {column.name} {wrong[0]!r} is no number ({len(wrong)} rows); leave unknowns blank")
    return numbers


def _with_normal_symbols(rows: pl.DataFrame, file: Path) -> pl.DataFrame:
    nameless = rows.select((pl.col("symbol").is_null() | pl.col("date").is_null()).sum()).item()
    if nameless:
        raise InvalidInput(f"{file}: {nameless} rows have no symbol or no date; fill or remove them")
    given = rows["symbol"].cast(pl.String)
    names = given.unique()
    return rows.with_columns(symbol=given.replace_strict(names, [normalise_symbol(name) for name in names]))


def _with_known_events(rows: pl.DataFrame, path: Path, basis: Basis) -> pl.DataFrame:
    """The rows with both of `_EVENTS`, or with the `adjustment` inferred from `adj_close`."""
    if "adj_close" in rows.columns:
        return _with_inferred_adjustment(rows).drop("adj_close")
    missing = {"dividend": 0.0, "split_ratio": 1.0}
    rows = rows.with_columns(pl.lit(value).alias(name) for name, value in missing.items() if name not in rows.columns)
    contradicting = rows.filter(pl.col("split_ratio").fill_null(1.0) != 1.0)
    if basis == "split_adjusted" and contradicting.height:
        row = contradicting.row(0, named=True)
        raise InvalidInput(
            f"{path} is declared split_adjusted, where every split_ratio is 1, but {row['symbol']} has "
            f"{row['split_ratio']:g} on {row['date']}; declare it as_traded, or remove the split ratios"
        )
    return rows


def _with_inferred_adjustment(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds the step of `adj_close / close` against the day before, alike for copies of one row."""
    step = inferred_adjustment(pl.col("close"), pl.col("adj_close"))
    day = ("symbol", "date")
    copies = rows.filter(rows.select((pl.struct(day) == pl.struct(day).shift(1)).fill_null(False)).to_series())
    if copies.is_empty():
        return rows.with_columns(adjustment=step.over("symbol"))
    # Rows of one day are compared with the day before, not with each other: number them, and infer number by number.
    numbered = rows.with_columns(copy=pl.int_range(pl.len()).over(day))
    firsts = numbered.filter(pl.col("copy") == 0).with_columns(adjustment=step.over("symbol"))
    factor = pl.col("adj_close") / pl.col("close")
    by_day = firsts.select(*day, first_adjustment="adjustment", first_factor=factor)
    apart = factor / pl.col("first_factor")
    apart = pl.when((pl.col("copy") > 0) & apart.is_finite()).then(apart).otherwise(1.0)
    return (
        numbered.join(by_day, on=day, how="left", maintain_order="left")
        .with_columns(adjustment=pl.col("first_adjustment") * apart)
        .drop("copy", "first_adjustment", "first_factor")
    )


def _sessions_around(rows: pl.DataFrame, calendar: TradingCalendar) -> list[date]:
    """The exchange's sessions over the dates of the rows, and one more, on which a last bad row would be reported."""
    if rows.is_empty():
        return []
    earliest, latest = rows["date"].min(), rows["date"].max()
    assert isinstance(earliest, date)
    assert isinstance(latest, date)
    first = min(max(earliest, calendar.first_day), calendar.last_day)
    last = max(min(latest, calendar.offset(calendar.previous_session(calendar.last_day), -1)), calendar.first_day)
    return [*calendar.sessions(first, last), calendar.next_session(last)]


def _with_report_session(quarantine: pl.DataFrame, sessions: list[date]) -> pl.DataFrame:
    """Adds `reported_on`, the row's session or, for a day without trading, the next one; sorted by it."""
    calendar = pl.DataFrame({"reported_on": sessions}, schema={"reported_on": pl.Date()})
    reported = quarantine.sort("date", "symbol", maintain_order=True).join_asof(
        calendar, left_on="date", right_on="reported_on", strategy="forward", coalesce=False
    )
    # Rows dated after the calendar's end are never reported, but counted.
    return reported.select(*QUARANTINE_SCHEMA, pl.col("reported_on").fill_null(date.max))


def _delistings(prices: pl.DataFrame, trading_days: pl.Series) -> pl.DataFrame:
    """Every disappearance that lasted for `DELISTED_AFTER` of the file's sessions, on the last of them."""
    position = pl.DataFrame({"date": trading_days}).with_row_index("position")
    rows = prices.select("symbol", "date").join(position, on="date").sort("symbol", "position")
    known = pl.col("position").cast(pl.Int64) + DELISTED_AFTER
    back = pl.when(pl.col("symbol") == pl.col("symbol").shift(-1)).then(pl.col("position").shift(-1))
    gone = rows.with_columns(known=known, back=back).filter(
        (pl.col("known") < len(trading_days)) & (pl.col("back").is_null() | (pl.col("back") > pl.col("known")))
    )
    known_at = pl.lit(trading_days).gather("known")
    delistings = gone.select(
        "symbol",
        date=known_at,
        last_session="date",
        reason=pl.lit(f"no price for {DELISTED_AFTER} sessions"),
        **{"return": pl.lit(None, pl.Float64)},
        known_at=known_at,
    )
    return delistings.select(pl.col(name).cast(dtype) for name, dtype in DELISTINGS_SCHEMA.items()).sort(
        "date", "symbol"
    )
