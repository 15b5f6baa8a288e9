"""A publisher of lists on loopback: answers what a test tells it to."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class ListServer(ThreadingHTTPServer):
    """Answers every request with `status` and `body`, and counts them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.requests = 200, b"", 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/list"

    def publish(self, sectors: dict[str, str]) -> None:
        """A CSV of symbols and their sectors."""
        rows = [f"{symbol},{symbol} Inc.,{sector}" for symbol, sector in sectors.items()]
        self.status, self.body = 200, "\n".join(["Symbol,Security,GICS Sector", *rows]).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ListServer

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""


@contextmanager
def list_server() -> Iterator[ListServer]:
    """A server that runs inside the block."""
    server = ListServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
