"""Prices from the user's own files: one Parquet or CSV file, or a folder of them.

A file is read whole, brought into the price contract row by row in order of date, and kept in memory until it changes
on disk. What a row becomes depends on it and on earlier rows only, so that a file which has grown gives the old days
unchanged. Judging rows is the matter of `market.prices`.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.identity import LIFE, Identities, SymbolChange
from stockpicker_dagster.market.prices import inferred_adjustment
from stockpicker_dagster.market.sources import Basis, Fetched, file_tails
from stockpicker_dagster.market.sources.exchange import ExchangeVenue
from stockpicker_dagster.market.sources.file_judgement import Judged, Rules, Tail, extend, together
from stockpicker_dagster.market.sources.file_tails import FileState, KeptTail
from stockpicker_dagster.market.sources.silence import delistings_by_silence, quoted
from stockpicker_dagster.market.universes import normalise_symbol

_ALIASES = {"ticker": "symbol", "adj._close": "adj_close", "adjusted_close": "adj_close", "adjclose": "adj_close"}
_REQUIRED = ("symbol", "date", "open", "high", "low", "close", "volume")
_EVENTS = ("dividend", "split_ratio")
_TEXTS = ("symbol", "date", "currency")
_FEW = 50
"""Up to so many symbols are looked up in the files by themselves, rather than everything being judged for them."""
_JUST_BEFORE = timedelta(days=14)
"""A ticker with a row so shortly before a change is in use then."""
_UTC, _MIDNIGHT, _MOMENT = r"(?i)(z|\+00:?00)$", r"^.{10}[T ]00:00(:00(\.0+)?)?\D", "%Y-%m-%d %H:%M:%S"
_NULLS = ["", "null", "None", "NA", "N/A"]


class FilesSource:
    """A price source on the user's files.

    Columns, in any order and in upper or lower case: `symbol` or `ticker`; `date` (a date, or text as 2024-03-08);
    `open`, `high`, `low`, `close`, `volume`; and either `dividend` (currency per pre-split share) or `split_ratio` (new
    shares per old), or both, or `adj_close`, from which they are inferred as `market.prices` says. Others are ignored,
    and `adj_close` is too where events are given. `basis` says whether prices are as traded on their day or restated
    for later splits (`split_adjusted`, as most downloads are). Where there is a column `currency`, rows in another one
    than the declared `currency` are quarantined; a blank one is taken for the declared.

    `identities` says what tickers mean. A ticker is read as of its day; but where the file has no row of the old ticker
    in the days before a change, and has rows of the new one, it shows the history before it under the new one.
    A symbol whose rows stop is reported as delisted, with an unknown return, on the tenth session of the file that it
    misses; should it come back within `identity.REUSED_AFTER` sessions, its rows go on, else they are another
    security's. With `keeps_tail`, what later rows are judged by is kept in the state
    folder under the source's name, so that a new day is not paid for with all the years before it.
    Raises `InvalidInput`, on the first use rather than when made, if the files are missing or cannot be understood.
    """

    kind = "files"

    def __init__(
        self,
        name: str,
        path: str | Path,
        basis: Basis,
        start: date,
        calendar: TradingCalendar | None = None,
        *,
        currency: str = "USD",
        identities: Identities = Identities(),  # noqa: B008 - immutable
        keeps_tail: bool = False,
    ) -> None:
        if basis not in ("as_traded", "split_adjusted"):
            raise InvalidInput(f"basis {basis!r} is unknown; known: as_traded, split_adjusted")
        self.name = name
        self.path = Path(path)
        self.basis: Basis = basis
        self.start = start
        restated = "prices restated for later splits; " if basis == "split_adjusted" else ""
        self.caveat: str | None = f"{restated}delisting returns unknown"
        self.calendar = calendar or trading_calendar()
        self.currency = currency
        self.identities = identities
        self.decisions: tuple[Decision, ...] = ()
        self.keeps_tail = keeps_tail

    def __repr__(self) -> str:
        return f"FilesSource({self.name!r}, {str(self.path)!r}, basis={self.basis!r}, start={self.start})"

    def corrected(self, decisions: Sequence[Decision]) -> "FilesSource":
        """The same files, with their rows judged under a person's decisions."""
        twin = copy(self)
        twin.decisions = tuple(decisions)
        return twin

    def everything(self) -> Fetched:
        """Every row that is in the files, whatever its day: what `fetch` gives for all of them together, and more.

        Rows rejected for a day after the last session are reported here only, because that session is yet to come.
        """
        book = self._book()
        return Fetched(
            book.prices.with_columns(source=pl.lit(self.name)),
            book.delistings,
            book.quarantine.drop("reported_on").with_columns(source=pl.lit(self.name)),
        )

    def row_count(self) -> int:
        """The rows in the files, counted without a look at what is in them."""
        files = [Path(file) for file, _, _ in _fingerprint(self.path)]
        return sum(_scan(file).select(pl.len()).collect().item() for file in files)

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """See `PriceSource.fetch`. A row rejected for a day without trading is reported on the session after it.

        Raises `InvalidInput` for a session before `start`, and for one after the last in the files, which may yet come.
        """
        book = self._book_of(symbols, sessions)
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
        wanted = None if symbols is None else _Wanted(self.identities, [normalise_symbol(symbol) for symbol in symbols])
        quarantine = _rows_on(book.quarantine, "reported_on", sessions, wanted).drop("reported_on")
        source = pl.lit(self.name).alias("source")
        return Fetched(
            _rows_on(book.prices, "date", sessions, wanted).with_columns(source),
            _rows_on(book.delistings, "date", sessions, wanted),
            quarantine.with_columns(source),
            reused=tuple(each for each in book.reused if each.day <= sessions[-1]),
        )

    def available_through(self) -> date | None:
        """The last session with an accepted row; `InvalidInput` if there is none at all."""
        book = self._recent() or self._book()
        if book.last_session is None:
            raise self._without_rows(book)
        return book.last_session

    def symbols(self) -> list[str]:
        """Every symbol with an accepted row, in alphabetical order."""
        return self._book().prices["symbol"].unique().sort().to_list()

    def venue(self) -> ExchangeVenue:
        """The exchange, with the opening prices that the file brings."""
        return ExchangeVenue(self.calendar, self)

    def _without_rows(self, book: "_Book") -> InvalidInput:
        reasons = book.quarantine["reason"].value_counts().sort("reason").iter_rows()
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons) or "it has no rows"
        return InvalidInput(f"source {self.name!r} has not one acceptable row in {self.path} ({counted}); correct them")

    def _rules(self) -> Rules:
        meaning = _as_shown(self.identities, self.path, _fingerprint(self.path), self.calendar.time_zone)
        return Rules(self.basis, self.calendar.name, meaning, self.decisions, self.currency)

    def _book(self) -> "_Book":
        name = self.name if self.keeps_tail else None
        return _load(self.path, _fingerprint(self.path), self._rules(), name)

    def _recent(self) -> "_Book | None":
        if not self.keeps_tail:
            return None
        return _load_recent(self.path, _fingerprint(self.path), self._rules(), self.name)

    def _book_of(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> "_Book":
        """A book with the rows asked for: that of the newest rows, or of a few symbols, before that of everything."""
        recent = self._recent()
        if recent is None or not sessions:
            return self._book()
        if recent.since is not None and sessions[0] > recent.since:
            return recent
        if symbols is not None and len(symbols) <= _FEW:
            tickers = self.identities.tickers_of([normalise_symbol(symbol) for symbol in symbols])
            return _load_few(self.path, self._rules(), frozenset(tickers), sessions[-1], recent.trading_days)
        return self._book()


@dataclass(frozen=True)
class _Book:
    """What the files say about all days, or about those after `since`.

    `quarantine` has one column more, the session on which a row is reported; `trading_days` are all with a stored row;
    `reused` the tickers that were seen to be taken up by another security.
    """

    prices: pl.DataFrame
    delistings: pl.DataFrame
    quarantine: pl.DataFrame
    trading_days: pl.Series
    since: date | None = None
    reused: tuple[SymbolChange, ...] = ()

    @property
    def last_session(self) -> date | None:
        return self.trading_days[-1] if len(self.trading_days) else None


@dataclass(frozen=True)
class _Wanted:
    """The securities that some names stand for."""

    identities: Identities
    names: Sequence[str]

    def among(self, present: Collection[str]) -> list[str]:
        return self.identities.meant(self.names, present)


def _rows_on(frame: pl.DataFrame, column: str, sessions: Sequence[date], wanted: _Wanted | None) -> pl.DataFrame:
    """The rows of some sessions and securities; `frame` is sorted by `column`: a day is found without a scan."""
    first = frame[column].search_sorted(sessions[0], side="left")
    last = frame[column].search_sorted(sessions[-1], side="right")
    rows = frame.slice(first, last - first)
    # A slice is free, a filter copies: of a whole market that matters.
    if not set(rows[column].unique()) <= set(sessions):
        rows = rows.filter(pl.col(column).is_in(pl.Series(sessions, dtype=pl.Date()).implode()))
    if wanted is None:
        return rows
    present = rows["symbol"].unique()
    chosen = wanted.among(present)
    return rows if len(chosen) == len(present) else rows.filter(pl.col("symbol").is_in(chosen))


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


@lru_cache(maxsize=8)
def _as_shown(identities: Identities, path: Path, fingerprint: Fingerprint, zone: str) -> Identities:
    """What tickers mean in these files, of which some may show the history before a change under the new ticker."""
    changes = [change for change in identities.changes if change.old not in ("", change.new)]
    if not changes:
        return identities
    tickers = {ticker for change in changes for ticker in (change.old, change.new)}
    rows = pl.concat(_read(Path(file), zone, tickers).select("symbol", "date") for file, _, _ in fingerprint)
    days = {ticker: found["date"].sort() for (ticker,), found in rows.group_by("symbol")}

    def shown(ticker: str, change: SymbolChange) -> bool:
        of_ticker = days.get(ticker, pl.Series([], dtype=pl.Date))
        before = of_ticker.filter(of_ticker < change.day)
        return len(before) > 0 and before[-1] >= change.day - _JUST_BEFORE

    early = [change for change in changes if shown(change.new, change) and not shown(change.old, change)]
    return identities.restated(early) if early else identities


@lru_cache(maxsize=2)
def _load(path: Path, fingerprint: Fingerprint, rules: Rules, tail_name: str | None) -> _Book:
    """Everything, judged year by year: a whole market at once would take several times its memory."""
    files, zone = [Path(file) for file, _, _ in fingerprint], rules.calendar.time_zone
    _refuse_other_columns(files)
    ranges = {file: _dates_of(file, zone) for file in files} if len(files) > 1 else {}
    tail, kept, judged = Tail(), None, list[Judged]()
    boundary: date | None = None
    states: dict[str, FileState] = {}
    for group in _groups(files, ranges):
        tables = _read_all(group, zone)
        rows = pl.concat(tables.values())
        last = max((last for _, last in ranges.values() if last), default=rows["date"].max())
        boundary = file_tails.boundary(last) if isinstance(last, date) else None
        states |= _states(tables, fingerprint, boundary)
        for part in _by_year(rows, boundary):
            piece, tail = _extended(tail, part, path, rules)
            judged.append(piece)
            kept = tail if boundary and tail.through and tail.through <= boundary else kept
    if tail_name is not None and kept is not None:
        _keep(tail_name, kept, path, rules, states)
        _load_recent.cache_clear()  # what it remembers is that there was no tail
    return _Book(**vars(together(judged)), trading_days=tail.trading_days, reused=tail.reused)


@lru_cache(maxsize=2)
def _load_recent(path: Path, fingerprint: Fingerprint, rules: Rules, tail_name: str) -> _Book | None:
    """What is dated after the tail that was kept; None if none was, or if a row before it may have changed."""
    kept = file_tails.kept(tail_name, str(path), rules)
    tables = _changed_since(kept, fingerprint, rules.calendar.time_zone) if kept else None
    if kept is None or tables is None:
        return None
    tail, since = kept.tail, kept.tail.through
    assert tail.rows is not None
    rows = pl.concat([tail.rows.clear(), *tables.values()]).filter(pl.col("date") > since)
    last = rows["date"].max()
    boundary = file_tails.boundary(last) if isinstance(last, date) else None
    piece, _ = _extended(tail, rows.clear(), path, rules)
    judged, moved = [Judged(piece.prices, piece.delistings, tail.waiting)], None
    for part in _by_year(rows, boundary):
        piece, tail = _extended(tail, part, path, rules)
        judged.append(piece)
        moved = tail if boundary and tail.through and tail.through <= boundary else moved
    if moved is not None:
        states = {**kept.files, **_states(tables, fingerprint, boundary)}
        _keep(tail_name, moved, path, rules, states)
    return _Book(**vars(together(judged)), trading_days=tail.trading_days, since=since, reused=tail.reused)


def _load_few(path: Path, rules: Rules, tickers: frozenset[str], last: date, trading_days: pl.Series) -> _Book:
    """What there is about a few tickers up to `last`, where the `trading_days` of all symbols are known."""
    tables = [_read(Path(file), rules.calendar.time_zone, tickers, last) for file, _, _ in _fingerprint(path)]
    piece, tail = _extended(Tail(), pl.concat(tables), path, rules)
    delistings = delistings_by_silence(quoted(piece.prices, piece.quarantine), trading_days)
    return _Book(piece.prices, delistings, piece.quarantine, trading_days, reused=tail.reused)


def _extended(tail: Tail, rows: pl.DataFrame, path: Path, rules: Rules) -> tuple[Judged, Tail]:
    return extend(tail, rows, lambda known: _with_known_events(known, path, rules), rules)


def _keep(name: str, tail: Tail, path: Path, rules: Rules, states: Mapping[str, FileState]) -> None:
    assert tail.through is not None
    file_tails.keep(name, tail, file_tails.settings(str(path), rules, tail.through), states)


def _changed_since(kept: KeptTail, fingerprint: Fingerprint, zone: str) -> dict[Path, pl.DataFrame] | None:
    """The files that have, or may have, rows after the tail; None if one before it may have changed."""
    assert kept.tail.rows is not None
    if set(kept.files) - {file for file, _, _ in fingerprint}:
        return None
    tables: dict[Path, pl.DataFrame] = {}
    for file, changed, size in fingerprint:
        state = kept.files.get(file)
        untouched = state is not None and (state.changed, state.size) == (changed, size)
        if untouched and state is not None and not state.goes_on:
            continue
        table = _read(Path(file), zone)
        earlier = table.filter(pl.col("date") <= kept.tail.through)
        as_before = untouched or file_tails.digest_of(earlier) == (state.digest if state else file_tails.NO_ROWS)
        if table.columns != kept.tail.rows.columns or not as_before:
            return None
        tables[Path(file)] = table
    return tables


def _states(
    tables: Mapping[Path, pl.DataFrame], fingerprint: Fingerprint, boundary: date | None
) -> dict[str, FileState]:
    """Each file as it is now; a tail of rows up to `boundary` (None: of no row) is about to be kept."""
    known = {Path(file): (changed, size) for file, changed, size in fingerprint}
    states: dict[str, FileState] = {}
    for file, table in tables.items():
        earlier = table.filter(pl.col("date") <= boundary) if boundary else table.clear()
        states[str(file)] = FileState(*known[file], file_tails.digest_of(earlier), earlier.height < table.height)
    return states


def _by_year(rows: pl.DataFrame, boundary: date | None) -> Iterator[pl.DataFrame]:
    """The rows year by year, in order, and cut once more after `boundary`; their order within a piece stays."""
    if rows.is_empty():
        yield rows
        return
    beyond = pl.lit(False) if boundary is None else pl.col("date") > boundary
    piece = 2 * pl.col("date").dt.year() + beyond.cast(pl.Int32)
    for key in rows.select(piece.unique().sort()).to_series():
        yield rows.filter(piece == key)


Dates = tuple[date | None, date | None]


def _dates_of(file: Path, zone: str) -> Dates:
    """The first and last date in a file, None without rows, from that one column alone."""
    column = _columns(file, _column_names(file))["date"]
    ends = _scan(file).select(first=pl.col(column).min(), last=pl.col(column).max()).collect()
    first, last = (_dates(ends[name], file, zone).item() for name in ("first", "last"))
    return first, last


def _groups(files: Sequence[Path], ranges: Mapping[Path, Dates]) -> list[list[Path]]:
    """The files in groups that follow each other in time; within a group they overlap, and stay in their order."""
    if len(files) < 2:
        return [list(files)]
    groups: list[list[Path]] = []
    end = date.min
    for file in sorted(files, key=lambda file: ranges[file][0] or date.min):
        first, last = ranges[file]
        if groups and (first or date.min) <= end:
            groups[-1].append(file)
        else:
            groups.append([file])
        end = max(end, last or date.min)
    return [sorted(group, key=list(files).index) for group in groups]


def _refuse_other_columns(files: Sequence[Path]) -> None:
    columns = {file: list(_columns(file, _column_names(file))) for file in files}
    for file in files:
        if columns[file] != columns[files[0]]:
            raise InvalidInput(
                f"{file} has the columns {', '.join(columns[file])} where {files[0]} has "
                f"{', '.join(columns[files[0]])}; give all files of a folder the same"
            )


def _column_names(file: Path) -> list[str]:
    try:
        return _scan(file).collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the price file {file} cannot be read as Parquet or CSV: {error}") from error


def _read_all(files: Sequence[Path], zone: str) -> dict[Path, pl.DataFrame]:
    """The rows of each file: the required columns, and events in `_EVENTS` or in `adj_close`."""
    return {file: _read(file, zone) for file in files}


def _read(file: Path, zone: str, symbols: Collection[str] | None = None, last: date | None = None) -> pl.DataFrame:
    """The rows of a file, of all symbols or of some, and up to the day `last` where its dates are no text."""
    try:
        table = _scan(file).select(
            pl.col(column).alias(name) for name, column in _columns(file, _column_names(file)).items()
        )
        if not _is_parquet(file):
            table = table.with_columns(_blanks_as_null(column) for column in table.collect_schema())
        if last is not None and table.collect_schema()["date"] == pl.Date:
            table = table.filter(pl.col("date") <= last)
        if symbols is not None:
            spelled = table.select(pl.col("symbol").unique().cast(pl.String)).collect().to_series().drop_nulls()
            table = table.filter(
                pl.col("symbol").is_in([name for name in spelled if normalise_symbol(name) in symbols])
            )
        rows = table.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the price file {file} cannot be read as Parquet or CSV: {error}") from error
    numbers = [name for name in rows.columns if name not in _TEXTS]
    rows = rows.with_columns(_dates(rows["date"], file, zone), *[_floats(rows[name], file) for name in numbers])
    return _with_normal_symbols(rows, file)


def _scan(file: Path) -> pl.LazyFrame:
    return pl.scan_parquet(file) if _is_parquet(file) else pl.scan_csv(file, infer_schema=False)


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


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
        if name in by_name and name in (*_REQUIRED, *_EVENTS, "adj_close", "currency"):
            raise InvalidInput(f"{file} has both {by_name[name]} and {column}, which mean the same; keep one of them")
        by_name[name] = column
    events = [name for name in _EVENTS if name in by_name] or [name for name in ("adj_close",) if name in by_name]
    missing = [name for name in _REQUIRED if name not in by_name]
    if not events:
        missing.append("adj_close (or dividend and split_ratio)")
    if missing:
        hint = "; separate columns with commas" if len(found) == 1 and re.search(r"[;\t|]", found[0]) else ""
        raise InvalidInput(f"{file} lacks {', '.join(missing)}; found: {', '.join(found)}{hint}")
    currency = [name for name in ("currency",) if name in by_name]
    return {name: by_name[name] for name in (*_REQUIRED, *events, *currency)}


def _dates(column: pl.Series, file: Path, zone: str) -> pl.Series:
    """The days that a column of dates, moments or text means: midnights mean their day, other moments that of the
    exchange's `zone`. A moment at another place of the world would otherwise be dated a day early."""
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
        midnights = bool((column.dt.time() == time()).all())
        return (column if midnights else column.dt.convert_time_zone(zone)).dt.date()
    if column.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Date)
    if column.dtype != pl.String:
        shown = next(iter(column), None)
        raise InvalidInput(f"{file}: the dates are {column.dtype}, such as {shown}; write them as 2024-03-08")
    days = column.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    moments = column.str.contains(_UTC) & ~column.str.contains(_MIDNIGHT)
    if moments.any():
        utc = column.str.slice(0, 19).str.replace("T", " ").str.to_datetime(_MOMENT, strict=False, time_zone="UTC")
        days = days.zip_with(~moments.fill_null(False), utc.dt.convert_time_zone(zone).dt.date())
    wrong = column.filter(days.is_null() & column.is_not_null())
    if len(wrong):
        raise InvalidInput(f"{file}: date {wrong[0]!r} is not understood ({len(wrong)} rows); write it as 2024-03-08")
    return days


def _floats(column: pl.Series, file: Path) -> pl.Series:
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
        shown = next(iter(column), None)
        raise InvalidInput(f"{file}: {column.name} is {column.dtype}, such as {shown}; write numbers")
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
    if ids := sorted(name for name in names if LIFE in name):
        raise InvalidInput(f"{file}: symbol {ids[0]!r} has a {LIFE}, which no ticker has; name tickers, not ids")
    return rows.with_columns(symbol=given.replace_strict(names, [normalise_symbol(name) for name in names]))


def _with_known_events(rows: pl.DataFrame, path: Path, rules: Rules) -> pl.DataFrame:
    """The rows with both of `_EVENTS`, or with the `adjustment` inferred from `adj_close`; and what is `misquoted`."""
    if "currency" in rows.columns:
        quoted_in = pl.col("currency").cast(pl.String).str.strip_chars()
        told = pl.format("quoted in {}, not in {}", quoted_in, pl.lit(rules.currency))
        rows = rows.with_columns(misquoted=pl.when(quoted_in != rules.currency).then(told)).drop("currency")
    if "adj_close" in rows.columns:
        series = rules.identities.series_of(rows).alias("series")
        return _with_inferred_adjustment(rows.with_columns(series)).drop("adj_close", "series")
    missing = {"dividend": 0.0, "split_ratio": 1.0}
    rows = rows.with_columns(pl.lit(value).alias(name) for name, value in missing.items() if name not in rows.columns)
    contradicting = rows.filter(pl.col("split_ratio").fill_null(1.0) != 1.0)
    if rules.basis == "split_adjusted" and contradicting.height:
        row = contradicting.row(0, named=True)
        raise InvalidInput(
            f"{path} is declared split_adjusted, where every split_ratio is 1, but {row['symbol']} has "
            f"{row['split_ratio']:g} on {row['date']}; declare it as_traded, or remove the split ratios"
        )
    return rows


def _with_inferred_adjustment(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds the step of `adj_close / close` in each `series` against the day before, alike for copies of one row."""
    step = inferred_adjustment(pl.col("close"), pl.col("adj_close"))
    day = ("symbol", "date")
    copies = rows.filter(rows.select((pl.struct(day) == pl.struct(day).shift(1)).fill_null(False)).to_series())
    if copies.is_empty():
        return rows.with_columns(adjustment=step.over("series"))
    # Rows of one day are compared with the day before, not with each other: number them, and infer number by number.
    numbered = rows.with_columns(copy=pl.int_range(pl.len()).over(day))
    firsts = numbered.filter(pl.col("copy") == 0).with_columns(adjustment=step.over("series"))
    factor = pl.col("adj_close") / pl.col("close")
    by_day = firsts.select(*day, first_adjustment="adjustment", first_factor=factor)
    apart = factor / pl.col("first_factor")
    apart = pl.when((pl.col("copy") > 0) & apart.is_finite()).then(apart).otherwise(1.0)
    return (
        numbered.join(by_day, on=day, how="left", maintain_order="left")
        .with_columns(adjustment=pl.col("first_adjustment") * apart)
        .drop("copy", "first_adjustment", "first_factor")
    )
