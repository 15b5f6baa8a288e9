"""What the local platform remembers: a folder for each job, endpoint, configuration and model, that outlives processes.

`request.json` is what was asked for and never changes; `state.json` is what became of it. Whoever supervises the thing
holds `lock` for as long as it lives, so that a supervisor that was killed is noticed, however it died; until there is
one, its creator holds `beginning`. A folder appears whole, under a name that only one creator can take.
"""

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stockpicker_dagster.errors import StockPickerError

REQUEST, STATE, TAGS = "request.json", "state.json", "tags.json"
LOCK, BEGINNING, LOG, STOP = "lock", "beginning", "log", "stop"
INTERNAL = "local"
"""The part of a state that is the platform's own and is in no answer."""


class BrokenRecord(StockPickerError):
    """A file of a record cannot be read."""


class NameTaken(StockPickerError):
    """There is a record of that name."""


class Record:
    """One thing that the platform keeps, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for. Raises `BrokenRecord`."""
        return self._read(REQUEST)

    @property
    def state(self) -> dict[str, Any]:
        """What became of it; moments are seconds since 1970. Raises `BrokenRecord`."""
        return self._read(STATE)

    @property
    def log(self) -> Path:
        """What the container wrote to its standard output and error."""
        return self.folder / LOG

    def write(self, state: dict[str, Any]) -> None:
        """Replaces the state; it is the old one or the new one, whatever happens."""
        self._replace(STATE, state)

    def ask_to_stop(self) -> None:
        """Asks the supervisor to end what it supervises."""
        (self.folder / STOP).touch()

    @property
    def asked_to_stop(self) -> bool:
        return (self.folder / STOP).exists()

    @property
    def tags(self) -> list[dict[str, str]]:
        """The tags, in the order in which they came."""
        found = self._read(TAGS)
        return [{"Key": key, "Value": value} for key, value in found.items()]

    def add_tags(self, tags: Sequence[dict[str, str]]) -> None:
        """Adds tags; one of a key that is there replaces it."""
        whole = {each["Key"]: each["Value"] for each in [*self.tags, *tags]}
        self._replace(TAGS, whole)

    @property
    def supervised(self) -> bool:
        """Whether a supervisor lives."""
        return self._held(LOCK)

    @property
    def abandoned(self) -> bool:
        """Whether nobody supervises it, and nobody is about to."""
        # In this order: its creator lets go only after the supervisor has taken over.
        return not self._held(BEGINNING) and not self._held(LOCK)

    @contextmanager
    def alone(self, wait: bool = True) -> Iterator[int]:
        """Inside, nobody else supervises or repairs the record; yields the descriptor that must not be inherited.

        Without `wait`, raises `BlockingIOError` if somebody does.
        """
        with (self.folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield lock.fileno()

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Inside, a supervisor is about to take over."""
        with (self.folder / BEGINNING).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def remove(self) -> None:
        """Removes the record; its name is free at once."""
        gone = self.folder.with_name(f".{self.name}.{uuid.uuid4().hex}")
        try:
            self.folder.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def _held(self, name: str) -> bool:
        try:
            with (self.folder / name).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _replace(self, name: str, document: dict[str, Any]) -> None:
        fresh = self.folder / f".{name}.{uuid.uuid4().hex}"
        try:
            with fresh.open("w") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.folder / name)
        finally:
            fresh.unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            document = json.loads((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise BrokenRecord(f"{self.folder / name} cannot be read ({error})") from error
        if not isinstance(document, dict):
            raise BrokenRecord(f"{self.folder / name} holds no object")
        return document


class Records:
    """All records of one kind, such as training jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def create(self, name: str, request: dict[str, Any], state: dict[str, Any]) -> Iterator[Record]:
        """A new record, in whose context it counts as about to be supervised.

        Raises `NameTaken`; of several creators of one name, one succeeds.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = Record(self.folder / f".{name}.{uuid.uuid4().hex}")
        fresh.folder.mkdir(mode=0o700)
        # The lock stays with the folder when that is renamed.
        with fresh.beginning():
            try:
                (fresh.folder / REQUEST).write_text(json.dumps(request))
                (fresh.folder / LOCK).touch()
                fresh._replace(TAGS, {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []})
                fresh.write(state)
                # A folder that is there and not empty is never replaced.
                fresh.folder.rename(self.folder / name)
            except OSError as error:
                shutil.rmtree(fresh.folder, ignore_errors=True)
                if (self.folder / name).exists():
                    raise NameTaken(f"{name} exists") from error
                raise
            yield Record(self.folder / name)

    def find(self, name: str) -> Record | None:
        """The record of that name, None if there is none."""
        folder = self.folder / name
        return Record(folder) if Path(name).name == name and not name.startswith(".") and folder.is_dir() else None

    def all(self) -> list[Record]:
        """Every record, by name."""
        if not self.folder.is_dir():
            return []
        return [Record(path) for path in sorted(self.folder.iterdir()) if path.name[0] != "." and path.is_dir()]


def now() -> float:
    """This moment as states keep it."""
    return round(time.time(), 6)


def answered(state: dict[str, Any]) -> dict[str, Any]:
    """A state as boto3 would answer it: without what is the platform's own, moments as `datetime`s in UTC."""
    return {name: _moment(name, value) for name, value in state.items() if name != INTERNAL}


def _moment(name: str, value: Any) -> Any:
    if name.endswith(("Time", "Timestamp")) and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, dict):
        return answered(value)
    if isinstance(value, list):
        return [answered(each) if isinstance(each, dict) else each for each in value]
    return value
