"""Prices from Yahoo Finance, as they were traded.

Requests are made in `yahoo_download`, what answers say is in `yahoo_chart`, which rows are sound in `judgement`. Here
they become a price source, whose answer about a day does not depend on when, or with which other days, it is asked.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, date, datetime, timedelta

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.downloads import Journal
from stockpicker_dagster.market.identity import Identities, resumptions
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Basis, Fetched
from stockpicker_dagster.market.sources.alpaca_actions import with_events
from stockpicker_dagster.market.sources.exchange import ExchangeVenue
from stockpicker_dagster.market.sources.judgement import judge, judged_from, lacking_predecessor, with_report_session
from stockpicker_dagster.market.sources.silence import DELISTED_AFTER, delistings_by_silence, quoted
from stockpicker_dagster.market.sources.yahoo_chart import Chart, as_traded
from stockpicker_dagster.market.sources.yahoo_download import (
    URL,
    ChartDownload,
    journal_key,
)
from stockpicker_dagster.market.sources.yahoo_patience import Limits
from stockpicker_dagster.market.universes import normalise_symbol

EXACT_FROM = date(2001, 4, 9)
"""From here on prices in New York are in cents, which come back exactly; the sixteenths of earlier days are rounded."""

_NEW_YORK = "America/New_York"
_LEAD_IN = timedelta(days=14)
"""A row before the first one that matters is nearly always within so many days; where not, older ones are asked for."""


def _now() -> datetime:
    return datetime.now(UTC)


class YahooSource:
    """A price source on Yahoo Finance, which needs no account.

    Yahoo restates its history for every split. It is undone with the splits that the same answer lists, always asked
    for up to now: prices come out to the cent (1e-4 under a dollar) and exact from `EXACT_FROM`; volumes after a
    reverse split only to its ratio, because Yahoo rounds them; dividends to 1e-4. `currency` is the one that every
    symbol must be quoted in, as Yahoo writes it (`USD`, `GBp`); rows in another one, or of an exchange in another time
    zone than `calendar`'s, are quarantined. A symbol whose rows stop counts as delisted on the tenth session that it
    misses, with an unknown return. Yahoo shows the whole history of a company under its ticker of today; `identities`
    says which that is. `now` is the clock.

    Where Yahoo knows nothing under a symbol, `Fetched.unanswered` says so; where it fails, the fetch does.
    """

    kind = "yahoo"
    basis: Basis = "as_traded"

    def __init__(
        self,
        name: str,
        start: date,
        calendar: TradingCalendar | None = None,
        *,
        currency: str = "USD",
        identities: Identities = Identities(),  # noqa: B008 - immutable
        limits: Limits = Limits(),  # noqa: B008 - immutable
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.name = name
        self.start = start
        self.currency = currency
        self.identities = identities
        inexact = f"; prices before {EXACT_FROM} are rounded" if start < EXACT_FROM else ""
        self.caveat: str | None = (
            "Yahoo's prices with its restatements undone; delisting returns unknown; companies that Yahoo has dropped "
            f"are missing{inexact}"
        )
        self.decisions: tuple[Decision, ...] = ()
        self._calendar = calendar or trading_calendar("XNYS")
        self._limits = limits
        self._now = now

    def __repr__(self) -> str:
        return f"YahooSource({self.name!r}, {self.start}, currency={self.currency!r})"

    def corrected(self, decisions: Sequence[Decision]) -> "YahooSource":
        """The same source, with its rows judged under a person's decisions."""
        twin = copy(self)
        twin.decisions = tuple(decisions)
        return twin

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """See `PriceSource.fetch`. A row rejected for a day without trading is reported on the session after it.

        Answers are kept as they arrive, and asking for the same sessions again goes on from there. Raises
        `InvalidInput` if no symbols are named, for a session before `start` and for one that is not complete;
        `YahooUnavailable` if Yahoo fails, after long patience.
        """
        if symbols is None:
            raise InvalidInput(
                f"source {self.name!r} cannot list its symbols; name a universe with members, such as sp500 or a file"
            )
        names = sorted({normalise_symbol(symbol) for symbol in symbols})
        if not names or not sessions:
            return _merged([], {})
        self._refuse_other_days(sessions)
        today = self._now().date()
        wanted = self.identities.latest_tickers(names, today)
        # What is known about a day depends on the days before it, which are judged alike however much is asked for.
        earliest = max(0, self._calendar.index(sessions[0]) - DELISTED_AFTER) - self._calendar.index(sessions[0])
        judged = self._calendar.sessions(self._calendar.offset(sessions[0], earliest), sessions[-1])
        since = judged_from(judged[0], self._calendar) - _LEAD_IN
        with Journal.of(self.name, f"{os.environ.get(URL)} {since} {sessions[-1]}") as journal:
            download = ChartDownload(journal, self._limits, self._now, len(wanted), self._as_yahoo_spells)
            answers = []
            for charts in download.batches(dict.fromkeys(wanted, since)):
                for symbol, chart in charts.items():
                    if _is_late(chart, sessions[-1]):
                        journal.discard(journal_key(symbol, since))
                answers.append(self._answer(download, charts, names, since, sessions, judged))
            download.raise_for_failures()
            for symbol in download.refused:
                journal.discard(journal_key(symbol, since))
        return _merged(answers, download.refused)

    def available_through(self) -> date:
        """The last completed session."""
        return self._calendar.last_completed(self._now())

    def venue(self) -> ExchangeVenue:
        """The exchange, with the opening prices that Yahoo has once a session is complete."""
        return ExchangeVenue(self._calendar, self)

    def _refuse_other_days(self, sessions: Sequence[date]) -> None:
        if sessions[0] < self.start:
            raise InvalidInput(f"{sessions[0]} precedes the start of source {self.name!r}, which is {self.start}")
        if sessions[-1] > (newest := self.available_through()):
            raise InvalidInput(
                f"source {self.name!r} has complete sessions up to {newest}, and {sessions[-1]} was asked for; "
                "ask again after that session"
            )

    def _answer(
        self,
        download: ChartDownload,
        charts: Mapping[str, Chart],
        names: Sequence[str],
        since: date,
        sessions: Sequence[date],
        judged: Sequence[date],
    ) -> Fetched:
        """The answer about one batch of charts that start on `since`, as far as `names` stand for it."""
        ours = {symbol: chart for symbol, chart in charts.items() if self._is_ours(chart)}
        rows, events = as_traded([*ours.values()])
        if older := self._lacking_older_rows(ours, rows, since, judged_from(judged[0], self._calendar)):
            rows, events = as_traded([*(ours | download.charts(older)).values()])
        identities = self.identities
        reused = resumptions(identities.identified_as_listed(rows), identities, self._calendar)
        identities = identities.also(reused)
        rows, events = identities.identified_as_listed(rows), identities.identified_as_listed(events, "ex_date")
        rows = rows.filter(pl.col("symbol").is_in(identities.securities_of(names)))
        prices, quarantine = judge(with_events(rows, events), judged, self._calendar, self.decisions)
        delistings = delistings_by_silence(quoted(prices, quarantine), pl.Series(judged, dtype=pl.Date()))
        foreign = [
            identities.identified_as_listed(self._foreign(chart))
            for chart in charts.values()
            if not self._is_ours(chart)
        ]
        rejected = with_report_session(pl.concat([quarantine, *foreign]), judged)
        asked = pl.Series(sessions, dtype=pl.Date()).implode()
        source = pl.lit(self.name).alias("source")
        return Fetched(
            prices.filter(pl.col("date").is_in(asked)).with_columns(source),
            delistings.filter(pl.col("date").is_in(asked)),
            rejected.filter(pl.col("session").is_in(asked)).select(*QUARANTINE_SCHEMA).with_columns(source),
            reused=tuple(each for each in reused if each.day <= sessions[-1]),
        )

    @staticmethod
    def _lacking_older_rows(
        charts: Mapping[str, Chart], rows: pl.DataFrame, since: date, anchor: date
    ) -> dict[str, date]:
        """The symbols without a row before `anchor` that may have one before `since`, with their first day."""
        firsts = {symbol: charts[symbol].first_trade for symbol in lacking_predecessor(rows, anchor)}
        listed = {symbol: date(1970, 1, 1) if at is None else charts[symbol].day(at) for symbol, at in firsts.items()}
        return {symbol: day for symbol, day in listed.items() if day < since}

    def _as_yahoo_spells(self, symbol: str) -> str:
        """Share classes stand behind a dash at Yahoo too; outside the US the exchange follows behind a dot."""
        if self._calendar.time_zone == _NEW_YORK or "-" not in symbol:
            return symbol
        return ".".join(symbol.rsplit("-", 1))

    def _is_ours(self, chart: Chart) -> bool:
        return chart.currency == self.currency and chart.time_zone == self._calendar.time_zone

    def _foreign(self, chart: Chart) -> pl.DataFrame:
        """The rows of a symbol that means another security here than it should, all rejected."""
        if chart.currency != self.currency:
            reason, detail = "wrong_currency", f"quoted in {chart.currency or 'no currency'}, not in {self.currency}"
        else:
            reason, detail = "wrong_exchange", f"traded in {chart.time_zone}, not in {self._calendar.time_zone}"
        rows = with_events(*as_traded([chart])).with_columns(reason=pl.lit(reason), detail=pl.lit(detail))
        absent = [pl.lit(None).alias(name) for name in QUARANTINE_SCHEMA if name not in rows.columns]
        return rows.with_columns(absent).select(pl.col(name).cast(kind) for name, kind in QUARANTINE_SCHEMA.items())


def _is_late(chart: Chart, session: date) -> bool:
    """Whether the last row of a stock that traded on `session` is still of an earlier day: it may come yet."""
    traded = chart.last_trade is not None and chart.day(chart.last_trade) >= session
    return traded and chart.day(chart.times[-1]) < session


def _merged(answers: Sequence[Fetched], refused: Mapping[str, str]) -> Fetched:
    """The answers about several batches as one."""
    schemas = {"prices": PRICES_SCHEMA, "delistings": DELISTINGS_SCHEMA, "quarantine": QUARANTINE_SCHEMA}
    tables = {
        name: pl.concat([pl.DataFrame(schema=schema), *(getattr(answer, name) for answer in answers)])
        for name, schema in schemas.items()
    }
    by_day = {name: table.sort("date", "symbol", maintain_order=True) for name, table in tables.items()}
    reused = tuple(each for answer in answers for each in answer.reused)
    return Fetched(
        by_day["prices"], by_day["delistings"], by_day["quarantine"], dict(sorted(refused.items())), reused=reused
    )
