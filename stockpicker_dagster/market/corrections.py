"""A person's decisions about rows and sessions of a price source: accepted, corrected, let through, taken back.

A decision is an append-only record; which of them are in force follows from the records alone. How a decided row is
judged is the matter of `market.prices`; where records are kept, of `market.decision_records`.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any, Literal, Protocol, Self, runtime_checkable

from stockpicker_dagster.errors import InvalidInput

FIGURES = ("open", "high", "low", "close", "volume", "dividend", "split_ratio", "adjustment")
"""What can be decided about a row: its events by the two before the last, or, where they are inferred, by the last."""

Kind = Literal["accept", "correct", "accept_day", "take_back"]


@dataclass(frozen=True)
class Decision:
    """What holds for one row: the figures decided on (name, value), in the units of the price contract."""

    symbol: str
    day: date
    figures: tuple[tuple[str, float], ...]


@runtime_checkable
class Correctable(Protocol):
    """A price source whose rows can be decided on."""

    def corrected(self, decisions: Sequence[Decision]) -> Self:
        """The same source, with its rows judged under `decisions` (`market.prices.validate`)."""


@dataclass(frozen=True)
class Record:
    """One recorded decision, by whom, when (UTC) and why, with the row before and after it.

    `number` counts the records of a source from 1. A decision about a whole session has no symbol; one that takes
    another back names its number. `before` and `after` are the row's figures; `before` also has its `reason` if it was
    rejected, and is empty if the source did not have it.
    """

    number: int
    kind: Kind
    day: date
    symbol: str | None
    why: str
    who: str
    when: datetime
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    takes_back: int | None = None

    def sentence(self) -> str:
        """The record for a person: what, about which row, by whom, when and why."""
        row = f"{self.symbol} {self.day}" if self.symbol else str(self.day)
        changed = [
            f"{name} {self.before.get(name, 'none')} -> {value}"
            for name, value in self.after.items()
            if self.before.get(name) != value
        ]
        what = f"take_back of {self.takes_back}" if self.takes_back else self.kind
        rejected = f"rejected as {self.before['reason']}" if "reason" in self.before else ""
        figures = ", ".join(filter(None, [rejected, *changed]))
        shown = f" [{figures}]" if figures else ""
        return f"{what} {row}{shown} by {self.who}, {self.when:%Y-%m-%d %H:%M} UTC: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return asdict(self) | {"day": str(self.day), "when": self.when.isoformat()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Record":
        """A record that `to_json` wrote."""
        return cls(**{**plain, "day": date.fromisoformat(plain["day"]), "when": datetime.fromisoformat(plain["when"])})


@dataclass(frozen=True)
class Decisions:
    """Every record about one source, first to last."""

    records: tuple[Record, ...] = ()

    @property
    def in_force(self) -> list[Record]:
        """The records that hold: the last about each row and each session, unless that was taken back."""
        back = {record.takes_back for record in self.records if record.takes_back is not None}
        last: dict[tuple[str | None, date], Record] = {}
        for record in self.records:
            if record.kind != "take_back" and record.number not in back:
                last[record.symbol, record.day] = record
        return sorted(last.values(), key=lambda record: (record.day, record.symbol or ""))

    @property
    def rows(self) -> tuple[Decision, ...]:
        """What holds about rows, by day and symbol."""
        return tuple(
            Decision(record.symbol, record.day, tuple(sorted(record.after.items())))
            for record in self.in_force
            if record.symbol is not None
        )

    @property
    def accepted_days(self) -> set[date]:
        """The sessions that are stored whatever their figures as a whole look like."""
        return {record.day for record in self.in_force if record.kind == "accept_day"}

    def digests(self, days: Collection[date]) -> dict[date, str | None]:
        """For each day a digest of the decisions in force about rows of it and of earlier days, None without any.

        What is stored of a day depends on those alone, so a day with another digest in its note has to be made again.
        """
        digests: dict[date, str | None] = {}
        waiting, passed = list(self.rows), list[Any]()
        digest: str | None = None
        for day in sorted(days):
            before = len(passed)
            while waiting and waiting[0].day <= day:
                decision = waiting.pop(0)
                passed.append([decision.symbol, str(decision.day), decision.figures])
            if len(passed) > before:
                digest = hashlib.sha256(json.dumps(passed).encode()).hexdigest()[:16]
            digests[day] = digest
        return digests

    def first_decided(self) -> dict[str, date]:
        """The earliest day of each symbol that anything was ever decided about, be it in force or taken back."""
        first: dict[str, date] = {}
        for record in self.records:
            if record.symbol is not None:
                first[record.symbol] = min(record.day, first.get(record.symbol, record.day))
        return first

    def record(self, number: int) -> Record:
        """The record of that number. Raises `InvalidInput` if there is none, or if it no longer holds."""
        holding = [record for record in self.in_force if record.number == number]
        if not holding:
            known = ", ".join(str(record.number) for record in self.in_force) or "none"
            raise InvalidInput(f"decision {number} is not in force; in force: {known}")
        return holding[0]


def parsed_figures(words: Sequence[str]) -> dict[str, float]:
    """The figures in words such as `close=12.3`. Raises `InvalidInput` for any other word, and for none at all."""
    figures: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if name not in FIGURES or value != value or value in (float("inf"), float("-inf")):
            raise InvalidInput(f"{word!r} is no figure; write one of {', '.join(FIGURES)} and a number, as close=12.3")
        figures[name] = value
    if not figures:
        raise InvalidInput("nothing to correct was given; write at least one figure, as close=12.3")
    return figures
