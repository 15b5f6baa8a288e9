"""A loopback server that speaks Interactive Brokers' Web API as the gateway does, as far as we ask for it.

Its manners are the gateway's: it has to be signed in, orders are only shown after they were loaded, the first question
for market data is answered with nothing, warnings have to be answered, and a restart rolls order ids back and forgets
the orders that had ended.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

from stockpicker_dagster_tests.trading.brokers.exchange import Exchange, Execution, HeldOrder, Refused
from stockpicker_dagster_tests.trading.brokers.faulty_server import FaultyServer

NUMBER = "DU1234567"
PREFIX = "/v1/api"
_STATUSES = {
    "accepted": "PreSubmitted",
    "new": "Submitted",
    "partially_filled": "Submitted",
    "filled": "Filled",
    "canceled": "Cancelled",
    "expired": "Cancelled",
    "rejected": "Cancelled",
}


class InteractiveBrokersServer(FaultyServer):
    """One account behind a signed-in gateway. `warnings`: ids of the questions that the next order raises, in turn."""

    def __init__(self, exchange: Exchange | None = None) -> None:
        super().__init__()
        from datetime import timedelta

        self.exchange = exchange or Exchange(unique_for=timedelta(hours=24))
        self.signed_in = True
        self.competing = False
        self.paper: bool | None = True
        self.warnings: list[str] = []
        self.asked: dict[str, tuple[dict[str, Any], list[str]]] = {}
        self.declined = 0
        self.loaded = False
        self.streams: set[str] = set()
        self.forgotten: set[str] = set()
        self.numbers: dict[str, int] = {}
        self.next_number = 1_370_093_239
        self.contracts = {symbol: 265_598 + n for n, symbol in enumerate(sorted(self.exchange.prices))}
        self.shortable: dict[str, str] = {}

    @property
    def api(self) -> str:
        """The base URL of the interface."""
        return self.url + PREFIX

    def clock(self) -> datetime:
        return self.exchange.now

    def restart(self) -> None:
        """A restart of the gateway: ended orders are forgotten, and the others get lower ids than they had."""
        self.loaded = False
        self.forgotten |= {order.id for order in self.exchange.orders if not order.open}
        self.next_number -= 1000
        self.numbers = {}

    def respond(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> tuple[int, Any]:
        path = path.removeprefix(PREFIX)
        if "User-Agent" not in headers:
            return 403, {"error": "Access Denied"}
        if path == "/iserver/auth/status":
            return 200, self._status()
        if not self.signed_in:
            return 401, {"error": "not authenticated"}
        with self.exchange.lock:
            try:
                return 200, self._route(method, path, query, body)
            except Refused as refusal:
                if refusal.message == "client_order_id must be unique":
                    return 200, {"error": "Local order ID=1 is already registered."}
                return 200, {"error": refusal.message}

    def _route(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        here = f"/iserver/account/{NUMBER}"
        if path == f"{here}/orders" and method == "POST":
            return self._submit(body["orders"][0])
        if path == f"{here}/orders/whatif":
            return self._preview(body["orders"][0])
        if path.startswith("/iserver/reply/"):
            return self._replied(unquote(path.rsplit("/", 1)[1]), body["confirmed"])
        if path.startswith(f"{here}/order/") and method == "DELETE":
            return self._cancel(path.rsplit("/", 1)[1])
        if path == "/iserver/accounts":
            return {"accounts": [NUMBER], "isPaper": self.paper, "selectedAccount": NUMBER}
        if path == "/iserver/account/orders":
            return self._orders(query)
        if path == "/iserver/account/trades":
            return [self._trade(fill) for fill in self.exchange.fills]
        if path == f"{here}/summary":
            return self._summary()
        if path == "/portfolio/accounts":
            return [{"accountId": NUMBER, "currency": "USD"}]
        if path == f"/portfolio/{NUMBER}/positions/invalidate":
            return {"message": "success"}
        if path.startswith(f"/portfolio/{NUMBER}/positions/"):
            return self._positions(int(path.rsplit("/", 1)[1]))
        if path == "/trsrv/stocks":
            return self._stocks(query["symbols"])
        if path == "/iserver/marketdata/snapshot":
            return self._snapshot(query["conids"])
        raise Refused(404, 0, "Resource not found")

    def _status(self) -> dict[str, Any]:
        return {
            "authenticated": self.signed_in,
            "connected": self.signed_in,
            "established": self.signed_in,
            "competing": self.competing,
            "fail": "",
            "message": "",
            "MAC": "12:B:B3:23:BF:A0",
            "serverInfo": {"serverName": "JifN19053", "serverVersion": "Build 10.25.0p, Dec 5, 2023 5:48:12 PM"},
        }

    def _submit(self, ticket: dict[str, Any]) -> Any:
        for name in ("conid", "orderType", "quantity", "side", "tif", "cOID"):
            if name not in ticket:
                raise Refused(400, 0, f"Bad Request: {name} is missing")
        if self.exchange.by_client_id(ticket["cOID"]) is not None:
            self._place(ticket)
        warnings, self.warnings = self.warnings, []
        return self._ask(ticket, warnings) if warnings else self._accepted(self._place(ticket))

    def _ask(self, ticket: dict[str, Any], warnings: Sequence[str]) -> list[dict[str, Any]]:
        identity = str(uuid5(NAMESPACE_URL, f"question {len(self.asked)}"))
        self.asked[identity] = (ticket, list(warnings[1:]))
        text = f"A warning named {warnings[0]}.\nAre you sure you want to submit this order?"
        return [{"id": identity, "isSuppressed": False, "message": [text], "messageIds": [warnings[0]]}]

    def _replied(self, identity: str, confirmed: bool) -> Any:
        if identity not in self.asked:
            return {"error": f"reply id not found: '{identity}'"}
        ticket, rest = self.asked.pop(identity)
        if not confirmed:
            self.declined += 1
            return {"error": "Order not confirmed "}
        return self._ask(ticket, rest) if rest else self._accepted(self._place(ticket))

    def _place(self, ticket: dict[str, Any]) -> HeldOrder:
        symbol = next(s for s, number in self.contracts.items() if number == ticket["conid"])
        price = ticket.get("price")
        return self.exchange.place(
            ticket["cOID"],
            symbol,
            ticket["side"].lower(),
            Decimal(str(ticket["quantity"])),
            {"MKT": "market", "LMT": "limit"}[ticket["orderType"]],
            ticket["tif"].lower(),
            None if price is None else Decimal(str(price)),
        )

    def _accepted(self, order: HeldOrder) -> list[dict[str, Any]]:
        return [{"order_id": str(self._number(order)), "order_status": _STATUSES[order.status], "encrypt_message": "1"}]

    def _number(self, order: HeldOrder) -> int:
        if order.id not in self.numbers:
            self.next_number += 1
            self.numbers[order.id] = self.next_number
        return self.numbers[order.id]

    def _cancel(self, number: str) -> dict[str, Any]:
        order = next((o for o in self.exchange.orders if str(self.numbers.get(o.id)) == number), None)
        if order is None:
            return {"error": f"OrderID {number} doesn't exist"}
        self.exchange.cancel(order.id)
        return {"msg": "Request was submitted", "order_id": number, "conid": str(self.contracts[order.symbol])}

    def _orders(self, query: dict[str, str]) -> dict[str, Any]:
        if query.get("force") == "true" or not self.loaded:
            self.loaded = True
            return {"orders": [], "snapshot": False}
        shown = [order for order in self.exchange.orders if order.id not in self.forgotten]
        return {"orders": [self._order(order) for order in shown], "snapshot": True}

    def _order(self, order: HeldOrder) -> dict[str, Any]:
        shown = {
            "acct": NUMBER,
            "account": NUMBER,
            "conid": str(self.contracts[order.symbol]),
            "orderId": self._number(order),
            "order_ref": order.client_id,
            "ticker": order.symbol.replace("-", " "),
            "side": order.side.upper(),
            "status": _STATUSES[order.status],
            "totalSize": str(float(order.quantity)),
            "filledQuantity": str(float(order.filled)),
            "remainingQuantity": str(float(order.rest)),
            "orderType": "Market" if order.kind == "market" else "Limit",
            "timeInForce": order.tif.upper(),
            "secType": "STK",
        }
        if order.status in ("rejected", "expired"):
            shown["order_cancellation_by_system_reason"] = order.reason or order.status
        return shown

    def _trade(self, fill: Execution) -> dict[str, Any]:
        number = self.exchange.fills.index(fill)
        return {
            "account": NUMBER,
            "accountCode": NUMBER,
            "execution_id": f"0000e0d5.6576fd38.{number:04d}.01",
            "order_ref": fill.order.client_id,
            "order_id": self._number(fill.order),
            "symbol": fill.order.symbol.replace("-", " "),
            "side": "B" if fill.order.side == "buy" else "S",
            "size": fill.quantity,
            "price": str(fill.price),
            "commission": "1.01",
            "sec_type": "STK",
            "trade_time": fill.at.strftime("%Y%m%d-%H:%M:%S"),
            "trade_time_r": int(fill.at.timestamp() * 1000),
        }

    def _summary(self) -> dict[str, Any]:
        market = self.exchange
        return {
            "totalCashValue": market.cash,
            "netLiquidationValue": market.equity(),
            "buyingPower": market.buying_power(),
            "status": "",
        }

    def _positions(self, page: int) -> list[dict[str, Any]]:
        held = list(self.exchange.positions.items())[page * 100 : page * 100 + 100]
        return [
            {
                "acctId": NUMBER,
                "conid": self.contracts[symbol],
                "contractDesc": symbol.replace("-", " "),
                "ticker": symbol.replace("-", " "),
                "assetClass": "STK",
                "currency": "USD",
                "position": quantity,
                "mktPrice": self.exchange.prices[symbol],
            }
            for symbol, quantity in held
        ]

    def _stocks(self, name: str) -> dict[str, Any]:
        number = self.contracts.get(name.replace(" ", "-"))
        contracts = [{"conid": number, "exchange": "NYSE", "isUS": True}] if number else []
        foreign = {"conid": 1, "exchange": "LSE", "isUS": False}
        return {name: [{"assetClass": "STK", "name": name, "contracts": [*contracts, foreign]}]}

    def _snapshot(self, conids: str) -> list[dict[str, Any]]:
        first = conids not in self.streams
        self.streams.add(conids)
        names = {str(number): symbol for symbol, number in self.contracts.items()}
        shown = []
        for number in conids.split(","):
            entry: dict[str, Any] = {"conid": int(number), "conidEx": number}
            if not first:
                price = self.exchange.prices[names[number]]
                entry |= {"31": f"C{price:,}", "84": str(price - Decimal("0.01")), "86": str(price + Decimal("0.01"))}
                entry |= {"7636": self.shortable.get(names[number], "1,250,000")}
                entry |= {"_updated": int(self.exchange.now.timestamp())}
            shown.append(entry)
        return shown

    def _preview(self, ticket: dict[str, Any]) -> dict[str, Any]:
        symbol = next(s for s, number in self.contracts.items() if number == ticket["conid"])
        value = self.exchange.prices[symbol] * Decimal(str(ticket["quantity"]))
        return {
            "amount": {"amount": f"{value:,} USD", "commission": "1 USD", "total": f"{value + 1:,} USD"},
            "initial": {"current": "1,000", "change": f"{value / 2:,}", "after": f"{1000 + value / 2:,}"},
            "warn": "",
            "error": None,
        }
