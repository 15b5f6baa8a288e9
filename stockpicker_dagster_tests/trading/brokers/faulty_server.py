"""A loopback HTTP server that can misbehave in every way of the fault list; the brokers' servers are built on it.

A fault is played on the requests it names, before they have any effect or after it: the connection drops, nothing comes
back for a long time, a gateway answers 504, 500 or a page of HTML, the answer is cut, a field lacks or says something
new. What was answered is kept, so that a test can hold it against the broker's own document.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BEFORE = ("drop", "hang", "504", "500", "html_500", "429", "redirect")
"""Faults in which the request has no effect."""
AFTER = ("drop_after", "hang_after", "504_after", "500_after", "html_500_after", "html_200_after", "truncated_after")
"""Faults in which it has, and the answer is lost."""
_HTML = b"<html><body><h1>Bad gateway</h1></body></html>"


@dataclass
class Fault:
    """`kind` is one of the above, or `edit`, with which `change` edits the true answer; `times` None: for ever."""

    kind: str
    method: str = "POST"
    path: str = ""
    times: int | None = 1
    change: Callable[[Any], Any] | None = None
    retry_after: str | None = None


@dataclass
class Answered:
    """One answer that went out: what was asked, and what was said."""

    method: str
    path: str
    status: int
    body: bytes


class FaultyServer:
    """Answers requests with `respond`, which returns a status and a JSON value (None: no body)."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.answered: list[Answered] = []
        self.received: list[tuple[str, str]] = []
        self.skew = 0.0
        """Seconds by which the server's clock is ahead."""
        self.broken_off = 0
        """How many requests ended before their body did."""
        self._lock = threading.Lock()
        self.release = threading.Event()
        outer = self

        class Handler(_Handler):
            server_object = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def respond(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> tuple[int, Any]:
        """What the broker says."""
        raise NotImplementedError

    def clock(self) -> datetime:
        """The time in the Date header."""
        return datetime.now(UTC)

    def play(self, kind: str, path: str = "", method: str = "POST", times: int | None = 1, **more: Any) -> None:
        """Plays a fault on the next `times` requests of this method whose path begins so."""
        self.faults.append(Fault(kind, method, path, times, **more))

    def edit(self, path: str, change: Callable[[Any], Any], method: str = "GET", times: int | None = 1) -> None:
        """Edits the true answer to the next `times` requests."""
        self.faults.append(Fault("edit", method, path, times, change))

    def count(self, method: str, path: str = "") -> int:
        """How many such requests came in, whatever became of them."""
        return sum(asked == method and where.startswith(path) for asked, where in self.received)

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method == method and path.startswith(fault.path):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self.faults.remove(fault)
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_object: FaultyServer
    timeout = 30

    def _handle(self) -> None:
        server = self.server_object
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        if len(raw) < length:
            # A request that was broken off is none.
            server.broken_off += 1
            self.close_connection = True
            return
        server.received.append((self.command, parts.path))
        fault = server.take_fault(self.command, parts.path)
        kind = fault.kind if fault else ""
        if fault and kind in BEFORE:
            self._misbehave(kind, fault)
            return
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        status, value = server.respond(self.command, parts.path, query, json.loads(raw) if raw else None, self.headers)
        if fault and kind in AFTER:
            self._misbehave(kind.removesuffix("_after"), fault, value)
            return
        if fault and fault.change is not None:
            value = fault.change(json.loads(_encoded(value)))
        body = b"" if value is None else _encoded(value)
        server.answered.append(Answered(self.command, parts.path, status, body))
        self._answer(status, body)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 (names of the standard library)

    def _misbehave(self, kind: str, fault: Fault, value: Any = None) -> None:
        if kind == "hang":
            self.server_object.release.wait(20)
        if kind in ("drop", "hang"):
            self.close_connection = True
        elif kind == "429":
            extra = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            self._answer(429, _encoded({"message": "too many requests."}), extra=extra)
        elif kind == "500":
            self._answer(500, _encoded({"message": "internal server error occurred"}))
        elif kind == "redirect":
            self._answer(302, b"", extra={"Location": "/elsewhere"})
        elif kind == "truncated":
            self._answer(200, _encoded(value)[:-10])
        else:
            self._answer(int(kind.removeprefix("html_")), _HTML, "text/html")

    def _answer(
        self, status: int, body: bytes, content: str = "application/json", extra: dict[str, str] | None = None
    ) -> None:
        self.send_response_only(status)
        self.send_header("Date", format_datetime(self.server_object.clock(), usegmt=True))
        if status != 204:
            self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        for name, text in (extra or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _encoded(value: Any) -> bytes:
    return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(value)
