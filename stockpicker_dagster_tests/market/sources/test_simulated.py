"""The simulated market: the same bytes however it is asked, the stylised facts of returns, and a planted truth."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from io import BytesIO

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, validate
from stockpicker_dagster.market.sources import Fetched, PriceSource
from stockpicker_dagster.market.sources.simulated import CAVEAT, SECTORS, SimulatedMarket, simulated_market

NYSE = trading_calendar("XNYS")
START = date(2018, 1, 2)
SESSIONS = NYSE.sessions(START, date(2023, 12, 29))


@lru_cache
def whole() -> tuple[SimulatedMarket, Fetched]:
    market = simulated_market("simulated", START)
    return market, market.fetch(None, SESSIONS)


def with_returns(prices: pl.DataFrame) -> pl.DataFrame:
    previous = pl.col("close").shift(1).over("symbol")
    rows = prices.sort("symbol", "date").with_columns(previous=previous)
    return rows.with_columns(total=pl.col("close") * pl.col("adjustment") / pl.col("previous") - 1)


def parquet(fetched: Fetched) -> list[bytes]:
    answers = []
    for frame in (fetched.prices, fetched.delistings, fetched.quarantine):
        buffer = BytesIO()
        frame.write_parquet(buffer)
        answers.append(buffer.getvalue())
    return answers


# The same bytes however it is asked


def test_extending_the_simulation_changes_no_earlier_byte() -> None:
    _, everything = whole()
    for length in (1, 40, 300):
        short = SimulatedMarket("simulated", START).fetch(None, SESSIONS[:length])
        last = SESSIONS[length - 1]
        early = Fetched(
            everything.prices.filter(pl.col("date") <= last),
            everything.delistings.filter(pl.col("date") <= last),
            everything.quarantine,
        )
        assert parquet(short) == parquet(early)


def test_day_by_day_equals_the_range_over_every_kind_of_event() -> None:
    market, everything = whole()
    both = (pl.col("split_ratio") != 1) & (pl.col("dividend") > 0)
    middle = everything.prices.filter(both)["date"][0]
    nearest_delisting = min(everything.delistings["date"], key=lambda day: abs(day - middle))
    first, last = min(middle, nearest_delisting), max(middle, nearest_delisting)
    days = NYSE.sessions(first - timedelta(days=60), last + timedelta(days=60))
    range_answer = market.fetch(None, days)
    prices = range_answer.prices
    new = prices.group_by("symbol").agg(pl.col("date").min()).filter(pl.col("date") > days[0])
    assert len(days) >= 30
    assert (prices["split_ratio"] != 1).any()
    assert new.height > 0
    assert range_answer.delistings.height > 0
    daily = [
        SimulatedMarket("simulated", START).fetch(None, days[:1]),
        *(market.fetch(None, [day]) for day in days[1:]),
    ]
    assert_frame_equal(pl.concat([answer.prices for answer in daily]), prices, check_exact=True)
    assert_frame_equal(pl.concat([answer.delistings for answer in daily]), range_answer.delistings, check_exact=True)


def test_fewer_symbols_are_the_same_rows() -> None:
    market, everything = whole()
    some = market.fetch(["SIM003", "SIM050", "AAPL"], SESSIONS)
    wanted = pl.col("symbol").is_in(["SIM003", "SIM050"])
    assert_frame_equal(some.prices, everything.prices.filter(wanted), check_exact=True)


def test_another_seed_is_another_market() -> None:
    first, second = (SimulatedMarket("simulated", START, 20, seed).fetch(None, SESSIONS[:5]) for seed in (1, 2))
    assert not first.prices.equals(second.prices)


# The contract


def test_every_row_keeps_the_price_contract() -> None:
    market, everything = whole()
    assert isinstance(market, PriceSource)
    assert dict(everything.prices.schema) == PRICES_SCHEMA
    assert dict(everything.delistings.schema) == DELISTINGS_SCHEMA
    accepted, quarantine = validate(everything.prices.drop("adjustment"), sessions=SESSIONS)
    assert quarantine.is_empty()
    assert_frame_equal(accepted, everything.prices, rel_tol=1e-14)
    cents = everything.prices.select((pl.col("open", "high", "low", "close") * 100) % 1).to_numpy()
    assert np.minimum(cents, 1 - cents).max() < 1e-6


def test_events_are_known_before_their_day() -> None:
    _, everything = whole()
    events = everything.prices.filter((pl.col("dividend") > 0) | (pl.col("split_ratio") != 1))
    assert events.height > 500
    assert set(events["split_ratio"].unique()) >= {1.0, 1.5, 2.0}
    assert (events["known_at"] < events["date"]).all()
    quiet = everything.prices.filter((pl.col("dividend") == 0) & (pl.col("split_ratio") == 1))
    assert quiet["known_at"].null_count() == quiet.height


def test_stocks_list_and_delist_and_about_as_many_stay() -> None:
    _, everything = whole()
    counts = everything.prices.group_by("date").len()["len"]
    assert 94 <= counts.min() <= counts.max() <= 100  # type: ignore[operator]
    delistings = everything.delistings
    assert set(delistings["reason"]) == {"bankruptcy", "merger"}
    assert delistings["return"].null_count() == 0
    bankrupt = delistings.filter(pl.col("reason") == "bankruptcy")["return"]
    assert -1 <= bankrupt.min() <= bankrupt.max() <= -0.3  # type: ignore[operator]
    last_rows = everything.prices.group_by("symbol").agg(last=pl.col("date").max())
    gone = delistings.join(last_rows, on="symbol")
    assert (gone["last_session"] == gone["last"]).all()
    assert gone["date"].to_list() == [NYSE.next_session(day) for day in gone["last_session"]]
    assert (gone["known_at"] == gone["date"]).all()


def test_the_universe_never_reveals_what_is_still_to_come() -> None:
    market, everything = whole()
    final = market.universe(SESSIONS[-1])
    assert (final.point_in_time, final.caveat) == (True, CAVEAT)
    delisting = everything.delistings.row(0, named=True)
    eve = market.universe(delisting["last_session"])
    assert delisting["symbol"] in eve.members(eve.spells["start"].max() + timedelta(days=9999))  # type: ignore[operator]
    assert delisting["symbol"] not in market.universe(delisting["date"]).members(delisting["date"])
    assert set(eve.spells["symbol"]) == {
        s for s, d in final.spells.select("symbol", "start").rows() if d <= delisting["last_session"]
    }
    rows = everything.prices.select("symbol", "date")
    membership = final.membership(SESSIONS)
    assert rows.join(membership, on=["symbol", "date"], how="anti").is_empty()
    halted = membership.join(rows, on=["symbol", "date"], how="anti").height
    assert 0 < halted < 0.002 * membership.height
    assert set(final.sectors()) == set(SECTORS)
    assert market.universe(date(2020, 3, 7)).spells.equals(market.universe(date(2020, 3, 6)).spells)


# Stylised facts


def test_total_returns_pass_through_splits_without_a_jump() -> None:
    _, everything = whole()
    rows = with_returns(everything.prices).drop_nulls("total")
    split = rows.filter(pl.col("split_ratio") != 1)
    raw = (split["close"] / split["previous"] - 1).abs()
    assert raw.min() > 0.2  # type: ignore[operator]
    assert split["total"].abs().median() < 0.05  # type: ignore[operator]
    _, p = stats.ks_2samp(split["total"].to_numpy(), rows["total"].to_numpy())
    assert p > 0.001


def test_returns_have_fat_tails_and_clustered_volatility() -> None:
    _, everything = whole()
    rows = with_returns(everything.prices).drop_nulls("total")
    market = rows.group_by("date").agg(pl.col("total").mean()).sort("date")["total"].to_numpy()
    own = rows.with_columns(pl.col("total") / pl.col("total").std().over("symbol"))["total"].to_numpy()
    assert stats.kurtosis(own, fisher=False) > 4
    assert stats.kurtosis(market, fisher=False) > 3.3
    squares = rows.with_columns(square=pl.col("total") ** 2).with_columns(
        before=pl.col("square").shift(1).over("symbol")
    )
    clustering = squares.drop_nulls("before").group_by("symbol").agg(pl.corr("square", "before"), pl.len())
    assert clustering.filter(pl.col("len") > 500)["square"].mean() > 0.05  # type: ignore[operator]


def test_stocks_of_one_sector_move_together_more_than_others() -> None:
    market, everything = whole()
    returns = with_returns(everything.prices).pivot(on="symbol", index="date", values="total").drop("date")
    complete = [name for name in returns.columns if returns[name].null_count() < 20]
    correlation = np.corrcoef(returns.select(complete).fill_null(0.0).to_numpy().T)
    universe = market.universe(SESSIONS[-1])
    sectors = np.array([universe.sector_of(name) for name in complete])
    same = sectors[:, None] == sectors[None, :]
    others = ~np.eye(len(complete), dtype=bool)
    assert correlation[same & others].mean() > correlation[~same].mean() + 0.03
    assert correlation[~same].mean() > 0.1


def test_opens_differ_from_the_previous_close() -> None:
    _, everything = whole()
    rows = with_returns(everything.prices).filter(pl.col("adjustment") == 1.0).drop_nulls("previous")
    gap = rows["open"] / rows["previous"] - 1
    intraday = rows["close"] / rows["open"] - 1
    assert 0.2 < gap.var() / (gap.var() + intraday.var()) < 0.4  # type: ignore[operator]


# The planted alpha


def pairs_of_oracle_and_next_return() -> pl.DataFrame:
    market, everything = whole()
    scores = [
        (symbol, session, score)
        for session in SESSIONS[300:-1]
        for symbol, score in market.expected_returns(session).items()
    ]
    oracle = pl.DataFrame(scores, schema=["symbol", "date", "score"], orient="row")
    following = pl.DataFrame({"date": SESSIONS[:-1], "next": SESSIONS[1:]})
    returns = with_returns(everything.prices).select("symbol", next="date", total="total")
    return oracle.join(following, on="date").join(returns, on=["symbol", "next"]).drop_nulls()


def test_the_stated_expected_returns_are_the_true_ones() -> None:
    pairs = pairs_of_oracle_and_next_return()
    centred = pairs.with_columns(pl.col("score", "total") - pl.col("score", "total").mean().over("date"))
    fit = stats.linregress(centred["score"].to_numpy(), centred["total"].to_numpy())
    assert abs(fit.slope - 1) < 3 * fit.stderr
    assert fit.stderr < 0.25
    spread = pairs.group_by("date").agg(pl.col("score").std())["score"].mean()
    assert spread == pytest.approx(whole()[0].planted_alpha().daily_spread, rel=0.25)


def test_the_oracle_earns_a_small_information_coefficient_and_no_more() -> None:
    pairs = pairs_of_oracle_and_next_return()
    ic = pairs.group_by("date").agg(ic=pl.corr("score", "total", method="spearman"))["ic"]
    assert 0.01 < ic.mean() < 0.06  # type: ignore[operator]
    assert ic.mean() / (ic.std() / len(ic) ** 0.5) > 3  # type: ignore[operator]


def test_the_planted_alpha_follows_from_what_was_stored() -> None:
    """The characteristics are observable: the oracle is rebuilt from prices alone, as its description says."""
    market, everything = whole()
    session = SESSIONS[700]
    history = with_returns(everything.prices.filter(pl.col("date") <= session))
    listed = set(market.expected_returns(session))
    scores: dict[str, float] = dict.fromkeys(listed, 0.0)
    figures: dict[str, dict[str, float]] = {"reversal": {}, "momentum": {}, "volatility": {}}
    for (symbol,), rows in history.group_by("symbol"):
        by_day = dict(rows.select("date", "total").rows())
        logs = [np.log1p(by_day.get(day) or 0.0) for day in SESSIONS[700 - 252 : 701]][1:]
        first = rows["date"].min()
        if symbol not in listed:
            continue
        if first <= SESSIONS[695]:  # type: ignore[operator]
            figures["reversal"][symbol] = sum(logs[-5:])
        if first <= SESSIONS[448]:  # type: ignore[operator]
            figures["momentum"][symbol] = sum(logs[:-21])
        if first <= SESSIONS[640]:  # type: ignore[operator]
            figures["volatility"][symbol] = float(np.std(logs[-60:]))
    for characteristic in market.planted_alpha().characteristics:
        values = figures[characteristic.name]
        mean, deviation = np.mean(list(values.values())), np.std(list(values.values()))
        for symbol, value in values.items():
            scores[symbol] += characteristic.coefficient * float(np.clip((value - mean) / deviation, -3, 3))
    expected = market.expected_returns(session)
    assert [scores[symbol] for symbol in expected] == pytest.approx(list(expected.values()), abs=1e-12)


def test_the_alpha_is_stated_in_words_and_numbers() -> None:
    words = str(whole()[0].planted_alpha())
    assert "-3.0 bp x reversal" in words
    assert "+3.5 bp x momentum" in words


# The venue


def test_the_venue_fills_at_the_withheld_open_of_the_next_session() -> None:
    market, everything = whole()
    venue = market.venue()
    session = SESSIONS[100]
    trade_session = venue.trade_session(session)
    assert trade_session == SESSIONS[101]
    opens = SimulatedMarket("simulated", START).venue().opens(trade_session, ["SIM001", "SIM002", "SIM999"])
    stored = dict(everything.prices.filter(pl.col("date") == trade_session).select("symbol", "open").rows())
    assert opens == {symbol: Decimal(f"{stored[symbol]:.2f}") for symbol in ("SIM001", "SIM002")}


def test_the_delisted_have_no_open() -> None:
    market, everything = whole()
    delisting = everything.delistings.row(0, named=True)
    assert market.venue().opens(delisting["last_session"], [delisting["symbol"]])
    assert market.venue().opens(delisting["date"], [delisting["symbol"]]) == {}


@pytest.mark.parametrize("now", [datetime(2024, 1, 2, 16, tzinfo=UTC), datetime(2024, 1, 6, 9, tzinfo=UTC)])
def test_only_the_latest_session_is_open_and_for_a_day_from_any_moment(now: datetime) -> None:
    venue = whole()[0].venue()
    window = venue.window(SESSIONS[-1], SESSIONS[-1], now)
    assert window is not None
    assert (window.opens, window.closes - window.opens) == (now, timedelta(hours=24))
    assert venue.window(SESSIONS[-2], SESSIONS[-1], now) is None
    assert venue.simulated


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimulatedMarket(start=date(2024, 1, 1)), "cannot start on 2024-01-01.*2024-01-02"),
        (lambda: SimulatedMarket(stocks=3), "3 stocks is not possible; choose from 10"),
        (lambda: SimulatedMarket(seed=-1), "seed -1 is negative"),
        (lambda: whole()[0].fetch(None, [date(2017, 12, 29)]), "2017-12-29 precedes"),
        (lambda: whole()[0].fetch(None, [date(2018, 1, 6)]), "2018-01-06 is no session"),
        (lambda: whole()[0].universe(date(2017, 1, 3)), "2017-01-03 precedes"),
    ],
)
def test_impossible_markets_and_days_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput, match=message):
        make()
