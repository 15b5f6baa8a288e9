"""One writer of a folder on S3 at a time: a lock object with an end.

The lock is created by a conditional PUT, extended while it is held, and taken over by another conditional PUT once its
end has passed, so that a writer that died lets go. A writer that was paused for longer than its lease finds that out
before its next write (`still_held`); what it had begun stays whole, because every file appears at once.
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from stockpicker_dagster.errors import StockPickerError

LEASE_S = 60.0
_PATIENCE_S = 900.0
"""How long a writer waits for another one that is alive."""

_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class LeaseLost(StockPickerError):
    """Another writer has taken over, because this one was silent for too long."""


class Lease:
    """A lock that is held until `until`, on this process's monotonic clock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner = uuid.uuid4().hex
        self.version = ""
        self.until = 0.0

    def still_held(self) -> None:
        """Raises `LeaseLost` once the lease has run out."""
        if time.monotonic() > self.until:
            raise LeaseLost(
                f"{self.name} was not extended for {LEASE_S:.0f} s, so another writer may have begun; what is stored "
                "is whole: run again"
            )


@contextmanager
def leased(
    put: Callable[[bytes, str], str | None],
    read: Callable[[], tuple[bytes, str] | None],
    remove: Callable[[], None],
    name: str,
) -> Iterator[Lease]:
    """Holds the lock `name` inside the block.

    `put(content, over)` stores the lock object in the place of version `over` ("": none) and gives its new version, or
    None where another was quicker; `read` gives content and version; `remove` deletes it.
    """
    lease = Lease(name)
    _acquire(lease, put, read)
    ended = threading.Event()
    extending = threading.Thread(target=_extend, args=(lease, put, ended), daemon=True)
    extending.start()
    try:
        yield lease
    finally:
        ended.set()
        extending.join()
        if time.monotonic() < lease.until:
            remove()


def _acquire(lease: Lease, put: Callable[[bytes, str], str | None], read: Callable[[], Any]) -> None:
    began, wait = time.monotonic(), 0.05
    while True:
        found = read()
        if found is None or _over(found[0]):
            asked = time.monotonic()
            version = put(_content(lease), found[1] if found else "")
            if version is not None:
                lease.version, lease.until = version, asked + LEASE_S
                return
        elif time.monotonic() - began > _PATIENCE_S:
            raise StockPickerError(
                f"another writer has held {lease.name} for {_PATIENCE_S / 60:.0f} minutes; end it, or wait, and run "
                "again"
            )
        time.sleep(random.uniform(0.5, 1.5) * wait)  # noqa: S311 - jitter is no secret
        wait = min(2 * wait, 2.0)


def _extend(lease: Lease, put: Callable[[bytes, str], str | None], ended: threading.Event) -> None:
    while not ended.wait(LEASE_S / 4):
        asked = time.monotonic()
        # Where S3 does not answer the next attempt may arrive in time; otherwise the lease runs out and writing stops.
        with suppress(StockPickerError):
            version = put(_content(lease), lease.version)
            if version is None:
                lease.until = 0.0
                return
            lease.version, lease.until = version, asked + LEASE_S


def _content(lease: Lease) -> bytes:
    return json.dumps({"owner": lease.owner, "until": time.time() + LEASE_S}).encode()


def _over(content: bytes) -> bool:
    """Whether a lock has run out; clocks may differ by a few seconds, hence the margin."""
    try:
        return float(json.loads(content)["until"]) + 5.0 < time.time()
    except (ValueError, KeyError, TypeError):
        return True


def taken(code: str) -> bool:
    """Whether a conditional PUT was refused because another object is there."""
    return code in _TAKEN
