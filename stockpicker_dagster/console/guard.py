"""The guard in front of Dagster's web server, which itself has no login, mutates on GET and accepts foreign origins.

The door has proved who asks and from where before a request comes here. Dagster sees a request only if the person's
role allows every operation in it, and then exactly as it was judged. Deciding on proposals happens elsewhere.
"""

import json
import re
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stockpicker_dagster.console import operations
from stockpicker_dagster.console.door.checks import Refused
from stockpicker_dagster.console.operations import RefusedOperation, checked_request, checked_subscription
from stockpicker_dagster.trading.people.directory import Person

PREFIX = "/dagster"
GRAPHQL = f"{PREFIX}/graphql"
# The pages' largest request, a launch that names thousands of assets, stays well under it.
MAX_BODY_BYTES = 4 * 2**20
# Writing history without a run, and rendering notebooks (which executes what is in them), are for nobody.
REFUSED_PATHS = ("report_asset_materialization", "report_asset_check", "report_asset_observation", "notebook", "dagit")


class Guard:
    """Wraps Dagster's application `app`; every request carries a visitor in its state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judges one connection. Dagster sees only what passed."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            _check_page(scope)
            if scope["method"] == "POST":
                receive = await _checked_body(scope, receive)
        except Refused as refusal:
            await PlainTextResponse(f"{refusal}\n", refusal.status, {"Cache-Control": "no-store"})(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != GRAPHQL:
            await receive()
            # Before the handshake is accepted, closing answers it with 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, _checked_messages(receive), send)


def allowed_mutations(person: Person) -> frozenset[str]:
    """What a person may ask of Dagster beside reading."""
    if person.may("administrator"):
        return operations.ADMINISTRATORS_MUTATIONS
    return operations.RESEARCHERS_MUTATIONS if person.may("researcher") else operations.NO_MUTATIONS


def _check_page(scope: Scope) -> None:
    method, path = scope["method"], scope["path"]
    if any(part in REFUSED_PATHS for part in path.split("/")[:3]):
        raise Refused(403, "assets are reported by runs only, and notebooks are not rendered here")
    # Written plainly, too: a proxy in front that judges addresses must not read another one.
    if method == "POST" and (path != GRAPHQL or scope.get("raw_path", b"") not in (b"", GRAPHQL.encode())):
        raise Refused(405, f"only {GRAPHQL} takes a POST")
    if method != "POST" and path.rstrip("/") == GRAPHQL and scope["query_string"]:
        raise Refused(405, "GraphQL is asked by POST, never in an address")


async def _checked_body(scope: Scope, receive: Receive) -> Receive:
    """Reads the whole body, judges it, and gives Dagster what was judged, written anew."""
    content_type = Headers(scope=scope).get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "GraphQL is taken as application/json only")
    allowed = allowed_mutations(scope["state"]["visitor"].person)
    body = _passed_on(await _read(receive), lambda payload: checked_request(payload, allowed))
    headers = MutableHeaders(scope=scope)
    headers["content-type"] = "application/json"
    headers["content-length"] = str(len(body))
    # Dagster falls back to the address where it does not find a query in the body.
    scope["query_string"] = b""
    return _replay(body, receive)


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
