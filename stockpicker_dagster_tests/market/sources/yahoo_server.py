"""A loopback server that speaks Yahoo's chart endpoint, restating its history for every split as Yahoo does.

It holds what was really traded, and answers with what Yahoo would say at its clock: prices and dividends divided by all
splits since, in single precision, volumes multiplied, the events of the period asked for, and a live quote during a
session. Faults are played before the true answer.
"""

import json
import math
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import polars as pl

OPEN, CLOSE = time(9, 30), time(16)

Fault = Callable[["_Handler"], None]


@dataclass
class Company:
    """What was traded under a symbol: day -> open, high, low, close, volume; day -> dividend a share before splits of
    the day; day -> split, new and old shares."""

    symbol: str
    rows: dict[date, tuple[float | None, ...]]
    dividends: dict[date, float] = field(default_factory=dict)
    splits: dict[date, tuple[float, float]] = field(default_factory=dict)
    currency: str = "USD"
    time_zone: str = "America/New_York"
    late: set[date] = field(default_factory=set)
    """Days that were traded, but whose rows the vendor does not have yet."""

    def moment(self, day: date, at: time = OPEN) -> datetime:
        return datetime.combine(day, at, ZoneInfo(self.time_zone))

    def splits_between(self, after: date, until: datetime) -> float:
        """The product of the ratios of the splits after a day and up to a moment."""
        ratios = [new / old for day, (new, old) in self.splits.items() if after < day and self.moment(day) <= until]
        return math.prod(ratios)


def companies_of(prices: pl.DataFrame) -> dict[str, Company]:
    """The companies behind as-traded rows of the price contract."""
    companies: dict[str, Company] = {}
    for row in prices.sort("symbol", "date").iter_rows(named=True):
        company = companies.setdefault(row["symbol"], Company(row["symbol"], {}))
        company.rows[row["date"]] = tuple(row[name] for name in ("open", "high", "low", "close", "volume"))
        if row.get("dividend"):
            company.dividends[row["date"]] = row["dividend"]
        if row.get("split_ratio", 1.0) != 1.0:
            company.splits[row["date"]] = (row["split_ratio"], 1.0)
    return companies


def recorded(body: Mapping[str, Any], later_splits: Mapping[date, tuple[float, float]]) -> Company:
    """The company in a recorded answer, which is restated for its own splits and for later ones."""
    result = body["chart"]["result"][0]
    meta, quote, events = result["meta"], result["indicators"]["quote"][0], result.get("events", {})
    zone = ZoneInfo(meta["exchangeTimezoneName"])
    company = Company(meta["symbol"], {}, time_zone=zone.key, currency=meta["currency"])
    splits = {
        _day(split["date"], zone): (split["numerator"], split["denominator"]) for split in _events(events, "splits")
    }
    company.splits = splits | dict(later_splits)
    ever = datetime.max.replace(tzinfo=UTC)
    for position, at in enumerate(result["timestamp"]):
        day = _day(at, zone)
        ratio = company.splits_between(day, ever)
        prices = [round(quote[name][position] * ratio, 2) for name in ("open", "high", "low", "close")]
        company.rows[day] = (*prices, float(round(quote["volume"][position] / ratio)))
    for event in _events(events, "dividends"):
        day = _day(event["date"], zone)
        company.dividends[day] = round(event["amount"] * company.splits_between(day - timedelta(days=1), ever), 4)
    return company


def _events(events: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return list(events.get(kind, {}).values())


def _day(moment: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).date()


class YahooServer:
    """The state of the server: its companies, its clock, the faults to come and the requests so far."""

    def __init__(self, companies: Mapping[str, Company], now: datetime) -> None:
        self.companies = dict(companies)
        self.now = now
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        """Played in order, one a request about the symbol; those under "" whatever is asked."""
        self.always: dict[str, Fault] = {}
        self.asked: list[str] = []
        self.url = ""
        self.lock = threading.Lock()

    def answer(self, symbol: str, first: datetime, last: datetime) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to a true request."""
        company = self.companies.get(symbol)
        begun = [day for day in company.rows if company.moment(day) <= self.now] if company else []
        if company is None or not begun:
            error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            return 404, {"chart": {"result": None, "error": error}}
        days = sorted(day for day in begun if first <= company.moment(day) <= last and day not in company.late)
        result: dict[str, Any] = {"meta": self._meta(company, sorted(begun)), "indicators": {"quote": [{}]}}
        if days:
            rows = [self._restated(company, day) for day in days]
            columns = zip(*rows, strict=True)
            result["timestamp"] = [self._stamp(company, day) for day in days]
            names = ("open", "high", "low", "close", "volume")
            result["indicators"] = {"quote": [dict(zip(names, map(list, columns), strict=True))]}
        if events := self._events(company, first, min(last, self.now)):
            result["events"] = events
        return 200, {"chart": {"result": [result], "error": None}}

    def _meta(self, company: Company, begun: list[date]) -> dict[str, Any]:
        return {
            "currency": company.currency,
            "symbol": company.symbol,
            "firstTradeDate": int(company.moment(begun[0]).timestamp()),
            "regularMarketTime": int(min(self.now, company.moment(begun[-1], CLOSE)).timestamp()),
            "exchangeTimezoneName": company.time_zone,
            "dataGranularity": "1d",
        }

    def _stamp(self, company: Company, day: date) -> int:
        """The open of a session; of one that goes on, the last trade."""
        goes_on = company.moment(day) <= self.now < company.moment(day, CLOSE)
        return int((self.now if goes_on else company.moment(day)).timestamp())

    def _restated(self, company: Company, day: date) -> list[float | int | None]:
        ratio = company.splits_between(day, self.now)
        *prices, volume = company.rows[day]
        shares = None if volume is None else round(volume * ratio)
        return [*(None if price is None else _single(price / ratio) for price in prices), shares]

    def _events(self, company: Company, first: datetime, last: datetime) -> dict[str, Any]:
        paid, split = {}, {}
        for day, amount in company.dividends.items():
            if first <= company.moment(day) <= last:
                restated = round(amount / company.splits_between(day - timedelta(days=1), self.now), 6)
                at = int(company.moment(day).timestamp())
                paid[str(at)] = {"amount": restated, "date": at}
        for day, (new, old) in company.splits.items():
            if first <= company.moment(day) <= last:
                at = int(company.moment(day).timestamp())
                split[str(at)] = {"date": at, "numerator": new, "denominator": old, "splitRatio": f"{new:g}:{old:g}"}
        return {name: found for name, found in (("dividends", paid), ("splits", split)) if found}


def _single(value: float) -> float:
    """The number as Yahoo keeps it, in single precision."""
    return struct.unpack("f", struct.pack("f", value))[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    yahoo: YahooServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        symbol = unquote(address.path.rpartition("/")[2])
        assert address.path.startswith("/v8/finance/chart/")
        assert asked["interval"] == "1d"
        with self.yahoo.lock:
            self.yahoo.asked.append(symbol)
            played = next((self.yahoo.faults[key].popleft() for key in (symbol, "") if self.yahoo.faults[key]), None)
            played = played or self.yahoo.always.get(symbol) or self.yahoo.always.get("")
        if played:
            played(self)
            return
        self.send(*self.true_answer())

    def true_answer(self) -> tuple[int, bytes]:
        address = urlsplit(self.path)
        period = {name: int(values[0]) for name, values in parse_qs(address.query).items() if name.startswith("period")}
        first, last = (datetime.fromtimestamp(period[name], UTC) for name in ("period1", "period2"))
        status, body = self.yahoo.answer(unquote(address.path.rpartition("/")[2]), first, last)
        return status, json.dumps(body).encode()

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.yahoo.now.astimezone(UTC), usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def too_many_requests(handler: _Handler) -> None:
    handler.send(429, b"Too Many Requests")


def come_back_in(seconds: str) -> Fault:
    return lambda handler: handler.send(429, b"Too Many Requests", Retry_After=seconds)


def server_error(handler: _Handler) -> None:
    handler.send(502, b"<html>Bad Gateway</html>")


def html_page(handler: _Handler) -> None:
    handler.send(200, b"<!DOCTYPE html><html>Will be right back...</html>")


def truncated(handler: _Handler) -> None:
    _, body = handler.true_answer()
    handler.send(200, body[: len(body) // 2])


def cut_off(handler: _Handler) -> None:
    """The connection ends within the answer."""
    _, body = handler.true_answer()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def without_rows(handler: _Handler) -> None:
    _, body = handler.true_answer()
    answer = json.loads(body)
    del answer["chart"]["result"][0]["timestamp"]
    answer["chart"]["result"][0]["indicators"] = {"quote": [{}]}
    handler.send(200, json.dumps(answer).encode())


def silence(seconds: float) -> Fault:
    """No answer until the asking side has given up."""

    def wait(handler: _Handler) -> None:
        threading.Event().wait(seconds)
        handler.close_connection = True

    return wait


@contextmanager
def yahoo_server(companies: Mapping[str, Company], now: datetime) -> Iterator[YahooServer]:
    """A running server on a free port of the loopback interface."""
    state = YahooServer(companies, now)
    handler = type("Handler", (_Handler,), {"yahoo": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
