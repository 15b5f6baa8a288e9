"""The checks fail on each thing that they promise, and pass otherwise."""

from datetime import date
from typing import Any

import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster.components import checks

DAY, NEXT = date(2024, 1, 2), date(2024, 1, 3)
PRICE = {
    "symbol": "A",
    "date": DAY,
    "open": 2.0,
    "high": 3.0,
    "low": 1.0,
    "close": 2.0,
    "volume": 0.0,
    "adjustment": 1.0,
}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), infer_schema_length=None)


@pytest.mark.parametrize(
    "broken",
    [
        {"open": 0.0},
        {"close": None},
        {"low": float("nan")},
        {"high": float("inf")},
        {"high": 0.5},
        {"volume": -1.0},
        {"adjustment": 0.0},
        {"adjustment": float("nan")},
        {"adjustment": float("inf")},
    ],
)
def test_prices_that_break_the_contract_fail(broken: dict[str, Any]) -> None:
    sound = frame(PRICE, {**PRICE, "symbol": "B"})
    assert checks.contract_holds(sound).passed
    result = checks.contract_holds(
        pl.concat([sound, frame({**PRICE, "symbol": "C", **broken})], how="vertical_relaxed")
    )
    assert not result.passed
    assert "'C'" in str(result.metadata["first"].value)


def test_a_twin_fails() -> None:
    assert not checks.contract_holds(frame(PRICE, PRICE)).passed


def test_an_empty_session_is_a_warning_that_names_it() -> None:
    assert checks.no_empty_sessions(frame(PRICE), [DAY]).passed
    result = checks.no_empty_sessions(frame(PRICE), [DAY, NEXT])
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert result.metadata["first"].value == str(NEXT)


def test_days_never_asked_for_a_symbol_are_a_warning_that_says_what_to_backfill() -> None:
    assert checks.every_symbol_asked_for({}).passed
    result = checks.every_symbol_asked_for({NEXT: ["B"], DAY: ["B"]})
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert result.metadata["backfill"].value == f"{DAY} to {NEXT}"
    assert result.metadata["symbols"].value == "B"


@pytest.mark.parametrize(
    ("value", "raw", "scaled"),
    [(1.0, True, True), (None, True, False), (float("nan"), False, False), (float("inf"), False, False)],
)
def test_features_may_be_null_but_never_infinite_and_scaled_ones_neither(
    value: float | None, raw: bool, scaled: bool
) -> None:
    table = pl.DataFrame({"x": [1.0, value], "y": [1.0, 2.0]})
    assert checks.finite_or_null(table, ["x", "y"]).passed is raw
    assert checks.complete_and_finite(table, ["x", "y"]).passed is scaled


RANKED = [{"date": DAY, "rank": 2, "score": -1.0}, {"date": DAY, "rank": 1, "score": 1.0}]


@pytest.mark.parametrize("broken", [{"rank": 3}, {"rank": 1}, {"score": 2.0}, {"score": float("nan")}])
def test_ranks_that_are_not_the_order_of_the_scores_fail(broken: dict[str, Any]) -> None:
    assert checks.every_member_ranked(frame(*RANKED)).passed
    assert not checks.every_member_ranked(frame({**RANKED[0], **broken}, RANKED[1])).passed


BOOK = {
    "date": DAY,
    "equity": 1.0,
    "gross_return": 0.02,
    "interest": 0.01,
    "commission": 0.001,
    "spread": 0.002,
    "borrow": 0.003,
    "net_return": 0.024,
}


@pytest.mark.parametrize("broken", [{"equity": 0.0}, {"net_return": 0.03}, {"borrow": float("nan")}, {"spread": None}])
def test_a_net_return_that_its_costs_do_not_explain_fails(broken: dict[str, Any]) -> None:
    assert checks.equity_adds_up(frame(BOOK)).passed
    assert not checks.equity_adds_up(frame(BOOK, {**BOOK, **broken})).passed


LEGS = [
    {"date": DAY, "target_weight": 1.0, "reference_price": 2.0},
    {"date": DAY, "target_weight": -1.0, "reference_price": 3.0},
]


@pytest.mark.parametrize(
    "broken",
    [{"target_weight": -1.1}, {"reference_price": 0.0}, {"reference_price": None}, {"target_weight": 0.5}],
)
def test_a_leg_that_weighs_more_than_the_equity_or_has_no_price_fails(broken: dict[str, Any]) -> None:
    assert checks.legs_balance(frame(*LEGS)).passed
    assert not checks.legs_balance(frame(LEGS[0], {**LEGS[1], **broken})).passed


def test_warnings_never_block_and_everything_else_does() -> None:
    specs = checks.specs(dg.AssetKey("a"), checks.PRICES)
    assert {spec.name: spec.blocking for spec in specs} == {
        "contract_holds": True,
        "no_empty_sessions": False,
        "every_symbol_asked_for": False,
    }
