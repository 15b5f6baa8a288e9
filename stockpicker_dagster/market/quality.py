"""The quality of whole sessions of prices, and the stored rows that a person should look at.

A session that cannot be right as a whole (half of it is missing, yesterday's file was sent again) is refused before it
is stored, so that nothing is built on it and the rest of it is no restatement when it comes. Single rows are judged by
`market.prices`; a row that is possible but unlikely is stored, and flagged here. Everything is judged with the day
itself and earlier days alone, except a reversal, which is known on the next day and says so.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from stockpicker_dagster.errors import StockPickerError

TRAILING = 21
"""Sessions that the usual number of rows is the median of."""
FEWEST_ROWS = 20
"""A share of fewer rows than this is no evidence: smaller sessions are never refused."""
WHOLE = 0.9
"""A session with fewer rows than this share of the usual number is partial. Over 7,072 US stocks of 2015 to 2017 and
607 of 2000 to 2024 every session but one had at least 0.995 of it, and the one, truly partial, 0.83."""
STALE = 0.5
"""A session in which this share of the stocks repeats its last close is an earlier one sent again: the same data never
had more than 0.11."""
REJECTED = 0.1
"""A session of which more than this share was rejected is broken as a whole; the same data never had more than 0.05."""

EXTREME = 0.5
"""A return beyond this, up or down, is flagged: beyond +-50 % bad prints outnumber real moves by dollar volume."""
REVERSED = 0.2
"""An extreme move that the next row takes back to within this of where it began was probably a bad print."""

FLAGS: dict[str, str] = {
    "extreme_move": f"close and adjustment together moved by more than {EXTREME:.0%}",
    "likely_bad_print": "an extreme move that the next row took back; known one session later",
    "repeated_row": "open, high, low, close and volume are all those of the row before",
    "zero_volume": "nothing traded; the close is the vendor's",
}
"""What a stored row may be flagged as; the row is kept, and nothing is computed differently for it."""

SESSIONS_SCHEMA: dict[str, pl.DataType] = {
    "date": pl.Date(),
    "rows": pl.UInt32(),
    "usual_rows": pl.Float64(),
    "rejected": pl.UInt32(),
    "unchanged": pl.Float64(),
    "idle": pl.Float64(),
}
"""One row a session: accepted rows; the median number over the `TRAILING` sessions before (null with fewer than five);
rejected rows; the shares of its rows at the close of the row before, and without volume (null for an empty session)."""


class SessionRefused(StockPickerError):
    """A session cannot be right as a whole; nothing of the run was stored."""


@dataclass(frozen=True)
class Refusal:
    """Why one session is not stored."""

    day: date
    reason: str


def sessions(
    prices: pl.DataFrame, quarantine: pl.DataFrame, days: Sequence[date], earlier: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The figures of each of `days` in `SESSIONS_SCHEMA`.

    `prices`, in order of date, and `quarantine` are of `days`; `earlier` holds the stored prices of the sessions before
    them, of which the last `TRAILING` count.
    """
    needed = ["symbol", "date", "close", "volume"]
    before = prices.clear() if earlier is None else earlier
    # Both are by date already, so that nothing has to be sorted: of a whole market a sorted copy takes gigabytes.
    rows = pl.concat([before.select(needed), prices.select(needed)], rechunk=False)
    last_close = pl.col("close").shift(1).over("symbol")
    counted = (
        rows.lazy()
        .select("date", unchanged=(pl.col("close") == last_close).fill_null(False), idle=pl.col("volume") == 0)
        .group_by("date")
        .agg(pl.len().alias("rows"), pl.col("unchanged", "idle").mean())
        .collect()
    )
    known = sorted({*before["date"].unique(), *days})
    usual = pl.col("rows").rolling_median(TRAILING, min_samples=5).shift(1)
    rejected = quarantine.filter(pl.col("reason") != "restated").group_by("date").agg(rejected=pl.len())
    figures = (
        pl.DataFrame({"date": known}, schema={"date": pl.Date})
        .join(counted, on="date", how="left")
        .join(rejected, on="date", how="left")
        .with_columns(pl.col("rows", "rejected").fill_null(0))
        .sort("date")
        .with_columns(usual_rows=usual)
    )
    return figures.filter(pl.col("date").is_in(sorted(days))).select(
        pl.col(name).cast(kind) for name, kind in SESSIONS_SCHEMA.items()
    )


def refusals(figures: pl.DataFrame, accepted_days: Collection[date] = ()) -> list[Refusal]:
    """The sessions that cannot be right as a whole, by date, without those that a person let through.

    `figures` are of `sessions`. An empty session of a source that usually has rows is a partial one.
    """
    found = []
    for row in figures.iter_rows(named=True):
        came = row["rows"] + row["rejected"]
        if row["date"] in accepted_days or max(came, row["usual_rows"] or 0) < FEWEST_ROWS:
            continue
        # What came and was rejected did come: a broken session is named for what it is.
        if came and row["rejected"] > REJECTED * came:
            found.append(Refusal(row["date"], f"{row['rejected']} of its {came} rows were rejected"))
        elif row["usual_rows"] is not None and row["rows"] < WHOLE * row["usual_rows"]:
            found.append(Refusal(row["date"], f"it has {row['rows']} rows where {row['usual_rows']:.0f} are usual"))
        elif row["unchanged"] is not None and row["unchanged"] > STALE:
            found.append(Refusal(row["date"], f"{row['unchanged']:.0%} of its closes are those of the session before"))
    return found


def refusal_message(source: str, refused: Sequence[Refusal]) -> str:
    """One sentence about all refused sessions, with the way out."""
    named = "; ".join(f"{each.day}: {each.reason}" for each in refused[:5])
    others = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
    days = " ".join(str(each.day) for each in refused)
    return (
        f"price source {source!r} gave {len(refused)} session{'s' if len(refused) != 1 else ''} that cannot be right "
        f"as a whole, and nothing of this run was stored ({named}{others}); run again when the source has mended them, "
        f'or let them through with `stockpicker data accept-day {source} {days} --reason "..."`'
    )


def flagged(prices: pl.DataFrame) -> pl.DataFrame:
    """The rows to look at, of `prices` in order of date: `symbol`, `date`, `flag` (of `FLAGS`) and `detail`.

    `detail` has the closes of the row before, of the row and of the row after.

    A row has at most one flag, the first that applies of: likely bad print, extreme move, repeated row, zero volume.
    """
    by_symbol = {"last_close": pl.col("close").shift(1), "next_close": pl.col("close").shift(-1)}
    figures = ("open", "high", "low", "close", "volume")
    same = pl.all_horizontal([pl.col(name) == pl.col(name).shift(1) for name in figures])
    next_adjustment = pl.col("adjustment").shift(-1)
    gross = pl.col("close") * pl.col("adjustment") / pl.col("last_close")
    back = pl.col("next_close") * pl.col("next_adjustment") * pl.col("adjustment") / pl.col("last_close")
    extreme = (gross > 1 + EXTREME) | (gross < 1 - EXTREME)
    flag = (
        pl.when(extreme & (back - 1).abs().le(REVERSED))
        .then(pl.lit("likely_bad_print"))
        .when(extreme)
        .then(pl.lit("extreme_move"))
        .when(pl.col("same") & (pl.col("volume") > 0))
        .then(pl.lit("repeated_row"))
        .when(pl.col("volume") == 0)
        .then(pl.lit("zero_volume"))
    )
    shown = [pl.col(name).round_sig_figs(6) for name in ("last_close", "close", "next_close")]
    closes = pl.format("{} -> {} -> {}", *[each.cast(pl.String).fill_null("none") for each in shown])
    beside = {**by_symbol, "next_adjustment": next_adjustment, "same": same}
    rows = prices.lazy().select(
        "symbol",
        "date",
        "close",
        "volume",
        "adjustment",
        **{name: each.over("symbol") for name, each in beside.items()},
    )
    found = rows.with_columns(flag=flag).filter(pl.col("flag").is_not_null())
    return found.select("symbol", "date", "flag", detail=closes).sort("date", "symbol").collect()
