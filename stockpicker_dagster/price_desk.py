"""A person at the prices of a source: reports on them, and decisions about rejected or wrong rows.

A decision is tried on the source before it is recorded, so that what is recorded takes effect. It changes nothing that
is stored: the days that it is about, and those after them, are made again by a run, and until then nothing is built on
them (`market.decision_records`).
"""

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.collection import under_decisions
from stockpicker_dagster.market.corrections import FIGURES, Decisions, Kind, Record
from stockpicker_dagster.market.data_report import DataReport, summarize
from stockpicker_dagster.market.decision_records import append_record, days_before_a_decision, load_decisions
from stockpicker_dagster.market.identity import Identities, read_symbol_changes
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster.market.prices import PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.restatements import RESTATED
from stockpicker_dagster.market.sources import Basis, Fetched
from stockpicker_dagster.market.universes import ListedName, normalise_symbol
from stockpicker_dagster.market.universes.snapshots import Acceptance, stored_snapshots
from stockpicker_dagster.runs import strategies
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import CALENDAR, PricesForm

if TYPE_CHECKING:
    from stockpicker_dagster.market.sources.files import FilesSource

_TRADED = ("open", "high", "low", "close", "volume")
_TABLES = ("prices", "quarantine", "delistings")


@dataclass(frozen=True)
class Decided:
    """A recorded decision, the stored days that still show what was before, and the commands that make them again."""

    record: Record
    days_to_make_again: list[date]
    commands: list[str]


def sources() -> dict[str, PricesForm]:
    """Every price source that a strategy uses, by name."""
    return {form.prices.key: form.prices for form in strategies().values()}


def find_source(name: str) -> PricesForm:
    """The price source of that name. Raises `InvalidInput` if no strategy uses one."""
    known = sources()
    if name not in known:
        raise InvalidInput(f"price source {name!r} is unknown; known: {', '.join(sorted(known)) or 'none'}")
    return known[name]


def report_stored(name: str, lake: Lake, first: date | None, last: date | None) -> DataReport:
    """The report on what is stored of a source from `first` to `last` (None: from its start, to its end)."""
    form = find_source(name)
    stored = lake.days(f"{name}/prices")
    days = [day for day in stored if (first is None or day >= first) and (last is None or day <= last)]
    if not days:
        held = f"{stored[0]} to {stored[-1]}" if stored else "nothing"
        raise InvalidInput(
            f"{name}/prices has no day from {first or 'its start'} to {last or 'its end'}; stored: {held}"
        )
    prices, quarantine, delistings = (lake.read(f"{name}/{table}", days) for table in _TABLES)
    return summarize(name, form.build().caveat, prices, quarantine, delistings, form.exchange_calendar)


def check_file(
    path: Path,
    basis: Basis,
    against: Path | None = None,
    against_basis: Basis | None = None,
    *,
    exchange: str = CALENDAR,
    currency: str = "USD",
    symbol_changes: Path | None = None,
) -> tuple[DataReport, pl.DataFrame]:
    """The report on a file that no strategy uses, and its rejected rows; nothing is stored.

    `against` is a second file, of `against_basis` (None: the same one), whose adjusted returns are compared with it.
    `exchange` names the calendar of both, and `symbol_changes` a file that says what their tickers mean.
    """
    from stockpicker_dagster.market.sources.files import FilesSource

    calendar = trading_calendar(exchange)
    known = Identities(() if symbol_changes is None else read_symbol_changes(symbol_changes))
    source = FilesSource(path.stem, path, basis, calendar.first_day, calendar, currency=currency, identities=known)
    everything = source.everything()
    agreement: str | None = None
    disagreements: pl.DataFrame | None = None
    if against is not None:
        second_basis = against_basis or basis
        second = FilesSource(
            against.stem, against, second_basis, calendar.first_day, calendar, currency=currency, identities=known
        )
        agreement, disagreements = _compared(everything.prices, second)
    report = summarize(
        path.name,
        source.caveat,
        everything.prices,
        everything.quarantine,
        everything.delistings,
        calendar,
        rows_in=source.row_count(),
        agreement=agreement,
        disagreements=disagreements,
    )
    return report, everything.quarantine


def _compared(prices: pl.DataFrame, second: "FilesSource") -> tuple[str, pl.DataFrame]:
    """How far adjusted returns agree with those of a second file, in a sentence, and where they do not."""
    from stockpicker_dagster.market.cross_check import TOLERANCE, cross_check

    found = cross_check(prices, second.everything().prices)
    causes = ", ".join(f"{count} {cause}" for cause, count in found.causes().items())
    sentence = (
        f"{found.agreement:.2%} of {found.compared:,} adjusted returns agree with {second.path.name} to {TOLERANCE:g}; "
        f"likely causes of the others: {causes or 'none'}"
    )
    return sentence, found.disagreements


def rejected_rows(name: str, lake: Lake, symbol: str | None, day: date | None, reason: str | None) -> pl.DataFrame:
    """The quarantined rows of a source, in `market.prices.QUARANTINE_SCHEMA`, of a symbol, a day, a reason or all."""
    find_source(name)
    table = f"{name}/quarantine"
    days = [each for each in lake.days(table) if day is None or each == day]
    if not days:
        return pl.DataFrame(schema=QUARANTINE_SCHEMA)
    rows = lake.read(table, days)
    if symbol is not None:
        rows = rows.filter(pl.col("symbol") == normalise_symbol(symbol))
    return rows if reason is None else rows.filter(pl.col("reason") == reason)


def accept_row(name: str, deployment: Deployment, symbol: str, day: date, why: str) -> Decided:
    """Takes a rejected row as it is, or, where the source restated a stored row, what the source says now.

    Its figures are part of the record: a later revision by the source is a restatement again. Raises `InvalidInput`
    where no row was rejected, or where several were, and where the row makes no sense however it is looked at.
    """
    symbol = normalise_symbol(symbol)
    answer = _asked(name, deployment.lake, symbol, day)
    rejected = answer.quarantine.filter(pl.col("reason") != RESTATED)
    if rejected.height > 1:
        raise InvalidInput(
            f"{rejected.height} rows of {symbol} on {day} were rejected, and only one can be right; say its figures "
            f"with `stockpicker data correct {name} {symbol} {day} open=... high=... low=... close=... volume=...`"
        )
    if rejected.height:
        figures = _figures(rejected, FIGURES)
    elif rejected_rows(name, deployment.lake, symbol, day, RESTATED).height and answer.prices.height:
        figures = _figures(answer.prices, _TRADED)
    else:
        raise InvalidInput(f"no row of {symbol} on {day} was rejected; `stockpicker data quarantine {name}` lists them")
    return _decide(name, deployment, "accept", symbol, day, figures, why)


def correct_row(
    name: str, deployment: Deployment, symbol: str, day: date, figures: Mapping[str, float], why: str
) -> Decided:
    """Puts `figures` in the place of those of a row, be it stored or rejected.

    Raises `InvalidInput` where the source has no such row, where it would be rejected all the same, and where the
    figures change nothing.
    """
    return _decide(name, deployment, "correct", normalise_symbol(symbol), day, figures, why)


def accept_days(name: str, deployment: Deployment, days: Sequence[date], why: str) -> list[Decided]:
    """Lets sessions through that were refused as a whole; the next run stores them.

    Raises `InvalidInput`, and records nothing, if one is no session or has not ended: nobody has seen its rows yet.
    """
    calendar = find_source(name).exchange_calendar
    last = calendar.last_completed(deployment.now())
    for day in days:
        if day > last:
            raise InvalidInput(
                f"{day} cannot be let through before its rows can be seen: the last completed session is {last}"
            )
        if not calendar.is_session(day):
            raise InvalidInput(f"{day} is no session of the exchange of {name!r}; there is nothing to let through")
    return [
        _record(name, deployment, Record(0, "accept_day", day, None, why, _who(), deployment.now())) for day in days
    ]


def take_back(name: str, deployment: Deployment, number: int, why: str) -> Decided:
    """Takes an earlier decision back, which is a decision of its own."""
    find_source(name)
    earlier = load_decisions(deployment.lake, name).record(number)
    record = Record(
        0,
        "take_back",
        earlier.day,
        earlier.symbol,
        why,
        _who(),
        deployment.now(),
        before=earlier.after,
        takes_back=number,
    )
    return _record(name, deployment, record)


def acceptance(why: str | None) -> Acceptance:
    """That the person at the keyboard vouches for a list of members. Raises `InvalidInput` without a reason."""
    if not (why or "").strip():
        raise InvalidInput('a list is accepted for a reason, which is kept with it; say it with --reason "..."')
    return Acceptance(_who(), str(why).strip())


def list_history(lake: Lake, name: ListedName) -> list[str]:
    """Every stored list of a named universe in a line, oldest first. Raises `InvalidInput` if there is none."""
    stored = stored_snapshots(lake, name)
    if not stored:
        raise InvalidInput(f"no list of {name} is stored yet; `stockpicker data universe {name}` takes the public one")
    return [
        f"in force from {each.in_force_from if place else 'ever'}: {each.members.height} members of {each.stored_on} "
        f"from {each}"
        for place, each in enumerate(stored)
    ]


def _decide(
    name: str, deployment: Deployment, kind: Kind, symbol: str, day: date, figures: Mapping[str, float], why: str
) -> Decided:
    """Records the decision if the source's row then passes the contract and shows the figures."""
    lake = deployment.lake
    before = _row_before(name, lake, symbol, day)
    record = Record(0, kind, day, symbol, why, _who(), deployment.now(), before=before, after=dict(figures))
    answer = _asked(name, lake, symbol, day, record)
    if answer.prices.is_empty():
        reasons = ", ".join(answer.quarantine["reason"].unique().sort())
        raise InvalidInput(
            f"{symbol} on {day} would still be rejected as {reasons}; correct the figures that it is rejected for"
            if reasons
            else f"price source {name!r} has no row of {symbol} on {day}; only rows that came can be decided on"
        )
    row = answer.prices.row(0, named=True)
    if "reason" not in before and all(row[figure] == before.get(figure) for figure in FIGURES):
        raise InvalidInput(
            f"the figures given for {symbol} on {day} change nothing: they are those that it has, or, where the source "
            "brings adjusted closes, events given by dividend and split_ratio; give adjustment there"
        )
    return _record(name, deployment, record)


def _asked(name: str, lake: Lake, symbol: str, day: date, record: Record | None = None) -> Fetched:
    """What the source says about one row under the decisions in force, and under one more if it is given."""
    form = find_source(name)
    decisions = load_decisions(lake, name)
    if record is not None:
        decisions = Decisions((*decisions.records, record))
    source = form.build(identities_in_force(lake, name))
    answer = under_decisions(source, decisions).fetch([symbol], [day])
    on_day = (pl.col("symbol") == symbol) & (pl.col("date") == day)
    return Fetched(answer.prices.filter(on_day), answer.delistings, answer.quarantine.filter(on_day))


def _row_before(name: str, lake: Lake, symbol: str, day: date) -> dict[str, Any]:
    """The row as it is stored, else as the source has it, with its `reason` if rejected; empty if there is none.

    What is stored from before another decision about the row does not count: the next run makes it again.
    """
    table, decisions = f"{name}/prices", load_decisions(lake, name)
    decided = any((record.symbol, record.day) == (symbol, day) for record in decisions.records)
    outdated = decided and day in days_before_a_decision(lake, table, decisions)
    if day in lake.days(table) and not outdated:
        stored = lake.read(table, [day]).filter(pl.col("symbol") == symbol)
        if stored.height:
            return _figures(stored, FIGURES)
    answer = _asked(name, lake, symbol, day)
    if answer.prices.height:
        return _figures(answer.prices, FIGURES)
    if answer.quarantine.height:
        return {**_figures(answer.quarantine, FIGURES), "reason": answer.quarantine["reason"][0]}
    return {}


def _figures(rows: pl.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """The figures that the first row has."""
    row = rows.row(0, named=True)
    return {
        name: row[name] for name in names if name in PRICES_SCHEMA and row[name] is not None and row[name] == row[name]
    }


def _record(name: str, deployment: Deployment, record: Record) -> Decided:
    lake = deployment.lake
    recorded = append_record(lake, name, record)
    again = days_before_a_decision(lake, f"{name}/prices", load_decisions(lake, name))
    users = [user for user, form in sorted(strategies().items()) if form.prices.key == name]
    return Decided(recorded, again, [f"stockpicker run {user} --from {again[0]}" for user in users] if again else [])


def _who() -> str:
    return f"os:{getpass.getuser()}"
