"""Delistings of sources that do not know any: a symbol whose rows stop counts as delisted after a while.

Sources that are told why a listing ended say so themselves; this is what is left where none is. A row that was rejected
shows that the source still has the symbol, unless it shows the contrary: a stock in which nobody traded for two weeks
has no price, and has not left.
"""

import polars as pl

from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA

DELISTED_AFTER = 10
"""A symbol without a row for so many sessions, while others have rows, counts as delisted on the last of them."""


_NO_QUOTE = (
    "wrong_currency",
    "wrong_exchange",
    "missing_price",
    "non_positive_price",
    "missing_volume",
    "negative_volume",
    "not_a_session",
    "no_trade_for_long",
)
"""Reasons of rejected rows that are no sign of the stock: they are of another one, or filled up."""


def quoted(prices: pl.DataFrame, quarantine: pl.DataFrame) -> pl.DataFrame:
    """`symbol` and `date`, once each, of the rows that show that a source still has the symbol."""
    rejected = quarantine.filter(~pl.col("reason").is_in(_NO_QUOTE)).select("symbol", "date").unique()
    accepted = prices.select("symbol", "date")
    if rejected.is_empty():
        return accepted
    return pl.concat([accepted, rejected.join(accepted, on=["symbol", "date"], how="anti")])


def delistings_by_silence(rows: pl.DataFrame, trading_days: pl.Series) -> pl.DataFrame:
    """Every disappearance that lasted for `DELISTED_AFTER` of the ascending `trading_days`, in `DELISTINGS_SCHEMA`.

    `rows` has `symbol` and `date`, once each (`quoted`). A disappearance is known on the last of those sessions, from
    rows up to it alone; its return is unknown. Should the symbol come back, it may disappear again.
    """
    position = pl.DataFrame({"date": trading_days}).with_row_index("position")
    placed = rows.select("symbol", "date").join(position, on="date").sort("symbol", "position")
    known = pl.col("position").cast(pl.Int64) + DELISTED_AFTER
    back = pl.when(pl.col("symbol") == pl.col("symbol").shift(-1)).then(pl.col("position").shift(-1))
    gone = placed.with_columns(known=known, back=back).filter(
        (pl.col("known") < len(trading_days)) & (pl.col("back").is_null() | (pl.col("back") > pl.col("known")))
    )
    known_at = pl.lit(trading_days).gather("known")
    delistings = gone.select(
        "symbol",
        date=known_at,
        last_session="date",
        reason=pl.lit(f"no price for {DELISTED_AFTER} sessions"),
        **{"return": pl.lit(None, pl.Float64)},
        known_at=known_at,
    )
    return delistings.select(pl.col(name).cast(dtype) for name, dtype in DELISTINGS_SCHEMA.items()).sort(
        "date", "symbol"
    )
