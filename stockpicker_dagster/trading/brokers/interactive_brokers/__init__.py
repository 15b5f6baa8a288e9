"""Interactive Brokers' Web API, through the Client Portal Gateway that a person has signed in to.

It is asked with the same small client as Alpaca, and not with the published Python packages: an order must be sent in
one request, and what its warnings are answered with must be a short list, not "yes". The session is the gateway's, so
that no password comes near this process.

Order ids of the gateway can roll back after a restart, and what happened while it was away is not told again. Hence
nothing is remembered: every question about an order reads the live orders and the executions of seven days, and finds
it by the client id that it carries (`cOID`, which comes back as `order_ref`). How answers are read is in `answers`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote as quoted

from stockpicker_dagster.trading.brokers import (
    Absent,
    AccountStatus,
    Borrow,
    BrokerOrder,
    BrokerUnavailable,
    Capabilities,
    Clock,
    Fill,
    Lookup,
    Movement,
    OrderRequest,
    Quote,
    Rejected,
    Submission,
    Unknown,
)
from stockpicker_dagster.trading.brokers.capabilities import CutOff
from stockpicker_dagster.trading.brokers.interactive_brokers import answers
from stockpicker_dagster.trading.brokers.interactive_brokers.answers import to_interactive_brokers
from stockpicker_dagster.trading.brokers.online import OnlineBroker, added_up
from stockpicker_dagster.trading.brokers.wire import Answer, NoAnswer, NotSent, Pace, Patience, Wire

GATEWAY = "https://localhost:5000/v1/api"

ANSWERED_YES = frozenset({"o354"})
"""The warnings that are answered with yes, by their ids: that we have no market data of theirs (prices are checked
here). Every other one is answered with no, and the order is refused with its text."""

ZERO = Decimal(0)
_QUESTIONS = 5
_DAYS = 7
_POSITIONS_PAGE = 100
_SIGNED_IN_FOR = 10.0
_EXCHANGES = frozenset({"NYSE", "NASDAQ", "AMEX", "ARCA", "BATS", "ISLAND", "IEX", "NYSENAT"})
_TYPES = {"market": "MKT", "limit": "LMT"}


class InteractiveBrokers(OnlineBroker):
    """One account at Interactive Brokers; see `Broker`. `number` is its id there, such as DU1234567.

    `mode` has to fit what the gateway says of itself: a paper account behind a live session, or the other way round, is
    refused. `spacing` is how many seconds lie at least between two questions for all orders or all executions, which
    the broker limits; answers younger than that are used again, unless something was sent since.
    """

    name = "interactive_brokers"
    title = "Interactive Brokers"
    capabilities = Capabilities(
        shorts=True,
        orders=frozenset((kind, tif) for kind in ("market", "limit") for tif in ("day", "opg", "ioc")),
        cut_offs={"opg": CutOff("open", timedelta(minutes=2))},
        client_id_length=64,
        client_id_window=timedelta(hours=24),
        late_arrival=timedelta(minutes=2),
        requests_per_minute=600,
        verified="against a fake built from Interactive Brokers' published OpenAPI document, not yet against the live "
        "service",
    )

    def __init__(
        self,
        account_id: str,
        mode: str,
        base_url: str,
        number: str,
        *,
        patience: Patience = Patience(),  # noqa: B008 (immutable)
        spacing: float = 5.0,
        verify: bool | str = True,
        wait: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        answered_yes: frozenset[str] = ANSWERED_YES,
    ) -> None:
        pace = Pace(self.capabilities.requests_per_minute, reserve=60)
        # The gateway answers 403 without a name of the client.
        headers = {"User-Agent": "stockpicker"}
        wire = Wire(base_url, headers, patience=patience, pace=pace, wait=wait, now=now, verify=verify)
        super().__init__(account_id, base_url, wire, now)
        self._mode = mode
        self._number = number
        self._spacing = spacing
        self._wait = wait
        self._answered_yes = answered_yes
        self._contracts: dict[str, int] = {}
        self._signed_in_at = float("-inf")
        self._seen: dict[str, tuple[float, Any]] = {}
        """The last list of orders and of executions, and when it was asked for."""
        self._changed_at = float("-inf")
        """When something was last sent: what was read before says nothing about it."""

    # -- questions ----------------------------------------------------------------------------------------------------

    def clock(self) -> Clock:
        """See `Broker.clock`; the gateway's clock, to the second."""
        served_at = self._session().served_at
        if served_at is None:
            raise BrokerUnavailable("the gateway of Interactive Brokers does not say what time it is; ask again later")
        return Clock(served_at)

    def account(self) -> AccountStatus:
        """See `Broker.account`."""
        self._signed_in()
        path = f"/iserver/account/{self._quoted}/summary"
        body = self._mapping(path)
        cash = answers.decimal_of(body.get("totalCashValue"))
        if cash is None:
            raise BrokerUnavailable("Interactive Brokers' summary of the account lacks its cash; ask again later")
        status = str(body.get("status") or "")
        return AccountStatus(
            number=self._number,
            cash=cash,
            equity=answers.decimal_of(body.get("netLiquidationValue")),
            buying_power=answers.decimal_of(body.get("buyingPower")),
            blocked=f"the account is {status!r} at Interactive Brokers" if status else None,
        )

    def positions(self) -> dict[str, Decimal]:
        """See `Broker.positions`; asked for afresh, for the gateway keeps old ones."""
        self._signed_in()
        # The portfolio is only answered for after the list of its accounts was asked for.
        self._listing("/portfolio/accounts")
        self._wire.ask(f"/portfolio/{self._quoted}/positions/invalidate", method="POST")
        found: list[tuple[str, Decimal]] = []
        page = 0
        while True:
            bodies = self._listing(f"/portfolio/{self._quoted}/positions/{page}", {"waitForSecDef": "true"})
            found.extend(answers.read_position(body) for body in bodies)
            if len(bodies) < _POSITIONS_PAGE:
                return added_up(found)
            page += 1

    def open_orders(self) -> Sequence[BrokerOrder]:
        """See `Broker.open_orders`."""
        orders = [answers.read_order(body) for body in self._orders()]
        return [order for order in orders if not order.ended]

    def find(self, client_order_id: str) -> Lookup:
        """See `Broker.find`. An order that has ended in an earlier session shows only by its executions."""
        try:
            live = [body for body in self._orders() if body.get("order_ref") == client_order_id]
            fills = [fill for fill in self._fills() if fill.client_order_id == client_order_id]
        except BrokerUnavailable as error:
            return Unknown(str(error))
        if len(live) > 1:
            return Unknown(f"Interactive Brokers shows {len(live)} orders under the client id {client_order_id}")
        filled = sum((abs(fill.quantity) for fill in fills), ZERO)
        if live:
            return _with_fills(answers.read_order(live[0]), filled)
        if not fills:
            return Absent()
        side = "buy" if fills[0].quantity > 0 else "sell"
        reason = "ended in an earlier session; its executions are all that is shown"
        return BrokerOrder(client_order_id, "", "cancelled", filled, reason, fills[0].symbol, side)

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """See `Broker.fills_since`: the executions of seven days, whatever was seen before."""
        return sorted(self._fills(), key=lambda fill: (fill.filled_at, fill.fill_id))

    def movements_since(self, since: datetime) -> Sequence[Movement]:
        """See `Broker.movements_since`: the Web API does not tell them."""
        return ()

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Borrow]:
        """See `Broker.borrow`: by the number of shares that can be borrowed."""
        shown = self._snapshots(symbols, (answers.SHORTABLE,))
        return {symbol: _borrow(shown.get(symbol, {})) for symbol in symbols}

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """See `Broker.quotes`."""
        shown = self._snapshots(symbols, (answers.LAST, answers.BID, answers.ASK))
        found = {symbol: answers.read_quote(symbol, body) for symbol, body in shown.items()}
        return {symbol: quote for symbol, quote in found.items() if quote is not None}

    def buying_power_needed(self, request: OrderRequest, quote: Quote | None) -> Decimal | None:
        """See `Broker.buying_power_needed`: the change of the initial margin, by the broker's own preview."""
        if request.side in ("sell", "cover"):
            return ZERO
        try:
            path = f"/iserver/account/{self._quoted}/orders/whatif"
            answer = self._wire.send("POST", path, {"orders": [self._ticket(request)]})
        except (BrokerUnavailable, NotSent, NoAnswer):
            return None
        margin = answer.body.get("initial") if isinstance(answer.body, dict) else None
        change = answers.decimal_of(margin.get("change")) if isinstance(margin, dict) else None
        return None if change is None else max(change, ZERO)

    # -- what changes something ---------------------------------------------------------------------------------------

    def _prepared(self, request: OrderRequest) -> tuple[str, dict[str, Any]]:
        self._signed_in()
        return f"/iserver/account/{self._quoted}/orders", {"orders": [self._ticket(request)]}

    def _path_of(self, order: BrokerOrder) -> str:
        return f"/iserver/account/{self._quoted}/order/{quoted(order.broker_order_id, safe='')}"

    def _has_sent(self) -> None:
        self._changed_at = time.monotonic()

    def _ticket(self, request: OrderRequest) -> dict[str, Any]:
        ticket: dict[str, Any] = {
            "acctId": self._number,
            "conid": self._contract(request.symbol),
            "cOID": request.client_order_id,
            "orderType": _TYPES[request.order_type],
            "side": "BUY" if request.side in ("buy", "cover") else "SELL",
            "quantity": int(request.quantity),
            # Left out, it would be good till cancelled.
            "tif": request.time_in_force.upper(),
            "outsideRTH": False,
        }
        if request.limit_price is not None:
            ticket["price"] = float(request.limit_price)
        return ticket

    def _outcome(self, answer: Answer, request: OrderRequest) -> Submission:
        """What became of a submission, its warnings answered one after another.

        A warning that is not on the list is declined, which refuses the order.
        """
        for _ in range(_QUESTIONS):
            if answer.status == 429:
                return self._too_many_requests(request)
            body = answer.body
            entry = body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict) else None
            if answer.succeeded and entry is not None and entry.get("order_id"):
                return self._taken(entry, request)
            if answer.succeeded and entry is not None and entry.get("id") and "message" in entry:
                asked = [str(identity) for identity in entry.get("messageIds") or ["without an id"]]
                if not set(asked) <= self._answered_yes:
                    return self._declined(entry, asked, request)
                try:
                    answer = self._reply(entry, confirmed=True, request=request)
                except (NotSent, NoAnswer) as error:
                    return Unknown(f"{error} to our reply; the order may be at the broker")
                continue
            return self._refused(answer, request)
        return Unknown(f"Interactive Brokers asked more than {_QUESTIONS} questions about one order")

    def _taken(self, entry: Mapping[str, Any], request: OrderRequest) -> BrokerOrder:
        shown = {
            "orderId": entry["order_id"],
            "status": entry.get("order_status"),
            "ticker": request.symbol,
            "side": "B" if request.side in ("buy", "cover") else "S",
            "totalSize": request.quantity,
        }
        order = answers.read_order(shown, request.client_order_id)
        # The answer does not say how much was filled; who needs to know asks for the order.
        return BrokerOrder(**{**vars(order), "status": "working", "filled_quantity": ZERO})

    def _declined(self, entry: Mapping[str, Any], asked: Sequence[str], request: OrderRequest) -> Submission:
        said = entry.get("message")
        text = " ".join(str(line) for line in said) if isinstance(said, list) else str(said)
        reason = f"Interactive Brokers warns ({', '.join(asked)}): {self._wire.masked(text.strip())}"
        try:
            answer = self._reply(entry, confirmed=False)
        except (NotSent, NoAnswer) as error:
            return Unknown(f"{reason}; declined, but {error}")
        told = answer.body.get("error") if isinstance(answer.body, dict) else None
        if told is not None and isinstance(self.find(request.client_order_id), Absent):
            return Rejected(f"{reason}; such warnings are answered with no", asked[0])
        return Unknown(f"{reason}; declined, and the answer to that is not clear")

    def _reply(self, entry: Mapping[str, Any], *, confirmed: bool, request: OrderRequest | None = None) -> Answer:
        """The answer to our answer; to confirm is to send the order, and is as late as that."""
        path = f"/iserver/reply/{quoted(str(entry['id']), safe='')}"
        not_after, last_word = (None, None) if request is None else (request.not_after, request.last_word)
        try:
            return self._wire.send("POST", path, {"confirmed": confirmed}, not_after=not_after, last_word=last_word)
        finally:
            self._has_sent()

    def _refused(self, answer: Answer, request: OrderRequest) -> Submission:
        """An answer that is neither an order nor a question; the order is not there only if it is not found there."""
        body = answer.body
        said = (body.get("error") or body.get("text")) if isinstance(body, dict) else None
        message = self._wire.masked(said)
        if said is None or answer.status >= 500 or "timeout" in message.lower().replace(" ", ""):
            return Unknown(f"Interactive Brokers answered with status {answer.status} ({message})")
        code = str(body.get("messageId") or answer.status)
        return self._resolved(request, message, code, "already registered" in message.lower())

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def _quoted(self) -> str:
        return quoted(self._number, safe="")

    def _signed_in(self) -> None:
        """As `_session`, unless that was asked a moment ago."""
        if time.monotonic() - self._signed_in_at > _SIGNED_IN_FOR:
            self._session()

    def _session(self) -> Answer:
        """Makes sure that the gateway is signed in, to our account and in our mode; raises `BrokerUnavailable`."""
        answer = self._wire.ask("/iserver/auth/status", method="POST")
        body = answer.body if isinstance(answer.body, dict) else {}
        if not answer.succeeded or not (body.get("authenticated") and body.get("connected")):
            raise BrokerUnavailable(
                f"the gateway at {self.base_url} is not signed in to Interactive Brokers; sign in on its page"
            )
        if body.get("competing"):
            raise BrokerUnavailable(
                "another session of the same user competes for Interactive Brokers; end one of them"
            )
        if "accounts" not in self._seen:
            self._check_account()
        self._signed_in_at = time.monotonic()
        return answer

    def _check_account(self) -> None:
        body = self._mapping("/iserver/accounts")
        accounts = body.get("accounts")
        if not isinstance(accounts, list) or self._number not in accounts:
            raise BrokerUnavailable(f"the gateway has no access to the account {self._number}; sign in as its user")
        paper = body.get("isPaper")
        if paper is not (self._mode == "paper"):
            said = "a paper" if paper is True else "a live" if paper is False else "an unknown kind of"
            raise BrokerUnavailable(
                f"the account {self.account_id!r} is {self._mode}, and the gateway says it has {said} session"
            )
        self._seen["accounts"] = time.monotonic(), accounts

    def _orders(self) -> list[dict[str, Any]]:
        """The live orders and those that ended in this session; raises `BrokerUnavailable` until they are loaded."""
        return list(self._fresh("orders", self._load_orders))

    def _load_orders(self) -> list[dict[str, Any]]:
        self._signed_in()
        path = "/iserver/account/orders"
        # The first question has the gateway forget what it had and load anew, and is answered with nothing.
        self._wire.ask(path, {"force": "true"})
        body = self._mapping(path)
        orders = body.get("orders")
        if body.get("snapshot") is not True or not isinstance(orders, list):
            raise BrokerUnavailable("the gateway has not loaded the orders of Interactive Brokers yet; ask again later")
        return [entry for entry in orders if isinstance(entry, dict) and self._is_ours(entry)]

    def _fills(self) -> list[Fill]:
        bodies = self._fresh("trades", self._load_trades)
        return [answers.read_fill(body) for body in bodies if self._is_ours(body)]

    def _load_trades(self) -> list[dict[str, Any]]:
        self._signed_in()
        return answers.latest_corrections(self._listing("/iserver/account/trades", {"days": _DAYS}))

    def _is_ours(self, body: Mapping[str, Any]) -> bool:
        return body.get("acct", body.get("accountCode", body.get("account", self._number))) == self._number

    def _fresh(self, what: str, load: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """A list that was asked for after whatever was sent last; asked for at most once every `spacing` seconds."""
        asked_at, known = self._seen.get(what, (float("-inf"), None))
        while time.monotonic() - asked_at < self._spacing:
            if asked_at > self._changed_at and known is not None:
                return list(known)
            self._wait(min(self._spacing - (time.monotonic() - asked_at), 1.0))
        asked_at = time.monotonic()
        self._seen[what] = asked_at, None
        known = load()
        self._seen[what] = asked_at, known
        return known

    def _contract(self, symbol: str) -> int:
        """The contract id of an American stock; raises `BrokerUnavailable` where not exactly one has the symbol."""
        if symbol not in self._contracts:
            name = to_interactive_brokers(symbol)
            body = self._mapping("/trsrv/stocks", {"symbols": name})
            found = {
                contract.get("conid")
                for entry in body.get(name) or []
                if isinstance(entry, dict) and entry.get("assetClass") == "STK"
                for contract in entry.get("contracts") or []
                if contract.get("isUS") is True and contract.get("exchange") in _EXCHANGES
            }
            if len(found) != 1:
                raise BrokerUnavailable(
                    f"Interactive Brokers has {len(found)} American stocks under {name!r}; trade {symbol} elsewhere"
                )
            self._contracts[symbol] = int(found.pop())
        return self._contracts[symbol]

    def _snapshots(self, symbols: Sequence[str], fields: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        self._signed_in()
        contracts = {self._contract(symbol): symbol for symbol in symbols}
        if not contracts:
            return {}
        asked = {"conids": ",".join(str(number) for number in contracts), "fields": ",".join(fields)}
        # The first question opens the stream, the second reads it.
        self._wire.ask("/iserver/marketdata/snapshot", asked)
        found = self._listing("/iserver/marketdata/snapshot", asked)
        shown: dict[str, Mapping[str, Any]] = {}
        for body in found:
            number = answers.decimal_of(body.get("conid"))
            if number is not None and int(number) in contracts:
                shown[contracts[int(number)]] = body
        return shown


def _with_fills(order: BrokerOrder, filled: Decimal) -> BrokerOrder:
    """The order with what its executions say, where that is more; it has not ended before the executions say so too."""
    if filled > order.filled_quantity:
        return BrokerOrder(**{**vars(order), "filled_quantity": filled})
    return order


def _borrow(body: Mapping[str, Any]) -> Borrow:
    shares = answers.decimal_of(body.get(answers.SHORTABLE))
    if shares is None:
        return "unknown"
    return "easy" if shares > 0 else "none"
