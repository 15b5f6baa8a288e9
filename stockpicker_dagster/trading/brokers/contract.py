"""The contract of a broker, tried on a paper account: what a user runs before trusting an adapter with more.

Adapters are tested against fakes built from published documents; this is how one is held against the service itself. It
buys nothing on purpose: its one order, for one share far below the market, is cancelled at the end whatever happens.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.trading.brokers import Absent, Broker, BrokerOrder, BrokerUnavailable, OrderRequest, Rejected

SKEW = timedelta(seconds=2)
BELOW = Decimal("0.9")
"""The test order's limit, as a fraction of the last price."""
PATIENCE = 30
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class Check:
    """One promise and whether it was kept; `detail` is what was seen."""

    promise: str
    kept: bool
    detail: str


class _Broken(Exception):
    """The rest cannot be tried."""


def verify(
    broker: Broker,
    mode: str,
    symbol: str,
    now: Callable[[], datetime],
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Check]:
    """Tries every promise in turn, and yields what came of each as it is known.

    Raises `InvalidInput` for an account that is not a paper one: nothing is tried with money.
    """
    if mode != "paper":
        raise InvalidInput(f"account {broker.account_id!r} is {mode}; a broker is verified on a paper account only")
    return _Verification(broker, symbol, now, wait).run()


def look(broker: Broker, now: Callable[[], datetime]) -> Iterator[Check]:
    """What can be asked of the broker of any account, live ones too, without an order: time, account, positions."""
    return _Verification(broker, "", now, time.sleep).asked_only()


class _Verification:
    def __init__(self, broker: Broker, symbol: str, now: Callable[[], datetime], wait: Callable[[float], None]) -> None:
        self._broker = broker
        self._symbol = symbol
        self._now = now
        self._wait = wait
        self._name = f"sp-verify-{secrets.token_hex(8)}"

    def asked_only(self) -> Iterator[Check]:
        for promise, tried in (
            ("it tells the time", self._clock),
            ("it tells the account, and orders may be sent", self._account),
            ("it tells the positions", self._positions),
        ):
            yield self._tried(promise, tried)

    def run(self) -> Iterator[Check]:
        yield from self.asked_only()
        for promise, tried in (
            ("it tells open orders", lambda: f"{len(self._broker.open_orders())} open"),
            ("an id that was never used is absent", self._absent),
            ("it says what can be borrowed", self._borrow),
            ("what its capabilities exclude is refused", self._excluded),
        ):
            yield self._tried(promise, tried)
        if self._broker.capabilities.manual:
            yield Check("orders are placed by a person", True, "nothing was tried")
            return
        try:
            yield from self._order_checks()
        finally:
            self._broker.cancel(self._name, "end of the verification")

    def _order_checks(self) -> Iterator[Check]:
        request: list[OrderRequest] = []
        before = self._broker.positions()

        def quoted() -> str:
            request.append(self._request())
            return f"one share of {self._symbol} at {request[0].limit_price}"

        first = self._tried("it quotes the symbol, so that an order far below the market can be made", quoted)
        yield first
        if not first.kept:
            return
        [order] = request
        for promise, tried in (
            ("it takes an order", lambda: self._taken(order)),
            ("it finds the order by its client id", self._found),
            ("sent again under its id, the order stays one", lambda: self._once(order)),
            ("another order under that id is refused", lambda: self._other(order)),
            ("it cancels the order, and says so when it is done", self._cancelled),
            ("a cancelled id stays taken", lambda: self._still_taken(order)),
            ("nothing was bought", lambda: self._same_positions(before)),
        ):
            check = self._tried(promise, tried)
            yield check
            if not check.kept and promise == "it takes an order":
                return

    def _tried(self, promise: str, tried: Callable[[], str]) -> Check:
        try:
            return Check(promise, True, tried())
        except (_Broken, BrokerUnavailable, InvalidInput) as error:
            return Check(promise, False, str(error))

    def _clock(self) -> str:
        theirs, ours = self._broker.clock().now, self._now()
        if abs(theirs - ours) > SKEW:
            raise _Broken(f"it is {theirs:%H:%M:%S} there and {ours:%H:%M:%S} here; set this machine's clock")
        return f"{theirs:%Y-%m-%d %H:%M:%S} UTC"

    def _account(self) -> str:
        status = self._broker.account()
        if status.blocked:
            raise _Broken(status.blocked)
        return f"{status.number}, cash {status.cash} {status.currency}"

    def _positions(self) -> str:
        return f"{len(self._broker.positions())} held"

    def _borrow(self) -> str:
        return f"{self._symbol}: {self._broker.borrow([self._symbol])[self._symbol]}"

    def _absent(self) -> str:
        found = self._broker.find(f"{self._name}-never")
        if not isinstance(found, Absent):
            raise _Broken(f"it answers {found}")
        return "absent"

    def _excluded(self) -> str:
        able = self._broker.capabilities
        reason = able.refusal(self._name, "short", Decimal("0.5"), "market", "day")
        if reason is None:
            raise _Broken("half a share could be sold short")
        return reason

    def _request(self) -> OrderRequest:
        quote = self._broker.quotes([self._symbol]).get(self._symbol)
        last = quote and (quote.last or quote.bid or quote.ask)
        if not last:
            raise _Broken(f"it has no quote of {self._symbol}; name another symbol")
        limit = (last * BELOW).quantize(_CENT, ROUND_DOWN)
        return OrderRequest(
            client_order_id=self._name,
            symbol=self._symbol,
            side="buy",
            quantity=Decimal(1),
            phase="openings",
            order_type="limit",
            time_in_force="day",
            collar_low=None,
            collar_high=None,
            trade_session=self._session(),
            submitted_at=self._now(),
            limit_price=limit,
            sent_before=False,
        )

    def _session(self) -> date:
        """The session that a day order sent now trades in."""
        calendar, today = trading_calendar("XNYS"), self._now().date()
        session = today if calendar.is_session(today) else calendar.next_session(today)
        return session if self._now() < calendar.close_at(session) else calendar.next_session(session)

    def _taken(self, order: OrderRequest) -> str:
        answer = self._broker.submit(order)
        if not isinstance(answer, BrokerOrder) or answer.ended:
            raise _Broken(f"it answers {answer}")
        return f"order {answer.broker_order_id}"

    def _found(self) -> str:
        found: Any = self._until(lambda found: isinstance(found, BrokerOrder))
        if found.symbol != self._symbol or found.quantity != 1 or found.filled_quantity:
            raise _Broken(f"it answers {found}")
        return str(found.status)

    def _once(self, order: OrderRequest) -> str:
        answer = self._broker.submit(replace(order, sent_before=True))
        ours = [each for each in self._broker.open_orders() if each.client_order_id == self._name]
        if not isinstance(answer, BrokerOrder) or len(ours) != 1:
            raise _Broken(f"it answers {answer}, and {len(ours)} orders are open under the id")
        return "one order is open under the id"

    def _other(self, order: OrderRequest) -> str:
        answer = self._broker.submit(replace(order, quantity=Decimal(2)))
        if not isinstance(answer, Rejected):
            raise _Broken(f"it answers {answer}")
        return answer.reason

    def _cancelled(self) -> str:
        self._broker.cancel(self._name, "end of the verification")
        found: Any = self._until(lambda found: isinstance(found, BrokerOrder) and found.ended)
        if found.status != "cancelled" or found.filled_quantity:
            raise _Broken(f"it answers {found}")
        return "cancelled"

    def _still_taken(self, order: OrderRequest) -> str:
        answer = self._broker.submit(order)
        if not isinstance(answer, BrokerOrder) or not answer.ended:
            raise _Broken(f"it answers {answer}")
        return "the answer is the cancelled order"

    def _same_positions(self, before: dict[str, Decimal]) -> str:
        after = self._broker.positions()
        if after != before:
            raise _Broken(f"positions were {before} and are {after}")
        return "positions are what they were"

    def _until(self, true: Callable[[object], bool]) -> object:
        for _ in range(PATIENCE):
            found = self._broker.find(self._name)
            if true(found):
                return found
            self._wait(1.0)
        raise _Broken(f"after {PATIENCE} s it still answers {found}")
