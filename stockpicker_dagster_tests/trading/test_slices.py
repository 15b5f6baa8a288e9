"""A stop after any slice leaves the book about as neutral as before and after."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.trading.rebalance import PlannedOrder
from stockpicker_dagster.trading.slices import sliced

orders_ = st.lists(
    st.tuples(st.sampled_from(["buy", "short"]), st.integers(1, 500), st.decimals(1, 300, places=2)), max_size=40
).map(
    lambda drawn: [
        PlannedOrder(f"S{n:02d}", side, Decimal(quantity), "openings", price)  # type: ignore[arg-type]
        for n, (side, quantity, price) in enumerate(drawn)
    ]
)


def value(order: PlannedOrder) -> Decimal:
    return order.signed_quantity * order.reference_price


@given(orders_, st.decimals(100, 50_000, places=0))
@settings(max_examples=100, deadline=None)
def test_the_net_stays_near_its_straight_way(orders: list[PlannedOrder], slice_notional: Decimal) -> None:
    found = sliced(orders, slice_notional)
    assert sorted(order.symbol for order, _ in found) == sorted(order.symbol for order in orders)
    numbers = [number for _, number in found]
    assert numbers == sorted(numbers)
    largest = max((order.notional for order in orders), default=Decimal(0))
    whole, final = sum((o.notional for o in orders), Decimal(0)), sum((value(o) for o in orders), Decimal(0))
    net = done = Decimal(0)
    for order, _ in found:
        net, done = net + value(order), done + order.notional
        assert abs(net - final * done / whole) <= 2 * largest
    for number in set(numbers):
        held = [order.notional for order, n in found if n == number]
        assert len(held) == 1 or sum(held, Decimal(0)) <= slice_notional


def test_a_balanced_book_opens_in_pairs() -> None:
    orders = [
        PlannedOrder(f"{side}{n}", side, Decimal(10), "openings", Decimal(10))  # type: ignore[arg-type]
        for side in ("buy", "short")
        for n in range(6)
    ]
    found = sliced(orders, Decimal(400))
    assert [number for _, number in found] == [1] * 4 + [2] * 4 + [3] * 4
    for number in (1, 2, 3):
        assert sum(value(order) for order, n in found if n <= number) == 0
