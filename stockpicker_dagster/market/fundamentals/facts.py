"""The table of reported facts: its columns, the concepts that are kept, and when a fact became known.

A fact is one figure of one filing; a later filing that says something else about the same period is another fact and
overwrites nothing. Where facts come from is the matter of `edgar`, what they add up to that of `statements`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

import polars as pl

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar

FACTS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "cik": pl.String(),
    "concept": pl.String(),
    "start": pl.Date(),
    "end": pl.Date(),
    "value": pl.Float64(),
    "unit": pl.String(),
    "form": pl.String(),
    "filing": pl.String(),
    "filed": pl.Date(),
    "accepted": pl.Datetime("us"),
    "known_at": pl.Date(),
    "source": pl.String(),
}
"""date the session that holds the fact: `known_at`, or the source's first session for what was known before it; cik the
filer's number of ten digits; concept the tag with its taxonomy; start the first day of the period, null for a figure at
one moment; end its last day; value in `unit`; filing the accession number; filed the day that the filing counts for;
accepted the clock time that the filing's list states, in no time zone, null where it states none; known_at the first
session after whose close the fact may be used."""

FILERS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "cik": pl.String(),
    "source": pl.String(),
}
"""Whose facts a symbol was given on each session; cik null where the source knows no filer of that symbol."""

FACTS_CONTRACT = "facts 1"
"""Changes with the schemas above and with `ITEMS`, so that days stored in another shape are made again."""

Kind = Literal["moment", "period"]


@dataclass(frozen=True)
class Item:
    """A figure of the statements and the concepts that mean it, the most exact first.

    A `moment` is true at one day, such as a balance; a `period` adds up from one day to another.
    """

    name: str
    kind: Kind
    unit: str
    concepts: tuple[str, ...]


def _gaap(*tags: str) -> tuple[str, ...]:
    return tuple(f"us-gaap:{tag}" for tag in tags)


ITEMS: tuple[Item, ...] = (
    Item("assets", "moment", "USD", _gaap("Assets")),
    Item("stockholders_equity", "moment", "USD", _gaap("StockholdersEquity")),
    Item(
        "total_equity",
        "moment",
        "USD",
        _gaap("StockholdersEquityIncludingPortionAttributableToNoncontrollingInterest"),
    ),
    Item("minority_interest", "moment", "USD", _gaap("MinorityInterest")),
    Item("preferred_stock", "moment", "USD", _gaap("PreferredStockValue", "PreferredStockValueOutstanding")),
    Item(
        "deferred_taxes",
        "moment",
        "USD",
        _gaap("DeferredTaxLiabilitiesNoncurrent", "DeferredIncomeTaxLiabilitiesNet", "DeferredIncomeTaxLiabilities"),
    ),
    Item(
        "revenue",
        "period",
        "USD",
        _gaap(
            "Revenues",
            "RevenueFromContractWithCustomerExcludingAssessedTax",
            "RevenueFromContractWithCustomerIncludingAssessedTax",
            "SalesRevenueNet",
            "SalesRevenueGoodsNet",
        ),
    ),
    Item("cost_of_revenue", "period", "USD", _gaap("CostOfRevenue", "CostOfGoodsAndServicesSold", "CostOfGoodsSold")),
    Item("gross_profit", "period", "USD", _gaap("GrossProfit")),
    Item("selling_and_administration", "period", "USD", _gaap("SellingGeneralAndAdministrativeExpense")),
    Item(
        "interest_expense",
        "period",
        "USD",
        _gaap("InterestExpense", "InterestExpenseNonoperating", "InterestExpenseDebt"),
    ),
    Item(
        "net_income",
        "period",
        "USD",
        _gaap("NetIncomeLoss", "NetIncomeLossAvailableToCommonStockholdersBasic", "ProfitLoss"),
    ),
    Item(
        "operating_cash_flow",
        "period",
        "USD",
        _gaap(
            "NetCashProvidedByUsedInOperatingActivities",
            "NetCashProvidedByUsedInOperatingActivitiesContinuingOperations",
        ),
    ),
    Item("cover_shares", "moment", "shares", ("dei:EntityCommonStockSharesOutstanding",)),
    Item("balance_shares", "moment", "shares", _gaap("CommonStockSharesOutstanding")),
)
"""Every figure that is kept. A concept belongs to one item; what is reported in another unit is left out, never
converted."""

CONCEPTS: dict[str, Item] = {concept: item for item in ITEMS for concept in item.concepts}
"""The item that each kept concept means."""

SHARE_CONCEPTS = tuple(concept for concept, item in CONCEPTS.items() if item.unit == "shares")
"""Counts of shares: they belong to the company's main class of stock alone."""

PERIODIC_FORMS = frozenset(
    form + amended for form in ("10-K", "10-Q", "10-KT", "10-QT", "20-F", "40-F") for amended in ("", "/A")
)
"""The regular reports whose figures are kept: prospectuses and ad-hoc reports restate in between, and are not."""

_FILING_CLOCK = ZoneInfo("America/New_York")


def known_session(filed: date, accepted: datetime | None, calendar: "TradingCalendar") -> date:
    """The first session after whose close a filing may be used.

    With a time of acceptance it is the first session that closes after it, and never one before `filed`; without one,
    the session after `filed`. The time is read as New York's clock. The list of filings marks it as UTC, but for about
    a fifth of the filers it is New York's clock under that mark, and nothing tells which; New York's clock is behind
    UTC, so reading it so is up to five hours late and never early.
    """
    if accepted is None:
        return calendar.next_session(filed)
    moment = accepted.replace(tzinfo=_FILING_CLOCK).astimezone(UTC)
    day = accepted.date()
    counted = day if calendar.is_session(day) and moment < calendar.close_at(day) else calendar.next_session(day)
    return max(counted, filed if calendar.is_session(filed) else calendar.next_session(filed))


def as_first_reported(facts: pl.DataFrame) -> pl.DataFrame:
    """For each symbol, concept and period the fact that was known first: what a person could have read at the time.

    Of facts known on one session the earlier filing counts. Sorted by symbol, concept, start and end.
    """
    return _one_per_period(facts, last=False)


def latest_known(facts: pl.DataFrame, day: date) -> pl.DataFrame:
    """For each symbol, concept and period the last fact known after the close of `day`, restatements included."""
    return _one_per_period(facts.filter(pl.col("known_at") <= day), last=True)


def in_order_of_knowledge(facts: pl.DataFrame) -> pl.DataFrame:
    """The facts of each symbol as they became known; within one filing the most exact concept of an item first."""
    ranks = {concept: rank for item in ITEMS for rank, concept in enumerate(item.concepts)}
    rank = pl.col("concept").replace_strict(ranks, default=len(ranks), return_dtype=pl.Int32)
    return facts.sort("symbol", "known_at", "filed", "filing", rank, "concept", "start", "end", "value")


def _one_per_period(facts: pl.DataFrame, *, last: bool) -> pl.DataFrame:
    period = ["symbol", "concept", "unit", "start", "end"]
    ordered = in_order_of_knowledge(facts)
    kept = ordered.unique(period, keep="last" if last else "first", maintain_order=True)
    return kept.sort("symbol", "concept", "start", "end")


def empty_facts() -> pl.DataFrame:
    """A table of facts without rows."""
    return pl.DataFrame(schema=FACTS_SCHEMA)


def keep_the_stored_facts(fresh: pl.DataFrame, stored: pl.DataFrame | None) -> tuple[pl.DataFrame, int]:
    """What to store for days that were collected before, and how many stored facts the source now tells otherwise.

    A report whose facts are stored keeps them as they are; only reports that a symbol had none of are added, such as
    those of a symbol that was never asked for.
    """
    if stored is None:
        return fresh, 0
    report = ["symbol", "date", "filing"]
    same = ["symbol", "date", "filing", "concept", "start", "end", "value"]
    added = fresh.join(stored, on=report, how="anti")
    again = fresh.join(stored, on=report, how="semi")
    gone = stored.join(fresh, on=same, how="anti", nulls_equal=True).height
    new = again.join(stored, on=same, how="anti", nulls_equal=True).height
    kept = pl.concat([stored, added]).sort("date", "symbol", "filed", "filing", "concept", "start", "end")
    return kept, max(gone, new)


def keep_the_stored_filers(fresh: pl.DataFrame, stored: pl.DataFrame | None) -> pl.DataFrame:
    """Whose facts each symbol was given: what was stored of a day stays, other symbols and days are added."""
    if stored is None:
        return fresh
    added = fresh.join(stored, on=["symbol", "date"], how="anti")
    return pl.concat([stored, added]).sort("date", "symbol")
