"""The console as one application: one door around its pages, its API, and Dagster's pages under `/dagster`."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from stockpicker_dagster.console import api
from stockpicker_dagster.console.door.checks import Addresses
from stockpicker_dagster.console.door.door import Door
from stockpicker_dagster.console.door.proxies import TrustedProxy
from stockpicker_dagster.console.guard import PREFIX, Guard
from stockpicker_dagster.console.pages import deciding, people, reading, signing_in, writing
from stockpicker_dagster.console.rendering import STATIC
from stockpicker_dagster.console.services import Services
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.console.web import Page, routes

PAGES: tuple[Page, ...] = (
    *signing_in.PAGES,
    *reading.PAGES,
    *deciding.PAGES,
    *writing.PAGES,
    *people.PAGES,
    *api.PAGES,
)
"""Every address of the console, each with its method and the role that it needs."""


def application(
    parts: Services,
    *,
    addresses: Addresses,
    port: int,
    dagster_pages: ASGIApp | None = None,
    proxy: TrustedProxy | None = None,
) -> ASGIApp:
    """Everything behind one door; without `dagster_pages` there is nothing under `/dagster`."""
    console = Starlette(
        routes=[
            Route("/static/plotly.min.js", _plotly),
            Mount("/static", StaticFiles(directory=STATIC)),
            *routes(PAGES, parts),
        ],
    )
    # The quickest level: the others take twice the time for a tenth less, while every other answer waits.
    zipped = GZipMiddleware(console, minimum_size=2_000, compresslevel=1)
    guarded = Guard(dagster_pages) if dagster_pages is not None else None

    async def split(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if guarded is not None and (path == PREFIX or path.startswith(f"{PREFIX}/")):
            await guarded(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await zipped(scope, receive, send)

    return Door(
        split,
        engine=parts.desk.database,
        addresses=addresses,
        port=port,
        first_person=parts.first_person,
        now=_clock(parts.desk),
        proxy=proxy,
    )


def answer_promptly() -> None:
    """Has the threads of this process give way to each other five times as often as Python does by itself.

    The door answers on one thread beside those that draw pages; each time that it asks the database, it would wait for
    as long as one of them may go on.
    """
    sys.setswitchinterval(0.001)


def _clock(desk: Desk) -> Callable[[], datetime]:
    return desk.now


def _plotly(_request: object) -> Response:
    """plotly.js as its Python package brings it."""
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return FileResponse(script, media_type="text/javascript", headers={"Cache-Control": "private, max-age=86400"})
