"""The user's own universe files: a list of members, spells of membership, or dated lists one after the other."""

from datetime import date
from pathlib import Path

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.member_tables import MemberTable, read_members
from stockpicker_dagster.market.universes.membership import (
    SPELLS_SCHEMA,
    TODAYS_SECTORS,
    Universe,
    from_spells,
    spells_of_snapshots,
)


def from_file(path: str | Path, name: str | None = None) -> Universe:
    """A universe from a CSV or Parquet file, named after the file unless `name` is given.

    The file has a column `symbol` or `ticker`. Alone, it is a list of members as of today (not point in time). With
    `start_date` and `end_date` (the first day out, blank: still a member) each row is a spell; with `date`, each row
    is a member of the list of that day, which holds until the next list; both are point in time. Columns `sector` (or
    `GICS Sector`) and `industry` are optional. Upper and lower case in headers do not matter, and ticker spellings are
    normalised; a fund's published list of holdings is read as it is. Rows without a ticker that could be traded are
    left out, and the caveat counts them. Raises `InvalidInput`, naming what is wrong, where the file cannot be
    understood.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"the universe file {path} does not exist; give a CSV or Parquet file")
    table = read_members(path.read_bytes(), str(path))
    found = ", ".join(table.columns)
    if ("start" in table.given) != ("end" in table.given):
        raise InvalidInput(f"{path} must have both start_date and end_date, or neither; found: {found}")
    if {"start", "date"} <= table.given:
        raise InvalidInput(f"{path} must have start_date and end_date, or date, but not all three; found: {found}")
    if "date" in table.given:
        return _of_dated_lists(name or path.stem, table, path)
    rows = table.rows.with_columns(start=_dates(table, "start", path), end=_dates(table, "end", path))
    spells = rows.select(pl.col(column).cast(kind) for column, kind in SPELLS_SCHEMA.items())
    dated = "start" in table.given
    caveats = [] if dated else [f"members as listed in {path.name}, not point in time"]
    caveats += _left_out(table, path)
    if "sector" in table.given:
        caveats.append(TODAYS_SECTORS)
    return from_spells(name or path.stem, spells, point_in_time=dated, caveat="; ".join(caveats) or None)


def _of_dated_lists(name: str, table: MemberTable, path: Path) -> Universe:
    """Nobody is a member before the first list."""
    rows = table.rows.with_columns(date=_dates(table, "date", path))
    if undated := rows["date"].null_count():
        raise InvalidInput(f"{undated} rows of {path} have no date; write the day of the list, such as 2024-03-08")
    repeated = rows.filter(pl.struct("symbol", "date").is_duplicated()).sort("date", "symbol")
    if repeated.height:
        twice = repeated.row(0, named=True)
        raise InvalidInput(f"{path} lists {twice['symbol']} twice on {twice['date']}; keep one of the rows")
    last = rows["date"].max()
    assert isinstance(last, date)
    stale = f"members after {last} are those of that day's list, the last in {path.name}"
    caveat = "; ".join([stale, *_left_out(table, path)])
    return from_spells(name, spells_of_snapshots(rows), point_in_time=True, caveat=caveat)


def _left_out(table: MemberTable, path: Path) -> list[str]:
    return [f"{table.left_out} rows of {path.name} without a ticker left out"] if table.left_out else []


def _dates(table: MemberTable, column: str, path: Path) -> pl.Series:
    texts = table.rows[column]
    dates = texts.str.to_date("%Y-%m-%d", strict=False)
    wrong = (dates.is_null() & texts.is_not_null()).arg_true()
    if len(wrong):
        row = wrong[0]
        header = column if column == "date" else f"{column}_date"
        raise InvalidInput(f"{path}: {header} {texts[row]!r} is no date; write it as 2024-03-08, or leave it blank")
    return dates
