"""Judging the rows of files piece by piece, in order of date, and going on where an earlier process stopped.

What `market.prices.validate` says about a row depends on rows before it, and on nothing before the last one that traded
and was accepted. So those last rows, the tail, are enough to judge whatever is dated later exactly as the whole would
be: a market of twenty years is judged year by year in little memory, and a day appended to it without the twenty years.
Reading files is the matter of `files`; vendors that are asked for a stretch of days are judged by `judgement`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.identity import Identities, SymbolChange, resumptions, with_re_uses
from stockpicker_dagster.market.prices import PRICES_SCHEMA, QUARANTINE_SCHEMA, validate
from stockpicker_dagster.market.sources import Basis
from stockpicker_dagster.market.sources.silence import delistings_by_silence, quoted

WithEvents = Callable[[pl.DataFrame], pl.DataFrame]
"""Gives raw rows, by symbol and date, the events or the `adjustment` that `validate` asks for."""

REPORTED_SCHEMA = {**QUARANTINE_SCHEMA, "reported_on": pl.Date()}
"""The quarantine with the session on which a row is reported: its own or, for a day without trading, the next one."""


@dataclass(frozen=True)
class Rules:
    """What rows are judged under: the exchange's calendar by name, what tickers mean, a person's decisions, the
    currency."""

    basis: Basis
    exchange: str
    identities: Identities
    decisions: tuple[Decision, ...]
    currency: str = "USD"

    @property
    def calendar(self) -> TradingCalendar:
        """The calendar of the exchange."""
        return trading_calendar(self.exchange)


@dataclass(frozen=True)
class Judged:
    """What became of some rows: `prices` by date and symbol, `quarantine` in `REPORTED_SCHEMA` by session.

    The rows came under tickers, and have ids now.
    """

    prices: pl.DataFrame
    delistings: pl.DataFrame
    quarantine: pl.DataFrame


@dataclass(frozen=True)
class Tail:
    """What judging later rows needs of all rows up to the day `through`.

    `seeds` holds the last accepted row of each symbol that traded (`symbol`, `date`, `close`), `rows` the raw rows from
    it on, or all of a symbol that has none; `seen` the last day on which each symbol was quoted; `trading_days` every
    day with an accepted row; `waiting` the rejected rows that are reported on a session after `through`; `reused` the
    tickers that another security took up. Symbols are ids throughout.
    """

    through: date | None = None
    seeds: pl.DataFrame = field(default_factory=lambda: _like("symbol", "date", "close"))
    rows: pl.DataFrame | None = None
    seen: pl.DataFrame = field(default_factory=lambda: _like("symbol", "date"))
    trading_days: pl.Series = field(default_factory=lambda: pl.Series("date", [], pl.Date))
    waiting: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REPORTED_SCHEMA))
    reused: tuple[SymbolChange, ...] = ()


def extend(
    tail: Tail,
    rows: pl.DataFrame,
    with_events: WithEvents,
    rules: Rules,
) -> tuple[Judged, Tail]:
    """What becomes of raw `rows` under tickers, all dated after the tail, and the tail with them in it."""
    calendar, identities = rules.calendar, rules.identities.also(tail.reused)
    rows = identities.identified(rows)
    known = rows if tail.rows is None else pl.concat([tail.rows, rows])
    known = known.sort("symbol", "date", maintain_order=True)
    reused = resumptions(known, identities, calendar)
    if reused:
        known = with_re_uses(known, identities, reused).sort("symbol", "date", maintain_order=True)
    open_rows = _after(with_events(known), tail.seeds, inclusive=False)
    sessions = sessions_around(open_rows, calendar)
    prices, rejected = validate(open_rows, tail.seeds, basis=rules.basis, sessions=sessions, decisions=rules.decisions)
    quarantine = with_report_session(rejected, sessions)
    if tail.through is not None:
        later = pl.col("date") > tail.through
        prices, quarantine = prices.filter(later), quarantine.filter(later)
    seen = pl.concat([tail.seen, quoted(prices, quarantine)])
    trading_days = pl.concat([tail.trading_days, prices["date"].unique().sort()])
    delistings = delistings_by_silence(seen, trading_days)
    if len(tail.trading_days):
        delistings = delistings.filter(pl.col("date") > tail.trading_days[-1])
    through = rows["date"].max() if rows.height else tail.through
    assert through is None or isinstance(through, date)
    seeds = _seeds(tail.seeds, prices, known)
    extended = Tail(
        through=through,
        seeds=seeds,
        rows=_after(known, seeds, inclusive=True),
        # Whoever was last seen before these days is on the list of delistings already.
        seen=seen.group_by("symbol").agg(pl.col("date").max()).sort("symbol"),
        trading_days=trading_days,
        waiting=pl.concat([tail.waiting, quarantine]).filter(pl.col("reported_on") > (through or date.min)),
        reused=(*tail.reused, *reused),
    )
    return Judged(prices, delistings, quarantine), extended


def together(pieces: Sequence[Judged]) -> Judged:
    """The pieces, which follow each other in time, as one."""
    prices, delistings, quarantine = (
        pl.concat([getattr(piece, name) for piece in pieces], rechunk=False)
        for name in ("prices", "delistings", "quarantine")
    )
    return Judged(prices, delistings, quarantine.sort("reported_on", maintain_order=True))


def sessions_around(rows: pl.DataFrame, calendar: TradingCalendar) -> list[date]:
    """The exchange's sessions over the dates of the rows, and one more, on which a last bad row would be reported."""
    if rows.is_empty():
        return []
    earliest, latest = rows["date"].min(), rows["date"].max()
    assert isinstance(earliest, date)
    assert isinstance(latest, date)
    first = min(max(earliest, calendar.first_day), calendar.last_day)
    last = max(min(latest, calendar.offset(calendar.previous_session(calendar.last_day), -1)), calendar.first_day)
    return [*calendar.sessions(first, last), calendar.next_session(last)]


def with_report_session(quarantine: pl.DataFrame, sessions: Sequence[date]) -> pl.DataFrame:
    """Adds `reported_on`, the row's session or, for a day without trading, the next one; sorted by date and symbol."""
    calendar = pl.DataFrame({"reported_on": sessions}, schema={"reported_on": pl.Date()})
    reported = quarantine.sort("date", "symbol", maintain_order=True).join_asof(
        calendar, left_on="date", right_on="reported_on", strategy="forward", coalesce=False
    )
    # Rows dated after the calendar's end are never reported, but counted.
    return reported.select(*QUARANTINE_SCHEMA, pl.col("reported_on").fill_null(date.max))


def _seeds(before: pl.DataFrame, prices: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The last accepted row of each symbol that traded, and from which an adjusted close can be followed."""
    traded = prices.filter(pl.col("volume") > 0)
    if "adj_close" in known.columns:
        # Of several rows of one day, the first is the one that adjusted closes are followed by.
        firsts = known.unique(["symbol", "date"], keep="first", maintain_order=True)
        figures = [pl.col(name) for name in ("close", "adj_close")]
        usable = firsts.filter(pl.all_horizontal([figure.is_finite() & (figure > 0) for figure in figures]))
        traded = traded.join(usable.select("symbol", "date"), on=["symbol", "date"], how="semi")
    latest = traded.sort("date").group_by("symbol").last().select(before.columns)
    return pl.concat([before.join(latest, on="symbol", how="anti"), latest]).sort("symbol")


def _after(rows: pl.DataFrame, seeds: pl.DataFrame, *, inclusive: bool) -> pl.DataFrame:
    """The rows from each symbol's seed on, with it or without; all rows of a symbol that has none."""
    if seeds.is_empty():
        return rows
    seeded = rows.join(seeds.select("symbol", seed="date"), on="symbol", how="left", maintain_order="left")
    later = pl.col("date") >= pl.col("seed") if inclusive else pl.col("date") > pl.col("seed")
    return seeded.filter(pl.col("seed").is_null() | later).drop("seed")


def _like(*names: str) -> pl.DataFrame:
    return pl.DataFrame(schema={name: PRICES_SCHEMA[name] for name in names})
