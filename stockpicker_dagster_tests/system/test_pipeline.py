"""A strategy from prices to a summary, in the shape of the quickstart: what it shows is whole, labelled, and true."""

import json
from datetime import date

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from stockpicker_dagster.market.sources.simulated import simulated_market
from stockpicker_dagster.summaries import as_json, as_text, summarize_strategy
from stockpicker_dagster_tests.system.pipelines import CALENDAR, END, START, TEST, Pipeline, simulated_form

pytestmark = pytest.mark.xdist_group("pipelines")

SERVED = CALENDAR.sessions(TEST[0], END)


def test_every_stock_listed_on_a_day_is_ranked_on_it(simulated_run: Pipeline) -> None:
    prices = simulated_run.form.prices
    universe = simulated_market(prices.key, prices.start, prices.stocks, prices.seed).universe(END)
    predictions = simulated_run.lake.read("invented/predictions", SERVED)
    traded = simulated_run.lake.read(simulated_run.prices, SERVED)
    for day in SERVED:
        ranked = predictions.filter(pl.col("date") == day)
        expected = set(universe.members(day)) & set(traded.filter(pl.col("date") == day)["symbol"])
        assert set(ranked["symbol"]) == expected
        assert ranked["rank"].to_list() == list(range(1, len(expected) + 1))
        assert abs(ranked["score"].mean()) < 1e-12


def test_the_summary_covers_the_run_and_says_that_it_is_simulated(simulated_run: Pipeline) -> None:
    with simulated_run.at_home() as deployment:
        summary = summarize_strategy("invented", simulated_run.form, deployment, END)
    text, document = as_text(summary), as_json(summary, ["next"])
    assert "simulated" in text.splitlines()[1]
    assert any("simulated" in caveat for caveat in document["caveats"])
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["backtest"]["first"], document["backtest"]["last"]) == (str(SERVED[0]), str(SERVED[-1]))
    assert document["backtest"]["sessions"] == len(SERVED)
    assert document["backtest"]["random_books"]["books"] == simulated_run.form.backtest.simulations
    ranking = simulated_run.lake.read("invented/predictions", [END])["symbol"].to_list()
    assert [each["symbol"] for each in document["most_undervalued"]] == ranking[:10]
    assert [each["symbol"] for each in document["most_overvalued"]] == ranking[:-11:-1]
    assert all(symbol in text for symbol in (*ranking[:10], *ranking[-10:]))
    assert document["proposal"]["id"] in text


def test_the_stored_back_test_is_what_its_own_days_compound_to(simulated_run: Pipeline) -> None:
    days = simulated_run.lake.read("invented/backtest_metrics", SERVED)
    capital = simulated_run.form.backtest.capital
    np.testing.assert_allclose(days["equity"], capital * np.cumprod(1 + days["net_return"].to_numpy()), rtol=1e-12)
    assert days["date"].to_list() == SERVED


@pytest.fixture(scope="module")
def large_market(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Many stocks for few months, which a planted alpha of basis points needs to be seen."""
    form = simulated_form(
        prices={"source": "simulated", "start": START, "stocks": 600, "seed": 5},
        features={"set": "short", "names": ["reversal_1w", "reversal_1m", "volatility_1m"]},
        label={"horizon_days": 1, "transform": "rank"},
    )
    pipeline = Pipeline(tmp_path_factory.mktemp("large"), {"invented": form})
    last = date(2023, 1, 13)
    pipeline.collect(START, last)
    pipeline.train()
    pipeline.materialize(["invented/predictions"], TEST[0], last)
    return pipeline


def test_scores_recover_the_alpha_that_was_planted(large_market: Pipeline) -> None:
    prices = large_market.form.prices
    market = simulated_market(prices.key, prices.start, prices.stocks, prices.seed)
    correlations = []
    for day in CALENDAR.sessions(TEST[0], date(2023, 1, 13)):
        scores = dict(large_market.lake.read("invented/predictions", [day]).select("symbol", "score").iter_rows())
        expected = market.expected_returns(day)
        known = sorted(set(scores) & set(expected))
        correlations.append(spearmanr([scores[name] for name in known], [expected[name] for name in known]).statistic)
    # Noise alone is within 0.1 of nothing on every one of these days.
    assert min(correlations) > 0.3
