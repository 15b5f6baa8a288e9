"""The report on the prices of one source: what came in, what was stored, what was rejected and what to look at.

Figures alone, from frames in the price contract; the page is `data_report.html` beside this file. Nothing is decided
or changed here, and suspected changes of ticker are only named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market import quality
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.prices import REASONS
from stockpicker_dagster.market.restatements import RESTATED

SHOWN = 200
"""Rows that a list on the page shows; the total is always named."""
_SHOWN_AS_TEXT = 10
LIKE_PRICE = 0.1
"""A new ticker whose first close is within this of the last close of one that ended the session before is named."""

_IDLE = ["stale_close", "moved_without_volume"]

Rows = list[dict[str, Any]]


class RowsUnaccountedFor(StockPickerError):
    """Some rows that came in were neither stored nor rejected."""


@dataclass(frozen=True)
class DataReport:
    """What `summarize` found. Lists of rows are cut at `SHOWN`; `totals` has how many there are of each."""

    source: str
    caveat: str | None
    first: date | None
    last: date | None
    rows_in: int
    stored: int
    rejected: dict[str, int]
    restated: int
    symbols: int
    years: Rows
    refused: Rows
    missing_sessions: list[date]
    by_source: dict[str, int]
    events: dict[str, int]
    delistings: int
    flags: dict[str, int]
    worst_symbols: Rows
    bad_prints: Rows
    ticker_changes: Rows
    quarantine: Rows
    disagreements: Rows
    agreement: str | None
    totals: dict[str, int]


def summarize(
    source: str,
    caveat: str | None,
    prices: pl.DataFrame,
    quarantine: pl.DataFrame,
    delistings: pl.DataFrame,
    calendar: TradingCalendar,
    rows_in: int | None = None,
    agreement: str | None = None,
    disagreements: pl.DataFrame | None = None,
) -> DataReport:
    """The report on frames in the schemas of `market.prices`, over the exchange's sessions from first to last row.

    `rows_in` is how many rows came, counted before they were judged, None where only what became of them is known.
    `agreement` and `disagreements` are of a comparison with another source. Raises `RowsUnaccountedFor` unless rows in
    = rows stored + rows rejected; what is quarantined as restated is said about rows that are stored, and apart.
    """
    restated = quarantine.filter(pl.col("reason") == RESTATED)
    rejected = quarantine.filter(pl.col("reason") != RESTATED)
    accounted = prices.height + rejected.height
    if rows_in is not None and rows_in != accounted:
        raise RowsUnaccountedFor(
            f"{rows_in} rows came in, but {prices.height} were stored and {rejected.height} rejected; this is a "
            "mistake of StockPicker, so please report it with the file"
        )
    first, last = (prices["date"].min(), prices["date"].max()) if prices.height else (None, None)
    days = calendar.sessions(first, last) if isinstance(first, date) and isinstance(last, date) else []
    figures = quality.sessions(prices, rejected, days)
    refused = quality.refusals(figures)
    flags = quality.flagged(prices)
    prints = flags.filter(pl.col("flag") == "likely_bad_print")
    changes = suspected_ticker_changes(prices)
    worst = _worst(rejected, flags)
    apart = pl.DataFrame() if disagreements is None else _rarest_first(disagreements, "cause")
    return DataReport(
        source=source,
        caveat=caveat,
        first=days[0] if days else None,
        last=days[-1] if days else None,
        rows_in=accounted,
        stored=prices.height,
        rejected=_counts(rejected, "reason"),
        restated=restated.height,
        symbols=prices["symbol"].n_unique(),
        years=_years(prices, rejected, delistings, days),
        refused=[{"date": each.day, "reason": each.reason} for each in refused],
        missing_sessions=figures.filter(pl.col("rows") == 0)["date"].to_list(),
        by_source=_counts(prices, "source"),
        events={
            "splits": prices.filter(pl.col("split_ratio") != 1.0).height,
            "dividends": prices.filter(pl.col("dividend") != 0.0).height,
        },
        delistings=delistings.height,
        flags=_counts(flags, "flag"),
        worst_symbols=worst.head(SHOWN).to_dicts(),
        bad_prints=prints.head(SHOWN).to_dicts(),
        ticker_changes=changes.head(SHOWN).to_dicts(),
        quarantine=_rarest_first(quarantine, "reason").head(SHOWN).to_dicts(),
        disagreements=apart.head(SHOWN).with_columns(cs.float().round_sig_figs(5)).to_dicts(),
        agreement=agreement,
        totals={
            "worst_symbols": worst.height,
            "bad_prints": prints.height,
            "ticker_changes": changes.height,
            "quarantine": quarantine.height,
            "disagreements": apart.height,
        },
    )


def suspected_ticker_changes(prices: pl.DataFrame) -> pl.DataFrame:
    """Tickers that end on one session while another begins on the next at a like close; nothing is changed by it.

    `old`, `new`, `date` (the first session of the new one), `last_close`, `first_close`, nearest closes first. A ticker
    is paired with the nearest one; many tickers end and begin at like prices by chance, so each needs a person's look.
    """
    rows = prices.sort("symbol", "date")
    ends = rows.group_by("symbol").agg(
        first_day=pl.col("date").first(),
        last_day=pl.col("date").last(),
        first_close=pl.col("close").first(),
        last_close=pl.col("close").last(),
    )
    sessions = prices.select(pl.col("date").unique().sort()).with_columns(next_day=pl.col("date").shift(-1))
    old = ends.select(old="symbol", date="last_day", last_close="last_close").join(sessions, on="date")
    new = ends.select(new="symbol", next_day="first_day", first_close="first_close")
    apart = (pl.col("first_close") / pl.col("last_close") - 1).abs()
    pairs = old.join(new, on="next_day").with_columns(apart=apart).filter(pl.col("apart") <= LIKE_PRICE)
    nearest = pairs.sort("apart", "old", "new").unique("old", keep="first", maintain_order=True)
    nearest = nearest.unique("new", keep="first", maintain_order=True)
    return nearest.select("old", "new", pl.col("next_day").alias("date"), "last_close", "first_close")


def _years(prices: pl.DataFrame, rejected: pl.DataFrame, delistings: pl.DataFrame, days: Sequence[date]) -> Rows:
    """By year: sessions with rows of all sessions, symbols, rows, what was rejected, and coverage.

    Coverage is the share of the days of each symbol, from its first to its last row of the year, on which it has one.
    """
    year = pl.col("date").dt.year().alias("year")
    position = pl.DataFrame({"date": days}, schema={"date": pl.Date}).with_row_index("position")
    placed = prices.select("symbol", "date").join(position, on="date")
    spans = placed.group_by(year, "symbol").agg(
        rows=pl.len(), span=(pl.col("position").max() - pl.col("position").min() + 1).cast(pl.Int64)
    )
    by_symbol = spans.group_by("year").agg(
        symbols=pl.len(), rows=pl.col("rows").sum(), coverage=pl.col("rows").sum() / pl.col("span").sum()
    )
    sessions = position.group_by(year).agg(sessions=pl.len())
    seen = prices.group_by(year).agg(sessions_with_rows=pl.col("date").n_unique())
    table = sessions
    for other in (
        seen,
        by_symbol,
        rejected.group_by(year).agg(rejected=pl.len()),
        delistings.group_by(year).agg(delistings=pl.len()),
    ):
        table = table.join(other, on="year", how="left")
    return table.sort("year").fill_null(0).to_dicts()


def _worst(rejected: pl.DataFrame, flags: pl.DataFrame) -> pl.DataFrame:
    """The symbols with the most to look at: rejected rows and flags, above all those of traded rows."""
    by_reason = rejected.group_by("symbol").agg(
        rejected=pl.len(),
        traded=(~pl.col("reason").is_in(_IDLE)).sum(),
        reasons=pl.col("reason").unique().sort().str.join(", "),
    )
    by_flag = (
        flags.filter(pl.col("flag") != "zero_volume")
        .group_by("symbol")
        .agg(flagged=pl.len(), flags=pl.col("flag").unique().sort().str.join(", "))
    )
    both = by_reason.join(by_flag, on="symbol", how="full", coalesce=True)
    counts, words = ("rejected", "flagged"), ("reasons", "flags")
    both = both.with_columns(pl.col(counts).fill_null(0), pl.col("traded").fill_null(0), pl.col(words).fill_null(""))
    ordered = both.sort(pl.col("traded") + pl.col("flagged"), "rejected", "symbol", descending=[True, True, False])
    return ordered.drop("traded")


def _rarest_first(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """The rows with the least common reason or cause at the top: thousands of one kind would hide the others."""
    return rows.sort(pl.len().over(column), column, "date", "symbol", maintain_order=True)


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    counts = frame[column].cast(pl.String).fill_null("unknown").value_counts()
    return dict(counts.sort("count", column, descending=[True, False]).iter_rows())


def as_text(report: DataReport) -> str:
    """The report for a terminal."""
    span = f"{report.first} to {report.last}" if report.first else "no stored row"
    lines = [f"prices of {report.source}, {span}"]
    if report.caveat:
        lines.append(f"CAVEAT: {report.caveat}")
    lines += [
        "",
        f"rows in {report.rows_in:,} = stored {report.stored:,} + quarantined {sum(report.rejected.values()):,}",
        *(f"  {count:>9,}  {reason}" for reason, count in report.rejected.items()),
    ]
    if report.restated:
        lines.append(f"said otherwise later about stored rows (restated): {report.restated:,}")
    lines += [
        f"{report.symbols:,} symbols, {report.delistings:,} delistings, {report.events['splits']:,} splits, "
        f"{report.events['dividends']:,} dividends",
        "stored rows by source: " + (_listed(report.by_source) or "none"),
        "flagged, and stored: " + (_listed(report.flags) or "none"),
        "",
        f"  {'year':<6}{'sessions':>10}{'symbols':>10}{'rows':>12}{'coverage':>10}{'rejected':>10}{'delisted':>10}",
        *(
            f"  {row['year']:<6}{row['sessions_with_rows']:>5}/{row['sessions']:<4}{row['symbols']:>10,}"
            f"{row['rows']:>12,}{row['coverage']:>10.1%}{row['rejected']:>10,}{row['delistings']:>10,}"
            for row in report.years
        ),
    ]
    lines += _section(
        "sessions that cannot be right as a whole",
        len(report.refused),
        [f"{row['date']}: {row['reason']}" for row in report.refused],
    )
    lines += _section("sessions without any row", len(report.missing_sessions), list(map(str, report.missing_sessions)))
    lines += _section(
        "symbols with the most to look at",
        report.totals["worst_symbols"],
        [
            f"{row['symbol']:<8} {row['rejected']} rejected {row['reasons']}, {row['flagged']} flagged {row['flags']}"
            for row in report.worst_symbols
        ],
    )
    lines += _section(
        "likely bad prints",
        report.totals["bad_prints"],
        [f"{row['symbol']:<8} {row['date']} {row['detail']}" for row in report.bad_prints],
    )
    lines += _section(
        "suspected changes of ticker, none of them applied",
        report.totals["ticker_changes"],
        [
            f"{row['date']} {row['old']} at {row['last_close']:g} -> {row['new']} at {row['first_close']:g}"
            for row in report.ticker_changes
        ],
    )
    if report.agreement:
        lines += ["", report.agreement]
        lines += _section(
            "disagreements",
            report.totals["disagreements"],
            [" ".join(str(value) for value in row.values()) for row in report.disagreements],
        )
    lines += _section(
        "quarantined rows",
        report.totals["quarantine"],
        [f"{row['symbol']:<8} {row['date']} {row['reason']}" for row in report.quarantine],
    )
    return "\n".join(lines)


def _section(title: str, total: int, entries: Sequence[str]) -> list[str]:
    if not total:
        return []
    shown = entries[:_SHOWN_AS_TEXT]
    more = [f"  and {total - len(shown):,} more"] if total > len(shown) else []
    return ["", f"{title}: {total:,}", *(f"  {entry}" for entry in shown), *more]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def as_html(report: DataReport) -> str:
    """The report as one page that needs nothing beside itself; whatever the data says is shown as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return pages.get_template("data_report.html").render(
        report=report,
        reasons={**REASONS, RESTATED: "the source says otherwise now about a stored row"},
        flags=quality.FLAGS,
    )
