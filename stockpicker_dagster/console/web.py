"""How a request becomes an answer: who may ask, whether a change was meant, and what an error of ours looks like.

Every page is declared with the least role that may have it; one table holds all of them, so that a test can walk
through every route with every role. Handlers are plain functions on an `Asked`, run beside the event loop.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from stockpicker_dagster.console.door.checks import Refused, same
from stockpicker_dagster.console.door.door import Visitor
from stockpicker_dagster.console.rendering import render
from stockpicker_dagster.console.services import Services
from stockpicker_dagster.console.views.desk import Desk, NotFound
from stockpicker_dagster.console.views.remembered import one_look
from stockpicker_dagster.console.views.today import halts_in_force
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.trading.people.directory import NotAllowed, Role

MOST_FIELDS = 2_000
LONGEST_FIELD = 64 * 1024
STOP_ASKING = 286
NAVIGATION = (
    ("/", "Today"),
    ("/ranking", "Ranking"),
    ("/backtest", "Back-test"),
    ("/proposals", "Proposals"),
    ("/executions", "Executions"),
    ("/held", "Holdings"),
    ("/models", "Models"),
    ("/strategies", "Strategies"),
    ("/runs", "Runs"),
    ("/people", "People"),
)


@dataclass(frozen=True)
class Asked:
    """One request that passed the door, with its form or JSON body as text by field."""

    request: Request
    services: Services
    visitor: Visitor | None
    fields: Mapping[str, str]

    @property
    def desk(self) -> Desk:
        """What views read from."""
        return self.services.desk

    @property
    def who(self) -> Visitor:
        """The visitor of a page that needs one."""
        assert self.visitor is not None
        return self.visitor

    @property
    def path(self) -> Mapping[str, Any]:
        """The variable parts of the address."""
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """What stands behind the question mark."""
        return self.request.query_params

    @property
    def origin(self) -> str:
        """Where a secret is tried from, for the limit on tries."""
        client = self.request.client
        return f"web:{client.host if client else 'unknown'}"


Handler = Callable[[Asked], Response]


@dataclass(frozen=True)
class Page:
    """One address and method: `role` None is open to people who are not signed in; `as_json` answers errors so."""

    path: str
    handler: Handler
    role: Role | None = "viewer"
    method: str = "GET"
    as_json: bool = False

    def route(self, services: Services) -> Route:
        """The route that Starlette serves."""

        async def endpoint(request: Request) -> Response:
            visitor: Visitor | None = request.state.visitor
            try:
                self._check_role(visitor)
                if self.as_json and self.method == "POST":
                    self._check_meant(request, visitor, {})
                fields = await self._fields(request)
                if not self.as_json and self.method == "POST":
                    self._check_meant(request, visitor, fields)
                asked = Asked(request, services, visitor, fields)
                with one_look():
                    answer = await run_in_threadpool(self.handler, asked)
            except (StockPickerError, NotFound) as error:
                answer = self._refusal(request, services, visitor, error)
            answer.headers.setdefault("Cache-Control", "no-store")
            return answer

        methods = ["GET", "HEAD"] if self.method == "GET" else [self.method]
        return Route(self.path, endpoint, methods=methods, name=f"{self.method} {self.path}")

    def _check_role(self, visitor: Visitor | None) -> None:
        if self.role is None:
            return
        if visitor is None:
            raise Refused(401, "sign in first")
        if not visitor.person.may(self.role):
            raise Refused(403, f"{visitor.person.name} is {visitor.person.role}; this needs the role {self.role}")

    async def _fields(self, request: Request) -> dict[str, str]:
        if self.method != "POST":
            return {}
        if self.as_json:
            return _json_fields(await request.body())
        async with request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD) as form:
            return {name: value for name, value in form.multi_items() if isinstance(value, str)}

    def _check_meant(self, request: Request, visitor: Visitor | None, fields: Mapping[str, str]) -> None:
        """A change from a browser carries its session's form token; a script's personal token is proof by itself."""
        if visitor is None or visitor.session is None:
            return
        given = request.headers.get("x-csrf-token") or fields.get("csrf", "")
        if not same(given, visitor.csrf):
            raise Refused(403, "this form is not of your session any more; load the page again, nothing was changed")

    def _refusal(
        self, request: Request, services: Services, visitor: Visitor | None, error: StockPickerError
    ) -> Response:
        status = _status(error)
        if self.as_json:
            return JSONResponse({"error": str(error)}, status)
        asked = Asked(request, services, visitor, {})
        return page(asked, "error.html", "Not done", status=status, sentence=str(error), code=status)


def page(asked: Asked, template: str, title: str, *, status: int = 200, here: str = "", **context: Any) -> Response:
    """One of the console's pages, with the frame that all share."""
    frame = {
        "title": title,
        "here": here,
        "visitor": asked.visitor,
        "csrf": asked.visitor.csrf if asked.visitor else "",
        "navigation": NAVIGATION if asked.visitor else (),
        "halts": halts_in_force(asked.desk) if asked.visitor else (),
        "may": (lambda role: asked.visitor is not None and asked.visitor.person.may(role)),
        "now": asked.desk.now(),
    }
    return HTMLResponse(render(template, frame | context), status)


def live(asked: Asked, part: str, *, over: bool) -> int | None:
    """The status of a page's part that its page asks for again and again; None where the whole page is asked for.

    A part in which nothing can change any more says so, by the status that htmx stops asking at.
    """
    if asked.request.headers.get("hx-target") != part:
        return None
    return STOP_ASKING if over else 200


def to(address: str) -> Response:
    """Sends the browser on after a change, so that loading again does not repeat it."""
    return RedirectResponse(address, 303)


def day_from(text: str | None) -> date | None:
    """A day in an address; None where there is none. Raises `NotFound` for another text."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise NotFound(f"{text[:40]!r} is no day; write it as YYYY-MM-DD") from error


def routes(pages: Sequence[Page], services: Services) -> list[Route]:
    """The routes of all pages."""
    return [each.route(services) for each in pages]


def _status(error: StockPickerError) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, NotAllowed):
        return 403
    return 400 if isinstance(error, InvalidInput) else 409


def _json_fields(body: bytes) -> dict[str, str]:
    """The body of an API request: one flat object of texts, numbers and null."""
    if not body:
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput('the body is not JSON; send one object, such as {"reason": "earnings"}') from error
    if not isinstance(document, dict) or len(document) > MOST_FIELDS:
        raise InvalidInput("the body is one JSON object of fields")
    for name, value in document.items():
        if not isinstance(value, str):
            raise InvalidInput(f"the field {name[:100]!r} is {type(value).__name__}; every field is text")
    return document
