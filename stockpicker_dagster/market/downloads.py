"""The journal of a long download: every answer of a vendor is kept as it arrives, so that a stopped download goes on.

It knows nothing about vendors: a request is any text that says what is asked for, a key any text that tells its answers
apart, and an answer is bytes. What answers mean, and whether one is final, is the matter of `market.sources`.
"""

import hashlib
import secrets
import shutil
import time
import zlib
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from stockpicker_dagster.home import home

RESUME_FOR = timedelta(days=7)
"""A download that was stopped may be gone on with for so long after its last answer."""
REPEAT_FOR = timedelta(hours=1)
"""The answers of a finished download serve another process for so long, should the first have ended before it stored
them. The process that finished it got them all, and is given fresh ones when it asks again."""

_FINISHED = "finished"
_THIS_PROCESS = secrets.token_hex(16)


class Journal:
    """The answers to one request so far, as files in a folder of the state folder; threads may share it.

    Used as a context: leaving it without an error says that the request is finished, leaving it with one that it was
    stopped. Keep only answers that stay true: one that is not yet final is discarded before the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, source: str, request: str) -> "Journal":
        """The journal of a request to the source of that name; those of the source that nobody needs any more go."""
        folder = home().root / "downloads" / source
        for known in folder.glob("*"):
            if _expired(known):
                shutil.rmtree(known, ignore_errors=True)
        return cls(folder / _digest(request))

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write(_FINISHED, _THIS_PROCESS.encode())

    def get(self, key: str) -> bytes | None:
        """The answer kept under `key`; None if there is none, or if what is on disk is not whole."""
        try:
            return zlib.decompress((self.folder / _digest(key)).read_bytes())
        except (FileNotFoundError, zlib.error):
            return None

    def put(self, key: str, answer: bytes) -> None:
        """Keeps an answer; it is there whole or not at all, whenever the process ends."""
        self._write(_digest(key), zlib.compress(answer, level=1))

    def discard(self, key: str) -> None:
        """Forgets an answer that may be another one the next time."""
        (self.folder / _digest(key)).unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        # Another process that had all its answers may have removed the folder of the same request meanwhile.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.{secrets.token_hex(4)}"
        temporary.write_bytes(content)
        temporary.replace(self.folder / name)


def _expired(folder: Path) -> bool:
    """Whether the answers in a journal's folder are too old, or were handed over in this very process."""
    age = time.time() - max((_written(entry) for entry in (folder, *folder.glob("*"))), default=0.0)
    try:
        finished_by = (folder / _FINISHED).read_text()
    except FileNotFoundError:
        return age > RESUME_FOR.total_seconds()
    return finished_by == _THIS_PROCESS or age > REPEAT_FOR.total_seconds()


def _written(path: Path) -> float:
    """When it was last written, in seconds; 0 if another process has put it in its place, or removed it, meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
