from datetime import date, timedelta
from math import log

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.fundamentals.statements import STATEMENTS_SCHEMA
from stockpicker_dagster.research.features import FeatureSet, Panel, compute, feature, feature_set
from stockpicker_dagster.research.features import fundamental_factors as own
from stockpicker_dagster_tests.research.price_frames import (
    CALENDAR,
    START,
    prices_from,
    random_market,
    same_bytes,
    sessions,
)

MULTI_FACTOR = feature_set("multi_factor")
FUNDAMENTAL = FeatureSet.of("own", [each for each in MULTI_FACTOR.features if each.fundamentals])
DAYS = sessions(START, date(2020, 3, 31))
TODAY = DAYS[-1]

STATEMENT: dict[str, object] = {
    "symbol": "A",
    "known_at": date(2020, 2, 20),
    "period_end": date(2019, 12, 31),
    "assets": 2000.0,
    "assets_a_year_ago": 1600.0,
    "stockholders_equity": 700.0,
    "deferred_taxes": 50.0,
    "preferred_stock": 100.0,
    "revenue": 900.0,
    "cost_of_revenue": 500.0,
    "selling_and_administration": 120.0,
    "interest_expense": 30.0,
    "net_income": 65.0,
    "operating_cash_flow": 90.0,
    "shares": 40.0,
    "shares_as_of": date(2020, 2, 14),
    "shares_a_year_ago": 22.0,
    "shares_a_year_ago_as_of": date(2019, 2, 15),
}


def statement(**changes: object) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(STATEMENTS_SCHEMA) | STATEMENT | changes], schema=STATEMENTS_SCHEMA)


def market(splits: dict[date, float] | None = None) -> pl.DataFrame:
    """One stock at 25 on the last day, with splits on the days named."""
    ratio = np.array([(splits or {}).get(day, 1.0) for day in DAYS])
    later = np.cumprod(ratio[::-1])[::-1] / ratio
    return prices_from("A", DAYS, 25.0 * later, split_ratio=ratio, adjustment=ratio)


def factors_of(statements: pl.DataFrame, prices: pl.DataFrame | None = None) -> dict[str, float | None]:
    prices = market() if prices is None else prices
    found = compute(FUNDAMENTAL, prices, [TODAY], CALENDAR, START, statements=statements)
    return found.drop("symbol", "date").row(0, named=True)


# By hand: market equity 25 x 40 = 1000, book equity 700 + 50 - 100 = 650 ----------------------------------------------

BY_HAND = {
    "book_to_market": 650 / 1000,
    "earnings_to_price": 65 / 1000,
    "cash_flow_to_price": 90 / 1000,
    "sales_to_price": 900 / 1000,
    "return_on_equity": 65 / 650,
    "gross_profitability": (900 - 500) / 2000,
    "operating_profitability": (900 - 500 - 120 - 30) / 650,
    "accruals": (65 - 90) / 1800,
    "asset_growth": 2000 / 1600 - 1,
    "net_share_issuance": log(40 / 22),
    "size": log(1000),
    "leverage": (2000 - (700 - 100)) / 1000,
}


def test_every_factor_is_its_formula() -> None:
    assert set(BY_HAND) == set(FUNDAMENTAL.names)
    found = factors_of(statement())
    for name, expected in BY_HAND.items():
        assert found[name] == pytest.approx(expected, rel=1e-6), name


def test_a_split_between_count_and_price_changes_nothing() -> None:
    # Two for one after both counts: 80 shares at 25 today, 44 a year ago.
    split = factors_of(statement(), market({date(2020, 3, 2): 2.0}))
    assert split["size"] == pytest.approx(log(25 * 80))
    assert split["net_share_issuance"] == pytest.approx(BY_HAND["net_share_issuance"])
    assert split["book_to_market"] == pytest.approx(650 / 2000)
    # Between the counts only the older one is adjusted; on the day of a count it is in that count already.
    between = factors_of(statement(), market({date(2019, 8, 5): 1.5}))
    assert between["size"] == pytest.approx(log(1000))
    assert between["net_share_issuance"] == pytest.approx(log(40 / 33))
    on_the_day = factors_of(statement(), market({date(2020, 2, 14): 2.0}))
    assert on_the_day["size"] == pytest.approx(log(1000))
    assert on_the_day["net_share_issuance"] == pytest.approx(log(40 / 44))


def test_a_count_from_before_the_prices_is_not_adjusted_by_guess() -> None:
    found = factors_of(statement(shares_a_year_ago_as_of=START - timedelta(days=1)))
    assert found["net_share_issuance"] is None
    assert found["size"] is not None


@pytest.mark.parametrize("figure", sorted({figure for each in FUNDAMENTAL.features for figure in each.fundamentals}))
def test_a_factor_without_a_figure_that_it_must_have_is_absent(figure: str) -> None:
    optional = {"deferred_taxes", "preferred_stock", "minority_interest", "total_equity", "gross_profit"}
    optional |= {"selling_and_administration", "interest_expense"}
    found = factors_of(statement(**{figure: None}))
    for each in FUNDAMENTAL.features:
        needs = figure in each.fundamentals and figure not in optional
        needs = needs and not (figure == "cost_of_revenue" and each.name == "operating_profitability")
        assert (found[each.name] is None) == needs, each.name


def test_nothing_reported_is_no_factor_and_no_statement_neither() -> None:
    empty = pl.DataFrame(schema=STATEMENTS_SCHEMA)
    assert set(factors_of(empty).values()) == {None}
    with pytest.raises(InvalidInput, match="'own' needs statements"):
        compute(FUNDAMENTAL, market(), [TODAY], CALENDAR, START)


def test_a_feature_of_a_figure_that_no_statement_has_is_refused() -> None:
    def goodwill(panel: Panel) -> np.ndarray:
        """Goodwill."""
        return panel.close

    with pytest.raises(InvalidInput, match=r"needs the figures \['goodwill'\]; known: period_end, assets"):
        feature(lookback=1, inputs=(), fundamentals=["goodwill"])(goodwill)
    assert feature(lookback=1, inputs=(), fundamentals=["assets"])(goodwill).fundamentals == ("assets",)


def test_negative_book_equity_is_no_denominator() -> None:
    found = factors_of(statement(stockholders_equity=-700.0))
    assert [name for name, value in found.items() if value is None] == [
        "book_to_market",
        "return_on_equity",
        "operating_profitability",
    ]


def test_gross_profit_and_equity_are_taken_as_reported_before_they_are_made_up_of_parts() -> None:
    assert factors_of(statement(gross_profit=410.0))["gross_profitability"] == pytest.approx(410 / 2000)
    total = statement(stockholders_equity=None, total_equity=760.0, minority_interest=60.0)
    assert factors_of(total) == factors_of(statement())
    assert factors_of(statement(total_equity=9999.0)) == factors_of(statement())


def test_operating_profit_needs_one_expense_at_least() -> None:
    no_expense = dict.fromkeys(("cost_of_revenue", "selling_and_administration", "interest_expense"))
    assert factors_of(statement(**no_expense))["operating_profitability"] is None
    only_interest = factors_of(statement(**no_expense | {"interest_expense": 30.0}))
    assert only_interest["operating_profitability"] == pytest.approx(870 / 650)


def test_split_adjusted_prices_keep_what_needs_neither_price_level_nor_splits() -> None:
    left = {name for name in MULTI_FACTOR.without_price_level().names if name in FUNDAMENTAL.names}
    assert left == {"return_on_equity", "gross_profitability", "operating_profitability", "accruals", "asset_growth"}
    with pytest.raises(InvalidInput, match="'size' is a price level"):
        MULTI_FACTOR.without_price_level().select(["size"])


def test_a_multi_factor_set_names_formula_and_paper_of_each_and_what_it_needs() -> None:
    for each in MULTI_FACTOR.features:
        assert any(year in each.description for year in map(str, range(1970, 2025))), each.name
    assert "revenue" in MULTI_FACTOR.fundamentals
    assert feature_set("factors").fundamentals == ()
    assert MULTI_FACTOR.lookback == own.COUNTED_A_YEAR_BEFORE


def test_the_look_backs_reach_every_count_that_is_young_enough() -> None:
    for day in CALENDAR.sessions(date(2015, 1, 2), date(2024, 12, 31))[::7]:
        assert CALENDAR.count(day - timedelta(days=366), day) < own.COUNTED
        assert CALENDAR.count(day - timedelta(days=366 + 365 + 45), day) < own.COUNTED_A_YEAR_BEFORE


# Time -----------------------------------------------------------------------------------------------------------------

MARKET = random_market(DAYS, 4, seed=5)
RANGE = DAYS[495:540]
"""Crosses a year."""


def random_statements(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for symbol in ("S0", "S1", "S2", "S3"):
        for at in sorted(rng.choice(len(DAYS), size=8, replace=False)):
            ends = DAYS[at] - timedelta(days=int(rng.integers(20, 200)))
            counted = DAYS[at] - timedelta(days=int(rng.integers(1, 60)))
            figures = {
                name: float(rng.uniform(1, 1000)) for name, kind in STATEMENTS_SCHEMA.items() if kind == pl.Float64
            }
            dates = {
                "period_end": ends,
                "shares_as_of": counted,
                "shares_a_year_ago_as_of": counted - timedelta(days=365),
            }
            rows.append({"symbol": symbol, "known_at": DAYS[at], **figures, **dates})
    return pl.DataFrame(rows, schema=STATEMENTS_SCHEMA)


STATEMENTS = random_statements(1)


@pytest.fixture(scope="module")
def in_one_range() -> pl.DataFrame:
    return compute(MULTI_FACTOR, MARKET, RANGE, CALENDAR, START, statements=STATEMENTS)


def test_a_range_equals_its_days_one_by_one_and_none_knows_a_later_statement(in_one_range: pl.DataFrame) -> None:
    daily = [
        compute(
            MULTI_FACTOR,
            MARKET.filter(pl.col("date") <= day),
            [day],
            CALENDAR,
            START,
            statements=STATEMENTS.filter(pl.col("known_at") <= day),
        )
        for day in RANGE[::4]
    ]
    assert same_bytes(pl.concat(daily), in_one_range.filter(pl.col("date").is_in(RANGE[::4])))
    assert in_one_range.select(FUNDAMENTAL.names).null_count().row(0) != (in_one_range.height,) * len(BY_HAND)


@given(day=st.sampled_from(RANGE), seed=st.integers(2, 1000))
@settings(max_examples=8, deadline=None)
def test_other_statements_after_a_day_change_nothing_of_it(day: date, seed: int, in_one_range: pl.DataFrame) -> None:
    future = random_statements(seed).filter(pl.col("known_at") > day)
    mixed = pl.concat([STATEMENTS.filter(pl.col("known_at") <= day), future])
    found = compute(MULTI_FACTOR, MARKET, [each for each in RANGE if each <= day], CALENDAR, START, statements=mixed)
    assert same_bytes(found, in_one_range.filter(pl.col("date") <= day))
