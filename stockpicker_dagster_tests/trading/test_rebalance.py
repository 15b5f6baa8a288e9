"""Targets and holdings to orders: sized down, never across zero, whatever the order of the names."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.rebalance import Bounds, Plan, Policy, UnpricedHolding, Venue, plan_orders

EQUITY = Decimal(100_000)
EXACT = Policy(cash_buffer=Decimal(0), no_trade_band=Decimal(0), minimum_notional=Decimal(0))
NAMES = [f"S{number:02d}" for number in range(8)]

weights = st.dictionaries(st.sampled_from(NAMES), st.decimals(-1, 1, places=4, allow_nan=False), max_size=len(NAMES))
holdings_ = st.dictionaries(st.sampled_from(NAMES), st.integers(-500, 500).map(Decimal), max_size=len(NAMES))
prices_ = st.fixed_dictionaries({name: st.decimals("0.5", 900, places=2) for name in NAMES})
policies = st.builds(
    Policy,
    cash_buffer=st.decimals(0, "0.2", places=3),
    no_trade_band=st.decimals(0, "0.05", places=3),
    minimum_notional=st.decimals(0, 2000, places=0),
)
D = dict[str, Decimal]


def after(plan: Plan, holdings: D) -> D:
    book = dict(holdings)
    for order in plan.orders:
        book[order.symbol] = book.get(order.symbol, Decimal(0)) + order.signed_quantity
    return book


def test_a_plan_worked_out_by_hand() -> None:
    targets = {"AAA": Decimal("0.5"), "BBB": Decimal("-0.3"), "CCC": Decimal("0.1"), "NEW": Decimal("0.1")}
    prices = {name: Decimal(price) for name, price in {"AAA": 33, "BBB": 70, "CCC": 10, "OLD": 5}.items()}
    holdings = {"AAA": Decimal(2000), "BBB": Decimal(100), "CCC": Decimal(980), "OLD": Decimal(-7)}
    plan = plan_orders(targets, prices, holdings, EQUITY, Policy())
    assert [(o.phase, o.symbol, o.side, o.quantity) for o in plan.orders] == [
        ("reductions", "AAA", "sell", 2000 - 1485),  # 98,000 x 0.5 / 33 = 1484.8, and 1485 is nearer to neutral
        ("reductions", "BBB", "sell", 100),
        ("reductions", "OLD", "cover", 7),  # 35 of currency, but a full exit
        ("openings", "BBB", "short", 420),  # 98,000 x 0.3 / 70 = 420
    ]
    assert plan.without_price == ("NEW",)
    assert plan.too_small == ()


@given(weights, prices_, holdings_, policies)
@settings(max_examples=50, deadline=None)
def test_every_traded_position_is_within_one_lot_of_its_target(
    targets: D, prices: D, holdings: D, policy: Policy
) -> None:
    plan = plan_orders(targets, prices, holdings, EQUITY, policy)
    book = after(plan, holdings)
    for symbol in {order.symbol for order in plan.orders} - set(plan.too_small):
        wanted = EQUITY * (1 - policy.cash_buffer) * targets.get(symbol, Decimal(0)) / prices[symbol]
        assert abs(wanted - book[symbol]) < 1
        assert book[symbol] * wanted >= 0


def residual(book: D, targets: D, prices: D) -> Decimal:
    """How far the net value of a book is from what its targets ask for, in currency."""
    exact = sum((EQUITY * weight for symbol, weight in targets.items()), Decimal(0))
    return sum((quantity * prices[symbol] for symbol, quantity in book.items()), Decimal(0)) - exact


@given(weights, prices_)
@settings(max_examples=100, deadline=None)
def test_the_book_is_as_neutral_as_single_lots_can_make_it(targets: D, prices: D) -> None:
    book = after(plan_orders(targets, prices, {}, EQUITY, EXACT), {})
    truncated = {symbol: Decimal(int(EQUITY * weight / prices[symbol])) for symbol, weight in targets.items()}
    left = abs(residual(book, targets, prices))
    assert left <= abs(residual(truncated, targets, prices))
    # The oracle: no name that could still take a lot more would bring the residual down.
    for symbol, weight in targets.items():
        exact, held = EQUITY * weight / prices[symbol], book.get(symbol, Decimal(0))
        lot = Decimal(1) if exact > 0 else Decimal(-1)
        if held and abs(held) < abs(exact):
            assert left <= abs(residual({**book, symbol: held + lot}, targets, prices))


def test_a_neutral_book_comes_out_neutral() -> None:
    """Twenty names a side at prices of hundreds: truncation alone leaves most of a share's price in each."""
    targets = {f"L{n:02d}": Decimal("0.05") for n in range(20)} | {f"S{n:02d}": Decimal("-0.05") for n in range(20)}
    prices = {name: Decimal(97 + 37 * n) for n, name in enumerate(sorted(targets))}
    plan = plan_orders(targets, prices, {}, EQUITY, EXACT)
    truncated = {name: Decimal(int(EQUITY * weight / prices[name])) for name, weight in targets.items()}
    assert abs(residual(truncated, targets, prices)) > 1000
    assert abs(residual(after(plan, {}), targets, prices)) < 50


@given(weights, prices_, holdings_, st.decimals("0.05", 3, places=2))
@settings(max_examples=50, deadline=None)
def test_turnover_never_exceeds_its_cap(targets: D, prices: D, holdings: D, cap: Decimal) -> None:
    policy = replace(EXACT, turnover_cap=cap)
    plan = plan_orders(targets, prices, holdings, EQUITY, policy)
    traded = sum((order.notional for order in plan.orders), Decimal(0))
    assert traded <= cap * EQUITY
    uncapped = plan_orders(targets, prices, holdings, EQUITY, EXACT)
    if plan.turnover_scale == 1:
        assert {o.symbol for o in plan.orders} == {o.symbol for o in uncapped.orders}
    book = after(plan, holdings)
    assert all(book.get(s, Decimal(0)) * held >= 0 or targets.get(s, 0) * held < 0 for s, held in holdings.items())


@given(weights, prices_, holdings_, st.decimals("0.1", 1, places=2), st.decimals("0.5", 3, places=2))
@settings(max_examples=50, deadline=None)
def test_repairing_the_net_keeps_within_bounds(
    targets: D, prices: D, holdings: D, position: Decimal, gross: Decimal
) -> None:
    capped = {symbol: max(-position, min(position, weight)) for symbol, weight in targets.items()}
    total = sum((abs(weight) for weight in capped.values()), Decimal(0))
    fitting = {symbol: weight * min(1, gross / total) for symbol, weight in capped.items()} if total else {}
    bounds = Bounds(position, gross, Decimal(1_000_000))
    book = after(plan_orders(fitting, prices, {}, EQUITY, EXACT, bounds=bounds), {})
    values = [abs(quantity) * prices[symbol] for symbol, quantity in book.items()]
    assert all(value <= position * EQUITY for value in values)
    assert sum(values, Decimal(0)) <= gross * EQUITY


bounds_ = st.dictionaries(st.sampled_from(NAMES), st.decimals(0, 400, places=1), max_size=len(NAMES))
NO_OTHER_BOUND = Bounds(Decimal(100), Decimal(100), Decimal(10**9))


@given(weights, prices_, holdings_, bounds_, policies, st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_opening_exceeds_its_bound_and_what_has_none_is_not_opened(
    targets: D, prices: D, holdings: D, most: D, policy: Policy, fractional: bool
) -> None:
    bounds, venue = replace(NO_OTHER_BOUND, opening_shares=most), Venue(fractional_longs=fractional)
    plan = plan_orders(targets, prices, holdings, EQUITY, policy, venue, bounds=bounds)
    free = plan_orders(targets, prices, holdings, EQUITY, policy, venue, bounds=NO_OTHER_BOUND)
    for order in plan.orders:
        assert order.phase == "reductions" or order.quantity <= most.get(order.symbol, Decimal(0))
    wanted = {order.symbol: order.quantity for order in free.orders if order.phase == "openings"}
    for symbol, shares in plan.over_volume.items():
        assert shares > most.get(symbol, Decimal(0))
        # What was wanted is what an unbounded plan opens, but for the lot that repairs the net.
        assert symbol in free.too_small or abs(wanted[symbol] - shares) <= 1
    enough = dict.fromkeys(NAMES, Decimal(10**9))
    assert (
        plan_orders(
            targets, prices, holdings, EQUITY, policy, venue, bounds=replace(NO_OTHER_BOUND, opening_shares=enough)
        )
        == free
    )


@given(st.lists(st.decimals("0.01", "0.12", places=3), min_size=1, max_size=4), prices_, bounds_)
@settings(max_examples=100, deadline=None)
def test_what_one_side_may_not_open_the_other_side_does_not_open_either(
    sizes: list[Decimal], prices: D, most: D
) -> None:
    """A neutral book stays neutral but for what whole shares force, however little of one side there is."""
    longs, shorts = NAMES[: len(sizes)], NAMES[4 : 4 + len(sizes)]
    targets = dict(zip(longs, sizes, strict=True)) | {s: -size for s, size in zip(shorts, sizes, strict=True)}
    bounds = replace(NO_OTHER_BOUND, opening_shares=dict.fromkeys(NAMES, Decimal(10**9)) | most)
    book = after(plan_orders(targets, prices, {}, EQUITY, EXACT, bounds=bounds), {})
    value = sum((quantity * prices[symbol] for symbol, quantity in book.items()), Decimal(0))
    assert abs(value) <= sum((prices[symbol] for symbol in targets), Decimal(0))


def test_a_bound_on_an_opening_worked_out_by_hand() -> None:
    targets = {"AAA": Decimal("0.4"), "BBB": Decimal("-0.3"), "CCC": Decimal("-0.1"), "DDD": Decimal(0)}
    prices = {name: Decimal(price) for name, price in {"AAA": 10, "BBB": 10, "CCC": 5, "DDD": 8}.items()}
    most = {"AAA": Decimal("3000.5"), "BBB": Decimal(9000), "CCC": Decimal(9000)}
    bounds = replace(NO_OTHER_BOUND, opening_shares=most)
    plan = plan_orders(targets, prices, {"DDD": Decimal(40)}, EQUITY, EXACT, bounds=bounds)
    # 4000 wanted and 3000.5 allowed: a quarter less of everything, and what is held goes whatever trades of it.
    assert {o.symbol: (o.side, o.quantity) for o in plan.orders} == {
        "AAA": ("buy", Decimal(3000)),
        "BBB": ("short", Decimal(2250)),
        "CCC": ("short", Decimal(1500)),
        "DDD": ("sell", Decimal(40)),
    }
    assert plan.over_volume == {"AAA": Decimal(4000)}


def test_longs_are_fractional_where_the_broker_holds_fractions_and_shorts_never() -> None:
    targets, prices = {"LNG": Decimal("0.1"), "SHT": Decimal("-0.1")}, {"LNG": Decimal(3000), "SHT": Decimal(3000)}
    plan = plan_orders(targets, prices, {}, EQUITY, EXACT, Venue(fractional_longs=True))
    assert {o.symbol: o.quantity for o in plan.orders} == {"LNG": Decimal("3.000"), "SHT": Decimal(3)}
    held = {"LNG": Decimal("3.333"), "SHT": Decimal(-3)}
    closing = plan_orders({}, prices, held, EQUITY, EXACT, Venue(fractional_longs=True))
    assert {o.symbol: o.quantity for o in closing.orders} == {"LNG": Decimal("3.333"), "SHT": Decimal(3)}


def test_lots_are_kept_whole() -> None:
    policy = replace(EXACT, lots={"AAA": Decimal(100)})
    plan = plan_orders({"AAA": Decimal("0.5")}, {"AAA": Decimal(7)}, {}, EQUITY, policy)
    assert [order.quantity for order in plan.orders] == [7100]  # 7142 asked; 7200 is farther off than 7100
    # What is held beside whole lots goes when all of it does, and by itself never.
    held = {"AAA": Decimal(7130)}
    assert plan_orders({"AAA": Decimal("0.5")}, {"AAA": Decimal(7)}, held, EQUITY, policy).orders == ()
    [sale] = plan_orders({"AAA": Decimal("0.4")}, {"AAA": Decimal(7)}, held, EQUITY, policy).orders
    assert sale.quantity == 1400
    assert [o.quantity for o in plan_orders({}, {"AAA": Decimal(7)}, held, EQUITY, policy).orders] == [7130]
    turned = plan_orders({"AAA": Decimal("-0.1")}, {"AAA": Decimal(7)}, held, EQUITY, policy)
    assert [(o.side, o.quantity) for o in turned.orders] == [("sell", 7130), ("short", 1400)]


def test_a_short_on_its_way_to_a_long_in_fractions_is_covered_in_whole_shares() -> None:
    """Half of the way is 95 and a half shares; brokers take no fractions of shorts."""
    policy, venue = replace(EXACT, turnover_cap=Decimal("0.955")), Venue(fractional_longs=True)
    held, prices = {"AAA": Decimal(-100)}, {"AAA": Decimal(1000)}
    [cover] = plan_orders({"AAA": Decimal("0.91")}, prices, held, EQUITY, policy, venue).orders
    assert (cover.side, cover.quantity) == ("cover", Decimal(95))


lots_ = st.builds(
    lambda lot, lots: {"lot": Decimal(lot), "lots": {name: Decimal(size) for name, size in lots.items()}},
    st.sampled_from([1, 10, 100]),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1, 5, 100]), max_size=len(NAMES)),
)


@given(weights, prices_, holdings_, policies, lots_, st.one_of(st.none(), st.decimals("0.05", 2, places=2)), bounds_)
@settings(max_examples=50, deadline=None)
def test_every_order_is_whole_lots_or_closes_all_that_is_held(
    targets: D, prices: D, holdings: D, policy: Policy, lots: dict, cap: Decimal | None, most: D
) -> None:
    policy = replace(policy, turnover_cap=cap, **lots)
    bounds = replace(NO_OTHER_BOUND, opening_shares=most)
    for venue in (Venue(), Venue(fractional_longs=True)):
        for within in (None, bounds):
            plan = plan_orders(targets, prices, holdings, EQUITY, policy, venue, bounds=within)
            book = after(plan, holdings)
            for order in plan.orders:
                lot, held = policy.lot_of(order.symbol), holdings.get(order.symbol, Decimal(0))
                if lot == 1 and venue.fractional_longs and order.side in ("buy", "sell"):
                    continue
                closes = order.phase == "reductions" and order.quantity == abs(held)
                assert closes or order.quantity % lot == 0, order
            gross = sum((o.notional for o in plan.orders), Decimal(0))
            assert cap is None or gross <= cap * EQUITY
            assert all(book[symbol] * targets.get(symbol, 0) >= 0 for symbol in book if symbol not in holdings)


def test_names_with_orders_at_work_are_left_alone() -> None:
    prices = {"AAA": Decimal(10), "BBB": Decimal(10)}
    targets = {"AAA": Decimal("0.1"), "BBB": Decimal("0.1")}
    plan = plan_orders(targets, prices, {}, EQUITY, EXACT, at_work={"AAA": Decimal(5)})
    assert plan.busy == ("AAA",)
    assert [order.symbol for order in plan.orders] == ["BBB"]


@given(weights, prices_, holdings_, policies)
@settings(max_examples=50, deadline=None)
def test_no_order_crosses_zero_and_reductions_come_first(targets: D, prices: D, holdings: D, policy: Policy) -> None:
    plan = plan_orders(targets, prices, holdings, EQUITY, policy)
    phases = [order.phase for order in plan.orders]
    assert phases == sorted(phases, key=["reductions", "openings"].index)
    book = dict(holdings)
    for order in plan.orders:
        before = book.get(order.symbol, Decimal(0))
        now = before + order.signed_quantity
        assert order.quantity > 0
        assert before * now >= 0
        assert (abs(now) < abs(before)) == (order.phase == "reductions")
        assert (
            order.side
            == {True: ("sell", "buy"), False: ("cover", "short")}[before > 0 or now > 0][order.phase == "openings"]
        )
        book[order.symbol] = now


@given(weights, prices_, holdings_, policies, st.permutations(NAMES))
@settings(max_examples=50, deadline=None)
def test_the_order_of_names_does_not_matter(
    targets: D, prices: D, holdings: D, policy: Policy, order: list[str]
) -> None:
    def shuffled(figures: D) -> D:
        return {name: figures[name] for name in order if name in figures}

    assert plan_orders(targets, prices, holdings, EQUITY, policy) == plan_orders(
        shuffled(targets), shuffled(prices), shuffled(holdings), EQUITY, policy
    )


@given(weights, prices_, holdings_)
@settings(max_examples=25, deadline=None)
def test_a_plan_carried_out_leaves_nothing_to_do(targets: D, prices: D, holdings: D) -> None:
    done = after(plan_orders(targets, prices, holdings, EQUITY, EXACT), holdings)
    assert plan_orders(targets, prices, done, EQUITY, EXACT).orders == ()


@given(prices_, holdings_, policies)
@settings(max_examples=25, deadline=None)
def test_without_targets_everything_is_closed_however_small(prices: D, holdings: D, policy: Policy) -> None:
    plan = plan_orders({}, prices, holdings, EQUITY, policy)
    assert not any(after(plan, holdings).values())
    assert {order.phase for order in plan.orders} <= {"reductions"}


def test_small_changes_are_left_alone_and_named() -> None:
    prices, held = {"AAA": Decimal(10)}, {"AAA": Decimal(975)}
    assert plan_orders({"AAA": Decimal("0.1")}, prices, held, EQUITY, Policy()).too_small == ("AAA",)
    banded = Policy(no_trade_band=Decimal("0.01"), minimum_notional=Decimal(0))
    assert plan_orders({"AAA": Decimal("0.105")}, prices, held, EQUITY, banded).orders == ()


def test_a_held_name_without_a_price_is_listed() -> None:
    with pytest.raises(UnpricedHolding, match="no price for BBB, CCC"):
        plan_orders({}, {"AAA": Decimal(1)}, {"CCC": Decimal(1), "BBB": Decimal(-1)}, EQUITY, EXACT)


@pytest.mark.parametrize(
    ("prices", "holdings", "equity", "message"),
    [
        ({"AAA": Decimal(0)}, {}, EQUITY, "price of AAA is 0"),
        ({"AAA": Decimal("NaN")}, {}, EQUITY, "price of AAA is NaN"),
        ({"AAA": Decimal(1)}, {"AAA": Decimal("1.5")}, EQUITY, "whole shares"),
        ({}, {}, Decimal(0), "equity is 0"),
    ],
)
def test_figures_that_cannot_be_are_refused(prices: D, holdings: D, equity: Decimal, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        plan_orders({}, prices, holdings, equity, EXACT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cash_buffer": Decimal(1)},
        {"no_trade_band": Decimal(-1)},
        {"lot": Decimal(0)},
        {"lot": Decimal("1.5")},
        {"lots": {"AAA": Decimal(-1)}},
    ],
)
def test_a_policy_that_cannot_be_is_refused(wrong: D) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong)).removesuffix("s")):
        Policy(**wrong)
