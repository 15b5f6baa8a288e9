"""The guard in front of Dagster's web server, which itself has no login, mutates on GET and accepts foreign origins.

A request passes if it was addressed to this server by name (so that no rebound DNS name reaches it), carries the
cookie that only the token of this start buys, comes from this server's own pages where it could change something, and
asks for nothing that `operations` refuses. It knows no people: deciding on proposals happens elsewhere.

What a cookie on loopback cannot do: browsers send it to every port of one host, so a server that another user of this
machine runs would receive it if the person opened that server's page, and could then act as the person. On a machine
shared with people you do not trust, give StockPicker a machine, or a network namespace, of its own.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stockpicker_dagster.console.operations import RefusedOperation, checked_request, checked_subscription
from stockpicker_dagster.errors import StockPickerError

PREFIX = "/dagster"
GRAPHQL = f"{PREFIX}/graphql"
# The pages' largest request, a launch that names thousands of assets, stays well under it.
MAX_BODY_BYTES = 4 * 2**20
# Writing history without a run, and rendering notebooks (which executes what is in them), are for nobody.
REFUSED_PATHS = ("report_asset_materialization", "report_asset_check", "report_asset_observation", "notebook", "dagit")
SECURITY_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Headers that decide whether a request passes: sent twice, two readers could see two values.
DECISIVE_HEADERS = ("host", "origin", "cookie", "content-type", "sec-fetch-site")


class Refused(StockPickerError):
    """A request does not pass; `status` is the HTTP status that says so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Wraps `app` for the pages served at `127.0.0.1:port` and `localhost:port`.

    `token` is what a person's first request carries as `/?token=...`; it is exchanged for a cookie, which holds a value
    derived from it, and a redirect takes it out of the address bar.
    """

    def __init__(self, app: ASGIApp, *, port: int, token: str) -> None:
        self._app = app
        self._token = token
        self._session = hmac.new(token.encode(), b"stockpicker session", hashlib.sha256).hexdigest()
        # Cookies are shared between ports: two StockPickers on one machine must not overwrite each other's.
        self._cookie = f"stockpicker-{port}"
        self._origins = {f"{host}:{port}": f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judges one connection. Dagster sees only what passed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_security_headers(send))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            entrance = self._entrance(scope)
            if entrance is not None:
                await entrance(scope, receive, send)
                return
            self._check_visitor(scope)
            if scope["method"] == "POST":
                receive = await self._checked_body(scope, receive)
        except Refused as refusal:
            await PlainTextResponse(f"{refusal}\n", refusal.status, {"Cache-Control": "no-store"})(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _entrance(self, scope: Scope) -> RedirectResponse | None:
        """What answers at `/`: the exchange of the token for the cookie, or the way to Dagster."""
        host = self._checked_host(scope)
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        answer = RedirectResponse(f"{self._origins[host]}{PREFIX}/", 303, {"Cache-Control": "no-store"})
        if "token" in query:
            if not _same(query["token"][0], self._token):
                raise Refused(403, "this token is not of this start; use the address that `make up` printed last")
            answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
            return answer
        self._check_session(scope)
        return answer

    def _check_visitor(self, scope: Scope) -> None:
        """Everything but the body: who asks, from where, by which method, for which page."""
        self._check_session(scope)
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST"):
            raise Refused(405, f"the method {method} is not taken here; allowed: GET, HEAD, POST")
        parts = path.split("/")
        if ".." in parts or "\\" in path:
            raise Refused(403, "a path with '..' in it is not taken")
        if any(part in REFUSED_PATHS for part in parts[:3]):
            raise Refused(403, "assets are reported by runs only, and notebooks are not rendered here")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(403, "only this server's own pages may ask in the background")
        if method == "POST":
            self._check_same_origin(scope)
            if path != GRAPHQL:
                raise Refused(405, f"only {GRAPHQL} takes a POST")
        else:
            self._check_origin_if_sent(scope)
            if path.rstrip("/") == GRAPHQL and scope["query_string"]:
                raise Refused(405, "GraphQL is asked by POST, never in an address")

    def _checked_host(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        for name in DECISIVE_HEADERS:
            if len(headers.getlist(name)) > 1:
                raise Refused(400, f"the header {name} was sent more than once")
        host = headers.get("host", "")
        if host not in self._origins:
            raise Refused(403, f"this server answers only at {' and '.join(self._origins)}")
        return host

    def _check_session(self, scope: Scope) -> None:
        if not _same(_cookie(Headers(scope=scope).get("cookie", ""), self._cookie), self._session):
            raise Refused(401, "open the address that `make up` printed: it carries this start's token")

    def _check_same_origin(self, scope: Scope) -> None:
        """A request that can change something says itself that it comes from this server's own pages."""
        headers = Headers(scope=scope)
        if "origin" not in headers and headers.get("sec-fetch-site") != "same-origin":
            raise Refused(403, "a request that can change something must name its Origin")
        self._check_origin_if_sent(scope)

    def _check_origin_if_sent(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin != self._origins[headers["host"]]:
            raise Refused(403, f"the origin {origin[:200]!r} is not this server")

    async def _checked_body(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the whole body, judges it, and gives Dagster what was judged, written anew."""
        content_type = Headers(scope=scope).get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "GraphQL is taken as application/json only")
        body = _passed_on(await _read(receive), checked_request)
        headers = MutableHeaders(scope=scope)
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        # Dagster falls back to the address where it does not find a query in the body.
        scope["query_string"] = b""
        return _replay(body, receive)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._checked_host(scope)
            self._check_session(scope)
            self._check_same_origin(scope)
            if scope["path"] != GRAPHQL:
                raise Refused(403, f"web sockets are open at {GRAPHQL} only")
        except Refused:
            await receive()
            # Before the handshake is accepted, closing answers it with 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, _checked_messages(receive), send)


def new_token() -> str:
    """A token for one start: 32 random bytes, safe in an address."""
    return secrets.token_urlsafe(32)


def entrance_url(port: int, token: str) -> str:
    """The address that lets a person in; it is printed once and logged nowhere."""
    return f"http://127.0.0.1:{port}/?{urlencode({'token': token})}"


def _same(given: str, expected: str) -> bool:
    """Compares in time that does not depend on how much of `given` is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _cookie(header: str, name: str) -> str:
    found = [value for key, _, value in (part.strip().partition("=") for part in header.split(";")) if key == name]
    return found[0] if len(found) == 1 else ""


def _with_security_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return sending


async def _read(receive: Receive) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request ended before its body did")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise Refused(413, f"a request may have {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _passed_on(text: bytes | str, judge: Callable[[object], Mapping[str, object]]) -> bytes:
    """`text` as JSON, judged and written anew, so that Dagster reads exactly what the guard read."""
    try:
        return json.dumps(judge(json.loads(text))).encode()
    except RefusedOperation as refusal:
        raise Refused(403, str(refusal)) from refusal
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the request is not JSON that this server reads") from error


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replaying() -> Message:
        return pending.pop() if pending else await receive()

    return replaying


def _checked_messages(receive: Receive) -> Receive:
    """Lets the pages' control messages and subscriptions pass; anything else ends the connection."""

    async def receiving() -> Message:
        message = await receive()
        if message["type"] != "websocket.receive":
            return message
        try:
            text = message.get("text")
            if text is None:
                raise Refused(400, "a web socket carries text only")
            return {"type": "websocket.receive", "text": _passed_on(text, _checked_message).decode()}
        except Refused:
            return {"type": "websocket.disconnect", "code": 1008}

    return receiving


def _checked_message(message: object) -> Mapping[str, object]:
    if not isinstance(message, dict):
        raise RefusedOperation("a message is one JSON object")
    kind = message.get("type")
    if kind == "start":
        return {"type": kind, "id": _identifier(message), "payload": checked_subscription(message.get("payload"))}
    if kind == "stop":
        return {"type": kind, "id": _identifier(message)}
    if kind in ("connection_init", "connection_terminate"):
        return {"type": kind}
    raise RefusedOperation("messages are connection_init, start, stop and connection_terminate")


def _identifier(message: Mapping[str, object]) -> str:
    identifier = message.get("id")
    if not isinstance(identifier, str) or not re.fullmatch(r"[\w-]{1,64}", identifier):
        raise RefusedOperation("the id of a subscription is up to 64 letters, digits, '-' and '_'")
    return identifier
