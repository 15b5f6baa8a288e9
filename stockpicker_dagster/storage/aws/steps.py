"""What an account lacks, step by step: each is looked at first, and done only where it is not as wanted.

No step deletes, empties or weakens anything. A step that cannot be looked at because what it stands on is not there yet
counts as not done.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stockpicker_dagster.storage.aws.errors import AwsRefusal


@dataclass(frozen=True)
class Step:
    """`what` finishes the sentence "it is so that ..."; `looked` says whether it is; `do` makes it so."""

    what: str
    looked: Callable[[], bool]
    do: Callable[[], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    what: str
    was_there: bool
    done: bool

    def __str__(self) -> str:
        state = "is there" if self.was_there else "done" if self.done else "would be done"
        return f"{state:<13} {self.what}"


_NOT_YET = ("NoSuchBucket", "404", "NotFoundException", "NoSuchKey")


def taken(steps: Iterable[Step], *, plan: bool) -> Iterator[Outcome]:
    """Goes through the steps in order; with `plan` nothing is changed."""
    for step in steps:
        try:
            there = step.looked()
        except AwsRefusal as refusal:
            if not plan or refusal.code not in _NOT_YET:
                raise
            there = False
        if not there and not plan:
            step.do()
        yield Outcome(step.what, there, not there and not plan)
