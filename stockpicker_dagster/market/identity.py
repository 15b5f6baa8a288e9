"""Which security a ticker stands for on a day: one stable id for each security, whatever it is called.

`symbol` is, in every table, the id of a security: the first ticker that it had since its source began. A ticker that
another company takes up later gets a suffix, `ABC~2`. What is known follows from statements about tickers
(`SymbolChange`); which of them count for a lake is kept by `identity_records`. How a ticker is spelled is the matter of
`universes.symbols`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.universes import SPELLS_SCHEMA, Universe, from_spells, normalise_symbol

REUSED_AFTER = 126
"""A ticker that trades again after more than so many sessions without a trade, half a year, is another security: its
history would otherwise be joined to that of a company which has left. Long suspensions are rarer than re-used tickers;
a statement says so where one was."""

_Starts = list[tuple[date | None, str]]
"""From which day on (None: ever) a name stands for which security, ascending."""

LIFE = "~"
"""Stands in the id of a security behind a ticker that was another one's before."""
_COLUMNS = ("old", "new", "date")
_TRADED = pl.col("close").is_finite() & (pl.col("close") > 0) & (pl.col("volume") > 0)


@dataclass(frozen=True, order=True)
class SymbolChange:
    """A statement about tickers: `new` is the ticker, from the session `day` on, of what was `old` before.

    Without `old`, `new` is another company's ticker from `day` on than before. Where both are the same, trades of that
    ticker from `day` on are the same security's as before, however long there were none.
    """

    old: str
    new: str
    day: date

    def __str__(self) -> str:
        if self.old and self.old != self.new:
            return f"{self.old} -> {self.new} on {self.day}"
        return f"{self.new} {'resumed' if self.old else 're-used'} on {self.day}"


@dataclass(frozen=True)
class _Tenure:
    """From `start` on (None: ever) the ticker is that of `security`, until its next tenure.

    `began` says how: as the first ticker, by a change from another one, by re-use; or `vacated`, where the holder took
    another ticker and nobody is known to have taken up this one: whatever trades under it now is another security.
    """

    security: str
    start: date | None
    began: Literal["first", "change", "reuse", "vacated"]


@dataclass(frozen=True)
class Identities:
    """What tickers mean, given statements about them; without any, each ticker is its own security for good.

    Two readings of a ticker are needed. *As of the day* is for data that name a security as it was called on that day.
    *As listed* is for lists and vendors that show the whole history of a security under a later ticker: there the
    ticker means its last holder, and before that holder's time the same one, unless the ticker was re-used.

    >>> known = Identities((SymbolChange("FB", "META", date(2022, 6, 9)),))
    >>> known.security_of("META", date(2022, 6, 9)), known.security_of("META", date(2022, 6, 8))
    ('FB', 'META')
    >>> known.ticker_of("FB", date(2022, 6, 8)), known.ticker_of("FB", date(2022, 6, 9))
    ('FB', 'META')
    """

    changes: tuple[SymbolChange, ...] = ()

    def also(self, changes: Iterable[SymbolChange]) -> "Identities":
        """These statements and others. Raises `InvalidInput` if they contradict each other."""
        both = Identities(tuple(sorted({*self.changes, *changes})))
        _ = both._tenures
        return both

    def security_of(self, ticker: str, day: date) -> str:
        """The id of what the ticker stood for on `day`, as of that day."""
        return self._held(ticker, day).security

    def listed_security(self, ticker: str, day: date) -> str:
        """The id of what a list means by the ticker on `day`: a vacated ticker still means who had it before."""
        held = [tenure for tenure in self._of(ticker) if tenure.began != "vacated"]
        return next(tenure for tenure in reversed(held) if tenure.start is None or tenure.start <= day).security

    def ticker_of(self, security: str, day: date) -> str | None:
        """The ticker of the security on `day`; None where its ticker is another one's then, and it has no new one."""
        return next((ticker for ticker in self._tickers(security) if self.security_of(ticker, day) == security), None)

    def renamed(self, day: date) -> dict[str, str | None]:
        """The tickers on `day` of the securities that are called otherwise than by their ids then; None: by none.

        >>> Identities((SymbolChange("FB", "META", date(2022, 6, 9)),)).renamed(date(2022, 6, 9))
        {'FB': 'META', 'FB~2': 'FB', 'META': None}
        """
        return {
            security: ticker
            for security in self._tickers_by_security
            if (ticker := self.ticker_of(security, day)) != security
        }

    def latest_ticker(self, security: str, day: date) -> str:
        """The ticker of the security on `day`, or the last that it had before; for the security's first id if none."""
        if security not in self._tickers_by_security:
            # Most were never renamed, and thousands are asked for at once.
            return _first_ticker(security)
        held = [
            (tenure.start or date.min, ticker)
            for ticker in self._tickers(security)
            for tenure in self._of(ticker)
            if tenure.security == security and (tenure.start is None or tenure.start <= day)
        ]
        return max(held)[1] if held else _first_ticker(security)

    def latest_tickers(self, names: Collection[str], day: date) -> list[str]:
        """The tickers, on `day` or last before it, of every security that the names stand for, alphabetically."""
        return sorted({self.latest_ticker(security, day) for security in self.known_securities_of(names)})

    def tickers_between(self, security: str, first: date, last: date) -> list[str]:
        """Every ticker that the security had on some day from `first` to `last`, in alphabetical order."""
        if security not in self._tickers_by_security:
            return [_first_ticker(security)]
        found = []
        for ticker in self._tickers(security):
            tenures = self._of(ticker)
            ends = [tenure.start for tenure in tenures[1:]] + [date.max]
            for tenure, end in zip(tenures, ends, strict=True):
                assert end is not None
                if tenure.security == security and (tenure.start or date.min) <= last and end > first:
                    found.append(ticker)
        return sorted(set(found))

    def securities_of(self, names: Collection[str]) -> list[str]:
        """Every security that some name stands for, as its id or as a ticker that it has ever had, alphabetically.

        Who may have taken up a vacated ticker is among them.
        """
        found = {tenure.security for name in names for tenure in self._of(name)}
        return sorted(found | set(names))

    def known_securities_of(self, names: Collection[str]) -> list[str]:
        """Those of `securities_of` the names of which somebody is known to have, or to have had, a ticker."""
        return [security for security in self.securities_of(names) if not self._is_nobody(security)]

    def tickers_of(self, names: Collection[str]) -> list[str]:
        """Every ticker that was ever that of a security which some name stands for, in alphabetical order."""
        return sorted({ticker for security in self.securities_of(names) for ticker in self._tickers(security)})

    def meant(self, names: Collection[str], present: Iterable[str]) -> list[str]:
        """Those of the ids `present` that some name stands for, be it by a re-use of which nothing is stated."""
        wanted, named = set(self.securities_of(names)), set(names)
        return [security for security in present if security in wanted or _first_ticker(security) in named]

    def identified(self, frame: pl.DataFrame, day: str = "date") -> pl.DataFrame:
        """The rows with ids in the place of the tickers in `symbol`, as of the date in `day`; their order stays."""
        return _renamed(frame, day, self._starts)

    def identified_as_listed(self, frame: pl.DataFrame, day: str = "date") -> pl.DataFrame:
        """The rows with ids in the place of the tickers in `symbol`, read as listed; their order stays."""
        return _renamed(frame, day, self._listed_starts)

    def series_of(self, rows: pl.DataFrame) -> pl.Series:
        """A name for each row (`symbol`: ids, `date`) that is the same for rows of one security under one ticker.

        What a vendor states over a whole series, such as adjusted closes, is stated from one end of it alone: that of
        one security under two tickers cannot be compared.
        """
        return _renamed(rows, "date", self._series)["symbol"]

    def restated(self, changes: Iterable[SymbolChange]) -> "Identities":
        """The meaning of tickers in data that show the history before some `changes` under the new ticker already."""
        return _Restated(self.changes, tuple(changes))

    def is_same_again(self, ticker: str, last: date, resumed: date) -> bool:
        """Whether somebody stated that what trades again on `resumed` is what traded last on `last`."""
        return any(each.old == each.new == ticker and last < each.day <= resumed for each in self.changes)

    def _is_nobody(self, security: str) -> bool:
        """Whether the id is that of whoever may take up a vacated ticker, and nobody is known to have."""
        tickers = self._tickers_by_security.get(security, [])
        held = [tenure for ticker in tickers for tenure in self._of(ticker) if tenure.security == security]
        return bool(held) and all(tenure.began == "vacated" for tenure in held)

    @cached_property
    def _tenures(self) -> dict[str, list[_Tenure]]:
        """The tenures of every ticker that some statement is about, ascending."""
        return _tenures_from(self.changes, frozenset())

    @cached_property
    def _tickers_by_security(self) -> dict[str, list[str]]:
        held: dict[str, list[str]] = {}
        for ticker, tenures in self._tenures.items():
            for tenure in tenures:
                held.setdefault(tenure.security, []).append(ticker)
        return held

    def _tickers(self, security: str) -> list[str]:
        return self._tickers_by_security.get(security, [_first_ticker(security)])

    def _of(self, ticker: str) -> list[_Tenure]:
        return self._tenures.get(ticker, [_Tenure(ticker, None, "first")])

    def _held(self, ticker: str, day: date) -> _Tenure:
        return next(each for each in reversed(self._of(ticker)) if each.start is None or each.start <= day)

    @cached_property
    def _starts(self) -> dict[str, _Starts]:
        return {
            ticker: [(tenure.start, tenure.security) for tenure in tenures] for ticker, tenures in self._tenures.items()
        }

    @cached_property
    def _series(self) -> dict[str, _Starts]:
        series: dict[str, _Starts] = {}
        for tenures in self._tenures.values():
            for tenure in tenures:
                if tenure.began == "change":
                    held = series.setdefault(tenure.security, [(None, tenure.security)])
                    held.append((tenure.start, f"{tenure.security} since {tenure.start}"))
        return series

    @cached_property
    def _listed_starts(self) -> dict[str, _Starts]:
        return {ticker: _as_listed(tenures) for ticker, tenures in self._tenures.items()}


@dataclass(frozen=True)
class _Restated(Identities):
    """Identities in data that show some changes' new tickers in all of the history."""

    shown_early: tuple[SymbolChange, ...] = ()

    @cached_property
    def _tenures(self) -> dict[str, list[_Tenure]]:
        return _tenures_from(self.changes, frozenset(self.shown_early))

    def also(self, changes: Iterable[SymbolChange]) -> "Identities":
        return _Restated(super().also(changes).changes, self.shown_early)


def read_symbol_changes(path: Path) -> tuple[SymbolChange, ...]:
    """The statements in a CSV file with the columns `old`, `new` and `date`, the first day of the new ticker.

    Raises `InvalidInput`, naming the line, where the file cannot be understood or contradicts itself.
    """
    try:
        rows = pl.read_csv(path, infer_schema=False).fill_null("")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the symbol changes in {path} cannot be read as CSV: {error}") from error
    columns = {name.strip().casefold(): name for name in rows.columns}
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise InvalidInput(f"{path} lacks {', '.join(missing)}; symbol changes have the columns {', '.join(_COLUMNS)}")
    lines = rows.select(pl.col(columns[name]).str.strip_chars().alias(name) for name in _COLUMNS).iter_rows()
    changes = tuple(_change(path, number, *line) for number, line in enumerate(lines, start=2))
    return Identities().also(changes).changes


def _change(path: Path, line: int, old: str, new: str, day: str) -> SymbolChange:
    try:
        change = SymbolChange(normalise_symbol(old) if old else "", normalise_symbol(new), date.fromisoformat(day))
    except (ValueError, InvalidInput) as error:
        raise InvalidInput(
            f"{path}, line {line}: {old or 'nothing'},{new or 'nothing'},{day or 'nothing'} is no symbol change; write "
            "old,new,date such as FB,META,2022-06-09, with old blank where another company takes up the ticker"
        ) from error
    if LIFE in change.old + change.new:
        raise InvalidInput(f"{path}, line {line}: {change} has a {LIFE}, which no ticker has; name tickers, not ids")
    return change


def _tenures_from(changes: Sequence[SymbolChange], shown_early: Collection[SymbolChange]) -> dict[str, list[_Tenure]]:
    """The tenures of all tickers in `changes`; the tenures that those `shown_early` begin reach back to the one before.

    Raises `InvalidInput` where two changes of one day contradict each other.
    """
    tenures: dict[str, list[_Tenure]] = {}
    lives: dict[str, int] = {}

    def of(ticker: str) -> list[_Tenure]:
        return tenures.setdefault(ticker, [_Tenure(ticker, None, "first")])

    def another(ticker: str) -> str:
        lives[ticker] = lives.get(ticker, 1) + 1
        return f"{ticker}{LIFE}{lives[ticker]}"

    for day, of_day in groupby(sorted(changes, key=lambda change: change.day), key=lambda change: change.day):
        today = [change for change in of_day if change.old != change.new]
        moves = [change for change in today if change.old]
        for side, what in (("old", "what becomes of"), ("new", "who takes up")):
            names = [getattr(change, side) for change in (moves if side == "old" else today)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InvalidInput(f"two symbol changes on {day} say {what} {twice[0]}; keep one of them")
        # Tickers swap at once: who holds what is read before anybody moves.
        moving = [(change, of(change.old)[-1].security) for change in moves]
        taken = {change.new for change in today}
        for change in moves:
            if change.old not in taken:
                of(change.old).append(_Tenure(another(change.old), day, "vacated"))
        for change, security in moving:
            held = of(change.new)
            if change in shown_early:
                held[-1] = _Tenure(security, held[-1].start, held[-1].began)
            else:
                held.append(_Tenure(security, day, "change"))
        leaving = {change.old for change in moves}
        for change in today:
            if not change.old:
                held = of(change.new)
                # A ticker that was vacated has its next holder's id already; now it is known when that one came. Unless
                # that holder takes another ticker on this very day: then one more company comes.
                known = held[-1].began == "vacated" and change.new not in leaving
                security = held[-1].security if known else another(change.new)
                held.append(_Tenure(security, day, "reuse"))
    return tenures


def _as_listed(tenures: Sequence[_Tenure]) -> _Starts:
    """From when on which security is meant by a ticker that is read as listed."""
    held = [tenure for tenure in tenures if tenure.began != "vacated"]
    meant: _Starts = []
    for tenure in held:
        if tenure.began == "change":
            # Whoever took the ticker over is meant on the days before, too, back to the last re-use.
            start = meant.pop()[0]
            meant.append((start, tenure.security))
        else:
            meant.append((tenure.start, tenure.security))
    return meant


def _first_ticker(security: str) -> str:
    return security.split(LIFE)[0]


def resumptions(rows: pl.DataFrame, identities: Identities, calendar: TradingCalendar) -> list[SymbolChange]:
    """The re-uses that show in rows (`symbol`: ids, `date`, `close`, `volume`): trades after `REUSED_AFTER` sessions
    without any, and trades under a ticker that its holder gave up.

    Rows without a trade neither end nor begin a security. A re-use is decided by trades up to its day alone; of what is
    not among the rows nothing is said. Nothing is found where a statement says that the security is the same.
    """
    # A day beyond the exchange's calendar is a mistake, which its row is rejected for.
    known = pl.col("date").is_between(calendar.first_day, calendar.last_day)
    traded = rows.filter(_TRADED & known).select("symbol", "date").sort("symbol", "date")
    again = (pl.col("symbol") == pl.col("symbol").shift(1)) & (
        (pl.col("date") - pl.col("date").shift(1)).dt.total_days() > REUSED_AFTER
    )
    gaps = traded.with_columns(last=pl.col("date").shift(1)).filter(again.fill_null(False))
    found = []
    for security, resumed, last in gaps.iter_rows():
        ticker = identities.ticker_of(security, resumed) or _first_ticker(security)
        missed = calendar.count(last, resumed) - calendar.is_session(last) - calendar.is_session(resumed)
        if missed > REUSED_AFTER and not identities.is_same_again(ticker, last, resumed):
            found.append(SymbolChange("", ticker, resumed))
    return [*_taken_up(traded, identities), *found]


def _taken_up(traded: pl.DataFrame, identities: Identities) -> list[SymbolChange]:
    """The vacated tickers that somebody trades under."""
    nobody = [security for security in traded["symbol"].unique().sort() if identities._is_nobody(security)]
    firsts = traded.filter(pl.col("symbol").is_in(nobody)).group_by("symbol").agg(pl.col("date").min()).sort("symbol")
    return [SymbolChange("", _first_ticker(security), day) for security, day in firsts.iter_rows()]


def with_re_uses(rows: pl.DataFrame, identities: Identities, reused: Iterable[SymbolChange]) -> pl.DataFrame:
    """Rows with ids by `identities` (`symbol`, `date`, ...), with those that follow from re-uses found since."""
    starts: dict[str, _Starts] = {}
    first_ids: dict[str, str] = {}
    for change in sorted(reused, key=lambda each: each.day):
        before = identities.security_of(change.new, change.day)
        first = first_ids.get(before, before)
        identities = identities.also([change])
        after = identities.security_of(change.new, change.day)
        first_ids[after] = first
        starts.setdefault(first, [(None, first)]).append((change.day, after))
    return _renamed(rows, "date", starts)


def _renamed(frame: pl.DataFrame, day: str, starts: Mapping[str, _Starts]) -> pl.DataFrame:
    """The rows with other names in `symbol` from their starts on; the order of rows stays."""
    present = [name for name in frame["symbol"].unique() if starts.get(name, [(None, name)]) != [(None, name)]]
    if not present:
        return frame
    pairs = [(name, start or date.min, security) for name in present for start, security in starts[name]]
    table = pl.DataFrame(pairs, {"symbol": pl.String, "start": pl.Date, "security": pl.String}, orient="row")
    numbered = frame.with_row_index("row")
    concerned = numbered.filter(pl.col("symbol").is_in(present)).select("row", "symbol", pl.col(day).alias("on"))
    named = concerned.sort("on").join_asof(
        table.sort("start"), left_on="on", right_on="start", by="symbol", check_sortedness=False
    )
    beside = numbered.join(named.select("row", "security"), on="row", how="left", maintain_order="left")
    return beside.with_columns(symbol=pl.coalesce("security", "symbol")).select(frame.columns)


def with_identities(universe: Universe, identities: Identities) -> Universe:
    """The universe with the ids of its members, whose tickers are read as listed, in the place of the tickers."""
    if not identities.changes:
        return universe
    spells = [
        row
        for spell in universe.spells.iter_rows(named=True)
        for row in _spells_of(spell, identities._listed_starts.get(spell["symbol"]))
    ]
    named = pl.DataFrame(spells, schema=SPELLS_SCHEMA)
    return from_spells(
        universe.name,
        named,
        point_in_time=universe.point_in_time,
        caveat=universe.caveat,
        point_in_time_since=universe.point_in_time_since,
    )


def _spells_of(
    spell: dict[str, object], meant: Sequence[tuple[date | None, str]] | None
) -> Iterable[dict[str, object]]:
    """The spell, divided where its ticker begins to mean another security."""
    if meant is None:
        yield spell
        return
    ends = [start for start, _ in meant[1:]] + [None]
    first, last = spell["start"] or date.min, spell["end"] or date.max
    assert isinstance(first, date)
    assert isinstance(last, date)
    for (start, security), end in zip(meant, ends, strict=True):
        begins, until = max(first, start or date.min), min(last, end or date.max)
        if begins < until:
            yield {
                **spell,
                "symbol": security,
                "start": None if begins == date.min else begins,
                "end": None if until == date.max else until,
            }
