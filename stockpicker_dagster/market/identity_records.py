"""Which statements about tickers count for a price source in a lake: `<source>/prices.identities/changes.json`.

Stored rows keep their ids for good. A statement therefore counts from when it is first met, and only if it names no
stored row anew; one that comes too late is reported, and the security goes on under the id that its rows have.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.identity import Identities, SymbolChange
from stockpicker_dagster.market.sources import KnowsSymbolChanges, PriceSource
from stockpicker_dagster.storage.lake import Lake

_RENAMES = "stored rows have another id already, and keep it"
_TOLD_TWICE = timedelta(days=30)
"""Vendors tell one change twice, some days apart: with the new name, and with a split of the same days."""


@dataclass(frozen=True)
class Learned:
    """The statements in force, and those that are not, each with the reason."""

    identities: Identities
    left_out: Mapping[SymbolChange, str]


def identities_in_force(lake: Lake, source: str) -> Identities:
    """What tickers mean in the stored rows of a source."""
    content = lake.read_file(_name(source))
    if content is None:
        return Identities()
    return Identities(tuple(SymbolChange(old, new, date.fromisoformat(day)) for old, new, day in json.loads(content)))


def learn(lake: Lake, source: str, statements: Iterable[SymbolChange]) -> Learned:
    """Records the statements that are new, come in time and contradict none in force, and says what is in force."""
    known = identities_in_force(lake, source)
    fresh = _fresh(statements, known)
    in_force, left_out = known, dict[SymbolChange, str]()
    stored = _stored_rows(lake, source, fresh)
    # All of them at once, as a rule; where some cannot count, those that belong together are tried by themselves.
    for told in [fresh] if _refusal(stored, known, fresh) is None else _linked(fresh):
        if why := _refusal(stored, in_force, told):
            left_out |= dict.fromkeys(told, why)
        else:
            in_force = in_force.also(told)
    if in_force != known:
        content = [[change.old, change.new, str(change.day)] for change in in_force.changes]
        lake.write_file(_name(source), json.dumps(content, indent=0).encode())
    return Learned(in_force, left_out)


def learn_from(
    lake: Lake, source: PriceSource, names: Sequence[str] | None, stated: Iterable[SymbolChange], last: date
) -> Learned:
    """`learn` what the user states and, up to the session `last`, what the source itself is told about `names`."""
    told: list[SymbolChange] = []
    if isinstance(source, KnowsSymbolChanges) and names is not None:
        told = [change for change in source.symbol_changes(names, source.start, last) if change.day > source.start]
    return learn(lake, source.name, [*stated, *told])


def _stored_rows(lake: Lake, source: str, changes: Sequence[SymbolChange]) -> pl.DataFrame:
    """`symbol` and `date` of every stored row since the first of the changes."""
    days = [day for day in lake.days(f"{source}/prices") if changes and day >= changes[0].day]
    if not days:
        return pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date})
    return lake.scan(f"{source}/prices", days).select("symbol", "date").collect()


def _fresh(statements: Iterable[SymbolChange], known: Identities) -> list[SymbolChange]:
    """The statements that are not in force yet, by day; a change told again some days later is no new one."""
    told = {(each.old, each.new): each.day for each in known.changes}
    fresh = []
    for change in sorted(set(statements) - set(known.changes), key=lambda each: each.day):
        earlier = told.get((change.old, change.new))
        if change.old in ("", change.new) or earlier is None or abs(change.day - earlier) > _TOLD_TWICE:
            told[change.old, change.new] = change.day
            fresh.append(change)
    return fresh


def _linked(changes: Sequence[SymbolChange]) -> Iterator[list[SymbolChange]]:
    """The changes by day, those of one day together that share a ticker: companies swap theirs."""
    for _, of_day in groupby(changes, key=lambda each: each.day):
        groups: list[list[SymbolChange]] = []
        for change in of_day:
            sharing = [group for group in groups if _tickers(group) & _tickers([change])]
            groups = [group for group in groups if group not in sharing]
            groups.append([*(each for group in sharing for each in group), change])
        yield from groups


def _refusal(stored: pl.DataFrame, known: Identities, changes: Sequence[SymbolChange]) -> str | None:
    """Why the changes, ascending by day, cannot count beside what is known; None if they can."""
    try:
        proposed = known.also(changes)
    except InvalidInput as error:
        return str(error)
    return _RENAMES if changes and _name_anew(stored, known, proposed, changes) else None


def _tickers(changes: Iterable[SymbolChange]) -> set[str]:
    return {ticker for change in changes for ticker in (change.old, change.new)} - {""}


def _name_anew(stored: pl.DataFrame, before: Identities, after: Identities, changes: Sequence[SymbolChange]) -> bool:
    """Whether some stored row would have another id with the changes, ascending by day, than it has."""
    tickers = _tickers(changes)
    concerned = before.meant(sorted(tickers), stored["symbol"].unique())
    rows = stored.filter(pl.col("symbol").is_in(concerned), pl.col("date") >= changes[0].day)
    named = ((symbol, day, before.ticker_of(symbol, day)) for symbol, day in rows.iter_rows())
    return any(ticker in tickers and after.security_of(ticker, day) != symbol for symbol, day, ticker in named)


def _name(source: str) -> str:
    return f"{source}/prices.identities/changes.json"
