"""What must hold of every frame that is stored: the asset checks, as functions of the frame alone.

They are evaluated in the step that makes the frame, so that a range of a thousand sessions is checked in one pass. A
blocking one that fails stops everything downstream of it in the same run; because a later run would not be stopped,
`rebalance_orders` and `executions` verify what they need once more.
"""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import polars as pl

_SHOWN = 5

PRICES = ("contract_holds", "no_empty_sessions", "every_symbol_asked_for")
FEATURES = ("finite_or_null",)
SCALED = ("complete_and_finite",)
PREDICTIONS = ("every_member_ranked",)
BACKTEST = ("equity_adds_up",)
PLAN = ("legs_balance",)
_WARNINGS = frozenset({"no_empty_sessions", "every_symbol_asked_for"})


def specs(asset: dg.AssetKey, names: Sequence[str]) -> list[dg.AssetCheckSpec]:
    """The declaration of an asset's checks; those that only warn do not block."""
    return [dg.AssetCheckSpec(name, asset=asset, blocking=name not in _WARNINGS) for name in names]


def contract_holds(prices: pl.DataFrame) -> dg.AssetCheckResult:
    """Every stored row has positive prices, a high not below its low, a finite adjustment, and no twin."""
    sound = (
        pl.all_horizontal((pl.col(name) > 0) & pl.col(name).is_finite() for name in ("open", "high", "low", "close"))
        & (pl.col("high") >= pl.col("low"))
        & (pl.col("volume") >= 0)
        & pl.col("adjustment").is_finite()
        & (pl.col("adjustment") > 0)
    )
    broken = prices.filter(~sound.fill_null(False) | pl.struct("symbol", "date").is_duplicated())
    return _result("contract_holds", broken)


def no_empty_sessions(prices: pl.DataFrame, days: Sequence[date]) -> dg.AssetCheckResult:
    """Every session has prices; one without is stored as empty and named here."""
    empty = sorted(set(days) - set(prices["date"].unique()))
    return dg.AssetCheckResult(
        check_name="no_empty_sessions",
        passed=not empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"empty_sessions": len(empty), "first": ", ".join(map(str, empty[:_SHOWN])) or "none"},
    )


def every_symbol_asked_for(incomplete: dict[date, list[str]]) -> dg.AssetCheckResult:
    """No stored day predates a symbol that came into use later; a backfill of the range named repairs it."""
    days = sorted(incomplete)
    return dg.AssetCheckResult(
        check_name="every_symbol_asked_for",
        passed=not incomplete,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "incomplete_days": len(days),
            "backfill": f"{days[0]} to {days[-1]}" if days else "nothing",
            "symbols": ", ".join(incomplete[days[-1]][:20]) if days else "none",
        },
    )


def finite_or_null(features: pl.DataFrame, names: Sequence[str]) -> dg.AssetCheckResult:
    """A feature is a finite number or null, never infinite or NaN."""
    return _counted("finite_or_null", features, {name: ~pl.col(name).is_finite() for name in names})


def complete_and_finite(scaled: pl.DataFrame, names: Sequence[str]) -> dg.AssetCheckResult:
    """No scaled feature is missing, NaN or infinite."""
    return _counted(
        "complete_and_finite", scaled, {name: pl.col(name).is_null() | ~pl.col(name).is_finite() for name in names}
    )


def every_member_ranked(predictions: pl.DataFrame) -> dg.AssetCheckResult:
    """The ranks of a day are 1 to n, in order of a finite score."""
    days = predictions.group_by("date").agg(
        whole=(pl.col("rank").sort() == pl.int_range(1, pl.len() + 1)).all(),
        ordered=(pl.col("score").sort_by("rank").diff().fill_null(0) <= 0).all(),
        finite=pl.col("score").is_finite().all(),
    )
    return _result("every_member_ranked", days.filter(~(pl.col("whole") & pl.col("ordered") & pl.col("finite"))))


def equity_adds_up(days: pl.DataFrame) -> dg.AssetCheckResult:
    """Equity is positive, and a net return is the gross one plus interest less every cost."""
    explained = pl.col("gross_return") + pl.col("interest") - pl.col("commission") - pl.col("spread") - pl.col("borrow")
    unexplained = (pl.col("net_return") - explained).abs() > 1e-9
    broken = (pl.col("equity") <= 0) | unexplained
    return _result("equity_adds_up", days.filter(broken.fill_null(True)))


def legs_balance(plan: pl.DataFrame) -> dg.AssetCheckResult:
    """Neither leg of a plan weighs more than the whole equity, and every planned stock has a price."""
    legs = plan.group_by("date").agg(
        long=pl.col("target_weight").clip(lower_bound=0).sum(),
        short=-pl.col("target_weight").clip(upper_bound=0).sum(),
        priced=(pl.col("reference_price") > 0).fill_null(False).all(),
    )
    broken = legs.filter((pl.col("long") > 1 + 1e-9) | (pl.col("short") > 1 + 1e-9) | ~pl.col("priced"))
    return _result("legs_balance", broken)


def _counted(check: str, frame: pl.DataFrame, broken: dict[str, pl.Expr]) -> dg.AssetCheckResult:
    counts = frame.select(expression.sum().alias(name) for name, expression in broken.items()).row(0, named=True)
    found = {name: count for name, count in counts.items() if count}
    return dg.AssetCheckResult(check_name=check, passed=not found, metadata={"broken_values": found})


def _result(check: str, broken: pl.DataFrame) -> dg.AssetCheckResult:
    first = broken.head(_SHOWN).select(pl.col(["symbol", "date"] if "symbol" in broken.columns else ["date"]))
    return dg.AssetCheckResult(
        check_name=check,
        passed=broken.is_empty(),
        metadata={"broken_rows": broken.height, "first": str(first.rows())},
    )
