"""The SEC's EDGAR: which filings of a company count for which session, and the figures in them.

Three public answers are read: the list of tickers, a filer's list of filings, and all figures that a filer ever
reported in XBRL (`companyfacts`). The list of filings decides what is known when, so figures are asked for only where a
regular report falls on the sessions wanted. Storing is the lake's work; what a fact is says `facts`.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.downloads import Journal
from stockpicker_dagster.market.fundamentals.facts import (
    CONCEPTS,
    FACTS_SCHEMA,
    FILERS_SCHEMA,
    PERIODIC_FORMS,
    SHARE_CONCEPTS,
    known_session,
)
from stockpicker_dagster.market.fundamentals.sec_client import EdgarUnavailable, SecClient
from stockpicker_dagster.market.fundamentals.statements import HISTORY
from stockpicker_dagster.market.universes import normalise_symbol

SOURCE = "edgar"
_WORKERS = 4
_NAMED = 10


@dataclass(frozen=True)
class Filing:
    """One entry of a filer's list of filings, and the first session after whose close it may be used."""

    accession: str
    form: str
    filed: date
    accepted: datetime | None
    known_at: date


@dataclass(frozen=True)
class Reported:
    """What became known on some sessions: `facts` and `filers` in their schemas, and what is not in them, by reason.

    `unknown_symbols` have no filer in the SEC's list. `without_figures` are the filers, with one of their symbols, that
    never reported a figure in XBRL or whose report on these sessions holds none that is kept. `left_out` counts figures
    of these sessions' reports.
    """

    facts: pl.DataFrame
    filers: pl.DataFrame
    unknown_symbols: tuple[str, ...]
    without_figures: Mapping[str, str]
    left_out: Mapping[str, int]


def fetch_facts(
    client: SecClient,
    symbols: Sequence[str],
    days: Sequence[date],
    first: date,
    calendar: TradingCalendar,
    progress: Callable[[str], None] = lambda _: None,
) -> Reported:
    """What became known of the companies behind `symbols` on each of `days` (sessions that are over, ascending).

    `first` is the first session of all: it also holds what was known before it and is young enough to matter. What is
    answered for a session depends on nothing that was filed after it. Symbols are matched by the SEC's list of today;
    where it names several for one filer, counts of shares belong to the first named alone. A download that was stopped
    goes on where it was. Raises `EdgarUnavailable` if one filer's answer cannot be had: a session without its figures
    would look like a session without news.
    """
    request = hashlib.sha256(" ".join(map(str, (first, *days))).encode()).hexdigest()
    with Journal.of(SOURCE, request) as journal:
        edgar = _Edgar(client, journal, calendar)
        listed = edgar.tickers()
        filers = {symbol: listed.get(symbol) for symbol in sorted(set(symbols))}
        by_filer: dict[str, list[str]] = {}
        for symbol, cik in filers.items():
            if cik is not None:
                by_filer.setdefault(cik, []).append(symbol)
        reports = _read_all(edgar, list(by_filer), days, first, progress)
    main_symbol = {cik: symbol for symbol, cik in reversed(listed.items())}
    return _combined(reports, by_filer, filers, main_symbol, days)


def _read_all(
    edgar: "_Edgar", ciks: Sequence[str], days: Sequence[date], first: date, progress: Callable[[str], None]
) -> "dict[str, _FilerReport]":
    """The report of each filer; the first failure is raised without trying those that have not begun."""
    done = _Done(len(ciks), progress)

    def one(cik: str) -> _FilerReport:
        report = edgar.report(cik, days, first)
        done.count()
        return report

    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            return dict(zip(ciks, pool.map(one, ciks), strict=True))
        except EdgarUnavailable as error:
            pool.shutdown(wait=True, cancel_futures=True)
            raise EdgarUnavailable(
                f"{error}; {done.finished} of {done.total} companies were read and are kept, and no session was "
                "stored: run again to go on from there"
            ) from error


class _Edgar:
    """The three documents that are read, each asked for once in a download, however often it is stopped."""

    def __init__(self, client: SecClient, journal: Journal, calendar: TradingCalendar) -> None:
        self.client, self.journal, self.calendar = client, journal, calendar

    def tickers(self) -> dict[str, str]:
        """Each symbol of the SEC's list, as spelled here, and its filer's number; a filer's main symbol comes first."""
        answer = self._json(f"{self.client.files_url}/files/company_tickers.json")
        if answer is None:
            raise EdgarUnavailable(f"{self.client.files_url} has no list of tickers")
        with _as_documented("the list of tickers"):
            rows = [(str(row["ticker"]), int(row["cik_str"])) for row in answer.values()]
        listed: dict[str, str] = {}
        for ticker, cik in rows:
            if ticker.strip():
                listed.setdefault(normalise_symbol(ticker.upper()), f"{cik:010d}")
        return listed

    def filings(self, cik: str, since: date, until: date) -> list[Filing] | None:
        """The regular reports filed from `since` to `until`; None if the SEC knows no such filer."""
        answer = self._json(f"{self.client.data_url}/submissions/CIK{cik}.json")
        if answer is None:
            return None
        with _as_documented(f"the list of filings of CIK {cik}"):
            pages = [answer["filings"]["recent"]]
            for older in answer["filings"]["files"]:
                if _day(older["filingTo"]) >= since and _day(older["filingFrom"]) <= until:
                    page = self._json(f"{self.client.data_url}/submissions/{older['name']}")
                    if page is None:
                        raise EdgarUnavailable(f"the page {older['name']} of the filings of CIK {cik} is missing")
                    pages.append(page)
            found = [filing for page in pages for filing in _filings(page, self.calendar)]
        return [filing for filing in found if since <= filing.filed <= until]

    def report(self, cik: str, days: Sequence[date], first: date) -> "_FilerReport":
        """What one filer's regular reports made known on `days`."""
        wanted = set(days)
        # An acceptance in the evening, or a missing one, moves a filing by a session: a week covers any holidays.
        since = min(days) - (HISTORY if first in wanted else timedelta(days=14))
        filings = self.filings(cik, since, max(days))
        if filings is None:
            return _FilerReport([], Counter(), "the SEC knows no such filer")
        session_of = {filing.accession: max(filing.known_at, first) for filing in filings}
        counted = {filing.accession: filing for filing in filings if session_of[filing.accession] in wanted}
        if not counted:
            return _FilerReport([], Counter(), None)
        answer = self._json(f"{self.client.data_url}/api/xbrl/companyfacts/CIK{cik}.json")
        if answer is None:
            return _FilerReport([], Counter(), "reports no figures in XBRL")
        with _as_documented(f"the figures of CIK {cik}"):
            rows, left_out = _figures(answer["facts"], cik, counted, session_of)
        silent = sorted(set(counted) - {row["filing"] for row in rows})
        note = f"none of the figures kept in {', '.join(silent[:_NAMED])}" if silent else None
        return _FilerReport(rows, left_out, note)

    def _json(self, url: str) -> Any:
        kept = self.journal.get(url)
        if kept is not None:
            return json.loads(kept)
        answer = self.client.json(url)
        self.journal.put(url, json.dumps(answer).encode())
        return answer


@dataclass(frozen=True)
class _FilerReport:
    """The rows of one filer without a symbol, what was left out of them, and why there are none where that is odd."""

    rows: list[dict[str, Any]]
    left_out: Counter[str]
    note: str | None


class _Done:
    """How many of all companies are read, told now and then."""

    def __init__(self, total: int, progress: Callable[[str], None]) -> None:
        self.total, self.finished = total, 0
        self._progress, self._lock = progress, threading.Lock()
        self._began = self._told = time.monotonic()

    def count(self) -> None:
        with self._lock:
            self.finished += 1
            now = time.monotonic()
            if now - self._told > 10.0:
                self._told = now
                left = (now - self._began) / self.finished * (self.total - self.finished)
                self._progress(f"{self.finished} of {self.total} companies read, about {left / 60:.0f} minutes left")


@contextmanager
def _as_documented(what: str) -> Iterator[None]:
    """Says in one sentence what an answer of another shape than the documented one means."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EdgarUnavailable(
            f"{what} has not the shape that the SEC documents ({type(error).__name__}: {error})"
        ) from error


def _filings(page: Mapping[str, Sequence[Any]], calendar: TradingCalendar) -> list[Filing]:
    """The regular reports of one page of a list of filings, whose columns are arrays of equal length."""
    columns = ("accessionNumber", "form", "filingDate", "acceptanceDateTime")
    found = []
    for accession, form, filed_text, accepted_text in zip(*(page[name] for name in columns), strict=True):
        if form in PERIODIC_FORMS:
            filed, accepted = _day(filed_text), _clock_time(accepted_text)
            found.append(Filing(accession, form, filed, accepted, known_session(filed, accepted, calendar)))
    return found


def _figures(
    facts: Mapping[str, Any], cik: str, counted: Mapping[str, Filing], session_of: Mapping[str, date]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The figures of the filings `counted`, and how many of theirs were left out, by reason."""
    rows: dict[tuple[str, str, date | None, date], dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    contradicted = set()
    for concept, item in CONCEPTS.items():
        taxonomy, tag = concept.split(":")
        for unit, entries in facts.get(taxonomy, {}).get(tag, {}).get("units", {}).items():
            for entry in entries:
                filing = counted.get(entry["accn"])
                if filing is None:
                    continue
                start = _day(entry["start"]) if "start" in entry else None
                end, value = _day(entry["end"]), entry["val"]
                if reason := _unusable(item.kind, item.unit, unit, start, end, value, filing):
                    left_out[reason] += 1
                    continue
                key = (filing.accession, concept, start, end)
                if key in rows and rows[key]["value"] != float(value):
                    contradicted.add(key)
                    left_out["contradicts itself within one report"] += 1
                rows[key] = {
                    "date": session_of[filing.accession],
                    "cik": cik,
                    "concept": concept,
                    "start": start,
                    "end": end,
                    "value": float(value),
                    "unit": unit,
                    "form": filing.form,
                    "filing": filing.accession,
                    "filed": filing.filed,
                    "accepted": filing.accepted,
                    "known_at": filing.known_at,
                    "source": SOURCE,
                }
    return [row for key, row in rows.items() if key not in contradicted], left_out


def _unusable(
    kind: str, expected: str, unit: str, start: date | None, end: date, value: Any, filing: Filing
) -> str | None:
    """Why a figure is left out; None if it is kept."""
    if unit != expected:
        return f"in {unit}, not in {expected}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "no number"
    if (start is None) != (kind == "moment") or (start is not None and start > end):
        return "a period where a moment is meant, or the reverse"
    if end > filing.filed:
        return "on a day after its report"
    if expected == "shares" and value <= 0:
        return "no shares at all"
    return None


def _combined(
    reports: Mapping[str, _FilerReport],
    by_filer: Mapping[str, Sequence[str]],
    filers: Mapping[str, str | None],
    main: Mapping[str, str],
    days: Sequence[date],
) -> Reported:
    rows = [
        {"symbol": symbol, **row}
        for cik, report in reports.items()
        for symbol in by_filer[cik]
        for row in report.rows
        if main[cik] == symbol or row["concept"] not in SHARE_CONCEPTS
    ]
    facts = pl.DataFrame(rows, schema=FACTS_SCHEMA, orient="row")
    listed = pl.DataFrame({"symbol": list(filers), "cik": list(filers.values())}, schema_overrides={"cik": pl.String})
    sessions = pl.DataFrame({"date": list(days)}, schema={"date": pl.Date})
    known = sessions.join(listed, how="cross").with_columns(source=pl.lit(SOURCE)).select(list(FILERS_SCHEMA))
    return Reported(
        facts.sort("date", "symbol", "filed", "filing", "concept", "start", "end"),
        known.sort("date", "symbol"),
        tuple(symbol for symbol, cik in filers.items() if cik is None),
        {by_filer[cik][0]: report.note for cik, report in reports.items() if report.note},
        dict(sum((report.left_out for report in reports.values()), Counter())),
    )


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _clock_time(text: str | None) -> datetime | None:
    """The digits of `2024-02-01T16:30:12.000Z`, without the zone that the answer claims; None where it is blank."""
    return datetime.fromisoformat(text).replace(tzinfo=None) if text else None
