"""Judging the rows of a vendor that is asked for a stretch of days, alike whichever stretch that is.

What `market.prices.validate` says about a row depends on the rows before it, at most `JUMP_MEMORY` back. So the scan
that judges a day always starts at the same earlier session, whatever was asked for beside that day, and with the same
row before it. Sources that read everything they have at once (files, simulated) need none of this.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import groupby

import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.prices import JUMP_MEMORY, QUARANTINE_SCHEMA, validate
from stockpicker_dagster.market.sources import Basis

LEAD_IN = JUMP_MEMORY + timedelta(days=10)
"""A scan starts at least so long before a day that it judges: a wrongly accepted first row convicts none by then."""

_TRADED = (pl.col("close") > 0) & pl.col("close").is_finite() & (pl.col("volume") > 0)


def judged_from(session: date, calendar: TradingCalendar) -> date:
    """The session at which the scan that judges `session` starts: the first of the month that lies `LEAD_IN` back."""
    month = max((session - LEAD_IN).replace(day=1), calendar.first_day)
    return month if calendar.is_session(month) else calendar.next_session(month)


def lacking_predecessor(rows: pl.DataFrame, since: date) -> list[str]:
    """The symbols with a row from the session `since` on, but no sound one before it, in alphabetical order."""
    seeded = _sound(rows.filter(pl.col("date") < since))
    unseeded = rows.filter(pl.col("date") >= since).join(seeded, on="symbol", how="anti")
    return unseeded["symbol"].unique().sort().to_list()


def judge(
    rows: pl.DataFrame,
    sessions: Sequence[date],
    calendar: TradingCalendar,
    decisions: Sequence[Decision] = (),
    *,
    basis: Basis = "as_traded",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(accepted, quarantined) rows of the ascending `sessions`, as `validate` returns them.

    `rows` hold every row from `judged_from` the first session to the last one, and for each symbol the last sound row
    before, if it ever had one. A row for a day without trading is reported with the session after it. `decisions` are
    a person's about single rows, for which see `validate`.
    """
    sound, unsound = _sound(rows), rows.filter(~_TRADED.fill_null(False))
    accepted, quarantined = [], []
    for anchor, days in groupby(sessions, lambda session: judged_from(session, calendar)):
        asked = list(days)
        seeds = sound.filter(pl.col("date") < anchor).group_by("symbol").last()
        since_seed = unsound.filter(pl.col("date") < anchor).join(seeds.select("symbol", seed_date="date"), on="symbol")
        since_seed = since_seed.filter(pl.col("date") > pl.col("seed_date")).drop("seed_date")
        scanned = pl.concat([since_seed, rows.filter(pl.col("date").is_between(anchor, asked[-1]))])
        earliest = scanned["date"].min() or anchor
        assert isinstance(earliest, date)
        trading_days = calendar.sessions(earliest, asked[-1])
        prices, rejected = validate(scanned, seeds, basis=basis, sessions=trading_days, decisions=decisions)
        wanted = pl.DataFrame({"session": asked}, schema={"session": pl.Date()})
        accepted.append(prices.join(wanted, left_on="date", right_on="session", how="semi", maintain_order="left"))
        reported = with_report_session(rejected, trading_days)
        quarantined.append(reported.join(wanted, on="session", how="semi", maintain_order="left"))
    # Quarantined rows keep the order of their sessions, so that day after day gives the order of the whole range.
    return (
        pl.concat(accepted).sort("date", "symbol"),
        pl.concat(quarantined).sort("session", "date", "symbol", maintain_order=True).select(*QUARANTINE_SCHEMA),
    )


def _sound(rows: pl.DataFrame) -> pl.DataFrame:
    """`symbol`, `date` and `close` of the rows that traded at a price, by symbol and date."""
    return rows.filter(_TRADED).select("symbol", "date", "close").sort("symbol", "date")


def with_report_session(quarantined: pl.DataFrame, trading_days: Sequence[date]) -> pl.DataFrame:
    """Adds `session`, the row's own or, for a day without trading, the next one; null after the last of them."""
    calendar = pl.DataFrame({"session": trading_days}, schema={"session": pl.Date()})
    return quarantined.sort("date", maintain_order=True).join_asof(
        calendar, left_on="date", right_on="session", strategy="forward", coalesce=False
    )
