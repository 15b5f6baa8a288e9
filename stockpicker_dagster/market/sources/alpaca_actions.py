"""What Alpaca's corporate actions mean in the price contract: events on prices, ends of listings, changes of symbols.

Field names follow the schemas of Alpaca's OpenAPI document of the market data API. Alpaca gives no day of declaration;
an action is known from the day on which Alpaca processed it, and at the latest on its ex-date.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import polars as pl

from stockpicker_dagster.market.identity import Identities, SymbolChange
from stockpicker_dagster.market.universes import normalise_symbol

Action = Mapping[str, Any]

EVENTS_SCHEMA = {
    "symbol": pl.String(),
    "ex_date": pl.Date(),
    "dividend": pl.Float64(),
    "split_ratio": pl.Float64(),
    "known_at": pl.Date(),
}


@dataclass(frozen=True)
class Event:
    """A dividend (currency per share as shares are counted on the ex-date) or a split (new shares per old)."""

    symbol: str
    ex_date: date
    known_at: date
    dividend: float = 0.0
    split_ratio: float = 1.0


@dataclass(frozen=True)
class Distribution:
    """Securities of another issuer handed out: `ratio` of `security` for each share of `symbol` on the ex-date."""

    symbol: str
    ex_date: date
    security: str
    ratio: float
    what: str

    def __str__(self) -> str:
        return f"{self.what} of {self.security} on {self.ex_date}"


@dataclass(frozen=True)
class Ending:
    """A listing that ends: from `day` on the symbol trades no more. Holders get `cash` per share (None: unknown).

    `keeps_value` marks an end in which holders lose nothing, because the same security goes on under another symbol.
    """

    symbol: str
    day: date
    reason: str
    cash: float | None = None
    keeps_value: bool = False


@dataclass
class Actions:
    """The corporate actions of some symbols; `unclear` says of which symbols something has no value, and what."""

    events: list[Event] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    symbol_changes: list[SymbolChange] = field(default_factory=list)
    unclear: list[tuple[str, date, str]] = field(default_factory=list)


def read_actions(pages: Iterable[Mapping[str, list[Action]]]) -> Actions:
    """The actions of all pages, each once by its `id`. Raises `KeyError` or `ValueError` where one lacks a field."""
    actions = Actions()
    seen: set[str] = set()
    for page in pages:
        for kind, found in page.items():
            for action in found:
                if kind in _READERS and action["id"] not in seen:
                    seen.add(action["id"])
                    _READERS[kind](action, actions)
    return actions


def identified(actions: Actions, identities: Identities) -> Actions:
    """The actions with ids in the place of symbols, but for the securities that are handed out.

    An action on the day of a change may name either ticker: a vacated one still means who had it. Where a security goes
    on under a new ticker, as `identities` has it, its old listing does not end.
    """
    security_of = identities.listed_security

    def goes_on(ending: Ending) -> bool:
        security = security_of(ending.symbol, ending.day - timedelta(days=1))
        return ending.keeps_value and identities.ticker_of(security, ending.day) not in (None, ending.symbol)

    return Actions(
        # A split that comes with a new symbol is told under both.
        list(dict.fromkeys(replace(each, symbol=security_of(each.symbol, each.ex_date)) for each in actions.events)),
        [replace(each, symbol=security_of(each.symbol, each.ex_date)) for each in actions.distributions],
        [
            replace(each, symbol=security_of(each.symbol, each.day - timedelta(days=1)))
            for each in actions.endings
            if not goes_on(each)
        ],
        actions.symbol_changes,
        [(security_of(symbol, day), day, what) for symbol, day, what in actions.unclear],
    )


def event_frame(events: Iterable[Event]) -> pl.DataFrame:
    """One row a symbol and ex-date: dividends summed, splits multiplied, known when the last of them was.

    A dividend is turned from per share after that day's splits into per share before them, as the contract has it.
    """
    rows = [(each.symbol, each.ex_date, each.dividend, each.split_ratio, each.known_at) for each in events]
    frame = pl.DataFrame(rows, schema=EVENTS_SCHEMA, orient="row")
    split_ratio = pl.col("split_ratio").sort().product()
    return (
        frame.group_by("symbol", "ex_date")
        .agg(pl.col("dividend").sort().sum() * split_ratio, split_ratio, pl.col("known_at").max())
        .sort("symbol", "ex_date")
    )


def with_events(bars: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """`bars` with `dividend`, `split_ratio` and `known_at`: what went ex after the bar before, up to the bar's day.

    Of several events before one bar, a later dividend is per share of its own day: it counts times the splits before.
    What went ex before the first bar of a symbol is left out: nothing held through it is priced here.
    """
    bars = bars.sort("symbol", "date", maintain_order=True)
    # Copies of a bar all carry the event: which of them is kept is not decided here.
    days = bars.select("symbol", "date").unique(maintain_order=True)
    first = days.group_by("symbol").agg(first=pl.col("date").min())
    due = events.join(first, on="symbol").filter(pl.col("ex_date") >= pl.col("first"))
    due = due.sort("ex_date").join_asof(
        days.sort("date"),
        left_on="ex_date",
        right_on="date",
        by="symbol",
        strategy="forward",
        coalesce=False,
        check_sortedness=False,
    )
    splits_before = pl.col("split_ratio").cum_prod().shift(1, fill_value=1.0)
    carried = (
        due.filter(pl.col("date").is_not_null())
        .sort("symbol", "ex_date")
        .group_by("symbol", "date", maintain_order=True)
        .agg(
            dividend=(pl.col("dividend") * splits_before).sum(),
            split_ratio=pl.col("split_ratio").product(),
            known_at=pl.col("known_at").max(),
        )
    )
    return bars.join(carried, on=["symbol", "date"], how="left", maintain_order="left")


def _ex(action: Action) -> tuple[date, date]:
    """(ex-date, day on which the action was known)."""
    ex_date = date.fromisoformat(action["ex_date"])
    return ex_date, min(ex_date, date.fromisoformat(action["process_date"]))


def _in_dollars(action: Action) -> bool:
    return str(action.get("currency") or "USD").upper() == "USD"


def _cash_dividend(action: Action, actions: Actions) -> None:
    symbol, (ex_date, known_at) = normalise_symbol(action["symbol"]), _ex(action)
    if _in_dollars(action):
        actions.events.append(Event(symbol, ex_date, known_at, dividend=float(action["rate"])))
    else:
        unclear = f"the dividend of {ex_date} is in {action['currency']} and left out"
        actions.unclear.append((symbol, ex_date, unclear))


def _split(action: Action, actions: Actions) -> None:
    ex_date, known_at = _ex(action)
    ratio = float(action["new_rate"]) / float(action["old_rate"])
    old = normalise_symbol(action["symbol"])
    actions.events.append(Event(old, ex_date, known_at, split_ratio=ratio))
    if action.get("new_symbol"):
        new = normalise_symbol(action["new_symbol"])
        if new != old:
            actions.events.append(Event(new, ex_date, known_at, split_ratio=ratio))
            _change_symbol(old, new, ex_date, actions)


def _stock_dividend(action: Action, actions: Actions) -> None:
    ex_date, known_at = _ex(action)
    ratio = 1.0 + float(action["rate"])
    actions.events.append(Event(normalise_symbol(action["symbol"]), ex_date, known_at, split_ratio=ratio))


def _unit_split(action: Action, actions: Actions) -> None:
    """A unit comes apart into shares and warrants: the unit's listing ends, what both are worth is not said."""
    _end(action["old_symbol"], action, "unit split", None, actions)


def _spin_off(action: Action, actions: Actions) -> None:
    ratio = float(action["new_rate"]) / float(action["source_rate"])
    _distribute(action, ratio, "spin-off", actions)


def _rights(action: Action, actions: Actions) -> None:
    _distribute(action, float(action["rate"]), "rights distribution", actions)


def _distribute(action: Action, ratio: float, what: str, actions: Actions) -> None:
    symbol, security = normalise_symbol(action["source_symbol"]), normalise_symbol(action["new_symbol"])
    actions.distributions.append(Distribution(symbol, _ex(action)[0], security, ratio, what))


def _cash_merger(action: Action, actions: Actions) -> None:
    _end(action["acquiree_symbol"], action, "cash merger", action["rate"], actions)


def _stock_merger(action: Action, actions: Actions) -> None:
    if action["acquirer_symbol"] != action["acquiree_symbol"]:
        _end(action["acquiree_symbol"], action, "stock merger", None, actions)


def _stock_and_cash_merger(action: Action, actions: Actions) -> None:
    if action["acquirer_symbol"] != action["acquiree_symbol"]:
        _end(action["acquiree_symbol"], action, "stock and cash merger", None, actions)


def _redemption(action: Action, actions: Actions) -> None:
    _end(action["symbol"], action, "redemption", action["rate"], actions)


def _worthless_removal(action: Action, actions: Actions) -> None:
    _end(action["symbol"], action, "worthless removal", 0.0, actions)


def _reorganization(action: Action, actions: Actions) -> None:
    received = action.get("stock_movements") or []
    if action["symbol"] not in [movement["symbol"] for movement in received]:
        cash = None if received else action.get("cash_rate")
        _end(action["symbol"], action, "reorganization", cash, actions)


def _name_change(action: Action, actions: Actions) -> None:
    old, new = normalise_symbol(action["old_symbol"]), normalise_symbol(action["new_symbol"])
    if old != new:
        _change_symbol(old, new, date.fromisoformat(action["process_date"]), actions)


def _change_symbol(old: str, new: str, day: date, actions: Actions) -> None:
    actions.symbol_changes.append(SymbolChange(old, new, day))
    actions.endings.append(Ending(old, day, f"symbol changed to {new}", keeps_value=True))


def _end(symbol: str, action: Action, reason: str, cash: float | None, actions: Actions) -> None:
    known = cash is not None and _in_dollars(action)
    day = date.fromisoformat(action.get("effective_date") or action["process_date"])
    actions.endings.append(Ending(normalise_symbol(symbol), day, reason, float(cash or 0.0) if known else None))


_READERS: dict[str, Callable[[Action, Actions], None]] = {
    "cash_dividends": _cash_dividend,
    "forward_splits": _split,
    "reverse_splits": _split,
    "stock_dividends": _stock_dividend,
    "unit_splits": _unit_split,
    "spin_offs": _spin_off,
    "rights_distributions": _rights,
    "cash_mergers": _cash_merger,
    "stock_mergers": _stock_merger,
    "stock_and_cash_mergers": _stock_and_cash_merger,
    "redemptions": _redemption,
    "worthless_removals": _worthless_removal,
    "reorganizations": _reorganization,
    "name_changes": _name_change,
}
"""Every kind of action that changes what a holder of common stock has; partial calls concern bonds and preferreds."""


def types_asked_for() -> Iterator[str]:
    """The kinds as the API's `types` parameter spells them, in the singular."""
    return (kind.removesuffix("s") for kind in _READERS)
