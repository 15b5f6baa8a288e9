"""The books of paper accounts are compared on a schedule; accounts that a trader has are left to it."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.defs.trading.definitions import reconciliation_sensor
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading import accounts, ledger

NOW = datetime(2024, 3, 5, 1, 20, tzinfo=UTC)


def tick() -> str:
    with dg.build_sensor_context(resources={"deployment": Deployment()}) as context:
        skipped = reconciliation_sensor()(context)
    assert isinstance(skipped, dg.SkipReason)
    return str(skipped.skip_message)


def test_books_on_paper_are_compared_and_a_difference_halts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    monkeypatch.setattr(Deployment, "now", lambda self: NOW)
    assert tick() == "there is no paper account yet"
    database = Deployment().database
    for name in ("one", "other", "us"):
        accounts.ensure_paper_account(database, name, NOW)
    with transaction(database) as connection:
        # No credentials are asked for: this one is its trader's.
        connection.execute(ledger.accounts.update().where(ledger.accounts.c.id == "us").values(broker="alpaca"))
        ledger.move_positions(connection, ledger.paper_positions, "other", [("AAA", Decimal(1))])
    assert tick() == "one: the books agree, other: AAA is 0 shares in the ledger and 1 by broker paper"
    assert accounts.halt_in_force(database, "one") is None
    assert "AAA is 0 shares" in str(accounts.halt_in_force(database, "other"))
