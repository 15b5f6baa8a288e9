"""Which symbols each stored day of prices was asked for.

A symbol without a row on a day either did not trade or was never asked for; only the second is repaired by a backfill.
Every stored day therefore carries the digest of the set it was asked for, and each set is stored once.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date

from stockpicker_dagster.storage.lake import Lake

EVERY_SYMBOL = "every symbol of the source"
_NOTE = "symbols"


def store_symbol_set(lake: Lake, table: str, symbols: Sequence[str] | None) -> dict[str, str]:
    """Stores the set (None: every symbol of the source) and returns the note for the days that were asked with it."""
    if symbols is None:
        return {_NOTE: EVERY_SYMBOL}
    content = json.dumps(sorted(set(symbols)), separators=(",", ":")).encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    if lake.read_file(_name(table, digest)) is None:
        lake.write_file(_name(table, digest), content)
    return {_NOTE: digest}


def incomplete_days(lake: Lake, table: str, symbols: Sequence[str] | None) -> dict[date, list[str]]:
    """The stored days that were never asked for some of `symbols`, with those symbols.

    `symbols` None is every symbol of the source: a day that was asked for some alone lacks `EVERY_SYMBOL`.
    """
    if symbols is None:
        return {day: [EVERY_SYMBOL] for day, note in lake.notes(table).items() if note[_NOTE] != EVERY_SYMBOL}
    wanted = set(symbols)
    absent: dict[str, list[str]] = {EVERY_SYMBOL: []}
    incomplete: dict[date, list[str]] = {}
    for day, note in lake.notes(table).items():
        digest = note[_NOTE]
        if digest not in absent:
            stored = lake.read_file(_name(table, digest))
            absent[digest] = sorted(wanted - set(json.loads(stored))) if stored else sorted(wanted)
        if absent[digest]:
            incomplete[day] = absent[digest]
    return incomplete


def _name(table: str, digest: str) -> str:
    return f"{table}.symbols/{digest}.json"
