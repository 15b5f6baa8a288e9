"""An account's broker follows from the ledger and the environment alone."""

from typing import Any

import pytest
from sqlalchemy import Engine, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.brokers import Broker
from stockpicker_dagster.trading.brokers.connections import DATA_URL, adapters, capabilities_of, connect
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING

KEYS = {"APCA_API_KEY_ID": "PK", "APCA_API_SECRET_KEY": "secret"}
LOOPBACK = "http://127.0.0.1:1"


def account(engine: Engine, **changes: Any) -> None:
    ensure_paper_account(engine, "us", EVENING)
    with engine.begin() as connection:
        connection.execute(update(ledger.accounts).where(ledger.accounts.c.id == "us").values(**changes))


@pytest.mark.parametrize(
    ("changes", "name", "url"),
    [
        ({"broker": "paper"}, "paper", "paper://ledger"),
        ({"broker": "ticket", "base_url": "ticket://person"}, "ticket", "ticket://person"),
        ({"broker": "alpaca", "base_url": LOOPBACK}, "alpaca", LOOPBACK),
        ({"broker": "alpaca", "base_url": ""}, "alpaca", "https://paper-api.alpaca.markets"),
        ({"broker": "alpaca", "base_url": "", "mode": "live"}, "alpaca", "https://api.alpaca.markets"),
        (
            {"broker": "interactive_brokers", "base_url": "", "broker_account": "DU1"},
            "interactive_brokers",
            "https://localhost:5000/v1/api",
        ),
    ],
)
def test_each_account_gets_its_own_adapter(ledger_engine: Engine, changes: dict[str, Any], name: str, url: str) -> None:
    account(ledger_engine, **changes)
    broker: Broker = connect(ledger_engine, "us", environment={**KEYS, DATA_URL: LOOPBACK})
    assert (broker.name, broker.account_id, broker.base_url) == (name, "us", url)
    assert broker.capabilities == capabilities_of(name)
    assert "secret" not in repr(broker)


@pytest.mark.parametrize(
    ("changes", "environment", "why"),
    [
        ({"broker": "alpaca", "base_url": ""}, {}, "needs APCA_API_KEY_ID"),
        ({"broker": "alpaca", "base_url": "https://api.alpaca.markets"}, KEYS, "not where Alpaca keeps paper accounts"),
        ({"broker": "interactive_brokers", "base_url": ""}, {}, "has no number at Interactive Brokers"),
        ({"broker": "bucket_shop"}, {}, "no broker that is known here"),
    ],
)
def test_what_is_missing_is_said(
    ledger_engine: Engine, changes: dict[str, Any], environment: dict[str, str], why: str
) -> None:
    account(ledger_engine, **changes)
    with pytest.raises(InvalidInput, match=why):
        connect(ledger_engine, "us", environment=environment)


def test_every_adapter_says_how_it_was_verified_and_none_claims_the_live_service() -> None:
    assert [adapter.name for adapter in adapters()] == ["paper", "alpaca", "interactive_brokers", "ticket"]
    for adapter in adapters():
        assert adapter.capabilities.verified
        assert not adapter.capabilities.replaces
    for served in ("alpaca", "interactive_brokers"):
        assert "not yet against the live service" in capabilities_of(served).verified
    assert not capabilities_of("ticket").shorts
    with pytest.raises(InvalidInput, match="known: paper, alpaca"):
        capabilities_of("bucket_shop")
