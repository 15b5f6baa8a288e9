"""Loopback receivers of notices: one that takes JSON over HTTP, one that takes mail."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stockpicker_dagster_tests.trading.brokers.faulty_server import FaultyServer


class Webhook(FaultyServer):
    """Keeps every JSON document that is posted to it; faults as for brokers' servers."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[dict[str, Any]] = []

    def respond(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> tuple[int, Any]:
        self.taken.append(body)
        return 200, {"ok": True}

    @property
    def address(self) -> str:
        return self.url.replace("http://", "json://") + "/hook"


@contextmanager
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """A mail server that takes everything: its port, and the messages."""
    messages: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb", buffering=0) as line:
                line.write(b"220 here\r\n")
                while command := line.readline():
                    verb = command[:4].upper()
                    if verb == b"DATA":
                        line.write(b"354 go on\r\n")
                        text = b""
                        while not text.endswith(b"\r\n.\r\n"):
                            text += line.readline()
                        messages.append(text.decode())
                    line.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 fine\r\n")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1], messages
    finally:
        listening.close()


def posted(webhook: Webhook) -> list[str]:
    """The titles of what came."""
    return [json.loads(json.dumps(document))["title"] for document in webhook.taken]
