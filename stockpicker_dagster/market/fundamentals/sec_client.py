"""Asking the SEC politely: who asks, how often, how long to wait when it refuses, and for how long to try.

What is asked for and what answers mean is the matter of `edgar`.
"""

import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stockpicker_dagster.errors import InvalidInput, StockPickerError

CONTACT = "STOCKPICKER_SEC_CONTACT"
"""Names whoever is responsible for the requests, with an e-mail address: the SEC refuses programs that do not say."""
DATA_URL, FILES_URL = "STOCKPICKER_SEC_DATA_URL", "STOCKPICKER_SEC_FILES_URL"
"""Environment variables that redirect the two hosts, for tests."""

REQUESTS_PER_SECOND = 9.0
"""The SEC allows ten over all of a user's machines, and locks out for minutes whoever exceeds them."""
_LONGEST_WAIT = 120.0


class EdgarUnavailable(StockPickerError):
    """The SEC did not answer, or not with what its documentation says; nothing was taken from the answer."""


@dataclass
class SecClient:
    """Reads JSON from the SEC's two hosts; threads may share it.

    `contact` goes into every request. `attempts` is how often one request is tried, waiting twice as long every time
    from `first_wait` seconds on, or as long as the answer's `Retry-After` says: for about two minutes by default.
    `timeout` is in seconds, for the connection and for each part of the answer. Raises `InvalidInput` for a contact
    without an e-mail address.
    """

    contact: str
    data_url: str
    files_url: str
    requests_per_second: float = REQUESTS_PER_SECOND
    attempts: int = 7
    first_wait: float = 1.0
    wait: Callable[[float], None] = time.sleep
    timeout: tuple[float, float] = (10.0, 60.0)
    _pace: "_Pace" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.search(r"[^@\s]+@[^@\s]+\.[^@\s]+", self.contact):
            raise InvalidInput(
                f"the SEC asks every program to say who runs it, and the contact is {self.contact!r}; set {CONTACT} to "
                "a name and an e-mail address, such as 'Jane Doe jane@example.com'"
            )
        self._pace = _Pace(self.requests_per_second, self.wait)

    @classmethod
    def from_environment(cls) -> "SecClient":
        """The SEC itself, or whatever the environment names in its place, under the contact that is set there."""
        data_url = os.environ.get(DATA_URL) or "https://data.sec.gov"
        files_url = os.environ.get(FILES_URL) or "https://www.sec.gov"
        return cls(os.environ.get(CONTACT, ""), data_url.rstrip("/"), files_url.rstrip("/"))

    def json(self, url: str) -> dict[str, Any] | None:
        """The object at `url`, None for a 404. Raises `EdgarUnavailable` once patience is at its end."""
        trouble, asked_for = "", 0.0
        for attempt in range(self.attempts):
            if attempt:
                self.wait(self._pause(attempt, asked_for))
            self._pace.take()
            trouble, asked_for, answer = self._try(url)
            if not trouble:
                return answer
        raise EdgarUnavailable(f"{url} could not be read in {self.attempts} attempts: {trouble}")

    def _pause(self, attempt: int, asked_for: float) -> float:
        doubled = self.first_wait * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        return min(_LONGEST_WAIT, max(asked_for, doubled))

    def _try(self, url: str) -> tuple[str, float, dict[str, Any] | None]:
        """What went wrong (nothing: an empty text), the wait that the answer asks for, and the answer."""
        import requests

        headers = {"User-Agent": f"StockPicker {self.contact}", "Accept-Encoding": "gzip, deflate"}
        try:
            response = requests.get(url, headers=headers, timeout=self.timeout)
        except requests.RequestException as error:
            return f"no answer ({type(error).__name__})", 0.0, None
        if response.status_code == 404:
            return "", 0.0, None
        if response.status_code != 200:
            why = ", which is what it says to whoever asks too often or says no contact"
            trouble = f"status {response.status_code}{why if response.status_code in (403, 429) else ''}"
            return trouble, _seconds(response.headers.get("Retry-After")), None
        try:
            answer = response.json()
        except ValueError:
            return "the answer is no JSON, or was cut off", 0.0, None
        return ("", 0.0, answer) if isinstance(answer, dict) else ("the answer is no object", 0.0, None)


class _Pace:
    """Lets requests pass at an even pace, over all threads."""

    def __init__(self, per_second: float, wait: Callable[[float], None]) -> None:
        self._interval, self._wait = 1.0 / per_second, wait
        self._lock, self._next = threading.Lock(), 0.0

    def take(self) -> None:
        """Returns when it is the caller's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._wait(turn - now)


def _seconds(text: str | None) -> float:
    return float(text) if text and text.strip().isdigit() else 0.0
