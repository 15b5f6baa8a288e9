from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.market.fundamentals.facts import FACTS_SCHEMA
from stockpicker_dagster.market.fundamentals.statements import (
    STATEMENTS_SCHEMA,
    first_day_needed,
    statements,
    trailing_year,
)
from stockpicker_dagster_tests.market.fundamentals.companies import ACME, ALL
from stockpicker_dagster_tests.market.fundamentals.fact_frames import CALENDAR, facts_of

FACTS = facts_of(ALL)
DAYS = CALENDAR.sessions(date(2018, 10, 1), date(2020, 12, 31))


def in_force(symbol: str, day: date, facts: pl.DataFrame = FACTS) -> dict[str, object]:
    own = statements(facts, [day]).filter(pl.col("symbol") == symbol)
    return {name: value for name, value in own.row(-1, named=True).items() if value is not None} if own.height else {}


# Twelve months


def years_of(amounts: np.ndarray, first: date, fiscal_ends: list[date]) -> dict[tuple[date, date], float]:
    """Annual, quarterly and year-to-date figures of fiscal years, each the sum of its days."""
    total = np.concatenate([[0.0], np.cumsum(amounts)])

    def figure(start: date, end: date) -> float:
        return float(total[(end - first).days + 1] - total[(start - first).days])

    periods: dict[tuple[date, date], float] = {}
    for before, end in pairwise(fiscal_ends):
        start = before + timedelta(days=1)
        quarters = [start + timedelta(days=91 * quarter) for quarter in range(4)]
        for quarter, begin in enumerate(quarters):
            until = end if quarter == 3 else quarters[quarter + 1] - timedelta(days=1)
            periods[(begin, until)] = figure(begin, until)
            periods[(start, until)] = figure(start, until)
    return periods


@given(
    dropped=st.lists(st.integers(0, 40), max_size=12),
    lengths=st.lists(st.sampled_from([364, 365, 366, 371]), min_size=4, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_whatever_a_company_leaves_out_twelve_months_are_the_sum_of_their_days(
    dropped: list[int], lengths: list[int], seed: int
) -> None:
    """The oracle adds up days; the sum of periods must be that of some twelve months, or not be there."""
    first = date(2015, 1, 1)
    ends = [first - timedelta(days=1)]
    for length in lengths:
        ends.append(ends[-1] + timedelta(days=length))
    amounts = np.random.default_rng(seed).integers(-1000, 1000, size=sum(lengths)).astype(float)
    everything = years_of(amounts, first, ends)
    total = np.concatenate([[0.0], np.cumsum(amounts)])
    kept = {period: value for at, (period, value) in enumerate(sorted(everything.items())) if at not in dropped}
    for end in {end for _, end in kept if end > ends[1]}:
        found = trailing_year(kept, end)
        after = (end - first).days + 1
        possible = {float(total[after] - total[after - days]) for days in range(350, 381) if days <= after}
        assert found is None or found in possible
        if not dropped:
            assert found is not None


def test_twelve_months_are_the_reported_year_the_year_to_date_or_four_quarters() -> None:
    year = {(date(2020, 1, 1), date(2020, 12, 31)): 100.0}
    assert trailing_year(year, date(2020, 12, 31)) == 100.0
    assert trailing_year(year, date(2021, 3, 31)) is None
    quarter = year | {(date(2021, 1, 1), date(2021, 3, 31)): 30.0, (date(2020, 1, 1), date(2020, 3, 31)): 20.0}
    assert trailing_year(quarter, date(2021, 3, 31)) == 110.0
    quarters = {
        (date(2020, 4, 1), date(2020, 6, 30)): 1.0,
        (date(2020, 7, 1), date(2020, 9, 30)): 2.0,
        (date(2020, 1, 1), date(2020, 9, 30)): 40.0,
        (date(2021, 1, 1), date(2021, 3, 31)): 8.0,
    }
    assert trailing_year(quarters, date(2021, 3, 31)) is None  # nobody told the fourth quarter
    assert trailing_year(quarters | year, date(2021, 3, 31)) == 8.0 + (100.0 - 40.0) + 2.0 + 1.0


def test_a_figure_since_foundation_is_no_year() -> None:
    assert trailing_year({(date(2015, 1, 1), date(2020, 12, 31)): 9.0}, date(2020, 12, 31)) is None
    assert trailing_year({}, date(2020, 12, 31)) is None


# Statements


def test_a_statement_is_as_first_reported_until_the_next_report() -> None:
    assert in_force("ACME", date(2019, 2, 21)) == {}
    assert in_force("ACME", date(2019, 5, 7)) == {
        "symbol": "ACME",
        "known_at": date(2019, 2, 22),
        "period_end": date(2018, 12, 31),
        "assets": 1000.0,
        "stockholders_equity": 500.0,
        "revenue": 800.0,
        "net_income": 40.0,
        "shares": 100.0,
        "shares_as_of": date(2019, 2, 15),
    }
    first_quarter = in_force("ACME", date(2019, 5, 8))
    # The year under one tag, its quarters under another: 800 + 210 - 190, and 40 + 12 - 8.
    assert (first_quarter["revenue"], first_quarter["net_income"]) == (820.0, 44.0)
    assert first_quarter["period_end"] == date(2019, 3, 31)
    assert "assets_a_year_ago" not in first_quarter


def test_a_restatement_changes_no_statement_and_a_late_report_arrives_late() -> None:
    assert in_force("ACME", date(2020, 4, 14))["period_end"] == date(2019, 3, 31)
    late = in_force("ACME", date(2020, 4, 15))
    assert (late["revenue"], late["net_income"], late["assets"]) == (900.0, 60.0, 1200.0)
    assert late["assets_a_year_ago"] == 1000.0  # not the 990 of the restatement
    assert (late["shares"], late["shares_a_year_ago"]) == (210.0, 101.0)
    assert (late["shares_as_of"], late["shares_a_year_ago_as_of"]) == (date(2020, 4, 1), date(2019, 5, 1))
    amended = in_force("ACME", date(2020, 5, 4))
    assert amended == late | {"known_at": date(2020, 5, 4)}


def test_a_changed_fiscal_year_adds_up() -> None:
    # 100 + 30 - 22; then the half-year of the change with what of the old year it does not repeat: 100 - 45 + 70.
    assert in_force("TURN", date(2018, 11, 6))["net_income"] == 108.0
    changed = in_force("TURN", date(2019, 3, 5))
    assert (changed["period_end"], changed["net_income"]) == (date(2018, 12, 31), 125.0)
    assert in_force("TURN", date(2020, 3, 3))["net_income"] == 160.0


def test_no_balance_sheet_or_no_year_is_no_statement_but_shares_still_count() -> None:
    only_shares = in_force("ABRD", date(2019, 12, 2))
    assert only_shares == {
        "symbol": "ABRD",
        "known_at": date(2019, 4, 10),
        "shares": 10.0,
        "shares_as_of": date(2018, 12, 31),
    }


def test_the_balance_sheets_own_count_stands_in_for_a_missing_cover() -> None:
    told = facts_of([ACME]).with_columns(
        concept=pl.col("concept").replace(
            "dei:EntityCommonStockSharesOutstanding", "us-gaap:CommonStockSharesOutstanding"
        )
    )
    assert in_force("ACME", date(2020, 4, 15), told)["shares"] == 210.0


def test_no_facts_are_no_statements() -> None:
    none = statements(pl.DataFrame(schema=FACTS_SCHEMA), DAYS)
    assert none.is_empty()
    assert none.schema == STATEMENTS_SCHEMA


def latest_of_each(found: pl.DataFrame, day: date) -> pl.DataFrame:
    known = found.filter(pl.col("known_at") <= day).sort("symbol", "known_at")
    return known.group_by("symbol", maintain_order=True).last()


@given(day=st.sampled_from(DAYS))
@settings(max_examples=25)
def test_a_day_alone_has_the_statements_of_a_range(day: date) -> None:
    alone = statements(FACTS.filter(pl.col("date") >= first_day_needed(day)), [day])
    young = pl.col("period_end").fill_null(date.min) >= day - timedelta(days=548)
    counted = pl.col("shares_as_of").fill_null(date.min) >= day - timedelta(days=366)
    count_columns = [name for name in STATEMENTS_SCHEMA if name.startswith("shares")]
    for keep, columns in ((young, [n for n in STATEMENTS_SCHEMA if n not in count_columns]), (counted, count_columns)):
        one, other = (
            latest_of_each(each, day).filter(keep).select(columns) for each in (alone, statements(FACTS, DAYS))
        )
        assert one.equals(other)


@given(day=st.sampled_from(DAYS), factor=st.sampled_from([0.0, -3.0, 1e9]))
@settings(max_examples=25)
def test_what_becomes_known_later_changes_no_statement(day: date, factor: float) -> None:
    deleted = FACTS.filter(pl.col("date") <= day)
    perturbed = FACTS.with_columns(
        value=pl.when(pl.col("date") > day).then(pl.col("value") * factor).otherwise(pl.col("value"))
    )
    days = [each for each in DAYS if each <= day]
    expected = statements(deleted, days)
    assert statements(perturbed, days).equals(expected)
    through = statements(FACTS, DAYS).filter(pl.col("known_at") <= day)
    assert through.equals(expected)


def test_the_order_of_rows_means_nothing() -> None:
    shuffled = FACTS.sample(fraction=1.0, shuffle=True, seed=3)
    assert statements(shuffled, DAYS).equals(statements(FACTS, DAYS))
