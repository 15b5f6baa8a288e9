"""The price contract: judgements against a second, sequential implementation, and adjustments against closed forms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.identity import REUSED_AFTER
from stockpicker_dagster.market.prices import (
    PRICES_SCHEMA,
    QUARANTINE_SCHEMA,
    REASONS,
    adjustment,
    inferred_adjustment,
    inferred_dividend,
    inferred_split_ratio,
    validate,
)

START = date(2024, 1, 1)
Row = dict[str, Any]


def row(day: int = 0, symbol: str = "A", **changes: Any) -> Row:
    """A sound row `day` days after the start, with changes."""
    sound = {
        "open": 10.0,
        "high": 11.0,
        "low": 9.0,
        "close": 10.0,
        "volume": 100.0,
        "dividend": 0.0,
        "split_ratio": 1.0,
    }
    return {"symbol": symbol, "date": START + timedelta(days=day), **sound, **changes}


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    schema = {name: dtype for name, dtype in PRICES_SCHEMA.items() if name not in ("adjustment", "known_at", "source")}
    return pl.DataFrame(rows, schema=schema, orient="row") if rows else pl.DataFrame(schema=schema)


def reasons(quarantine: pl.DataFrame) -> list[str]:
    return quarantine["reason"].to_list()


# Each reason on its own


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("missing_price", {"close": None}),
        ("missing_price", {"open": math.nan}),
        ("missing_price", {"high": math.inf}),
        ("non_positive_price", {"low": 0.0}),
        ("non_positive_price", {"close": -10.0}),
        ("high_below_low", {"high": 9.0, "low": 11.0}),
        ("open_or_close_outside_range", {"close": 11.1}),
        ("open_or_close_outside_range", {"open": 8.9}),
        ("missing_volume", {"volume": None}),
        ("negative_volume", {"volume": -1.0}),
        ("bad_split_ratio", {"split_ratio": 0.0}),
        ("bad_split_ratio", {"split_ratio": math.nan}),
        ("negative_dividend", {"dividend": -0.1}),
        ("dividend_not_below_previous_close", {"dividend": 10.0}),
        ("hundredfold_jump", {"open": 1100.0, "high": 1100.0, "low": 1100.0, "close": 1100.0}),
        ("hundredfold_jump", {"open": 0.09, "high": 0.09, "low": 0.09, "close": 0.09}),
    ],
)
def test_a_broken_row_is_quarantined_by_name_and_its_neighbours_are_kept(reason: str, changes: Row) -> None:
    accepted, quarantine = validate(frame([row(0), row(1, **changes), row(2)]))
    assert reasons(quarantine) == [reason]
    assert accepted["date"].to_list() == [START, START + timedelta(days=2)]
    assert reason in REASONS
    figure = next(iter(changes.values()))
    shown = "null" if figure is None else str(figure)
    assert shown.lower() in quarantine["detail"][0].lower()


def test_float32_rounding_is_no_reason() -> None:
    accepted, _ = validate(frame([row(close=11.0 * (1 + 5e-7), high=11.0)]))
    assert accepted.height == 1


def test_days_without_trading_are_quarantined_and_their_dividend_paid_on_the_next_row() -> None:
    rows = frame([row(0), row(1, dividend=0.5), row(2)])
    accepted, quarantine = validate(rows, sessions=[START, START + timedelta(days=2)])
    assert reasons(quarantine) == ["not_a_session"]
    paid = accepted.row(-1, named=True)
    assert (paid["dividend"], paid["known_at"]) == (0.5, START + timedelta(days=1))
    assert paid["adjustment"] == pytest.approx(1 / (1 - 0.5 / 10.0), rel=1e-15)


def test_of_identical_rows_one_is_kept_and_of_contradicting_ones_none() -> None:
    accepted, quarantine = validate(frame([row(0), row(0), row(0), row(1), row(1, close=10.5)]))
    assert accepted["date"].to_list() == [START]
    assert reasons(quarantine) == ["duplicate_row"] * 4


def test_a_jump_that_a_split_explains_is_accepted() -> None:
    small = {"open": 0.05, "high": 0.05, "low": 0.05, "close": 0.05}
    accepted, quarantine = validate(frame([row(0), row(1, split_ratio=200.0, **small)]))
    assert quarantine.is_empty()
    assert accepted["adjustment"].to_list() == [1.0, 200.0]


def test_one_bad_first_print_does_not_lock_a_symbol_out_for_ever() -> None:
    small = {"open": 0.01, "high": 0.01, "low": 0.01, "close": 0.01}
    accepted, quarantine = validate(frame([row(0, **small), *[row(day) for day in range(1, 60)]]))
    assert reasons(quarantine) == ["hundredfold_jump"] * 30
    assert accepted.height == 30


def test_a_split_of_a_rejected_row_reaches_the_next_one_and_compounds_with_its_dividend() -> None:
    rows = frame([row(0), row(1, close=None, split_ratio=2.0), row(2, dividend=0.25)])
    accepted, _ = validate(rows)
    last = accepted.row(-1, named=True)
    assert (last["split_ratio"], last["dividend"]) == (2.0, 0.5)
    assert last["adjustment"] == pytest.approx(2.0 / (1 - 0.5 / 10.0), rel=1e-15)


def test_an_impossible_dividend_is_void_and_rejects_one_row_only() -> None:
    rows = frame([row(0), row(1, close=None, dividend=50.0), row(2), row(3), row(4)])
    accepted, quarantine = validate(rows)
    assert reasons(quarantine) == ["missing_price", "dividend_not_below_previous_close"]
    assert accepted["dividend"].sum() == 0.0
    assert accepted["adjustment"].to_list() == [1.0, 1.0, 1.0]


def test_previous_rows_continue_the_adjustment() -> None:
    days = frame([row(0), row(1, close=10.5), row(2, dividend=0.3)])
    whole, _ = validate(days)
    earlier, _ = validate(days.head(2))
    later, _ = validate(days.tail(1), earlier)
    assert_frame_equal(pl.concat([earlier, later]), whole)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (frame([row()]).drop("close"), "lack close; found: symbol, date"),
        (frame([row(symbol=None)]), "1 price rows have no symbol"),  # type: ignore[arg-type]
    ],
)
def test_frames_that_are_no_prices_are_refused(rows: pl.DataFrame, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        validate(rows)


def test_an_empty_frame_gives_two_empty_ones_with_the_contract_columns() -> None:
    accepted, quarantine = validate(frame([]))
    assert dict(accepted.schema) == PRICES_SCHEMA
    assert dict(quarantine.schema) == QUARANTINE_SCHEMA
    assert accepted.height + quarantine.height == 0


# Rows without volume, and a person's decisions


def test_a_price_without_volume_is_no_trade_but_a_close_that_is_repeated_or_split_is_kept() -> None:
    idle = {"volume": 0.0}
    halved = {"open": 5.0, "high": 5.0, "low": 5.0, "close": 5.0}
    rows = [row(0), row(1, **idle), row(2, close=10.5, **idle), row(3, close=10.5, **idle), row(4, **idle)]
    accepted, quarantine = validate(frame([*rows, row(5, split_ratio=2.0, **halved, **idle)]))
    assert quarantine.select("date", "reason").rows() == [
        (START + timedelta(days=day), "moved_without_volume") for day in (2, 3)
    ]
    assert accepted["close"].to_list() == [10.0, 10.0, 10.0, 5.0]


def test_a_price_that_a_vendor_repeats_without_trades_is_stale_from_the_tenth_session_on() -> None:
    repeated = [row(day, volume=0.0) for day in range(1, 13)]
    accepted, quarantine = validate(frame([row(0), *repeated, row(13)]))
    assert quarantine.select("date", "reason").rows() == [
        (START + timedelta(days=day), "stale_close") for day in (10, 11, 12)
    ]
    assert accepted["date"].max() == START + timedelta(days=13)
    # Nine rows before it are enough to judge a row as the whole history does.
    assert validate(frame(repeated[:10]))[1]["date"].to_list() == [START + timedelta(days=10)]


def test_what_nobody_traded_for_half_a_year_is_filled_up_whatever_the_vendor_says_it_cost() -> None:
    prices = [{"open": close, "high": close, "low": close, "close": close} for close in (10.0, 11.0)]
    quotes = [row(day, volume=0.0, **prices[day % 2]) for day in range(1, REUSED_AFTER + 3)]
    traded_again = row(REUSED_AFTER + 3)
    _, quarantine = validate(frame([row(0), *quotes, traded_again]))
    told = dict(quarantine.select("date", "reason").iter_rows())
    assert told[START + timedelta(days=REUSED_AFTER - 1)] == "moved_without_volume"
    late = [START + timedelta(days=REUSED_AFTER + each) for each in (1, 2)]
    assert [told[day] for day in late] == ["no_trade_for_long"] * 2
    assert START + timedelta(days=REUSED_AFTER + 3) not in told
    accepted, _ = validate(frame([row(0), *quotes]), decisions=[decision(REUSED_AFTER + 2)])
    assert accepted["date"].to_list()[-1] == late[1]


def decision(day: int, **figures: float) -> Decision:
    return Decision("A", START + timedelta(days=day), tuple(figures.items()))


def test_a_decided_row_is_kept_and_the_rows_after_it_are_judged_beside_it() -> None:
    high = {"open": 1500.0, "high": 1500.0, "low": 1500.0, "close": 1500.0}
    rows = frame([row(0), row(1, **high), row(2, dividend=15.0, **high)])
    assert reasons(validate(rows)[1]) == ["hundredfold_jump", "dividend_not_below_previous_close"]
    accepted, quarantine = validate(rows, decisions=[decision(1)])
    assert quarantine.is_empty()
    assert accepted["adjustment"].to_list() == [1.0, 1.0, pytest.approx(1 / (1 - 15.0 / 1500.0), rel=1e-15)]


def test_figures_decided_on_take_the_place_of_those_that_came() -> None:
    rows = frame([row(0), row(1, close=10.9, volume=None), row(2)])
    accepted, quarantine = validate(rows, decisions=[decision(1, close=10.2, volume=70.0)])
    assert quarantine.is_empty()
    assert accepted.select("close", "volume").rows() == [(10.0, 100.0), (10.2, 70.0), (10.0, 100.0)]


@pytest.mark.parametrize("figures", [{"close": -1.0}, {"high": 5.0}, {"split_ratio": 0.0}])
def test_no_decision_makes_sense_of_a_row_that_has_none(figures: dict[str, float]) -> None:
    assert len(reasons(validate(frame([row(0), row(1)]), decisions=[decision(1, **figures)])[1])) == 1


def test_a_decision_about_another_row_changes_nothing() -> None:
    rows = frame([row(0), row(1, close=None), row(2)])
    for mine, plain in zip(validate(rows, decisions=[decision(5, close=1.0)]), validate(rows), strict=True):
        assert_frame_equal(mine, plain)


# All reasons together, against a second implementation that walks row by row


@dataclass
class Walk:
    """What one symbol's rows become, read one after another: the specification of `validate`, without vectors."""

    accepted: list[tuple[str, date, float, float, float]] = field(default_factory=list)
    rejected: list[tuple[str, date, str]] = field(default_factory=list)
    traded_close: float | None = None
    splits_since: float = 1.0

    def walk(self, rows: list[Row]) -> None:
        dividend, split_ratio, previous = 0.0, 1.0, None
        self.traded_close, self.splits_since = None, 1.0
        for position, current in enumerate(rows):
            reason = own_reason(rows, position)
            own_dividend, own_split = current["dividend"], current["split_ratio"]
            if reason == "duplicate_row" or not (own_dividend >= 0 and own_split > 0):
                own_dividend, own_split = 0.0, 1.0
            dividend, split_ratio = dividend + own_dividend * split_ratio, split_ratio * own_split
            void = False
            if reason is None and previous is not None:
                if dividend >= previous["close"]:
                    reason, void = "dividend_not_below_previous_close", True
                elif self.moved(current, split_ratio):
                    reason = "moved_without_volume"
                elif current["date"] - previous["date"] <= timedelta(days=30):
                    gross = current["close"] * split_ratio / (1 - dividend / previous["close"]) / previous["close"]
                    reason = None if 0.01 <= gross <= 100 else "hundredfold_jump"
            if reason is not None:
                self.rejected.append((current["symbol"], current["date"], reason))
            else:
                step = split_ratio / (1 - dividend / previous["close"]) if previous else 1.0
                self.accepted.append((current["symbol"], current["date"], dividend, split_ratio, step))
                previous = current
                self.splits_since *= split_ratio
                if current["volume"] > 0:
                    self.traded_close, self.splits_since = current["close"], 1.0
            if reason is None or void:
                dividend, split_ratio = 0.0, 1.0

    def moved(self, current: Row, split_ratio: float) -> bool:
        """Without volume at another close than the last traded one, before and after its splits."""
        if current["volume"] > 0 or self.traded_close is None:
            return False
        after_splits = current["close"] * self.splits_since * split_ratio / self.traded_close
        return current["close"] != self.traded_close and abs(after_splits - 1) > 1e-3


def own_reason(rows: list[Row], position: int) -> str | None:
    current = rows[position]
    same_day = [other for other in rows if other["date"] == current["date"]]
    first = next(index for index, other in enumerate(rows) if other["date"] == current["date"])
    if len(same_day) > 1 and (any(other != same_day[0] for other in same_day) or position != first):
        return "duplicate_row"
    prices = [current[name] for name in ("open", "high", "low", "close")]
    if None in prices:
        return "missing_price"
    if min(prices) <= 0:
        return "non_positive_price"
    if current["high"] < current["low"]:
        return "high_below_low"
    if not all(current["low"] <= current[name] <= current["high"] for name in ("open", "close")):
        return "open_or_close_outside_range"
    if current["volume"] < 0:
        return "negative_volume"
    if current["split_ratio"] <= 0:
        return "bad_split_ratio"
    if current["dividend"] < 0:
        return "negative_dividend"
    idle_since = next((back for back in range(position, -1, -1) if rows[back]["volume"] != 0), -1)
    if current["volume"] == 0 and position - idle_since > REUSED_AFTER:
        return "no_trade_for_long"
    last_ten = rows[max(0, position - 9) : position + 1]
    idle = all(each["volume"] == 0 and each["close"] == current["close"] for each in last_ten)
    return "stale_close" if idle and len(last_ten) == 10 else None


MESSY_ROWS = st.lists(
    st.builds(
        lambda day, symbol, close, high, low, volume, dividend, split_ratio: row(
            day,
            symbol,
            open=close,
            close=close,
            high=high,
            low=low,
            volume=volume,
            dividend=dividend,
            split_ratio=split_ratio,
        ),
        day=st.integers(0, 45),
        symbol=st.sampled_from(["A", "B"]),
        close=st.sampled_from([10.0, 10.0, 10.5, 9.5, 1300.0, 0.05, 0.0, None]),
        high=st.sampled_from([1400.0, 1400.0, 1400.0, 0.02]),
        low=st.sampled_from([0.03, 0.03, 0.03, 10.2]),
        volume=st.sampled_from([100.0, 100.0, 0.0, -5.0]),
        dividend=st.sampled_from([0.0, 0.0, 0.0, 0.25, 9.8, -0.1]),
        split_ratio=st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.1, 0.0]),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(rows=MESSY_ROWS)
def test_judgements_equal_those_of_a_row_by_row_walk(rows: list[Row]) -> None:
    walk = Walk()
    for symbol in ("A", "B"):
        walk.walk(sorted((r for r in rows if r["symbol"] == symbol), key=lambda r: r["date"]))
    accepted, quarantine = validate(frame(rows))
    assert sorted(quarantine.select("symbol", "date", "reason").rows()) == sorted(walk.rejected)
    got = sorted(accepted.select("symbol", "date", "dividend", "split_ratio", "adjustment").rows())
    assert [r[:2] for r in got] == [r[:2] for r in sorted(walk.accepted)]
    for mine, theirs in zip(got, sorted(walk.accepted), strict=True):
        assert mine[2:] == pytest.approx(theirs[2:], rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(rows=MESSY_ROWS, cut=st.integers(0, 45))
def test_judgements_ignore_later_rows_and_lose_none(rows: list[Row], cut: int) -> None:
    last = START + timedelta(days=cut)
    accepted, quarantine = validate(frame(rows))
    assert accepted.height + quarantine.height == len(rows)
    early_accepted, early_quarantine = validate(frame([r for r in rows if r["date"] <= last]))
    assert_frame_equal(early_accepted, accepted.filter(pl.col("date") <= last))
    assert_frame_equal(early_quarantine, quarantine.filter(pl.col("date") <= last))


@settings(max_examples=25, deadline=None)
@given(rows=MESSY_ROWS)
def test_a_symbol_is_judged_alike_whoever_else_is_in_the_frame(rows: list[Row]) -> None:
    accepted, quarantine = validate(frame(rows))
    alone_accepted, alone_quarantine = validate(frame([r for r in rows if r["symbol"] == "A"]))
    assert_frame_equal(alone_accepted, accepted.filter(pl.col("symbol") == "A"))
    assert_frame_equal(alone_quarantine, quarantine.filter(pl.col("symbol") == "A"))


# Adjustments


def test_adjustment_reinvests_the_dividend_at_the_ex_price() -> None:
    # 100 at the close, 2 paid, then a 2:1 split: 49 per new share is no gain and no loss.
    rows = pl.DataFrame({"split": [2.0], "dividend": [2.0], "previous": [100.0], "close": [49.0]})
    step = rows.select(adjustment(pl.col("split"), pl.col("dividend"), pl.col("previous"))).item()
    assert step * 49.0 / 100.0 == pytest.approx(1.0, rel=1e-15)


def vendor_adjusted(closes: list[float], dividends: list[float], splits: list[float]) -> list[float]:
    """`adj_close` as vendors restate it: every earlier close is scaled down at each event, going backwards."""
    factor, adjusted = 1.0, []
    for index in range(len(closes) - 1, -1, -1):
        adjusted.append(closes[index] * factor)
        if index:
            factor *= (1 - dividends[index] / closes[index - 1]) / splits[index]
    return adjusted[::-1]


@settings(max_examples=50, deadline=None)
@given(
    closes=st.lists(st.floats(20, 200), min_size=12, max_size=12),
    dividend=st.floats(0.05, 2.0),
    split=st.sampled_from([2.0, 3.0, 7.0, 1.5, 0.1, 1.25]),
)
def test_events_are_recovered_from_a_vendors_adjusted_close(closes: list[float], dividend: float, split: float) -> None:
    dividends, splits = [0.0] * 12, [1.0] * 12
    dividends[3], splits[7] = dividend, split
    given_rows = [
        row(day, **dict.fromkeys(("open", "high", "low", "close"), close)) for day, close in enumerate(closes)
    ]
    rows = frame(given_rows).drop("dividend", "split_ratio")
    adjusted = pl.Series(vendor_adjusted(closes, dividends, splits))
    rows = rows.with_columns(adjustment=inferred_adjustment(pl.col("close"), pl.lit(adjusted)))
    accepted, quarantine = validate(rows)
    assert quarantine.is_empty()
    assert accepted["dividend"].to_list() == pytest.approx(dividends, rel=1e-9, abs=1e-12)
    assert accepted["split_ratio"].to_list() == pytest.approx(splits, rel=1e-9)
    exact, _ = validate(frame(given_rows).with_columns(dividend=pl.Series(dividends), split_ratio=pl.Series(splits)))
    assert accepted["adjustment"].to_list() == pytest.approx(exact["adjustment"].to_list(), rel=1e-12)
    assert accepted["known_at"].is_not_null().arg_true().to_list() == [3, 7]


@pytest.mark.parametrize(
    ("step", "basis", "split_ratio"),
    [
        (7.0, "as_traded", 7.0),
        (7.0000001, "as_traded", 7.0),
        (2.0 / (1 - 0.002), "as_traded", 2.0),  # a split and a dividend of 0.2 % on one day
        (0.1, "as_traded", 0.1),
        (0.4, "as_traded", 0.4),
        (0.029, "as_traded", 0.029),  # no simple ratio, but no dividend either
        (2.202, "as_traded", 1.0),  # a spin-off
        (1.01, "as_traded", 1.0),
        (2.0, "split_adjusted", 1.0),
    ],
)
def test_splits_are_told_from_dividends_by_simple_ratios(step: float, basis: Any, split_ratio: float) -> None:
    figures = pl.DataFrame({"step": [step], "previous": [100.0]})
    split = inferred_split_ratio(pl.col("step"), basis)
    answer = figures.with_columns(split=split).with_columns(
        dividend=inferred_dividend(pl.col("step"), pl.col("split"), pl.col("previous"))
    )
    assert answer["split"][0] == pytest.approx(split_ratio, rel=1e-12)
    again = answer.select(adjustment(pl.col("split"), pl.col("dividend"), pl.col("previous"))).item()
    assert again == pytest.approx(step, rel=5e-5)


def test_float_noise_of_the_vendor_is_no_event() -> None:
    figures = pl.DataFrame(
        {"close": [10.0, 10.0, 10.0], "adj_close": [9.0, 9.0 * (1 + 4e-5), 9.0 * (1 + 4e-5) * 1.0001]}
    )
    steps = figures.select(inferred_adjustment(pl.col("close"), pl.col("adj_close"))).to_series()
    assert steps[1] == 1.0
    assert steps[2] == pytest.approx(1.0001, rel=1e-9)


def test_a_step_below_one_cannot_be_a_dividend_and_is_undone_by_the_next_print() -> None:
    rows = frame([row(day) for day in range(4)]).drop("dividend", "split_ratio")
    rows = rows.with_columns(adjustment=pl.Series([1.0, 0.9, 1 / 0.9, 1.0]))
    accepted, quarantine = validate(rows, basis="split_adjusted")
    assert reasons(quarantine) == ["negative_dividend"]
    assert accepted["adjustment"].to_list() == [1.0, 1.0, 1.0]
