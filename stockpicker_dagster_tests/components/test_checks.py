"""The checks fail on each thing that they promise, and pass otherwise."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.feature_view import DayFigures
from stockpicker_dagster.market.quality import Refusal

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
    table = pl.DataFrame({"date": [DAY, DAY], "x": [1.0, value], "y": [1.0, 2.0]})
    assert checks.finite_or_null(DayFigures.of(table, ["x", "y"])).passed is raw
    assert checks.complete_and_finite(table, ["x", "y"]).passed is scaled


STOCKS = 24


def figures(columns: dict[str, Callable[[int], Any]], sessions: int = 8) -> tuple[DayFigures, list[date]]:
    """Figures of columns given as functions of a number that counts the stocks of one session after the other."""
    days = [DAY + timedelta(days=number) for number in range(sessions)]
    rows = [
        {"date": day, **{name: value(number * STOCKS + stock) for name, value in columns.items()}}
        for number, day in enumerate(days)
        for stock in range(STOCKS)
    ]
    return DayFigures.of(pl.DataFrame(rows, infer_schema_length=None), list(columns)), days


def test_coverage_that_collapses_for_all_columns_blocks_and_for_one_alone_warns() -> None:
    late = 6 * STOCKS
    both, days = figures({"x": lambda n: float(n) if n < late else None, "y": lambda n: float(n) if n < late else None})
    one, _ = figures({"x": lambda n: float(n) if n < late else None, "y": float, "z": float})
    steady, _ = figures({"x": float, "y": float})
    assert checks.coverage_holds(steady, days).passed
    blocked, warned = checks.coverage_holds(both, days), checks.coverage_holds(one, days)
    assert not blocked.passed
    assert blocked.severity is dg.AssetCheckSeverity.ERROR
    assert blocked.metadata["first"].value.startswith(f"x on {days[6]}")
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert checks.coverage_holds(both, days[:6]).passed


def test_coverage_that_grows_or_was_never_there_does_not_fail() -> None:
    growing, days = figures({"x": lambda n: float(n) if n >= 3 * STOCKS else None})
    rare, _ = figures({"x": lambda n: float(n) if n % STOCKS < 4 and n < 6 * STOCKS else None})
    assert checks.coverage_holds(growing, days).passed
    assert checks.coverage_holds(rare, days).passed


def test_a_column_that_is_one_number_for_five_sessions_fails_and_for_four_does_not() -> None:
    five, days = figures({"x": lambda n: 7.0 if n >= 3 * STOCKS else float(n), "y": float})
    four, _ = figures({"x": lambda n: 7.0 if n >= 4 * STOCKS else float(n)})
    steps, _ = figures({"x": lambda n: float(n // STOCKS)})
    result = checks.columns_vary(five, days)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert result.metadata["first"].value == str({"x": str(days[7])})
    assert checks.columns_vary(five, days[:7]).passed
    assert checks.columns_vary(four, days).passed
    assert checks.columns_vary(steps, days).passed


def test_a_column_that_is_zero_throughout_warns_and_one_that_scaling_made_zero_blocks() -> None:
    unpaid, days = figures({"yield": lambda n: 0.0, "y": float})
    both, _ = figures({"yield": lambda n: 0.0, "y": lambda n: 7.0})
    warned, blocked = checks.columns_vary(unpaid, days), checks.columns_vary(both, days)
    assert not warned.passed
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert warned.metadata["first"].value == str({"yield": str(days[4])})
    assert not blocked.passed
    assert blocked.severity is dg.AssetCheckSeverity.ERROR
    # Named is the column that blocks.
    assert blocked.metadata["first"].value == str({"y": str(days[4])})
    scaled, _ = figures({"yield": lambda n: 0.0, "y": lambda n: 0.0})
    assert checks.columns_vary(scaled, days, raw=unpaid).severity is dg.AssetCheckSeverity.ERROR
    assert checks.columns_vary(scaled, days, raw=scaled).severity is dg.AssetCheckSeverity.WARN


def test_a_column_without_values_is_not_constant() -> None:
    empty, days = figures({"x": lambda n: None if n % STOCKS < 10 else 1.0})
    assert checks.columns_vary(empty, days).passed


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
    "impact": 0.0005,
    "borrow": 0.003,
    "net_return": 0.0235,
}


@pytest.mark.parametrize("broken", [{"equity": 0.0}, {"net_return": 0.03}, {"borrow": float("nan")}, {"spread": None}])
def test_a_net_return_that_its_costs_do_not_explain_fails(broken: dict[str, Any]) -> None:
    assert checks.equity_adds_up(frame(BOOK)).passed
    assert not checks.equity_adds_up(frame(BOOK, {**BOOK, **broken})).passed


LEGS = [
    {"date": DAY, "target_weight": 1.0, "score": 0.5, "reference_price": 2.0},
    {"date": DAY, "target_weight": -1.0, "score": -0.5, "reference_price": 3.0},
]


@pytest.mark.parametrize(
    "broken",
    [{"target_weight": -1.1}, {"reference_price": 0.0}, {"reference_price": None}, {"target_weight": 0.5}],
)
def test_a_leg_that_weighs_more_than_the_equity_or_has_no_price_fails(broken: dict[str, Any]) -> None:
    assert checks.legs_balance(frame(*LEGS), 1.0).passed
    assert not checks.legs_balance(frame(LEGS[0], {**LEGS[1], **broken}), 1.0).passed
    kept = {**LEGS[1], "score": None, "reference_price": None}
    assert checks.legs_balance(frame(LEGS[0], kept), 1.0).passed


def test_warnings_never_block_and_everything_else_does() -> None:
    specs = checks.specs(dg.AssetKey("a"), checks.PRICES)
    assert {spec.name: spec.blocking for spec in specs} == {
        "contract_holds": True,
        "whole_sessions": True,
        "stored_past_confirmed": False,
        "members_have_prices": False,
        "no_empty_sessions": False,
        "every_symbol_asked_for": False,
    }


def test_a_refused_session_a_restated_past_and_lacking_members_fail_and_say_which() -> None:
    assert checks.whole_sessions([]).passed
    refused = checks.whole_sessions([Refusal(DAY, "it has 3 rows where 40 are usual")])
    assert not refused.passed
    assert refused.severity is dg.AssetCheckSeverity.ERROR
    assert "2024-01-02: it has 3 rows" in str(refused.metadata["first"].value)

    none = pl.DataFrame({"detail": []}, schema={"detail": pl.String})
    assert checks.stored_past_confirmed(None, none).passed
    assert checks.stored_past_confirmed(DAY, none).passed
    for result in (
        checks.stored_past_confirmed(DAY, none, "the source did not answer"),
        checks.stored_past_confirmed(DAY, pl.DataFrame({"detail": ["of 2024-01-02: close 1 -> 2"]})),
        checks.members_have_prices({"one": 0.99, "two": 0.5}),
    ):
        assert not result.passed
        assert result.severity is dg.AssetCheckSeverity.WARN
    assert checks.members_have_prices({"one": 0.99}).passed
