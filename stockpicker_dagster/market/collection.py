"""Collecting the prices of some sessions from a source, as they are to be stored.

The source is asked for sessions that it can answer for, under the decisions that people made about its rows, and its
answer never overwrites the stored past in silence. Whether a session is fit to be stored is the matter of `quality`;
storing is the lake's work.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date

import polars as pl

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market.corrections import Correctable, Decisions
from stockpicker_dagster.market.prices import QUARANTINE_SCHEMA
from stockpicker_dagster.market.restatements import REDECIDED_SCHEMA, RESTATED, StoredPast, keep_the_stored_past
from stockpicker_dagster.market.sources import Fetched, PriceSource

SAMPLE = 20
"""Rows of one stored session that a run compares with what the source says now: few enough to cost a source by network
little, and enough to meet a vendor that restates a tenth of its rows within a day or two."""


class NotYetAvailable(StockPickerError):
    """A source was asked for a session that it has no prices of yet."""


def collect(
    source: PriceSource,
    symbols: Sequence[str] | None,
    days: Sequence[date],
    past: StoredPast,
    decisions: Decisions = Decisions(),  # noqa: B008 - immutable
) -> Fetched:
    """What to store for `days`, given what is stored of those of them that were collected before.

    `symbols` None asks for every symbol that the source has; stored rows of symbols that are not asked for stay. Raises
    `NotYetAvailable` if the source ends before the last of `days`.
    """
    ends = source.available_through()
    if ends is not None and days[-1] > ends:
        raise NotYetAvailable(
            f"price source {source.name!r} ends on {ends} and was asked for {days[-1]}; "
            f"append the later days to it, or ask for days up to {ends}"
        )
    return keep_the_stored_past(under_decisions(source, decisions).fetch(symbols, days), past, symbols)


def under_decisions(source: PriceSource, decisions: Decisions) -> PriceSource:
    """The source with its rows judged under the decisions in force. Raises `InvalidInput` if it takes none."""
    if not decisions.rows:
        return source
    if not isinstance(source, Correctable):
        raise InvalidInput(
            f"the rows of price source {source.name!r} ({source.kind}) cannot be decided on; an "
            "invented market has nothing to correct"
        )
    return source.corrected(decisions.rows)


def redecided(decisions: Decisions, days: Collection[date]) -> pl.DataFrame:
    """The rows of `days`, stored under other decisions than those in force, that these may change.

    They are those of every symbol that was ever decided on, from the earliest day decided on: a decision that was taken
    back changes its row once more. In `restatements.REDECIDED_SCHEMA`.
    """
    themselves = {(record.symbol, record.day) for record in decisions.records}
    pairs = [
        (symbol, day, (symbol, day) in themselves)
        for symbol, first in decisions.first_decided().items()
        for day in days
        if day >= first
    ]
    return pl.DataFrame(pairs, schema=REDECIDED_SCHEMA, orient="row")


def sampled_session(stored: Sequence[date], day: date) -> date | None:
    """The stored session before `day` that a run for `day` compares; the same whenever `day` is run again."""
    earlier = [each for each in stored if each < day]
    return _chance(f"{day} session").choice(earlier) if earlier else None


def _chance(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a sample, no secret


def restated_since(source: PriceSource, decisions: Decisions, stored: pl.DataFrame, day: date) -> pl.DataFrame:
    """What the source says otherwise now about a sample of the rows of one stored session, in the quarantine's schema.

    `stored` holds the prices of that session. The answer is dated `day`, on which it was found, and its detail names
    the session; nothing stored changes. Which rows are compared depends on `day` alone.
    """
    known = stored["symbol"].unique().sort().to_list()
    sample = sorted(_chance(f"{day} symbols").sample(known, min(SAMPLE, len(known))))
    if not sample:
        return pl.DataFrame(schema=QUARANTINE_SCHEMA)
    rows = stored.filter(pl.col("symbol").is_in(sample))
    session = rows["date"][0]
    answer = under_decisions(source, decisions).fetch(sample, [session])
    answer = replace(answer, delistings=answer.delistings.clear(), quarantine=answer.quarantine.clear())
    found = keep_the_stored_past(answer, StoredPast(rows), sample).quarantine
    found = found.filter(pl.col("reason") == RESTATED, pl.col("symbol").is_in(sample))
    return found.with_columns(detail=pl.format("of {}: {}", "date", "detail"), date=pl.lit(day, pl.Date))
