"""Answers kept until what they were read from changes, so that a page of ten years costs a few milliseconds.

An answer is kept under a name and a fingerprint of its sources. A changed fingerprint makes it again; nothing is ever
served from sources that have changed.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TypeVar, cast

from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.storage.places.folder import FolderPlace

Answer = TypeVar("Answer")
# Where a lake's files cannot be looked at cheaply, what was seen of them holds for this long.
_ELSEWHERE_S = 5.0
_LOOKED: dict[tuple[str, str], tuple[float, Hashable]] = {}
_LOOKED_LOCK = Lock()
_SEEN: ContextVar[dict[str, Hashable] | None] = ContextVar("seen", default=None)


class Remembered:
    """The last `most` answers, by name."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._answers: OrderedDict[Hashable, tuple[Hashable, object]] = OrderedDict()
        self._lock = Lock()

    def answer(self, name: Hashable, fingerprint: Hashable, make: Callable[[], Answer]) -> Answer:
        """What `make` returns, or what it returned before for this name and fingerprint."""
        with self._lock:
            kept = self._answers.get(name)
            if kept is not None and kept[0] == fingerprint:
                self._answers.move_to_end(name)
                return cast(Answer, kept[1])
        made = make()
        with self._lock:
            self._answers[name] = (fingerprint, made)
            self._answers.move_to_end(name)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return made


@contextmanager
def one_look() -> Iterator[None]:
    """Inside, every table is looked at once: what answers one request is of one state, and asks the disk once."""
    before = _SEEN.set({})
    try:
        yield
    finally:
        _SEEN.reset(before)


def folder_of(lake: Lake) -> Path | None:
    """The folder that the lake lies in; None for one that lies elsewhere."""
    return lake.place.root if isinstance(lake.place, FolderPlace) else None


def fingerprint(lake: Lake, *tables: str) -> Hashable:
    """What changes whenever a stored day or bundle of one of `tables` does."""
    seen = _SEEN.get()
    return tuple(_of_table(lake, table, seen) for table in tables)


def _of_table(lake: Lake, table: str, seen: dict[str, Hashable] | None) -> Hashable:
    if seen is not None and table in seen:
        return seen[table]
    root = folder_of(lake)
    # Paths are put together as texts: there are many files.
    found = _elsewhere(lake, table) if root is None else _of_folder(os.path.join(root, *table.split("/")))  # noqa: PTH118
    if seen is not None:
        seen[table] = found
    return found


def _elsewhere(lake: Lake, table: str) -> Hashable:
    """Names and versions of the table's objects, as they were at most seconds ago: to list them takes a request."""
    place, now = (str(lake.place), table), monotonic()
    with _LOOKED_LOCK:
        looked = _LOOKED.get(place)
    if looked is None or now - looked[0] >= _ELSEWHERE_S:
        looked = now, tuple(sorted(lake.place.listed(table).items()))
        with _LOOKED_LOCK:
            _LOOKED[place] = looked
    return looked[1]


def _of_folder(path: str) -> Hashable:
    """Names, sizes and times of the files in a table's folder and in those right below it."""
    found: list[tuple[str, int, int]] = []
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return ()
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            for inner in os.scandir(entry.path):
                stat = inner.stat()
                found.append((f"{entry.name}/{inner.name}", stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))
