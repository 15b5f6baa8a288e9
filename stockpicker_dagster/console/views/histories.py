"""One stock's rows of a daily table, over years, in a few milliseconds.

The lake stores a daily table by session, so that the history of one stock is spread over all of its files. For every
year of a table a copy sorted by stock is kept beside, in which one stock is one place. Copies are made beside the
pages, can be deleted, and are never believed where a file of the year has changed since: then the lake itself is read.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import cast

import polars as pl

from stockpicker_dagster.console.views.beside import Beside, one_worker
from stockpicker_dagster.console.views.remembered import fingerprint, folder_of
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.lake import Lake

Files = Mapping[str, tuple[int, int]]
"""The files of one year of a table: name to time of change and size."""

_COPIED_OF = "stockpicker.copied_of"
# A row group is the least that is read: some fifty stocks of a year.
_ROWS_READ = 12_600
_FEW = 5
"""So many sessions that a copy lacks are read from the lake each time, before it is made anew."""


@dataclass(frozen=True)
class _Copied:
    """What a copy was made from, and the sessions that it holds."""

    files: Files
    days: Sequence[date]


@dataclass
class Histories:
    """The histories of a lake; `folder` keeps the copies, None keeps none."""

    lake: Lake
    folder: Path | None
    _beside: Beside[bool] = field(default_factory=lambda: Beside(one_worker(), most=2_000), repr=False)
    _known: dict[Path, tuple[int, "_Copied"]] = field(default_factory=dict, repr=False)

    def rows(self, table: str, days: Sequence[date], symbol: str, columns: Sequence[str]) -> pl.DataFrame:
        """`date` and `columns` of one stock on `days`, ascending; raises `MissingDays` as the lake does."""
        left, parts = list(days), []
        here = pl.col("symbol") == symbol
        if days and (copies := self._copies(table, sorted({day.year for day in days}), columns)):
            held = {day for _, of_copy in copies for day in of_copy}
            # Only what the lake has is in a copy, so that what is left tells what it lacks.
            left = [day for day in days if day not in held]
            rows = pl.scan_parquet([path for path, _ in copies], hive_partitioning=False).filter(here)
            parts.append(rows.filter(pl.col("date").is_between(days[0], days[-1])).select("date", *columns))
        if left:
            parts.append(self.lake.scan(table, left).filter(here).select("date", *columns))
        wanted = pl.concat(parts).collect() if parts else pl.DataFrame(schema={"date": pl.Date()})
        whole = wanted.height and len(left) < len(days)
        return (wanted.filter(pl.col("date").is_in(list(days))) if whole else wanted).sort("date")

    def prepare(self, table: str, columns: Sequence[str]) -> None:
        """Has the copies of a table made that are lacking or old."""
        if self.folder is not None and folder_of(self.lake) is not None:
            self._copies(table, sorted(_by_year(self.lake, table)), columns)

    def _copies(self, table: str, years: Sequence[int], columns: Sequence[str]) -> list[tuple[Path, Sequence[date]]]:
        """The copies of these years that are as the lake is, each with the sessions that it holds."""
        if self.folder is None or folder_of(self.lake) is None:
            return []
        now, found = _by_year(self.lake, table), []
        for year in years:
            files = now.get(year)
            if files is None:
                continue
            path = self.folder / table.replace("/", "~") / "-".join(columns) / f"{year}.parquet"
            copied = self._copied_of(path)
            sound = copied is not None and all(files.get(name) == state for name, state in copied.files.items())
            if copied is None or not sound or len(files) - len(copied.files) > _FEW:
                make = partial(self._make, table, columns, path, year, files)
                self._beside.get(path, tuple(files.items()), make)
            if sound and copied is not None:
                found.append((path, copied.days))
        return found

    def _copied_of(self, path: Path) -> _Copied | None:
        """What is in a copy; None where there is none."""
        try:
            changed = path.stat().st_mtime_ns
            if path not in self._known or self._known[path][0] != changed:
                said = json.loads(pl.read_parquet_metadata(path)[_COPIED_OF])
                files = {name: (state[0], state[1]) for name, state in said["files"].items()}
                self._known[path] = changed, _Copied(files, [date.fromisoformat(day) for day in said["days"]])
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
            return None
        return self._known[path][1]

    def _make(self, table: str, columns: Sequence[str], path: Path, year: int, files: Files) -> bool:
        """One year's copy, whole or not at all; False where the lake changed meanwhile, or the disk refused."""
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            whole = "year.parquet" in files
            stored = [day for day in self.lake.days(table) if day.year == year]
            days = [day for day in stored if whole or f"{day}.parquet" in files]
            rows = self.lake.scan(table, days).select("symbol", "date", *columns).collect().sort("symbol", "date")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            said = {_COPIED_OF: json.dumps({"files": files, "days": [str(day) for day in days]})}
            rows.write_parquet(fresh, compression="lz4", statistics=True, row_group_size=_ROWS_READ, metadata=said)
            fresh.replace(path)
        except (OSError, StockPickerError, pl.exceptions.PolarsError):
            with suppress(OSError):
                fresh.unlink()
            return False
        return True


def _by_year(lake: Lake, table: str) -> dict[int, dict[str, tuple[int, int]]]:
    """The files of a table by year, as they are now."""
    [files] = cast(tuple[tuple[tuple[str, int, int], ...]], fingerprint(lake, table))
    years: dict[int, dict[str, tuple[int, int]]] = {}
    for name, changed, size in files:
        folder, _, file = name.partition("/")
        if folder.startswith("year=") and file.endswith(".parquet") and not file.startswith("."):
            years.setdefault(int(folder.removeprefix("year=")), {})[file] = (changed, size)
    return years
