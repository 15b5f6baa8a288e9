"""Plans from what is stored: what is proposed after a close is what the back-test trades to, whatever the rules."""

from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.components.backtest_days import make_backtest_days
from stockpicker_dagster.components.plans import make_plans
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.plan import PLAN_SCHEMA
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster_tests.evaluation.stored_strategies import CALENDAR, served_form
from stockpicker_dagster_tests.research.price_frames import random_market

STORED = CALENDAR.sessions(date(2021, 5, 3), date(2022, 8, 12))
SERVED = [day for day in STORED if day >= date(2022, 6, 1)]
PRICES = random_market(STORED, 12, seed=4)
STYLES = served_form().feature_set().names[:2]
BOOK = {"long": 4, "short": 4, "simulations": 3}
RULES: dict[str, dict[str, Any]] = {
    "hold band": {"hold_band": 2.0, "rebalance": "daily"},
    "sleeves": {"sleeves": 3, "rebalance": 2},
    "both": {"hold_band": 1.5, "sleeves": 2, "weights": "rank"},
    "volatility target": {"volatility_target": 0.05},
    "exposures": {"neutral": "exposures", "exposures": ["market", *STYLES], "rebalance": "daily"},
    "all of it": {
        "neutral": "exposures",
        "exposures": [STYLES[1]],
        "volatility_target": 0.08,
        "sleeves": 2,
        "hold_band": 1.3,
        "max_weight": 0.2,
    },
}


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Scores that persist, so that a band keeps names, and two styles of each stock."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    made, rng = Deployment(), np.random.default_rng(7)
    year = CALENDAR.sessions(date(2021, 1, 1), date(2022, 12, 31))
    rows = PRICES.filter(pl.col("date") >= SERVED[0]).select("symbol", "date")
    start = {symbol: rng.normal() for symbol in rows["symbol"].unique().sort()}
    score = rows["symbol"].replace_strict(start, return_dtype=pl.Float64) + pl.Series(rng.normal(0, 0.7, rows.height))
    predictions = rows.with_columns(score=score, model_id=pl.lit("m")).with_columns(
        rank=pl.col("score").rank("ordinal", descending=True).over("date").cast(pl.Int32)
    )
    styles = rows.with_columns(pl.Series(name, rng.normal(size=rows.height)) for name in STYLES)
    for table, frame, days in (
        ("simulated/prices", PRICES, STORED),
        ("simulated/delistings", pl.DataFrame(schema=DELISTINGS_SCHEMA), STORED),
        ("mine/predictions", predictions, SERVED),
        ("mine/scaled_features", styles, SERVED),
    ):
        made.lake.write_days(table, frame, days, lambda _: year, None)
    return made


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_what_is_proposed_is_what_the_back_test_trades_to(rules: dict[str, Any], deployment: Deployment) -> None:
    form, lake = served_form(backtest={**BOOK, **rules}), deployment.lake
    held = {row["date"]: row["positions"] for row in make_backtest_days("mine", form, lake, SERVED).table.to_dicts()}
    opens = {(row["symbol"], row["date"]): row["open"] for row in PRICES.iter_rows(named=True)}
    plans = make_plans("mine", form, lake, SERVED)
    assert plans["date"].n_unique() > 5
    for day, later in pairwise(SERVED):
        # One day at a time, as a daily run proposes it.
        plan = make_plans("mine", form, lake, [day])
        assert plan.equals(plans.filter(pl.col("date") == day))
        if plan.is_empty():
            continue
        # Whatever can be traded has its weight of one and the same equity.
        traded = {symbol for symbol in plan["symbol"] if opens.get((symbol, later)) is not None}
        weights = dict(plan.select("symbol", "target_weight").iter_rows())
        shares = {each["symbol"]: each["shares"] for each in held[later]}
        equities = [shares[symbol] * opens[symbol, later] / weights[symbol] for symbol in traded]
        assert equities == pytest.approx([equities[0]] * len(traded), rel=1e-9)
        # A name that a sleeve or a band keeps is planned on a day without its price, too: it is not sold for that.
        assert {symbol for symbol in shares if opens.get((symbol, later))} == traded


def test_days_before_the_first_model_have_no_plan(deployment: Deployment) -> None:
    form = served_form(backtest={**BOOK, "hold_band": 2.0})
    assert make_plans("mine", form, deployment.lake, STORED[:3]).equals(pl.DataFrame(schema=PLAN_SCHEMA))


def test_fees_by_name_are_paid_by_those_who_are_short(deployment: Deployment) -> None:
    cheap, dear = (
        make_backtest_days(
            "mine",
            served_form(backtest={**BOOK, "borrow_bps_by_name": fees}),
            deployment.lake,
            SERVED,
        ).table
        for fees in ({}, {PRICES["symbol"][0]: 5000.0})
    )
    short = pl.col("positions").list.eval(
        pl.element().struct.field("symbol").filter(pl.element().struct.field("weight") < 0)
    )
    was_short = cheap.select(short.list.contains(PRICES["symbol"][0]).shift(1).fill_null(False)).to_series()
    assert was_short.any()
    assert not was_short.all()
    more = dear["borrow"] > cheap["borrow"] * 1.5
    assert more.to_list() == was_short.to_list()
