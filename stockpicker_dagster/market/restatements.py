"""What happens when a source answers differently about a day that is already stored.

The stored past is what features and models were made from. A later revision is therefore never taken in silence: what
is stored stays, and what the source says now goes to quarantine under the reason `restated`. Only symbols that a day
was never asked for, and days without any row, are filled in.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Fetched

RESTATED = "restated"
_FIGURES = [name for name, kind in PRICES_SCHEMA.items() if kind == pl.Float64]
_SAID = [name for name in QUARANTINE_SCHEMA if name not in ("symbol", "date", "reason", "detail")]
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class StoredPast:
    """What is stored of the days that a source is asked for again, each frame in its schema.

    `never_asked` names, by day, the symbols that come into use only now, whose rows are therefore no revisions.
    """

    prices: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PRICES_SCHEMA))
    delistings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DELISTINGS_SCHEMA))
    quarantine: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE_SCHEMA))
    never_asked: Mapping[date, Collection[str]] = field(default_factory=dict)


def keep_the_stored_past(fetched: Fetched, past: StoredPast, asked: Sequence[str] | None = None) -> Fetched:
    """`fetched` with `past` in the place of whatever differs from it.

    A price differs if any figure does by more than 1e-9, relatively, if a row of an `asked` symbol (None: of any)
    vanished, or if one appeared on a day that has rows; a delisting on such a day differs if it appeared or changed.
    Each is one quarantined row that shows what the source says now; those quarantined as restated before stay.
    """
    if past.prices.is_empty():
        return fetched
    new = _never_asked(past)
    fresh = fetched.prices.join(past.prices, on=["symbol", "date"], how="anti")
    appeared = _of_stored_days(fresh, past).join(new, on=["symbol", "date"], how="anti")
    late = _of_stored_days(fetched.delistings, past).join(new, on=["symbol", "date"], how="anti")
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
    return Fetched(
        prices=_merged([past.prices, fresh.join(appeared, on=["symbol", "date"], how="anti")]),
        delistings=_merged([past.delistings, fetched.delistings.join(late, on=["symbol", "date"], how="anti")]),
        quarantine=pl.concat(quarantine).unique(maintain_order=True).sort("date", "symbol", "reason"),
    )


def _revised(stored: pl.DataFrame, answer: pl.DataFrame, asked: Sequence[str] | None) -> pl.DataFrame:
    """The stored rows that the source does not confirm, with its figures beside them under `_new`."""
    both = stored.join(answer, on=["symbol", "date"], how="left", suffix="_new", coalesce=True)
    was_asked = pl.lit(True) if asked is None else pl.col("symbol").is_in(list(asked))
    vanished = pl.col("close_new").is_null() & was_asked
    return both.filter(vanished | pl.any_horizontal([_differs(name) for name in _FIGURES]))


def _of_stored_days(rows: pl.DataFrame, past: StoredPast) -> pl.DataFrame:
    """The rows of days that have stored prices; an empty day may still be filled."""
    return rows.join(past.prices.select("date").unique(), on="date", how="semi")


def _never_asked(past: StoredPast) -> pl.DataFrame:
    pairs = [(symbol, day) for day, symbols in past.never_asked.items() for symbol in symbols]
    return pl.DataFrame(pairs, schema={"symbol": pl.String, "date": pl.Date}, orient="row")


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
