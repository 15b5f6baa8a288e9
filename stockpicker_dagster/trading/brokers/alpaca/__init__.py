"""Alpaca's trading API, asked with a small client of our own, because an order's outcome hangs on details of HTTP.

Whatever comes back after an order was sent and is not a clear answer leaves its outcome unknown: a time-out, a 5xx, a
page of HTML. An order is sent in one request. A refusal that says the client id is taken is resolved by asking for that
id. How answers are read is in `answers`, how the broker is asked in `wire`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from urllib.parse import quote as quoted

from stockpicker_dagster.errors import InvalidInput
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
    Submission,
    Unknown,
)
from stockpicker_dagster.trading.brokers.alpaca import answers
from stockpicker_dagster.trading.brokers.alpaca.answers import to_alpaca
from stockpicker_dagster.trading.brokers.capabilities import CutOff
from stockpicker_dagster.trading.brokers.online import OnlineBroker, added_up
from stockpicker_dagster.trading.brokers.wire import Answer, Pace, Patience, Wire, on_this_machine

URLS = {"paper": "https://paper-api.alpaca.markets", "live": "https://api.alpaca.markets"}
DATA_URL = "https://data.alpaca.markets"
KEY_ID, SECRET_KEY = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"

ZERO = Decimal(0)
_REFUSED = frozenset({400, 401, 403, 404, 422})
"""Statuses with which Alpaca refuses; it is a refusal only with its own JSON around the reason."""
_NOT_FOUND = 404
_PAGE = 500
_ACTIVITIES_PAGE = 100
_OVERLAP = timedelta(hours=1)
"""Fills may be reported out of order: so far back the question for new ones reaches again."""
_HOPS = 10
_ASSETS_ONE_BY_ONE = 20
_SHORT_MARGIN = Decimal("1.03")


class AlpacaBroker(OnlineBroker):
    """One account at Alpaca; see `Broker`. `mode` is `paper` or `live` and has to fit the URL.

    `wait` is called while requests have to wait for the rate limit, never while one is under way; it may raise, to stop
    for a halt. `now` is the clock, in UTC, by which cut-offs are kept.
    """

    name = "alpaca"
    title = "Alpaca"
    capabilities = Capabilities(
        shorts=True,
        fractional_longs=True,
        orders=frozenset((kind, tif) for kind in ("market", "limit") for tif in ("day", "opg", "cls", "ioc")),
        fractional_orders=frozenset({("market", "day")}),
        cut_offs={
            "opg": CutOff("open", timedelta(minutes=2), time_of_day(19)),
            "cls": CutOff("close", timedelta(minutes=10), time_of_day(19)),
        },
        client_id_length=128,
        late_arrival=timedelta(minutes=2),
        requests_per_minute=200,
        reports_movements=True,
        verified="against a fake built from Alpaca's published OpenAPI document, not yet against the live service",
    )

    def __init__(
        self,
        account_id: str,
        mode: str,
        base_url: str,
        key_id: str,
        secret_key: str,
        *,
        data_url: str = DATA_URL,
        patience: Patience = Patience(),  # noqa: B008 (immutable)
        wait: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises `InvalidInput` for a URL that is another mode's, or an open line."""
        _refuse_other_mode(mode, base_url)
        limit = self.capabilities.requests_per_minute
        headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key}
        secrets = (key_id, secret_key)
        wire = Wire(
            base_url, headers, secrets=secrets, patience=patience, pace=Pace(limit, reserve=20), wait=wait, now=now
        )
        super().__init__(account_id, base_url, wire, now)
        self._data = Wire(data_url, headers, secrets=secrets, patience=patience, pace=Pace(limit), wait=wait, now=now)
        self._client_ids: dict[str, str] = {}
        """Client ids by Alpaca's own order ids: fills name only those."""

    # -- questions ----------------------------------------------------------------------------------------------------

    def clock(self) -> Clock:
        """See `Broker.clock`."""
        return answers.read_clock(self._mapping("/v2/clock"))

    def account(self) -> AccountStatus:
        """See `Broker.account`."""
        return answers.read_account(self._mapping("/v2/account"))

    def positions(self) -> dict[str, Decimal]:
        """See `Broker.positions`."""
        return added_up(answers.read_position(body) for body in self._listing("/v2/positions"))

    def open_orders(self) -> Sequence[BrokerOrder]:
        """See `Broker.open_orders`."""
        found = {str(body.get("id")): answers.read_order(body) for body in self._orders({"status": "open"})}
        return [order for order in found.values() if not order.ended]

    def find(self, client_order_id: str) -> Lookup:
        """See `Broker.find`. Alpaca's own "not found", in its own JSON, is the only answer that means `Absent`."""
        return self._ask_for(client_order_id)

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """See `Broker.fills_since`."""
        since = _moment_of(fill_id)
        after = None if since is None else f"{since - _OVERLAP:%Y-%m-%dT%H:%M:%SZ}"
        bodies = {str(body.get("id")): body for body in self._activities({"activity_types": "FILL", "after": after})}
        names = self._names_of({str(body.get("order_id")) for body in bodies.values()})
        found = [answers.read_fill(body, names[str(body.get("order_id"))]) for body in bodies.values()]
        return sorted(found, key=lambda fill: (fill.filled_at, fill.fill_id))

    def movements_since(self, since: datetime) -> Sequence[Movement]:
        """See `Broker.movements_since`. Alpaca does not document what `qty` is of a split: the books are compared."""
        asked = {"category": "non_trade_activity", "after": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        found = (answers.read_movement(body) for body in self._activities(asked) if body.get("activity_type") != "FILL")
        return list({movement.movement_id: movement for movement in found if movement is not None}.values())

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Borrow]:
        """See `Broker.borrow`; a symbol that Alpaca does not have cannot be borrowed there."""
        if len(symbols) > _ASSETS_ONE_BY_ONE:
            every = self._listing("/v2/assets", {"status": "active", "asset_class": "us_equity"})
            known = {answers.from_alpaca(body.get("symbol")): answers.read_borrow(body) for body in every}
            return {symbol: known.get(symbol, "none") for symbol in symbols}
        return {symbol: self._borrow_of(symbol) for symbol in symbols}

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """See `Broker.quotes`; from Alpaca's market data, in the feed that the account's plan has."""
        found: dict[str, Quote] = {}
        for start in range(0, len(symbols), _ACTIVITIES_PAGE):
            batch = ",".join(to_alpaca(symbol) for symbol in symbols[start : start + _ACTIVITIES_PAGE])
            answer = self._data.ask("/v2/stocks/snapshots", {"symbols": batch})
            body = self._readable(answer, "/v2/stocks/snapshots", dict)
            for name, snapshot in body.items():
                symbol = answers.from_alpaca(name)
                quote = answers.read_quote(symbol, snapshot) if isinstance(snapshot, dict) else None
                if quote is not None and symbol in symbols:
                    found[symbol] = quote
        return found

    def buying_power_needed(self, request: OrderRequest, quote: Quote | None) -> Decimal | None:
        """See `Broker.buying_power_needed`. A new short takes max(limit, 1.03 x ask) a share, a long its price."""
        if request.side in ("sell", "cover"):
            return ZERO
        ask = None if quote is None else quote.ask or quote.last
        price = request.limit_price
        if request.side == "short":
            dearest = [figure for figure in (price, None if ask is None else ask * _SHORT_MARGIN) if figure is not None]
            price = None if ask is None else max(dearest)
        elif price is None:
            price = ask
        return None if price is None else price * request.quantity

    # -- what changes something ---------------------------------------------------------------------------------------

    def _prepared(self, request: OrderRequest) -> tuple[str, dict[str, str]]:
        return "/v2/orders", _order_body(request)

    def _outcome(self, answer: Answer, request: OrderRequest) -> Submission:
        if answer.succeeded:
            return self._taken(answer, request)
        if answer.status == 429:
            return self._too_many_requests(request)
        if answer.status in _REFUSED and isinstance(answer.body, dict) and "message" in answer.body:
            message = self._wire.masked(answer.body.get("message"))
            return self._resolved(request, message, str(answer.body.get("code") or ""), "unique" in message.lower())
        return Unknown(f"Alpaca answered with status {answer.status}; the order may be there")

    def _path_of(self, order: BrokerOrder) -> str:
        return f"/v2/orders/{quoted(order.broker_order_id, safe='')}"

    def _urgently(self, client_order_id: str) -> Lookup:
        return self._ask_for(client_order_id, urgent=True)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _ask_for(self, client_order_id: str, urgent: bool = False) -> Lookup:
        asked = {"client_order_id": client_order_id}
        try:
            return self._known(self._wire.ask("/v2/orders:by_client_order_id", asked, urgent=urgent), client_order_id)
        except BrokerUnavailable as error:
            return Unknown(str(error))

    def _taken(self, answer: Answer, request: OrderRequest) -> Submission:
        body = answer.body
        if not _is_order(body, request.client_order_id):
            return Unknown("Alpaca took the order and answered what cannot be read")
        order = answers.read_order({"client_order_id": request.client_order_id, **body})
        if order.broker_order_id:
            self._client_ids[order.broker_order_id] = request.client_order_id
        return order

    def _known(self, answer: Answer, client_order_id: str) -> Lookup:
        body = answer.body
        if answer.status == _NOT_FOUND and isinstance(body, dict) and str(body.get("code", "")).startswith("404"):
            return Absent()
        if not answer.succeeded or not _is_order(body, client_order_id):
            return Unknown(f"Alpaca's answer about order {client_order_id} cannot be read (status {answer.status})")
        order = self._followed(body, client_order_id)
        if order.broker_order_id:
            self._client_ids[order.broker_order_id] = client_order_id
        return order

    def _followed(self, body: Mapping[str, Any], client_order_id: str) -> BrokerOrder:
        """The order, or what has become of it where somebody had it replaced: all of that is one intent's."""
        order, before = answers.read_order(body), ZERO
        for _ in range(_HOPS):
            successor = body.get("replaced_by")
            if body.get("status") != "replaced" or not isinstance(successor, str):
                break
            before += order.filled_quantity
            body = self._mapping(f"/v2/orders/{quoted(successor, safe='')}")
            order = answers.read_order(body)
        if not before and order.client_order_id == client_order_id:
            return order
        return BrokerOrder(
            client_order_id,
            order.broker_order_id,
            order.status,
            order.filled_quantity + before,
            order.reason,
            order.symbol,
            order.side,
        )

    def _orders(self, asked: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Orders, newest first, page after page."""
        before: str | None = None
        while True:
            page = self._listing(
                "/v2/orders", {**asked, "limit": _PAGE, "direction": "desc", "before_order_id": before}
            )
            yield from page
            if len(page) < _PAGE:
                return
            last = str(page[-1].get("id") or "")
            if not last or last == before:
                raise BrokerUnavailable("Alpaca's list of orders does not go on after a full page; ask again later")
            before = last

    def _activities(self, asked: Mapping[str, str | None]) -> Iterator[Mapping[str, Any]]:
        token: str | None = None
        while True:
            params = {**asked, "direction": "asc", "page_size": _ACTIVITIES_PAGE, "page_token": token}
            page = self._listing("/v2/account/activities", params)
            yield from page
            if len(page) < _ACTIVITIES_PAGE:
                return
            last = str(page[-1].get("id") or "")
            if not last or last == token:
                raise BrokerUnavailable("Alpaca's list of activities does not go on after a full page; ask again later")
            token = last

    def _names_of(self, order_ids: set[str]) -> Mapping[str, str]:
        """The client id of each order; one request an order where it is not known yet."""
        missing = order_ids - set(self._client_ids)
        if len(missing) > _ASSETS_ONE_BY_ONE:
            for body in self._orders({"status": "all"}):
                self._client_ids[str(body.get("id"))] = str(body.get("client_order_id") or "")
                missing.discard(str(body.get("id")))
                if not missing:
                    break
        for identity in sorted(missing):
            body = self._mapping(f"/v2/orders/{quoted(identity, safe='')}")
            self._client_ids[identity] = str(body.get("client_order_id") or "")
        return self._client_ids

    def _borrow_of(self, symbol: str) -> Borrow:
        path = f"/v2/assets/{quoted(to_alpaca(symbol), safe='')}"
        answer = self._wire.ask(path)
        if answer.status == _NOT_FOUND and isinstance(answer.body, dict):
            return "none"
        body: dict[str, Any] = self._readable(answer, path, dict)
        return answers.read_borrow(body)

    def _readable(self, answer: Answer, path: str, kind: type) -> Any:
        if answer.status == 401:
            raise BrokerUnavailable(
                f"Alpaca refuses the keys of account {self.account_id!r}; set {KEY_ID} and {SECRET_KEY} to those of "
                f"{self.base_url}"
            )
        return super()._readable(answer, path, kind)


def _is_order(body: object, client_order_id: str) -> bool:
    """Whether this is the order of that client id, as far as the answer says: one that names no order is none."""
    if not isinstance(body, dict) or not (body.get("id") or body.get("client_order_id")):
        return False
    return body.get("client_order_id") in (None, client_order_id)


def _order_body(request: OrderRequest) -> dict[str, str]:
    body = {
        "symbol": to_alpaca(request.symbol),
        "qty": format(request.quantity.normalize(), "f"),
        "side": "buy" if request.side in ("buy", "cover") else "sell",
        "type": request.order_type,
        "time_in_force": request.time_in_force,
        "client_order_id": request.client_order_id,
    }
    if request.limit_price is not None:
        body["limit_price"] = format(request.limit_price, "f")
    return body


def _moment_of(activity_id: str | None) -> datetime | None:
    """When an activity happened: its id begins with the moment, as 17 digits."""
    digits = (activity_id or "").split("::")[0]
    try:
        return datetime.strptime(digits[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _refuse_other_mode(mode: str, base_url: str) -> None:
    if mode not in URLS:
        raise InvalidInput(f"the mode {mode!r} is unknown; allowed: paper, live")
    if base_url.rstrip("/") != URLS[mode] and not on_this_machine(base_url):
        raise InvalidInput(f"{base_url} is not where Alpaca keeps {mode} accounts; use {URLS[mode]}")
