"""The summary of a run: every figure follows from stored days, is labelled, and says where it does not exist."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import SymbolChange
from stockpicker_dagster.market.identity_records import learn
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.research.backtest.days import backtest_days
from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import MissingDays
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.summaries import StrategySummary, as_json, as_text, summarize_strategy
from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA
from stockpicker_dagster_tests.components.forms import FIXED, strategy_form
from stockpicker_dagster_tests.research.price_frames import no_delistings, random_market
from stockpicker_dagster_tests.trading.conftest import TradingDesk

CALENDAR = trading_calendar("XNYS")
SERVED = CALENDAR.sessions(date(2022, 6, 1), date(2022, 8, 31))
LAST = SERVED[-1]
PERIODS = {**FIXED, "test": [SERVED[0], SERVED[-1]]}
MARKET = {"start": date(2020, 1, 2), "stocks": 12}
FORM = strategy_form(prices=MARKET, periods=PERIODS)
RNG_RETURNS = pl.Series(0.01 * np.random.default_rng(6).normal(size=len(SERVED)))
PRICES = random_market(SERVED, 12, seed=4)
GONE, GONE_ON = "S2", CALENDAR.next_session(PRICES.filter(pl.col("symbol") == "S2")["date"][-1])
"""The stock of the random market that disappears early."""


def _predictions() -> pl.DataFrame:
    """Random scores of every stock that trades; the one that disappears is always the most attractive."""
    rng = np.random.default_rng(7)
    scored = PRICES.select("symbol", "date").with_columns(score=pl.Series(rng.normal(size=PRICES.height)))
    scored = scored.with_columns(score=pl.when(pl.col("symbol") == GONE).then(9.0).otherwise("score"))
    ranked = scored.with_columns(
        rank=pl.col("score").rank("ordinal", descending=True).over("date"),
        model_id=pl.lit("m"),
        contributions=pl.lit([], dtype=PREDICTIONS_SCHEMA["contributions"]),
    )
    return ranked.select(pl.col(name).cast(kind) for name, kind in PREDICTIONS_SCHEMA.items()).sort("date", "rank")


PREDICTIONS = _predictions()


def delisted(result: float | None) -> pl.DataFrame:
    """The stock that disappears is delisted with that return."""
    last = PRICES.filter(pl.col("symbol") == GONE)["date"][-1]
    return pl.DataFrame([(GONE, GONE_ON, last, "bankruptcy", result, GONE_ON)], schema=DELISTINGS_SCHEMA, orient="row")


def quarantined(*days: date) -> pl.DataFrame:
    """Two rejected rows on each day."""
    rows = [(symbol, day, "missing_price", "close null") for day in days for symbol in ("XX", "YY")]
    shown = pl.DataFrame(rows, schema=list(QUARANTINE_SCHEMA)[:4], orient="row")
    return pl.concat([pl.DataFrame(schema=QUARANTINE_SCHEMA), shown], how="diagonal_relaxed")


def backtest(rules: Rules, delistings: pl.DataFrame) -> pl.DataFrame:
    """The back-test of the whole span, as the asset stores it."""
    return backtest_days(PREDICTIONS, PRICES, delistings, SERVED, SERVED, rules, CALENDAR, 20, 0)


def sharpe(returns: pl.Series) -> float:
    values = returns.to_numpy()
    return float(np.sqrt(252) * values.mean() / values.std(ddof=1))


@dataclass
class Stored:
    """A state folder with a strategy's days in it."""

    deployment: Deployment

    def write(self, delistings: pl.DataFrame, predictions: pl.DataFrame = PREDICTIONS) -> None:
        tables = {
            "simulated/prices": PRICES,
            "simulated/delistings": delistings,
            "simulated/quarantine": quarantined(LAST),
            "momentum/predictions": predictions,
            "momentum/backtest_metrics": backtest(FORM.backtest.rules(), delistings),
        }
        year = CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))
        for table, frame in tables.items():
            self.deployment.lake.write_days(table, frame, SERVED, lambda _: year)

    def summary(self, session: date = LAST, form: StrategyForm = FORM, note: str = "a note") -> StrategySummary:
        return summarize_strategy("momentum", form, self.deployment, session, note)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Days with a delisting whose return is unknown; tests read them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STOCKPICKER_HOME", str(tmp_path_factory.mktemp("home")))
        place = Stored(Deployment())
        place.write(delisted(None))
        yield place


@pytest.fixture(scope="module")
def summary(stored: Stored) -> StrategySummary:
    return stored.summary()


@pytest.fixture
def own(tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Callable[[pl.DataFrame], Stored]:
    """Stores days with other delistings, in a state folder of the test's own."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))

    def write(delistings: pl.DataFrame) -> Stored:
        place = Stored(Deployment())
        place.write(delistings)
        return place

    return write


def strict(summary: StrategySummary) -> dict[str, object]:
    """The document after a round trip through JSON that knows no NaN."""
    document = as_json(summary, ["stockpicker up"])
    parsed = json.loads(json.dumps(document, allow_nan=False))
    assert parsed == document
    assert isinstance(parsed, dict)
    return parsed


def test_simulated_results_say_so_in_both_forms(summary: StrategySummary) -> None:
    assert "simulated market" in strict(summary)["caveats"]  # type: ignore[operator]
    assert as_text(summary).splitlines()[:2] == [
        "momentum, after the close of 2022-08-31",
        "CAVEAT: simulated market",
    ]


def test_hand_picked_symbols_are_a_caveat_beside_that_of_the_prices(stored: Stored) -> None:
    form = strategy_form(prices=MARKET, periods=PERIODS, universe={"symbols": ["S0", "S1"]})
    caveats = stored.summary(form=form).caveats
    assert len(caveats) == 3
    assert "today's knowledge" in caveats[1]


def test_every_back_test_says_whether_its_universe_was_known_on_the_day(
    stored: Stored, summary: StrategySummary
) -> None:
    assert strict(summary)["universe"] == {
        "name": "simulated",
        "point_in_time": True,
        "point_in_time_since": None,
    }
    assert "universe simulated: point in time" in as_text(summary)
    picked = stored.summary(form=strategy_form(prices=MARKET, periods=PERIODS, universe={"symbols": ["S0", "S1"]}))
    assert "universe symbols: not point in time" in as_text(picked)
    assert picked.survivorship is not None
    assert picked.survivorship.compared in as_text(picked)


def test_the_verdict_comes_first_with_its_reason_and_looking_at_it_is_one_trial(
    own: Callable[[pl.DataFrame], Stored],
) -> None:
    place = own(no_delistings())
    seen = [place.summary() for _ in range(3)]
    judgement = seen[-1].judgement
    assert judgement is not None
    assert judgement.verdict is not None
    assert judgement.verdict.trials == 1
    block = as_text(seen[-1]).split("\n\n")
    told = next(lines for lines in block if lines.startswith("verdict: ")).splitlines()
    assert told[:2] == [f"verdict: {judgement.verdict.words}", f"  {judgement.verdict.reason}"]
    assert "1 trial on this universe so far" in told[2]
    assert any(line.startswith("back-test 2022-06-01 to 2022-08-31") for line in told)
    document = strict(seen[-1])
    assert document["verdict"]["words"] == judgement.verdict.words  # type: ignore[index]
    assert document["no_verdict"] == ""
    other = strategy_form(prices=MARKET, periods=PERIODS, label={"horizon_days": 4})
    again = place.summary(form=other).judgement
    assert again is not None
    assert again.verdict is not None
    assert again.verdict.trials == 2


def test_too_few_sessions_have_no_verdict_and_it_is_said(stored: Stored) -> None:
    short = stored.summary(SERVED[20])
    assert "verdict: none, 21 sessions are too few to be judged; 42 are needed" in as_text(short)
    document = strict(short)
    assert document["verdict"] is None
    assert document["no_verdict"] == "21 sessions are too few to be judged; 42 are needed"


def test_rows_in_quarantine_are_a_caveat_of_their_session_by_reason(stored: Stored) -> None:
    assert f"price rows of {LAST} in quarantine: 2 missing_price" in stored.summary().caveats
    assert not any("quarantine" in caveat for caveat in stored.summary(SERVED[-2]).caveats)


def test_a_figure_that_does_not_exist_is_null_and_never_nan(stored: Stored, summary: StrategySummary) -> None:
    """One day gives no deviation, and no return is known after it."""
    short = stored.summary(SERVED[0])
    assert short.backtest is not None
    assert np.isnan(short.backtest.performance.net_sharpe)
    document = strict(short)
    assert document["backtest"]["net_sharpe"] is None  # type: ignore[index]
    assert document["signal"] is None
    whole = strict(summary)["backtest"]
    assert whole["net_sharpe"] == pytest.approx(sharpe(backtest(FORM.backtest.rules(), delisted(None))["net_return"]))  # type: ignore[index]
    assert as_text(short)


def test_the_ranking_shows_both_ends_best_first_and_worst_first(summary: StrategySummary) -> None:
    document = strict(summary)
    names = PREDICTIONS.filter(pl.col("date") == LAST).sort("rank")["symbol"].to_list()
    assert [each["symbol"] for each in document["most_undervalued"]] == names[:10]  # type: ignore[attr-defined]
    assert [each["symbol"] for each in document["most_overvalued"]] == names[::-1][:10]  # type: ignore[attr-defined]
    assert f"{len(names)} stocks ranked" in as_text(summary)
    line = next(line for line in as_text(summary).splitlines() if line.split()[:1] == ["1"])
    assert line.split()[1] == names[0]
    assert line.split()[4] == names[-1]


def test_a_stock_that_trades_under_another_ticker_than_its_id_shows_both(own: Callable[[pl.DataFrame], Stored]) -> None:
    learn(Deployment().lake, FORM.prices.key, [SymbolChange("S1", "META", SERVED[10])])
    summary = own(delisted(None)).summary()
    assert summary.tickers == {"S1": "META"}
    assert "META (S1)" in as_text(summary)
    assert strict(summary)["tickers"] == {"S1": "META"}


def test_the_signal_is_measured_on_returns_that_are_known_by_the_session(stored: Stored) -> None:
    """Scored at the close, entered at the next open, left five sessions later."""
    quality = stored.summary(SERVED[20]).quality
    assert quality is not None
    assert quality.days == 20 + 1 - 6


@pytest.mark.parametrize("offset", [0, 2])
def test_each_rebalance_offset_is_the_back_test_decided_on_that_weekday(summary: StrategySummary, offset: int) -> None:
    assert [each.offset for each in summary.offsets] == [0, 1, 2, 3, 4]
    days = backtest(replace(FORM.backtest.rules(), rebalance_offset=offset), delisted(None))
    assert summary.offsets[offset].net_sharpe == pytest.approx(sharpe(days["net_return"]), rel=1e-12)
    assert summary.offsets[offset].gross_sharpe == pytest.approx(sharpe(days["gross_return"]), rel=1e-12)
    shown = f"{offset}: {sharpe(days['gross_return']):.2f}/{sharpe(days['net_return']):.2f}"
    assert shown in as_text(summary)
    assert len({round(each.net_sharpe, 6) for each in summary.offsets}) > 1


def test_unknown_delisting_returns_are_shown_at_0_and_at_minus_30_percent(summary: StrategySummary) -> None:
    """As if the source had known each to be that."""
    assert summary.delistings is not None
    at_zero, at_minus_30 = (
        sharpe(backtest(FORM.backtest.rules(), delisted(assumed))["net_return"]) for assumed in (0.0, -0.3)
    )
    assert summary.delistings.unknown == 1
    assert summary.delistings.net_sharpe_at_zero == pytest.approx(at_zero, rel=1e-12)
    assert summary.delistings.net_sharpe_at_minus_30 == pytest.approx(at_minus_30, rel=1e-12)
    assert at_minus_30 < at_zero - 0.1
    assert f"{at_zero:.2f} if each is 0, {at_minus_30:.2f} if each is -30 %" in as_text(summary)
    assert strict(summary)["unknown_delistings"] == {
        "unknown": 1,
        "net_sharpe_at_zero": summary.delistings.net_sharpe_at_zero,
        "net_sharpe_at_minus_30": summary.delistings.net_sharpe_at_minus_30,
    }


def test_known_delisting_returns_leave_nothing_to_assume(own: Callable[[pl.DataFrame], Stored]) -> None:
    for delistings in (delisted(-0.5), no_delistings()):
        known = own(delistings).summary()
        assert known.delistings is None
        assert "have no known return" not in as_text(known)
        assert strict(known)["unknown_delistings"] is None


@pytest.mark.parametrize("note", ["no proposal: trading is halted", "trading is halted"])
def test_the_reason_why_nothing_is_proposed_is_told_once(stored: Stored, note: str) -> None:
    without = stored.summary(note=note)
    assert as_text(without).splitlines()[-1] == "No rebalance is proposed: trading is halted."
    assert strict(without)["proposal"] is None
    assert strict(without)["no_proposal"] == note


def test_the_proposal_of_the_session_is_named_with_its_orders(own: Callable[[pl.DataFrame], Stored]) -> None:
    place = own(no_delistings())
    desk = TradingDesk(place.deployment.database, session=LAST, now=datetime(2022, 9, 1, 1, 15, tzinfo=UTC))
    targets, thin = {"AAA": 0.5, "BBB": -0.5}, {"AAA": 9_500.0, "BBB": 1e9}
    identity = desk.propose(targets, {"AAA": 50.0, "BBB": 20.0}, volumes=thin).id
    proposed = place.summary()
    document, text = strict(proposed), as_text(proposed)
    assert document["no_proposal"] == ""
    assert document["proposal"]["id"] == identity  # type: ignore[index]
    assert f"proposed rebalance {identity}: 2 orders for account 'paper' (paper)" in text
    assert "nothing is sent before" in text
    assert "  Less is opened than planned, for the limit `volume_share` of 0.1 of a mean day: AAA\n" in text
    # 100,000 of equity, less what is kept back for costs.
    orders = {each["symbol"]: each for each in document["proposal"]["orders"]}  # type: ignore[index]
    assert (orders["AAA"]["side"], orders["BBB"]["side"]) == ("buy", "short")
    assert 900 < int(orders["AAA"]["quantity"]) <= 1000
    assert all(f"{each['quantity']:>8} {symbol}" in text for symbol, each in orders.items())
    # Neither another strategy's nor another session's.
    assert summarize_strategy("momentum", FORM, place.deployment, SERVED[-2]).proposal is None
    place.deployment.lake.write_days(
        "other/predictions", PREDICTIONS, SERVED, lambda _: CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))
    )
    place.deployment.lake.write_days(
        "other/backtest_metrics",
        backtest(FORM.backtest.rules(), no_delistings()),
        SERVED,
        lambda _: CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31)),
    )
    assert summarize_strategy("other", FORM, place.deployment, LAST).proposal is None


def test_before_the_first_model_there_is_no_ranking_and_no_back_test(stored: Stored) -> None:
    early = date(2022, 5, 31)
    for table, empty in (("momentum/predictions", PREDICTIONS.clear()), ("simulated/quarantine", quarantined())):
        stored.deployment.lake.write_days(
            table, empty, [early], lambda _: CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))
        )
    summary = stored.summary(early, note="the first model serves later")
    text = as_text(summary)
    assert "No stock is ranked" in text
    assert "No back-test yet" in text
    document = strict(summary)
    assert (document["backtest"], document["signal"], document["most_undervalued"]) == (None, None, [])
    assert document["caveats"] == ["simulated market"]


def test_days_that_were_never_stored_are_an_error(stored: Stored) -> None:
    with pytest.raises(MissingDays, match="momentum/predictions was never materialized for 2022-09-01"):
        stored.summary(date(2022, 9, 1))


def test_a_benchmark_changes_no_definition_and_is_reported_or_why_it_is_not(stored: Stored, tmp_path: Path) -> None:
    own = stored.deployment.lake.read("momentum/backtest_metrics", SERVED)
    file = tmp_path / "market.csv"
    own.select("date", mkt=pl.col("net_return") / 2.0, smb=pl.lit(RNG_RETURNS)).write_csv(file)
    beside = strategy_form(
        prices=MARKET, periods=PERIODS, reference={"file": str(file), "benchmark": "mkt", "factors": ["mkt", "smb"]}
    )
    for asset in ("predictions", "backtest_metrics", "rebalance_orders"):
        assert beside.definition(asset) == FORM.definition(asset)
    assert beside.trial_digest == FORM.trial_digest
    summary = stored.summary(form=beside)
    assert strict(summary)["reference"]["benchmark"]["beta"] == pytest.approx(2.0)
    assert strict(summary)["reference"]["factors"]["betas"] == pytest.approx({"mkt": 2.0, "smb": 0.0}, abs=1e-9)
    assert "against mkt, 2022-06-01 to 2022-08-31: beta 2.00" in as_text(summary)
    file.unlink()
    assert "does not exist" in as_text(stored.summary(form=beside))
    assert strict(stored.summary())["reference"] is None


def test_risk_and_capacity_are_in_the_summary(summary: StrategySummary) -> None:
    assert summary.capacity is not None
    assert summary.backtest is not None
    assert strict(summary)["capacity"]["break_even"] == summary.capacity.break_even
    assert strict(summary)["backtest"]["sortino"] == summary.backtest.risk.sortino
    assert "worst days (5 %)" in as_text(summary)
    assert "  capacity: " in as_text(summary)
