"""What brokers that are reached over HTTP have in common: when an order may be sent, how, and what silence means.

An order is sent in one request, and only in its own session's window. Whatever comes back that is not a clear answer
leaves its outcome unknown, and a refusal is believed once the broker, asked by the client id, does not have the order.
What requests look like and how answers are read is each adapter's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.trading.brokers import (
    AccountStatus,
    BrokerOrder,
    BrokerUnavailable,
    Capabilities,
    Lookup,
    OrderRequest,
    Rejected,
    Submission,
    Unknown,
    not_sent,
    order_under_id,
    refusal_of,
)
from stockpicker_dagster.trading.brokers.wire import Answer, NoAnswer, NotSent, Wire

ZERO = Decimal(0)
LATE = "it reached the broker after it had expired"


class OnlineBroker(ABC):
    """The half of a `Broker` that does not depend on whose API it is; `title` is the broker's name in sentences.

    `now` is the clock, in UTC, by which cut-offs are kept.
    """

    title: str
    capabilities: Capabilities

    def __init__(self, account_id: str, base_url: str, wire: Wire, now: Callable[[], datetime]) -> None:
        self.account_id = account_id
        self.base_url = base_url.rstrip("/")
        self._wire = wire
        self._now = now
        self._calendar = trading_calendar("XNYS")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.account_id!r}, {self.base_url!r})"

    # -- each adapter's own -------------------------------------------------------------------------------------------

    @abstractmethod
    def account(self) -> AccountStatus:
        """See `Broker.account`."""

    @abstractmethod
    def find(self, client_order_id: str) -> Lookup:
        """See `Broker.find`."""

    @abstractmethod
    def _prepared(self, request: OrderRequest) -> tuple[str, Any]:
        """Where the order is posted, and its body; raises `BrokerUnavailable` where it cannot be sent now."""

    @abstractmethod
    def _outcome(self, answer: Answer, request: OrderRequest) -> Submission:
        """What the answer to a posted order means."""

    @abstractmethod
    def _path_of(self, order: BrokerOrder) -> str:
        """Where the order is deleted, which cancels it."""

    def _urgently(self, client_order_id: str) -> Lookup:
        """As `find`, for a cancellation, which goes before other requests where the adapter can do that."""
        return self.find(client_order_id)

    def _has_sent(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called after something was sent that may have changed orders."""

    # -- the same everywhere ------------------------------------------------------------------------------------------

    def cash(self) -> Decimal:
        """See `Broker.cash`."""
        return self.account().cash

    def submit(self, request: OrderRequest) -> Submission:
        """See `Broker.submit`. An order that would trade in another session than its own is not sent."""
        refusal = refusal_of(self.capabilities, request)
        if refusal is not None:
            return Rejected(refusal)
        if (why := self._out_of_time(request)) is not None:
            return not_sent(request, why)
        try:
            path, body = self._prepared(request)
        except BrokerUnavailable as error:
            return not_sent(request, str(error))
        try:
            answer = self._wire.send("POST", path, body, not_after=request.not_after, last_word=request.last_word)
        except NotSent as error:
            return not_sent(request, str(error))
        except NoAnswer as error:
            return Unknown(f"{error}; the order may be at the broker")
        finally:
            self._has_sent()
        outcome = self._outcome(answer, request)
        if not (answer.succeeded and self._arrived_late(request)):
            return outcome
        # By the broker's own clock: whatever held it up, or whatever our clock says, it must not be worked on.
        cancelled = self.cancel(request.client_order_id, LATE)
        return cancelled if isinstance(cancelled, BrokerOrder) else outcome

    def cancel(self, client_order_id: str, reason: str) -> Lookup:
        """See `Broker.cancel`."""
        found = self._urgently(client_order_id)
        if not isinstance(found, BrokerOrder) or found.ended:
            return found
        # What the order is afterwards says whether this was heard.
        with suppress(NotSent, NoAnswer):
            self._wire.send("DELETE", self._path_of(found), urgent=True)
        self._has_sent()
        after = self._urgently(client_order_id)
        if isinstance(after, BrokerOrder) and after.status == "cancelled":
            return BrokerOrder(**{**vars(after), "reason": reason})
        return after

    def _arrived_late(self, request: OrderRequest) -> bool:
        """Whether the broker's last answer, by its own date, came after the order had expired."""
        served_at, not_after = self._wire.served_at, request.not_after
        return served_at is not None and not_after is not None and served_at >= not_after

    def _out_of_time(self, request: OrderRequest) -> str | None:
        """Why it cannot be sent now, although it could at another time."""
        earliest, latest = self.capabilities.order_window(request.time_in_force, self._calendar, request.trade_session)
        now = self._now()
        if earliest <= now < latest:
            return None
        return (
            f"{request.time_in_force} orders for {request.trade_session} are taken from {earliest:%Y-%m-%d %H:%M} to "
            f"{latest:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M:%S}"
        )

    def _too_many_requests(self, request: OrderRequest) -> Submission:
        return not_sent(request, f"{self.title} took no more requests for as long as we waited")

    def _resolved(self, request: OrderRequest, message: str, code: str, second: bool) -> Submission:
        """A refusal; whatever it says, there is no order only if the broker does not have one by its client id.

        `second`: it was refused as the second one under its id, so that there is a first wherever it may be.
        """
        found = self.find(request.client_order_id)
        if isinstance(found, BrokerOrder):
            return order_under_id(found, request)
        if isinstance(found, Unknown) or second:
            return Unknown(f"{self.title} refused the order ({message}) and does not show whether it has it")
        return Rejected(message, code)

    def _mapping(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        body: dict[str, Any] = self._readable(self._wire.ask(path, params), path, dict)
        return body

    def _listing(self, path: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        body: list[dict[str, Any]] = self._readable(self._wire.ask(path, params), path, list)
        if not all(isinstance(entry, dict) for entry in body):
            raise BrokerUnavailable(f"{self.title}'s answer from {path} is no list of objects; ask again later")
        return body

    def _readable(self, answer: Answer, path: str, kind: type) -> Any:
        """The body of an answer that has to be of a kind; raises `BrokerUnavailable`."""
        if not answer.succeeded:
            body = answer.body if isinstance(answer.body, dict) else {}
            said = self._wire.masked(body.get("message", body.get("error")))
            raise BrokerUnavailable(f"{self.title} answered {path} with status {answer.status}: {said}")
        if not isinstance(answer.body, kind):
            raise BrokerUnavailable(f"{self.title}'s answer from {path} cannot be read; ask again later")
        return answer.body


def added_up(positions: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    """Signed shares by symbol, sorted, without zeros; a symbol that comes twice is added up."""
    held: dict[str, Decimal] = {}
    for symbol, quantity in positions:
        held[symbol] = held.get(symbol, ZERO) + quantity
    return {symbol: quantity for symbol, quantity in sorted(held.items()) if quantity}
