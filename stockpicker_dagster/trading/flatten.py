"""Closing everything that an account holds: a proposal of reductions alone, which a person approves as any other.

It needs one approver, passes a halt, and takes the account from whatever else is proposed or under way there. Neither
the lake nor a strategy's definition is needed for it at a real broker: it is made of what the ledger knows.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, Engine, select

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import Account, read_account
from stockpicker_dagster.trading.brokers import BrokerUnavailable
from stockpicker_dagster.trading.brokers.connections import capabilities_of, connect
from stockpicker_dagster.trading.desk import Connect
from stockpicker_dagster.trading.order_times import EXCHANGE, OrderTimes, flatten_times, sessions_to_trade
from stockpicker_dagster.trading.proposal import build, from_bytes, register
from stockpicker_dagster.trading.rebalance import Plan, PlannedOrder
from stockpicker_dagster.trading.reconciliation import reconcile
from stockpicker_dagster.trading.tickers import known_tickers

if TYPE_CHECKING:  # the price sources bring a data frame library, which closing positions has no use for
    from stockpicker_dagster.market.sources import Venue

When = Literal["now", "open", "close"]
"""As soon as the market is open, or in the next opening or closing auction."""

_ORDERS: Mapping[str, str] = {"now": "day", "open": "opg", "close": "cls"}
_DOCUMENTS = 5
"""How many of the account's last proposals are looked through for a price of what is held."""

UNBOUND = "flatten"
"""The strategy that such a proposal names where none has traded in the account yet."""

ZERO = Decimal(0)


def propose_flattening(
    engine: Engine,
    account_id: str,
    who: str,
    now: datetime,
    *,
    when: When = "now",
    venue: "Venue | None" = None,
    latest_stored: date | None = None,
    connect: Connect = connect,
) -> str:
    """Proposes to close everything that the account holds, and returns the proposal's id.

    `venue` and `latest_stored` are the market of the account's strategy and its last session, which the embedded broker
    needs for its auction. Raises `UnknownAccount`, and `InvalidInput` where nothing is held, the broker has no such
    auction, or no venue is given for the embedded one.
    """
    with engine.connect() as connection:
        account = read_account(connection, account_id)
    able = capabilities_of(account.broker)
    if not able.embedded and account.mode == "paper":
        # What it holds is asked where that is possible from here; books that differ halt, and are no obstacle.
        with suppress(BrokerUnavailable, InvalidInput):
            reconcile(engine, connect(engine, account_id), now)
    with engine.connect() as connection:
        account = read_account(connection, account_id)
        held = ledger.held_quantities(connection, account_id)
        prices = _last_prices(connection, account_id, set(held))
        names = known_tickers(connection, account_id).renamed
    if not held:
        raise InvalidInput(f"account {account_id!r} holds nothing, so there is nothing to close")
    times: OrderTimes | None = None
    if able.embedded:
        session, trade_session, expires_at = _at_the_venue(account, venue, latest_stored, now)
    else:
        trade_session, times = _at_the_exchange(account, when, len(held), now)
        session, expires_at = trading_calendar(EXCHANGE).previous_session(trade_session), times.expires_at
    document = build(
        account,
        strategy=account.strategy or UNBOUND,
        author=who,
        limits=account.limits,
        session=session,
        trade_session=trade_session,
        venue_name=account.broker if venue is None else "venue",
        venue_simulated=venue is not None and venue.simulated,
        cash=account.cash,
        equity=account.cash + sum((quantity * prices[symbol] for symbol, quantity in held.items()), ZERO),
        holdings=held,
        targets={},
        prices=prices,
        plan=Plan(tuple(_closing(symbol, held[symbol], prices[symbol]) for symbol in sorted(held)), (), ()),
        model_id="",
        data_version="",
        code_version="",
        created_at=now,
        expires_at=expires_at,
        decide_by=None if times is None else times.decide_by,
        kind="flatten",
        auction=_ORDERS[when] if times is not None else "opg",
        tickers=names,
    )
    return register(engine, document)


def _closing(symbol: str, held: Decimal, price: Decimal) -> PlannedOrder:
    return PlannedOrder(symbol, "sell" if held > 0 else "cover", abs(held), "reductions", price)


def _at_the_venue(
    account: Account, venue: "Venue | None", latest_stored: date | None, now: datetime
) -> tuple[date, date, datetime]:
    """The session that the flattening follows, the one it trades in, and when it expires, at the embedded broker."""
    if venue is None or latest_stored is None:
        raise InvalidInput(
            f"account {account.id!r} is on paper, and nothing was traded in it whose market could be asked; run its "
            "strategy first"
        )
    window = venue.window(latest_stored, latest_stored, now)
    if window is None or not window.opens <= now < window.closes:
        raise InvalidInput(
            f"the auction after {latest_stored} is over; bring the prices of account {account.id!r} up to date first, "
            "with `stockpicker run`"
        )
    return latest_stored, venue.trade_session(latest_stored), window.closes


def _at_the_exchange(account: Account, when: When, orders: int, now: datetime) -> tuple[date, OrderTimes]:
    """The first session in which a person can still decide in time, and its deadlines."""
    able, order = capabilities_of(account.broker), _ORDERS[when]
    if ("market", order) not in able.orders:
        taken = ", ".join(name for name, tif in _ORDERS.items() if ("market", tif) in able.orders)
        raise InvalidInput(f"{account.broker} has no orders for the {when}; possible there: {taken}")
    calendar = trading_calendar(EXCHANGE)
    for session in sessions_to_trade(now, calendar):
        times = flatten_times(able, session, orders, order, calendar)
        if now < times.decide_by:
            return session, times
    raise InvalidInput("no session is near in which that could still be decided in time")


def _last_prices(connection: Connection, account: str, symbols: set[str]) -> dict[str, Decimal]:
    """The last price that the ledger has of each symbol, in currency; zero where it never had one.

    They are for people to read: a flattening has no collar, and its limits are not checked.
    """
    found: dict[str, Decimal] = {}
    table = ledger.proposals
    newest = select(table.c.document).where(table.c.account == account).order_by(table.c.created_at.desc())
    for document in connection.execute(newest.limit(_DOCUMENTS)).scalars():
        known = from_bytes(document).prices
        found |= {symbol: known[symbol] for symbol in symbols - set(found) if symbol in known}
    fills = ledger.fills
    paid = select(fills.c.symbol, fills.c.price).where(fills.c.account == account).order_by(fills.c.sequence)
    traded = {row.symbol: row.price for row in connection.execute(paid)}
    return {symbol: found.get(symbol) or traded.get(symbol) or ZERO for symbol in symbols}
