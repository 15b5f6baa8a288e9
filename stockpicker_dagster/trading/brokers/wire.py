"""Asking a broker over HTTP, so that three things are never confused: not sent, answered, and nobody knows.

Questions are repeated with patience, because asking twice changes nothing. What changes something at the broker is sent
in exactly one request; only an answer that says "too many requests" is followed by another, since it says that the
request was not taken. Between the decision to send it and the moment in which it leaves, a process can stand still for
any length of time; so whether it may still be sent is asked once more when the connection is there and its body is all
that is missing, and an answer to that is good for a second. What an answer means is the adapter's business. Credentials
are in headers only, and masked in whatever is said about a failure.
"""

import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.trading.brokers import BrokerUnavailable, LastWord
from stockpicker_dagster.trading.stopwatch import Stopwatch

TOO_MANY = 429
GOOD_FOR_S = 1.0
"""For how long the last word that something may be sent is good; where asking took longer, it is asked again."""
_ASKED_AT_MOST = 3
_LONGEST_BODY = 64 * 1024 * 1024
_MINUTE = 60.0


class NotSent(StockPickerError):
    """The request certainly did not reach the broker: no connection came about."""


class NoAnswer(StockPickerError):
    """The request may have reached the broker, and nothing readable came back in time."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds. `whole` bounds one request from its first byte to its last.

    A question is asked up to `attempts` times. Between them `first_wait` passes, then twice as long each time, less up
    to half at random so that many clients do not return at once; or as long as the broker says, up to `longest_wait`.
    A request that was refused as one too many is sent again for `refused_for` at most.
    """

    connect: float = 5.0
    read: float = 20.0
    whole: float = 30.0
    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 30.0
    refused_for: float = 60.0


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its JSON with exact decimals (None where it is none), and the server's time in UTC."""

    status: int
    body: Any
    served_at: datetime | None
    retry_after: float | None

    @property
    def succeeded(self) -> bool:
        """Whether the status says so; the body may be unreadable all the same."""
        return 200 <= self.status < 300


class Pace:
    """Keeps requests under a limit a minute; `reserve` of them are kept for what must not wait, such as cancels."""

    def __init__(self, per_minute: int | None, reserve: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._reserve = reserve
        self._clock = clock
        self._sent: deque[float] = deque()
        self._lock = threading.Lock()

    def wait_needed(self, urgent: bool) -> float:
        """How many seconds to wait before the next request; 0 books it as sent now."""
        if self._per_minute is None:
            return 0.0
        with self._lock:
            now = self._clock()
            while self._sent and now - self._sent[0] >= _MINUTE:
                self._sent.popleft()
            allowed = self._per_minute - (0 if urgent else self._reserve)
            if len(self._sent) < allowed:
                self._sent.append(now)
                return 0.0
            return max(self._sent[len(self._sent) - allowed] + _MINUTE - now, 0.001)


class Wire:
    """One broker's HTTP interface. `wait` is called between requests, never while one is under way: it may raise."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        secrets: Collection[str] = (),
        patience: Patience = Patience(),
        pace: Pace | None = None,
        wait: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        verify: bool | str = True,
    ) -> None:
        """Raises `InvalidInput` for a URL that would send the credentials over an open line."""
        refuse_open_line(base_url)
        self.base_url = base_url.rstrip("/")
        self._headers = dict(headers)
        self._secrets = tuple(secret for secret in secrets if secret)
        self._patience = patience
        self._pace = pace or Pace(None)
        self._wait = wait
        self._now = now
        self.served_at: datetime | None = None
        """The server's time, in UTC, by its last answer; None where that did not say."""
        timeouts = httpx.Timeout(patience.read, connect=patience.connect)
        self._client = httpx.Client(timeout=timeouts, verify=verify, follow_redirects=False)

    def __repr__(self) -> str:
        return f"Wire({self.base_url!r})"

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def ask(
        self, path: str, params: Mapping[str, Any] | None = None, *, method: str = "GET", urgent: bool = False
    ) -> Answer:
        """A question, repeated while the broker is busy or silent; raises `BrokerUnavailable` when patience ends.

        `method` is for interfaces that want a question posted. A refusal (status 400 to 499) is an answer.
        """
        fault = ""
        for attempt in range(self._patience.attempts):
            try:
                answer = self._paced(method, path, params=params, urgent=urgent)
            except (NotSent, NoAnswer) as error:
                fault, said = str(error), None
            else:
                if answer.status != TOO_MANY and answer.status < 500 and not 300 <= answer.status < 400:
                    return answer
                fault, said = f"status {answer.status}", answer.retry_after
            if attempt + 1 < self._patience.attempts:
                self._wait(self._pause(attempt, said))
        raise BrokerUnavailable(
            f"{self.base_url} failed {self._patience.attempts} times when asked for {path}, at last with {fault}; "
            "nothing was sent, ask again later"
        )

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        urgent: bool = False,
        not_after: datetime | None = None,
        last_word: LastWord | None = None,
    ) -> Answer:
        """What changes something, in one request. Refused as one too many (429), it is sent again after a while.

        Raises `NotSent` where it certainly did not reach the broker, also because `not_after` came while waiting or the
        `last_word` was no, and `NoAnswer` where nobody knows. `urgent` may use the reserve of the pace.
        """
        waited, attempt = 0.0, 0
        while True:
            answer = self._paced(method, path, body=body, urgent=urgent, not_after=not_after, last_word=last_word)
            if answer.status != TOO_MANY:
                return answer
            pause = self._pause(attempt, answer.retry_after)
            if waited + pause > self._patience.refused_for:
                return answer
            self._wait(pause)
            waited, attempt = waited + pause, attempt + 1

    def masked(self, text: object) -> str:
        """`text` without any of the credentials, at most 300 characters."""
        said = str(text)
        for secret in self._secrets:
            said = said.replace(secret, "...")
        return said[:300]

    def _paced(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        urgent: bool = False,
        not_after: datetime | None = None,
        last_word: LastWord | None = None,
    ) -> Answer:
        while pause := self._pace.wait_needed(urgent):
            self._wait(min(pause, 1.0))
        given = {key: value for key, value in (params or {}).items() if value is not None}
        request = {"method": method, "url": self.base_url + path, "params": given or None}
        if not_after is None and last_word is None:
            return self._once({**request, "json": body, "headers": self._headers})

        def refuse() -> None:
            if not_after is not None and self._now() >= not_after:
                raise NotSent(f"not sent: it was to be sent before {not_after:%Y-%m-%d %H:%M:%S} UTC")
            if last_word is not None and (why := last_word()) is not None:
                raise NotSent(why)

        refuse()
        content = json.dumps(body, allow_nan=False).encode()
        # Without its length, a body that comes in pieces would be sent in chunks, which gateways like less.
        headers = {**self._headers, "Content-Type": "application/json", "Content-Length": str(len(content))}
        return self._once({**request, "content": _at_the_last_moment(content, refuse), "headers": headers})

    def _once(self, asked: Mapping[str, Any]) -> Answer:
        deadline = time.monotonic() + self._patience.whole
        with self._told_apart():
            request = self._client.build_request(**asked)
            response = self._client.send(request, stream=True)
            try:
                answer = self._read(response, deadline)
                self.served_at = answer.served_at
                return answer
            finally:
                response.close()

    def _read(self, response: httpx.Response, deadline: float) -> Answer:
        received = bytearray()
        for piece in response.iter_bytes():
            received += piece
            if time.monotonic() > deadline:
                raise NoAnswer(f"the answer was not complete after {self._patience.whole:g} s")
            if len(received) > _LONGEST_BODY:
                raise NoAnswer("the answer is longer than any that is meant")
        return Answer(response.status_code, _parsed(received), _date(response), _seconds(response, self._now()))

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise NotSent(self.masked(f"no connection ({type(error).__name__})")) from None
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise NoAnswer(self.masked(f"no answer ({type(error).__name__})")) from None

    def _pause(self, attempt: int, said: float | None) -> float:
        patience = self._patience
        jitter = random.random()  # noqa: S311 (no secret depends on it)
        if said is not None:
            return min(said, patience.longest_wait) + jitter * patience.first_wait
        return float(min(patience.longest_wait, patience.first_wait * 2.0**attempt) * (1.0 - 0.5 * jitter))


def _at_the_last_moment(content: bytes, refuse: Callable[[], None]) -> Iterator[bytes]:
    """The body of a request, handed out when it is about to be written, if nothing is against it then.

    Headers without their body are no request that a server acts on.
    """
    for _ in range(_ASKED_AT_MOST):
        watch = Stopwatch()
        refuse()
        if watch.seconds() <= GOOD_FOR_S:
            yield content
            return
    raise NotSent("not sent: this process stands still again and again while it asks whether it may still send")


def on_this_machine(url: str) -> bool:
    """Whether the URL's server is this very machine."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def refuse_open_line(url: str) -> None:
    """Raises `InvalidInput` unless the URL is https, or http on this very machine."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise InvalidInput("a broker's URL has no user name or password in it; credentials come from the environment")
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and on_this_machine(url):
        return
    raise InvalidInput(f"the broker's URL {url!r} would send credentials over an open line; use https")


def _parsed(received: bytes | bytearray) -> Any:
    try:
        return json.loads(received, parse_float=Decimal, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def _date(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return None


def _seconds(response: httpx.Response, now: datetime) -> float | None:
    """`Retry-After`, in seconds or as a date; None without one that can be read."""
    said = response.headers.get("Retry-After")
    if said is None:
        return None
    try:
        return max(0.0, min(float(said), 3600.0))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(said).astimezone(UTC) - (_date(response) or now)
    except (ValueError, TypeError):
        return None
    return max(0.0, min(until / timedelta(seconds=1), 3600.0))
