"""A chain of price sources: the next one fills what the ones before it lack, symbol by symbol and session by session.

Every row says which source it came from. Each source answers as it does alone; what is made here is the seam: an
adjustment refers to the preceding row of the chain, whoever it came from, and no event is booked twice.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from datetime import date

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.corrections import Correctable, Decision
from stockpicker_dagster.market.cross_check import cross_check
from stockpicker_dagster.market.identity import SymbolChange
from stockpicker_dagster.market.prices import QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Basis, Fetched, KnowsSymbolChanges, PriceSource
from stockpicker_dagster.market.sources.exchange import ExchangeVenue
from stockpicker_dagster.market.sources.judgement import judge, judged_from, lacking_predecessor, with_report_session

SAME_EVENT = 0.05
"""Splits and dividends of two sources that differ by less, relatively, across a seam are one: vendors round."""

_LEAD = 10
"""Sessions read before a scan starts; most stocks have their preceding row there."""


class ChainedSource:
    """Several sources as one, the first choice first.

    A session of a symbol comes from the first source that has an acceptable row of it; a row that is quarantined counts
    as lacking, and stays in quarantine. All sources have one basis: a price restated for later splits beside one as
    traded would be a false return. Where an event falls between two rows of a source and another source covers the days
    between, the event is booked once, on the row of the source that covers its day.

    A source that fails makes the whole fetch fail: were it passed over, an outage of an hour would change for good
    where a day's rows come from, and the next day would stand on other prices than the last. To go on without a source,
    take it out of the list, under another name. A source that ends before a session lacks it, and that is reported.

    Of a symbol that leaves, the listing that is known first counts, of several on one day the one with a return; one
    that is contradicted by later rows of the chain does not. `Fetched.disagreements` shows what the first source and
    each other one say differently about the days asked for, where both have a row.
    """

    kind = "chain"

    def __init__(self, name: str, sources: Sequence[PriceSource], calendar: TradingCalendar | None = None) -> None:
        names = [source.name for source in sources]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InvalidInput(f"a chain needs two or more sources of different names, and got {names}")
        bases = {source.name: source.basis for source in sources}
        if len(set(bases.values())) > 1:
            raise InvalidInput(f"sources of different bases cannot be chained: {bases}; give all the same basis")
        self.name = name
        self.sources = tuple(sources)
        self.basis: Basis = sources[0].basis
        self.start = max(source.start for source in sources)
        said = [f"{source.name}: {source.caveat}" for source in sources if source.caveat]
        self.caveat: str | None = "; ".join([f"prices of several sources ({', then '.join(names)})", *said])
        self._calendar = calendar or trading_calendar()
        self._decisions: tuple[Decision, ...] = ()

    def __repr__(self) -> str:
        return f"ChainedSource({self.name!r}, {list(self.sources)!r})"

    def corrected(self, decisions: Sequence[Decision]) -> "ChainedSource":
        """The same chain, with the rows of every source judged under a person's decisions."""
        twin = copy(self)
        twin.sources = tuple(
            source.corrected(decisions) if isinstance(source, Correctable) else source for source in self.sources
        )
        twin._decisions = tuple(decisions)
        return twin

    def available_through(self) -> date | None:
        """The last session that any of the sources can answer for; None if one answers for any."""
        ends = [source.available_through() for source in self.sources]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(ends) else None

    def venue(self) -> ExchangeVenue:
        """The exchange, with the opening prices of the chain."""
        return ExchangeVenue(self._calendar, self)

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """See `PriceSource.fetch`. Raises what any of the sources raises."""
        if not sessions:
            return self._first().fetch(symbols, [])
        if sessions[0] < self.start:
            raise InvalidInput(f"{sessions[0]} precedes the start of source {self.name!r}, which is {self.start}")
        end = self.available_through()
        if end is not None and sessions[-1] > end:
            raise InvalidInput(f"no source of {self.name!r} reaches {sessions[-1]}; ask for sessions up to {end}")
        anchor = judged_from(sessions[0], self._calendar)
        since = max(self.start, self._calendar.offset(anchor, -_LEAD))
        answers = self._ask(symbols, self._calendar.sessions(since, sessions[-1]))
        rows = _merged(answers)
        seamed = set(rows.filter(_eventful() & pl.col("own_before").is_null())["symbol"])
        older = sorted(seamed | set(lacking_predecessor(rows, anchor)))
        if older and since > self.start:
            before = self._calendar.sessions(self.start, self._calendar.previous_session(since))
            earlier = self._ask(older, before) if before else {}
            rows = _merged({name: [*earlier.get(name, []), *found] for name, found in answers.items()})
        prices, rejected = judge(
            without_booked_events(rows), sessions, self._calendar, self._decisions, basis=self.basis
        )
        answered = [answer for found in answers.values() for answer in found]
        quarantine = pl.concat([rejected, *[answer.quarantine for answer in answered]])
        return Fetched(
            prices,
            _delistings([answer.delistings for answer in answered], rows, sessions, self._calendar),
            _reported_on(quarantine, sessions, self._calendar),
            self._unanswered(answered, prices, sessions),
            _disagreements(answers, sessions),
            tuple(sorted({each for answer in answered for each in answer.reused})),
        )

    def symbol_changes(self, symbols: Collection[str], first: date, last: date) -> list[SymbolChange]:
        """What those of the sources that know of changes of symbols say about them, each once."""
        knowing = [source for source in self.sources if isinstance(source, KnowsSymbolChanges)]
        return sorted({change for source in knowing for change in source.symbol_changes(symbols, first, last)})

    def _first(self) -> PriceSource:
        return self.sources[0]

    def _ask(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> dict[str, list[Fetched]]:
        """The answer of every source for those of the sessions that it reaches, by its name."""
        answers: dict[str, list[Fetched]] = {}
        for source in self.sources:
            end = source.available_through()
            reached = [session for session in sessions if end is None or session <= end]
            answers[source.name] = [source.fetch(symbols, reached)]
        return answers

    def _unanswered(
        self, answers: Sequence[Fetched], prices: pl.DataFrame, sessions: Sequence[date]
    ) -> Mapping[str, str]:
        """What no source has, and which sources end before the last session."""
        ended = {
            source.name: f"ends on {end}; later rows come from the other sources"
            for source in self.sources
            if (end := source.available_through()) is not None and end < sessions[-1]
        }
        present = set(prices["symbol"])
        lacking = {symbol: why for each in answers for symbol, why in each.unanswered.items() if symbol not in present}
        return {**ended, **lacking}


def without_booked_events(rows: pl.DataFrame) -> pl.DataFrame:
    """The merged rows without the events that a row brings along from days which another source covered.

    Vendors that list events apart from prices attach an event to their next row, and a source does the same with the
    event of a row that is quarantined. If the rows of other sources between the source's own last row (`own_before`)
    and this one have the same split, or the same dividend, it is booked there already.
    """
    seams = rows.with_row_index("row").filter(_eventful() & (pl.col("own_before") < pl.col("before")))
    if seams.is_empty():
        return rows
    booked = rows.filter(_eventful()).select("symbol", "date", "dividend", "split_ratio")
    between = seams.select("row", "symbol", "own_before", "before").join(booked, on="symbol")
    between = between.filter((pl.col("date") > pl.col("own_before")) & (pl.col("date") <= pl.col("before")))
    splits_before = pl.col("split_ratio").cum_prod().shift(1, fill_value=1.0)
    sums = (
        between.sort("row", "date")
        .group_by("row", maintain_order=True)
        .agg(
            booked_dividend=(pl.col("dividend") * splits_before).sum(),
            booked_split_ratio=pl.col("split_ratio").product(),
        )
    )
    marked = rows.with_row_index("row").join(sums, on="row", how="left", maintain_order="left")
    once = {
        name: pl.when(_same(name, none)).then(none).otherwise(name).alias(name)
        for name, none in (("dividend", 0.0), ("split_ratio", 1.0))
    }
    return marked.with_columns(**once).select(rows.columns)


def _same(name: str, none: float) -> pl.Expr:
    own, booked = pl.col(name), pl.col(f"booked_{name}")
    return ((booked != none) & ((own / booked - 1.0).abs() < SAME_EVENT)).fill_null(False)


def _eventful() -> pl.Expr:
    return (pl.col("dividend") != 0.0) | (pl.col("split_ratio") != 1.0)


def _merged(answers: Mapping[str, Sequence[Fetched]]) -> pl.DataFrame:
    """The chain's rows by symbol and date, with the day of the row before (`before`) and of the source's own
    (`own_before`), null where there is none."""
    own_before = pl.col("date").shift(1).over("symbol")
    frames = [
        pl.concat([answer.prices for answer in found])
        .sort("symbol", "date")
        .with_columns(own_before=own_before, place=pl.lit(place))
        for place, found in enumerate(answers.values())
    ]
    rows = pl.concat(frames).sort("symbol", "date", "place")
    rows = rows.unique(["symbol", "date"], keep="first", maintain_order=True)
    return rows.with_columns(before=own_before).drop("place", "adjustment")


def _delistings(
    frames: Sequence[pl.DataFrame], rows: pl.DataFrame, sessions: Sequence[date], calendar: TradingCalendar
) -> pl.DataFrame:
    """The delistings known on `sessions` that no later row of the chain contradicts, each once."""
    listed = pl.concat(frames).sort("known_at", pl.col("return").is_null(), maintain_order=True)
    # What another day may see of a listing is bounded by where that day's scan starts: look no further back here.
    anchors = {day: judged_from(day, calendar) for day in listed["known_at"].unique()}
    horizon = pl.col("known_at").replace_strict(anchors, return_dtype=pl.Date) if anchors else pl.col("known_at")
    listed = listed.with_columns(horizon=horizon)
    days = rows.select("symbol", traded="date")
    contradicted = listed.join(days, on="symbol").filter(
        (pl.col("traded") > pl.col("last_session"))
        & (pl.col("traded") >= pl.col("horizon"))
        & (pl.col("traded") < pl.col("known_at"))
    )
    key = ["symbol", "last_session", "known_at"]
    standing = listed.join(contradicted, on=key, how="anti", maintain_order="left")
    recent = standing.filter(pl.col("last_session") >= pl.col("horizon"))
    once = recent.unique(["symbol", "last_session"], keep="first", maintain_order=True)
    old = standing.filter(pl.col("last_session") < pl.col("horizon")).unique(key, keep="first", maintain_order=True)
    known = pl.concat([once, old]).drop("horizon")
    return known.filter(pl.col("date").is_in(pl.Series(sessions, dtype=pl.Date()).implode())).sort("date", "symbol")


def _reported_on(quarantine: pl.DataFrame, sessions: Sequence[date], calendar: TradingCalendar) -> pl.DataFrame:
    """The quarantined rows that belong to the sessions, each once, in their order."""
    if quarantine.is_empty():
        return quarantine
    earliest = quarantine["date"].min()
    assert isinstance(earliest, date)
    reported = with_report_session(quarantine, calendar.sessions(min(earliest, sessions[0]), sessions[-1]))
    asked: Collection[date] = sessions
    reported = reported.filter(pl.col("session").is_in(pl.Series(asked, dtype=pl.Date()).implode()))
    return reported.sort("date", "symbol", "source", maintain_order=True).select(*QUARANTINE_SCHEMA)


def _disagreements(answers: Mapping[str, Sequence[Fetched]], sessions: Sequence[date]) -> pl.DataFrame:
    """Where the first source and another one have rows of the same days with different returns."""
    first, *others = [pl.concat([answer.prices for answer in found]) for found in answers.values()]
    found = [
        cross_check(first, other).disagreements.with_columns(source=pl.lit(name))
        for name, other in zip(list(answers)[1:], others, strict=True)
    ]
    days = pl.Series(sessions, dtype=pl.Date()).implode()
    return pl.concat(found).filter(pl.col("date").is_in(days)).sort("date", "symbol", "source")
