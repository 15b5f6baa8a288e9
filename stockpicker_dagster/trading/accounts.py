"""Trading accounts: what they allow, which strategy trades in them, and whether they are halted.

An account is set up by an administrator, except a paper account, which may be made on first use. The account's own
figures are the most a strategy may do. Positions and cash are booked in the ledger, by fills and corporate actions.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.canonical import canonical_bytes
from stockpicker_dagster.trading.rebalance import Policy
from stockpicker_dagster.trading.risk import Limits

PAPER_CASH = Decimal(1_000_000)
"""What a paper account made on first use starts with, in currency."""

PAPER_URL = "paper://ledger"
"""Where a paper account is reached: in the ledger's own database."""

_ID = re.compile(r"[a-z][a-z0-9_-]{0,40}")

# What is asked before every order is built once: building a statement takes longer than running it.
_ACCOUNT = select(ledger.accounts).where(ledger.accounts.c.id == bindparam("account"))
_HALT_IN_FORCE = (
    select(ledger.halts.c.who, ledger.halts.c.reason, ledger.halts.c.halted_at)
    .where(
        ledger.halts.c.resumed_at.is_(None),
        or_(ledger.halts.c.account == bindparam("account"), ledger.halts.c.account.is_(None)),
    )
    .order_by(ledger.halts.c.id.desc())
    .limit(1)
)


class AccountBoundElsewhere(StockPickerError):
    """Another strategy's positions are open in the account."""


class Halted(StockPickerError):
    """Trading is halted; nothing is sent until a person resumes it."""


@dataclass(frozen=True)
class Costs:
    """What the paper broker charges, in basis points: commission, the full spread of which a trade pays half, and for
    borrowed shares a fee by the year of 365 days on their last close."""

    commission_bps: Decimal = Decimal(1)
    spread_bps: Decimal = Decimal(5)
    borrow_bps_per_year: Decimal = Decimal(50)

    def __post_init__(self) -> None:
        for name, figure in asdict(self).items():
            if not figure.is_finite() or not 0 <= figure < 10_000:
                raise InvalidInput(f"{name} is {figure}; allowed: 0 up to below 10000 basis points")


@dataclass(frozen=True)
class Account:
    """One trading account. `cash` is the ledger's, in currency; `strategy` None until one is bound to it.

    `booked_through` is the session up to which corporate actions are booked, None before the first. `broker_account` is
    the broker's own number of it; `live_enabled` says that an administrator has switched live trading on;
    `allowed_strategies` None lets any strategy trade in it, one at a time.
    """

    id: str
    broker: str
    mode: str
    base_url: str
    approvals_needed: int
    four_eyes: bool
    limits: Limits
    policy: Policy
    costs: Costs
    strategy: str | None
    cash: Decimal
    booked_through: date | None
    created_at: datetime
    broker_account: str | None = None
    live_enabled: bool = False
    allowed_strategies: tuple[str, ...] | None = None


def ensure_paper_account(
    engine: Engine,
    account_id: str,
    now: datetime,
    cash: Decimal | int = PAPER_CASH,
    limits: Limits | None = None,
    policy: Policy | None = None,
    costs: Costs | None = None,
) -> Account:
    """The account `account_id`, made as a paper account with `cash` if there is none; an existing one is left as it is.

    Raises `InvalidInput` for an id or an amount of cash that cannot be.
    """
    check_account_id(account_id)
    money = Decimal(cash)
    if not money.is_finite() or money <= 0:
        raise InvalidInput(f"a paper account starts with a positive amount of cash, not {cash}")
    with transaction(engine) as connection:
        # Taken before looking, so that two first users on PostgreSQL make one account; SQLite is serialised anyway.
        connection.execute(
            select(ledger.counters.c.value).where(ledger.counters.c.name == "outcomes").with_for_update()
        )
        if _row(connection, account_id) is None:
            _create_paper_account(
                connection,
                account_id,
                now,
                money,
                limits or replace(Limits(), order_notional=money / 4),
                policy or Policy(),
                costs or Costs(),
            )
        return read_account(connection, account_id)


def check_account_id(account_id: str) -> None:
    """Raises `InvalidInput` for what cannot be an account's id."""
    if not _ID.fullmatch(account_id):
        raise InvalidInput(
            f"{account_id!r} is no account id; allowed: a lower-case letter, then up to 40 of a-z 0-9 _ -"
        )


def read_account(connection: Connection, account_id: str) -> Account:
    """The account as it stands; raises `ledger.UnknownAccount`, naming the known ones."""
    row = _row(connection, account_id)
    if row is None:
        known = ", ".join(connection.execute(select(ledger.accounts.c.id).order_by(ledger.accounts.c.id)).scalars())
        raise ledger.UnknownAccount(f"there is no account {account_id!r}; known accounts: {known or 'none yet'}")
    return Account(
        id=row.id,
        broker=row.broker,
        mode=row.mode,
        base_url=row.base_url,
        approvals_needed=row.approvals_needed,
        four_eyes=row.four_eyes,
        limits=limits_from(json.loads(row.limits)),
        policy=policy_from(json.loads(row.policy)),
        costs=Costs(**_decimals(json.loads(row.costs))),
        strategy=row.strategy,
        cash=row.cash,
        booked_through=row.booked_through,
        created_at=row.created_at,
        broker_account=row.broker_account,
        live_enabled=row.live_enabled,
        allowed_strategies=None if row.allowed_strategies is None else tuple(json.loads(row.allowed_strategies)),
    )


def bind_strategy(connection: Connection, account_id: str, strategy: str) -> None:
    """Makes `strategy` the one that trades in the account; the caller holds the account's lock.

    Raises `AccountBoundElsewhere` while another strategy's positions are open, or where it is not allowed there.
    """
    account = read_account(connection, account_id)
    bound = account.strategy
    if account.allowed_strategies is not None and strategy not in account.allowed_strategies:
        allowed = ", ".join(account.allowed_strategies) or "none"
        raise AccountBoundElsewhere(
            f"account {account_id!r} is not for strategy {strategy!r}; allowed there: {allowed}; an administrator "
            "changes that with `stockpicker account set`"
        )
    if bound == strategy:
        return
    held = ledger.held_quantities(connection, account_id)
    if bound is not None and held:
        raise AccountBoundElsewhere(
            f"account {account_id!r} is bound to strategy {bound!r}, which holds {len(held)} positions in it, so "
            f"{strategy!r} cannot trade there; give {strategy!r} an account of its own (trading: account: in its "
            f"defs.yaml) or close the positions of {bound!r} first"
        )
    connection.execute(update(ledger.accounts).where(ledger.accounts.c.id == account_id).values(strategy=strategy))


def halt(engine: Engine, account_id: str | None, who: str, reason: str, now: datetime) -> None:
    """Stops all sending of orders for one account, or for every account where `account_id` is None."""
    if not reason.strip():
        raise InvalidInput("a halt needs a reason; say in a few words why")
    with transaction(engine) as connection:
        if account_id is not None:
            ledger.lock_account(connection, account_id)
        connection.execute(
            insert(ledger.halts).values(account=account_id, who=who, reason=reason.strip(), halted_at=now)
        )


def resume(engine: Engine, account_id: str | None, who: str, now: datetime) -> int:
    """Lifts the account's halts, or the halts of all accounts where `account_id` is None; says how many were lifted.

    A halt of all accounts is not lifted by resuming one. Raises `InvalidInput` where there is nothing to lift.
    """
    with transaction(engine) as connection:
        if account_id is not None:
            ledger.lock_account(connection, account_id)
        lifted = connection.execute(
            update(ledger.halts)
            .where(ledger.halts.c.account == account_id, ledger.halts.c.resumed_at.is_(None))
            .values(resumed_by=who, resumed_at=now)
        ).rowcount
    if not lifted:
        named = f"account {account_id!r} has no halt of its own" if account_id else "there is no halt of all accounts"
        raise InvalidInput(f"{named}; nothing was resumed")
    return lifted


def halt_in_force(engine: Engine, account_id: str) -> str | None:
    """Why the account may not trade, or None if it may. A ledger that cannot be read counts as halted."""
    try:
        with engine.connect() as connection:
            found = connection.execute(_HALT_IN_FORCE, {"account": account_id}).one_or_none()
    except SQLAlchemyError as error:
        return f"the ledger cannot be read ({error.__class__.__name__}), which counts as halted"
    if found is None:
        return None
    return f"halted by {found.who} at {found.halted_at:%Y-%m-%d %H:%M:%S} UTC: {found.reason}"


def is_halted(engine: Engine, account_id: str) -> bool:
    """Whether nothing may be sent for the account now."""
    return halt_in_force(engine, account_id) is not None


def limits_from(stored: Mapping[str, object]) -> Limits:
    """Limits read back from JSON, where figures are decimal strings."""
    figures = {name: value for name, value in stored.items() if name != "restricted"}
    names = stored.get("restricted", [])
    restricted = tuple(str(name) for name in names) if isinstance(names, list) else ()
    return Limits(restricted=restricted, **_decimals(figures))


def policy_from(stored: Mapping[str, object]) -> Policy:
    """A rebalance policy read back from JSON, where figures are decimal strings."""
    lots = stored.get("lots", {})
    by_symbol = _decimals(lots) if isinstance(lots, dict) else {}
    return Policy(lots=by_symbol, **_decimals({name: value for name, value in stored.items() if name != "lots"}))


def _row(connection: Connection, account_id: str) -> Row[Any] | None:
    return connection.execute(_ACCOUNT, {"account": account_id}).one_or_none()


def _create_paper_account(
    connection: Connection,
    account_id: str,
    now: datetime,
    cash: Decimal,
    limits: Limits,
    policy: Policy,
    costs: Costs,
) -> None:
    connection.execute(
        insert(ledger.accounts).values(
            id=account_id,
            broker="paper",
            mode="paper",
            base_url=PAPER_URL,
            approvals_needed=1,
            four_eyes=False,
            limits=canonical_bytes(asdict(limits)).decode(),
            policy=canonical_bytes(asdict(policy)).decode(),
            costs=canonical_bytes(asdict(costs)).decode(),
            strategy=None,
            cash=ledger.ZERO,
            booked_through=None,
            created_at=now,
        )
    )
    connection.execute(insert(ledger.paper_accounts).values(account=account_id, cash=cash))
    ledger.move_cash(connection, account_id, "opening deposit", cash, now)


def _decimals(stored: Mapping[str, object]) -> dict[str, Decimal]:
    return {name: Decimal(str(value)) for name, value in stored.items() if value is not None}
