"""Asking Alpaca's market data API: credentials, patience, the vendor's clock, and page after page of an answer.

Endpoints and parameters follow Alpaca's OpenAPI document of the market data API. What an answer means is in
`alpaca` and `alpaca_actions`. Nothing here reads or writes files but through the journal that it is given.
"""

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from alpaca.common.rest import RESTClient

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market.downloads import Journal

KEY_ID, SECRET_KEY = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"
"""Environment variables of Alpaca's own tools; the keys are never settings, and never in an error or a log."""
DATA_URL = "STOCKPICKER_ALPACA_DATA_URL"
"""Environment variable that names another server than Alpaca's, for tests."""

_ALPACA = "https://data.alpaca.markets"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class AlpacaUnavailable(StockPickerError):
    """Alpaca gave no usable answer; what it answered before is kept, and the next run goes on from there."""


class UnknownSymbol(StockPickerError):
    """Alpaca refuses a whole request because of one symbol."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"Alpaca does not take {symbol!r} for a symbol")
        self.symbol = symbol


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer. Free plans may send 200 requests a minute; waits are seconds.

    A refused request is sent again after `first_wait`, then after twice as long each time, up to `longest_wait`, and
    half of that at random less (so that many clients do not return at once); or when Alpaca says so, up to a minute.
    """

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


class MarketData(RESTClient):
    """alpaca-py's client, with what it lacks: time-outs, patience with every passing fault, and the answer's clock.

    One request at a time: ten thousand bars come with each, so that the network, not we, would be the limit of more.
    """

    def __init__(
        self,
        patience: Patience,
        now: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `InvalidInput` if the environment lacks a key, or would send the keys over an open line."""
        key_id, secret_key = os.environ.get(KEY_ID), os.environ.get(SECRET_KEY)
        if not key_id or not secret_key:
            raise InvalidInput(
                f"source alpaca needs the environment variables {KEY_ID} and {SECRET_KEY}; set them to the keys that "
                "Alpaca's dashboard shows"
            )
        url = os.environ.get(DATA_URL) or _ALPACA
        if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in _LOOPBACK:
            raise InvalidInput(f"{DATA_URL} {url!r} would send the keys over an open line; use https")
        super().__init__(url.rstrip("/"), key_id, secret_key, raw_data=True)
        self._patience = patience
        self._now = now
        self._sleep = sleep
        self._answered_at: datetime | None = None
        self._quota_back_at: datetime | None = None

    def pages(
        self, version: str, path: str, params: Mapping[str, Any], content: str, journal: Journal, complete_at: datetime
    ) -> Iterator[dict[str, Any]]:
        """What every page of an answer holds under `content`, in order; pages in `journal` are not asked for again.

        Raises `AlpacaUnavailable` if patience ends, and if the server's clock has not reached `complete_at` (UTC), from
        which on the answer is final; `UnknownSymbol`; `InvalidInput` if Alpaca refuses the request or the keys.
        """
        asked = json.dumps([version, path, dict(params)], sort_keys=True)
        token: str | None = None
        seen: set[str] = set()
        while True:
            key = f"{asked} {token}"
            stored = journal.get(key)
            if stored is None:
                page = self._page(version, path, {**params, "page_token": token}, content, complete_at)
                journal.put(key, json.dumps(page).encode())
            else:
                page = json.loads(stored)
            yield page[content] or {}
            token = page["next_page_token"]
            if token is None:
                return
            if token in seen:
                raise AlpacaUnavailable("Alpaca names the same next page again and again; try again later")
            seen.add(token)

    def _page(
        self, version: str, path: str, params: dict[str, Any], content: str, complete_at: datetime
    ) -> dict[str, Any]:
        page = self.get(path, params, api_version=version)
        assert isinstance(page, dict)
        if content not in page:
            raise AlpacaUnavailable(f"Alpaca's answer from {path} has no {content!r}; try again later")
        if self._answered_at is not None and self._answered_at < complete_at:
            raise AlpacaUnavailable(
                f"Alpaca's clock shows {self._answered_at:%Y-%m-%d %H:%M} UTC, and the last session asked for is "
                f"complete at {complete_at:%H:%M}: this machine's clock is ahead; set it right, or wait"
            )
        return {content: page[content], "next_page_token": page.get("next_page_token")}

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> dict[str, Any]:
        """Replaces alpaca-py's, which waits for ever and repeats only what was refused as too much."""
        timeouts = (self._patience.connect_timeout, self._patience.read_timeout)
        fault = ""
        for attempt in range(self._patience.attempts):
            self._wait(attempt)
            try:
                response = self._session.request(method, url, timeout=timeouts, **opts)
            except requests.RequestException as error:
                fault = f"no answer ({type(error).__name__})"
                continue
            self._quota_back_at = _quota_back_at(response, self._now())
            if response.status_code == 429 or response.status_code >= 500:
                fault = f"status {response.status_code}"
            elif response.status_code >= 400:
                raise self._refusal(response)
            else:
                try:
                    answer = response.json()
                except requests.JSONDecodeError:
                    answer = None
                if isinstance(answer, dict):
                    self._answered_at = _date_of(response)
                    return answer
                fault = "an answer that is no JSON object"
        raise AlpacaUnavailable(
            f"Alpaca failed {self._patience.attempts} times in a row, at last with {fault}; nothing that it answered "
            "before is lost: run the same again later, and it goes on from there"
        )

    def _wait(self, attempt: int) -> None:
        """Before a repetition, and before a first request while the quota of this minute is used up."""
        patience, wait = self._patience, 0.0
        if self._quota_back_at is not None:
            wait = min(60.0, max(0.0, (self._quota_back_at - self._now()).total_seconds()))
        if attempt and not wait:
            wait = min(patience.longest_wait, patience.first_wait * 2.0 ** (attempt - 1))
        if wait:
            jitter = random.random()  # noqa: S311 (no secret depends on it)
            self._sleep(wait * (1.0 - 0.5 * jitter) if self._quota_back_at is None else wait + jitter)

    def _refusal(self, response: requests.Response) -> StockPickerError:
        try:
            said = str(response.json()["message"])[:200]
        except (ValueError, KeyError, TypeError):
            said = f"status {response.status_code}"
        for secret in (self._api_key, self._secret_key):
            said = said.replace(str(secret), "...")
        if response.status_code == 400 and said.startswith("invalid symbol: "):
            return UnknownSymbol(said.removeprefix("invalid symbol: ").strip())
        if response.status_code == 401:
            return InvalidInput(f"Alpaca refuses the keys in {KEY_ID} and {SECRET_KEY} ({said}); set valid ones")
        if response.status_code == 403:
            return InvalidInput(
                f"Alpaca forbids the request ({said}); set valid keys in {KEY_ID} and {SECRET_KEY}, a feed that their "
                "plan has, and this machine's clock (free plans may not ask for the last 15 minutes)"
            )
        return InvalidInput(f"Alpaca refuses the request ({said}); correct the symbols or settings that it names")


def _quota_back_at(response: requests.Response, now: datetime) -> datetime | None:
    """When requests are allowed again, where the answer says that none is left; else None."""
    headers = response.headers
    if response.status_code == 429 and (seconds := _number(headers.get("Retry-After"))) is not None:
        return now + timedelta(seconds=seconds)
    used_up = response.status_code == 429 or headers.get("X-RateLimit-Remaining") == "0"
    reset = _number(headers.get("X-RateLimit-Reset"))
    if not used_up or reset is None:
        return None
    # The reset is a moment of the server's clock; what counts is how far it lies ahead of that clock.
    served_at = _date_of(response) or now
    return now + max(timedelta(), min(timedelta(minutes=1), datetime.fromtimestamp(reset, UTC) - served_at))


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, min(float(text), 4e9))
    except ValueError:
        return None


def _date_of(response: requests.Response) -> datetime | None:
    """The server's clock when it answered, in UTC; None if it does not say."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return None
