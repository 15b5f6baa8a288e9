"""`serve`: answers for the model under `/opt/ml/model` over HTTP, for an endpoint or a batch transform.

GET `/ping`, POST `/invocations`, GET `/execution-parameters`. Whatever is wrong with a request is a 4xx that says what;
the model is loaded before the port is opened, so that a server that answers can score.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.training.container.layout import ENDPOINT_BODY, Layout
from stockpicker_dagster.training.container.payloads import Refused, read_rows, write_scores
from stockpicker_dagster.training.inference import reason_columns, score_rows
from stockpicker_dagster.training.models import TrainedModel, WrongModel, describe_stored_model, load_model

MEGABYTE = 2**20
BODY_SECONDS = 60
"""So long a body may take to arrive."""
END_SECONDS = 20
"""So long requests may take to end after SIGTERM; 30 s after it comes SIGKILL."""
REASONS = "STOCKPICKER_REASONS"
"""Set, it asks for columns beside the score: the features that moved it most, by place, and by how much."""
MODEL_ID = "X-Amzn-SageMaker-Custom-Attributes"
"""The header that an endpoint passes on; it names the model that scored."""


class Limits:
    """What the platform says of the requests that will come: payload, records in it, and how many at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.batch = environment.get("SAGEMAKER_BATCH", "").lower() in ("true", "1")
        self.reasons = bool(environment.get(REASONS))
        self.payload = _whole(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", 6)
        self.at_once = _whole(environment, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", 0) or os.cpu_count() or 1
        self.strategy = (environment.get("SAGEMAKER_BATCH_STRATEGY") or "MULTI_RECORD").upper()
        if self.strategy not in ("MULTI_RECORD", "SINGLE_RECORD"):
            raise InvalidInput(
                f"SAGEMAKER_BATCH_STRATEGY {self.strategy!r} is not allowed; allowed: MULTI_RECORD, SINGLE_RECORD"
            )

    @property
    def body(self) -> int | None:
        """Bytes that a body may have; None: any number, as a batch with a payload of 0 asks."""
        if not self.batch:
            return ENDPOINT_BODY
        return self.payload * MEGABYTE if self.payload else None


def application(model: TrainedModel, limits: Limits) -> Starlette:
    """The server's answers; `model` is loaded."""

    async def ping(request: Request) -> Response:
        return Response(status_code=200)

    async def execution_parameters(request: Request) -> Response:
        return JSONResponse(
            {
                "MaxConcurrentTransforms": limits.at_once,
                "BatchStrategy": limits.strategy,
                "MaxPayloadInMB": limits.payload,
            }
        )

    async def invocations(request: Request) -> Response:
        try:
            body = await _body(request, limits.body)
            kind, scores = await run_in_threadpool(
                answer,
                model,
                request.headers.get("content-type", ""),
                body,
                request.headers.get("accept", ""),
                limits.reasons,
            )
        except Refused as error:
            return PlainTextResponse(f"{error}\n", error.status)
        except StockPickerError as error:
            return PlainTextResponse(f"{error}\n", 400)
        except ClientDisconnect:
            return Response(status_code=499)
        except MemoryError:
            return PlainTextResponse("the rows need more memory than the server has; send fewer at once\n", 413)
        except Exception as error:
            traceback.print_exc()
            return PlainTextResponse(f"scoring failed with {type(error).__name__}; the log says more\n", 500)
        return Response(scores, media_type=kind, headers={MODEL_ID: model.model_id})

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/execution-parameters", execution_parameters),
            Route("/invocations", invocations, methods=["POST"]),
        ]
    )


def serve(layout: Layout) -> int:
    """Serves until SIGTERM; 1 if the model, a setting or the port is not what it has to be, said on standard error."""
    import uvicorn

    try:
        limits = Limits(os.environ)
        model = _load(layout.model)
        listening = _listen()
    except StockPickerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    # The server, once it has ended, hands SIGTERM on to whoever handled it before: that end is no error.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    host, port = listening.getsockname()[:2]
    sys.stdout.write(f"serving {model.model_id} on {host}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        application(model, limits),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=END_SECONDS,
        lifespan="off",
        server_header=False,
    )
    with contextlib.closing(listening):
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _load(folder: Path) -> TrainedModel:
    described = describe_stored_model(folder)
    expected = os.environ.get("STOCKPICKER_STRATEGY")
    try:
        strategy, features = str(described["strategy"]), list(described["features"])
        return load_model(folder, expected or strategy, features)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StockPickerError):
            raise
        raise WrongModel(f"the model in {folder} lacks {error}; train it again") from error


def _listen() -> socket.socket:
    """A socket on `SAGEMAKER_BIND_TO_PORT` (0: any free port) of `STOCKPICKER_BIND_TO_HOST`, by default all of them."""
    host = os.environ.get("STOCKPICKER_BIND_TO_HOST") or "0.0.0.0"  # noqa: S104 - the container's own network
    port = _whole(os.environ, "SAGEMAKER_BIND_TO_PORT", 8080)
    if port > 65_535:
        raise InvalidInput(f"SAGEMAKER_BIND_TO_PORT {port} is not allowed; allowed: 0 to 65535")
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise InvalidInput(
            f"port {port} of {host} cannot be opened ({reason}); set SAGEMAKER_BIND_TO_PORT to a free one"
        ) from error


def answer(model: TrainedModel, content_type: str, body: bytes, accept: str, reasons: bool) -> tuple[str, bytes]:
    """Content type and body of what the model says of the rows in `body`. Raises `Refused` as `payloads` does."""
    rows = read_rows(content_type, body, model.features)
    if not reasons:
        return write_scores(rows, model.algorithm.predict(rows.values, model.features), accept)
    said = score_rows(model.algorithm, rows.values, model.features)
    return write_scores(rows, said.scores, accept, reason_columns(said))


async def _body(request: Request, most: int | None) -> bytes:
    """The whole body. Raises `Refused`: 413 if it is too long, before it is read where it says so, 408 if too slow."""
    said = request.headers.get("content-length", "")
    if most is not None and said.isdecimal() and int(said) > most:
        raise _too_long(most)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "the body is encoded; send it as it is")
    parts, length = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if most is not None and length > most:
                    raise _too_long(most)
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_SECONDS} s") from None
    return b"".join(parts)


def _too_long(most: int) -> Refused:
    return Refused(413, f"the body has more than {most} bytes ({most / MEGABYTE:g} MB); send fewer rows at once")


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name) or str(default)
    if not given.isdecimal():
        raise InvalidInput(f"{name} {given!r} is not allowed; allowed: a whole number of at least 0")
    return int(given)
