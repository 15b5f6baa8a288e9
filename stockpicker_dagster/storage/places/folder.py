"""A lake in a folder: every file is written under a temporary name and renamed."""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stockpicker_dagster.errors import StockPickerError


class FolderPlace:
    """Files under `root`; see `Place`. Versions are empty: writers hold the lock, and readers what they opened."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def listed(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        _collect(self.root / folder, "", found)
        return found

    def local(self, files: Mapping[str, str]) -> list[Path]:
        return [self.root / name for name in files]

    def endings(self, files: Mapping[str, str]) -> list[Path | IO[bytes]]:
        return [self.root / name for name in files]

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def write(self, contents: Mapping[str, bytes], over: Mapping[str, str] | None = None) -> None:
        for name, content in contents.items():
            path = self.root / name
            with _writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)

    def create(self, name: str, content: bytes) -> bool:
        path = self.root / name
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".") as fresh:
                fresh.write(content)
                fresh.flush()
                os.fsync(fresh.fileno())
                try:
                    # A link appears whole, and never in the place of a file that is there.
                    os.link(fresh.name, path)
                except FileExistsError:
                    return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def locked(self, folder: str) -> Iterator[None]:
        where = self.root / folder
        with _writing(where):
            where.mkdir(parents=True, exist_ok=True)
            lock = (where / ".lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write_bundle(self, folder: str, key: str, files: Mapping[str, bytes]) -> None:
        target = self.root / folder / key
        fresh = target.with_name(f".{key}.new")
        with self.locked(folder), _writing(target):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for name, content in files.items():
                (fresh / name).write_bytes(content)
            if target.exists():
                stale = target.with_name(f".{key}.old")
                shutil.rmtree(stale, ignore_errors=True)
                target.rename(stale)
                fresh.rename(target)
                shutil.rmtree(stale)
            else:
                fresh.rename(target)

    def bundles(self, folder: str) -> list[str]:
        where = self.root / folder
        if not where.is_dir():
            return []
        self._put_back(folder)
        return sorted(path.name for path in where.iterdir() if path.is_dir() and not path.name.startswith("."))

    def bundle(self, folder: str, key: str) -> Path | None:
        target = self.root / folder / key
        if not target.is_dir():
            self._put_back(folder)
        return target if target.is_dir() else None

    def remove_bundle(self, folder: str, key: str) -> None:
        with self.locked(folder):
            shutil.rmtree(self.root / folder / key)

    def _put_back(self, folder: str) -> None:
        """Gives its name back to a bundle whose replacement was cut off between two renames."""
        for stale in (self.root / folder).glob(".*.old"):
            target = stale.with_name(stale.name.removeprefix(".").removesuffix(".old"))
            with self.locked(folder):
                if stale.is_dir() and not target.exists():
                    stale.rename(target)


def _collect(folder: Path, prefix: str, found: dict[str, str]) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            _collect(folder / entry.name, f"{prefix}{entry.name}/", found)
        else:
            found[f"{prefix}{entry.name}"] = ""


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
