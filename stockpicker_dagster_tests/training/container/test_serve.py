"""`serve` as a platform asks it, over HTTP: health, scores, limits, refusals, and its end."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.container.serve import Limits
from stockpicker_dagster.training.models import load_model, train_model
from stockpicker_dagster_tests.training.small_strategy import FEATURES, dataset

VALUES = np.random.default_rng(5).normal(size=(300, 2)).astype(np.float32)
CSV = "\n".join(",".join(repr(float(value)) for value in row) for row in VALUES).encode()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container's root with a model."""
    folder = tmp_path_factory.mktemp("served")
    stored = folder / "dataset"
    stored.mkdir()
    for name, content in dataset().files.items():
        assert isinstance(content, bytes)
        (stored / name).write_bytes(content)
    (folder / "ml" / "model").mkdir(parents=True)
    for name, content in train_model("mine", "2023-06-01", stored, "linear", {"alpha": 1.0}, 0).files.items():
        assert isinstance(content, bytes)
        (folder / "ml" / "model" / name).write_bytes(content)
    return folder / "ml"


def _start(root: Path, **variables: str) -> "subprocess.Popen[str]":
    own = {"SM_ML_ROOT": str(root), "SAGEMAKER_BIND_TO_PORT": "0", "STOCKPICKER_BIND_TO_HOST": "127.0.0.1"}
    command = [sys.executable, "-m", "stockpicker_dagster.training.container", "serve"]
    return subprocess.Popen(
        command, env=os.environ | own | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def port(root: Path) -> Iterator[int]:
    """The port of a server for a batch with payloads of 1 MB; at its end SIGTERM must end it, without a sound."""
    process = _start(
        root,
        SAGEMAKER_BATCH="true",
        SAGEMAKER_MAX_PAYLOAD_IN_MB="1",
        SAGEMAKER_BATCH_STRATEGY="MULTI_RECORD",
        SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="3",
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    yield int(said.rpartition(":")[2])
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (0, "", "")


def _ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    read = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return read


def test_it_is_healthy_and_says_what_it_takes(port: int) -> None:
    assert _ask(port, "GET", "/ping")[0] == 200
    status, _, said = _ask(port, "GET", "/execution-parameters")
    assert (status, json.loads(said)) == (
        200,
        {"MaxConcurrentTransforms": 3, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1},
    )


def test_scores_are_exactly_the_models(port: int, root: Path) -> None:
    model = load_model(root / "model", "mine", FEATURES)
    status, headers, said = _ask(port, "POST", "/invocations", CSV, Content_Type="text/csv")
    assert status == 200
    assert [float(line) for line in said.decode().splitlines()] == model.algorithm.predict(VALUES, FEATURES).tolist()
    assert headers["x-amzn-sagemaker-custom-attributes"] == model.model_id


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "said"),
    [
        ("POST", "/invocations", b"1,x", {"Content_Type": "text/csv"}, 400, b"row 1: the feature two is 'x'"),
        ("POST", "/invocations", b"{}", {"Content_Type": "application/json"}, 415, b"is not read; allowed: text/csv"),
        ("POST", "/invocations", b"1,2", {}, 415, b"content type '' is not read"),
        ("POST", "/invocations", b"1,2", {"Content_Type": "text/csv", "Accept": "image/png"}, 406, b"can be written"),
        ("POST", "/invocations", b"1,2", {"Content_Type": "text/csv", "Content_Encoding": "gzip"}, 415, b"encoded"),
        ("POST", "/invocations", b"1" * 2**20 + b"1", {"Content_Type": "text/csv"}, 413, b"more than 1048576 bytes"),
        ("GET", "/invocations", b"", {}, 405, b""),
        ("GET", "/../../etc/passwd", b"", {}, 404, b""),
    ],
)
def test_what_is_wrong_with_a_request_is_said(
    port: int, method: str, path: str, body: bytes, headers: dict[str, str], status: int, said: bytes
) -> None:
    found, _, answer = _ask(port, method, path, body, **headers)
    assert found == status
    assert said in answer


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
                       b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        chunk = b"10000\r\n" + b"1" * 2**16 + b"\r\n"
        try:
            for _ in range(32):
                client.sendall(chunk)
        except OSError:
            pass
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_slow_client_keeps_nobody_waiting(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
        slow.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 3\r\n\r\n1")
        assert _ask(port, "GET", "/ping")[0] == 200
        assert _ask(port, "POST", "/invocations", b"1,2", Content_Type="text/csv")[0] == 200
        slow.sendall(b",2")
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_server_that_cannot_serve_ends_and_says_why(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        processes = {
            f"port {number} of 127.0.0.1 cannot be opened (Address already in use)": _start(
                root, SAGEMAKER_BIND_TO_PORT=number
            ),
            "belongs to strategy 'mine', not to 'other'": _start(root, STOCKPICKER_STRATEGY="other"),
            "model.json cannot be read": _start(tmp_path),
        }
        for said, process in processes.items():
            out, errors = process.communicate(timeout=60)
            assert (process.returncode, out) == (1, "")
            assert said in errors
            assert "Traceback" not in errors


def test_limits_follow_the_platforms_variables() -> None:
    assert Limits({}).body == 6_291_456
    assert Limits({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "20"}).body == 6_291_456
    assert Limits({"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "20"}).body == 20 * 2**20
    assert Limits({"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}).body is None
    with pytest.raises(InvalidInput, match="SAGEMAKER_MAX_PAYLOAD_IN_MB 'big' is not allowed; allowed: a whole number"):
        Limits({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "big"})
    with pytest.raises(InvalidInput, match="SAGEMAKER_BATCH_STRATEGY 'ALL' is not allowed; allowed: MULTI_RECORD"):
        Limits({"SAGEMAKER_BATCH_STRATEGY": "all"})
