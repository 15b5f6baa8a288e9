"""Append-only records of a person's decisions about a source's prices, kept in the lake beside them.

One immutable file a record, `<source>/decisions/000001.json`, readable by its owner alone: a record is never rewritten,
and two writers never get one number. What a decision means is the matter of `market.corrections`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import PurePosixPath

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.corrections import Decisions, Record
from stockpicker_dagster.storage.lake import DECISIONS, Lake, describe_days


class DecisionsOutstanding(StockPickerError):
    """Stored days do not yet show what a person decided about them."""


def load_decisions(lake: Lake, source: str) -> Decisions:
    """Every record about `source`. Raises `StockPickerError` if one cannot be read: none may be overlooked."""
    records = []
    for name in _names(lake, source):
        try:
            records.append(Record.from_json(json.loads(lake.read_file(name) or b"")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StockPickerError(
                f"the decision in {lake.place}/{name} cannot be read ({error}); restore that file from a backup, "
                "because prices must not be collected without it"
            ) from error
    return Decisions(tuple(records))


def append_record(lake: Lake, source: str, record: Record) -> Record:
    """Stores `record` under the next free number, durably, and returns it with that number."""
    while True:
        number = 1 + max((int(PurePosixPath(name).stem) for name in _names(lake, source)), default=0)
        numbered = Record.from_json(record.to_json() | {"number": number})
        content = json.dumps(numbered.to_json(), indent=1).encode()
        if lake.create_file(f"{source}/decisions/{number:06d}.json", content):
            return numbered


def decision_notes(decisions: Decisions, days: Sequence[date]) -> dict[date, Mapping[str, str]]:
    """What the note of each day says about the decisions that it is made under."""
    digests = decisions.digests(days)
    return {day: {} if (digest := digests[day]) is None else {DECISIONS: digest} for day in days}


def days_before_a_decision(lake: Lake, table: str, decisions: Decisions) -> list[date]:
    """The stored days of `table` that were made under other decisions than those in force, ascending.

    They still show what was before, and have to be made again.
    """
    if not decisions.records:
        return []
    notes = lake.notes(table)
    digests = decisions.digests(notes)
    return [day for day, note in notes.items() if note.get(DECISIONS) != digests[day]]


def refuse_days_before_a_decision(source: str, undecided: Sequence[date], days: Sequence[date]) -> None:
    """Raises `DecisionsOutstanding` if a run for `days` would build on stored days that a decision has changed since.

    `undecided` are of `days_before_a_decision`.
    """
    if others := sorted(set(undecided) - set(days)):
        raise DecisionsOutstanding(
            f"decisions about the prices of {source!r} changed {describe_days(others)} since they were stored; nothing "
            f"is built on them until they are made again: `stockpicker run STRATEGY --from {others[0]}`, for each "
            "strategy on these prices"
        )


def definition_under(definition: str, decisions: Decisions, last: date) -> str:
    """The definition of what is made from prices up to `last`: another one once something was decided about them."""
    digest = decisions.digests([last])[last]
    return definition if digest is None else hashlib.sha256(f"{definition} {digest}".encode()).hexdigest()[:16]


def _names(lake: Lake, source: str) -> list[str]:
    return [name for name in lake.files(f"{source}/decisions") if name.endswith(".json")]
