"""People for tests: cheap hashes, one administrator, and a moment to count from."""

from datetime import UTC, datetime
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine

from stockpicker_dagster.trading.people import directory, secrets

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real parameters take a twentieth of a second each, which is their point."""
    monkeypatch.setattr(secrets, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    secrets._nobodys_hash.cache_clear()


@pytest.fixture
def people(ledger_engine: Engine) -> Any:
    """A ledger with the administrator `ada`."""
    directory.add_person(ledger_engine, "ada", "administrator", PASSWORD, "os:root", NOON)
    return ledger_engine
