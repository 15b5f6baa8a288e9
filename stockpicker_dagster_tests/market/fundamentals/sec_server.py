"""A stand-in for www.sec.gov and data.sec.gov on loopback, answering as the SEC's documentation describes.

Companies are built report by report; the server derives from the reports the list of tickers, each filer's list of
filings and its company facts, so that the three always agree, and can be told to misbehave.
"""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One reported figure; `start` None for a balance."""

    concept: str
    end: date
    value: float
    start: date | None = None
    unit: str = "USD"


@dataclass(frozen=True)
class Report:
    """One filing: `accepted` as the list of filings writes it, blank where it writes nothing."""

    accession: str
    form: str
    filed: date
    accepted: str
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Company:
    """A filer with its tickers, the main one first, and what it filed, the oldest first."""

    cik: int
    tickers: tuple[str, ...]
    reports: tuple[Report, ...]

    def through(self, day: date) -> "Company":
        """The company as it was after the last report filed up to `day`."""
        return replace(self, reports=tuple(report for report in self.reports if report.filed <= day))

    def submissions(self, page_size: int) -> dict[str, dict[str, Any]]:
        """The answers of the submissions interface by file name: the newest filings, and older pages beside it."""
        newest_first = list(reversed(self.reports))
        pages = [newest_first[at : at + page_size] for at in range(0, len(newest_first), page_size)] or [[]]
        name = f"CIK{self.cik:010d}"
        older = {f"{name}-submissions-{at:03d}.json": page for at, page in enumerate(pages[1:], start=1)}
        files = [
            {
                "name": file,
                "filingCount": len(page),
                "filingFrom": str(page[-1].filed),
                "filingTo": str(page[0].filed),
            }
            for file, page in older.items()
        ]
        main = {
            "cik": f"{self.cik:010d}",
            "entityType": "operating",
            "name": f"Company {self.cik}",
            "tickers": list(self.tickers),
            "exchanges": ["NYSE"] * len(self.tickers),
            "filings": {"recent": _columns(pages[0]), "files": files},
        }
        return {f"{name}.json": main, **{file: _columns(page) for file, page in older.items()}}

    def company_facts(self) -> dict[str, Any] | None:
        """The answer of the company-facts interface; None for a company that never reported in XBRL."""
        facts: dict[str, dict[str, Any]] = defaultdict(dict)
        for report in self.reports:
            for figure in report.figures:
                taxonomy, tag = figure.concept.split(":")
                described = facts[taxonomy].setdefault(tag, {"label": tag, "description": f"About {tag}.", "units": {}})
                described["units"].setdefault(figure.unit, []).append(_entry(report, figure))
        if not facts:
            return None
        return {"cik": self.cik, "entityName": f"Company {self.cik}", "facts": facts}


def _columns(reports: list[Report]) -> dict[str, list[Any]]:
    return {
        "accessionNumber": [report.accession for report in reports],
        "filingDate": [str(report.filed) for report in reports],
        "reportDate": [str(max((each.end for each in report.figures), default="")) for report in reports],
        "acceptanceDateTime": [report.accepted for report in reports],
        "form": [report.form for report in reports],
        "isXBRL": [1 if report.figures else 0 for report in reports],
        "primaryDocument": ["report.htm"] * len(reports),
    }


def _entry(report: Report, figure: Figure) -> dict[str, Any]:
    """`fy`, `fp` and `frame` are those of the filing, as in the SEC's answers: they do not date the figure."""
    entry = {
        "end": str(figure.end),
        "val": figure.value,
        "accn": report.accession,
        "fy": report.filed.year,
        "fp": "FY" if report.form.startswith("10-K") else "Q1",
        "form": report.form,
        "filed": str(report.filed),
    }
    return entry if figure.start is None else {"start": str(figure.start), **entry}


Answer = tuple[int, bytes, dict[str, str]]
"""Status, body and further headers."""

BROKEN: dict[str, Answer] = {
    "too many requests": (429, b"", {"Retry-After": "70"}),
    "forbidden": (403, b"<html>Request Rate Threshold Exceeded</html>", {}),
    "server error": (503, b"", {}),
    "a page": (200, b"<!DOCTYPE html><html>Maintenance</html>", {}),
    "cut off": (200, b'{"cik": 1001, "facts": {"us-gaap"', {}),
    "shorter than promised": (200, b'{"cik"', {"Content-Length": "7000"}),
    "a list": (200, b"[]", {}),
}
"""What a server in trouble, or between us and it, may answer."""


@dataclass
class SecServer:
    """The companies served, the requests received, and answers that replace the right ones.

    `instead` is asked with the path and how often it was asked for, from 1 on; None lets the right answer through.
    """

    companies: list[Company]
    page_size: int = 1000
    instead: Callable[[str, int], Answer | None] = lambda path, times: None
    asked: Counter[str] = field(default_factory=Counter)
    agents: set[str] = field(default_factory=set)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, agent: str) -> Answer:
        with self._lock:
            self.asked[path] += 1
            self.agents.add(agent)
            times = self.asked[path]
        wrong = self.instead(path, times)
        if wrong is not None:
            return wrong
        found = self._documents().get(path)
        if found is None:
            return 404, b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", {}
        return 200, json.dumps(found).encode(), {"Content-Type": "application/json"}

    def _documents(self) -> dict[str, Any]:
        listed = [(company.cik, ticker) for company in self.companies for ticker in company.tickers]
        documents: dict[str, Any] = {
            "/files/company_tickers.json": {
                str(row): {"cik_str": cik, "ticker": ticker, "title": f"Company {cik}"}
                for row, (cik, ticker) in enumerate(listed)
            }
        }
        for company in self.companies:
            for name, content in company.submissions(self.page_size).items():
                documents[f"/submissions/{name}"] = content
            facts = company.company_facts()
            if facts is not None:
                documents[f"/api/xbrl/companyfacts/CIK{company.cik:010d}.json"] = facts
        return documents


@contextmanager
def serving(server: SecServer) -> Iterator[SecServer]:
    """Runs the server on a free port of loopback; `server.url` names it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = server.answer(self.path, self.headers.get("User-Agent", ""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
