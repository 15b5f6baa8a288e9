"""In which order openings go, and in which slices: a stop half-way should leave a book about as neutral as it was.

Pure, as `rebalance`. Every order belongs to one slice as a whole, so that an order is still one order.
"""

from collections.abc import Sequence
from decimal import Decimal

from stockpicker_dagster.trading.rebalance import PlannedOrder

ZERO = Decimal(0)


def sliced(orders: Sequence[PlannedOrder], slice_notional: Decimal) -> list[tuple[PlannedOrder, int]]:
    """The openings in the order in which they go, each with the number of its slice, from 1.

    Buys and shorts, the largest first, are taken so that the book's net value (longs less shorts) stays within the
    largest order of the straight way from where it is before the first to where it ends. A slice holds
    about `slice_notional` of currency, one order at least.
    """
    buys = sorted((order for order in orders if order.signed_quantity > 0), key=_largest_first)
    shorts = sorted((order for order in orders if order.signed_quantity < 0), key=_largest_first)
    whole = sum((order.notional for order in orders), ZERO)
    drift = (sum((_value(order) for order in orders), ZERO) / whole) if whole else ZERO
    ahead = ZERO  # by how much the net is above its straight way
    number, in_slice = 1, ZERO
    found: list[tuple[PlannedOrder, int]] = []
    while buys or shorts:
        order = (buys if buys and (ahead <= 0 or not shorts) else shorts).pop(0)
        if in_slice and in_slice + order.notional > slice_notional:
            number, in_slice = number + 1, ZERO
        found.append((order, number))
        in_slice += order.notional
        ahead += _value(order) - drift * order.notional
    return found


def _value(order: PlannedOrder) -> Decimal:
    return order.signed_quantity * order.reference_price


def _largest_first(order: PlannedOrder) -> tuple[Decimal, str]:
    return -order.notional, order.symbol
