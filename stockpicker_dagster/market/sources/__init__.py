"""The protocol of a price source, and what its answers look like.

A source answers for a set of symbols and a run of sessions, in the price contract of `market.prices`. It keeps nothing:
storing is the lake's work. A source that trades on paper also brings its venue, the clock and the opening prices that
orders are filled at.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

import polars as pl

Basis = Literal["as_traded", "split_adjusted"]


@dataclass(frozen=True)
class Fetched:
    """One answer of a source; every row that came in is in exactly one of `prices` and `quarantine`.

    `prices`, `delistings` and `quarantine` have the schemas of `market.prices`. A delisting is listed on the session at
    which it became known, and only if that session was asked for.
    """

    prices: pl.DataFrame
    delistings: pl.DataFrame
    quarantine: pl.DataFrame


@dataclass(frozen=True)
class Window:
    """When a proposal made for a session may be decided and executed, in UTC; `closes` is exclusive."""

    opens: datetime
    closes: datetime


class Venue(Protocol):
    """The market that a proposal is meant for, as its clock and its opening prices.

    Real time is always passed in, so that a simulated venue may answer with its own and a test with any.
    """

    @property
    def simulated(self) -> bool:
        """Whether the venue is invented, its clock included."""

    def window(self, session: date, latest_stored: date, now: datetime) -> Window | None:
        """When a proposal planned after the close of `session` may be decided and executed.

        None if `session` is not the venue's current one (`latest_stored` is the last session in the lake), so that
        history never proposes. `now` and the answer are in UTC.
        """

    def trade_session(self, session: date) -> date:
        """The session whose open fills a plan made after the close of `session`."""

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """The opening prices of `session` in currency as traded, or None while the session has not opened.

        A symbol without an open (halted, delisted) is left out.
        """


@runtime_checkable
class PriceSource(Protocol):
    """Daily prices of stocks, as traded, with their splits, dividends and delistings."""

    name: str
    """The name under which the lake keeps this source, `[a-z][a-z0-9_]{0,40}`."""
    kind: str
    """Which source it is: `simulated`, `files`, ..."""
    basis: Basis
    start: date
    caveat: str | None
    """What every report made from these prices must repeat, such as `simulated market`; None if nothing."""

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """The rows of `symbols` (None: every symbol it has) on `sessions`, sorted by date, then symbol.

        `sessions` is ascending. The adjustment of the first session's rows refers to the source's own preceding row,
        so that asking day by day gives the same bytes as asking once. Nothing after the last session is used.
        Raises `InvalidInput` where the source as a whole cannot be read.
        """

    def available_through(self) -> date | None:
        """The last session that the source can answer for; None if it answers for any completed session."""

    def venue(self) -> Venue:
        """The venue that paper orders on these prices are filled at."""
