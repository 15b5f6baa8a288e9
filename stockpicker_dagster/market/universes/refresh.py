"""Refreshing a named universe from the public list: fetch, compare, and keep what can be believed.

Nothing is ever replaced in silence. A list that cannot be had leaves the stored one in force; one that looks wrong is
put aside until a person accepts it; every outcome says which changes it means.
"""

import os
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes import snapshots
from stockpicker_dagster.market.universes.listed import LISTED, ListedName, MemberList
from stockpicker_dagster.market.universes.member_tables import MEMBERS_SCHEMA, read_members
from stockpicker_dagster.storage.lake import Lake

LARGEST_CHANGE = 0.10
"""A list that more than this share of the members leaves, or joins, is put aside: indexes change by a few names, and
the yearly reconstitution of the Russell 3000 by about as much as this."""

TIMEOUTS = (10.0, 30.0)
"""Seconds to wait for a connection, and for the next bytes of an answer."""

_USER_AGENT = "StockPicker (weekly refresh of index membership)"


@dataclass(frozen=True)
class Refreshed:
    """What became of a refresh: a list `stored`, one that was `unchanged`, `refused` or `unreachable`.

    `changes` are those that the list brings (`stored`) or would bring (`refused`); `sentence` says it all in words.
    """

    outcome: Literal["stored", "unchanged", "refused", "unreachable"]
    sentence: str
    changes: snapshots.Changes
    members: int

    @property
    def fine(self) -> bool:
        """Whether the list in force is what the public list says."""
        return self.outcome in ("stored", "unchanged")


_NO_CHANGES = snapshots.Changes((), (), ())


def refresh(lake: Lake, name: ListedName, now: datetime, accepted: snapshots.Acceptance | None = None) -> Refreshed:
    """Compares the stored list with the public one and stores the latter where it can be believed.

    With `accepted`, a person vouches for it, which is kept with the list: the one last put aside is stored, or the
    public one, however it looks. Raises `InvalidInput` where a list is accepted and there is none to be had; without
    `accepted`, nothing is raised for what the network or the list's publisher does.
    """
    if accepted and (waiting := snapshots.put_aside_list(lake, name)) is not None:
        return _keep(lake, name, waiting, now, accepted)
    try:
        public = fetch_list(name)
    except InvalidInput as error:
        if accepted:
            raise
        kept = "the stored list stays in force" if snapshots.stored_snapshots(lake, name) else "none is stored"
        return Refreshed("unreachable", f"{error}; {kept}", _NO_CHANGES, 0)
    return _keep(lake, name, public, now, accepted)


def refresh_from(
    lake: Lake, name: ListedName, listed: MemberList, now: datetime, accepted: snapshots.Acceptance | None
) -> Refreshed:
    """The same with a list that a person brings."""
    return _keep(lake, name, listed, now, accepted)


def _keep(
    lake: Lake, name: ListedName, listed: MemberList, now: datetime, accepted: snapshots.Acceptance | None
) -> Refreshed:
    stored = snapshots.stored_snapshots(lake, name)
    title, size = LISTED[name].title, listed.members.height
    changes = snapshots.changes_between(stored[-1].members, listed.members) if stored else _NO_CHANGES
    doubt = _doubt(name, stored[-1].members if stored else None, listed.members)
    if doubt and not accepted:
        snapshots.put_aside(lake, name, listed)
        sentence = (
            f"the list of the {title} from {listed.origin} is not taken, because {doubt}; look at it, and accept it "
            f'with `stockpicker data universe {name} --accept --reason "..."`'
        )
        return Refreshed("refused", sentence, changes, size)
    snapshots.forget_put_aside(lake, name)
    snapshots.note_checked(lake, name, now)
    if stored and stored[-1].members.drop("name").equals(listed.members.drop("name")):
        return Refreshed("unchanged", f"{title}: {size} members, as stored", changes, size)
    vouched = replace(accepted, doubt=doubt) if accepted else None
    kept = snapshots.store_snapshot(lake, name, listed, now, vouched)
    sentence = f"{title}: {size} members from {kept}; in force from {kept.in_force_from}"
    return Refreshed("stored", sentence, changes, size)


def _doubt(name: ListedName, old: pl.DataFrame | None, new: pl.DataFrame) -> str | None:
    """Why a list cannot be believed as it is; None if it can."""
    least, most = LISTED[name].sizes
    if not least <= new.height <= most:
        return f"it has {new.height} members, not {least} to {most}"
    if old is None:
        return None
    changes = snapshots.changes_between(old, new)
    for what, symbols in (("join", changes.joined), ("leave", changes.left)):
        if len(symbols) > LARGEST_CHANGE * old.height:
            return f"{len(symbols)} members {what} at once, of {old.height}"
    gone = sorted(set(old["sector"].drop_nulls()) - set(new["sector"].drop_nulls()))
    if gone:
        return f"no member is in the sector {gone[0]} any more"
    return None


def fetch_list(name: ListedName) -> MemberList:
    """Today's public list. Raises `InvalidInput` where it cannot be had or read.

    The address is that of `LISTED`, or what the environment names in `STOCKPICKER_UNIVERSE_URL_<NAME>`.
    """
    import requests

    title = LISTED[name].title
    address = os.environ.get(f"STOCKPICKER_UNIVERSE_URL_{name.upper()}") or LISTED[name].public_list
    try:
        answer = requests.get(address, timeout=TIMEOUTS, headers={"User-Agent": _USER_AGENT})
        answer.raise_for_status()
    except requests.RequestException as error:
        raise InvalidInput(f"the public list of the {title} cannot be had from {address} ({error})") from error
    return list_from(name, answer.content, address)


def list_from(name: ListedName, content: bytes, origin: str) -> MemberList:
    """The members of a published list. Raises `InvalidInput` where it cannot be read, or names a symbol twice."""
    rows = read_members(content, origin).rows
    if twice := rows.filter(rows["symbol"].is_duplicated())["symbol"].unique().sort().to_list():
        raise InvalidInput(f"{origin} lists {', '.join(twice[:5])} more than once; the {LISTED[name].title} does not")
    members = rows.select(list(MEMBERS_SCHEMA)).sort("symbol")
    return MemberList(members, origin)
