"""Secrets: read once, in the forms that AWS keeps them in, and never repeated in what may be shown."""

import json

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.aws import secrets as secrets_file
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import AwsRefusal
from stockpicker_dagster.storage.aws.secrets import database_url_in, secret
from stockpicker_dagster.storage.opening import database_url
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy

CANARY = "canary-p@ss/word"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    secrets_file.secret.cache_clear()


def _keep(name: str, content: str) -> None:
    client("secretsmanager").create_secret(Name=name, SecretString=content)


def test_a_url_and_the_document_of_rds_are_both_taken(aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep("stockpicker/url", f"postgresql://me:{CANARY}@db/ledger\n")
    _keep("stockpicker/rds", json.dumps({"username": "me", "password": CANARY, "host": "db", "port": 5433}))
    assert database_url_in("stockpicker/url") == f"postgresql://me:{CANARY}@db/ledger"
    expected = "postgresql://me:canary-p%40ss%2Fword@db:5433/stockpicker?sslmode=require"
    assert database_url_in("stockpicker/rds") == expected
    monkeypatch.setenv("STOCKPICKER_DATABASE_SECRET", "stockpicker/rds")
    assert database_url() == expected
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", "sqlite:///named.sqlite")
    assert database_url() == "sqlite:///named.sqlite"


def test_a_secret_is_asked_for_once_in_a_process(aws: FaultyProxy) -> None:
    _keep("stockpicker/url", CANARY)
    assert secret("stockpicker/url") == secret("stockpicker/url") == CANARY
    assert len(aws.requests("GetSecretValue")) == 1


def test_errors_name_the_secret_and_never_its_content(aws: FaultyProxy) -> None:
    with pytest.raises(AwsRefusal, match=r"the secret stockpicker/none was to be read.*ResourceNotFound"):
        secret("stockpicker/none")
    _keep("stockpicker/broken", json.dumps({"password": CANARY}))
    with pytest.raises(InvalidInput, match="needs username, password and host") as raised:
        database_url_in("stockpicker/broken")
    assert CANARY not in str(raised.value)
