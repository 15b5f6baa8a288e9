"""Dated lists of a named universe, kept in the lake for good, and the membership that follows from them.

A list is in force from the day after it was stored, so that no day already run changes; the first one stored also
stands for every day before it, where membership is not point in time. Nothing here asks the network.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from stockpicker_dagster.market.universes.listed import LISTED, ListedName, MemberList, packaged_list
from stockpicker_dagster.market.universes.membership import Universe, from_spells, spells_of_snapshots
from stockpicker_dagster.storage.lake import Bundle, Lake, parquet_bytes

_MEMBERS, _ABOUT = "members.parquet", "list.json"


@dataclass(frozen=True)
class Acceptance:
    """A person vouches for a list: who, and why. Where the list was doubted, `doubt` says what was wrong with it."""

    who: str
    why: str
    doubt: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A stored list: the `members` (`MEMBERS_SCHEMA`) taken from `origin` and stored on the day `stored_on` (UTC).

    `accepted` is None where no person had to vouch for it.
    """

    members: pl.DataFrame
    origin: str
    stored_on: date
    accepted: Acceptance | None = None

    def __str__(self) -> str:
        """Where the list comes from and, if so, who took it although it was doubted."""
        if self.accepted is None:
            return self.origin
        although = f" although {self.accepted.doubt}" if self.accepted.doubt else ""
        return f"{self.origin}, accepted by {self.accepted.who}{although}: {self.accepted.why}"

    @property
    def in_force_from(self) -> date:
        """The first day whose membership the list decides."""
        return self.stored_on + timedelta(days=1)


@dataclass(frozen=True)
class Changes:
    """How one list differs from the one before it, by symbol."""

    joined: tuple[str, ...]
    left: tuple[str, ...]
    sector_changed: tuple[tuple[str, str | None, str | None], ...]
    """(symbol, sector before, sector now)."""

    def lines(self) -> list[str]:
        """Each change in words."""
        changed = [f"{symbol} sector {old} → {new}" for symbol, old, new in self.sector_changed]
        return [*(f"{symbol} joined" for symbol in self.joined), *(f"{symbol} left" for symbol in self.left), *changed]


def table_of(name: ListedName) -> str:
    """The lake's table of a named universe's lists."""
    return f"universes/{name}/members"


def store_snapshot(
    lake: Lake, name: ListedName, listed: MemberList, now: datetime, accepted: Acceptance | None = None
) -> Snapshot:
    """Keeps `listed` as the list of the day `now`.

    Another one of the same day is replaced, because no day has used it yet; but not the first one ever, which stands
    for all days before: then the new one is stored as of the next day. A clock that goes back changes no order.
    """
    earlier = [date.fromisoformat(key) for key in lake.bundles(table_of(name))]
    today = now.astimezone(UTC).date()
    if earlier:
        today = max(today, earlier[0] + timedelta(days=1), earlier[-1])
    about: dict[str, Any] = {"origin": listed.origin, "stored_at": now.astimezone(UTC).isoformat(timespec="seconds")}
    if accepted is not None:
        about["accepted"] = asdict(accepted)
    bundle = Bundle({_MEMBERS: listed.members, _ABOUT: json.dumps(about, indent=2).encode()})
    lake.write_bundle(table_of(name), today.isoformat(), bundle)
    return Snapshot(listed.members, listed.origin, today, accepted)


def stored_snapshots(lake: Lake, name: ListedName) -> list[Snapshot]:
    """Every stored list of the universe, oldest first."""
    return [_read(lake, name, key) for key in lake.bundles(table_of(name))]


def _read(lake: Lake, name: ListedName, key: str) -> Snapshot:
    folder = lake.bundle(table_of(name), key)
    about = json.loads((folder / _ABOUT).read_text())
    accepted = Acceptance(**about["accepted"]) if "accepted" in about else None
    return Snapshot(pl.read_parquet(folder / _MEMBERS), about["origin"], date.fromisoformat(key), accepted)


def keep_first_list(lake: Lake, name: ListedName, now: datetime) -> None:
    """Stores the packaged list unless a list is stored: what the first day was made with must stay what it was.

    Raises `InvalidInput` where no list comes with the software.
    """
    if not lake.bundles(table_of(name)):
        store_snapshot(lake, name, packaged_list(name), now)


def listed_universe(lake: Lake, name: ListedName) -> Universe:
    """The universe from its stored lists; without any, from the packaged one, and never point in time.

    Raises `InvalidInput` where nothing is stored and no list comes with the software.
    """
    snapshots = stored_snapshots(lake, name)
    if not snapshots:
        packaged = packaged_list(name)
        return _universe(name, [(None, packaged)], None, f"today's list ({packaged.origin})")
    first, last = snapshots[0], snapshots[-1]
    dated: list[tuple[date | None, MemberList]] = [(None, MemberList(first.members, first.origin))]
    dated += [(each.in_force_from, MemberList(each.members, each.origin)) for each in snapshots[1:]]
    checked = last_checked(lake, name)
    history = f"the list of {first.stored_on} ({first}) stands for every day before it, which is not point in time"
    newest = "" if first is last else f"; newest list of {last.stored_on} ({last})"
    stale = f"; last compared with the public list on {checked}" if checked else "; never compared with the public list"
    return _universe(name, dated, first.in_force_from, history + newest + stale)


def _universe(
    name: ListedName, dated: Sequence[tuple[date | None, MemberList]], since: date | None, history: str
) -> Universe:
    """The membership by lists, the first of which (dated None) has always been in force."""
    beginning = date.min
    rows = pl.concat(listed.members.with_columns(date=pl.lit(day or beginning)) for day, listed in dated)
    spells = spells_of_snapshots(rows).with_columns(start=pl.when(pl.col("start") > beginning).then("start"))
    newest = dated[-1][1].members
    caveat = f"{LISTED[name].title}: {history}"
    if since is None or len(dated) == 1:
        caveat += "; sectors are those of that list on every day"
    if unknown := newest["sector"].null_count():
        caveat += f"; {unknown} of {newest.height} members have no sector"
    return from_spells(name, spells, point_in_time=False, caveat=caveat, point_in_time_since=since)


def changes_between(old: pl.DataFrame, new: pl.DataFrame) -> Changes:
    """What a list `new` changes against `old`, both in `MEMBERS_SCHEMA`."""
    before, after = (dict(members.select("symbol", "sector").iter_rows()) for members in (old, new))
    return Changes(
        joined=tuple(sorted(after.keys() - before.keys())),
        left=tuple(sorted(before.keys() - after.keys())),
        sector_changed=tuple(
            (symbol, before[symbol], after[symbol])
            for symbol in sorted(before.keys() & after.keys())
            if before[symbol] != after[symbol]
        ),
    )


# What was looked at and not (yet) taken


def note_checked(lake: Lake, name: ListedName, now: datetime) -> None:
    """Remembers that the stored list was compared with the public one; no day's membership depends on it."""
    lake.write_file(f"universes/{name}/checked.json", json.dumps(now.astimezone(UTC).date().isoformat()).encode())


def last_checked(lake: Lake, name: ListedName) -> date | None:
    """The last day on which the stored list was compared with the public one."""
    stored = lake.read_file(f"universes/{name}/checked.json")
    return date.fromisoformat(json.loads(stored)) if stored else None


def put_aside(lake: Lake, name: ListedName, listed: MemberList) -> None:
    """Keeps a list that is not believed, for a person to accept."""
    lake.write_file(f"universes/{name}/refused.parquet", parquet_bytes([listed.members], {"origin": listed.origin}))


def put_aside_list(lake: Lake, name: ListedName) -> MemberList | None:
    """The list last put aside, None if there is none."""
    stored = lake.read_file(f"universes/{name}/refused.parquet")
    if not stored:
        return None
    return MemberList(pl.read_parquet(io.BytesIO(stored)), pl.read_parquet_metadata(io.BytesIO(stored))["origin"])


def forget_put_aside(lake: Lake, name: ListedName) -> None:
    """Nothing waits for a person any more."""
    if put_aside_list(lake, name) is not None:
        lake.write_file(f"universes/{name}/refused.parquet", b"")
