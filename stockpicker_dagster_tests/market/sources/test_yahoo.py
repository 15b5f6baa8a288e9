import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import REUSED_AFTER, Identities, SymbolChange
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Fetched, PriceSource
from stockpicker_dagster.market.sources.yahoo import YahooSource
from stockpicker_dagster.market.sources.yahoo_download import URL, YahooUnavailable, check_reachable
from stockpicker_dagster.market.sources.yahoo_patience import Limits
from stockpicker_dagster_tests.market.sources.yahoo_server import (
    Company,
    YahooServer,
    cut_off,
    html_page,
    recorded,
    server_error,
    silence,
    too_many_requests,
    truncated,
    without_rows,
    yahoo_server,
)

CALENDAR = trading_calendar()
SESSIONS = CALENDAR.sessions(date(2023, 3, 1), date(2023, 8, 31))
START = date(2023, 6, 1)
JUNE = CALENDAR.sessions(START, date(2023, 6, 30))
NOW = datetime(2023, 9, 1, 1, tzinfo=UTC)
QUICK = Limits(rest=0.0, first_wait=0.005, longest_wait=0.02, timeout=5.0, attempts=4, patience=20.0)


def company(symbol: str, sessions: Sequence[date] = SESSIONS, **events: Any) -> Company:
    """A stock that wanders around 50, in cents, trading whole shares."""
    random = np.random.default_rng(sum(map(ord, symbol)))
    closes = np.round(50 * np.exp(np.cumsum(random.normal(0, 0.01, len(sessions)))), 2).tolist()
    shares = random.integers(1_000, 9_999_999, len(sessions)).astype(float).tolist()
    rows: dict[date, tuple[float | None, ...]] = {
        day: (close, round(close + 0.5, 2), round(close - 0.5, 2), close, volume)
        for day, close, volume in zip(sessions, closes, shares, strict=True)
    }
    return Company(symbol, rows, **events)


@pytest.fixture
def yahoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[YahooServer]:
    """A server with four companies, in the evening after the last of `SESSIONS`."""
    companies = {
        "AAPL": company("AAPL", dividends={date(2023, 6, 12): 0.24, date(2023, 8, 11): 0.24}),
        "BRK-B": company("BRK-B"),
        "NVDA": company("NVDA", splits={date(2023, 6, 20): (4.0, 1.0)}, dividends={date(2023, 6, 7): 0.16}),
        "PFE": company("PFE", splits={date(2023, 6, 9): (1054.0, 1000.0)}),
    }
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    with yahoo_server(companies, NOW) as server:
        monkeypatch.setenv(URL, server.url)
        yield server


def source_on(yahoo: YahooServer, limits: Limits = QUICK, **settings: Any) -> YahooSource:
    return YahooSource("yahoo", START, limits=limits, now=lambda: yahoo.now, **settings)


def assert_same(one: Fetched, other: Fetched) -> None:
    for name in ("prices", "delistings", "quarantine"):
        assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)


def stacked(days: Sequence[Fetched]) -> Fetched:
    tables = {name: pl.concat([getattr(day, name) for day in days]) for name in ("prices", "delistings", "quarantine")}
    return Fetched(**tables)


def test_it_is_a_price_source(yahoo: YahooServer) -> None:
    source = source_on(yahoo)
    assert isinstance(source, PriceSource)
    answer = source.fetch(["NVDA", "AAPL", "BRK.B"], JUNE)
    assert dict(answer.prices.schema) == PRICES_SCHEMA
    assert dict(answer.delistings.schema) == DELISTINGS_SCHEMA
    assert dict(answer.quarantine.schema) == QUARANTINE_SCHEMA
    assert answer.prices.select("date", "symbol").rows() == [
        (day, symbol) for day in JUNE for symbol in ("AAPL", "BRK-B", "NVDA")
    ]
    assert answer.prices["source"].unique().to_list() == ["yahoo"]
    assert answer.quarantine.is_empty()


def test_rows_are_what_was_traded_and_adjustments_keep_total_return(yahoo: YahooServer) -> None:
    yahoo.companies["NVDA"].splits[date(2023, 8, 1)] = (10.0, 1.0)
    prices = source_on(yahoo).fetch(["NVDA"], JUNE).prices
    traded = yahoo.companies["NVDA"].rows
    assert prices.select("open", "high", "low", "close", "volume").rows() == [traded[day] for day in JUNE]
    events = prices.filter(pl.col("adjustment") != 1.0)
    before = [traded[CALENDAR.previous_session(day)][3] for day in (date(2023, 6, 7), date(2023, 6, 20))]
    assert events.select("date", "dividend", "split_ratio", "known_at").rows() == [
        (date(2023, 6, 7), 0.16, 1.0, date(2023, 6, 7)),
        (date(2023, 6, 20), 0.0, 4.0, date(2023, 6, 20)),
    ]
    assert before[0] is not None
    assert events["adjustment"].to_list() == [1 / (1 - 0.16 / before[0]), 4.0]


def test_days_fetched_each_on_its_evening_equal_a_backfill_after_more_splits(yahoo: YahooServer) -> None:
    symbols = list(yahoo.companies)
    yahoo.companies["AAPL"].rows[date(2023, 6, 14)] = (None, None, None, None, None)
    yahoo.companies["PFE"].rows[date(2023, 6, 16)] = (41.0, 40.0, 40.5, 41.0, 100.0)
    del yahoo.companies["NVDA"].rows[date(2023, 6, 20)]
    daily = []
    for day in JUNE:
        yahoo.now = datetime.combine(CALENDAR.next_session(day), time(1), UTC)
        daily.append(source_on(yahoo).fetch(symbols, [day]))
    yahoo.now = NOW
    for symbol, ratio in (("AAPL", 7.0), ("BRK-B", 1.5), ("NVDA", 10.0)):
        yahoo.companies[symbol].splits[date(2023, 7, 19)] = (ratio, 1.0)
    backfill = source_on(yahoo).fetch(symbols, JUNE)
    assert_same(stacked(daily), backfill)
    assert backfill.quarantine["reason"].to_list() == ["missing_price", "high_below_low"]
    late = backfill.prices.filter(pl.col("symbol") == "NVDA", pl.col("split_ratio") == 4.0)
    assert late.select("date", "known_at").rows() == [(date(2023, 6, 21), date(2023, 6, 20))]


def test_a_day_does_not_depend_on_the_days_asked_for_with_it(yahoo: YahooServer) -> None:
    source, symbols = source_on(yahoo), list(yahoo.companies)
    whole = source.fetch(symbols, JUNE)
    for days in ([JUNE[3]], JUNE[5:9], [JUNE[0], JUNE[-1]]):
        part = source.fetch(symbols, days)
        assert_frame_equal(part.prices, whole.prices.filter(pl.col("date").is_in(days)), check_exact=True)


def test_nothing_after_the_last_session_matters_but_its_own_restatements(yahoo: YahooServer) -> None:
    before = source_on(yahoo).fetch(["AAPL", "NVDA"], JUNE)
    for symbol in ("AAPL", "NVDA"):
        rows = yahoo.companies[symbol].rows
        for day in [day for day in rows if day > JUNE[-1]]:
            rows[day] = (1.0, 2000.0, 1.0, 1999.0, 5.0)
    assert_same(source_on(yahoo).fetch(["AAPL", "NVDA"], JUNE), before)


def test_the_day_before_is_found_however_long_ago_it_traded(yahoo: YahooServer) -> None:
    long_ago = [day for day in SESSIONS if day <= date(2023, 3, 10)]
    halted = company("HALT", [*long_ago, *CALENDAR.sessions(date(2023, 6, 26), SESSIONS[-1])])
    halted.dividends[date(2023, 6, 26)] = 1.0
    yahoo.companies["HALT"] = halted
    yahoo.companies["NEW"] = company("NEW", CALENDAR.sessions(date(2023, 6, 26), SESSIONS[-1]))
    prices = source_on(yahoo).fetch(["HALT", "NEW"], JUNE).prices
    first = prices.filter(pl.col("date") == date(2023, 6, 26)).sort("symbol")
    previous_close = halted.rows[long_ago[-1]][3]
    assert previous_close is not None
    assert first["adjustment"].to_list() == [1 / (1 - 1.0 / previous_close), 1.0]
    assert yahoo.asked.count("HALT") == 2
    assert yahoo.asked.count("NEW") == 1


def test_a_session_that_is_not_over_is_never_returned(yahoo: YahooServer) -> None:
    midday = datetime(2023, 6, 15, 17, tzinfo=UTC)
    yahoo.now = midday
    source = source_on(yahoo)
    assert source.available_through() == date(2023, 6, 14)
    assert source.fetch(["AAPL"], [date(2023, 6, 14)]).prices["date"].to_list() == [date(2023, 6, 14)]
    with pytest.raises(InvalidInput, match="complete sessions up to 2023-06-14, and 2023-06-15 was asked for"):
        source.fetch(["AAPL"], [date(2023, 6, 15)])


@pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(days=2)])
def test_a_wrong_clock_stops_the_download_instead_of_storing_half_a_session(
    yahoo: YahooServer, skew: timedelta
) -> None:
    source = YahooSource("yahoo", START, limits=QUICK, now=lambda: NOW + skew)
    with pytest.raises(YahooUnavailable, match=r"this machine's clock says .* and Yahoo's 2023-09-01 01:00 UTC"):
        source.fetch(["AAPL"], JUNE)


def test_a_symbol_that_yahoo_does_not_know_is_named_and_the_rest_is_answered(yahoo: YahooServer) -> None:
    answer = source_on(yahoo).fetch(["AAPL", "GONE"], JUNE)
    assert answer.unanswered == {"GONE": "No data found, symbol may be delisted"}
    assert answer.prices["symbol"].unique().to_list() == ["AAPL"]


def test_a_stock_that_stops_is_delisted_on_the_tenth_session_alike_by_day_and_by_range(yahoo: YahooServer) -> None:
    last = date(2023, 6, 8)
    yahoo.companies["SIVB"] = company("SIVB", [day for day in SESSIONS if day <= last])
    source = source_on(yahoo)
    whole = source.fetch(["AAPL", "SIVB"], JUNE)
    known = CALENDAR.offset(last, 10)
    assert whole.delistings.rows() == [("SIVB", known, last, "no price for 10 sessions", None, known)]
    assert_same(stacked([source.fetch(["AAPL", "SIVB"], [day]) for day in JUNE]), whole)
    july = source.fetch(["SIVB"], [date(2023, 8, 30)])
    assert july.delistings.is_empty()
    assert july.unanswered == {"SIVB": "no row since 2023-06-19; its last trade was on 2023-06-08"}


def test_a_stock_that_nobody_trades_has_not_left_until_yahoo_has_filled_it_up_for_half_a_year(
    yahoo: YahooServer,
) -> None:
    last_trade = CALENDAR.offset(JUNE[-1], -REUSED_AFTER - 5)
    days = CALENDAR.sessions(CALENDAR.offset(last_trade, -20), SESSIONS[-1])
    for symbol, idle_from in (("IDLE", date(2023, 5, 1)), ("GONE", CALENDAR.next_session(last_trade))):
        stock = company(symbol, days)
        close = stock.rows[CALENDAR.previous_session(idle_from)][3]
        idle = {day: (close, close, close, close, 0.0) for day in days if idle_from <= day < date(2023, 8, 1)}
        yahoo.companies[symbol] = replace(stock, rows=stock.rows | idle)
    source, symbols = source_on(yahoo), ["AAPL", "GONE", "IDLE"]
    since = CALENDAR.sessions(JUNE[-4], date(2023, 7, 14))
    whole = source.fetch(symbols, since)
    known, filled_until = CALENDAR.offset(JUNE[-1], 5), CALENDAR.offset(JUNE[-1], -5)
    assert whole.delistings.select("symbol", "date", "last_session").rows() == [("GONE", known, filled_until)]
    reasons = dict(whole.quarantine.select("symbol", "reason").unique().iter_rows())
    assert reasons == {"GONE": "no_trade_for_long", "IDLE": "stale_close"}
    assert_same(stacked([source.fetch(symbols, [day]) for day in since]), whole)


def test_another_currency_or_exchange_is_quarantined_and_never_mixed_in(yahoo: YahooServer) -> None:
    yahoo.companies["NVDA"].currency = "GBp"
    yahoo.companies["PFE"].time_zone = "America/Toronto"
    source = source_on(yahoo)
    answer = source.fetch(list(yahoo.companies), JUNE)
    assert answer.prices["symbol"].unique().sort().to_list() == ["AAPL", "BRK-B"]
    rejected = answer.quarantine.group_by("symbol", "reason", "detail", maintain_order=True).len().rows()
    assert rejected == [
        ("NVDA", "wrong_currency", "quoted in GBp, not in USD", len(JUNE)),
        ("PFE", "wrong_exchange", "traded in America/Toronto, not in America/New_York", len(JUNE)),
    ]
    assert answer.quarantine.filter(pl.col("symbol") == "NVDA")["close"].to_list() == [
        yahoo.companies["NVDA"].rows[day][3] for day in JUNE
    ]
    assert_same(stacked([source.fetch(list(yahoo.companies), [day]) for day in JUNE]), answer)
    assert source_on(yahoo, currency="GBp").fetch(["NVDA"], JUNE).prices.height == len(JUNE)


def test_a_dividend_as_large_as_the_price_is_quarantined(yahoo: YahooServer) -> None:
    yahoo.companies["AAPL"].dividends[date(2023, 6, 21)] = 80.0
    answer = source_on(yahoo).fetch(["AAPL"], JUNE)
    assert answer.quarantine.select("date", "reason", "dividend").rows() == [
        (date(2023, 6, 21), "dividend_not_below_previous_close", 80.0)
    ]


@pytest.mark.parametrize("fault", [html_page, truncated, cut_off, server_error, without_rows, too_many_requests])
def test_passing_faults_change_nothing(yahoo: YahooServer, fault: Any) -> None:
    calm = source_on(yahoo).fetch(list(yahoo.companies), JUNE)
    yahoo.faults[""].extend([fault] * 5)
    assert_same(source_on(yahoo).fetch(list(yahoo.companies), JUNE), calm)


def test_a_server_that_hangs_is_given_up_on_and_asked_again(yahoo: YahooServer) -> None:
    yahoo.faults["AAPL"].append(silence(0.6))
    impatient = Limits(timeout=0.2, first_wait=0.01)
    assert source_on(yahoo, impatient).fetch(["AAPL"], JUNE).prices.height == len(JUNE)


def test_a_symbol_that_stays_broken_fails_by_name_and_the_rest_is_kept(yahoo: YahooServer) -> None:
    yahoo.always["NVDA"] = html_page
    with pytest.raises(YahooUnavailable) as failure:
        source_on(yahoo).fetch(list(yahoo.companies), JUNE)
    assert "no usable answer for 1 of 4 symbols (NVDA: an HTML page); 3 of 4 symbols are downloaded and kept" in str(
        failure.value
    )
    assert yahoo.asked.count("NVDA") == QUICK.attempts
    yahoo.always.clear()
    yahoo.asked.clear()
    assert source_on(yahoo).fetch(list(yahoo.companies), JUNE).prices.height == 4 * len(JUNE)
    assert yahoo.asked == ["NVDA"]


def test_a_symbol_that_stays_empty_is_named_and_the_rest_is_answered(yahoo: YahooServer) -> None:
    yahoo.always["NVDA"] = without_rows
    answer = source_on(yahoo).fetch(["AAPL", "NVDA"], JUNE)
    assert answer.unanswered == {"NVDA": "no row since 2023-03-20, though Yahoo knows the symbol"}
    assert answer.prices["symbol"].unique().to_list() == ["AAPL"]


def test_a_storm_of_refusals_ends_the_download_in_one_sentence_and_it_goes_on_exactly_there(yahoo: YahooServer) -> None:
    whole = source_on(yahoo).fetch(list(yahoo.companies), JUNE)
    yahoo.asked.clear()
    yahoo.always |= dict.fromkeys(("NVDA", "PFE"), too_many_requests)
    stormy = Limits(workers=2, first_wait=0.005, longest_wait=0.02, patience=0.3)
    with pytest.raises(YahooUnavailable) as failure:
        source_on(yahoo, stormy).fetch(list(yahoo.companies), JUNE)
    assert "does not answer (HTTP status 429); 2 of 4 symbols are downloaded and kept, nothing is lost" in str(
        failure.value
    )
    yahoo.always.clear()
    yahoo.asked.clear()
    assert_same(source_on(yahoo).fetch(list(yahoo.companies), JUNE), whole)
    assert sorted(yahoo.asked) == ["NVDA", "PFE"]


def test_a_split_announced_in_mid_backfill_does_not_mix_what_was_restated_with_what_was_not(yahoo: YahooServer) -> None:
    calm = source_on(yahoo).fetch(list(yahoo.companies), JUNE)
    yahoo.always["PFE"] = html_page
    with pytest.raises(YahooUnavailable):
        source_on(yahoo).fetch(list(yahoo.companies), JUNE)
    yahoo.now += timedelta(days=5)
    for each in yahoo.companies.values():
        each.splits[date(2023, 9, 5)] = (20.0, 1.0)
    yahoo.always.clear()
    yahoo.asked.clear()
    assert_same(source_on(yahoo).fetch(list(yahoo.companies), JUNE), calm)
    assert yahoo.asked == ["PFE"]


def test_a_row_that_yahoo_brings_late_is_asked_for_again(yahoo: YahooServer) -> None:
    yahoo.now = datetime.combine(JUNE[-1] + timedelta(days=1), time(1), UTC)
    yahoo.companies["NVDA"].late.add(JUNE[-1])
    del yahoo.companies["AAPL"].rows[JUNE[-2]]
    yahoo.always["PFE"] = html_page
    with pytest.raises(YahooUnavailable):
        source_on(yahoo).fetch(["NVDA", "AAPL", "PFE"], JUNE)
    yahoo.always.clear()
    yahoo.companies["NVDA"].late.clear()
    yahoo.asked.clear()
    assert source_on(yahoo).fetch(["NVDA", "AAPL", "PFE"], JUNE).prices.height == 3 * len(JUNE) - 1
    assert sorted(yahoo.asked) == ["NVDA", "PFE"]


def test_what_cannot_be_answered_is_refused_in_one_sentence(yahoo: YahooServer) -> None:
    source = source_on(yahoo)
    with pytest.raises(InvalidInput, match="precedes the start of source 'yahoo'"):
        source.fetch(["AAPL"], [date(2023, 5, 31)])
    with pytest.raises(InvalidInput, match="cannot list its symbols; name a universe"):
        source.fetch(None, JUNE)
    assert source.fetch([], JUNE).prices.is_empty()
    assert source.fetch(["AAPL"], []).prices.is_empty()
    assert yahoo.asked == []


def test_reports_repeat_what_the_prices_cannot_tell() -> None:
    caveats = [YahooSource("yahoo", start).caveat or "" for start in (date(2001, 4, 9), date(1999, 1, 4))]
    for caveat in caveats:
        assert "delisting returns unknown; companies that Yahoo has dropped are missing" in caveat
    assert [caveat.endswith("prices before 2001-04-09 are rounded") for caveat in caveats] == [False, True]


def test_nothing_is_written_outside_the_state_folder(
    yahoo: YahooServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "user"
    elsewhere.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(elsewhere))
    source_on(yahoo).fetch(["AAPL"], JUNE)
    assert list(elsewhere.rglob("*")) == []


def test_without_a_network_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv(URL, f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(YahooUnavailable, match="Yahoo cannot be reached"):
            check_reachable()


def test_paper_orders_fill_at_the_opens_that_were_traded(yahoo: YahooServer) -> None:
    opens = source_on(yahoo).venue().opens(JUNE[4], ["AAPL", "GONE"])
    assert opens is not None
    assert {symbol: float(price) for symbol, price in opens.items()} == {
        "AAPL": yahoo.companies["AAPL"].rows[JUNE[4]][0]
    }


RECORDED_AT = datetime(2025, 2, 22, 1, tzinfo=UTC)


@pytest.fixture
def recorded_answers(real_data: Path) -> dict[str, dict[str, Any]]:
    names = {"NVDA": "NVDA-split", "MSFT": "MSFT-dividends"}
    folder = real_data / "apis" / "yahoo"
    texts = {
        symbol: (folder / f"historical-via-chart-{name}-2021-02-01-to-2022-01-31.csv.json").read_text()
        for symbol, name in names.items()
    }
    return {symbol: json.loads(text)["response"]["bodyJson"] for symbol, text in texts.items()}


@pytest.fixture
def real_yahoo(
    recorded_answers: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[YahooServer]:
    """Yahoo's own answers; NVDA's also knows the split of 2024-06-10, which was recorded in its prices only."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    companies = {
        "NVDA": recorded(recorded_answers["NVDA"], {date(2024, 6, 10): (10.0, 1.0)}),
        "MSFT": recorded(recorded_answers["MSFT"], {}),
    }
    with yahoo_server(companies, RECORDED_AT) as server:
        monkeypatch.setenv(URL, server.url)
        yield server


@pytest.mark.real_data
def test_the_loopback_server_answers_as_yahoo_did(
    real_yahoo: YahooServer, recorded_answers: dict[str, dict[str, Any]]
) -> None:
    for symbol, body in recorded_answers.items():
        theirs = body["chart"]["result"][0]
        period = [datetime(2021, 2, 1, tzinfo=UTC), datetime(2022, 1, 31, tzinfo=UTC)]
        _, answer = real_yahoo.answer(symbol, *period)
        ours = answer["chart"]["result"][0]
        assert ours["timestamp"] == theirs["timestamp"]
        for name in ("open", "high", "low", "close"):
            ratio = np.array(ours["indicators"]["quote"][0][name]) / np.array(theirs["indicators"]["quote"][0][name])
            assert abs(ratio - 1).max() < 2e-5
        assert ours["indicators"]["quote"][0]["volume"] == theirs["indicators"]["quote"][0]["volume"]
        assert ours["events"] == theirs["events"]


@pytest.mark.real_data
def test_recorded_answers_give_the_prices_that_were_traded(real_yahoo: YahooServer) -> None:
    source = YahooSource("yahoo", date(2021, 6, 1), limits=QUICK, now=lambda: real_yahoo.now)
    sessions = CALENDAR.sessions(date(2021, 7, 1), date(2021, 8, 31))
    answer = source.fetch(["NVDA", "MSFT"], sessions)
    assert answer.quarantine.is_empty()
    nvidia = answer.prices.filter(
        pl.col("symbol") == "NVDA", pl.col("date").is_between(date(2021, 7, 19), date(2021, 7, 20))
    )
    # The closing prices of the Nasdaq around the 4:1 split, as published on those days.
    assert nvidia.select("close", "split_ratio", "adjustment").rows() == [(751.19, 1.0, 1.0), (186.12, 4.0, 4.0)]
    microsoft = answer.prices.filter(pl.col("symbol") == "MSFT", pl.col("dividend") > 0)
    assert microsoft.select("date", "dividend", "known_at").rows() == [(date(2021, 8, 18), 0.56, date(2021, 8, 18))]


@pytest.mark.real_data
def test_recorded_days_fetched_before_the_splits_equal_those_fetched_after(real_yahoo: YahooServer) -> None:
    source = YahooSource("yahoo", date(2021, 6, 1), limits=QUICK, now=lambda: real_yahoo.now)
    sessions = CALENDAR.sessions(date(2021, 7, 12), date(2021, 7, 30))
    after = source.fetch(["NVDA", "MSFT"], sessions)
    daily = []
    for day in sessions:
        real_yahoo.now = datetime.combine(day + timedelta(days=1), time(1), UTC)
        daily.append(source.fetch(["NVDA", "MSFT"], [day]))
    assert_same(stacked(daily), after)


# What tickers mean

CHANGED = date(2023, 6, 14)
IDENTITIES = Identities((SymbolChange("FB", "META", CHANGED),))


def test_a_company_that_yahoo_shows_under_its_ticker_of_today_keeps_its_id(yahoo: YahooServer) -> None:
    yahoo.companies["META"] = company("META", dividends={date(2023, 6, 12): 0.24, CHANGED: 0.5})
    known = source_on(yahoo, identities=IDENTITIES)
    plain = source_on(yahoo).fetch(["META"], JUNE).prices
    for asked in (["FB"], ["META"], ["FB", "META"]):
        answer = known.fetch(asked, JUNE)
        assert answer.prices.equals(plain.with_columns(symbol=pl.lit("FB")))
        assert (answer.delistings.height, dict(answer.unanswered), answer.reused) == (0, {}, ())
    assert_same(stacked([known.fetch(["META"], [day]) for day in JUNE]), known.fetch(["META"], JUNE))


def test_before_a_change_a_company_is_asked_for_under_the_ticker_that_it_has(yahoo: YahooServer) -> None:
    """What is asked of Yahoo changes on the day of the change, and what is stored does not."""
    later = company("META")
    yahoo.companies["META"] = later
    afterwards = source_on(yahoo, identities=IDENTITIES).fetch(["FB"], JUNE[:5])
    del yahoo.companies["META"]
    yahoo.companies["FB"] = Company("FB", later.rows)
    yahoo.now = datetime(2023, 6, 8, 1, tzinfo=UTC)
    assert_same(source_on(yahoo, identities=IDENTITIES).fetch(["FB"], JUNE[:5]), afterwards)


def test_a_ticker_that_another_company_took_up_is_another_security(yahoo: YahooServer) -> None:
    """Yahoo keeps the rows of both under one ticker; the first that resumes after half a year tells them apart."""
    long_ago = CALENDAR.sessions(date(2022, 8, 1), date(2022, 8, 31))
    again = CALENDAR.sessions(date(2023, 6, 12), SESSIONS[-1])
    yahoo.companies["ABC"] = company("ABC", [*long_ago, *again])
    source = source_on(yahoo)
    answer = source.fetch(["ABC"], JUNE)
    assert answer.prices["symbol"].unique().to_list() == ["ABC~2"]
    assert answer.prices["adjustment"].unique().to_list() == [1.0]
    assert answer.reused == (SymbolChange("", "ABC", again[0]),)
    assert_same(stacked([source.fetch(["ABC"], [day]) for day in JUNE]), answer)
    recorded = source_on(yahoo, identities=Identities(answer.reused))
    late = [day for day in SESSIONS if day > date(2023, 8, 20)]
    assert recorded.fetch(["ABC"], late).prices["symbol"].unique().to_list() == ["ABC~2"]


@pytest.mark.parametrize("symbol", ["SHEL.L", "BT-A.L"])
def test_stocks_of_another_exchange_are_asked_for_as_yahoo_spells_them(yahoo: YahooServer, symbol: str) -> None:
    london = trading_calendar("XLON")
    days = london.sessions(date(2023, 4, 3), date(2023, 6, 30))
    yahoo.companies[symbol] = company(symbol, days, currency="GBp", time_zone="Europe/London")
    source = YahooSource("yahoo", days[20], london, currency="GBp", limits=QUICK, now=lambda: yahoo.now)
    answer = source.fetch([symbol], days[20:])
    assert answer.prices["date"].to_list() == days[20:]
    # The coronation was a holiday in London alone.
    assert date(2023, 5, 8) not in days
    assert answer.prices["symbol"].unique().to_list() == [symbol.replace(".", "-")]
