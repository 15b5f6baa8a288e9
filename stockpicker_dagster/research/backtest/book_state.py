"""What a back-test leaves after a session, so that the next session goes on from there instead of from the start.

`engine.run` and `random_books` return one with their results and take one as `resume_from`; running T sessions and
running T - 1 and then one more give the same bytes. Keeping it beside the stored day is the lake's work.
"""

from dataclasses import dataclass, fields
from datetime import date
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class BookState:
    """One book, or `B` random ones, after the close of `session`; money in currency.

    Positions and targets are stored one book after the other: book *b* holds the next `held[b]` entries of
    `held_columns`, in the order in which it bought them, on which the last bits of every sum depend. No NaN but in
    `last_price`.
    """

    session: date
    decided: bool
    """Whether the close of `session` was a decision, so that the next session trades."""
    decisions: int
    """How many decisions there have been; the next one replaces sleeve number `decisions` modulo the sleeves."""
    symbols: Names
    """(N,) every symbol so far, in the market's order of columns; give it to `market_data` as `known`."""
    last_price: Floats
    """(N,) the last price known, NaN before the first."""
    appeared: Numbers
    """(A,) the columns that have been scored, in the order of their first score."""
    appeared_sector: Names
    """(A,) the sector of each on the day of its first score, '' where unknown."""
    cash: Floats
    """(B,)"""
    equity: Floats
    """(B,)"""
    short_value: Floats
    """(B,) market value of the short positions, positive."""
    borrow_fee: Floats
    """(B,) what borrowing them costs, per year of 365 days."""
    gone: NDArray[np.bool_]
    """(B,) whether the book has lost all of its equity."""
    held: Numbers
    """(B,) the number of names held."""
    held_columns: Numbers
    held_shares: Floats
    """Negative when short."""
    targets: Numbers
    """(B, sleeves) the number of names in the last target of each sleeve."""
    target_columns: Numbers
    target_weights: Floats
    """Fractions of that sleeve's part of the equity."""

    def to_bytes(self) -> bytes:
        """The state as a file (NumPy's .npz); the same state always gives the same bytes."""
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        arrays["session"] = np.asarray(self.session.isoformat())
        file = BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, stored: bytes) -> "BookState":
        """The state that `to_bytes` wrote; `InvalidInput` if it is none."""
        try:
            with np.load(BytesIO(stored), allow_pickle=False) as arrays:
                values = {field.name: arrays[field.name] for field in fields(cls)}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InvalidInput(
                f"{len(stored)} bytes are no stored back-test state ({error}); run the back-test from its first session"
            ) from error
        return cls(
            **values
            | {
                "session": date.fromisoformat(str(values["session"])),
                "decided": bool(values["decided"]),
                "decisions": int(values["decisions"]),
            }
        )
