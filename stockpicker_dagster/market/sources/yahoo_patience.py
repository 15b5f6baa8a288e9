"""How long to wait for Yahoo: after a refusal, after a faulty answer, and in all.

Nothing here sends requests; that is `yahoo_download`.
"""

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Limits:
    """How hard Yahoo is asked, and how long it is waited for; times are in seconds.

    Yahoo publishes no limits. `workers` requests at a time and a `rest` after each `batch` stay below what gets
    addresses refused, and a batch holds the whole S&P 500. A symbol with a faulty answer is asked `attempts` times.
    After a refusal everything waits: as long as Yahoo says, else `first_wait`, doubled each time up to `longest_wait`,
    and up to half of it less at random. Without a single answer for `patience`, the download stops.
    """

    workers: int = 8
    batch: int = 600
    rest: float = 10.0
    timeout: float = 30.0
    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    patience: float = 900.0


class Gate:
    """Holds all threads back together after a refusal, and for good when patience ends."""

    def __init__(self, limits: Limits) -> None:
        self.reason = "no answer yet"
        self._limits = limits
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._refusals = 0
        self._opens_at = self._last_answer = time.monotonic()

    def wait_anew(self) -> None:
        """Counts patience from now on: time between batches is not spent waiting."""
        self._last_answer = time.monotonic()

    def wait(self) -> bool:
        """Waits until the gate is open; False if it stays shut."""
        while not self._closed.is_set():
            now = time.monotonic()
            if max(now, self._opens_at) - self._last_answer > self._limits.patience:
                return False
            if now >= self._opens_at:
                return True
            self._closed.wait(self._opens_at - now)
        return False

    def refused(self, status: int, retry_after: float | None) -> None:
        """Shuts the gate for a while; refusals of requests that were under way meanwhile do not lengthen it."""
        with self._lock:
            now = time.monotonic()
            self.reason = f"HTTP status {status}"
            if retry_after is not None:
                self.reason += f", it asks to be left alone for {retry_after:.0f} s"
                self._opens_at = max(self._opens_at, now + retry_after)
            elif now >= self._opens_at:
                self._opens_at = now + pause(self._limits, self._refusals)
                self._refusals += 1

    def answered(self) -> None:
        with self._lock:
            self._last_answer = time.monotonic()
            self._refusals = 0

    def close(self) -> None:
        self._closed.set()


def pause(limits: Limits, failures: int) -> float:
    """Seconds to wait after one more failure than `failures`, spread at random so that many do not return at once."""
    longest = min(limits.longest_wait, limits.first_wait * 2.0 ** min(failures, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds from `now` Yahoo wants to be left alone; None if it does not say."""
    said = headers.get("Retry-After")
    if said is None:
        return None
    try:
        return float(said)
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - now).total_seconds())
    except ValueError:
        return None
