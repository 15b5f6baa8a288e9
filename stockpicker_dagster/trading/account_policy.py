"""Setting up trading accounts: what an administrator decides about one, and the record of every change.

A live account takes two steps: it is set up, then switched on by naming once more the broker's account number and
address, so that a slip in one of them is noticed before money moves. While nobody has been added, there are paper
accounts only, set up by whoever owns the state folder.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, insert, select, update

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import (
    PAPER_URL,
    Account,
    Costs,
    check_account_id,
    ensure_paper_account,
    read_account,
)
from stockpicker_dagster.trading.canonical import canonical_bytes
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.rebalance import Policy
from stockpicker_dagster.trading.risk import LIMIT_NAMES, Limits

BROKERS = ("paper", "alpaca", "interactive_brokers", "ticket")
MODES = ("paper", "live")
TICKET_URL = "ticket://person"
"""Where orders go that a person places by hand."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class AccountInUse(StockPickerError):
    """Where an account trades cannot be changed while something is held or under way in it."""


@dataclass(frozen=True)
class Setup:
    """What an administrator decides about an account; None leaves a figure as it is.

    `limits` are decimal figures by name, and `restricted`, a list of symbols. `allowed_strategies` may be empty: then
    nothing trades. `any_strategy` lifts that list. `lot` is in how many shares every name is traded, `lots` in how many
    those are that are there.
    """

    broker: str | None = None
    mode: str | None = None
    base_url: str | None = None
    broker_account: str | None = None
    approvals_needed: int | None = None
    four_eyes: bool | None = None
    limits: dict[str, Decimal | list[str]] | None = None
    allowed_strategies: tuple[str, ...] | None = None
    any_strategy: bool = False
    lot: Decimal | None = None
    lots: dict[str, Decimal] | None = None

    def __post_init__(self) -> None:
        if self.broker is not None and self.broker not in BROKERS:
            raise InvalidInput(f"{self.broker!r} is no broker; allowed: {', '.join(BROKERS)}")
        if self.mode is not None and self.mode not in MODES:
            raise InvalidInput(f"{self.mode!r} is no mode; allowed: paper, live")
        if self.approvals_needed is not None and not 1 <= self.approvals_needed <= 20:
            raise InvalidInput(f"{self.approvals_needed} approvals cannot be asked for; allowed: 1 to 20")
        unknown = sorted(set(self.limits or ()) - {*LIMIT_NAMES, "restricted"})
        if unknown:
            raise InvalidInput(f"{unknown[0]!r} is no limit; allowed: {', '.join(LIMIT_NAMES)}, restricted")


def open_account(engine: Engine, account_id: str, setup: Setup, cash: Decimal, who: str, now: datetime) -> Account:
    """A new account; `cash`, in currency, is what a paper account of our own starts with.

    Raises `NotAllowed` unless `who` is an administrator (or nobody has been added and it is a paper account), and
    `InvalidInput` for an account that exists, or settings that do not go together.
    """
    check_account_id(account_id)
    blank = _blank(account_id, setup.broker or "paper", now)
    _check(_changed(blank, setup))
    with transaction(engine) as connection:
        _authorize(connection, who, setup.mode or "paper")
        _refuse_shared(connection, _changed(blank, setup))
        if connection.execute(select(ledger.accounts.c.id).where(ledger.accounts.c.id == account_id)).one_or_none():
            raise InvalidInput(f"there is an account {account_id!r} already; `stockpicker account set` changes it")
        if blank.broker != "paper":
            _insert(connection, blank)
    if blank.broker == "paper":
        ensure_paper_account(engine, account_id, now, cash=cash)
    return change_account(engine, account_id, setup, who, now)


def change_account(engine: Engine, account_id: str, setup: Setup, who: str, now: datetime) -> Account:
    """Changes what `setup` names. Another broker, mode, address or number switches live trading off again.

    Raises as `open_account`, and `AccountInUse` where a move is asked for while something is held or under way.
    """
    with transaction(engine) as connection:
        ledger.lock_account(connection, account_id)
        before = read_account(connection, account_id)
        after = _changed(before, setup)
        _authorize(connection, who, "live" if "live" in (before.mode, after.mode) else "paper")
        _check(after)
        _refuse_shared(connection, after)
        if _place(before) != _place(after):
            _refuse_if_in_use(connection, before)
            after = replace(after, live_enabled=False)
        _store(connection, before, after, who, now)
        return after


def enable_live(
    engine: Engine, account_id: str, base_url: str, broker_account: str, who: str, now: datetime
) -> Account:
    """Switches live trading on; address and number are typed once more and have to fit."""
    with transaction(engine) as connection:
        ledger.lock_account(connection, account_id)
        before = read_account(connection, account_id)
        _authorize(connection, who, "live")
        if before.mode != "live":
            raise InvalidInput(f"account {account_id!r} is a {before.mode} account; set its mode to live first")
        if (base_url, broker_account) != (before.base_url, before.broker_account):
            raise InvalidInput(
                f"account {account_id!r} is set up for number {before.broker_account} at {before.base_url}, not for "
                f"{broker_account} at {base_url}; nothing was switched on"
            )
        after = replace(before, live_enabled=True)
        _store(connection, before, after, who, now)
        return after


def disable_live(engine: Engine, account_id: str, who: str, now: datetime) -> Account:
    """Switches live trading off: nothing more is claimed or sent for the account."""
    with transaction(engine) as connection:
        ledger.lock_account(connection, account_id)
        before = read_account(connection, account_id)
        _authorize(connection, who, "live")
        after = replace(before, live_enabled=False)
        _store(connection, before, after, who, now)
        return after


def account_changes(engine: Engine, account_id: str) -> list[tuple[datetime, str, dict[str, Any]]]:
    """Every change of an account: when, by whom, and the settings as they were after it; oldest first."""
    table = ledger.account_changes
    wanted = select(table.c.changed_at, table.c.who, table.c.what).where(table.c.account == account_id)
    with engine.connect() as connection:
        return [(row[0], row[1], json.loads(row[2])) for row in connection.execute(wanted.order_by(table.c.id))]


def _authorize(connection: Connection, who: str, mode: str) -> None:
    if directory.people_exist(connection):
        directory.require(connection, who, "administrator")
    elif mode != "paper":
        raise directory.NotAllowed(
            "a live account is set up by an administrator, and nobody has been added yet; start with "
            "`stockpicker user add NAME --role administrator`"
        )


def _changed(before: Account, setup: Setup) -> Account:
    wanted = {field.name: getattr(setup, field.name) for field in fields(Setup)}
    figures = dict(wanted.pop("limits") or {})
    restricted = figures.pop("restricted", None) if figures else None
    anybody, lot, lots = wanted.pop("any_strategy"), wanted.pop("lot"), wanted.pop("lots") or {}
    after = replace(before, **{name: value for name, value in wanted.items() if value is not None})
    if anybody:
        after = replace(after, allowed_strategies=None)
    limits = replace(after.limits, **figures) if figures else after.limits
    if restricted is not None:
        limits = replace(limits, restricted=tuple(sorted(restricted)))
    general = after.policy.lot if lot is None else lot
    policy = replace(after.policy, lot=general, lots={**after.policy.lots, **lots})
    return replace(after, limits=limits, policy=policy)


def _place(account: Account) -> tuple[object, ...]:
    """Where an account's orders go."""
    return account.broker, account.mode, account.base_url, account.broker_account


def _check(account: Account) -> None:
    if account.broker == "paper":
        if account.mode != "paper" or account.base_url != PAPER_URL:
            raise InvalidInput(f"the paper broker is in the ledger ({PAPER_URL}) and never live")
        return
    if account.broker_account is None:
        raise InvalidInput(f"an account at {account.broker} needs the broker's own account number (--number)")
    if account.broker == "ticket":
        return
    address = urlsplit(account.base_url)
    if address.scheme not in ("https", "http") or not address.hostname or address.username or address.query:
        raise InvalidInput(f"{account.base_url!r} is no address of a broker; it looks like https://host")
    if address.scheme == "http" and address.hostname not in _LOOPBACK:
        raise InvalidInput(f"{account.base_url!r} is not encrypted; only a gateway on this machine may be http")


def _refuse_shared(connection: Connection, account: Account) -> None:
    """One account at a broker is one account here: two would take each other's orders for those of others."""
    if account.broker == "paper":
        return
    table = ledger.accounts
    same = (table.c.broker == account.broker) & (table.c.broker_account == account.broker_account)
    other = connection.execute(select(table.c.id).where(same, table.c.id != account.id).limit(1)).scalar_one_or_none()
    if other is not None:
        raise InvalidInput(
            f"number {account.broker_account} at {account.broker} is that of account {other!r} already; trade it there"
        )


def _refuse_if_in_use(connection: Connection, account: Account) -> None:
    held = ledger.held_quantities(connection, account.id)
    table = ledger.open_proposals
    under_way = connection.execute(select(table.c.proposal).where(table.c.account == account.id)).scalar_one_or_none()
    if held or under_way:
        what = f"{len(held)} positions are open" if held else f"proposal {under_way} is not ended"
        raise AccountInUse(f"account {account.id!r} cannot be moved to another broker, mode or number: {what} in it")


def _blank(account_id: str, broker: str, now: datetime) -> Account:
    return Account(
        id=account_id,
        broker=broker,
        mode="paper",
        base_url={"paper": PAPER_URL, "ticket": TICKET_URL}.get(broker, ""),
        approvals_needed=1,
        four_eyes=False,
        limits=Limits(),
        policy=Policy(),
        costs=Costs(),
        strategy=None,
        cash=ledger.ZERO,
        booked_through=None,
        created_at=now,
    )


def _insert(connection: Connection, blank: Account) -> None:
    connection.execute(
        insert(ledger.accounts).values(
            id=blank.id,
            broker=blank.broker,
            mode=blank.mode,
            base_url=blank.base_url,
            approvals_needed=blank.approvals_needed,
            four_eyes=blank.four_eyes,
            limits=canonical_bytes(asdict(blank.limits)).decode(),
            policy=canonical_bytes(asdict(blank.policy)).decode(),
            costs=canonical_bytes(asdict(blank.costs)).decode(),
            cash=blank.cash,
            created_at=blank.created_at,
        )
    )


def _store(connection: Connection, before: Account, after: Account, who: str, now: datetime) -> None:
    strategies = None if after.allowed_strategies is None else json.dumps(list(after.allowed_strategies))
    settings: dict[str, Any] = {
        "broker": after.broker,
        "mode": after.mode,
        "base_url": after.base_url,
        "broker_account": after.broker_account,
        "approvals_needed": after.approvals_needed,
        "four_eyes": after.four_eyes,
        "live_enabled": after.live_enabled,
        "limits": canonical_bytes(asdict(after.limits)).decode(),
        "policy": canonical_bytes(asdict(after.policy)).decode(),
        "allowed_strategies": strategies,
    }
    connection.execute(update(ledger.accounts).where(ledger.accounts.c.id == before.id).values(**settings))
    connection.execute(
        insert(ledger.account_changes).values(
            account=before.id, who=who, what=json.dumps(settings, sort_keys=True), changed_at=now
        )
    )
