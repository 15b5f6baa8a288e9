"""The lake: daily tables and bundles of files as Parquet in one place, a folder or S3, written atomically.

A daily table keeps one file a session, `<table>/year=YYYY/YYYY-MM-DD.parquet`. A year whose every session is stored is
one file, `year=YYYY/year.parquet`, so that long ranges scan quickly. Which of the two it is depends only on which
sessions are stored, never on how they got there: a range written at once and its days written one by one leave the same
bytes. A bundle is a folder of files that belong together, such as the tables of a model's dataset.

Reading a session that was never written raises; an empty session is an empty file. Nothing here knows Dagster.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, TypeVar

import polars as pl

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.places import FileChanged, Place
from stockpicker_dagster.storage.places.folder import FolderPlace

_Read = TypeVar("_Read")

_SESSIONS = "stockpicker.sessions"
_YEAR_FILE = "year.parquet"
_MOST_LOOKS = 5

DEFINITION = "definition"
"""In a day's note: a digest of the settings that the day was made under."""
DECISIONS = "decisions"
"""In a day's note: a digest of the decisions about prices that the day was made under; absent if there were none."""
MEMBERS = "members"
"""In a day's note: a digest of who was a member of the universe on the day, as its list said then."""
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
    """Parquet tables in one place; a path is a folder of this machine."""

    def __init__(self, place: Path | Place) -> None:
        self.place: Place = FolderPlace(place) if isinstance(place, Path) else place
        self._notes: dict[tuple[str, str], dict[date, dict[str, str]]] = {}

    @property
    def root(self) -> Path:
        """The folder that the lake lies in. Raises `InvalidInput` for one that lies elsewhere."""
        if not isinstance(self.place, FolderPlace):
            raise InvalidInput(f"the lake {self.place} is no folder of this machine")
        return self.place.root

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
        with self.place.locked(_checked(table)):
            for year, of_year in _by_year(days).items():
                rows = frame.filter(pl.col("date").dt.year() == year)
                by_day = {
                    key[0]: part for key, part in rows.partition_by("date", as_dict=True, maintain_order=True).items()
                }
                parts = {day: by_day.get(day, empty) for day in of_year}
                self._write_year(table, year, parts, {day: notes[day] for day in of_year}, sessions_of_year(year))

    def days(self, table: str) -> list[date]:
        """The stored sessions of `table`, ascending; empty if nothing was ever written."""
        return sorted(day for days in self._steadily(lambda: self._stored(table)).values() for day in days)

    def missing(self, table: str, days: Iterable[date]) -> list[date]:
        """Those of `days` that were never written, ascending."""
        return sorted(set(days) - set(self.days(table)))

    def scan(self, table: str, days: Sequence[date]) -> pl.LazyFrame:
        """The rows of `days`, in order of date, as one lazy frame. Raises `MissingDays`."""
        if not days:
            raise InvalidInput(f"no session was asked for when reading {table}")
        return self._steadily(lambda: self._scanned(table, days))

    def _scanned(self, table: str, days: Sequence[date]) -> pl.LazyFrame:
        years = self._years(table)
        stored = self._stored(table, years)
        if absent := sorted(set(days) - {day for held in stored.values() for day in held}):
            raise MissingDays(table, absent)
        wanted: dict[str, str] = {}
        whole: dict[int, bool] = {}
        for year, of_year in sorted(_by_year(days).items()):
            whole[year] = _YEAR_FILE in years[year]
            names = [_YEAR_FILE] if whole[year] else [f"{day}.parquet" for day in sorted(of_year)]
            wanted |= {f"{table}/year={year}/{name}": years[year][name] for name in names}
        paths = dict(zip(wanted, self.place.local(wanted), strict=True))
        pieces: list[pl.LazyFrame] = []
        for year, of_year in sorted(_by_year(days).items()):
            if whole[year]:
                rows = pl.scan_parquet(paths[f"{table}/year={year}/{_YEAR_FILE}"], hive_partitioning=False)
                every_day = len(of_year) == len(stored[year])
                pieces.append(rows if every_day else rows.filter(pl.col("date").is_in(sorted(of_year))))
            else:
                files = [paths[f"{table}/year={year}/{day}.parquet"] for day in sorted(of_year)]
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
        return self._steadily(lambda: self._all_notes(table))

    def _all_notes(self, table: str) -> dict[date, dict[str, str]]:
        files: dict[str, str] = {}
        for year, names in self._years(table).items():
            counted = [_YEAR_FILE] if _YEAR_FILE in names else list(names)
            files |= {f"{table}/year={year}/{name}": names[name] for name in counted}
        noted = self._notes_in(files).values()
        return dict(sorted((day, note) for notes in noted for day, note in notes.items()))

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
        folder = f"{table}/year={year}"
        stored = self._years(table).get(year, {})
        compacted = f"{folder}/{_YEAR_FILE}"
        version = stored.pop(_YEAR_FILE, None)
        single = {date.fromisoformat(Path(name).stem): f"{folder}/{name}" for name in stored}
        if version is not None:
            held = {compacted: version}
            [path] = self.place.local(held)
            parts, notes = _overlay(path, self._notes_in(held)[compacted], parts, notes)
        elif set(parts) | set(single) >= set(sessions):
            kept = {name: stored[Path(name).name] for day, name in single.items() if day not in parts}
            kept_notes = self._notes_in(kept)
            for name, path in zip(kept, self.place.local(kept), strict=True):
                [(day, note)] = kept_notes[name].items()
                parts[day], notes[day] = pl.read_parquet(path, hive_partitioning=False), note
        # The year's file wins over day files, so that a crash between writing and deleting changes nothing.
        if set(parts) >= set(sessions):
            ordered = sorted(parts)
            _refuse_mixed_columns(table, year, [parts[day] for day in ordered])
            content = _parquet_of_days([parts[day] for day in ordered], {day: notes[day] for day in ordered})
            self.place.write({compacted: content}, over={compacted: version or ""})
            self.place.remove(single.values())
        else:
            self.place.write(
                {f"{folder}/{day}.parquet": _parquet_of_days([part], {day: notes[day]}) for day, part in parts.items()}
            )
            # A table that now begins earlier in a year that was whole before has single days again.
            self.place.remove([compacted])

    def _years(self, table: str) -> dict[int, dict[str, str]]:
        """The stored files of a daily table by year: name to version."""
        years: dict[int, dict[str, str]] = {}
        for name, version in self.place.listed(_checked(table)).items():
            folder, _, file = name.partition("/")
            if folder.startswith("year=") and file.endswith(".parquet") and "/" not in file:
                years.setdefault(int(folder.removeprefix("year=")), {})[file] = version
        return years

    def _stored(self, table: str, years: Mapping[int, Mapping[str, str]] | None = None) -> dict[int, list[date]]:
        """The stored sessions of a daily table by year; a year that is one file says itself which it holds."""
        years = self._years(table) if years is None else years
        whole = {
            f"{table}/year={year}/{_YEAR_FILE}": names[_YEAR_FILE]
            for year, names in years.items()
            if _YEAR_FILE in names
        }
        notes = self._notes_in(whole)
        return {
            year: list(notes[f"{table}/year={year}/{_YEAR_FILE}"])
            if _YEAR_FILE in names
            else [date.fromisoformat(Path(name).stem) for name in names]
            for year, names in years.items()
        }

    def _notes_in(self, files: Mapping[str, str]) -> dict[str, dict[date, dict[str, str]]]:
        """The notes in every file; those of a version that was read before are not read again."""
        unread = {name: version for name, version in files.items() if (name, version) not in self._notes}
        fresh = {name: _notes_in(ending) for name, ending in zip(unread, self.place.endings(unread), strict=True)}
        self._notes |= {(name, files[name]): notes for name, notes in fresh.items() if files[name]}
        return {name: fresh[name] if name in fresh else self._notes[name, version] for name, version in files.items()}

    def _steadily(self, read: Callable[[], _Read]) -> _Read:
        """What `read` gives, looked for anew while another writer changes files in the meantime."""
        for _ in range(_MOST_LOOKS - 1):
            try:
                return read()
            except FileChanged:
                continue
        return read()

    # Bundles

    def write_bundle(self, table: str, key: str, bundle: Bundle) -> None:
        """Stores a bundle under `key`, replacing an earlier one as a whole."""
        _checked(f"{table}/{key}")
        contents = {
            name: content if isinstance(content, bytes) else parquet_bytes([content], {})
            for name, content in bundle.files.items()
        }
        self.place.write_bundle(table, key, contents)

    def bundles(self, table: str) -> list[str]:
        """The keys of the stored bundles, ascending."""
        return self.place.bundles(_checked(table))

    def bundle(self, table: str, key: str) -> Path:
        """The folder of a stored bundle. Raises `MissingBundle`."""
        _checked(f"{table}/{key}")
        folder = self._steadily(lambda: self.place.bundle(table, key))
        if folder is None:
            raise MissingBundle(table, key)
        return folder

    def keep_bundles(self, table: str, keys: Iterable[str]) -> None:
        """Removes every bundle of `table` but those of `keys`."""
        kept = set(keys)
        for key in self.bundles(table):
            if key not in kept:
                self.place.remove_bundle(table, key)

    # Files

    def write_file(self, name: str, content: bytes) -> None:
        """Stores one file beside the tables, atomically."""
        self.place.write({_checked(name): content})

    def create_file(self, name: str, content: bytes) -> bool:
        """Stores one new file, durably and readable by its owner alone; False if the name is taken."""
        return self.place.create(_checked(name), content)

    def read_file(self, name: str) -> bytes | None:
        """The content of a file stored by `write_file` or `create_file`, None if there is none."""
        return self.place.read(_checked(name))

    def files(self, folder: str) -> list[str]:
        """The full names of the files in `folder`, ascending."""
        return sorted(f"{folder}/{name}" for name in self.place.listed(_checked(folder)) if "/" not in name)


def _checked(table: str) -> str:
    if any(part in ("", ".", "..") for part in table.split("/")):
        raise InvalidInput(f"{table!r} is no name of a table in the lake; a name is words separated by single slashes")
    return table


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


def _parquet_of_days(frames: Sequence[pl.DataFrame], notes: Mapping[date, Mapping[str, str]]) -> bytes:
    sessions = json.dumps({str(day): dict(note) for day, note in notes.items()}, sort_keys=True, separators=(",", ":"))
    return parquet_bytes(frames, {_SESSIONS: sessions})


def _refuse_mixed_columns(table: str, year: int, parts: Sequence[pl.DataFrame]) -> None:
    if any(part.schema != parts[0].schema for part in parts):
        raise StockPickerError(
            f"{table} would hold days with different columns in {year}: its definition changed since some were "
            f"written; materialize every session of {year} in one run"
        )


def _notes_in(ending: Path | IO[bytes]) -> dict[date, dict[str, str]]:
    stored = json.loads(pl.read_parquet_metadata(ending)[_SESSIONS])
    return {date.fromisoformat(day): note for day, note in stored.items()}


def _overlay(
    compacted: Path,
    old_notes: Mapping[date, dict[str, str]],
    parts: dict[date, pl.DataFrame],
    notes: dict[date, dict[str, str]],
) -> tuple[dict[date, pl.DataFrame], dict[date, dict[str, str]]]:
    """A compacted year's days with `parts` in the place of what they replace."""
    rows = pl.read_parquet(compacted, hive_partitioning=False)
    by_day = {key[0]: part for key, part in rows.partition_by("date", as_dict=True, maintain_order=True).items()}
    stored = {day: by_day.get(day, rows.clear()) for day in old_notes}
    return stored | parts, {**old_notes, **notes}


def _by_year(days: Iterable[date]) -> dict[int, list[date]]:
    years: dict[int, list[date]] = {}
    for day in days:
        years.setdefault(day.year, []).append(day)
    return years
