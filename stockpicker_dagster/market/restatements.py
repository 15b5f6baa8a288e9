"""What happens when a source answers differently about a day that is already stored.

The stored past is what features and models were made from. A later revision is therefore never taken in silence: the
stored row stays, and the new figures go to quarantine under the reason `restated`.
"""

from collections.abc import Sequence

import polars as pl

from stockpicker_dagster.market.prices import PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Fetched

_FIGURES = [name for name, kind in PRICES_SCHEMA.items() if kind == pl.Float64]
_TOLERANCE = 1e-9


def keep_the_stored_past(fetched: Fetched, stored: pl.DataFrame, asked: Sequence[str] | None = None) -> Fetched:
    """`fetched` with the `stored` rows of the same days in place of any that differ by more than 1e-9, relatively.

    Rows that are stored but no longer in the answer stay as well. Both frames have `PRICES_SCHEMA`; every revision, a
    row of an `asked` symbol (None: of any) that vanished included, is one quarantined row that shows both figures.
    """
    if stored.is_empty():
        return fetched
    both = stored.join(fetched.prices, on=["symbol", "date"], how="left", suffix="_new", coalesce=True)
    vanished = pl.col("close_new").is_null()
    unasked = pl.lit(False) if asked is None else ~pl.col("symbol").is_in(list(asked))
    differs = pl.any_horizontal([_differs(name) for name in _FIGURES])
    revised = both.filter((vanished & ~unasked) | differs).select(
        "symbol",
        "date",
        pl.lit("restated").alias("reason"),
        pl.when(vanished)
        .then(pl.lit("the source no longer has this row; the stored one is kept"))
        .otherwise(pl.concat_str([_both(name) for name in _FIGURES], separator=", "))
        .alias("detail"),
    )
    fresh = fetched.prices.join(stored, on=["symbol", "date"], how="anti")
    return Fetched(
        prices=pl.concat([each.select(list(PRICES_SCHEMA)) for each in (stored, fresh)]).sort("date", "symbol"),
        delistings=fetched.delistings,
        quarantine=pl.concat([fetched.quarantine, revised.cast(pl.Schema(QUARANTINE_SCHEMA))]).sort(
            "date", "symbol", "reason"
        ),
    )


def _differs(name: str) -> pl.Expr:
    old, new = pl.col(name), pl.col(f"{name}_new")
    return ((old - new).abs() > _TOLERANCE * pl.max_horizontal(old.abs(), new.abs())).fill_null(False)


def _both(name: str) -> pl.Expr:
    return pl.format("{} {} -> {}", pl.lit(name), pl.col(name), pl.col(f"{name}_new"))
