"""Comparing two sources where both have a row: adjusted daily returns, and the likely cause of every disagreement.

Adjusted returns are compared because they are what features, labels and the back-test see, and because they agree
whatever the basis of the prices. Which source is right is not decided here, and nothing stored is changed.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

TOLERANCE = 1e-4
"""Largest difference of two daily returns, as fractions, that counts as agreement: prices in cents differ by less."""

CAUSES: dict[str, str] = {
    "two_securities": "most returns of these weeks differ: the ticker means another security in each source",
    "split_in_one": "one source has a split on that day that the other lacks",
    "dividend_in_one": "one source has a dividend on that day that the other lacks",
    "dividend_of_another_size": "both have a dividend on that day, of different sizes or for different spin-offs",
    "shifted_event": "the difference is undone within five rows: the same event is dated differently",
    "stale_row": "one source repeats its close of the day before, and catches up on the next row",
    "bad_print": "the difference is undone on the next row: one source has a wrong close in between",
    "undone_later": "the difference was begun on one of the five rows before, and is undone by this row",
    "restated_in_one": "the closes agree before and after, and step apart for good: a split or spin-off that one lacks",
    "close_differs": "the closes themselves differ, by no known pattern",
}
"""Every likely cause of a disagreement; of several the first that fits in this order is named."""

DISAGREEMENTS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "cause": pl.String(),
    "return_first": pl.Float64(),
    "return_second": pl.Float64(),
    "close_first": pl.Float64(),
    "close_second": pl.Float64(),
    "volume_ratio": pl.Float64(),
}
"""Returns are fractions of the day before; closes are as each source has them; volume_ratio is second by first."""

_NEAR = 5
"""Rows within which a difference that is undone counts as one event dated differently."""
_WEEKS = 21
"""Rows in whose middle a row lies of which most differ where a ticker means two securities."""
_STEP = 2e-3
_EVENT = 1e-9


@dataclass(frozen=True)
class CrossCheck:
    """What two sources say about the rows that both have.

    `compared` counts the returns compared: common rows whose row before is common as well, and the same day in both.
    `disagreements` has one row for each that differs by more than the tolerance, by symbol and date.
    """

    compared: int
    disagreements: pl.DataFrame

    @property
    def agreement(self) -> float:
        """The share of compared returns that agree; NaN if there are none."""
        return 1.0 - self.disagreements.height / self.compared if self.compared else float("nan")

    def causes(self) -> dict[str, int]:
        """How many disagreements each likely cause explains, the most frequent first."""
        counted = self.disagreements["cause"].value_counts().sort("count", "cause", descending=[True, False])
        return dict(counted.iter_rows())


def cross_check(first: pl.DataFrame, second: pl.DataFrame, tolerance: float = TOLERANCE) -> CrossCheck:
    """Compares two frames in `market.prices.PRICES_SCHEMA` on the symbols and days that both have.

    A return is close x adjustment / previous close - 1, from the preceding row of each source; it is compared where
    both mean the same preceding day.
    """
    sides = [_with_returns(frame) for frame in (first, second)]
    key = ["symbol", "date"]
    common = sides[0].join(sides[1], on=key, suffix="_second", maintain_order="left").sort(key)
    comparable = pl.col("before") == pl.col("before_second")
    gap = (1.0 + pl.col("return")).log() - (1.0 + pl.col("return_second")).log()
    common = common.filter(comparable & pl.col("return").is_finite() & pl.col("return_second").is_finite())
    common = common.with_columns(gap=gap, differs=(pl.col("return") - pl.col("return_second")).abs() > tolerance)
    found = common.with_columns(cause=_cause(tolerance)).filter("differs")
    disagreements = found.select(
        "symbol",
        "date",
        "cause",
        pl.col("return").alias("return_first"),
        pl.col("return_second"),
        pl.col("close").alias("close_first"),
        pl.col("close_second"),
        volume_ratio=pl.col("volume_second") / pl.col("volume"),
    )
    return CrossCheck(common.height, disagreements.cast(dict(DISAGREEMENTS_SCHEMA)))  # type: ignore[arg-type]


def _with_returns(prices: pl.DataFrame) -> pl.DataFrame:
    """Each row with its return and the day that it is counted from."""
    rows = prices.select("symbol", "date", "close", "volume", "dividend", "split_ratio", "adjustment")
    rows = rows.sort("symbol", "date")
    previous = pl.col("close").shift(1).over("symbol")
    return rows.with_columns(
        (pl.col("close") * pl.col("adjustment") / previous - 1.0).alias("return"),
        before=pl.col("date").shift(1).over("symbol"),
        unchanged=pl.col("close") == previous,
    )


def _cause(tolerance: float) -> pl.Expr:
    """The first likely cause of each row, from the rows of its symbol around it."""
    gap = pl.col("gap")
    near = 2.0 * tolerance

    def undone(step: int) -> pl.Expr:
        """Whether this row's gap and that of one of the rows up to `step` away add up to nothing."""
        steps = range(1, abs(step) + 1) if step > 0 else range(-1, step - 1, -1)
        sums = [(gap + gap.shift(-away).over("symbol")).abs() < near for away in steps]
        return pl.any_horizontal(sums).fill_null(False)

    def in_one(name: str, none: float) -> pl.Expr:
        return ((pl.col(name) - none).abs() > _EVENT) != ((pl.col(f"{name}_second") - none).abs() > _EVENT)

    dividends = (pl.col("dividend") > _EVENT) & (pl.col("dividend_second") > _EVENT)
    beside = [pl.col("differs").shift(step, fill_value=False).over("symbol") for step in (1, -1)]
    alone = ~pl.any_horizontal(beside)
    share = pl.col("differs").cast(pl.Float64).rolling_mean(_WEEKS, center=True, min_samples=1).over("symbol")
    eventful = in_one("split_ratio", 1.0) | in_one("dividend", 0.0)
    tests = {
        "two_securities": share > 0.5,
        "split_in_one": in_one("split_ratio", 1.0) & ~undone(_NEAR) & ~undone(-_NEAR),
        "dividend_in_one": in_one("dividend", 0.0) & ~undone(_NEAR) & ~undone(-_NEAR),
        "dividend_of_another_size": dividends,
        "shifted_event": eventful & undone(_NEAR),
        "stale_row": (pl.col("unchanged") != pl.col("unchanged_second")) & undone(1),
        "bad_print": undone(1),
        "undone_later": undone(-_NEAR),
        "restated_in_one": alone & (gap.abs() > _STEP),
    }
    named = [pl.when(test).then(pl.lit(name)) for name, test in tests.items()]
    return pl.coalesce(*named, pl.lit("close_differs"))


def summary(check: CrossCheck) -> dict[str, Any]:
    """The figures for people: how many returns were compared, the share that agrees, and the likely causes."""
    return {"compared": check.compared, "agreement": check.agreement, "causes": check.causes()}
