"""The price contract: the columns of one stored trading day and what must hold in every row."""

import polars as pl

PRICES_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "dividend": pl.Float64(),
    "split_ratio": pl.Float64(),
    "adjustment": pl.Float64(),
    "known_at": pl.Date(),
}
"""Open, high, low and close in currency as traded that day; volume in shares; dividend in currency per pre-split share
(0.0 if none); split_ratio new shares per old (1.0 if none); adjustment = split_ratio / (1 - dividend / previous close),
1.0 on the first row; known_at the day on which the row's dividend or split was known, null where there is neither."""

DELISTINGS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "last_session": pl.Date(),
    "reason": pl.String(),
    "return": pl.Float64(),
    "known_at": pl.Date(),
}
"""date = known_at = the session on which the delisting became known (the partition that holds it); return is from the
last close to what holders received, as a fraction, null where the source does not know it."""

QUARANTINE_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "reason": pl.String(),
    "detail": pl.String(),
}
"""One row per rejected input row; detail repeats the offending figures."""
