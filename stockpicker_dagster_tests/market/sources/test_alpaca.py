"""Alpaca on loopback: faults of every kind, exact resumption, the 15-minute rule, paging, keys, and what actions mean.

That its answers keep the promises of every source is tested in `test_conformance`.
"""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import requests
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import Identities, SymbolChange
from stockpicker_dagster.market.sources import Fetched
from stockpicker_dagster.market.sources.alpaca import AlpacaSource
from stockpicker_dagster.market.sources.alpaca_api import DATA_URL, KEY_ID, SECRET_KEY, AlpacaUnavailable, Patience
from stockpicker_dagster_tests.market.sources import alpaca_server as fake
from stockpicker_dagster_tests.market.sources.alpaca_server import KEYS, AlpacaServer, Fault
from stockpicker_dagster_tests.market.sources.invented_market import ASKED, START, invented_market
from stockpicker_dagster_tests.market.sources.served import alpaca_actions

NYSE = trading_calendar("XNYS")
DAYS = ASKED[:8]
MARKET = invented_market()
SYMBOLS = ["BOTH", "BRK-B", "DIV", "REV", "SPLT"]
SECRET = KEYS[SECRET_KEY]
PATIENT = 30.0
"""Seconds to wait for a server that answers at once: a busy machine is no fault."""


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2022, 11, 1, 12, tzinfo=UTC))


@pytest.fixture
def server(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaServer]:
    rows = MARKET.rows.filter(pl.col("symbol").is_in(SYMBOLS))
    with fake.alpaca(fake.bars_of(rows), alpaca_actions(MARKET)) as served:
        served.now = clock
        served.page = 60
        monkeypatch.setenv(DATA_URL, served.url)
        monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def source(clock: Clock) -> AlpacaSource:
    return made(clock)


def made(clock: Clock, **settings: Any) -> AlpacaSource:
    settings.setdefault("patience", Patience(attempts=4, read_timeout=PATIENT))
    return AlpacaSource("alpaca", START, now=clock, sleep=clock.sleep, **settings)


@pytest.fixture(scope="module")
def truth() -> pl.DataFrame:
    return MARKET.truth().filter(pl.col("date").is_in(DAYS) & pl.col("symbol").is_in(SYMBOLS))


def assert_is(truth: pl.DataFrame, answer: Fetched) -> None:
    found = answer.prices.sort("symbol", "date").select(truth.columns)
    assert_frame_equal(found, truth, check_exact=False, rel_tol=1e-12)
    assert answer.quarantine.is_empty()


# Faults

HANGING = fake.silent(1.0)
PASSING: dict[str, list[Fault]] = {
    "429 storm": [fake.status(429)] * 3,
    "429 with a time": [fake.status(429, **{"Retry-After": "7"})],
    "server errors": [fake.status(500), fake.status(502), fake.status(503)],
    "an HTML page": [fake.html],
    "a truncated answer": [fake.truncated],
    "half a JSON": [fake.half_json],
    "an empty answer": [fake.empty],
    "a dropped connection": [fake.hangs_up],
    "a time-out": [HANGING],
    "another JSON": [lambda handler: handler.send(200, b'["bars"]')],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_a_passing_fault_loses_and_doubles_nothing(
    server: AlpacaServer, clock: Clock, truth: pl.DataFrame, faults: list[Fault]
) -> None:
    """The fault comes within the download, before its third page."""
    played: list[Fault] = []

    def third_page() -> Fault | None:
        if len(server.requests) >= 2 and len(played) < len(faults):
            played.append(faults[len(played)])
            return played[-1]
        return None

    server.next_fault = third_page  # type: ignore[method-assign]
    patience = Patience(attempts=4, read_timeout=0.5 if HANGING in faults else PATIENT)
    assert_is(truth, made(clock, patience=patience).fetch(SYMBOLS, DAYS))
    assert len(played) == len(faults)
    asked = [(path, params.get("page_token"), params["start"]) for path, params in server.requests]
    assert len(asked) == len(set(asked)), "a page was asked for twice"


@pytest.mark.parametrize("fault", [fake.status(429), fake.html, HANGING], ids=["429", "html", "time-out"])
def test_a_lasting_fault_fails_in_one_sentence_and_the_next_run_goes_on(
    server: AlpacaServer, clock: Clock, truth: pl.DataFrame, fault: Fault
) -> None:
    server.next_fault = lambda: fault if len(server.requests) >= 3 else None  # type: ignore[method-assign]
    source = made(clock, patience=Patience(attempts=2, read_timeout=0.5 if fault is HANGING else PATIENT))
    with pytest.raises(AlpacaUnavailable, match=r"failed 2 times in a row.*goes on from there") as failed:
        source.fetch(SYMBOLS, DAYS)
    assert "\n" not in str(failed.value)
    first = list(server.requests)
    assert len(first) == 3
    server.next_fault = lambda: None  # type: ignore[method-assign]
    assert_is(truth, made(clock).fetch(SYMBOLS, DAYS))
    assert all(request not in server.requests[3:] for request in first), "a stored page was asked for again"


def test_waits_grow_are_capped_and_follow_the_vendor(server: AlpacaServer, clock: Clock) -> None:
    server.faults = [*[fake.status(503)] * 7, fake.status(429, **{"Retry-After": "40"})]
    made(clock, patience=Patience(attempts=9, longest_wait=10.0)).fetch(["DIV"], DAYS[:1])
    *grown, told = clock.slept
    for wait, most in zip(grown, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert most / 2 <= wait <= most
    assert 40 <= told <= 41


def test_the_quota_of_a_minute_is_waited_for(server: AlpacaServer, clock: Clock, truth: pl.DataFrame) -> None:
    server.quota, server.page = 3, 40
    assert_is(truth, made(clock).fetch(SYMBOLS, DAYS))
    assert len(server.requests) > 6
    assert sum(clock.slept) >= 60
    assert max(clock.slept) <= 61


def test_endless_pages_end(server: AlpacaServer, source: AlpacaSource) -> None:
    again = json.dumps({"bars": {}, "next_page_token": "again"}).encode()
    server.next_fault = lambda: lambda handler: handler.send(200, again)  # type: ignore[method-assign]
    with pytest.raises(AlpacaUnavailable, match="same next page"):
        source.fetch(SYMBOLS, DAYS)


def test_a_split_announced_within_the_download_mixes_no_bases(server: AlpacaServer, clock: Clock) -> None:
    """Bars are raw, whenever they come: a stopped download that goes on after a split is one that did not stop."""
    server.next_fault = lambda: fake.status(500) if len(server.requests) >= 2 else None  # type: ignore[method-assign]
    with pytest.raises(AlpacaUnavailable):
        made(clock).fetch(SYMBOLS, DAYS)
    server.next_fault = lambda: None  # type: ignore[method-assign]
    server.actions["forward_splits"].append(fake.forward_split("DIV", DAYS[-1] + timedelta(days=90), 10))
    resumed = made(clock).fetch(SYMBOLS, DAYS)
    assert_frame_equal(resumed.prices, made(clock).fetch(SYMBOLS, DAYS).prices)


def test_an_answer_that_lacks_a_field_is_refused_not_guessed(server: AlpacaServer, source: AlpacaSource) -> None:
    for paid in server.actions["cash_dividends"]:
        del paid["rate"]
    with pytest.raises(AlpacaUnavailable, match="not as documented"):
        source.fetch(["DIV"], DAYS)


def test_a_bar_without_a_close_is_quarantined(server: AlpacaServer, source: AlpacaSource) -> None:
    bar = next(each for each in server.bars["DIV"] if each["t"] == fake.midnight(DAYS[2]))
    bar["c"], bar["v"] = None, "many"
    answer = source.fetch(["DIV"], DAYS)
    assert answer.quarantine.select("date", "reason", "close").rows() == [(DAYS[2], "missing_price", None)]
    assert answer.prices.height == len(DAYS) - 1


def test_rows_sent_twice_are_stored_once(server: AlpacaServer, source: AlpacaSource, truth: pl.DataFrame) -> None:
    doubled = next(each for each in server.bars["DIV"] if each["t"] == fake.midnight(DAYS[2]))
    server.bars["DIV"].append(doubled)
    answer = source.fetch(SYMBOLS, DAYS)
    assert answer.quarantine.select("symbol", "date", "reason").rows() == [("DIV", DAYS[2], "duplicate_row")]
    assert_frame_equal(answer.prices.sort("symbol", "date").select("symbol", "date"), truth.select("symbol", "date"))


# Symbols, keys and clocks


def test_a_symbol_that_alpaca_refuses_is_named_and_the_rest_come(
    server: AlpacaServer, source: AlpacaSource, truth: pl.DataFrame
) -> None:
    server.refused_symbols = {"X$Y", "W.$"}
    answer = source.fetch([*SYMBOLS, "X$Y", "W-$"], DAYS)
    assert_is(truth, answer)
    assert answer.unanswered == dict.fromkeys(("W-$", "X$Y"), "Alpaca does not take it for a symbol")


def test_a_symbol_without_bars_is_named(server: AlpacaServer, source: AlpacaSource) -> None:
    assert source.fetch(["DIV", "NOSUCH"], DAYS).unanswered == {"NOSUCH": "no bar on the days asked for"}


def test_share_classes_are_asked_for_as_alpaca_spells_them(server: AlpacaServer, source: AlpacaSource) -> None:
    assert source.fetch(["BRK-B"], DAYS).prices["symbol"].unique().to_list() == ["BRK-B"]
    assert {params["symbols"] for _, params in server.requests} == {"BRK.B"}


def test_requests_are_raw_under_the_days_own_symbols_and_end_15_minutes_ago(
    server: AlpacaServer, source: AlpacaSource, clock: Clock
) -> None:
    clock.now = NYSE.close_at(DAYS[0]) + timedelta(minutes=15)
    assert source.available_through() == DAYS[0]
    source.fetch(["DIV"], DAYS[:1])
    [params] = server.answers("/v2/stocks/bars")
    assert (params["adjustment"], params["asof"], params["feed"]) == ("raw", "-", "sip")
    assert datetime.fromisoformat(params["end"]) <= clock.now - timedelta(minutes=15)


def test_a_session_is_available_15_minutes_after_its_close_half_days_included(clock: Clock) -> None:
    half_day = date(2024, 11, 29)
    clock.now = NYSE.close_at(half_day) + timedelta(minutes=14, seconds=59)
    assert made(clock).available_through() == date(2024, 11, 27)
    clock.now += timedelta(seconds=1)
    assert made(clock).available_through() == half_day


def test_a_clock_that_is_ahead_takes_no_unfinished_bar(server: AlpacaServer, source: AlpacaSource) -> None:
    """The server's own clock decides, even where the plan would allow the request."""
    server.free_plan = False
    server.now = lambda: NYSE.close_at(DAYS[0]) + timedelta(minutes=3)
    with pytest.raises(AlpacaUnavailable, match="clock is ahead"):
        source.fetch(["DIV"], DAYS[:1])
    server.now = lambda: datetime(2022, 11, 1, tzinfo=UTC)
    assert source.fetch(["DIV"], DAYS[:1]).prices.height == 1


def test_recent_data_on_a_free_plan_is_refused_with_the_way_out(server: AlpacaServer, source: AlpacaSource) -> None:
    server.now = lambda: NYSE.close_at(DAYS[0]) + timedelta(minutes=3)
    with pytest.raises(InvalidInput, match=r"recent SIP data.*clock"):
        source.fetch(["DIV"], DAYS[:1])


def test_missing_keys_are_named(server: AlpacaServer, source: AlpacaSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ID)
    with pytest.raises(InvalidInput, match=f"{KEY_ID} and {SECRET_KEY}"):
        source.fetch(["DIV"], DAYS[:1])


def test_keys_appear_in_no_error_and_no_log(
    server: AlpacaServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(SECRET_KEY, "another-secret")
    with pytest.raises(InvalidInput, match="refuses the keys") as refused:
        made(clock).fetch(["DIV"], DAYS[:1])
    server.faults = [fake.status(500)] * 4
    monkeypatch.setenv(SECRET_KEY, SECRET)
    with pytest.raises(AlpacaUnavailable) as failed:
        made(clock).fetch(["DIV"], DAYS[:1])
    everything = f"{refused.value} {failed.value} {made(clock)!r} {caplog.text}"
    assert "another-secret" not in everything
    assert SECRET not in everything


def test_keys_are_not_sent_over_an_open_line(source: AlpacaSource, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, DATA_URL: "http://data.example.com"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match="open line; use https"):
        source.fetch(["DIV"], DAYS[:1])


def test_all_symbols_cannot_be_asked_for(source: AlpacaSource) -> None:
    with pytest.raises(InvalidInput, match="cannot list all its symbols"):
        source.fetch(None, DAYS)


# Corporate actions


def fetch_with(
    server: AlpacaServer, source: AlpacaSource, kind: str, *actions: dict[str, Any], symbols: tuple[str, ...] = ("DIV",)
) -> Fetched:
    server.actions = {kind: list(actions)}
    return source.fetch(list(symbols), DAYS)


def close_of(symbol: str, day: date) -> float:
    return float(MARKET.rows.filter((pl.col("symbol") == symbol) & (pl.col("date") == day))["close"].item())


def event_on(answer: Fetched, day: date) -> tuple[float, float, date | None]:
    row = answer.prices.filter(pl.col("date") == day)
    return row.select("dividend", "split_ratio", "known_at").row(0)


def test_dividends_of_one_day_add_up_before_its_split(server: AlpacaServer, source: AlpacaSource) -> None:
    """A rate is per share as shares are counted on the ex-date, that is after the split; the contract's is before."""
    server.actions["forward_splits"] = [fake.forward_split("DIV", DAYS[3], 4)]
    server.actions["cash_dividends"] = [
        fake.cash_dividend("DIV", DAYS[3], 0.25),
        fake.cash_dividend("DIV", DAYS[3], 0.5, special=True),
    ]
    assert event_on(source.fetch(["DIV"], DAYS), DAYS[3]) == (3.0, 4.0, DAYS[3])


def test_one_action_on_two_pages_counts_once(server: AlpacaServer, source: AlpacaSource) -> None:
    paid = fake.cash_dividend("DIV", DAYS[3], 0.25)
    assert event_on(fetch_with(server, source, "cash_dividends", paid, dict(paid)), DAYS[3])[0] == 0.25


def test_an_event_processed_early_was_known_early(server: AlpacaServer, source: AlpacaSource) -> None:
    split = fake.forward_split("DIV", DAYS[3], 2, process_date=str(DAYS[1]))
    assert event_on(fetch_with(server, source, "forward_splits", split), DAYS[3]) == (0.0, 2.0, DAYS[1])


def test_a_stock_dividend_is_a_split(server: AlpacaServer, source: AlpacaSource) -> None:
    paid = {"symbol": "DIV", "cusip": "0", "rate": 0.05, "ex_date": str(DAYS[3])}
    answer = fetch_with(server, source, "stock_dividends", fake.action("stock", "DIV", DAYS[3], **paid))
    assert event_on(answer, DAYS[3]) == (0.0, 1.05, DAYS[3])


def spin_off(new_symbol: str) -> dict[str, Any]:
    return fake.action(
        "spin", "DIV", DAYS[3], source_symbol="DIV", source_rate=4, source_cusip="0", new_symbol=new_symbol,
        new_rate=1, new_cusip="1", ex_date=str(DAYS[3]),
    )  # fmt: skip


def test_a_spin_off_is_worth_what_the_new_share_closes_at(server: AlpacaServer, source: AlpacaSource) -> None:
    answer = fetch_with(server, source, "spin_offs", spin_off("SPLT"))
    assert event_on(answer, DAYS[3])[0] == pytest.approx(close_of("SPLT", DAYS[3]) / 4)
    assert not answer.unanswered


def test_a_spin_off_without_a_price_is_reported(server: AlpacaServer, source: AlpacaSource) -> None:
    answer = fetch_with(server, source, "spin_offs", spin_off("NEWCO"))
    assert event_on(answer, DAYS[3]) == (0.0, 1.0, None)
    assert "spin-off of NEWCO" in answer.unanswered["DIV"]


def test_a_dividend_in_another_currency_is_reported_not_converted(server: AlpacaServer, source: AlpacaSource) -> None:
    answer = fetch_with(server, source, "cash_dividends", fake.cash_dividend("DIV", DAYS[3], 0.2, currency="EUR"))
    assert event_on(answer, DAYS[3]) == (0.0, 1.0, None)
    assert "EUR" in answer.unanswered["DIV"]


def ended(**fields: Any) -> dict[str, Any]:
    return fake.action("end", "DIV", DAYS[4], effective_date=str(DAYS[4]), **fields)


_ACQUIREE = {"acquiree_symbol": "DIV", "acquiree_cusip": "0", "acquiree_rate": 1}
_ACQUIRER = {"acquirer_symbol": "SPLT", "acquirer_cusip": "1", "acquirer_rate": 0.5}
ENDINGS: dict[str, tuple[str, dict[str, Any], Callable[[float], float | None]]] = {
    "cash merger": ("cash_mergers", {**_ACQUIREE, "rate": 60.0}, lambda close: 60.0 / close - 1),
    "stock merger": ("stock_mergers", {**_ACQUIREE, **_ACQUIRER}, lambda close: None),
    "stock and cash merger": (
        "stock_and_cash_mergers",
        {**_ACQUIREE, **_ACQUIRER, "cash_rate": 3.0},
        lambda close: None,
    ),
    "worthless removal": ("worthless_removals", {"symbol": "DIV", "cusip": "0"}, lambda close: -1.0),
    "redemption": ("redemptions", {"symbol": "DIV", "cusip": "0", "rate": 10.0}, lambda close: 10.0 / close - 1),
    "reorganization": (
        "reorganizations",
        {"symbol": "DIV", "cusip": "0", "cash_rate": 5.0},
        lambda close: 5.0 / close - 1,
    ),
    "symbol changed to DVD": (
        "name_changes",
        {"old_symbol": "DIV", "new_symbol": "DVD", "old_cusip": "0", "new_cusip": "1"},
        lambda close: 0.0,
    ),
}


@pytest.mark.parametrize("reason", ENDINGS)
def test_an_ending_is_a_delisting_with_the_return_of_holders(
    server: AlpacaServer, source: AlpacaSource, reason: str
) -> None:
    """Known on the effective day, and not before: asking for the days up to the one before tells nothing."""
    kind, fields, final = ENDINGS[reason]
    server.bars["DIV"] = [bar for bar in server.bars["DIV"] if bar["t"] < fake.midnight(DAYS[4])]
    answer = fetch_with(server, source, kind, ended(**fields))
    expected = final(close_of("DIV", DAYS[3]))
    [row] = answer.delistings.rows()
    assert row[:4] == ("DIV", DAYS[4], DAYS[3], reason)
    assert row[4] == (None if expected is None else pytest.approx(expected))
    assert row[5] == DAYS[4]
    assert source.fetch(["DIV"], DAYS[:4]).delistings.is_empty()


def test_an_ending_is_listed_once_though_bars_stay_away(server: AlpacaServer, source: AlpacaSource) -> None:
    days = ASKED[:20]
    server.bars["DIV"] = [bar for bar in server.bars["DIV"] if bar["t"] < fake.midnight(days[4])]
    server.actions = {"cash_mergers": [ended(**_ACQUIREE, rate=60.0)]}
    assert source.fetch(["DIV"], days).delistings["reason"].to_list() == ["cash merger"]
    assert source.fetch(["DIV"], days[10:]).delistings.is_empty()


def test_an_ending_announced_after_the_silence_changes_no_earlier_day(
    server: AlpacaServer, source: AlpacaSource
) -> None:
    days = ASKED[:20]
    server.bars["DIV"] = [bar for bar in server.bars["DIV"] if bar["t"] < fake.midnight(days[4])]
    late = fake.action("end", "DIV", days[16], symbol="DIV", cusip="0")
    server.actions = {"worthless_removals": [late]}
    together = source.fetch(["DIV"], days).delistings
    assert together.select("date", "reason").rows() == [(days[13], "no price for 10 sessions")]
    daily = [source.fetch(["DIV"], [day]).delistings for day in (days[13], days[16])]
    assert_frame_equal(pl.concat(daily), together)


def test_symbol_changes_are_told(server: AlpacaServer, source: AlpacaSource) -> None:
    change = {"old_symbol": "DIV", "new_symbol": "DVD", "old_cusip": "0", "new_cusip": "1"}
    server.actions = {"name_changes": [fake.action("name", "DIV", DAYS[2], **change)]}
    for asked in ("DIV", "DVD"):
        [told] = source.symbol_changes([asked], DAYS[0], DAYS[-1])
        assert (told.old, told.new, told.day) == ("DIV", "DVD", DAYS[2])
    assert source.symbol_changes(["DIV"], DAYS[3], DAYS[-1]) == []


# What tickers mean

RENAMED_ON = DAYS[2]
NAME_CHANGE = {"old_symbol": "DIV", "new_symbol": "DVD", "old_cusip": "0", "new_cusip": "1"}


def rename(server: AlpacaServer) -> Identities:
    """From `RENAMED_ON` on, Alpaca has the bars and the dividends of DIV under DVD."""
    bars = server.bars["DIV"]
    server.bars["DIV"] = [bar for bar in bars if bar["t"] < fake.midnight(RENAMED_ON)]
    server.bars["DVD"] = [bar for bar in bars if bar["t"] >= fake.midnight(RENAMED_ON)]
    paid = server.actions["cash_dividends"]
    server.actions["cash_dividends"] = [
        {**each, "symbol": "DVD"} if each["symbol"] == "DIV" and each["ex_date"] >= str(RENAMED_ON) else each
        for each in paid
    ]
    server.actions["name_changes"] = [fake.action("name", "DIV", RENAMED_ON, **NAME_CHANGE)]
    return Identities((SymbolChange("DIV", "DVD", RENAMED_ON),))


@pytest.mark.parametrize("asked", [["DIV"], ["DVD"], ["DIV", "DVD"]])
def test_a_security_goes_on_under_its_new_symbol_as_if_nothing_had_happened(
    server: AlpacaServer, source: AlpacaSource, clock: Clock, asked: list[str]
) -> None:
    expected = source.fetch(["DIV"], ASKED[:40])
    assert (expected.prices["dividend"] > 0).any()
    known = made(clock, identities=rename(server))
    answer = known.fetch(asked, ASKED[:40])
    for name in ("prices", "delistings", "quarantine"):
        assert_frame_equal(getattr(answer, name), getattr(expected, name))
    assert (dict(answer.unanswered), answer.reused) == ({}, ())
    daily = [known.fetch(asked, [day]) for day in ASKED[:6]]
    assert_frame_equal(pl.concat([day.prices for day in daily]), answer.prices.head(6))
    assert all(day.delistings.is_empty() for day in daily)


def test_a_change_that_is_not_known_ends_the_old_symbol(server: AlpacaServer, source: AlpacaSource) -> None:
    rename(server)
    answer = source.fetch(["DIV", "DVD"], DAYS)
    assert answer.delistings.select("symbol", "reason").rows() == [("DIV", "symbol changed to DVD")]
    assert answer.prices["symbol"].unique().sort().to_list() == ["DIV", "DVD"]


def test_a_split_that_comes_with_a_new_symbol_is_booked_once(server: AlpacaServer, clock: Clock) -> None:
    known = rename(server)
    server.actions = {"reverse_splits": [fake.reverse_split("DIV", RENAMED_ON, 8.0, new_symbol="DVD")]}
    prices = made(clock, identities=known).fetch(["DIV"], DAYS).prices
    assert prices.filter(pl.col("split_ratio") != 1).select("symbol", "date", "split_ratio").rows() == [
        ("DIV", RENAMED_ON, 0.125)
    ]


def test_a_symbol_that_trades_again_long_after_is_another_security(server: AlpacaServer, source: AlpacaSource) -> None:
    bars = server.bars["DIV"]
    long_ago = [{**bars[0], "t": fake.midnight(day)} for day in NYSE.sessions(date(2021, 3, 1), date(2021, 3, 5))]
    first = ASKED[3]
    server.bars["DIV"] = [*long_ago, *(bar for bar in bars if bar["t"] >= fake.midnight(first))]
    answer = source.fetch(["DIV"], DAYS)
    assert answer.prices["symbol"].unique().to_list() == ["DIV~2"]
    assert answer.prices["date"].to_list() == DAYS[3:]
    assert answer.prices["adjustment"][0] == 1.0
    assert answer.reused == (SymbolChange("", "DIV", first),)
    daily = [source.fetch(["DIV"], [day]).prices for day in DAYS]
    assert_frame_equal(pl.concat(daily), answer.prices)


# The fake itself


@pytest.mark.real_data
def test_the_fake_speaks_as_the_published_document_says(
    server: AlpacaServer, source: AlpacaSource, real_data: Path
) -> None:
    """Its answers fit the schemas of Alpaca's OpenAPI document, and every parameter that we send is in it."""
    document = json.loads((real_data / "apis" / "alpaca-market-data-api.json").read_text())
    every_kind = {kind: [ended(**fields)] for kind, fields, _ in ENDINGS.values()}
    paid = {"symbol": "DIV", "cusip": "0", "rate": 0.05, "ex_date": str(DAYS[3])}
    more = {"spin_offs": [spin_off("SPLT")], "stock_dividends": [fake.action("stock", "DIV", DAYS[3], **paid)]}
    server.actions = {**alpaca_actions(MARKET), **every_kind, **more}
    server.page = 10
    source.fetch(SYMBOLS, DAYS[:2])
    for path, name in (("/v2/stocks/bars", "stock_bars_resp"), ("/v1/corporate-actions", "corporate_actions_resp")):
        parameters = {
            document["components"]["parameters"][each["$ref"].rpartition("/")[2]]["name"]
            for each in document["paths"][path]["get"]["parameters"]
        }
        validator = jsonschema.Draft202012Validator(
            {**_with_nullable(document), "$ref": f"#/components/schemas/{name}"},
            format_checker=jsonschema.FormatChecker(),
        )
        answered = server.answers(path)
        assert answered
        for params in answered:
            assert params.keys() <= parameters
            answer = requests.get(server.url + path, params=params, headers=KEYS_AS_HEADERS, timeout=5).json()
            validator.validate(answer)


KEYS_AS_HEADERS = {"APCA-API-KEY-ID": KEYS[KEY_ID], "APCA-API-SECRET-KEY": SECRET}


def _with_nullable(document: Any) -> Any:
    """OpenAPI 3.0's `nullable` as JSON Schema has it."""
    if isinstance(document, list):
        return [_with_nullable(each) for each in document]
    if not isinstance(document, dict):
        return document
    plain = {name: _with_nullable(value) for name, value in document.items() if name != "nullable"}
    if document.get("nullable") is True:
        plain["type"] = [plain["type"], "null"]
    return plain


def test_alpacas_own_client_reads_the_same_bars_from_the_fake(server: AlpacaServer, source: AlpacaSource) -> None:
    from alpaca.data.enums import Adjustment, DataFeed
    from alpaca.data.historical import StockHistoricalDataClient
    from alpaca.data.requests import StockBarsRequest
    from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

    client = StockHistoricalDataClient(KEYS[KEY_ID], SECRET, url_override=server.url)
    asked = StockBarsRequest(
        symbol_or_symbols=["DIV", "SPLT"], timeframe=TimeFrame(1, TimeFrameUnit.Day), adjustment=Adjustment.RAW,
        feed=DataFeed.SIP, asof="-", start=NYSE.open_at(DAYS[0]) - timedelta(hours=12), end=NYSE.close_at(DAYS[-1]),
    )  # fmt: skip
    theirs = {
        (symbol, bar.timestamp.astimezone(fake.NEW_YORK).date()): (bar.open, bar.high, bar.low, bar.close, bar.volume)
        for symbol, bars in client.get_stock_bars(asked).data.items()  # type: ignore[union-attr]
        for bar in bars
    }
    figures = ("open", "high", "low", "close", "volume")
    ours = source.fetch(["DIV", "SPLT"], DAYS).prices
    assert {(row["symbol"], row["date"]): tuple(row[name] for name in figures) for row in ours.to_dicts()} == theirs
