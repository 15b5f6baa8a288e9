"""How much a universe's history may owe to names that are missing from it, as far as stored prices can tell.

Two figures. *Coverage* says how many members of a year have any price: those without are mostly the ones that failed or
were taken over. The *return gap* is the mean daily return of the stocks as ranked less that of a comparison set, equal
weights, times 252: about how much a year of holding everything in the universe was flattered by who is in it. A
long-short book holds both sides, so that its own bias may be smaller, or larger, than the gap.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

SESSIONS_PER_YEAR = 252
LARGEST_RETURN = 0.5
"""Daily returns beyond this, up or down, are left out: one bad print would outweigh a thousand stocks."""
LONGEST_GAP = timedelta(days=7)
"""A return over more days without a row is left out."""
LAST_SESSIONS = 10
"""A stock that has a price on one of so many last sessions survived to the end."""
LEAST_BESIDE = 1.5
"""Prices of so many times the symbols that were ever ranked hold something to compare with."""
COMPLETE = 0.95
"""From this share of members with prices on, the prices count as complete."""


@dataclass(frozen=True)
class YearOfSurvivorship:
    """One calendar year: the `members` on some day of it, how many of them `with_prices`, and the return `gap`.

    `gap` is a fraction a year (0.02: two percentage points); None where there is nothing to compare with.
    """

    year: int
    members: int
    with_prices: int
    gap: float | None


@dataclass(frozen=True)
class Survivorship:
    """The estimate for one universe: `gap` over all days as a fraction a year, None where `compared` says why not.

    `compared` says in words which sets are compared.
    """

    years: tuple[YearOfSurvivorship, ...]
    gap: float | None
    compared: str

    @property
    def coverage(self) -> float | None:
        """The share of the years' members that have prices; None without members."""
        members = sum(year.members for year in self.years)
        return sum(year.with_prices for year in self.years) / members if members else None


def coverage_by_year(membership: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """`year`, `members` and `with_prices`: how many members of a year have any price in it.

    Both frames hold `symbol` and `date`; a stock counts once a year.
    """
    priced = prices.select("symbol", year=pl.col("date").dt.year()).unique().with_columns(priced=True)
    return (
        membership.select("symbol", year=pl.col("date").dt.year())
        .unique()
        .join(priced, on=["symbol", "year"], how="left")
        .group_by("year")
        .agg(members=pl.len(), with_prices=pl.col("priced").fill_null(False).sum())
        .sort("year")
    )


def mean_returns(members: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """The equally weighted mean return of each day's members until their next row: `date` of that row, `mean`.

    A return is close x adjustment / previous close - 1 and belongs to whoever was a member (`symbol`, `date`) on the
    day of the previous close. Returns beyond `LARGEST_RETURN` or over more than `LONGEST_GAP` are left out; a delisting
    return is in none.
    """
    returns = (
        prices.sort("symbol", "date")
        .select(
            "symbol",
            "date",
            since=pl.col("date").shift(1).over("symbol"),
            value=pl.col("close") * pl.col("adjustment") / pl.col("close").shift(1).over("symbol") - 1.0,
        )
        .filter((pl.col("date") - pl.col("since") <= LONGEST_GAP) & (pl.col("value").abs() <= LARGEST_RETURN))
    )
    held = returns.join(members.select("symbol", since="date"), on=["symbol", "since"], how="semi")
    return held.group_by("date").agg(mean=pl.col("value").mean()).sort("date")


def return_gap(one: pl.DataFrame, other: pl.DataFrame, prices: pl.DataFrame) -> tuple[float | None, dict[int, float]]:
    """(mean daily return of `one` less that of `other`) x 252, over all days that both have and by year.

    Both are memberships (`symbol`, `date`). None and no years where they have no day in common.
    """
    days = mean_returns(one, prices).join(mean_returns(other, prices), on="date", suffix="_other")
    if days.is_empty():
        return None, {}
    days = days.select(year=pl.col("date").dt.year(), gap=(pl.col("mean") - pl.col("mean_other")) * SESSIONS_PER_YEAR)
    by_year = days.group_by("year").agg(pl.col("gap").mean()).sort("year")
    return float(days.select(pl.col("gap").mean()).item()), dict(by_year.iter_rows())


def survivors(members: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """The rows of `members` whose stock still has a price on one of the `LAST_SESSIONS` last days of `prices`."""
    last = prices["date"].unique().sort().tail(LAST_SESSIONS)
    alive = prices.filter(pl.col("date").is_in(last.implode())).select("symbol").unique()
    return members.join(alive, on="symbol", how="semi", maintain_order="left")


def estimate_survivorship(
    membership: pl.DataFrame,
    ranked: pl.DataFrame,
    prices: pl.DataFrame,
    *,
    hindsight_until: date | None,
    comparison: pl.DataFrame | None,
) -> Survivorship:
    """What can be said about a universe with `membership`, of which `ranked` were ranked, from stored `prices`.

    Members, ranked and comparison hold `symbol` and `date`. `hindsight_until` is the first day from which membership is
    point in time: None where all of it is, `date.max` where none is. `comparison` is what the prices hold beside the
    universe, chosen without hindsight; None if they hold nothing beside it. A list with hindsight is compared with it;
    a universe as of each day, if its prices are complete, is compared with its own survivors, which tells what leaving
    out the others would have added, and that it was not added.
    """
    years = coverage_by_year(membership, prices)
    members, priced = int(years["members"].sum()), int(years["with_prices"].sum())
    gap: float | None = None
    by_year: dict[int, float] = {}
    if hindsight_until is not None:
        before = ranked.filter(pl.col("date") < hindsight_until)
        if before.is_empty():
            compared = "no day ranked so far was ranked with hindsight"
        elif comparison is None:
            compared = "the return gap cannot be estimated: the prices hold no stock beside the universe's own"
        else:
            gap, by_year = return_gap(before, comparison, prices)
            compared = "as ranked, less as many stocks of the largest dollar volume before each quarter"
            if gap is None:
                compared = "the return gap cannot be estimated: too few sessions to choose what to compare with"
    elif priced < COMPLETE * members:
        compared = "the return gap cannot be estimated: the returns of the members without prices are not known"
    elif (alive := survivors(ranked, prices)).height == ranked.height:
        compared = "the return gap cannot be estimated: no stock that was ranked has stopped trading"
    else:
        gap, by_year = return_gap(alive, ranked, prices)
        compared = "what ranking only the stocks that still trade would have added; they were not left out"
    return Survivorship(
        years=tuple(
            YearOfSurvivorship(year, count, with_prices, by_year.get(year))
            for year, count, with_prices in years.iter_rows()
        ),
        gap=gap,
        compared=compared,
    )
