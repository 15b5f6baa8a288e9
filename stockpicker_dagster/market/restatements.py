"""What happens when a source answers differently about a day that is already stored.

The stored past is what features and models were made from. A later revision is therefore never taken in silence: what
is stored stays, and what the source says now goes to quarantine under the reason `restated`. Only symbols that a day
was never asked for, and days without any row, are filled in, and what a person decided since takes effect.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import polars as pl

from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Fetched
from stockpicker_dagster.storage.symbol_sets import EVERY_SYMBOL

RESTATED = "restated"
_KEY = ["symbol", "date"]
_TRADED = ("open", "high", "low", "close", "volume")
_FIGURES = [name for name, kind in PRICES_SCHEMA.items() if kind == pl.Float64]
_SAID = [name for name in QUARANTINE_SCHEMA if name not in ("symbol", "date", "reason", "detail")]
_TOLERANCE = 1e-9


REDECIDED_SCHEMA: dict[str, pl.DataType] = {"symbol": pl.String(), "date": pl.Date(), "itself": pl.Boolean()}
"""`itself` where the decision is about that very row; else it is about an earlier one of the symbol, and may change
only the row's events and whether it is accepted."""


@dataclass(frozen=True)
class StoredPast:
    """What is stored of the days that a source is asked for again, each frame in its schema.

    `never_asked` names, by day, the symbols that come into use only now, whose rows are therefore no revisions;
    `EVERY_SYMBOL` stands for every one without a stored row. `redecided` holds the rows that a person's decisions since
    then may change, in `REDECIDED_SCHEMA`.
    """

    prices: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PRICES_SCHEMA))
    delistings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DELISTINGS_SCHEMA))
    quarantine: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE_SCHEMA))
    never_asked: Mapping[date, Collection[str]] = field(default_factory=dict)
    redecided: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REDECIDED_SCHEMA))


def keep_the_stored_past(fetched: Fetched, past: StoredPast, asked: Sequence[str] | None = None) -> Fetched:
    """`fetched` with `past` in the place of whatever differs from it.

    A price differs if any figure does by more than 1e-9, relatively, if a row of an `asked` symbol (None: of any)
    vanished, or if one appeared on a day that has rows; a delisting on such a day differs if it appeared or changed.
    Each is one quarantined row that shows what the source says now; those quarantined as restated before stay.
    """
    if past.prices.is_empty():
        return fetched
    stored_days = past.prices.select("date").unique()
    changed = _changed_by_decisions(fetched, past)
    past = _without(past, changed)
    fresh = fetched.prices.join(past.prices, on=_KEY, how="anti")
    # An empty day may still be filled.
    appeared, late = (
        _asked_before(rows.join(stored_days, on="date", how="semi"), past).join(changed, on=_KEY, how="anti")
        for rows in (fresh, fetched.delistings)
    )
    revised_delistings = late.join(past.delistings, on=late.columns, how="anti", nulls_equal=True)
    quarantine = [
        fetched.quarantine,
        past.quarantine.filter(pl.col("reason") == RESTATED),
        _restated(
            _revised(past.prices, fetched.prices, asked),
            pl.when(pl.col("close_new").is_null())
            .then(pl.lit("the source no longer has this row; the stored one is kept"))
            .otherwise(pl.concat_str([_both(name) for name in _FIGURES], separator=", ")),
        ),
        _restated(appeared, pl.format("the source has a row now that it did not have; its close is {}", "close")),
        _restated(revised_delistings, pl.format("the source reports a delisting now: {}", "reason")),
    ]
    return replace(
        fetched,
        prices=_merged([past.prices, fresh.join(appeared, on=_KEY, how="anti")]),
        delistings=_merged([past.delistings, fetched.delistings.join(late, on=_KEY, how="anti")]),
        quarantine=pl.concat(quarantine).unique(maintain_order=True).sort("date", "symbol", "reason"),
        unanswered=fetched.unanswered,
    )


def _revised(stored: pl.DataFrame, answer: pl.DataFrame, asked: Sequence[str] | None) -> pl.DataFrame:
    """The stored rows that the source does not confirm, with its figures beside them under `_new`."""
    both = stored.join(answer, on=["symbol", "date"], how="left", suffix="_new", coalesce=True)
    was_asked = pl.lit(True) if asked is None else pl.col("symbol").is_in(list(asked))
    vanished = pl.col("close_new").is_null() & was_asked
    return both.filter(vanished | pl.any_horizontal([_differs(name) for name in _FIGURES]))


def _changed_by_decisions(fetched: Fetched, past: StoredPast) -> pl.DataFrame:
    """The `symbol` and `date` of the rows that are taken from the source anew because of a person's decisions."""
    itself = past.redecided.filter("itself").select(_KEY)
    if past.redecided.is_empty():
        return itself
    later = past.redecided.filter(~pl.col("itself")).select(_KEY)
    both = past.prices.join(fetched.prices, on=_KEY, suffix="_new").join(later, on=_KEY, how="semi")
    same_prices = both.filter(~pl.any_horizontal([_differs(name) for name in _TRADED]))
    rejected_now = fetched.quarantine.join(past.prices.join(later, on=_KEY, how="semi"), on=_KEY, how="semi")
    accepted_now = past.quarantine.filter(pl.col("reason") != RESTATED).join(later, on=_KEY, how="semi")
    return pl.concat([itself, *(rows.select(_KEY) for rows in (same_prices, rejected_now, accepted_now))]).unique()


def _without(past: StoredPast, rows: pl.DataFrame) -> StoredPast:
    return replace(
        past,
        prices=past.prices.join(rows, on=_KEY, how="anti"),
        delistings=past.delistings.join(rows, on=_KEY, how="anti"),
        quarantine=past.quarantine.join(rows, on=_KEY, how="anti"),
    )


def _asked_before(rows: pl.DataFrame, past: StoredPast) -> pl.DataFrame:
    """The rows of symbols that their day was asked for before."""
    pairs = [(symbol, day) for day, symbols in past.never_asked.items() for symbol in symbols]
    new = pl.DataFrame(pairs, schema={"symbol": pl.String, "date": pl.Date}, orient="row")
    all_new = new.filter(pl.col("symbol") == EVERY_SYMBOL)
    return rows.join(new, on=_KEY, how="anti").join(all_new, on="date", how="anti")


def _restated(rows: pl.DataFrame, detail: pl.Expr) -> pl.DataFrame:
    """The rejected rows with what the source says now, null where it says nothing."""
    said = {name: pl.col(found) for name in _SAID if (found := _newest(rows, name)) is not None}
    named = rows.select("symbol", "date", reason=pl.lit(RESTATED), detail=detail, **said)
    absent = [pl.lit(None).alias(name) for name in QUARANTINE_SCHEMA if name not in named.columns]
    return named.with_columns(absent).select(pl.col(name).cast(kind) for name, kind in QUARANTINE_SCHEMA.items())


def _newest(rows: pl.DataFrame, name: str) -> str | None:
    """The column that holds what the source says now: beside a stored row it ends in `_new`."""
    beside = f"{name}_new" in rows.columns
    return f"{name}_new" if beside else name if name in rows.columns else None


def _merged(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([frame.select(frames[0].columns) for frame in frames]).sort("date", "symbol")


def _differs(name: str) -> pl.Expr:
    old, new = pl.col(name), pl.col(f"{name}_new")
    return ((old - new).abs() > _TOLERANCE * pl.max_horizontal(old.abs(), new.abs())).fill_null(False)


def _both(name: str) -> pl.Expr:
    return pl.format("{} {} -> {}", pl.lit(name), pl.col(name), pl.col(f"{name}_new"))
