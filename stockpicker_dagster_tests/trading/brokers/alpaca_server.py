"""A loopback server that speaks Alpaca's trading API, as far as its OpenAPI document describes what we ask of it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

from stockpicker_dagster_tests.trading.brokers.exchange import NEW_YORK, Exchange, Execution, HeldOrder, Refused
from stockpicker_dagster_tests.trading.brokers.faulty_server import FaultyServer

KEY, SECRET = "PKTESTKEY", "a-secret-that-nobody-must-see"
NUMBER = "PA3TESTACCT"


def text(figure: Decimal) -> str:
    return format(figure.normalize(), "f") if figure else "0"


def stamp(moment: datetime) -> str:
    """A time with nanoseconds, as Alpaca writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


class AlpacaServer(FaultyServer):
    """One account with its keys, on an invented exchange. `quota`: requests in all, then 429 (None: no limit)."""

    def __init__(self, exchange: Exchange | None = None) -> None:
        super().__init__()
        self.exchange = exchange or Exchange()
        self.account_fields: dict[str, Any] = {}

    def clock(self) -> datetime:
        return self.exchange.now

    def respond(self, method: str, path: str, query: dict[str, str], body: Any, headers: Any) -> tuple[int, Any]:
        if (headers.get("APCA-API-KEY-ID"), headers.get("APCA-API-SECRET-KEY")) != (KEY, SECRET):
            return 401, {"code": 40110000, "message": "request is not authorized"}
        try:
            with self.exchange.lock:
                return self._route(method, path, query, body)
        except Refused as refusal:
            return refusal.status, {"code": refusal.code, "message": refusal.message}

    def _route(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        market = self.exchange
        if (method, path) == ("POST", "/v2/orders"):
            return 200, self._order(self._place(body))
        if path == "/v2/orders:by_client_order_id":
            found = market.by_client_id(query["client_order_id"])
            if found is None:
                raise Refused(404, 40410000, f"order not found for {query['client_order_id']}")
            return 200, self._order(found)
        if path.startswith("/v2/orders/"):
            identity = path.rsplit("/", 1)[1]
            if method == "DELETE":
                market.cancel(identity)
                return 204, None
            order = market.by_id(identity)
            if order is None:
                raise Refused(404, 40410000, f"order not found for {identity}")
            return 200, self._order(order)
        answers = {
            "/v2/orders": self._orders,
            "/v2/account": lambda _: self._account(),
            "/v2/account/activities": self._activities,
            "/v2/clock": lambda _: self._clock(),
            "/v2/positions": lambda _: [self._position(s, q) for s, q in market.positions.items()],
            "/v2/assets": lambda _: [self._asset(symbol) for symbol in market.prices],
            "/v2/stocks/snapshots": self._snapshots,
        }
        if path in answers:
            return 200, answers[path](query)
        if path.startswith("/v2/assets/"):
            symbol = unquote(path.rsplit("/", 1)[1]).replace(".", "-")
            if symbol not in market.prices:
                raise Refused(404, 40410000, f"asset not found for {symbol}")
            return 200, self._asset(symbol)
        return 404, {"code": 40410000, "message": "endpoint not found."}

    def _place(self, body: dict[str, Any]) -> HeldOrder:
        unknown = set(body) - {"symbol", "qty", "side", "type", "time_in_force", "client_order_id", "limit_price"}
        if unknown or not all(isinstance(value, str) for value in body.values()):
            raise Refused(422, 40010001, f"request body format is invalid: {sorted(unknown)}")
        if len(body.get("client_order_id", "")) > 128 or body["side"] not in ("buy", "sell"):
            raise Refused(422, 40010001, "client_order_id or side is invalid")
        limit = body.get("limit_price")
        return self.exchange.place(
            body.get("client_order_id") or str(uuid5(NAMESPACE_URL, f"generated {len(self.exchange.orders)}")),
            body["symbol"].replace(".", "-"),
            body["side"],
            Decimal(body["qty"]),
            body["type"],
            body["time_in_force"],
            None if limit is None else Decimal(limit),
        )

    def _order(self, order: HeldOrder) -> dict[str, Any]:
        ended = {"canceled": "canceled_at", "expired": "expired_at", "filled": "filled_at", "rejected": "failed_at"}
        ended["replaced"] = "replaced_at"
        times = dict.fromkeys(ended.values()) | (
            {ended[order.status]: stamp(order.updated_at)} if order.status in ended else {}
        )
        return {
            "id": order.id,
            "client_order_id": order.client_id,
            "created_at": stamp(order.submitted_at),
            "updated_at": stamp(order.updated_at),
            "submitted_at": stamp(order.submitted_at),
            **times,
            "replaced_by": order.replaced_by,
            "replaces": None,
            "asset_id": str(uuid5(NAMESPACE_URL, order.symbol)),
            "symbol": order.symbol.replace("-", "."),
            "asset_class": "us_equity",
            "notional": None,
            "qty": text(order.quantity),
            "filled_qty": text(order.filled),
            "filled_avg_price": text(order.paid / order.filled) if order.filled else None,
            "order_class": "simple",
            "order_type": order.kind,
            "type": order.kind,
            "side": order.side,
            "time_in_force": order.tif,
            "limit_price": None if order.limit is None else text(order.limit),
            "stop_price": None,
            "status": order.status,
            "extended_hours": False,
            "legs": None,
            "trail_percent": None,
            "trail_price": None,
            "hwm": None,
        }

    def _orders(self, query: dict[str, str]) -> list[dict[str, Any]]:
        wanted = [order for order in reversed(self.exchange.orders) if order.open or query.get("status") == "all"]
        before = query.get("before_order_id")
        if before is not None:
            number = next(order.number for order in self.exchange.orders if order.id == before)
            wanted = [order for order in wanted if order.number < number]
        return [self._order(order) for order in wanted[: int(query.get("limit", 50))]]

    def _account(self) -> dict[str, Any]:
        market = self.exchange
        return {
            "id": str(uuid5(NAMESPACE_URL, NUMBER)),
            "account_number": NUMBER,
            "status": "ACTIVE",
            "currency": "USD",
            "cash": text(market.cash),
            "equity": text(market.equity()),
            "buying_power": text(market.buying_power()),
            "multiplier": text(market.multiplier),
            "account_blocked": False,
            "trading_blocked": False,
            "transfers_blocked": False,
            "trade_suspended_by_user": False,
            "shorting_enabled": True,
            "created_at": "2023-01-01T18:20:20.272275Z",
            **self.account_fields,
        }

    def _clock(self) -> dict[str, Any]:
        market = self.exchange
        here = market.now.astimezone(NEW_YORK).date()
        calendar = market.calendar
        sessions = [calendar.previous_session(here), *([here] if calendar.is_session(here) else [])]
        sessions.append(calendar.next_session(here))
        opens = next(calendar.open_at(s) for s in sessions if calendar.open_at(s) > market.now)
        closes = next(calendar.close_at(s) for s in sessions if calendar.close_at(s) > market.now)
        return {
            "timestamp": market.now.astimezone(NEW_YORK).isoformat(),
            "is_open": market.is_open(),
            "next_open": opens.astimezone(NEW_YORK).isoformat(),
            "next_close": closes.astimezone(NEW_YORK).isoformat(),
        }

    def _position(self, symbol: str, held: Decimal) -> dict[str, Any]:
        price = self.exchange.prices[symbol]
        return {
            "asset_id": str(uuid5(NAMESPACE_URL, symbol)),
            "symbol": symbol.replace("-", "."),
            "exchange": "NYSE",
            "asset_class": "us_equity",
            "asset_marginable": True,
            "qty": text(held),
            "qty_available": text(held),
            "avg_entry_price": text(price),
            "side": "long" if held > 0 else "short",
            "market_value": text(held * price),
            "cost_basis": text(held * price),
            "unrealized_pl": "0",
            "unrealized_plpc": "0",
            "unrealized_intraday_pl": "0",
            "unrealized_intraday_plpc": "0",
            "current_price": text(price),
            "lastday_price": text(price),
            "change_today": "0",
        }

    def _asset(self, symbol: str) -> dict[str, Any]:
        market = self.exchange
        hard = symbol in market.hard_to_borrow
        return {
            "id": str(uuid5(NAMESPACE_URL, symbol)),
            "class": "us_equity",
            "exchange": "NYSE",
            "symbol": symbol.replace("-", "."),
            "name": symbol,
            "status": "active",
            "tradable": True,
            "marginable": True,
            "shortable": symbol not in market.no_borrow,
            "easy_to_borrow": not hard,
            "borrow_status": "hard_to_borrow" if hard else "easy_to_borrow",
            "fractionable": True,
            "attributes": [],
        }

    def _activities(self, query: dict[str, str]) -> list[dict[str, Any]]:
        trades = query.get("activity_types") == "FILL"
        entries = [self._fill(fill) for fill in self.exchange.fills] if trades else self._movements()
        after = query.get("after")
        if after is not None:
            entries = [entry for entry in entries if (entry.get("transaction_time") or entry["created_at"]) > after]
        token = query.get("page_token")
        if token is not None:
            names = [entry["id"] for entry in entries]
            entries = entries[names.index(token) + 1 :]
        return entries[: int(query.get("page_size", 100))]

    def _fill(self, fill: Execution) -> dict[str, Any]:
        order = fill.order
        return {
            "id": fill.id,
            "activity_type": "FILL",
            "type": "fill" if fill.cumulated == order.quantity else "partial_fill",
            "transaction_time": stamp(fill.at),
            "order_id": order.id,
            "symbol": order.symbol.replace("-", "."),
            "side": order.side,
            "qty": text(fill.quantity),
            "price": text(fill.price),
            "cum_qty": text(fill.cumulated),
            "leaves_qty": text(order.quantity - fill.cumulated),
            "order_status": order.status,
        }

    def _movements(self) -> list[dict[str, Any]]:
        moment = self.exchange.now
        return [
            {
                "id": f"{moment:%Y%m%d}000000{number:03d}::{uuid5(NAMESPACE_URL, f'movement {number}')}",
                "activity_type": movement["kind"],
                "created_at": stamp(moment),
                "date": f"{moment.astimezone(NEW_YORK):%Y-%m-%d}",
                "symbol": movement["symbol"],
                "qty": text(movement["quantity"]),
                "net_amount": text(movement["cash"]),
                "status": "executed",
            }
            for number, movement in enumerate(self.exchange.movements)
        ]

    def _snapshots(self, query: dict[str, str]) -> dict[str, Any]:
        market, answer = self.exchange, {}
        for name in query["symbols"].split(","):
            price = market.prices.get(name.replace(".", "-"))
            if price is not None:
                moment = market.now.strftime("%Y-%m-%dT%H:%M:%S.000000001Z")
                bid, ask = price - Decimal("0.01"), price + Decimal("0.01")
                answer[name] = {
                    "latestQuote": {"bp": bid, "ap": ask, "bs": 1, "as": 1, "t": moment},
                    "latestTrade": {"p": price, "s": 100, "t": moment},
                }
        return answer
