"""What every request proves before anything reads it: where it was addressed, where it comes from, and by what method.

Nothing here knows people. Addresses are compared with the port, because cookies of one host are sent to all its ports.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from stockpicker_dagster.errors import StockPickerError

# Headers that decide whether a request passes: sent twice, two readers could see two values.
DECISIVE_HEADERS = ("host", "origin", "cookie", "content-type", "content-length", "authorization", "sec-fetch-site")
METHODS = ("GET", "HEAD", "POST")
SECURITY_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""No script but our own files. Styles may be inline: plotly sets them on every element that it draws."""


class Refused(StockPickerError):
    """A request does not pass; `status` is the HTTP status that says so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Addresses:
    """The names that this server answers to, each with the origin of its own pages."""

    origins: Mapping[str, str]

    @classmethod
    def on_loopback(cls, port: int) -> "Addresses":
        """127.0.0.1 and localhost at one port."""
        return cls({f"{host}:{port}": f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")})

    def check(self, scope: Scope) -> str:
        """The origin that the request was addressed to. Raises `Refused` for another host or a doubled header."""
        headers = Headers(scope=scope)
        for name in DECISIVE_HEADERS:
            if len(headers.getlist(name)) > 1:
                raise Refused(400, f"the header {name} was sent more than once")
        host = headers.get("host", "")
        if host not in self.origins:
            raise Refused(403, f"this server answers only at {' and '.join(self.origins)}")
        return self.origins[host]


def check_method_and_path(scope: Scope) -> None:
    """Raises `Refused` for a method that is not taken here, and for a path that climbs."""
    if scope["method"] not in METHODS:
        raise Refused(405, f"the method {scope['method']} is not taken here; allowed: {', '.join(METHODS)}")
    path = scope["path"]
    if ".." in path.split("/") or "\\" in path or "\0" in path:
        raise Refused(403, "a path with '..' in it is not taken")


def check_site(scope: Scope, origin: str) -> None:
    """Raises `Refused` where a page of another site asks: for anything in the background, and for any change.

    A change names its Origin, with the port, or the browser itself says that it is the same one.
    """
    headers = Headers(scope=scope)
    site, named = headers.get("sec-fetch-site"), headers.get("origin")
    if site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
        raise Refused(403, "only this server's own pages may ask in the background")
    if named is not None and named != origin:
        raise Refused(403, f"the origin {named[:200]!r} is not this server")
    changes = scope["type"] == "websocket" or scope["method"] == "POST"
    if changes and named is None and site != "same-origin":
        raise Refused(403, "a request that can change something must name its Origin")


def same(given: str, expected: str) -> bool:
    """Compares in time that does not depend on how much of `given` is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def cookie(scope: Scope, name: str) -> str:
    """The value of a cookie that was sent once; empty otherwise."""
    header = Headers(scope=scope).get("cookie", "")
    found = [value for key, _, value in (part.strip().partition("=") for part in header.split(";")) if key == name]
    return found[0] if len(found) == 1 else ""
