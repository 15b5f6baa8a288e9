"""Supervising one batch transform: files are sent to a server in pieces, and its answers are put together.

Lines keep their order; `<input>.out` has one answer a line, joined with its line where that is asked for. One piece
that cannot be scored fails the job.
"""

import csv
import gzip
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.local.filters import ColumnFilter
from stockpicker_dagster.training.platforms.local.locations import files_under, path_of
from stockpicker_dagster.training.platforms.local.records import INTERNAL, Record, now
from stockpicker_dagster.training.platforms.local.serving import Server, ask

ENDED = ("Completed", "Failed", "Stopped")
MEGABYTE = 2**20
_STRATEGIES = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}
_HEALTH_SECONDS = 600
_END_SECONDS = 30


class Stopped(StockPickerError):
    """The job was asked to stop."""


def initial_state(request: dict[str, Any], arn: str, container: dict[str, Any]) -> dict[str, Any]:
    """The state of a job that nobody has begun to supervise."""
    moment = now()
    return {
        "TransformJobArn": arn,
        "TransformJobStatus": "InProgress",
        "CreationTime": moment,
        "LastModifiedTime": moment,
        INTERNAL: {"container": container},
    }


def supervise(record: Record, lock: int, warm: bool) -> None:
    """Runs the job to its end; whatever happens to it is in its state."""
    request, state = record.request, record.state
    state = {**state, "TransformStartTime": now(), "LastModifiedTime": now()}
    record.write(state)
    server = None
    try:
        server = Server(
            state[INTERNAL]["container"],
            {**(request.get("Environment") or {}), **_variables(request)},
            record.folder,
            record.log,
            lock,
            warm,
        )
        _await_health(record, server)
        _Transform(record, request, server).run()
        ending = {"TransformJobStatus": "Completed"}
    except Stopped:
        ending = {"TransformJobStatus": "Stopped"}
    except (StockPickerError, OSError) as error:
        ending = {"TransformJobStatus": "Failed", "FailureReason": str(error)[:1024]}
    finally:
        if server is not None:
            server.process.end(_END_SECONDS)
    record.write({**state, **ending, "TransformEndTime": now(), "LastModifiedTime": now()})


def _variables(request: dict[str, Any]) -> dict[str, str]:
    return {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(request.get("MaxPayloadInMB", 6)),
        "SAGEMAKER_BATCH_STRATEGY": _STRATEGIES[request.get("BatchStrategy", "MultiRecord")],
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(request.get("MaxConcurrentTransforms") or 0),
    }


def _await_health(record: Record, server: Server) -> None:
    until = time.monotonic() + _HEALTH_SECONDS
    while not server.healthy():
        if record.asked_to_stop:
            raise Stopped("stopped")
        if time.monotonic() > until:
            raise PlatformFailure(f"the container did not pass the ping health check within {_HEALTH_SECONDS} s")
        time.sleep(0.02)


class _Transform:
    """One job's settings, with defaults."""

    def __init__(self, record: Record, request: dict[str, Any], server: Server) -> None:
        self.record = record
        self.source, self.output = request["TransformInput"], request["TransformOutput"]
        processing = request.get("DataProcessing") or {}
        self.join = processing.get("JoinSource", "None") == "Input"
        self.filter_in = ColumnFilter(processing.get("InputFilter") or "$")
        self.filter_out = ColumnFilter(processing.get("OutputFilter") or "$")
        self.split = self.source.get("SplitType", "None")
        self.single = request.get("BatchStrategy") == "SingleRecord"
        self.payload = request.get("MaxPayloadInMB", 6) * MEGABYTE or None
        client = request.get("ModelClientConfig") or {}
        self.timeout = client.get("InvocationsTimeoutInSeconds", 600)
        self.retries = client.get("InvocationsMaxRetries", 3)
        self.port = server.port
        self.at_once = request.get("MaxConcurrentTransforms") or self._preferred()

    def run(self) -> None:
        files = files_under(self.source["DataSource"]["S3DataSource"]["S3Uri"])
        if not files:
            raise PlatformFailure(f"no file at {self.source['DataSource']['S3DataSource']['S3Uri']}")
        target = path_of(self.output["S3OutputPath"])
        with ThreadPoolExecutor(self.at_once) as pool:
            for file, name in files:
                content = file.read_bytes()
                if self.source.get("CompressionType") == "Gzip":
                    content = gzip.decompress(content)
                pieces = list(self._pieces(content))
                answers = list(pool.map(lambda piece, name=name: self._answer(piece, name), pieces))
                whole = target / f"{name}.out"
                whole.parent.mkdir(parents=True, exist_ok=True)
                fresh = whole.with_name(f".{whole.name}.new")
                fresh.write_bytes(self._together(answers))
                fresh.rename(whole)

    def _pieces(self, content: bytes) -> Iterator[bytes]:
        """The content as it is sent: whole, line by line, or as many lines as fit into a payload."""
        if self.split != "Line":
            yield content
            return
        lines: list[bytes] = []
        size = 0
        for line in content.splitlines(keepends=True):
            if lines and (self.single or (self.payload and size + len(line) > self.payload)):
                yield b"".join(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield b"".join(lines)

    def _answer(self, piece: bytes, name: str) -> bytes:
        if self.record.asked_to_stop:
            raise Stopped("stopped")
        sent = piece if self.filter_in.everything else _write(self.filter_in.choose(row) for row in _rows(piece))
        headers = {"Content-Type": self.source.get("ContentType", "")}
        if self.output.get("Accept"):
            headers["Accept"] = self.output["Accept"]
        for attempt in range(self.retries + 1):
            try:
                status, _, said = ask(self.port, "POST", "/invocations", sent, headers, self.timeout)
            except OSError as error:
                status, said = 0, str(error).encode()
            if status == 200:
                return self._chosen(piece, said, name)
            if 400 <= status < 500 or attempt == self.retries:
                break
            time.sleep(min(5.0, 0.2 * 2**attempt))
        words = said[:500].decode(errors="replace").strip()
        raise PlatformFailure(f"{name}: the container answered {status or 'nothing'}: {words}")

    def _chosen(self, piece: bytes, said: bytes, name: str) -> bytes:
        """The answer to a piece, joined with its lines and narrowed to the columns asked for."""
        if not self.join and self.filter_out.everything:
            return said
        answers = list(_rows(said))
        if self.join:
            inputs = list(_rows(piece))
            if len(inputs) != len(answers):
                raise PlatformFailure(f"{name}: {len(inputs)} lines were answered by {len(answers)}: not to be joined")
            answers = [[*line, *answer] for line, answer in zip(inputs, answers, strict=True)]
        return _write(self.filter_out.choose(row) for row in answers)

    def _together(self, answers: list[bytes]) -> bytes:
        if self.output.get("AssembleWith") != "Line":
            return b"".join(answers)
        return b"".join(answer if answer.endswith(b"\n") or not answer else answer + b"\n" for answer in answers)

    def _preferred(self) -> int:
        status, _, said = ask(self.port, "GET", "/execution-parameters", timeout=5)
        return int(json.loads(said)["MaxConcurrentTransforms"]) if status == 200 else 1


def _rows(content: bytes) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(content.decode(), newline=""))


def _write(rows: Iterator[list[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
