"""Asking Yahoo for many charts: a few at a time, patiently, each answer kept in a journal as it arrives.

The session is yfinance's, which passes for a browser. Its own requests (`YfData`, `Ticker.history`) are not used: they
send every refused request a second time, hide when Yahoo wants us back, and repair, round and localise rows. What an
answer says is in `yahoo_chart`, how long to wait in `yahoo_patience`.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import home
from stockpicker_dagster.market.downloads import Journal
from stockpicker_dagster.market.sources.yahoo_chart import Chart, Refused, Unusable, read_chart
from stockpicker_dagster.market.sources.yahoo_patience import Gate, Limits, pause, retry_after

URL = "STOCKPICKER_YAHOO_URL"
"""Environment variable that names another server than Yahoo's, for tests."""
CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far this machine's clock may be from Yahoo's: by it sessions are complete, and events asked for up to now."""

_YAHOO = "https://query2.finance.yahoo.com"
_TOO_MANY = (429, 999)
_ABOUT_THE_SYMBOL = (200, 400, 404, 422)
"""Statuses with which Yahoo speaks about what was asked for, and not about who asks."""
_NAMED = 5
_SAY_EVERY = 5.0
_PROBE_SECONDS = 5.0

log = logging.getLogger(__name__)


class YahooUnavailable(StockPickerError):
    """Yahoo gave no usable answer; what it answered before is kept, and the next run goes on from there."""


@dataclass(frozen=True)
class _Fault:
    """Why an answer cannot be used; `empty` if it is well-formed, but without the rows that it ought to have."""

    what: str
    empty: bool = False


class ChartDownload:
    """One download of the charts of `total` symbols; its state is what was answered, refused and failed so far.

    `spelled` gives Yahoo's spelling of a symbol.
    """

    def __init__(
        self,
        journal: Journal,
        limits: Limits,
        now: Callable[[], datetime],
        total: int,
        spelled: Callable[[str], str] = str,
    ) -> None:
        self.limits = limits
        self.refused: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._journal = journal
        self._now = now
        self._spelled = spelled
        self._gate = Gate(limits)
        self._progress = _Progress(total)
        self._session = yahoo_session()

    def batches(self, since: Mapping[str, date]) -> Iterator[dict[str, Chart]]:
        """The charts of the symbols, each from its date in `since` up to now, batch by batch of `Limits.batch`.

        A symbol that is in no batch is in `refused` or in `failed`, with the reason. Raises `YahooUnavailable` if
        patience ends, or if the clocks disagree.
        """
        symbols = sorted(since)
        for start in range(0, len(symbols), self.limits.batch):
            if start and self._progress.asked:
                time.sleep(self.limits.rest)
            yield self.charts({symbol: since[symbol] for symbol in symbols[start : start + self.limits.batch]})

    def charts(self, since: Mapping[str, date]) -> dict[str, Chart]:
        """The charts of one batch, as `batches` has them."""
        found: dict[str, Chart] = {}
        self._gate.wait_anew()
        waiting = {symbol: _Fault("not asked") for symbol in sorted(since)}
        for attempt in range(self.limits.attempts):
            if attempt and waiting:
                time.sleep(pause(self.limits, attempt - 1))
            faults: dict[str, _Fault] = {}
            for symbol, outcome in self._ask_all({symbol: since[symbol] for symbol in waiting}):
                if isinstance(outcome, Chart):
                    found[symbol] = outcome
                elif isinstance(outcome, _Fault):
                    faults[symbol] = outcome
                else:
                    self.refused[symbol] = outcome
            waiting = dict(sorted(faults.items()))
        self.refused |= {symbol: fault.what for symbol, fault in waiting.items() if fault.empty}
        self.failed |= {symbol: fault.what for symbol, fault in waiting.items() if not fault.empty}
        return found

    def raise_for_failures(self) -> None:
        """Raises `YahooUnavailable` if some symbols had no usable answer: storing a day without them would hide it."""
        if self.failed:
            named = "; ".join(f"{symbol}: {what}" for symbol, what in sorted(self.failed.items())[:_NAMED])
            more = f"; and {len(self.failed) - _NAMED} more" if len(self.failed) > _NAMED else ""
            raise YahooUnavailable(
                f"Yahoo gave no usable answer for {len(self.failed)} of {self._progress.total} symbols "
                f"({named}{more}); {self._kept()}"
            )

    def _kept(self) -> str:
        return (
            f"{self._progress.answered} of {self._progress.total} symbols are downloaded and kept, nothing is lost: "
            "run the same again later and it goes on from there"
        )

    def _ask_all(self, since: Mapping[str, date]) -> Iterator[tuple[str, "Chart | _Fault | str"]]:
        """The outcome for every symbol, in the order in which they arrive."""
        unknown: dict[str, date] = {}
        for symbol, first in since.items():
            stored = self._journal.get(journal_key(symbol, first))
            outcome = None if stored is None else self._outcome(symbol, first, stored)
            if outcome is None or isinstance(outcome, _Fault):
                unknown[symbol] = first
            else:
                self._progress.found(symbol)
                yield symbol, outcome
        with ThreadPoolExecutor(self.limits.workers, thread_name_prefix="yahoo") as pool:
            futures = {pool.submit(self._ask, symbol, first): symbol for symbol, first in unknown.items()}
            try:
                for future in as_completed(futures):
                    outcome = future.result()
                    if not isinstance(outcome, _Fault):
                        self._progress.arrived(futures[future])
                    yield futures[future], outcome
            except BaseException:
                self._gate.close()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, symbol: str, since: date) -> "Chart | _Fault | str":
        while True:
            if not self._gate.wait():
                raise YahooUnavailable(f"Yahoo does not answer ({self._gate.reason}); {self._kept()}")
            try:
                response = request_chart(self._session, self._spelled(symbol), since, self._now(), self.limits.timeout)
            except OSError as error:
                self._gate.reason = plainly(error)
                return _Fault(self._gate.reason)
            self._compare_clocks(response.headers.get("Date"))
            if response.status_code in _TOO_MANY:
                self._gate.refused(response.status_code, retry_after(response.headers, self._now()))
                continue
            if response.status_code >= 500:
                self._gate.refused(response.status_code, retry_after(response.headers, self._now()))
                return _Fault(f"HTTP status {response.status_code}")
            if response.status_code not in _ABOUT_THE_SYMBOL:
                return _Fault(f"HTTP status {response.status_code}")
            outcome = self._outcome(symbol, since, response.content)
            if not isinstance(outcome, _Fault):
                self._journal.put(journal_key(symbol, since), response.content)
                self._gate.answered()
            return outcome

    def _outcome(self, symbol: str, since: date, body: bytes) -> "Chart | _Fault | str":
        return _outcome(symbol, self._spelled(symbol), since, body)

    def _compare_clocks(self, stamp: str | None) -> None:
        """An answer of another day than we believe it is would be taken for complete too early, or lack events."""
        if stamp is None:
            return
        theirs, ours = parsedate_to_datetime(stamp), self._now()
        if abs(theirs - ours) > CLOCK_TOLERANCE:
            raise YahooUnavailable(
                f"this machine's clock says {ours:%Y-%m-%d %H:%M} and Yahoo's {theirs:%Y-%m-%d %H:%M} UTC; set the "
                f"clock right, because it decides which sessions are complete; {self._kept()}"
            )


def journal_key(symbol: str, since: date) -> str:
    """The key of the answer about `symbol` from `since` on."""
    return f"{symbol} since {since}"


def yahoo_session() -> Any:
    """yfinance's session, shared by all threads; what yfinance may write lies in the state folder."""
    import yfinance
    from yfinance.data import new_session

    yfinance.set_tz_cache_location(str(home().root / "yfinance"))
    return new_session()


def request_chart(session: Any, symbol: str, since: date, now: datetime, timeout: float) -> Any:
    """Yahoo's response about the daily rows and all events from `since` up to `now`, whatever days are needed.

    Raises `OSError` where there is none.
    """
    address = f"{os.environ.get(URL) or _YAHOO}/v8/finance/chart/{quote(symbol, safe='')}"
    first = datetime(since.year, since.month, since.day, tzinfo=UTC)
    params = {
        "period1": int(first.timestamp()),
        "period2": int(now.timestamp()),
        "interval": "1d",
        "includePrePost": "false",
        "events": "div,splits,capitalGains",
    }
    return session.get(address, params=params, timeout=timeout)


def check_reachable() -> None:
    """Asks Yahoo once, without patience. Raises `YahooUnavailable` if it does not answer."""
    now = datetime.now(UTC)
    try:
        response = request_chart(yahoo_session(), "AAPL", (now - timedelta(days=7)).date(), now, _PROBE_SECONDS)
    except OSError as error:
        raise YahooUnavailable(f"Yahoo cannot be reached ({plainly(error)})") from error
    if response.status_code != 200:
        raise YahooUnavailable(f"Yahoo cannot be used from here now (HTTP status {response.status_code})")


def plainly(error: OSError) -> str:
    """What went wrong on the way, without the library's advertisement of its manual."""
    text = re.sub(r"^.*curl: \(\d+\) |\.? See https?:.*$", "", str(error))
    return text or type(error).__name__


def _outcome(symbol: str, spelled: str, since: date, body: bytes) -> "Chart | _Fault | str":
    """The chart, why it cannot be used, or, as text, why there is none."""
    try:
        chart = read_chart(symbol, body, spelled)
    except Refused as error:
        return str(error)
    except Unusable as error:
        return _Fault(str(error))
    if len(chart.times):
        return chart
    if chart.last_trade is not None and chart.day(chart.last_trade) < since:
        return f"no row since {since}; its last trade was on {chart.day(chart.last_trade)}"
    return _Fault(f"no row since {since}, though Yahoo knows the symbol", empty=True)


class _Progress:
    """Which symbols are answered; says every few seconds how many, and how long the rest will take."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.asked = 0
        self._symbols: set[str] = set()
        self._began = self._said = time.monotonic()

    @property
    def answered(self) -> int:
        return len(self._symbols)

    def found(self, symbol: str) -> None:
        """The answer was in the journal."""
        self._symbols.add(symbol)

    def arrived(self, symbol: str) -> None:
        """The answer came over the network."""
        self._symbols.add(symbol)
        self.asked += 1
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY:
            self._said = now
            left = timedelta(seconds=int((now - self._began) / self.asked * (self.total - self.answered)))
            log.info("Yahoo: %d of %d symbols, about %s left", self.answered, self.total, left)
