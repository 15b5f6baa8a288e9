"""Keeps the tail of judged files between processes, with what proves that the rows behind it have not changed.

The tail of `file_judgement` lies two to three months back, so that the newest sessions can be asked for again. It only
saves work: wherever anything about the earlier rows is different, it is not used, and the files are judged as a whole.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from stockpicker_dagster.home import home
from stockpicker_dagster.market.identity import SymbolChange
from stockpicker_dagster.market.sources.file_judgement import Rules, Tail
from stockpicker_dagster.storage.lake import Bundle, Lake, MissingBundle

_ABOUT, _KEY = "about.json", "tail"

NO_ROWS = hashlib.blake2b(b"", digest_size=16).hexdigest()
"""The digest of no rows at all."""


@dataclass(frozen=True)
class FileState:
    """A file as it was when the tail was kept: time of change and size; a digest of its rows up to the tail, and
    whether it has later ones."""

    changed: int
    size: int
    digest: str
    goes_on: bool


@dataclass(frozen=True)
class KeptTail:
    """A tail and the files that it was made from, by name."""

    tail: Tail
    files: Mapping[str, FileState]


def boundary(last: date) -> date:
    """The last calendar day that a tail of rows up to `last` reaches: two whole months lie after it."""
    first_of_month = last.replace(day=1)
    month_before = (first_of_month - timedelta(days=1)).replace(day=1)
    return month_before - timedelta(days=1)


def digest_of(rows: pl.DataFrame) -> str:
    """A digest of rows and their order."""
    return hashlib.blake2b(rows.hash_rows().to_numpy().tobytes(), digest_size=16).hexdigest()


def settings(path: str, rules: Rules, through: date) -> str:
    """What a tail was made under, beside the rows themselves."""
    before = [[each.symbol, str(each.day), each.figures] for each in rules.decisions if each.day <= through]
    named = [_written(change) for change in rules.identities.changes]
    return json.dumps(
        [path, rules.basis, rules.exchange, rules.currency, named, before, _judging_code(), pl.__version__]
    )


def keep(source: str, tail: Tail, made_under: str, files: Mapping[str, FileState]) -> None:
    """Keeps the tail of a source in the place of an earlier one."""
    assert tail.rows is not None
    about = {
        "made_under": made_under,
        "through": str(tail.through),
        "files": {name: vars(state) for name, state in files.items()},
        "reused": [_written(change) for change in tail.reused],
    }
    _store().write_bundle(
        source,
        _KEY,
        Bundle(
            {
                "seeds.parquet": tail.seeds,
                "rows.parquet": tail.rows,
                "seen.parquet": tail.seen,
                "trading_days.parquet": tail.trading_days.to_frame("date"),
                "waiting.parquet": tail.waiting,
                _ABOUT: json.dumps(about).encode(),
            }
        ),
    )


def kept(source: str, path: str, rules: Rules) -> KeptTail | None:
    """The tail of a source, if one was kept under the same settings."""
    try:
        folder = _store().bundle(source, _KEY)
        about = json.loads((folder / _ABOUT).read_text())
        frames = {
            name: pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False)
            for name in ("seeds", "rows", "seen", "trading_days", "waiting")
        }
    except (MissingBundle, OSError, ValueError, pl.exceptions.PolarsError):
        # A tail that cannot be read is as good as none.
        return None
    through = date.fromisoformat(about["through"])
    if about["made_under"] != settings(path, rules, through):
        return None
    days = frames.pop("trading_days")["date"]
    files = {name: FileState(**state) for name, state in about["files"].items()}
    reused = tuple(SymbolChange(old, new, date.fromisoformat(day)) for old, new, day in about["reused"])
    return KeptTail(Tail(through=through, trading_days=days, reused=reused, **frames), files)


@lru_cache(maxsize=1)
def _judging_code() -> str:
    """A digest of the source files that decide what becomes of a row."""
    market = Path(__file__).parent.parent
    names = ("prices", "identity", "sources/files", "sources/file_judgement", "sources/silence")
    judges = [market / f"{name}.py" for name in names]
    return hashlib.blake2b(b"".join(path.read_bytes() for path in judges), digest_size=16).hexdigest()


def _written(change: SymbolChange) -> list[str]:
    return [change.old, change.new, str(change.day)]


def _store() -> Lake:
    return Lake(home().root / "file_tails")
