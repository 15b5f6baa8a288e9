"""Prices and events of Alpaca's market data API.

Bars are asked for as traded (`adjustment=raw`) and under the symbol of their own day (`asof=-`), so that no later split
or change of symbol changes what was said about a day. Events come from the corporate actions. How Alpaca is asked is in
`alpaca_api`, what an action means in `alpaca_actions`, how rows are judged in `judgement`.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.downloads import Journal
from stockpicker_dagster.market.identity import Identities, SymbolChange, resumptions
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Basis, Fetched
from stockpicker_dagster.market.sources.alpaca_actions import (
    Actions,
    Event,
    event_frame,
    identified,
    read_actions,
    types_asked_for,
    with_events,
)
from stockpicker_dagster.market.sources.alpaca_api import (
    DATA_URL,
    AlpacaUnavailable,
    MarketData,
    Patience,
    UnknownSymbol,
)
from stockpicker_dagster.market.sources.exchange import ExchangeVenue
from stockpicker_dagster.market.sources.judgement import judge, judged_from, lacking_predecessor
from stockpicker_dagster.market.sources.silence import delistings_by_silence
from stockpicker_dagster.market.universes import normalise_symbol

Feed = Literal["sip", "iex", "otc"]

DELAY = timedelta(minutes=15)
"""Free plans may not ask for SIP data of the last 15 minutes: a session counts as available so long after its close."""
HISTORY_START = date(2000, 1, 3)
"""Earlier than anything that Alpaca has (its bars begin in 2016): where a look for a preceding row ends."""
BATCH = 100
"""Symbols asked for together; ten thousand bars come with each page."""

_LEAD = 10
"""Sessions asked for before a scan starts; most stocks have their preceding row there."""
_PROCESSED_BEFORE, _PROCESSED_AFTER = timedelta(days=30), timedelta(days=366)
"""Actions are found by the day on which Alpaca processes them, which is about the ex-date or, for dividends, when they
are paid: so long before and after the days whose ex-dates are meant."""

_TYPES_WITH_A_CHANGE = ("name_change", "forward_split", "reverse_split")

_FIGURES = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_BARS_SCHEMA = {"symbol": pl.String(), "date": pl.Date(), **dict.fromkeys(_FIGURES, pl.Float64())}
_NEW_YORK = ZoneInfo("America/New_York")
_log = logging.getLogger(__name__)


class AlpacaSource:
    """A price source on Alpaca's market data API, with the keys in `APCA_API_KEY_ID` and `APCA_API_SECRET_KEY`.

    `feed` is `sip` (the trades of all exchanges), `iex` (one small exchange: prices from a few per cent of the trades,
    and so are volumes) or `otc`. Prices are in dollars, volume in shares. Splits, stock dividends and cash dividends
    become events; a spin-off or right becomes a dividend of what it was worth at the close of the ex-date, and is named
    in `Fetched.unanswered` if the new security had no price that day. So are dividends in another currency.

    Mergers, redemptions and removals are delistings, with the return of holders where they got cash only. A security
    whose symbol changes goes on where `identities` says so; elsewhere the old symbol ends with a return of zero.
    `symbol_changes` says which changes Alpaca knows. A symbol whose bars stop
    for other reasons counts as delisted, with an unknown return, on the tenth session without one.

    Alpaca cannot list the symbols that it has: `fetch` needs to be told. `now` is the clock, in UTC.
    """

    kind = "alpaca"
    basis: Basis = "as_traded"

    def __init__(
        self,
        name: str,
        start: date,
        feed: Feed = "sip",
        *,
        identities: Identities = Identities(),  # noqa: B008 (immutable)
        patience: Patience = Patience(),  # noqa: B008 (immutable)
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.name = name
        self.start = start
        self.feed = feed
        self.identities = identities
        thin = "; volumes and prices of one small exchange (IEX)" if feed == "iex" else ""
        self.caveat: str | None = f"delisting returns known for cash only{thin}"
        self._patience = patience
        self._now = now
        self._sleep = sleep
        self._calendar = trading_calendar("XNYS")
        self._decisions: tuple[Decision, ...] = ()

    def __repr__(self) -> str:
        return f"AlpacaSource({self.name!r}, start={self.start}, feed={self.feed!r})"

    def corrected(self, decisions: Sequence[Decision]) -> "AlpacaSource":
        """The same source, with its rows judged under a person's decisions."""
        twin = copy(self)
        twin._decisions = tuple(decisions)
        return twin

    def available_through(self) -> date | None:
        """The last session that closed at least 15 minutes ago."""
        latest = self._now() - DELAY
        session = self._calendar.previous_session(latest.date() + timedelta(days=2))
        while self._calendar.close_at(session) > latest:
            session = self._calendar.previous_session(session)
        return session

    def venue(self) -> ExchangeVenue:
        """New York, with the opening prices of the bars."""
        return ExchangeVenue(self._calendar, self)

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """See `PriceSource.fetch`. A row rejected for a day without trading is reported on the session after it.

        Raises `InvalidInput` without symbols, before `start`, after `available_through`, or if Alpaca refuses the
        request; `AlpacaUnavailable` if it cannot be reached: what was downloaded so far is kept for the next time.
        """
        if symbols is None:
            raise InvalidInput(f"source {self.name!r} cannot list all its symbols; name a universe that lists them")
        wanted = sorted({normalise_symbol(symbol) for symbol in symbols})
        if not wanted or not sessions:
            return _empty()
        self._refuse_other_days(sessions)
        with Journal.of(self.name, self._request(wanted, sessions)) as journal:
            download = _Download(self, journal, sessions[-1])
            return self._answer(download, wanted, sessions)

    def symbol_changes(self, symbols: Collection[str], first: date, last: date) -> list[SymbolChange]:
        """The changes of symbol that took effect from `first` to `last` and have one of the symbols on either side."""
        wanted = sorted({normalise_symbol(symbol) for symbol in symbols})
        with Journal.of(self.name, f"{os.environ.get(DATA_URL)} changes {first} {last} {wanted}") as journal:
            actions = _Download(self, journal, last).actions(wanted, first, last, _TYPES_WITH_A_CHANGE)
        return [change for change in actions.symbol_changes if first <= change.day <= last]

    def _request(self, symbols: Sequence[str], sessions: Sequence[date]) -> str:
        server = os.environ.get(DATA_URL)
        return f"{server} {self.feed} {sessions[0]} {sessions[-1]} {len(sessions)} {','.join(symbols)}"

    def _refuse_other_days(self, sessions: Sequence[date]) -> None:
        if sessions[0] < self.start:
            raise InvalidInput(f"{sessions[0]} precedes the start of source {self.name!r}, which is {self.start}")
        ends = self.available_through()
        if ends is not None and sessions[-1] > ends:
            raise InvalidInput(
                f"source {self.name!r} has complete sessions up to {ends}, and {sessions[-1]} was asked for; "
                "ask again 15 minutes after its close"
            )

    def _answer(self, download: "_Download", wanted: list[str], sessions: Sequence[date]) -> Fetched:
        anchor = judged_from(sessions[0], self._calendar)
        since, last = self._calendar.offset(anchor, -_LEAD), sessions[-1]
        identities = self.identities
        tickers = self._tickers(identities.securities_of(wanted), since, last)
        bars = download.bars(tickers, since, last)
        actions = download.actions(tickers, since, last)
        events = list(actions.events)
        if older := lacking_predecessor(identities.identified(bars), anchor):
            # Long halted or newly listed: nearly all of them have nothing there, so that this costs a page or two.
            before = self._calendar.previous_session(since)
            tickers = self._tickers(older, HISTORY_START, before)
            bars = pl.concat([download.bars(tickers, HISTORY_START, before), bars])
            events += download.actions(tickers, HISTORY_START, since).events
        events += self._distributed(download, actions, since, last)
        reused = resumptions(identities.identified(bars), identities, self._calendar)
        identities = identities.also(reused)
        securities = identities.securities_of(wanted)
        bars = identities.identified(bars).filter(pl.col("symbol").is_in(securities))
        actions = identified(replace(actions, events=events), identities)
        rows = with_events(bars, event_frame(actions.events))
        prices, quarantine = judge(rows, sessions, self._calendar, self._decisions)
        source = pl.lit(self.name).alias("source")
        return Fetched(
            prices.with_columns(source),
            _delistings(bars, actions, sessions, self._calendar),
            quarantine.with_columns(source),
            _unanswered(bars, actions, download, {each: identities.securities_of([each]) for each in wanted}, sessions),
            reused=tuple(each for each in reused if each.day <= last),
        )

    def _tickers(self, securities: Collection[str], first: date, last: date) -> list[str]:
        """What the securities were called from `first` to `last`."""
        return sorted({ticker for each in securities for ticker in self.identities.tickers_between(each, first, last)})

    def _distributed(self, download: "_Download", actions: Actions, first: date, last: date) -> Iterator[Event]:
        """Every spin-off and right as a dividend, valued at the close of its ex-date."""
        due = [each for each in actions.distributions if first <= each.ex_date <= last]
        if not due:
            return
        securities = sorted({each.security for each in due})
        days = [each.ex_date for each in due]
        bars = download.bars(securities, min(days), max(days))
        closes = {(symbol, day): close for symbol, day, close in bars.select("symbol", "date", "close").iter_rows()}
        for each in due:
            close = closes.get((each.security, each.ex_date))
            if close is None:
                unclear = f"the {each} has no price: its value is missing from the return of that day"
                actions.unclear.append((each.symbol, each.ex_date, unclear))
            else:
                yield Event(each.symbol, each.ex_date, each.ex_date, dividend=each.ratio * close)


class _Download:
    """The requests of one fetch, batch by batch and page by page, through the journal."""

    def __init__(self, source: AlpacaSource, journal: Journal, last: date) -> None:
        self._feed = source.feed
        self._calendar = source._calendar
        self._complete_at = self._calendar.close_at(last) + DELAY
        self._journal = journal
        pause = {} if source._sleep is None else {"sleep": source._sleep}
        self._market = MarketData(source._patience, source._now, **pause)
        self.refused: dict[str, str] = {}

    def bars(self, symbols: Sequence[str], first: date, last: date) -> pl.DataFrame:
        """Daily bars in `_BARS_SCHEMA` of the symbols from `first` to `last`, by symbol and date."""
        params = {
            "timeframe": "1Day",
            # A bar is dated at its day's midnight. The last close lies 15 minutes back, as free plans need the end to.
            "start": datetime.combine(first, time(), _NEW_YORK).isoformat(),
            "end": self._calendar.close_at(last).isoformat(),
            "adjustment": "raw",
            "asof": "-",
            "feed": self._feed,
            "limit": 10_000,
            "sort": "asc",
        }
        pages = self._batches(symbols, "v2", "/stocks/bars", params, "bars")
        wanted = set(symbols)
        frame = pl.concat([pl.DataFrame(schema=_BARS_SCHEMA), *(_bar_frame(page, wanted) for page in pages)])
        return frame.filter(pl.col("date").is_between(first, last)).sort("symbol", "date", maintain_order=True)

    def actions(self, symbols: Sequence[str], first: date, last: date, types: Iterable[str] | None = None) -> Actions:
        """The corporate actions, of some types or all, that may concern holders of the symbols in those days."""
        params = {
            "types": ",".join(types or types_asked_for()),
            "start": str(first - _PROCESSED_BEFORE),
            "end": str(last + _PROCESSED_AFTER),
            "limit": 1_000,
            "sort": "asc",
        }
        pages = self._batches(symbols, "v1", "/corporate-actions", params, "corporate_actions")
        try:
            return read_actions(pages)
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise AlpacaUnavailable(f"a corporate action of Alpaca is not as documented ({error!r})") from error

    def _batches(
        self, symbols: Sequence[str], version: str, path: str, params: Mapping[str, Any], content: str
    ) -> Iterator[dict[str, Any]]:
        for start in range(0, len(symbols), BATCH):
            batch = [symbol for symbol in symbols[start : start + BATCH] if symbol not in self.refused]
            yield from self._batch(batch, version, path, params, content)
            if len(symbols) > BATCH:
                _log.info("alpaca %s: %d of %d symbols", path, min(start + BATCH, len(symbols)), len(symbols))

    def _batch(
        self, symbols: list[str], version: str, path: str, params: Mapping[str, Any], content: str
    ) -> list[dict[str, Any]]:
        """Every page for the symbols, without those that Alpaca refuses, of which it names one at a time."""
        while symbols:
            asked = {**params, "symbols": ",".join(_as_alpaca_spells(symbol) for symbol in symbols)}
            try:
                return list(self._market.pages(version, path, asked, content, self._journal, self._complete_at))
            except UnknownSymbol as error:
                refused = [symbol for symbol in symbols if _as_alpaca_spells(symbol) == error.symbol]
                if not refused:
                    raise InvalidInput(str(error)) from error
                self.refused |= dict.fromkeys(refused, "Alpaca does not take it for a symbol")
                symbols = [symbol for symbol in symbols if symbol not in refused]
        return []


def _empty() -> Fetched:
    return Fetched(
        pl.DataFrame(schema=PRICES_SCHEMA),
        pl.DataFrame(schema=DELISTINGS_SCHEMA),
        pl.DataFrame(schema=QUARANTINE_SCHEMA),
    )


def _as_alpaca_spells(symbol: str) -> str:
    """Share classes stand behind a dot at Alpaca."""
    return symbol.replace("-", ".")


def _bar_frame(page: Mapping[str, Sequence[Mapping[str, Any]]], wanted: Collection[str]) -> pl.DataFrame:
    """The bars of a page in `_BARS_SCHEMA`; a figure that is missing or no number is null, for `validate` to judge."""
    named = [(normalise_symbol(spelled), bars) for spelled, bars in page.items()]
    found = [(symbol, bar) for symbol, bars in named if symbol in wanted for bar in bars]
    try:
        at = pl.Series([bar["t"] for _, bar in found], dtype=pl.String).str.to_datetime(time_zone="UTC")
    except (KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise AlpacaUnavailable(f"Alpaca's bars have no understandable time ({error!r})") from error
    figures = {name: [_number(bar.get(letter)) for _, bar in found] for name, letter in _FIGURES.items()}
    days = at.dt.convert_time_zone(_NEW_YORK.key).dt.date()
    return pl.DataFrame({"symbol": [symbol for symbol, _ in found], "date": days, **figures}, schema=_BARS_SCHEMA)


def _number(figure: Any) -> float | None:
    return float(figure) if isinstance(figure, int | float) else None


def _delistings(
    bars: pl.DataFrame, actions: Actions, sessions: Sequence[date], calendar: TradingCalendar
) -> pl.DataFrame:
    """The ends known on `sessions`: those that Alpaca names, and silent ones; of one end, what was known first.

    `bars` reach back far enough for every silence that ends on `sessions`.
    """
    first = judged_from(sessions[0], calendar)
    traded = bars.filter((pl.col("close") > 0) & (pl.col("date") >= first)).sort("symbol", "date")
    trading_days = pl.Series(calendar.sessions(first, sessions[-1]))
    silent = delistings_by_silence(traded.select("symbol", "date").unique(), trading_days)
    named = pl.DataFrame(list(_named_ends(traded, actions, sessions[-1], calendar)), DELISTINGS_SCHEMA, orient="row")
    # A merger announced after a silence has been taken for an end comes too late: a day's answer never changes.
    ends = pl.concat([named, silent]).sort("known_at", maintain_order=True)
    ends = ends.unique(["symbol", "last_session"], keep="first", maintain_order=True)
    return ends.filter(pl.col("date").is_in(pl.Series(sessions, dtype=pl.Date()).implode())).sort("date", "symbol")


def _named_ends(
    traded: pl.DataFrame, actions: Actions, last: date, calendar: TradingCalendar
) -> Iterator[tuple[str, date, date, str, float | None, date]]:
    """Every end up to the session `last` of a symbol that has a bar, as a row of `DELISTINGS_SCHEMA`."""
    for ending in sorted(actions.endings, key=lambda each: (each.symbol, each.day, each.reason)):
        known_at = ending.day if calendar.is_session(ending.day) else calendar.next_session(ending.day)
        before = traded.filter((pl.col("symbol") == ending.symbol) & (pl.col("date") <= known_at))
        if known_at > last or before.is_empty():
            continue
        final = 0.0 if ending.keeps_value else None
        if ending.cash is not None:
            final = ending.cash / before["close"][-1] - 1.0
        yield ending.symbol, known_at, before["date"][-1], ending.reason, final, known_at


def _unanswered(
    bars: pl.DataFrame,
    actions: Actions,
    download: _Download,
    wanted: Mapping[str, Sequence[str]],
    sessions: Sequence[date],
) -> dict[str, str]:
    """Of which asked names, each with what it stands for, something is missing on `sessions`, and what."""
    present = set(bars.filter(pl.col("date") >= sessions[0])["symbol"])
    silent = {name: "no bar on the days asked for" for name, meant in wanted.items() if not present & set(meant)}
    unclear = {symbol: what for symbol, day, what in actions.unclear if sessions[0] <= day <= sessions[-1]}
    refused = {symbol: why for symbol, why in download.refused.items() if symbol in wanted}
    return dict(sorted({**silent, **unclear, **refused}.items()))
