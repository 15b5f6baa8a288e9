"""The report accounts for every row, names what to look at, and shows what the data says as text alone."""

from datetime import date
from html.parser import HTMLParser

import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.data_report import (
    RowsUnaccountedFor,
    as_html,
    as_text,
    summarize,
    suspected_ticker_changes,
)
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA

CALENDAR = trading_calendar("XNYS")
DAYS = CALENDAR.sessions(date(2023, 12, 26), date(2024, 1, 5))
NO_DELISTINGS = pl.DataFrame(schema=DELISTINGS_SCHEMA)


def price(symbol: str, day: date, close: float, volume: float = 100.0, **changes: float) -> tuple[object, ...]:
    events = {"dividend": 0.0, "split_ratio": 1.0, "adjustment": 1.0, **changes}
    return (symbol, day, *[close] * 4, volume, *events.values(), None, "test")


def prices(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=PRICES_SCHEMA, orient="row")


def quarantine(*rows: tuple[str, date, str]) -> pl.DataFrame:
    nothing = dict.fromkeys(QUARANTINE_SCHEMA, None)
    return pl.DataFrame(
        [
            {**nothing, "symbol": symbol, "date": day, "reason": reason, "detail": "close=1"}
            for symbol, day, reason in rows
        ],
        schema=QUARANTINE_SCHEMA,
    )


MARKET = prices(
    *[price("A", day, 10.0 + number, volume=100.0 + number) for number, day in enumerate(DAYS)],
    *[price("B", day, 20.0) for day in DAYS[:3]],
    price("B", DAYS[5], 90.0, split_ratio=2.0, adjustment=2.0),
    price("B", DAYS[6], 20.0),
)
REJECTED = quarantine(("B", DAYS[3], "missing_price"), ("B", DAYS[4], "missing_price"), ("A", DAYS[0], "restated"))


def test_rows_in_are_rows_stored_and_rows_rejected_by_reason() -> None:
    report = summarize("mine", None, MARKET, REJECTED, NO_DELISTINGS, CALENDAR, rows_in=MARKET.height + 2)
    assert (report.rows_in, report.stored, report.rejected) == (MARKET.height + 2, MARKET.height, {"missing_price": 2})
    assert report.restated == 1
    with pytest.raises(RowsUnaccountedFor, match=f"{MARKET.height + 3} rows came in"):
        summarize("mine", None, MARKET, REJECTED, NO_DELISTINGS, CALENDAR, rows_in=MARKET.height + 3)


def test_years_show_sessions_symbols_coverage_and_delistings() -> None:
    gone = pl.DataFrame([("B", DAYS[6], DAYS[6], "gone", None, DAYS[6])], schema=DELISTINGS_SCHEMA, orient="row")
    report = summarize("mine", None, MARKET, REJECTED, gone, CALENDAR)
    assert [row["year"] for row in report.years] == [2023, 2024]
    assert [(row["sessions"], row["sessions_with_rows"], row["symbols"]) for row in report.years] == [
        (4, 4, 2),
        (4, 4, 2),
    ]
    assert [row["rows"] for row in report.years] == [7, 6]
    assert [row["coverage"] for row in report.years] == [1.0, 1.0]
    assert [row["rejected"] for row in report.years] == [1, 1]
    assert [row["delistings"] for row in report.years] == [0, 1]
    lacking = summarize(
        "mine", None, MARKET.filter((pl.col("symbol") != "A") | (pl.col("date") != DAYS[1])), REJECTED, gone, CALENDAR
    )
    assert lacking.years[0]["coverage"] == pytest.approx(6 / 7)


def test_events_flags_and_likely_bad_prints_are_named() -> None:
    report = summarize("mine", None, MARKET, REJECTED, NO_DELISTINGS, CALENDAR)
    assert report.events == {"splits": 1, "dividends": 0}
    assert report.by_source == {"test": MARKET.height}
    assert [(row["symbol"], row["date"]) for row in report.bad_prints] == []
    spike = prices(price("B", DAYS[0], 20.0), price("B", DAYS[1], 90.0), price("B", DAYS[2], 21.0))
    [print_] = summarize("mine", None, spike, quarantine(), NO_DELISTINGS, CALENDAR).bad_prints
    assert (print_["date"], print_["detail"]) == (DAYS[1], "20.0 -> 90.0 -> 21.0")


def test_a_ticker_that_begins_where_another_ends_at_a_like_price_is_named_and_nothing_else_is() -> None:
    frame = prices(
        *[price("OLD", day, 50.0) for day in DAYS[:4]],
        *[price("NEW", day, 51.0) for day in DAYS[4:]],
        *[price("DEAR", day, 500.0) for day in DAYS[4:]],
        *[price("LATE", day, 50.0) for day in DAYS[5:]],
        *[price("STAYS", day, 50.0) for day in DAYS],
    )
    [row] = suspected_ticker_changes(frame).to_dicts()
    assert row == {"old": "OLD", "new": "NEW", "date": DAYS[4], "last_close": 50.0, "first_close": 51.0}


class _Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_beside_itself_and_runs_nothing_that_the_data_says() -> None:
    hostile = "<script>alert(1)</script>"
    nasty = quarantine((hostile, DAYS[3], "missing_price"))
    page = _Page(as_html(summarize(hostile, hostile, MARKET, nasty, NO_DELISTINGS, CALENDAR)))
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "form"} == set()
    assert all(not name.startswith("on") and name not in ("src", "href") for _, given in page.tags for name in given)
    assert page.text.count(hostile) >= 4
    assert "missing_price" in page.text


def test_the_text_says_the_same_and_names_what_it_leaves_out() -> None:
    many = quarantine(*[("B", DAYS[3], "missing_price")] * 30, ("B", DAYS[4], "duplicate_row"))
    text = as_text(summarize("mine", "invented", MARKET, many, NO_DELISTINGS, CALENDAR, agreement="97 % agree"))
    assert "CAVEAT: invented" in text
    assert f"rows in {MARKET.height + 31} = stored {MARKET.height} + quarantined 31" in text
    assert "quarantined rows: 31\n  B        2024-01-02 duplicate_row" in text
    assert "and 21 more" in text
    assert "97 % agree" in text


def test_a_source_without_a_stored_row_has_a_report_too() -> None:
    report = summarize("mine", None, prices(), quarantine(("B", DAYS[3], "missing_price")), NO_DELISTINGS, CALENDAR)
    assert "no stored row" in as_text(report)
    assert "no stored row" in as_html(report)
