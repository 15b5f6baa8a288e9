"""The one door of the web: every request to every page, script and web socket passes here first.

It lets in who is signed in, by a session's cookie or a personal token, and tells the rest of the application who that
is. What a person may do is the pages' matter (`console.roles`); that a change was meant is proved here, by the form's
token and the origin. While the directory of people is empty, only the first person's link answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Engine
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stockpicker_dagster.console.door import sessions
from stockpicker_dagster.console.door.checks import (
    CONSOLE_POLICY,
    SECURITY_HEADERS,
    Addresses,
    Refused,
    check_method_and_path,
    check_site,
    cookie,
)
from stockpicker_dagster.console.door.first_person import FirstPersonLink
from stockpicker_dagster.console.door.proxies import TrustedProxy
from stockpicker_dagster.trading.people import tokens
from stockpicker_dagster.trading.people.directory import Person
from stockpicker_dagster.trading.people.sign_in import SignInRefused

MAX_BODY_BYTES = 4 * 2**20
FIRST_PATH = "/first-person"
ELSEWHERE_PATH, BACK_PATH = "/sign-in/elsewhere", "/sign-in/back"
"""To an identity provider, and back from it."""
OPEN_PATHS = ("/sign-in", ELSEWHERE_PATH, BACK_PATH, FIRST_PATH)
"""What answers to people who are not signed in; `/static/` does too."""


@dataclass(frozen=True)
class Visitor:
    """Who asks. `session` is the secret of a browser's session; None for a script with a token."""

    person: Person
    session: str | None
    fresh_at: datetime | None

    @property
    def csrf(self) -> str:
        """What every form of this visitor carries."""
        return "" if self.session is None else sessions.csrf_token(self.session)


class Door:
    """Wraps `app`; `scope["state"]["visitor"]` is the `Visitor` behind a request that passed, None where nobody is."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        engine: Engine,
        addresses: Addresses,
        port: int,
        first_person: FirstPersonLink,
        now: Callable[[], datetime],
        proxy: TrustedProxy | None = None,
    ) -> None:
        self._app = app
        self._engine = engine
        self._addresses = addresses
        self._first = first_person
        self._now = now
        self._proxy = proxy
        # Cookies are shared between ports: two StockPickers on one machine must not overwrite each other's.
        self.cookie_name = f"stockpicker-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judges one connection. The application sees only what passed."""
        if scope["type"] == "http":
            await self._http(scope, receive, _with_security_headers(send, scope["path"]))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = self._judge(scope)
        except Refused as refusal:
            answer = _refusal(scope["path"], refusal)
        if answer is not None:
            await answer(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)

    def _judge(self, scope: Scope) -> Response | None:
        """None where the request passes; what answers it instead where it goes elsewhere. Raises `Refused`."""
        origin = self._addresses.check(scope)
        check_method_and_path(scope)
        path = scope["path"]
        by_token = "authorization" in Headers(scope=scope)
        if not by_token:
            check_site(scope, origin)
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise Refused(413, f"a request may have {MAX_BODY_BYTES} bytes")
        state = scope.setdefault("state", {})
        state |= {"visitor": None, "origin": origin, "cookie": self.cookie_name}
        if self._first.nobody_yet():
            if path != FIRST_PATH and not path.startswith("/static/"):
                raise Refused(
                    503,
                    "nobody can sign in yet; open the link that `make up` printed on the terminal, or start it again",
                )
            return None
        if path.startswith("/static/"):
            return None
        state["visitor"] = self._visitor(scope)
        if state["visitor"] is None and path not in OPEN_PATHS:
            if by_token or path.startswith(("/api/", "/dagster/")):
                raise Refused(401, "sign in first, or send a personal token: Authorization: Bearer sp_...")
            return RedirectResponse("/sign-in", 303, {"Cache-Control": "no-store"})
        return None

    def _visitor(self, scope: Scope) -> Visitor | None:
        header = Headers(scope=scope).get("authorization")
        if header is not None:
            return self._by_token(scope, header)
        if self._proxy is not None and (name := self._proxy.person(scope)) is not None:
            return self._by_proxy(name)
        secret = cookie(scope, self.cookie_name)
        found = sessions.find(self._engine, secret, self._now()) if secret else None
        return None if found is None else Visitor(found.person, found.secret, found.fresh_at)

    def _by_token(self, scope: Scope, header: str) -> Visitor:
        if not scope["path"].startswith("/api/"):
            raise Refused(403, "a personal token opens /api/ only")
        kind, _, secret = header.partition(" ")
        if kind.lower() != "bearer":
            raise Refused(401, "a personal token is sent as: Authorization: Bearer sp_...")
        try:
            return Visitor(tokens.person_of_token(self._engine, secret.strip(), self._now()), None, None)
        except SignInRefused as refusal:
            raise Refused(401, str(refusal)) from refusal

    def _by_proxy(self, name: str) -> Visitor:
        assert self._proxy is not None
        person, secret = self._proxy.session_of(self._engine, name, self._now())
        return Visitor(person, secret, None)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            origin = self._addresses.check(scope)
            check_site(scope, origin)
            visitor = None if self._first.nobody_yet() else self._visitor(scope)
            if visitor is None or visitor.session is None:
                raise Refused(401, "sign in first")
            scope.setdefault("state", {}).update(visitor=visitor, origin=origin, cookie=self.cookie_name)
        except Refused:
            await receive()
            # Before the handshake is accepted, closing answers it with 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)


def _refusal(path: str, refusal: Refused) -> Response:
    """As a sentence, or for scripts as the object that every error of the interface is."""
    headers = {"Cache-Control": "no-store"}
    if path.startswith("/api/"):
        return JSONResponse({"error": str(refusal)}, refusal.status, headers)
    return PlainTextResponse(f"{refusal}\n", refusal.status, headers)


def _limited(receive: Receive) -> Receive:
    """Ends a body that turns out longer than it may be: a chunked one does not say its length before."""
    size = 0

    async def receiving() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise Refused(413, f"a request may have {MAX_BODY_BYTES} bytes")
        return message

    return receiving


def _with_security_headers(send: Send, path: str) -> Send:
    # Dagster's pages bring scripts of their own, and styles that they make.
    policy = {} if path.startswith("/dagster") else {"Content-Security-Policy": CONSOLE_POLICY}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in (SECURITY_HEADERS | policy).items():
                headers[name] = value
        await send(message)

    return sending


def fresh(visitor: Visitor, proved_at: datetime) -> Visitor:
    """The visitor, having proved a secret again at `proved_at`."""
    return replace(visitor, fresh_at=proved_at)
