"""What must hold of every frame that is stored: the asset checks, as functions of the frame alone.

They are evaluated in the step that makes the frame, so that a range of a thousand sessions is checked in one pass. A
blocking one that fails stops everything downstream of it in the same run; because a later run would not be stopped,
`rebalance_orders` and `executions` verify what they need once more.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg
import numpy as np
import polars as pl

from stockpicker_dagster.components.feature_view import RECENT, DayFigures
from stockpicker_dagster.market.quality import Refusal
from stockpicker_dagster.research.backtest.days import COSTS
from stockpicker_dagster.storage.lake import describe_days

_SHOWN = 5
_ENOUGH = 20
"""Fewer values than these say nothing about a column."""
_USED = 0.2
"""A column that covers less than this share of stocks anyway cannot collapse."""
_COVERED = 0.95
"""Vendors that keep the names which left have prices of 98 % of an index's members; below this a reader should know."""

PRICES = (
    "contract_holds",
    "whole_sessions",
    "stored_past_confirmed",
    "members_have_prices",
    "no_empty_sessions",
    "every_symbol_asked_for",
)
FUNDAMENTALS = ("nothing_known_early", "every_company_answered", "every_symbol_asked_for")
FEATURES = ("finite_or_null", "coverage_holds", "columns_vary")
SCALED = ("complete_and_finite", "coverage_holds", "columns_vary", "past_members_confirmed")
PREDICTIONS = ("every_member_ranked",)
BACKTEST = ("equity_adds_up",)
PLAN = ("legs_balance",)
_WARNINGS = frozenset(
    {
        "stored_past_confirmed",
        "members_have_prices",
        "past_members_confirmed",
        "no_empty_sessions",
        "every_company_answered",
        "every_symbol_asked_for",
    }
)


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
    # Counted day by day: to compare every row of a whole market with every other one takes gigabytes.
    of_day = prices.lazy().group_by("date").agg(twins=pl.col("symbol").len() - pl.col("symbol").n_unique())
    twins = prices.join(of_day.filter(pl.col("twins") > 0).collect(), on="date", how="semi")
    twins = twins.filter(pl.struct("symbol", "date").is_duplicated())
    return _result("contract_holds", pl.concat([prices.filter(~sound.fill_null(False)), twins]))


def whole_sessions(refused: Sequence[Refusal]) -> dg.AssetCheckResult:
    """No session is partial, an earlier one sent again, or largely rejected; one that is stops the run unstored."""
    return dg.AssetCheckResult(
        check_name="whole_sessions",
        passed=not refused,
        metadata={
            "refused_sessions": len(refused),
            "first": "; ".join(f"{each.day}: {each.reason}" for each in refused[:_SHOWN]) or "none",
        },
    )


def stored_past_confirmed(session: date | None, restated: pl.DataFrame, failure: str = "") -> dg.AssetCheckResult:
    """A sample of a stored session is still what the source says; `failure` says why it could not be compared."""
    details = restated["detail"].head(_SHOWN).to_list()
    return dg.AssetCheckResult(
        check_name="stored_past_confirmed",
        passed=restated.is_empty() and not failure,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "session": str(session) if session else "nothing is stored before",
            "restated_rows": restated.height,
            "first": failure or "; ".join(details) or "none",
        },
    )


def members_have_prices(coverage: Mapping[str, float]) -> dg.AssetCheckResult:
    """Nearly every member of each strategy's universe has a price on the last day of the run."""
    return dg.AssetCheckResult(
        check_name="members_have_prices",
        passed=all(share >= _COVERED for share in coverage.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"coverage": {name: round(share, 4) for name, share in coverage.items()}},
    )


def past_members_confirmed(universe: str, changed: Sequence[date]) -> dg.AssetCheckResult:
    """The universe still says of every stored day who was a member; `changed` are the days of which it does not."""
    return dg.AssetCheckResult(
        check_name="past_members_confirmed",
        passed=not changed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "changed_days": len(changed),
            "what_to_do": f"the list of {universe!r} says otherwise now who was a member on {describe_days(changed)}; "
            f"what is stored holds the earlier members: `stockpicker run STRATEGY --from {changed[0]}` makes it again"
            if changed
            else "nothing",
        },
    )


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


def nothing_known_early(facts: pl.DataFrame) -> dg.AssetCheckResult:
    """No fact is on a session before it was known, known before it was filed, or filed before its period ended."""
    in_order = (
        (pl.col("end") <= pl.col("filed"))
        & (pl.col("filed") <= pl.col("known_at"))
        & (pl.col("known_at") <= pl.col("date"))
    )
    return _result("nothing_known_early", facts.filter(~in_order.fill_null(False)))


def every_company_answered(
    symbols: Sequence[str], unknown: Sequence[str], without_figures: Mapping[str, str]
) -> dg.AssetCheckResult:
    """Every symbol has a company that reports figures; factors of the others stay null."""
    silent = [f"{symbol}: {why}" for symbol, why in without_figures.items()]
    return dg.AssetCheckResult(
        check_name="every_company_answered",
        passed=not unknown and not without_figures,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "symbols": len(symbols),
            "without_a_company": ", ".join(unknown[:20]) or "none",
            "without_figures": ", ".join(silent[:20]) or "none",
        },
    )


def finite_or_null(figures: DayFigures) -> dg.AssetCheckResult:
    """A feature is a finite number or null, never infinite or NaN."""
    broken = figures.broken.sum(axis=0)
    found = {name: int(count) for name, count in zip(figures.names, broken, strict=True) if count}
    return dg.AssetCheckResult(check_name="finite_or_null", passed=not found, metadata={"broken_values": found})


def coverage_holds(figures: DayFigures, days: Sequence[date]) -> dg.AssetCheckResult:
    """On none of `days` do features cover less than half of what they covered on the five sessions before.

    It blocks where that is so for all columns together. Of one column alone, or of few, it is a warning: a session
    without prices leaves those without a value that need every session of their window.
    """
    whole = _collapsed(figures.coverage.mean(axis=1, keepdims=True), figures, days)
    alone = _collapsed(figures.coverage, figures, days)
    first = [f"{figures.names[column]} on {figures.days[row]}" for row, column in np.argwhere(alone)[:_SHOWN]]
    return dg.AssetCheckResult(
        check_name="coverage_holds",
        passed=not alone.any() and not whole.any(),
        severity=dg.AssetCheckSeverity.ERROR if whole.any() else dg.AssetCheckSeverity.WARN,
        metadata={
            "collapsed_sessions": int(whole.sum()),
            "columns_that_collapsed": int(alone.any(axis=0).sum()),
            "first": ", ".join(first) or "none",
        },
    )


def _collapsed(coverage: np.ndarray, figures: DayFigures, days: Sequence[date]) -> np.ndarray:
    """Where coverage, by session and column, fell to less than half of what was usual; on `days` alone."""
    collapsed = np.zeros(coverage.shape, dtype=bool)
    for row in range(RECENT, len(coverage)):
        usual = np.median(coverage[row - RECENT : row], axis=0)
        if figures.stocks[row] >= _ENOUGH:
            collapsed[row] = (usual >= _USED) & (coverage[row] < usual / 2)
    return collapsed & np.isin(np.array(figures.days, dtype="datetime64[D]"), np.array(days, "datetime64[D]"))[:, None]


def columns_vary(figures: DayFigures, days: Sequence[date], raw: DayFigures | None = None) -> dg.AssetCheckResult:
    """No column is one and the same number for every stock of five sessions in a row, with twenty values on each.

    It blocks, but of columns that are zero throughout it is a warning: where nobody pays a dividend, every yield is
    truly 0. `raw` has the figures before scaling, which makes a zero of any constant; by default `figures` are those.
    """
    constant: dict[str, str] = {}
    stuck: dict[str, str] = {}
    wanted, zero = set(days), _zero_columns(raw or figures)
    for row in range(RECENT - 1, len(figures.days)):
        recent = slice(row - RECENT + 1, row + 1)
        enough = (figures.values[recent] >= _ENOUGH).all(axis=0)
        same = figures.smallest[recent].min(axis=0) == figures.largest[recent].max(axis=0)
        if figures.days[row] in wanted:
            for column in np.flatnonzero(enough & same):
                name = figures.names[column]
                constant.setdefault(name, str(figures.days[row]))
                if not all(name in zero.get(day, ()) for day in figures.days[recent]):
                    stuck.setdefault(name, str(figures.days[row]))
    first = list((stuck or constant).items())[:_SHOWN]
    return dg.AssetCheckResult(
        check_name="columns_vary",
        passed=not constant,
        severity=dg.AssetCheckSeverity.ERROR if stuck or not constant else dg.AssetCheckSeverity.WARN,
        metadata={"constant_columns": len(constant), "first": str(dict(first) or "none")},
    )


def _zero_columns(figures: DayFigures) -> dict[date, set[str]]:
    """By session, the columns that have values, all of them zero."""
    zero = (figures.smallest == 0) & (figures.largest == 0)
    return {
        day: {figures.names[column] for column in np.flatnonzero(zero[row])} for row, day in enumerate(figures.days)
    }


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
    explained = pl.col("gross_return") + pl.col("interest") - pl.sum_horizontal(COSTS, ignore_nulls=False)
    unexplained = (pl.col("net_return") - explained).abs() > 1e-9
    broken = (pl.col("equity") <= 0) | unexplained
    return _result("equity_adds_up", days.filter(broken.fill_null(True)))


def legs_balance(plan: pl.DataFrame, largest_leg: float) -> dg.AssetCheckResult:
    """Neither leg of a plan weighs more than the rules allow, and every stock that was chosen has a price.

    One kept from an earlier decision, which has neither price nor score, waits until it trades again.
    """
    legs = plan.group_by("date").agg(
        long=pl.col("target_weight").clip(lower_bound=0).sum(),
        short=-pl.col("target_weight").clip(upper_bound=0).sum(),
        priced=(pl.col("reference_price") > 0).fill_null(pl.col("score").is_null()).all(),
    )
    limit = largest_leg + 1e-9
    broken = legs.filter((pl.col("long") > limit) | (pl.col("short") > limit) | ~pl.col("priced"))
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
