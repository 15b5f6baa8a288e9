"""Collecting the prices of some sessions from a source, as they are to be stored.

The source is asked for sessions that it can answer for, and its answer never overwrites the stored past in silence.
Storing is the lake's work.
"""

from collections.abc import Sequence
from datetime import date

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.restatements import StoredPast, keep_the_stored_past
from stockpicker_dagster.market.sources import Fetched, PriceSource


class NotYetAvailable(StockPickerError):
    """A source was asked for a session that it has no prices of yet."""


def collect(source: PriceSource, symbols: Sequence[str] | None, days: Sequence[date], past: StoredPast) -> Fetched:
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
    return keep_the_stored_past(source.fetch(symbols, days), past, symbols)
