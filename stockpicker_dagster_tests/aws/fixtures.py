"""An AWS of this machine: moto's server on loopback, and a proxy in front of it that fails as it is told.

No test reaches a real account: every endpoint is on 127.0.0.1, and the credentials are invented.
"""

from collections.abc import Iterator

import pytest

from stockpicker_dagster.storage.aws import clients
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy

ACCOUNT = "123456789012"
REGION = "eu-central-1"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of one moto server for each pytest process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="session")
def aws_proxy(moto_url: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def aws(aws_proxy: FaultyProxy, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """An empty account whose every request goes through the proxy; faults of an earlier test are forgotten."""
    import requests

    requests.post(f"{moto_url}/moto-api/reset", timeout=10)
    # Between attempts botocore waits for seconds; here it does not, but it still repeats as often.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
    aws_proxy.forget()
    set_environment(monkeypatch, aws_proxy.url)
    yield aws_proxy
    aws_proxy.service = None
    aws_proxy.forget()
    clients.forget_clients()


def set_environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What points boto3 at `url` and nowhere else."""
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIAINVENTEDFORTESTS",
        "AWS_SECRET_ACCESS_KEY": "invented-secret-for-tests",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "4",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "STOCKPICKER_AWS_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    clients.forget_clients()
