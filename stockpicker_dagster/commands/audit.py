"""`stockpicker audit` and `stockpicker shortfall`: why something is held, and what it cost to get there."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from stockpicker_dagster.commands import plainly
from stockpicker_dagster.commands.people import _deployment
from stockpicker_dagster.errors import InvalidInput, StockPickerError

if TYPE_CHECKING:
    from stockpicker_dagster.components.origins import Origin
    from stockpicker_dagster.trading.audit import AuditedProposal, HeldBecause
    from stockpicker_dagster.trading.shortfall import Shortfall


@click.command()
@click.argument("symbol")
@click.option("--account", default="paper", show_default=True, help="In which account it is held.")
@click.option("--everything", is_flag=True, help="Also what was traded before the position was last flat.")
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document instead of text.")
@plainly
def audit(symbol: str, account: str, everything: bool, as_document: bool) -> None:
    """Say why SYMBOL is held: fills, orders, decisions, proposal, prediction, model, data, and the Dagster runs."""
    from stockpicker_dagster.trading.audit import why_held

    deployment = _deployment()
    held = why_held(deployment.database, account, symbol, everything=everything)
    origins = {each.id: _origin(deployment, each, symbol) for each in held.proposals}
    if as_document:
        document = {**asdict(held), "origins": {key: asdict(each) if each else None for key, each in origins.items()}}
        click.echo(json.dumps(document, default=_as_text, indent=1))
    else:
        click.echo("\n".join(_told(held, origins)))
    if not held.adds_up:
        raise StockPickerError(
            f"fills and corporate actions of {symbol} do not add up to the position; run `stockpicker reconcile "
            f"{account}`"
        )


@click.command()
@click.argument("proposal")
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document instead of text.")
@plainly
def shortfall(proposal: str, as_document: bool) -> None:
    """Say what it cost to execute PROPOSAL against the prices it was decided on, once its session is stored."""
    from stockpicker_dagster.components.origins import day_prices
    from stockpicker_dagster.runs import find_strategy
    from stockpicker_dagster.trading.proposal import load
    from stockpicker_dagster.trading.shortfall import shortfall as measure

    deployment = _deployment()
    found = load(deployment.database, proposal)
    document = found.document
    if found.state not in ("executed", "aborted", "lapsed"):
        raise InvalidInput(f"proposal {found.id} is {found.state}; its shortfall is known once it has been executed")
    names = sorted({order.symbol for order in document.orders})
    prices = day_prices(deployment.lake, find_strategy(document.strategy), document.trade_session, names)
    if prices is None:
        raise InvalidInput(
            f"the prices of {document.trade_session}, when proposal {found.id} traded, are not stored yet; run "
            f"`stockpicker run {document.strategy}` once that session is over"
        )
    measured = measure(deployment.database, found.id, prices)
    if as_document:
        parts = {name: measured.summed(name) for name in ("delay", "trading", "filling", "opportunity", "fees")}
        whole = {**asdict(measured), **parts, "total": measured.total, "bps": measured.bps}
        click.echo(json.dumps(whole, default=_as_text, indent=1))
    else:
        click.echo("\n".join(_costs(measured)))


def _origin(deployment: Any, found: "AuditedProposal", symbol: str) -> "Origin | None":
    """What lake and Dagster say; None where the strategy is not there any more."""
    from dagster import DagsterInstance

    from stockpicker_dagster.components.origins import origin
    from stockpicker_dagster.runs import find_strategy

    try:
        form = find_strategy(found.strategy)
    except InvalidInput:
        return None
    with DagsterInstance.get() as instance:
        return origin(deployment.lake, instance, found.strategy, form, found.session, symbol, found.model_id)


def _told(held: "HeldBecause", origins: "dict[str, Origin | None]") -> Iterator[str]:
    yield f"{held.account} holds {held.quantity} shares of {held.symbol}"
    if not held.proposals:
        yield "nothing was ever traded in it there" if not held.actions else "no fills led to it"
    for action in held.actions:
        change = f"{action.quantity_change:+} shares, {action.cash:+.2f} cash"
        yield f"{action.session} {action.kind}: {change}; {action.detail}"
    for found in held.proposals:
        yield ""
        yield from _told_proposal(found)
        yield from _told_origin(found, origins.get(found.id))


def _told_proposal(found: "AuditedProposal") -> Iterator[str]:
    for order in found.orders:
        for fill in order.fills:
            yield (
                f"fill {fill.fill_id} on {fill.session}: {fill.quantity:+} at {fill.price}, commission "
                f"{fill.commission} ({fill.filled_at:%Y-%m-%d %H:%M:%S} UTC)"
            )
        yield (
            f"  order {order.intent}: {order.side} {order.quantity}, {order.phase}, slice {order.slice}, attempt "
            f"{order.attempt}: {order.status}{f', {order.reason}' if order.reason else ''}"
        )
    wanted = "no target any more" if found.target is None else f"target {found.target:.4f} of equity"
    yield f"  proposal {found.id} ({found.state}): {wanted} at {found.reference_price}, session {found.session}"
    yield f"    digest {found.digest}"
    for each in found.decisions:
        how = ", ".join(part for part in (each.method, "signed" if each.signed else "") if part)
        yield (
            f"    {each.decision} by {each.person} at {each.decided_at:%Y-%m-%d %H:%M:%S} UTC"
            f"{f' ({how})' if how else ''}{f': {each.reason}' if each.reason else ''}"
        )
    yield f"  strategy {found.strategy}, written by {found.author}"
    yield f"    model {found.model_id}, data {found.data_version[:12]}, code {found.code_version[:12]}"


def _told_origin(found: "AuditedProposal", behind: "Origin | None") -> Iterator[str]:
    if behind is None:
        yield f"    strategy {found.strategy} is not in the project any more, so its lake is not asked"
        return
    if behind.rank is not None and behind.score is not None:
        features = ", ".join(f"{name} {value:+.3f}" for name, value in behind.contributions)
        yield f"    prediction: rank {behind.rank} of {behind.ranked}, score {behind.score:+.4f}; {features}"
    else:
        yield f"    no prediction of it on {found.session}"
    model = behind.model
    if model is None:
        yield "    the model is not stored any more"
    else:
        again = "" if model.same else f"; trained again since, as {model.model_id}"
        yield (
            f"    trained for {model.period} ({model.algorithm}) on {model.train[0]} to {model.train[1]}, "
            f"outcomes known up to {model.last_known}{again}"
        )
    for made in behind.made_by:
        yield f"    {made.asset} [{made.partition}]: run {made.run or 'not known to Dagster'}"


def _costs(found: "Shortfall") -> Iterator[str]:
    yield (
        f"proposal {found.proposal} of {found.strategy} on {found.trade_session}: {found.total:.2f}, "
        f"{'nothing was ordered' if found.bps is None else f'{found.bps:.1f} bps of {found.notional:.2f}'}"
    )
    parts = ", ".join(f"{name} {found.summed(name):.2f}" for name in ("delay", "trading", "opportunity", "fees"))
    yield f"  {parts}"
    for order in found.orders:
        price = "unfilled" if order.price is None else f"at {order.price:.4f}"
        yield (
            f"  {order.symbol:<8} {order.side:<5} {order.filled} of {order.quantity} {price}: decided at "
            f"{order.decision:.4f}, open {_amount(order.arrival, 4)}; delay {_amount(order.delay)}, trading "
            f"{_amount(order.trading)}, opportunity {_amount(order.opportunity)}, fees {order.fees:.2f}: "
            f"{order.total:.2f} ({order.bps:.1f} bps)"
        )
    unknown = [order.symbol for order in found.orders if not order.complete]
    if unknown:
        yield f"  without a close, so that what was not traded is not counted: {', '.join(unknown)}"


def _amount(figure: Decimal | None, places: int = 2) -> str:
    return "not known" if figure is None else f"{figure:.{places}f}"


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
