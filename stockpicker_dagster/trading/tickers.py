"""What a broker calls a security: proposals, ledger and lake know it by its id, which outlives every change of ticker.

The names are part of the proposal that a person approves, and are kept in the ledger for reconciling between proposals.
A name that nobody vouches for is no security of ours, so that two companies under one ticker are never taken for one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from sqlalchemy import Connection, Engine, insert, select

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger


@dataclass(frozen=True)
class Tickers:
    """The tickers of securities where they differ from their ids; every other security is called by its id.

    Raises `InvalidInput` where one ticker would stand for two securities.

    >>> names = Tickers({"FB": "META"})
    >>> names.ticker("FB"), names.security("META"), names.ticker("AAPL"), names.security("AAPL")
    ('META', 'FB', 'AAPL', 'AAPL')
    >>> names.security("FB")
    'FB of others'
    """

    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self._securities) < len(self.renamed):
            twice = sorted({ticker for ticker in self.renamed.values() if [*self.renamed.values()].count(ticker) > 1})
            raise InvalidInput(f"{twice[0]} would be the ticker of two securities; say in the symbol changes which")

    def ticker(self, security: str) -> str:
        """What the broker calls it."""
        return self.renamed.get(security, security)

    def security(self, ticker: str) -> str:
        """What is meant by the broker's name; a security of our own only if that is certain."""
        if ticker in self._securities:
            return self._securities[ticker]
        return f"{ticker} of others" if ticker in self.renamed else ticker

    @cached_property
    def _securities(self) -> dict[str, str]:
        return {ticker: security for security, ticker in self.renamed.items()}


def tickers_of(securities: Collection[str], current: Mapping[str, str | None]) -> tuple[Tickers, set[str]]:
    """The names under which `securities` are traded, and those of them that cannot be because they have no name now.

    `current` says the ticker of some of them, None for one whose ticker is another security's by now; a security that
    it does not mention is called by its id. Raises `InvalidInput` where two would have one name.
    """
    nameless = {security for security in securities if current.get(security, security) is None}
    names = {security: current.get(security) or security for security in sorted(set(securities) - nameless)}
    seen: dict[str, str] = {}
    for security, ticker in names.items():
        if ticker in seen:
            raise InvalidInput(
                f"{seen[ticker]} and {security} would both be traded as {ticker}; say in the symbol changes which is"
            )
        seen[ticker] = security
    return Tickers({security: ticker for security, ticker in names.items() if security != ticker}), nameless


def known_tickers(connection: Connection, account: str) -> Tickers:
    """The names that the ledger keeps for an account: the last one told of each security."""
    table = ledger.tickers
    rows = connection.execute(
        select(table.c.security, table.c.ticker).where(table.c.account == account).order_by(table.c.told_at)
    )
    newest = {row.security: row.ticker for row in rows}
    return Tickers({security: ticker for security, ticker in newest.items() if ticker not in (security, "")})


def tell_tickers(engine: Engine, account: str, current: Mapping[str, str | None], now: datetime) -> int:
    """Keeps the tickers (by security; None: it has none now) that are not known yet or have changed; says how many."""
    table = ledger.tickers
    with transaction(engine) as connection:
        ledger.lock_account(connection, account)
        rows = connection.execute(
            select(table.c.security, table.c.ticker).where(table.c.account == account).order_by(table.c.told_at)
        )
        before = {row.security: row.ticker for row in rows}
        fresh = {
            security: ticker or ""
            for security, ticker in current.items()
            if before.get(security, security) != (ticker or "")
        }
        for security, ticker in sorted(fresh.items()):
            connection.execute(
                insert(ledger.tickers).values(account=account, security=security, ticker=ticker, told_at=now)
            )
        known_tickers(connection, account)
    return len(fresh)
