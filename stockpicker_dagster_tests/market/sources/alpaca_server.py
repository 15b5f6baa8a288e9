"""A loopback server that speaks Alpaca's market data API, as far as its OpenAPI document describes what we ask of it.

It serves whatever bars and actions a test gives it, checks the parameters and the keys, cuts answers into pages, counts
the quota of a minute and refuses recent SIP data as a free plan does. Faults are played before the true answer.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

import polars as pl

NEW_YORK = ZoneInfo("America/New_York")
KEYS = {"APCA_API_KEY_ID": "PKTEST", "APCA_API_SECRET_KEY": "a-secret-that-nobody-must-see"}

Fault = Callable[["_Handler"], None]


def midnight(day: date) -> str:
    """The time stamp of a daily bar."""
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bar(day: date, o: float, h: float, low: float, c: float, v: float) -> dict[str, Any]:
    return {"t": midnight(day), "o": o, "h": h, "l": low, "c": c, "v": int(v), "n": 100, "vw": round((h + low) / 2, 6)}


def bars_of(prices: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The bars that Alpaca would have of as-traded rows, with share classes behind a dot."""
    columns = ("symbol", "date", "open", "high", "low", "close", "volume")
    answer: dict[str, list[dict[str, Any]]] = {}
    for symbol, day, *figures in prices.sort("symbol", "date").select(columns).iter_rows():
        answer.setdefault(symbol.replace("-", "."), []).append(bar(day, *figures))
    return answer


def actions_of(prices: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The dividends and splits of as-traded rows as corporate actions on the days of the rows."""
    answer: dict[str, list[dict[str, Any]]] = {"cash_dividends": [], "forward_splits": [], "reverse_splits": []}
    for row in prices.sort("symbol", "date").iter_rows(named=True):
        symbol, day, ratio = row["symbol"].replace("-", "."), row["date"], row["split_ratio"]
        if row["dividend"] > 0:
            # The API's dividends are per share after a split of the same day.
            answer["cash_dividends"].append(cash_dividend(symbol, day, row["dividend"] / ratio))
        if ratio > 1:
            answer["forward_splits"].append(forward_split(symbol, day, ratio))
        elif ratio < 1:
            answer["reverse_splits"].append(reverse_split(symbol, day, 1 / ratio))
    return answer


def action(kind: str, about: str, day: date, **fields: Any) -> dict[str, Any]:
    identity = uuid5(NAMESPACE_URL, f"{kind} {about} {day} {sorted(fields.items())}")
    return {"id": str(identity), "process_date": str(day), **fields}


def cash_dividend(symbol: str, ex_date: date, rate: float, **fields: Any) -> dict[str, Any]:
    paid = {"process_date": str(ex_date + timedelta(days=15)), "payable_date": str(ex_date + timedelta(days=15))}
    known = {"symbol": symbol, "cusip": "000000000", "rate": rate, "special": False, "foreign": False}
    return {**action("dividend", symbol, ex_date, rate=rate), **known, "ex_date": str(ex_date), **paid, **fields}


def forward_split(symbol: str, ex_date: date, new_rate: float, **fields: Any) -> dict[str, Any]:
    known = {"symbol": symbol, "cusip": "000000000", "new_rate": new_rate, "old_rate": 1, "ex_date": str(ex_date)}
    return {**action("forward", symbol, ex_date), **known, **fields}


def reverse_split(symbol: str, ex_date: date, old_rate: float, **fields: Any) -> dict[str, Any]:
    cusips = {"old_cusip": "000000000", "new_cusip": "000000001"}
    known = {"symbol": symbol, "new_rate": 1, "old_rate": old_rate, "ex_date": str(ex_date), **cusips}
    return {**action("reverse", symbol, ex_date), **known, **fields}


class AlpacaServer:
    """What the server has, and what happened to it. `page` bars or actions make a page; `now` is its clock."""

    def __init__(self, bars: dict[str, list[dict[str, Any]]], actions: dict[str, list[dict[str, Any]]]) -> None:
        self.bars = bars
        self.actions = actions
        self.page = 10_000
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.refused_symbols: set[str] = set()
        self.free_plan = True
        self.quota = 200
        self.spent: deque[datetime] = deque()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.url = ""
        self._lock = threading.Lock()

    def answers(self, path: str) -> list[dict[str, str]]:
        """The parameters of the requests to a path that were answered."""
        return [params for answered, params in self.requests if answered == path]

    def take_quota(self) -> tuple[int, datetime]:
        """(requests left in this minute, when the first of them returns); -1 left if there was none."""
        with self._lock:
            now = self.now()
            while self.spent and self.spent[0] <= now - timedelta(minutes=1):
                self.spent.popleft()
            if len(self.spent) >= self.quota:
                return -1, self.spent[0] + timedelta(minutes=1)
            self.spent.append(now)
            return self.quota - len(self.spent), self.spent[0] + timedelta(minutes=1)

    def next_fault(self) -> Fault | None:
        with self._lock:
            return self.faults.pop(0) if self.faults else None


@contextmanager
def alpaca(bars: dict[str, list[dict[str, Any]]], actions: dict[str, list[dict[str, Any]]]) -> Iterator[AlpacaServer]:
    """The server on a free port of loopback."""
    served = AlpacaServer(bars, actions)
    handler = type("Handler", (_Handler,), {"served": served})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    served.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


# Faults


def status(code: int, **headers: str) -> Fault:
    return lambda handler: handler.send(code, b'{"message": "too bad"}', headers)


def html(handler: "_Handler") -> None:
    handler.send(200, b"<html><body>Down for maintenance</body></html>", {"Content-Type": "text/html"})


def truncated(handler: "_Handler") -> None:
    """The whole length is promised, and half of it sent."""
    handler.send(200, b'{"bars": {"AAA": [{"t": "2023-', {"Content-Length": "4000"})
    handler.close_connection = True


def half_json(handler: "_Handler") -> None:
    handler.send(200, b'{"bars": {"AAA": [{"t": "2023-')


def empty(handler: "_Handler") -> None:
    handler.send(200, b"")


def hangs_up(handler: "_Handler") -> None:
    handler.close_connection = True


def silent(seconds: float) -> Fault:
    def wait(handler: "_Handler") -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return wait


class _Handler(BaseHTTPRequestHandler):
    served: AlpacaServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if fault := self.served.next_fault():
            fault(self)
            return
        path, params = urlsplit(self.path).path, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        left, back_at = self.served.take_quota()
        quota = {"X-RateLimit-Limit": str(self.served.quota), "X-RateLimit-Remaining": str(max(0, left))}
        quota["X-RateLimit-Reset"] = str(int(back_at.timestamp()))
        given = (self.headers.get("APCA-API-KEY-ID"), self.headers.get("APCA-API-SECRET-KEY"))
        if given != tuple(KEYS.values()):
            self.fail(401, f"invalid key {given[0]} with {given[1]}")
        elif left < 0:
            self.fail(429, "too many requests.", quota)
        elif path == "/v2/stocks/bars":
            self.bars(params, quota)
        elif path == "/v1/corporate-actions":
            self.corporate_actions(params, quota)
        else:
            self.fail(404, "not found")

    def bars(self, params: dict[str, str], quota: dict[str, str]) -> None:
        symbols = params["symbols"].split(",")
        if unknown := [symbol for symbol in symbols if symbol in self.served.refused_symbols]:
            return self.fail(400, f"invalid symbol: {unknown[0]}", quota)
        if params.get("adjustment") != "raw" or params.get("timeframe") != "1Day" or params.get("asof") != "-":
            return self.fail(400, "the tests expect raw daily bars under the symbols of their day", quota)
        start, end = (datetime.fromisoformat(params[name]) for name in ("start", "end"))
        if self.served.free_plan and params["feed"] == "sip" and end > self.served.now() - timedelta(minutes=15):
            return self.fail(403, "subscription does not permit querying recent SIP data", quota)
        found = [
            (symbol, each)
            for symbol in sorted(symbols)
            for each in self.served.bars.get(symbol, [])
            if start <= datetime.fromisoformat(each["t"]) <= end
        ]
        page, token = self.cut(found, params)
        grouped: dict[str, list[dict[str, Any]]] = {}
        for symbol, each in page:
            grouped.setdefault(symbol, []).append(each)
        return self.answer(params, {"bars": grouped, "next_page_token": token}, quota)

    def corporate_actions(self, params: dict[str, str], quota: dict[str, str]) -> None:
        symbols, types = set(params["symbols"].split(",")), set(params["types"].split(","))
        named = ("symbol", "source_symbol", "old_symbol", "new_symbol", "acquiree_symbol")
        found = sorted(
            (each["process_date"], kind, each["id"], each)
            for kind, actions in self.served.actions.items()
            for each in actions
            if kind.removesuffix("s") in types
            and symbols & {each.get(name) for name in named}
            and params["start"] <= each["process_date"] <= params["end"]
        )
        page, token = self.cut([(kind, each) for _, kind, _, each in found], params)
        grouped: dict[str, list[dict[str, Any]]] = {}
        for kind, each in page:
            grouped.setdefault(kind, []).append(each)
        self.answer(params, {"corporate_actions": grouped, "next_page_token": token}, quota)

    def cut(self, found: Sequence[Any], params: dict[str, str]) -> tuple[Sequence[Any], str | None]:
        first = int(params.get("page_token", "token0").removeprefix("token"))
        after = first + min(self.served.page, int(params["limit"]))
        return found[first:after], f"token{after}" if after < len(found) else None

    def answer(self, params: dict[str, str], content: dict[str, Any], headers: dict[str, str]) -> None:
        self.served.requests.append((urlsplit(self.path).path, params))
        self.send(200, json.dumps(content).encode(), headers)

    def fail(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.send(code, json.dumps({"message": message}).encode(), headers or {})

    def send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(code)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in {"Date": format_datetime(self.served.now(), usegmt=True), **sent}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept by the server itself."""
