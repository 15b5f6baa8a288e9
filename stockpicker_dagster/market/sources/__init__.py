"""The protocol of a price source, and what its answers look like.

A source answers for a set of symbols and a run of sessions, in the price contract of `market.prices`. It keeps nothing:
storing is the lake's work. A source that trades on paper also brings its venue, the clock and the opening prices that
orders are filled at.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

import polars as pl

from stockpicker_dagster.market.identity import SymbolChange

Basis = Literal["as_traded", "split_adjusted"]


@dataclass(frozen=True)
class Fetched:
    """One answer of a source; every row that came in is in exactly one of `prices` and `quarantine`.

    Every `symbol` is the id of a security (`market.identity`); `prices`, `delistings` and `quarantine` have the schemas
    of `market.prices`. A delisting is listed on the session at
    which it became known, and only if that session was asked for. `unanswered` names the symbols of which the
    source has nothing, or not all, each with the reason; a source that merely failed raises instead. Of a chain of
    sources, `disagreements` says where they differ (`market.cross_check.DISAGREEMENTS_SCHEMA`, and the `source` that
    differs from the first); None where there is nothing to compare. Neither is stored. `reused` are the tickers that
    another security was seen to take up.
    """

    prices: pl.DataFrame
    delistings: pl.DataFrame
    quarantine: pl.DataFrame
    unanswered: Mapping[str, str] = field(default_factory=dict)
    disagreements: pl.DataFrame | None = None
    reused: tuple[SymbolChange, ...] = ()


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

    @property
    def exchange(self) -> str:
        """The name of the exchange's calendar, such as `XNYS`."""

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

        `symbols` are ids or tickers; one stands for every security that it is the id of, or was ever the ticker of.
        `sessions` is ascending. The adjustment of the first session's rows refers to the source's own preceding row,
        so that asking day by day gives the same bytes as asking once. Nothing after the last session is used.
        Raises `InvalidInput` where the source as a whole cannot be read.
        """

    def available_through(self) -> date | None:
        """The last session that the source can answer for; None if it answers for any completed session."""

    def venue(self) -> Venue:
        """The venue that paper orders on these prices are filled at."""


@runtime_checkable
class KnowsSymbolChanges(Protocol):
    """A source that is told when tickers change."""

    def symbol_changes(self, symbols: Collection[str], first: date, last: date) -> list[SymbolChange]:
        """The changes that took effect from `first` to `last` and have one of the tickers on either side."""
