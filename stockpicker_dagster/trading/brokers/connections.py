"""From an account to its broker: the one place that knows which adapter an account has, and where its secrets are.

Where an account trades is in the ledger, set by an administrator; credentials come from the environment. Neither comes
from Dagster's configuration.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, select

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import Account, read_account
from stockpicker_dagster.trading.brokers import Broker, Capabilities
from stockpicker_dagster.trading.brokers.credentials import credential

GATEWAY_CA = "STOCKPICKER_IB_GATEWAY_CA"
"""Environment variable: a file with the certificate that the gateway of Interactive Brokers shows, where the gateway
is on another machine."""
DATA_URL = "STOCKPICKER_ALPACA_DATA_URL"
"""Environment variable that names another server of market data than Alpaca's, for tests."""


@dataclass(frozen=True)
class Adapter:
    """One kind of broker: what can be traded there is in `capabilities`."""

    name: str
    title: str
    capabilities: Capabilities


def adapters() -> list[Adapter]:
    """Every kind of broker that an account can have."""
    from stockpicker_dagster.trading.brokers.alpaca import AlpacaBroker
    from stockpicker_dagster.trading.brokers.interactive_brokers import InteractiveBrokers
    from stockpicker_dagster.trading.brokers.paper import PaperBroker
    from stockpicker_dagster.trading.brokers.ticket import TicketBroker

    return [
        Adapter("paper", "the embedded paper broker", PaperBroker.capabilities),
        Adapter("alpaca", "Alpaca", AlpacaBroker.capabilities),
        Adapter("interactive_brokers", "Interactive Brokers", InteractiveBrokers.capabilities),
        Adapter("ticket", "by hand: Robinhood, XTB and others", TicketBroker.capabilities),
    ]


def capabilities_of(broker: str) -> Capabilities:
    """What can be traded at a broker of this kind; raises `InvalidInput` for one that there is not."""
    for adapter in adapters():
        if adapter.name == broker:
            return adapter.capabilities
    raise InvalidInput(f"{broker!r} is no broker; known: {', '.join(adapter.name for adapter in adapters())}")


def connect(
    engine: Engine,
    account_id: str,
    *,
    wait: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    environment: Mapping[str, str] | None = None,
) -> Broker:
    """The broker of an account, without asking it anything yet.

    `wait` is called while requests wait for a rate limit, never while one is under way; it may raise, to stop for a
    halt. Raises `UnknownAccount`, and `InvalidInput` where credentials are missing or the address cannot be.
    """
    with engine.connect() as connection:
        account = read_account(connection, account_id)
        number = connection.execute(
            select(ledger.accounts.c.broker_account).where(ledger.accounts.c.id == account_id)
        ).scalar_one()
    environment = os.environ if environment is None else environment
    if account.broker == "paper":
        from stockpicker_dagster.trading.brokers.paper import PaperBroker

        return PaperBroker(engine, account_id, now=now)
    if account.broker == "ticket":
        from stockpicker_dagster.trading.brokers.ticket import TicketBroker

        return TicketBroker(engine, account_id, number or "", now=now)
    if account.broker == "alpaca":
        return _alpaca(account, wait, now, environment)
    if account.broker == "interactive_brokers":
        return _interactive_brokers(account, number, wait, now, environment)
    raise InvalidInput(f"account {account_id!r} is at {account.broker!r}, which is no broker that is known here")


def _alpaca(
    account: Account, wait: Callable[[float], None], now: Callable[[], datetime], environment: Mapping[str, str]
) -> Broker:
    from stockpicker_dagster.trading.brokers.alpaca import DATA_URL as THEIR_DATA
    from stockpicker_dagster.trading.brokers.alpaca import KEY_ID, SECRET_KEY, URLS, AlpacaBroker

    return AlpacaBroker(
        account.id,
        account.mode,
        account.base_url or URLS[account.mode],
        credential(KEY_ID, account.id, environment),
        credential(SECRET_KEY, account.id, environment),
        data_url=environment.get(DATA_URL) or THEIR_DATA,
        wait=wait,
        now=now,
    )


def _interactive_brokers(
    account: Account,
    number: str | None,
    wait: Callable[[float], None],
    now: Callable[[], datetime],
    environment: Mapping[str, str],
) -> Broker:
    from stockpicker_dagster.trading.brokers.interactive_brokers import GATEWAY, InteractiveBrokers
    from stockpicker_dagster.trading.brokers.wire import on_this_machine

    if not number:
        raise InvalidInput(
            f"account {account.id!r} has no number at Interactive Brokers, such as DU1234567; an administrator sets it"
        )
    url = account.base_url or GATEWAY
    certificate = environment.get(GATEWAY_CA)
    # The gateway signs its own certificate; on this machine nobody stands in between.
    verify: bool | str = certificate or not on_this_machine(url)
    return InteractiveBrokers(account.id, account.mode, url, number, verify=verify, wait=wait, now=now)
