"""Facts of invented companies as the lake keeps them, without a server in between; no test lives here."""

from collections.abc import Sequence
from datetime import date

import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.fundamentals.edgar import _clock_time
from stockpicker_dagster.market.fundamentals.facts import CONCEPTS, FACTS_SCHEMA, PERIODIC_FORMS, known_session
from stockpicker_dagster_tests.market.fundamentals.sec_server import Company

CALENDAR = trading_calendar("XNYS")


def facts_of(companies: Sequence[Company], first: date = date(2018, 1, 2)) -> pl.DataFrame:
    """Every kept figure of every regular report, for each company's main symbol."""
    rows = []
    for company in companies:
        for report in company.reports:
            if report.form not in PERIODIC_FORMS:
                continue
            accepted = _clock_time(report.accepted)
            known = known_session(report.filed, accepted, CALENDAR)
            rows += [
                {
                    "symbol": company.tickers[0],
                    "date": max(known, first),
                    "cik": f"{company.cik:010d}",
                    "concept": figure.concept,
                    "start": figure.start,
                    "end": figure.end,
                    "value": figure.value,
                    "unit": figure.unit,
                    "form": report.form,
                    "filing": report.accession,
                    "filed": report.filed,
                    "accepted": accepted,
                    "known_at": known,
                    "source": "edgar",
                }
                for figure in report.figures
                if figure.unit == CONCEPTS[figure.concept].unit
            ]
    return pl.DataFrame(rows, schema=FACTS_SCHEMA, orient="row").sort("date", "symbol", "filing", "concept", "end")
