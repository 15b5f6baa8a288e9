"""A small invented stretch of a market, as traded, that every source can be made to serve, with what should come out.

It holds what vendors are bad at: splits, a split and a dividend on one day, an event while a stock is halted, a
listing, a stock that leaves, a share class, a bad print and a row on a Saturday.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar

NYSE = trading_calendar("XNYS")
SESSIONS = NYSE.sessions(date(2022, 1, 3), date(2022, 9, 30))
START = SESSIONS[0]
ASKED = SESSIONS[80:130]
"""The stretch that is asked for; what lies before it is history, what lies after it the future."""

HALTED = {"HALT": (SESSIONS[94], SESSIONS[95]), "LONG": tuple(SESSIONS[20:110])}
GONE, LISTED = SESSIONS[100], SESSIONS[105]
BAD_PRINT, SATURDAY = SESSIONS[90], date(2022, 6, 11)
DELISTED_ON = SESSIONS[110]

# (symbol, ex-date, dividend per share before the day's split, new shares per old)
EVENTS: tuple[tuple[str, date, float, float], ...] = (
    ("DIV", SESSIONS[40], 0.3, 1.0),
    ("DIV", SESSIONS[85], 0.32, 1.0),
    ("DIV", SESSIONS[140], 0.34, 1.0),
    ("SPLT", SESSIONS[88], 0.0, 2.0),
    ("SPLT", SESSIONS[150], 0.0, 4.0),
    ("REV", SESSIONS[99], 0.0, 0.1),
    ("BOTH", SESSIONS[97], 0.6, 3.0),
    ("HALT", SESSIONS[95], 0.25, 1.0),
    ("LONG", SESSIONS[60], 0.0, 5.0),
    ("BRK-B", SESSIONS[120], 0.2, 1.0),
)
SYMBOLS = ("BAD", "BOTH", "BRK-B", "DIV", "GONE", "HALT", "LATE", "LONG", "REV", "SATU", "SPLT")
UNKNOWN = "NOSUCH"


@dataclass(frozen=True)
class Market:
    """Every bar, sound or not, and the events by ex-date. `rows` has the columns of a user's file as well."""

    rows: pl.DataFrame
    events: pl.DataFrame

    def truth(self) -> pl.DataFrame:
        """The sound rows by symbol and date, with the adjustment worked out from them alone."""
        sound = self.rows.filter((pl.col("date") != SATURDAY) & (pl.col("low") <= pl.col("high"))).sort(
            "symbol", "date"
        )
        step = pl.col("split_ratio") / (1 - pl.col("dividend") / pl.col("close").shift(1).over("symbol"))
        return sound.with_columns(adjustment=step.fill_null(1.0))

    def until(self, last: date) -> "Market":
        """The market as it was known after the close of `last`."""
        return Market(self.rows.filter(pl.col("date") <= last), self.events.filter(pl.col("ex_date") <= last))

    def spoilt_after(self, last: date) -> "Market":
        """The market with another future: other prices, other events."""
        later = pl.col("date") > last
        figures = ("open", "high", "low", "close")
        rows = self.rows.with_columns(
            *[pl.when(later).then(pl.col(name) * 1.7).otherwise(name).round(2).alias(name) for name in figures],
            dividend=pl.when(later).then(pl.lit(0.11)).otherwise("dividend"),
            split_ratio=pl.when(later).then(pl.lit(1.0)).otherwise("split_ratio"),
        )
        future = rows.filter(later).select("symbol", ex_date="date", dividend=pl.lit(0.11), split_ratio=pl.lit(1.0))
        return Market(rows, pl.concat([self.events.filter(pl.col("ex_date") <= last), future]))

    def split_adjusted(self) -> pl.DataFrame:
        """The rows as most downloads have them: prices, volumes and dividends restated for every later split."""
        splits = self.rows.select("symbol", "date", "split_ratio").sort("symbol", "date")
        later = pl.col("split_ratio").reverse().cum_prod().reverse() / pl.col("split_ratio")
        rows = self.rows.join(splits.with_columns(later=later.over("symbol")), on=["symbol", "date"], suffix="_")
        restated = [(pl.col(name) / pl.col("later")).alias(name) for name in ("open", "high", "low", "close")]
        # A dividend is per share before the split of its day, which the restated shares have seen as well.
        dividend = pl.col("dividend") / pl.col("later") / pl.col("split_ratio")
        volume = pl.col("volume") * pl.col("later")
        return rows.with_columns(*restated, dividend=dividend, volume=volume).select(
            "symbol", "date", "open", "high", "low", "close", "volume", "dividend"
        )


def invented_market(seed: int = 5) -> Market:
    """The market; prices are in cents."""
    rng = np.random.default_rng(seed)
    events = pl.DataFrame(EVENTS, schema=["symbol", "ex_date", "dividend", "split_ratio"], orient="row")
    due = {(symbol, day): (dividend, ratio) for symbol, day, dividend, ratio in EVENTS}
    rows = []
    for symbol in SYMBOLS:
        close = float(rng.uniform(30, 90))
        dividend, ratio = 0.0, 1.0
        for day in SESSIONS:
            paid, split = due.get((symbol, day), (0.0, 1.0))
            # What goes ex while a stock is halted reaches its next row.
            dividend, ratio = dividend + paid * ratio, ratio * split
            absent = day in HALTED.get(symbol, ()) or (symbol == "GONE" and day > GONE)
            if absent or (symbol == "LATE" and day < LISTED):
                continue
            opens = round((close - dividend) / ratio * (1 + 0.004 * rng.standard_normal()), 2)
            close = round(opens * (1 + 0.01 * rng.standard_normal()), 2)
            high, low = round(max(opens, close) * 1.004, 2), round(min(opens, close) * 0.996, 2)
            # Whole tens after the reverse split: Yahoo restates volumes in whole shares.
            volume = 100.0 * float(rng.integers(10, 90))
            rows.append((symbol, day, opens, high, low, close, volume, dividend, ratio))
            dividend, ratio = 0.0, 1.0
    names = ["symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split_ratio"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    before = frame.filter((pl.col("symbol") == "SATU") & (pl.col("date") == SATURDAY - timedelta(days=1)))
    frame = pl.concat([frame, before.with_columns(date=pl.lit(SATURDAY))])
    wrong = (pl.col("symbol") == "BAD") & (pl.col("date") == BAD_PRINT)
    return Market(frame.with_columns(low=pl.when(wrong).then(pl.col("high") + 5.0).otherwise("low")), events)
