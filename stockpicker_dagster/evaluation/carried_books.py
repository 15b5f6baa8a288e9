"""Where the books of a back-test stood after its last sessions, kept in the lake so that one more day costs a day.

It is a shortcut and no source of anything: a state is only gone on from if what it was made of is still what is stored,
and otherwise the back-test runs from its first session, to the same bytes. Two sessions are kept, so that the last one
can be made again.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.books import BookStates
from stockpicker_dagster.storage.lake import Bundle, Lake

_MADE_FROM = "made_from.json"


class Origins:
    """What the books after each session follow from, as a digest: the definition, the code, and stored inputs.

    A stored day of the tables `inputs` counts by its note, which says under which settings, symbols and decisions it
    was made: its rows follow from these. `sessions` are all that the back-test reads, ascending.
    """

    def __init__(self, lake: Lake, definition: str, inputs: Sequence[str], sessions: Sequence[date]) -> None:
        self._head = f"{definition} {code_version()}"
        self._sessions = sessions
        self._notes = [lake.notes(table) for table in inputs]

    def after(self, session: date) -> str:
        """The digest of what is known after the close of `session`."""
        days = [day for day in self._sessions if day <= session]
        told = [[str(day), *(notes.get(day) for notes in self._notes)] for day in days]
        return hashlib.sha256(json.dumps([self._head, told], sort_keys=True).encode()).hexdigest()[:16]


def keep_books(lake: Lake, table: str, states: Sequence[BookStates], origins: Origins, also: date | None) -> None:
    """Stores states beside the days of `table`, in the place of all others but that of the session `also`."""
    place = _place(table)
    for state in states:
        note = json.dumps({"made_from": origins.after(state.session)}).encode()
        lake.write_bundle(place, str(state.session), Bundle({**state.to_files(), _MADE_FROM: note}))
    sessions = sorted({*(state.session for state in states), *([also] if also else [])})
    lake.keep_bundles(place, map(str, sessions[-2:]))


def carried_books(lake: Lake, table: str, session: date, origins: Origins) -> BookStates | None:
    """Every book after the close of `session`; None where nothing that can be relied on is stored.

    They must follow from `origins`, and their equity must be that of the stored day of `table`.
    """
    place = _place(table)
    if str(session) not in lake.bundles(place) or lake.missing(table, [session]):
        return None
    folder = lake.bundle(place, str(session))
    try:
        note = json.loads((folder / _MADE_FROM).read_bytes())
        if note["made_from"] != origins.after(session):
            return None
        state = BookStates.from_files({path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))})
    except (InvalidInput, OSError, ValueError, KeyError, TypeError):
        # A broken shortcut is no shortcut.
        return None
    equity = lake.scan(table, [session]).select("equity").collect()["equity"].to_list()
    return state if equity == [state.equity] and state.session == session else None


def _place(table: str) -> str:
    return f"{table}.books"
