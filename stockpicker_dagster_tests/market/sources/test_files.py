"""Prices from files: the time rules over hand-made events, vendors' formats, bad files, and the real ones."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import REUSED_AFTER, Identities, SymbolChange
from stockpicker_dagster.market.sources import Fetched, PriceSource
from stockpicker_dagster.market.sources.files import FilesSource

NYSE = trading_calendar("XNYS")
SESSIONS = NYSE.sessions(date(2023, 1, 3), date(2023, 3, 31))
START = SESSIONS[0]
SPLIT, DIVIDEND, BOTH, LISTING, GONE, BACK = (
    SESSIONS[10],
    SESSIONS[15],
    SESSIONS[20],
    SESSIONS[12],
    SESSIONS[18],
    SESSIONS[45],
)


def hand_made() -> pl.DataFrame:
    """Four stocks over 62 sessions: events, a listing, a long disappearance, one halt with an event, one bad print."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for symbol, listed in (("EVT", START), ("NEW", LISTING), ("OLD", START), ("TWO", START)):
        close = 50.0
        for day in SESSIONS:
            dividend = 0.1 if symbol == "EVT" and day in (DIVIDEND, BOTH) else 0.0
            split_ratio = 2.0 if symbol == "EVT" and day in (SPLIT, BOTH) else 1.0
            close = round((close - dividend) / split_ratio * (1 + 0.01 * rng.standard_normal()), 2)
            row = {
                "symbol": symbol,
                "date": day,
                "open": close,
                "high": close + 0.1,
                "low": close - 0.1,
                "close": close,
            }
            if day >= listed and not (symbol == "OLD" and GONE < day < BACK):
                rows.append({**row, "volume": 1000.0, "dividend": dividend, "split_ratio": split_ratio})
    frame = pl.DataFrame(rows)
    halted = (pl.col("symbol") == "TWO") & (pl.col("date") == SESSIONS[30])
    wild = (pl.col("symbol") == "TWO") & (pl.col("date") == SESSIONS[33])
    return frame.with_columns(
        close=pl.when(halted).then(None).when(wild).then(-1.0).otherwise("close"),
        dividend=pl.when(halted).then(0.5).otherwise("dividend"),
    )


def with_adj_close(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows as a vendor gives them: no events, but closes restated backwards for all later ones."""
    answers = []
    for _, rows in frame.filter(pl.col("close") > 0).sort("symbol", "date").group_by("symbol", maintain_order=True):
        previous = rows["close"].shift(1)
        step = (rows["split_ratio"] / (1 - rows["dividend"] / previous)).fill_null(1.0).to_numpy()
        later = np.append(np.cumprod(step[::-1])[::-1][1:], 1.0)
        answers.append(rows.with_columns(adj_close=rows["close"] / pl.Series(later)))
    return pl.concat(answers).drop("dividend", "split_ratio")


def source(folder: Path, frame: pl.DataFrame, name: str = "prices.csv", basis: Any = "as_traded") -> FilesSource:
    path = folder / name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return FilesSource("mine", path, basis, START)


def assert_same(mine: Fetched, theirs: Fetched) -> None:
    for name in ("prices", "delistings", "quarantine"):
        assert_frame_equal(getattr(mine, name), getattr(theirs, name), check_exact=True)


FORMATS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "events": lambda frame: frame,
    "adj_close": with_adj_close,
}


# The time rules


@pytest.mark.parametrize("given", FORMATS)
def test_day_by_day_equals_the_range(tmp_path: Path, given: str) -> None:
    files = source(tmp_path, FORMATS[given](hand_made()))
    together = files.fetch(None, SESSIONS)
    daily = [files.fetch(None, [day]) for day in SESSIONS]
    parts = {name: pl.concat([getattr(day, name) for day in daily]) for name in ("prices", "delistings", "quarantine")}
    assert_same(Fetched(**parts), together)
    assert together.delistings.height == 1


@pytest.mark.parametrize("last", [SPLIT, BOTH, NYSE.offset(GONE, 9), NYSE.offset(GONE, 10), SESSIONS[33], BACK])
def test_days_ignore_the_future(tmp_path: Path, last: date) -> None:
    """Deleting or spoiling every later row leaves the days up to `last` byte-identical."""
    days = [day for day in SESSIONS if day <= last]
    whole = source(tmp_path, hand_made()).fetch(None, days)
    later = pl.col("date") > last
    cut = source(tmp_path, hand_made().filter(~later), "cut.csv").fetch(None, days)
    spoilt = hand_made().with_columns(close=pl.when(later).then(7000.0).otherwise("close"))
    assert_same(cut, whole)
    assert_same(source(tmp_path, spoilt, "spoilt.csv").fetch(None, days), whole)


def test_an_adjusted_close_ignores_the_future_when_its_later_rows_are_deleted(tmp_path: Path) -> None:
    frame = with_adj_close(hand_made())
    for last in (SPLIT, BOTH, SESSIONS[40]):
        days = [day for day in SESSIONS if day <= last]
        whole = source(tmp_path, frame).fetch(None, days)
        assert_same(source(tmp_path, frame.filter(pl.col("date") <= last), "cut.csv").fetch(None, days), whole)


def test_fewer_symbols_are_the_same_rows(tmp_path: Path) -> None:
    files = source(tmp_path, hand_made())
    some, everything = files.fetch(["EVT", "OLD"], SESSIONS), files.fetch(None, SESSIONS)
    wanted = pl.col("symbol").is_in(["EVT", "OLD"])
    assert_same(
        some,
        Fetched(
            everything.prices.filter(wanted), everything.delistings.filter(wanted), everything.quarantine.filter(wanted)
        ),
    )


# What rows become


def test_every_row_is_accepted_or_quarantined(tmp_path: Path) -> None:
    files = source(tmp_path, hand_made())
    assert isinstance(files, PriceSource)
    answer = files.fetch(None, SESSIONS)
    assert answer.prices.height + answer.quarantine.height == hand_made().height
    assert answer.quarantine["reason"].to_list() == ["missing_price", "non_positive_price"]


def test_the_dividend_of_a_halted_day_is_paid_on_the_next_row(tmp_path: Path) -> None:
    paid = source(tmp_path, hand_made()).fetch(["TWO"], SESSIONS).prices.filter(pl.col("dividend") > 0)
    assert paid.select("date", "dividend", "known_at").rows() == [(SESSIONS[31], 0.5, SESSIONS[30])]


def test_an_adjusted_close_tells_what_the_events_told(tmp_path: Path) -> None:
    told = source(tmp_path, hand_made()).fetch(["EVT", "NEW", "OLD"], SESSIONS).prices
    inferred = source(tmp_path, with_adj_close(hand_made()), "adj.csv").fetch(["EVT", "NEW", "OLD"], SESSIONS).prices
    assert_frame_equal(inferred, told, rel_tol=1e-9, abs_tol=1e-9)
    assert told.filter(pl.col("split_ratio") == 2.0)["date"].to_list() == [SPLIT, BOTH]


def test_on_a_split_adjusted_file_an_adjusted_close_means_dividends(tmp_path: Path) -> None:
    frame = with_adj_close(hand_made())
    prices = source(tmp_path, frame, basis="split_adjusted").fetch(["EVT"], SESSIONS).prices
    assert (prices["split_ratio"] == 1.0).all()
    previous = prices["close"].shift(1)
    formula = (1 / (1 - prices["dividend"] / previous)).fill_null(1.0)
    assert formula.to_list() == pytest.approx(prices["adjustment"].to_list(), rel=1e-12)


def test_a_symbol_that_disappears_is_delisted_on_the_tenth_session_it_misses(tmp_path: Path) -> None:
    answer = source(tmp_path, hand_made()).fetch(None, SESSIONS)
    tenth = NYSE.offset(GONE, 10)
    assert answer.delistings.rows() == [("OLD", tenth, GONE, "no price for 10 sessions", None, tenth)]
    returned = answer.prices.filter((pl.col("symbol") == "OLD") & (pl.col("date") >= BACK))
    assert returned.height == len([day for day in SESSIONS if day >= BACK])


def test_the_end_of_the_file_delists_nobody(tmp_path: Path) -> None:
    frame = hand_made().filter(pl.col("symbol") != "OLD")
    assert source(tmp_path, frame).fetch(None, SESSIONS).delistings.is_empty()


def test_a_row_on_a_day_without_trading_is_reported_on_the_session_after_it(tmp_path: Path) -> None:
    saturday = date(2023, 1, 7)
    stray = hand_made().head(1).with_columns(date=pl.lit(saturday))
    files = source(tmp_path, pl.concat([hand_made(), stray]))
    report = files.fetch(None, [NYSE.next_session(saturday)]).quarantine
    assert report.select("date", "reason").rows() == [(saturday, "not_a_session")]
    whole = files.fetch(None, SESSIONS)
    assert whole.prices.height + whole.quarantine.height == hand_made().height + 1


def test_copies_of_a_row_are_counted_and_contradicting_ones_rejected(tmp_path: Path) -> None:
    frame = with_adj_close(hand_made())
    one, other = frame.filter((pl.col("symbol") == "EVT") & pl.col("date").is_in([SPLIT, SESSIONS[25]])).iter_slices(1)
    doubled = pl.concat([frame, one, other.with_columns(adj_close=pl.col("adj_close") * 1.5)])
    answer = source(tmp_path, doubled).fetch(["EVT"], SESSIONS)
    assert answer.quarantine.select("date", "reason").rows() == [
        (SPLIT, "duplicate_row"),
        (SESSIONS[25], "duplicate_row"),
        (SESSIONS[25], "duplicate_row"),
    ]
    kept = answer.prices.filter(pl.col("date") == SPLIT)
    assert kept["split_ratio"].to_list() == [2.0]


# Formats


def test_vendors_headers_text_dates_and_dotted_tickers_are_understood(tmp_path: Path) -> None:
    frame = with_adj_close(hand_made()).with_columns(
        symbol=pl.col("symbol").replace("TWO", "TWO.B"), date=pl.col("date").dt.strftime("%Y-%m-%d")
    )
    headers = {"symbol": "Ticker", "date": "Date", "adj_close": "Adj Close", "close": "Close", "volume": "Volume"}
    answer = source(tmp_path, frame.rename(headers).with_columns(Name=pl.lit("ignored"))).fetch(["TWO.B"], SESSIONS)
    assert answer.prices["symbol"].unique().to_list() == ["TWO-B"]


@pytest.mark.parametrize("ticker", ["NA", "nan", "null", "None", "ON", "TRUE"])
def test_a_ticker_that_spells_an_unknown_is_a_ticker(tmp_path: Path, ticker: str) -> None:
    frame = hand_made().with_columns(symbol=pl.col("symbol").replace("TWO", ticker))
    read = {name: source(tmp_path, frame, name).fetch([ticker], SESSIONS) for name in ("p.csv", "p.parquet")}
    assert read["p.csv"].prices["symbol"].unique().to_list() == [ticker]
    assert_same(read["p.csv"], read["p.parquet"])


def test_words_for_an_unknown_are_blanks_among_the_figures(tmp_path: Path) -> None:
    texts = hand_made().with_columns(dividend=pl.col("dividend").cast(pl.String).replace("0.0", "N/A"))
    assert_same(source(tmp_path, texts).fetch(None, SESSIONS), source(tmp_path, hand_made()).fetch(None, SESSIONS))


def test_a_file_of_bad_rows_alone_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    files = source(tmp_path, hand_made().with_columns(close=pl.lit(-1.0)))
    with pytest.raises(InvalidInput, match=r"not one acceptable row in .* \(\d+ \w+"):
        files.fetch(None, SESSIONS)


def test_a_folder_of_files_is_one_source(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for (symbol,), rows in hand_made().group_by("symbol"):
        path = tmp_path / "folder" / f"{symbol}.{'csv' if symbol == 'EVT' else 'parquet'}"
        rows.write_csv(path) if symbol == "EVT" else rows.write_parquet(path)
    folder = FilesSource("mine", tmp_path / "folder", "as_traded", START)
    assert_same(folder.fetch(None, SESSIONS), source(tmp_path, hand_made()).fetch(None, SESSIONS))


def test_a_file_that_grew_is_read_again(tmp_path: Path) -> None:
    files = source(tmp_path, hand_made().filter(pl.col("date") < SESSIONS[-1]))
    assert files.available_through() == SESSIONS[-2]
    source(tmp_path, hand_made())
    assert files.available_through() == SESSIONS[-1]


@pytest.mark.parametrize(
    ("spoil", "basis", "message"),
    [
        (lambda f: f.drop("high", "volume"), "as_traded", "lacks high, volume; found: symbol, date, open"),
        (lambda f: f.drop("dividend", "split_ratio"), "as_traded", r"lacks adj_close \(or dividend and split_ratio\)"),
        (lambda f: f.with_columns(ticker="symbol"), "as_traded", "both symbol and ticker"),
        (lambda f: f.with_columns(date=pl.lit("3.1.2023")), "as_traded", "date '3.1.2023' is not understood"),
        (lambda f: f.with_columns(close=pl.lit("dear")), "as_traded", "close 'dear' is no number"),
        (lambda f: f.with_columns(symbol=pl.lit(None, pl.String)), "as_traded", "have no symbol"),
        (lambda f: f.with_columns(date=pl.lit(20230103)), "as_traded", "date '20230103' is not understood"),
        (lambda f: f.with_columns(symbol=pl.lit("ABC~2")), "as_traded", "'ABC~2' has a ~, which no ticker has"),
        (lambda f: f, "split_adjusted", "EVT has 2 on 2023-01-18; declare it as_traded"),
        (lambda f: f.clear(), "as_traded", "not one acceptable row"),
    ],
)
def test_files_that_are_no_prices_are_refused(
    tmp_path: Path, spoil: Callable[[pl.DataFrame], pl.DataFrame], basis: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        source(tmp_path, spoil(hand_made()), basis=basis).available_through()


def test_missing_files_and_days_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.csv does not exist"):
        FilesSource("mine", tmp_path / "nowhere.csv", "as_traded", START).available_through()
    with pytest.raises(InvalidInput, match=r"no \.parquet or \.csv file"):
        FilesSource("mine", tmp_path, "as_traded", START).available_through()
    with pytest.raises(InvalidInput, match="basis 'adjusted' is unknown"):
        FilesSource("mine", tmp_path, "adjusted", START)  # type: ignore[arg-type]
    files = source(tmp_path, hand_made())
    with pytest.raises(InvalidInput, match="2022-12-30 precedes the start"):
        files.fetch(None, [date(2022, 12, 30)])
    with pytest.raises(InvalidInput, match="no row after 2023-03-31"):
        files.fetch(None, [date(2023, 4, 3)])


# The venue


def test_the_window_runs_from_the_close_to_two_minutes_before_the_next_open(tmp_path: Path) -> None:
    venue = source(tmp_path, hand_made()).venue()
    friday, latest = date(2023, 3, 31), date(2023, 3, 31)
    sunday = datetime(2023, 4, 2, 15, tzinfo=UTC)
    window = venue.window(friday, latest, sunday)
    assert window is not None
    assert window.opens == datetime(2023, 3, 31, 20, 0, tzinfo=UTC)
    assert window.closes == datetime(2023, 4, 3, 13, 28, tzinfo=UTC)
    assert venue.window(friday, latest, window.closes) is None
    assert venue.window(friday, latest, window.closes - timedelta(seconds=1)) == window
    assert venue.window(date(2023, 3, 30), date(2023, 3, 30), sunday) is None
    assert venue.window(friday, date(2023, 3, 30), sunday) is None
    assert not venue.simulated


def test_opens_come_from_the_file_once_it_has_them(tmp_path: Path) -> None:
    venue = source(tmp_path, hand_made()).venue()
    row = hand_made().row(0, named=True)
    assert venue.opens(START, ["EVT", "NEW"]) == {"EVT": Decimal(f"{row['open']:.4f}")}
    assert venue.opens(venue.trade_session(SESSIONS[-1]), ["EVT"]) is None


# What tickers mean

CHANGED = SESSIONS[25]
CHANGE = SymbolChange("EVT", "XYZ", CHANGED)
KNOWN = Identities((CHANGE,))


def renamed(frame: pl.DataFrame, since: date = CHANGED) -> pl.DataFrame:
    """The same market with one company under another ticker from a day on."""
    later = (pl.col("symbol") == "EVT") & (pl.col("date") >= since)
    return frame.with_columns(symbol=pl.when(later).then(pl.lit("XYZ")).otherwise("symbol"))


def identified(files: FilesSource, identities: Identities = KNOWN, **settings: Any) -> FilesSource:
    return FilesSource("mine", files.path, files.basis, START, identities=identities, **settings)


@pytest.mark.parametrize("since", [CHANGED, START], ids=["as_of_the_day", "all_under_the_new_one"])
def test_a_security_goes_on_under_its_new_ticker_as_if_nothing_had_happened(tmp_path: Path, since: date) -> None:
    answer = identified(source(tmp_path, renamed(hand_made(), since))).fetch(None, SESSIONS)
    (tmp_path / "old").mkdir()
    assert_same(answer, source(tmp_path / "old", hand_made()).fetch(None, SESSIONS))
    assert answer.reused == ()


def test_without_the_change_one_is_delisted_and_another_begins(tmp_path: Path) -> None:
    answer = source(tmp_path, renamed(hand_made())).fetch(None, SESSIONS)
    assert "EVT" in answer.delistings["symbol"].to_list()
    first = answer.prices.filter(pl.col("symbol") == "XYZ").row(0, named=True)
    assert (first["date"], first["adjustment"]) == (CHANGED, 1.0)


def test_a_change_of_ticker_is_no_event_of_adjusted_closes(tmp_path: Path) -> None:
    """A vendor restates each ticker's own rows: what the old one's ends with says nothing about the new one's."""
    both = renamed(hand_made()).filter(pl.col("symbol").is_in(["EVT", "XYZ"]))
    elsewhere = pl.when(pl.col("symbol") == "XYZ").then(pl.col("adj_close") * 0.5).otherwise("adj_close")
    restated = with_adj_close(both)
    told = identified(source(tmp_path, both)).fetch(None, SESSIONS).prices["adjustment"]
    assert told.n_unique() > 3
    for rows in (restated, restated.with_columns(adj_close=elsewhere)):
        inferred = identified(source(tmp_path, rows, "restated.csv")).fetch(None, SESSIONS).prices["adjustment"]
        assert inferred.to_list() == pytest.approx(told.to_list(), rel=1e-9)


@pytest.mark.parametrize("asked", [["EVT"], ["XYZ"], ["EVT", "XYZ"]])
def test_a_security_is_found_under_each_of_its_names(tmp_path: Path, asked: list[str]) -> None:
    files = source(tmp_path, renamed(hand_made()))
    whole = identified(files).fetch(None, SESSIONS)
    found = identified(files).fetch(asked, SESSIONS)
    assert_frame_equal(found.prices, whole.prices.filter(pl.col("symbol") == "EVT"))
    days = identified(files, keeps_tail=True)
    assert_frame_equal(pl.concat([days.fetch(asked, [day]).prices for day in SESSIONS[20:30]]), found.prices[20:30])


YEAR = NYSE.sessions(date(2022, 1, 3), date(2023, 3, 31))
FIRST_AGAIN = YEAR[150]


def with_a_re_used_ticker() -> pl.DataFrame:
    """Two stocks over five quarters; of one, the ticker is another company's after 130 sessions without any trade."""
    rows = hand_made().filter(pl.col("symbol") == "TWO", pl.col("close") > 0).row(0, named=True)
    stocks = {"TWO": YEAR, "ABC": [*YEAR[:20], *YEAR[150:]]}
    frames = [
        pl.DataFrame({**rows, "symbol": symbol, "date": days, "dividend": 0.0}) for symbol, days in stocks.items()
    ]
    priced = pl.when((pl.col("symbol") == "ABC") & (pl.col("date") >= FIRST_AGAIN)).then(7.0).otherwise(1.0)
    figures = [pl.col(name) * priced for name in ("open", "high", "low", "close")]
    first = (pl.col("symbol") == "ABC") & (pl.col("date") == FIRST_AGAIN)
    return pl.concat(frames).with_columns(*figures, dividend=pl.when(first).then(1.0).otherwise(0.0))


@pytest.mark.parametrize("given", FORMATS)
@pytest.mark.parametrize("last", [FIRST_AGAIN, YEAR[170], YEAR[-1]], ids=["that_day", "soon", "long_after"])
def test_a_re_used_ticker_is_another_security_from_its_first_day_on(tmp_path: Path, given: str, last: date) -> None:
    rows = FORMATS[given](with_a_re_used_ticker()).filter(pl.col("date") <= last)
    path = source(tmp_path, rows).path
    files = FilesSource("mine", path, "as_traded", YEAR[0])
    days = [day for day in YEAR if day <= last]
    answer = files.fetch(None, days)
    of = {symbol: answer.prices.filter(pl.col("symbol") == symbol) for symbol in ("ABC", "ABC~2")}
    assert of["ABC"]["date"].to_list() == YEAR[:20]
    assert of["ABC~2"]["date"].to_list() == [day for day in YEAR[150:] if day <= last]
    assert of["ABC~2"]["adjustment"].unique().to_list() == [1.0]
    assert answer.delistings.select("symbol", "last_session").rows() == [("ABC", YEAR[19])]
    assert answer.reused == (SymbolChange("", "ABC", FIRST_AGAIN),)
    daily = [files.fetch(None, [day]) for day in days]
    parts = {name: pl.concat([getattr(day, name) for day in daily]) for name in ("prices", "delistings", "quarantine")}
    assert_same(Fetched(**parts), answer)
    # What was found, once it is recorded, gives the same again.
    recorded = FilesSource("mine", path, "as_traded", YEAR[0], identities=Identities().also(answer.reused))
    assert_same(recorded.fetch(None, days), answer)
    assert recorded.fetch(["ABC"], days).prices["symbol"].unique().sort().to_list() == ["ABC", "ABC~2"]


def test_a_re_used_ticker_is_told_from_the_rows_kept_of_earlier_years(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file grows by a day and its old rows are not read again; the ids are those of the whole."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    rows, path = with_a_re_used_ticker(), tmp_path / "prices.csv"
    whole = source(tmp_path, rows, "whole.csv").path
    answer = FilesSource("mine", whole, "as_traded", YEAR[0]).fetch(None, YEAR)
    growing = FilesSource("mine", path, "as_traded", YEAR[0], keeps_tail=True)
    for day in (YEAR[140], FIRST_AGAIN, YEAR[151], YEAR[220], YEAR[221], YEAR[-1]):
        rows.filter(pl.col("date") <= day).write_csv(path)
        assert_frame_equal(growing.fetch(None, [day]).prices, answer.prices.filter(pl.col("date") == day))


def with_idle_stocks() -> pl.DataFrame:
    """Three stocks over five quarters: one in which nobody trades for forty sessions, one that the vendor fills up."""
    rows = hand_made().filter(pl.col("symbol") == "TWO", pl.col("close") > 0).row(0, named=True)
    frames = [
        pl.DataFrame({**rows, "symbol": symbol, "date": YEAR, "dividend": 0.0}) for symbol in ("FUL", "IDL", "TWO")
    ]
    idle = (pl.col("symbol") == "IDL") & pl.col("date").is_between(YEAR[100], YEAR[139])
    left = (pl.col("symbol") == "FUL") & (pl.col("date") >= YEAR[50])
    return pl.concat(frames).with_columns(volume=pl.when(idle | left).then(0.0).otherwise("volume"))


def test_a_stock_that_nobody_trades_for_weeks_has_no_price_and_has_not_left(tmp_path: Path) -> None:
    path = source(tmp_path, with_idle_stocks()).path
    files = FilesSource("mine", path, "as_traded", YEAR[0], keeps_tail=True)
    answer = files.fetch(None, YEAR)
    idle = answer.quarantine.filter(pl.col("symbol") == "IDL")
    assert idle.select("date", "reason").rows() == [(day, "stale_close") for day in YEAR[109:140]]
    prices = answer.prices.filter(pl.col("symbol") == "IDL")["date"].to_list()
    assert prices == [*YEAR[:109], *YEAR[140:]]
    # What is filled up for more than half a year has left, and that is known ten sessions later.
    last, known = YEAR[50 + REUSED_AFTER - 1], YEAR[50 + REUSED_AFTER + 9]
    assert answer.delistings.rows() == [("FUL", known, last, "no price for 10 sessions", None, known)]
    few = files.fetch(["FUL", "IDL"], YEAR)
    assert_frame_equal(few.delistings, answer.delistings)
    daily = [files.fetch(None, [day]) for day in YEAR[100:]]
    assert_frame_equal(pl.concat([day.delistings for day in daily]), answer.delistings)
    assert_frame_equal(pl.concat([day.prices for day in daily]), answer.prices.filter(pl.col("date") >= YEAR[100]))


@pytest.mark.parametrize("given", FORMATS)
def test_rows_in_another_currency_are_quarantined_with_their_money_and_without_their_splits(
    tmp_path: Path, given: str
) -> None:
    told = hand_made().with_columns(
        currency=pl.when(pl.col("symbol") == "OLD").then(None).otherwise(pl.lit("USD")),
    )
    foreign = (pl.col("symbol") == "EVT") & pl.col("date").is_in([DIVIDEND, SPLIT])
    rows = FORMATS[given](told).with_columns(currency=pl.when(foreign).then(pl.lit("EUR")).otherwise("currency"))
    answer = source(tmp_path, rows, f"{given}.csv").fetch(None, SESSIONS)
    rejected = answer.quarantine.filter(pl.col("reason") == "wrong_currency")
    assert rejected.select("symbol", "date").rows() == [("EVT", SPLIT), ("EVT", DIVIDEND)]
    assert rejected["detail"].str.starts_with("quoted in EUR, not in USD").all()
    after = answer.prices.filter(pl.col("symbol") == "EVT", pl.col("date") > SPLIT).head(1)
    assert after.select("date", "split_ratio").rows() == [(NYSE.next_session(SPLIT), 2.0)]
    assert answer.prices.height + answer.quarantine.height == rows.height
    euros = FilesSource("mine", tmp_path / f"{given}.csv", "as_traded", START, currency="EUR").fetch(None, SESSIONS)
    assert set(euros.prices["symbol"]) == {"EVT", "OLD"}


def test_a_person_may_say_that_a_long_suspension_was_no_end(tmp_path: Path) -> None:
    same = Identities((SymbolChange("ABC", "ABC", FIRST_AGAIN),))
    path = source(tmp_path, with_a_re_used_ticker()).path
    answer = FilesSource("mine", path, "as_traded", YEAR[0], identities=same).fetch(None, YEAR)
    assert answer.prices["symbol"].unique().sort().to_list() == ["ABC", "TWO"]
    assert answer.reused == ()


def test_the_sessions_are_those_of_the_exchange_that_is_named(tmp_path: Path) -> None:
    monday, london = date(2023, 1, 16), trading_calendar("XLON")
    days = london.sessions(date(2023, 1, 12), date(2023, 1, 18))
    row = hand_made().row(0, named=True)
    path = source(tmp_path, pl.DataFrame({**row, "date": days})).path
    there = FilesSource("mine", path, "as_traded", days[0], london)
    assert there.fetch(None, days).prices["date"].to_list() == days
    assert there.venue().trade_session(days[-1]) == date(2023, 1, 19)
    # Martin Luther King's day in New York.
    here = FilesSource("mine", path, "as_traded", days[0]).everything()
    assert here.quarantine.select("date", "reason").rows() == [(monday, "not_a_session")]


MOMENTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "midnights of the exchange": lambda day: day.cast(pl.Datetime("us")).dt.replace_time_zone("Asia/Tokyo"),
    "midnights elsewhere": lambda day: day.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
    "the same moments in UTC": lambda day: (
        day.cast(pl.Datetime("us")).dt.replace_time_zone("Asia/Tokyo").dt.convert_time_zone("UTC")
    ),
    "text": lambda day: day.cast(pl.String),
    "text of midnights": lambda day: day.cast(pl.String) + "T00:00:00Z",
    "text with the exchange's offset": lambda day: day.cast(pl.String) + " 00:00:00+09:00",
    "text in UTC": lambda day: (day - pl.duration(days=1)).cast(pl.String) + "T15:00:00Z",
}


@pytest.mark.parametrize("written", MOMENTS)
def test_a_moment_is_of_the_day_that_the_exchange_has_then_and_never_of_an_earlier_one(
    tmp_path: Path, written: str
) -> None:
    tokyo = trading_calendar("XTKS")
    days = tokyo.sessions(date(2023, 1, 10), date(2023, 1, 20))
    row = hand_made().row(0, named=True)
    frame = pl.DataFrame({**row, "date": days}).with_columns(MOMENTS[written](pl.col("date")).alias("date"))
    path = source(tmp_path, frame, "p.parquet").path
    answer = FilesSource("mine", path, "as_traded", days[0], tokyo).everything()
    assert answer.prices["date"].to_list() == days
    assert answer.quarantine.is_empty()


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"date": pl.lit(20230103)}, "the dates are Int32, such as 20230103; write them as 2024-03-08"),
        ({"close": pl.concat_list("close")}, r"close is List\(Float64\), such as"),
        ({"volume": pl.col("date")}, "volume is Date, such as 2023-01-03; write numbers"),
    ],
)
def test_columns_of_other_kinds_are_refused_in_a_sentence(
    tmp_path: Path, spoilt: dict[str, pl.Expr], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        source(tmp_path, hand_made().with_columns(**spoilt), "p.parquet").everything()


@pytest.mark.parametrize("day", ["1970-01-02", "2099-01-02"])
def test_a_day_beyond_the_calendar_is_rejected_alone(tmp_path: Path, day: str) -> None:
    rows = hand_made()
    odd = rows.filter(pl.col("symbol") == "TWO").head(1).with_columns(date=pl.lit(date.fromisoformat(day)))
    answer = source(tmp_path, pl.concat([rows, odd])).everything()
    assert answer.quarantine.filter(pl.col("reason") == "not_a_session")["date"].to_list() == [date.fromisoformat(day)]
    assert answer.prices.height + answer.quarantine.height == rows.height + 1
    assert set(answer.prices["symbol"]) == {"EVT", "NEW", "OLD", "TWO"}


# The real files


def reasons(answer: Fetched) -> dict[str, int]:
    return dict(answer.quarantine["reason"].value_counts().iter_rows())


@pytest.mark.real_data
def test_the_real_split_adjusted_file_loses_no_row(real_data: Path) -> None:
    path = real_data / "prices" / "large_caps_88_2012_2017.parquet"
    files = FilesSource("large_caps", path, "split_adjusted", date(2012, 9, 4))
    answer = files.fetch(None, NYSE.sessions(date(2012, 9, 4), date(2017, 9, 1)))
    assert answer.prices.height + answer.quarantine.height == pl.scan_parquet(path).select(pl.len()).collect().item()
    assert reasons(answer) == {"missing_price": 3, "moved_without_volume": 2}
    apple = answer.prices.filter((pl.col("symbol") == "AAPL") & (pl.col("dividend") > 0))
    assert apple.filter(pl.col("date") == date(2017, 8, 10))["dividend"].item() == pytest.approx(0.63, abs=0.005)


@pytest.mark.real_data
@pytest.mark.long
def test_the_real_index_members_load_whole(real_data: Path) -> None:
    path = real_data / "prices" / "sp500_ever_2000_2024.parquet"
    files = FilesSource("sp500", path, "split_adjusted", date(2000, 1, 3))
    answer = files.fetch(None, NYSE.sessions(date(2000, 1, 3), date(2024, 3, 8)))
    assert answer.prices.height + answer.quarantine.height == pl.scan_parquet(path).select(pl.len()).collect().item()
    assert reasons(answer) == {"open_or_close_outside_range": 3, "stale_close": 501, "moved_without_volume": 36}
    # Take-Two was halted in 2002; Amcor had a price and no volume for two years.
    stale = answer.quarantine.filter(pl.col("reason") == "stale_close")
    assert set(stale["symbol"]) == {"TTWO", "AMCR"}
    assert answer.delistings.is_empty()


@pytest.mark.real_data
def test_real_splits_are_found_in_an_as_traded_file(real_data: Path, tmp_path: Path) -> None:
    rows = pl.scan_parquet(real_data / "prices" / "us_all_2015_2017.parquet")
    wanted = rows.filter(pl.col("ticker").is_in(["NFLX", "NKE", "AAPL"])).collect()
    files = source(tmp_path, wanted, "three.parquet")
    prices = (
        FilesSource("us", files.path, "as_traded", date(2015, 3, 20))
        .fetch(None, NYSE.sessions(date(2015, 3, 20), date(2017, 3, 31)))
        .prices
    )
    splits = prices.filter(pl.col("split_ratio") != 1).select("symbol", "date", "split_ratio").rows()
    assert splits == [("NFLX", date(2015, 7, 15), 7.0), ("NKE", date(2015, 12, 24), 2.0)]
    nike = prices.filter((pl.col("symbol") == "NKE") & (pl.col("date") == date(2017, 3, 2)))
    assert nike["dividend"].item() == pytest.approx(0.18, abs=0.001)
