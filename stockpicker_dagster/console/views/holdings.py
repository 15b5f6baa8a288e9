"""What the accounts hold, and why: from a position back to fills, orders, decisions, model, data and runs.

The ledger answers (`trading.audit`); what the lake and Dagster keep behind it is looked up beside it and said to be
gone where it is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from stockpicker_dagster.components.origins import Origin, origin
from stockpicker_dagster.console.views.desk import Desk, NotFound
from stockpicker_dagster.console.views.today import account_names
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.audit import AuditedProposal, HeldBecause, why_held

ORIGINS = 3
"""So many of the newest proposals are followed into the lake and Dagster: what is older is found by its session."""


@dataclass(frozen=True)
class Holding:
    """One position: signed shares."""

    account: str
    symbol: str
    quantity: Decimal


@dataclass(frozen=True)
class Why:
    """Why an account holds what it holds of a symbol; `origins` by proposal."""

    held: HeldBecause
    origins: Mapping[str, Origin]


def holdings(desk: Desk) -> dict[str, list[Holding]]:
    """Every account with its positions, by symbol."""
    names = account_names(desk)
    with desk.database.connect() as connection:
        held = {name: ledger.held_quantities(connection, name) for name in names}
    return {name: [Holding(name, symbol, shares) for symbol, shares in each.items()] for name, each in held.items()}


def holders(desk: Desk, symbol: str) -> Sequence[Holding]:
    """The positions in one symbol, by account."""
    return [each for held in holdings(desk).values() for each in held if each.symbol == symbol]


def why(desk: Desk, account: str, symbol: str, *, everything: bool = False) -> Why:
    """What led to a position; with `everything`, what was traded before it was last flat too.

    Raises `NotFound` for an unknown account and a symbol that was never traded in it, and `DigestMismatch` where a
    proposal's bytes are not those that were decided on.
    """
    try:
        held = why_held(desk.database, account, symbol, everything=everything)
    except ledger.UnknownAccount as error:
        raise NotFound(str(error)) from error
    if not (held.quantity or held.proposals or held.actions):
        raise NotFound(f"{account} holds nothing of {symbol[:64]!r}, and never traded in it")
    newest = held.proposals[:ORIGINS]
    return Why(held, {found.id: behind for found in newest if (behind := _origin(desk, found, symbol)) is not None})


def _origin(desk: Desk, found: AuditedProposal, symbol: str) -> Origin | None:
    """None where the strategy is gone, with which the lake would be read."""
    form = desk.forms().get(found.strategy)
    if form is None:
        return None
    return origin(desk.lake, desk.dagster, found.strategy, form, found.session, symbol, found.model_id)
