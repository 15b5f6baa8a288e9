"""What splits, dividends, delistings and borrow fees do to a position: pure arithmetic, entitlement included.

A holder is entitled by what was held at the close before the session of the event, so what traded in that session's
open neither splits nor earns the dividend. Recording the bookings, once each, is the business of broker and ledger.
"""

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Literal

from stockpicker_dagster.errors import InvalidInput

Kind = Literal["borrow", "split", "dividend", "delisting"]
KINDS: tuple[Kind, ...] = ("borrow", "split", "dividend", "delisting")
"""In the order in which events of one session are booked: a dividend is per share before the split."""

ZERO = Decimal(0)
_SHARE = Decimal(1)
_RATIO_NOISE = Decimal("0.000001")
_MONEY_STEP = Decimal("0.0001")
"""Bookings are rounded to it, so that sums are exact in any order, whatever digits a data file brings."""


@dataclass(frozen=True)
class CorporateAction:
    """One event of `symbol`, in effect from the open of `session`.

    `amount`: for a split new shares per old, for a dividend currency per pre-split share, for a delisting the return
    from the last close to what holders received, as a fraction (None, unknown, is booked as 0), for a borrow fee what a
    borrowed share costs over the nights before the session, in currency. `price`, in currency as
    traded: for a split the session's price, at which fractions are paid out; for a delisting the last close.
    """

    session: date
    symbol: str
    kind: Kind
    amount: Decimal | None
    price: Decimal | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInput(f"{self.kind!r} is no corporate action; allowed: {', '.join(KINDS)}")
        needs_price = self.kind in ("split", "delisting")
        if needs_price and (self.price is None or not self.price.is_finite() or self.price <= 0):
            raise InvalidInput(f"the {self.kind} of {self.symbol} on {self.session} needs a positive price")
        if self.kind == "delisting":
            if self.amount is not None and not (self.amount.is_finite() and self.amount >= -1):
                raise InvalidInput(f"the delisting return of {self.symbol} is {self.amount}; allowed: -1 or more")
        elif self.amount is None or not self.amount.is_finite() or self.amount <= 0:
            raise InvalidInput(
                f"the {self.kind} of {self.symbol} on {self.session} has amount {self.amount}; it is positive"
            )


@dataclass(frozen=True)
class Booking:
    """The effect of one event on one account: signed shares and currency, negative where the account pays."""

    action: CorporateAction
    quantity_change: Decimal
    cash: Decimal
    detail: str


def book(action: CorporateAction, entitled: Decimal, held: Decimal) -> Booking | None:
    """What `action` does to an account; None where it does nothing.

    `entitled` are the signed shares held at the close before the session, `held` those held now. A split multiplies the
    entitled shares, the fraction of a share that remains is paid in cash; a short pays the dividend; a delisting closes
    everything held at the last price and the delisting return. A borrow fee is paid by shorts alone.
    """
    if action.kind == "delisting":
        return _delisted(action, held) if held else None
    if not entitled:
        return None
    if action.kind == "borrow":
        return _borrow_fee(action, entitled)
    return _split(action, entitled) if action.kind == "split" else _dividend(action, entitled)


def _split(action: CorporateAction, entitled: Decimal) -> Booking | None:
    assert action.amount is not None
    assert action.price is not None
    # A ratio such as 2/3 arrives as the nearest binary fraction; without rounding, 300 shares would become 199.99.
    exact = (entitled * action.amount).quantize(_RATIO_NOISE, ROUND_HALF_EVEN)
    whole = exact.quantize(_SHARE, ROUND_DOWN)
    if whole == entitled and exact == whole:
        return None
    cash = _money((exact - whole) * action.price)
    return Booking(action, whole - entitled, cash, f"{action.amount} for 1 on {entitled} shares")


def _dividend(action: CorporateAction, entitled: Decimal) -> Booking:
    assert action.amount is not None
    return Booking(action, ZERO, _money(entitled * action.amount), f"{action.amount} a share on {entitled} shares")


def _borrow_fee(action: CorporateAction, entitled: Decimal) -> Booking | None:
    assert action.amount is not None
    cash = _money(entitled * action.amount)
    if cash >= 0:
        return None
    return Booking(action, ZERO, cash, f"{action.amount:.6f} a share on {entitled} shares")


def _delisted(action: CorporateAction, held: Decimal) -> Booking:
    assert action.price is not None
    known = action.amount if action.amount is not None else ZERO
    unknown = "" if action.amount is not None else " (unknown)"
    detail = f"{held} shares closed at {action.price} and a return of {known}{unknown}"
    return Booking(action, -held, _money(held * action.price * (1 + known)), detail)


def _money(amount: Decimal) -> Decimal:
    return amount.quantize(_MONEY_STEP, ROUND_HALF_EVEN)
