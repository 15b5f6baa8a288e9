"""The lake: daily tables and bundles of files as Parquet under one root, written atomically.

A daily table keeps one file a session, `<table>/year=YYYY/YYYY-MM-DD.parquet`. A year whose every session is stored is
one file, `year=YYYY/year.parquet`, so that long ranges scan quickly. Which of the two it is depends only on which
sessions are stored, never on how they got there: a range written at once and its days written one by one leave the same
bytes. A bundle is a folder of files that belong together, such as the tables of a model's dataset.

Reading a session that was never written raises; an empty session is an empty file. Nothing here knows Dagster.
"""

import fcntl
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from stockpicker_dagster.errors import InvalidInput, StockPickerError

_SESSIONS = "stockpicker.sessions"
_YEAR_FILE = "year.parquet"

DEFINITION = "definition"
"""In a day's note: a digest of the settings that the day was made under."""
DECISIONS = "decisions"
"""In a day's note: a digest of the decisions about prices that the day was made under; absent if there were none."""
_OF_DIFFERENT_COLUMNS = (
    pl.exceptions.SchemaError,
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.ShapeError,
    pl.exceptions.InvalidOperationError,
)
"""What Polars raises for files whose columns differ: which of them depends on how they differ."""

SessionsOfYear = Callable[[int], Sequence[date]]
"""The sessions that a table has in a year, first to last, whether or not they have passed."""


class MissingDays(StockPickerError):
    """Sessions were read that were never written."""

    def __init__(self, table: str, days: Sequence[date]) -> None:
        self.table = table
        self.days = list(days)
        super().__init__(
            f"{table} was never materialized for {describe_days(days)}; "
            f"materialize {'that day' if len(days) == 1 else 'those days'} first"
        )


class MixedDefinitions(StockPickerError):
    """Days made under one definition would stand beside days made under another."""


class MissingBundle(StockPickerError):
    """A bundle was read that was never written."""

    def __init__(self, table: str, key: str) -> None:
        super().__init__(f"{table} was never materialized for {key!r}; materialize it first")


@dataclass(frozen=True)
class DayTable:
    """A daily table's rows, with what is stored along with them for the same days.

    `note` is kept inside every day written, such as which symbols were asked for, and `day_notes` inside the day named,
    such as which decisions it was made under. `beside` holds further tables of the same days by name, such as a
    source's delistings; each is written before the table itself. `made_from` names the daily table whose `DECISIONS`
    each day takes over.
    """

    frame: pl.DataFrame
    note: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    day_notes: Mapping[date, Mapping[str, str]] = field(default_factory=dict)
    made_from: str | None = None


@dataclass(frozen=True)
class DayPieces:
    """A daily table that is too long to be held at once: its rows piece by piece, each with the days it is all of.

    `pieces` is gone through once, and a piece is stored before the next one is asked for. `note` and `made_from` are as
    in `DayTable`.
    """

    pieces: Iterable[tuple[Sequence[date], pl.DataFrame]]
    note: Mapping[str, str] = field(default_factory=dict)
    made_from: str | None = None


@dataclass(frozen=True)
class Bundle:
    """The files of one bundle: name to content; a frame is stored as Parquet."""

    files: Mapping[str, pl.DataFrame | bytes]


def describe_days(days: Sequence[date]) -> str:
    """A short phrase for a list of days: `2024-01-02`, `2 days (2024-01-02, 2024-01-05)`, `40 days (... to ...)`."""
    if len(days) == 1:
        return str(days[0])
    if len(days) <= 5:
        return f"{len(days)} days ({', '.join(map(str, days))})"
    return f"{len(days)} days ({days[0]} to {days[-1]})"


class Lake:
    """Parquet tables under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # Daily tables

    def write_days(
        self,
        table: str,
        frame: pl.DataFrame,
        days: Sequence[date],
        sessions_of_year: SessionsOfYear,
        note: Mapping[str, str] | None = None,
        day_notes: Mapping[date, Mapping[str, str]] | None = None,
    ) -> None:
        """Stores `days` of `table`; a day without rows becomes an empty file, every other stored day stays as it is.

        `frame` has a `date` column with no day outside `days`. Each file appears whole or not at all. Raises
        `StockPickerError` where the disk refuses, or where a year would hold days with different columns in one file.
        """
        wanted = set(days)
        if stray := sorted(set(frame["date"].unique()) - wanted):
            raise InvalidInput(f"{table} was given rows of {describe_days(stray)} while writing {describe_days(days)}")
        empty = frame.clear()
        notes = {day: {**(note or {}), **(day_notes or {}).get(day, {})} for day in days}
        with self._locked(table):
            for year, of_year in _by_year(days).items():
                rows = frame.filter(pl.col("date").dt.year() == year)
                by_day = {
                    key[0]: part for key, part in rows.partition_by("date", as_dict=True, maintain_order=True).items()
                }
                parts = {day: by_day.get(day, empty) for day in of_year}
                self._write_year(table, year, parts, {day: notes[day] for day in of_year}, sessions_of_year(year))

    def days(self, table: str) -> list[date]:
        """The stored sessions of `table`, ascending; empty if nothing was ever written."""
        found: set[date] = set()
        for folder in self._folder(table).glob("year=*"):
            if (folder / _YEAR_FILE).is_file():
                found.update(_stored_sessions(folder / _YEAR_FILE))
            else:
                found.update(_day_of(path) for path in _day_files(folder))
        return sorted(found)

    def missing(self, table: str, days: Iterable[date]) -> list[date]:
        """Those of `days` that were never written, ascending."""
        return sorted(set(days) - set(self.days(table)))

    def scan(self, table: str, days: Sequence[date]) -> pl.LazyFrame:
        """The rows of `days`, in order of date, as one lazy frame. Raises `MissingDays`."""
        if not days:
            raise InvalidInput(f"no session was asked for when reading {table}")
        if absent := self.missing(table, days):
            raise MissingDays(table, absent)
        pieces: list[pl.LazyFrame] = []
        for year, of_year in sorted(_by_year(days).items()):
            folder = self._folder(table) / f"year={year}"
            compacted = folder / _YEAR_FILE
            if compacted.is_file():
                whole_year = len(of_year) == len(_stored_sessions(compacted))
                rows = pl.scan_parquet(compacted, hive_partitioning=False)
                pieces.append(rows if whole_year else rows.filter(pl.col("date").is_in(sorted(of_year))))
            else:
                files = [folder / f"{day}.parquet" for day in sorted(of_year)]
                pieces.append(pl.scan_parquet(files, hive_partitioning=False))
        return pl.concat(pieces)

    def read(self, table: str, days: Sequence[date]) -> pl.DataFrame:
        """`scan`, collected. Raises `StockPickerError` if stored days have different columns."""
        try:
            return self.scan(table, days).collect()
        except _OF_DIFFERENT_COLUMNS as error:
            raise StockPickerError(
                f"{table} holds days with different columns between {min(days)} and {max(days)}: its definition "
                "changed since some were written; materialize the whole range again"
            ) from error

    def days_of_another_definition(self, table: str, definition: str) -> list[date]:
        """The stored days of `table` whose note names another definition, or none, ascending."""
        return [day for day, note in self.notes(table).items() if note.get(DEFINITION) != definition]

    def refuse_mixture(self, table: str, definition: str, days: Sequence[date]) -> None:
        """Raises `MixedDefinitions` if a stored day outside `days` was made under another definition."""
        if others := sorted(set(self.days_of_another_definition(table, definition)) - set(days)):
            raise MixedDefinitions(
                f"the definition of {table} has changed since {describe_days(others)} were stored, and days of two "
                f"definitions are not mixed; run everything from {others[0]} to the last day in one run"
            )

    def notes(self, table: str) -> dict[date, dict[str, str]]:
        """The note kept beside every stored day."""
        notes: dict[date, dict[str, str]] = {}
        for folder in self._folder(table).glob("year=*"):
            compacted = folder / _YEAR_FILE
            for path in [compacted] if compacted.is_file() else _day_files(folder):
                notes.update(_notes_in(path))
        return dict(sorted(notes.items()))

    def decisions(self, table: str, days: Sequence[date]) -> dict[date, dict[str, str]]:
        """The `DECISIONS` that stored days of `table` were made under, as notes of what is made from them."""
        notes = self.notes(table)
        return {day: {DECISIONS: notes[day][DECISIONS]} for day in days if DECISIONS in notes.get(day, {})}

    def _write_year(
        self,
        table: str,
        year: int,
        parts: dict[date, pl.DataFrame],
        notes: dict[date, dict[str, str]],
        sessions: Sequence[date],
    ) -> None:
        folder = self._folder(table) / f"year={year}"
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        compacted = folder / _YEAR_FILE
        stored = {_day_of(path): path for path in _day_files(folder)}
        if compacted.is_file():
            parts, notes = _overlay(compacted, parts, notes)
        elif set(parts) | set(stored) >= set(sessions):
            for day, path in stored.items():
                if day not in parts:
                    parts[day] = pl.read_parquet(path, hive_partitioning=False)
                    notes[day] = _notes_in(path)[day]
        # The year's file wins over day files, so that a crash between writing and deleting changes nothing.
        if set(parts) >= set(sessions):
            ordered = sorted(parts)
            _refuse_mixed_columns(table, year, [parts[day] for day in ordered])
            _write_parquet(compacted, [parts[day] for day in ordered], {day: notes[day] for day in ordered})
            for path in stored.values():
                path.unlink()
        else:
            for day, part in parts.items():
                _write_parquet(folder / f"{day}.parquet", [part], {day: notes[day]})
            # A table that now begins earlier in a year that was whole before has single days again.
            compacted.unlink(missing_ok=True)

    # Bundles

    def write_bundle(self, table: str, key: str, bundle: Bundle) -> None:
        """Stores a bundle under `key`, replacing an earlier one as a whole."""
        target = self._folder(f"{table}/{key}")
        fresh = target.with_name(f".{key}.new")
        with self._locked(table), _writing(target):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for name, content in bundle.files.items():
                (fresh / name).write_bytes(content if isinstance(content, bytes) else parquet_bytes([content], {}))
            if target.exists():
                stale = target.with_name(f".{key}.old")
                shutil.rmtree(stale, ignore_errors=True)
                target.rename(stale)
                fresh.rename(target)
                shutil.rmtree(stale)
            else:
                fresh.rename(target)

    def bundles(self, table: str) -> list[str]:
        """The keys of the stored bundles, ascending."""
        folder = self._folder(table)
        if not folder.is_dir():
            return []
        self._put_back(table)
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def bundle(self, table: str, key: str) -> Path:
        """The folder of a stored bundle. Raises `MissingBundle`."""
        folder = self._folder(f"{table}/{key}")
        if not folder.is_dir():
            self._put_back(table)
        if not folder.is_dir():
            raise MissingBundle(table, key)
        return folder

    def keep_bundles(self, table: str, keys: Iterable[str]) -> None:
        """Removes every bundle of `table` but those of `keys`."""
        kept = set(keys)
        for key in self.bundles(table):
            if key not in kept:
                with self._locked(table):
                    shutil.rmtree(self._folder(f"{table}/{key}"))

    def _put_back(self, table: str) -> None:
        """Gives its name back to a bundle whose replacement was cut off between two renames."""
        for stale in self._folder(table).glob(".*.old"):
            target = stale.with_name(stale.name.removeprefix(".").removesuffix(".old"))
            with self._locked(table):
                if stale.is_dir() and not target.exists():
                    stale.rename(target)

    # Files

    def write_file(self, name: str, content: bytes) -> None:
        """Stores one file beside the tables, atomically."""
        path = self._folder(name)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)

    def read_file(self, name: str) -> bytes | None:
        """The content of a file stored by `write_file`, None if there is none."""
        path = self._folder(name)
        return path.read_bytes() if path.is_file() else None

    def _folder(self, table: str) -> Path:
        parts = table.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise InvalidInput(
                f"{table!r} is no name of a table in the lake; a name is words separated by single slashes"
            )
        return self.root.joinpath(*parts)

    @contextmanager
    def _locked(self, table: str) -> Iterator[None]:
        """One writer of a table at a time; a writer that dies releases the lock."""
        folder = self._folder(table)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def parquet_bytes(frames: Sequence[pl.DataFrame], metadata: Mapping[str, str]) -> bytes:
    """Frames of one schema, one row group each, as a Parquet file whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    whole = pl.concat(frames, rechunk=True)
    whole.write_parquet(
        buffer,
        compression="zstd",
        statistics=True,
        row_group_size=max(1, min(whole.height, 131_072)),
        metadata=dict(metadata),
    )
    return buffer.getvalue()


def _write_parquet(path: Path, frames: Sequence[pl.DataFrame], notes: Mapping[date, Mapping[str, str]]) -> None:
    sessions = json.dumps({str(day): dict(note) for day, note in notes.items()}, sort_keys=True, separators=(",", ":"))
    _replace(path, parquet_bytes(frames, {_SESSIONS: sessions}))


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with _writing(path):
        try:
            fresh.write_bytes(content)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says in one sentence what a disk that refuses to store `path` means."""
    try:
        yield
    except OSError as error:
        raise StockPickerError(
            f"{path} cannot be written ({error.strerror}); nothing that was stored is lost: make room, or allow "
            "writing, and run again"
        ) from error


def _refuse_mixed_columns(table: str, year: int, parts: Sequence[pl.DataFrame]) -> None:
    if any(part.schema != parts[0].schema for part in parts):
        raise StockPickerError(
            f"{table} would hold days with different columns in {year}: its definition changed since some were "
            f"written; materialize every session of {year} in one run"
        )


def _notes_in(path: Path) -> dict[date, dict[str, str]]:
    stored = json.loads(pl.read_parquet_metadata(path)[_SESSIONS])
    return {date.fromisoformat(day): note for day, note in stored.items()}


def _stored_sessions(path: Path) -> list[date]:
    return list(_notes_in(path))


def _overlay(
    compacted: Path, parts: dict[date, pl.DataFrame], notes: dict[date, dict[str, str]]
) -> tuple[dict[date, pl.DataFrame], dict[date, dict[str, str]]]:
    """A compacted year's days with `parts` in the place of what they replace."""
    rows = pl.read_parquet(compacted, hive_partitioning=False)
    by_day = {key[0]: part for key, part in rows.partition_by("date", as_dict=True, maintain_order=True).items()}
    old_notes = _notes_in(compacted)
    stored = {day: by_day.get(day, rows.clear()) for day in old_notes}
    return stored | parts, old_notes | notes


def _day_files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.glob("*.parquet") if path.name != _YEAR_FILE and not path.name.startswith(".")
    )


def _day_of(path: Path) -> date:
    return date.fromisoformat(path.stem)


def _by_year(days: Iterable[date]) -> dict[int, list[date]]:
    years: dict[int, list[date]] = {}
    for day in days:
        years.setdefault(day.year, []).append(day)
    return years
