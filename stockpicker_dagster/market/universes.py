"""Universes: which stocks may be picked on a day, and in which sector they are.

A universe is a table of membership spells and an honest word on where they come from: whether its history is point in
time, and what every report must repeat if it is not. Prices are no matter of this file; how vendors spell a ticker is,
because members and price rows have to meet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from stockpicker_dagster.errors import InvalidInput

SPELLS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "start": pl.Date(),
    "end": pl.Date(),
    "sector": pl.String(),
}
"""One row per stretch of membership: `start` the first day in (null: always was), `end` the first day out (null: still
a member), `sector` null where unknown. Spells of one symbol do not overlap."""

TODAYS_SECTORS = "sectors as of the file, not point in time"

_COLUMN_NAMES = {
    "symbol": ("symbol", "ticker"),
    "start": ("start_date", "start"),
    "end": ("end_date", "end"),
    "sector": ("sector", "gics sector"),
}


def normalise_symbol(symbol: str) -> str:
    """The one spelling of a ticker used here: share classes behind a dash, whatever the vendor writes.

    >>> normalise_symbol(" BRK.B"), normalise_symbol("BF/B"), normalise_symbol("AAPL")
    ('BRK-B', 'BF-B', 'AAPL')
    """
    normalised = symbol.strip().replace(".", "-").replace("/", "-")
    if not normalised:
        raise InvalidInput(f"the symbol {symbol!r} is empty; write a ticker such as AAPL or BRK-B")
    return normalised


@dataclass(frozen=True)
class Universe:
    """The members of a universe on any day, from its `spells` (`SPELLS_SCHEMA`, by symbol and start).

    `point_in_time` says whether membership on day *t* was known on day *t*; `caveat` is what every report made from
    this universe must repeat, None if nothing.
    """

    name: str
    point_in_time: bool
    spells: pl.DataFrame
    caveat: str | None

    def members(self, day: date) -> list[str]:
        """The symbols that were members on `day`, in alphabetical order."""
        return self._overlapping(day, day)

    def symbols_ever(self, first: date, last: date) -> list[str]:
        """The symbols that were members on some day from `first` to `last`, both included, in alphabetical order."""
        return self._overlapping(first, last)

    def membership(self, sessions: Sequence[date]) -> pl.DataFrame:
        """One row (`symbol`, `date`) per member and session, sorted by date, then symbol; `sessions` is ascending."""
        days = np.array(sessions, dtype="datetime64[D]")
        if (np.diff(days.astype(np.int64)) <= 0).any():
            raise InvalidInput("the sessions asked for are not in ascending order; sort them and drop repeats")
        first = np.searchsorted(days, self.spells["start"].fill_null(date.min).to_numpy(), side="left")
        last = np.searchsorted(days, self.spells["end"].fill_null(date.max).to_numpy(), side="left")
        member_days = self.spells.select("symbol", position=pl.int_ranges(pl.Series(first), pl.Series(last)))
        return (
            member_days.explode("position", empty_as_null=False)
            .select("symbol", date=pl.lit(pl.Series(sessions, dtype=pl.Date())).gather("position"))
            .sort("date", "symbol")
        )

    def sector_of(self, symbol: str) -> str | None:
        """The sector of the symbol's latest spell; None if unknown. `InvalidInput` if it never was a member."""
        symbol = normalise_symbol(symbol)
        if symbol not in self._sectors:
            raise InvalidInput(f"{symbol} never was a member of the universe {self.name!r}; check its spelling")
        return self._sectors[symbol]

    def sectors(self) -> list[str]:
        """The known sectors, in alphabetical order."""
        return self.spells["sector"].drop_nulls().unique().sort().to_list()

    def restricted_to_sector(self, sector: str) -> "Universe":
        """The part of this universe in one sector, named as the data name it but for upper and lower case."""
        known = {name.casefold(): name for name in self.sectors()}
        if sector.casefold() not in known:
            listing = ", ".join(known.values()) or "none, because its file has no sector column"
            raise InvalidInput(f"sector {sector!r} is unknown in the universe {self.name!r}; known: {listing}")
        name = known[sector.casefold()]
        spells = self.spells.filter(pl.col("sector") == name)
        return replace(self, name=f"{self.name}: {name}", spells=spells)

    @cached_property
    def _sectors(self) -> dict[str, str | None]:
        return dict(self.spells.select("symbol", "sector").iter_rows())

    def _overlapping(self, first: date, last: date) -> list[str]:
        began = pl.col("start").is_null() | (pl.col("start") <= last)
        lasted = pl.col("end").is_null() | (pl.col("end") > first)
        return self.spells.filter(began & lasted)["symbol"].unique().sort().to_list()


def from_symbols(symbols: Iterable[str], name: str = "symbols") -> Universe:
    """A hand-picked list: always members, and never point in time, since whoever picked them knew how they fared."""
    listed = sorted({normalise_symbol(symbol) for symbol in symbols})
    if not listed:
        raise InvalidInput("the list of symbols is empty; name at least one")
    always = {"symbol": listed, "start": None, "end": None, "sector": None}
    caveat = "hand-picked symbols, chosen with today's knowledge"
    return Universe(name, False, pl.DataFrame(always, schema=SPELLS_SCHEMA), caveat)


def from_spells(name: str, spells: pl.DataFrame, *, point_in_time: bool, caveat: str | None) -> Universe:
    """A universe of `spells` (`SPELLS_SCHEMA`, in any order): overlapping or touching ones of one symbol are merged.

    Raises `InvalidInput` for a spell that does not end after its start, and for overlapping ones of different sectors.
    """
    backwards = spells.filter(pl.col("end") <= pl.col("start"))
    if backwards.height:
        row = backwards.row(0, named=True)
        raise InvalidInput(
            f"universe {name!r}: the spell of {row['symbol']} from {row['start']} to {row['end']} does not end after "
            "its start; the end date is the first day out"
        )
    return Universe(name, point_in_time, _merged(name, spells), caveat)


def from_file(path: str | Path, name: str | None = None) -> Universe:
    """A universe from a CSV or Parquet file, named after the file unless `name` is given.

    The file has a column `symbol` or `ticker`: alone, it is a list of members as of today (not point in time); with
    `start_date` and `end_date` (the first day out, blank: still a member) each row is a spell, and the universe is
    point in time. A column `sector` (or `GICS Sector`) is optional. Upper and lower case in headers do not matter, and
    ticker spellings are normalised; rows without a ticker are left out, and the caveat counts them.
    Raises `InvalidInput`, naming what is wrong, where the file cannot be understood.
    """
    path = Path(path)
    table = _read_table(path)
    columns = {name: _find_column(table, aliases) for name, aliases in _COLUMN_NAMES.items()}
    found = ", ".join(table.columns)
    if columns["symbol"] is None:
        raise InvalidInput(f"{path} has no column symbol or ticker; found: {found}")
    if (columns["start"] is None) != (columns["end"] is None):
        raise InvalidInput(f"{path} must have both start_date and end_date, or neither; found: {found}")
    dated = columns["start"] is not None
    table, nameless = _split_off_nameless(table, columns["symbol"], path)
    spells = pl.DataFrame(
        {
            "symbol": [normalise_symbol(symbol) for symbol in table[columns["symbol"]].cast(pl.String)],
            "start": _dates(table, columns["start"], path),
            "end": _dates(table, columns["end"], path),
            "sector": _texts(table, columns["sector"]),
        },
        schema=SPELLS_SCHEMA,
    )
    caveats = [] if dated else [f"members as listed in {path.name}, not point in time"]
    if nameless:
        caveats.append(f"{nameless} rows of {path.name} without a ticker left out")
    if columns["sector"] is not None:
        caveats.append(TODAYS_SECTORS)
    caveat = "; ".join(caveats) or None
    return from_spells(name or path.stem, spells, point_in_time=dated, caveat=caveat)


def _merged(name: str, spells: pl.DataFrame) -> pl.DataFrame:
    """The spells by symbol and start, with overlapping or touching ones of one symbol made one."""
    merged: list[tuple[str, date, date, str | None]] = []
    # Open ends compare as the end of time, and are turned back into nulls below.
    closed = spells.with_columns(pl.col("start").fill_null(date.min), pl.col("end").fill_null(date.max))
    for symbol, start, end, sector in closed.sort("symbol", "start", "end", "sector").iter_rows():
        if merged and merged[-1][0] == symbol and start <= merged[-1][2]:
            _, first, last, same = merged[-1]
            if sector == same:
                merged[-1] = (symbol, first, max(last, end), sector)
                continue
            if start < last:
                raise InvalidInput(
                    f"universe {name!r}: {symbol} is in the sectors {same} and {sector} at once; keep one of them, or "
                    "let the earlier spell end where the later begins"
                )
        merged.append((symbol, start, end, sector))
    frame = pl.DataFrame(merged, schema=SPELLS_SCHEMA, orient="row")
    return frame.with_columns(
        start=pl.when(pl.col("start") > date.min).then("start"), end=pl.when(pl.col("end") < date.max).then("end")
    )


def _read_table(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise InvalidInput(f"the universe file {path} does not exist; give a CSV or Parquet file")
    try:
        is_parquet = path.suffix.lower() == ".parquet"
        table = pl.read_parquet(path) if is_parquet else pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the universe file {path} cannot be read as CSV or Parquet: {error}") from error
    if table.is_empty():
        raise InvalidInput(f"the universe file {path} has no rows; list at least one symbol")
    return table


def _find_column(table: pl.DataFrame, aliases: Sequence[str]) -> str | None:
    by_name = {column.strip().casefold(): column for column in table.columns}
    return next((by_name[alias] for alias in aliases if alias in by_name), None)


def _split_off_nameless(table: pl.DataFrame, column: str, path: Path) -> tuple[pl.DataFrame, int]:
    """The rows that name a ticker, and how many do not: funds list cash and unlisted rights as blank or `-`."""
    named = table.filter(~pl.col(column).cast(pl.String).str.strip_chars().fill_null("").is_in(["", "-"]))
    if named.is_empty():
        raise InvalidInput(f"no row of {path} names a ticker in its column {column!r}; list at least one symbol")
    return named, table.height - named.height


def _dates(table: pl.DataFrame, column: str | None, path: Path) -> pl.Series | None:
    if column is None:
        return None
    given = table[column]
    if given.dtype.is_temporal():
        return given.cast(pl.Date)
    texts = _texts(table, column)
    assert texts is not None
    dates = texts.str.to_date("%Y-%m-%d", strict=False)
    wrong = (dates.is_null() & texts.is_not_null()).arg_true()
    if len(wrong):
        row = wrong[0]
        raise InvalidInput(f"{path}: {column} {texts[row]!r} is no date; write it as 2024-03-08, or leave it blank")
    return dates


def _texts(table: pl.DataFrame, column: str | None) -> pl.Series | None:
    if column is None:
        return None
    texts = table[column].cast(pl.String).str.strip_chars()
    return texts.replace("", None)
