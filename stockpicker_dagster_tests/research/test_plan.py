"""The plan: legs that balance, on deciding days alone, from that day's scores and closes."""

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster.research.plan import PLAN_SCHEMA, plan_rebalance
from stockpicker_dagster_tests.research.price_frames import START as FIRST
from stockpicker_dagster_tests.research.price_frames import random_market, same_bytes, sessions

DAYS = sessions(FIRST, FIRST.replace(month=4))
PRICES = random_market(DAYS, 12, seed=3)


def _predictions() -> pl.DataFrame:
    rng = np.random.default_rng(5)
    rows = PRICES.select("symbol", "date")
    return rows.with_columns(
        score=pl.Series(rng.normal(size=rows.height)),
        rank=pl.lit(1, pl.Int32),
        model_id=pl.lit("m"),
    )


PREDICTIONS = _predictions()
WEEKLY = np.array([number % 5 == 4 for number in range(len(DAYS))])


def test_only_deciding_days_have_a_plan_and_both_legs_are_whole() -> None:
    plan = plan_rebalance(PREDICTIONS, PRICES, DAYS, DAYS, WEEKLY, Rules(3, 2))
    assert dict(plan.schema) == PLAN_SCHEMA
    assert plan["date"].unique().sort().to_list() == [day for day, decides in zip(DAYS, WEEKLY, strict=True) if decides]
    for _, legs in plan.group_by("date"):
        weights = legs["target_weight"]
        assert weights.filter(weights > 0).to_list() == pytest.approx([1 / 3] * 3)
        assert weights.filter(weights < 0).to_list() == pytest.approx([-1 / 2] * 2)


def test_the_best_scores_are_held_long_and_the_worst_short_at_that_days_close() -> None:
    day = DAYS[4]
    plan = plan_rebalance(PREDICTIONS, PRICES, DAYS, DAYS, WEEKLY, Rules(3, 2)).filter(pl.col("date") == day)
    ranked = PREDICTIONS.filter(pl.col("date") == day).sort("score", descending=True)["symbol"].to_list()
    assert set(plan.filter(pl.col("target_weight") > 0)["symbol"]) == set(ranked[:3])
    assert set(plan.filter(pl.col("target_weight") < 0)["symbol"]) == set(ranked[-2:])
    closes = dict(PRICES.filter(pl.col("date") == day).select("symbol", "close").iter_rows())
    assert dict(plan.select("symbol", "reference_price").iter_rows()) == {name: closes[name] for name in plan["symbol"]}


def test_a_range_and_its_days_give_the_same_plans_whatever_comes_later() -> None:
    whole = plan_rebalance(PREDICTIONS, PRICES, DAYS, DAYS, WEEKLY, Rules(0.25, 0.25, "score"))
    daily = [
        plan_rebalance(
            PREDICTIONS.filter(pl.col("date") == day).reverse(),
            PRICES.filter(pl.col("date") <= day),
            [day],
            [day],
            WEEKLY[number : number + 1],
            Rules(0.25, 0.25, "score"),
        )
        for number, day in enumerate(DAYS)
    ]
    assert same_bytes(whole, pl.concat(daily))


def test_a_name_that_is_kept_stays_in_the_plan_on_a_day_it_does_not_trade() -> None:
    everyday, day = np.ones(len(DAYS), dtype=bool), DAYS[5]
    plan = plan_rebalance(PREDICTIONS, PRICES, DAYS, DAYS, everyday, Rules(3, 2))
    kept = plan.filter(pl.col("date") == DAYS[4])["symbol"][0]
    priced = PRICES.filter(~((pl.col("date") == day) & (pl.col("symbol") == kept)))
    halted = plan_rebalance(PREDICTIONS, priced, DAYS, DAYS, everyday, Rules(3, 2, sleeves=2)).filter(
        (pl.col("date") == day) & (pl.col("symbol") == kept)
    )
    assert halted["target_weight"].abs()[0] > 0.0
    assert halted.select("score", "rank", "reference_price").null_count().row(0) == (1, 1, 1)


def test_a_stock_without_a_close_on_the_day_is_not_chosen() -> None:
    day = DAYS[4]
    best = PREDICTIONS.filter(pl.col("date") == day).sort("score")["symbol"][-1]
    priced = PRICES.filter(~((pl.col("date") == day) & (pl.col("symbol") == best)))
    plan = plan_rebalance(PREDICTIONS, priced, DAYS, DAYS, WEEKLY, Rules(3, 2)).filter(pl.col("date") == day)
    assert best not in plan["symbol"].to_list()
    assert plan.height == 5


def test_days_without_scores_decide_nothing() -> None:
    everyday = np.ones(len(DAYS), dtype=bool)
    plan = plan_rebalance(PREDICTIONS.clear(), PRICES, DAYS, DAYS, everyday, Rules(3, 2))
    assert plan.is_empty()
    assert dict(plan.schema) == PLAN_SCHEMA
