"""An HTTP proxy on loopback in front of an emulator, that fails on the requests it is told to fail on.

A fault is for requests whose method and path match; it holds for a number of them. What a fault does: answers with a
status and a code instead of passing the request on; passes it on and loses the answer; or cuts the answer off.
"""

import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol
from urllib.parse import urlsplit

Kind = Literal["answer", "reset", "lose_answer", "cut_answer"]


@dataclass
class Fault:
    """`matching` is searched in "METHOD path target", target being the operation of a JSON service."""

    matching: str
    kind: Kind
    times: int = 1
    status: int = 503
    code: str = "ServiceUnavailable"
    message: str = "the test says so"


Answered = tuple[int, str, list[tuple[str, str]], bytes]
"""Status, reason, headers and body of an HTTP answer."""


class Service(Protocol):
    """Somebody who does what the emulator behind the proxy does not, and hands on the rest."""

    def reply(self, path: str, target: str, body: bytes, forward: Callable[[bytes], Answered]) -> Answered: ...


class FaultyProxy:
    """The proxy; `url` is its address, `seen` every request's "METHOD path target", `service` stands in front of the
    emulator where there is one.
    """

    def __init__(self, target: str) -> None:
        self.host = urlsplit(target).netloc
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.lock = threading.Lock()
        self.service: Service | None = None
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fail(self, *faults: Fault) -> None:
        with self.lock:
            self.faults += faults

    def forget(self) -> None:
        with self.lock:
            self.faults.clear()
            self.seen.clear()

    def requests(self, pattern: str) -> Sequence[str]:
        return [line for line in self.seen if re.search(pattern, line)]

    def fault_for(self, line: str) -> Fault | None:
        with self.lock:
            self.seen.append(line)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.matching, line):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self._body()
        target = self.headers.get("X-Amz-Target", "")
        fault = self.proxy.fault_for(f"{self.command} {self.path} {target}".strip())
        if fault is not None and fault.kind == "answer":
            return self._answer_fault(fault, bool(target))
        if fault is not None and fault.kind == "reset":
            return self._reset()
        if self.proxy.service is None:
            status, reason, headers, content = self._forwarded(body)
        else:
            status, reason, headers, content = self.proxy.service.reply(self.path, target, body, self._forwarded)
        if fault is not None and fault.kind == "lose_answer":
            return self._reset()
        self.send_response_only(status, reason)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", str(len(content)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            if fault is not None and fault.kind == "cut_answer":
                self.wfile.write(content[: len(content) // 2])
                return self._reset()
            self.wfile.write(content)
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forwarded(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.proxy.host, timeout=60)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("connection", "expect", "transfer-encoding", "content-length")
        }
        try:
            connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, answer.reason, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer_fault(self, fault: Fault, in_json: bool) -> None:
        if in_json or self.path.startswith("/endpoints"):
            content, kind = json.dumps({"__type": fault.code, "message": fault.message}).encode(), "application/json"
        else:
            inner = f"<Code>{fault.code}</Code><Message>{fault.message}</Message>"
            # S3's errors are not wrapped; those of the query services are, and S3's parser takes either.
            wrapped = f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>" if self.path == "/" else None
            content, kind = (wrapped or f"<Error>{inner}</Error>").encode(), "application/xml"
        self.send_response_only(fault.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        """Ends the connection as a broken network does, so that the client sees a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
