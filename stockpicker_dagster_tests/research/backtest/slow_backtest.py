"""A slow, obvious back-test: the independent oracle of the engine.

Exact decimals for money, dictionaries, one loop, straight from the long frames. It shares no code with the kernels. No
test lives here.
"""

import itertools
import statistics
from collections.abc import Sequence
from datetime import date
from decimal import Decimal, localcontext

import numpy as np

from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster_tests.research.backtest.random_markets import World

BPS = Decimal(1) / 10_000
ZERO = Decimal(0)


def slow_backtest(world: World, rules: Rules, listed_fees: bool = False) -> list[dict[str, float]]:
    """One dictionary a session with the figures of `BookHistory`, and `shares of` each symbol.

    `listed_fees` says whether the world's borrow rates are in force.
    """
    with localcontext() as context:
        context.prec = 40
        return _slow_backtest(world, rules, listed_fees)


def _exact(value: float) -> Decimal:
    return Decimal(repr(float(value)))


class Past:
    """What the recent past says of a stock after a close, by the definitions, from the rows of the frame."""

    def __init__(self, world: World) -> None:
        self.days = world.sessions
        rows = {(row["date"], row["symbol"]): row for row in world.prices.iter_rows(named=True)}
        self.symbols = sorted({symbol for _, symbol in rows})
        self.returns: dict[str, list[float | None]] = {symbol: [] for symbol in self.symbols}
        self.traded: dict[str, list[float | None]] = {symbol: [] for symbol in self.symbols}
        for number, day in enumerate(self.days):
            for symbol in self.symbols:
                row = rows.get((day, symbol))
                last = rows.get((self.days[number - 1], symbol)) if number else None
                close = row["close"] if row else None
                both = close is not None and last is not None and last["close"] is not None
                self.returns[symbol].append(close * row["adjustment"] / last["close"] - 1 if both else None)
                self.traded[symbol].append(close * row["volume"] if close is not None else None)
        self.market = []
        for number in range(len(self.days)):
            known = [self.returns[symbol][number] for symbol in self.symbols]
            present = [value for value in known if value is not None]
            self.market.append(statistics.fmean(present) if present else None)

    def volatility(self, symbol: str, number: int) -> float | None:
        """After the close of session `number`; -1 is before the first."""
        present = [value for value in self.returns[symbol][max(0, number - 59) : number + 1] if value is not None]
        return float(np.std(present, ddof=1)) if len(present) >= 30 else None

    def dollar_volume(self, symbol: str, number: int) -> float | None:
        present = [value for value in self.traded[symbol][max(0, number - 19) : number + 1] if value is not None]
        return statistics.fmean(present) if len(present) >= 10 else None

    def deviation(self, weights: dict[str, Decimal], number: int) -> float | None:
        """Of what these weights would have earned on each of the last 60 sessions; a missing return earns nothing."""
        days = range(max(1, number - 59), number + 1)
        if len(days) < 30:
            return None
        earned = [sum(float(w) * (self.returns[s][n] or 0.0) for s, w in weights.items()) for n in days]
        return statistics.stdev(earned)

    def beta(self, symbol: str, number: int) -> float | None:
        span = range(max(0, number - 251), number + 1)
        pairs = [(self.market[n], self.returns[symbol][n]) for n in span if self.returns[symbol][n] is not None]
        if len(pairs) < 126:
            return None
        market, own = zip(*pairs, strict=True)
        return float(np.polyfit(market, own, 1)[0])


def _fill_price(row: dict[str, float] | None, fill: str) -> Decimal | None:
    if row is None:
        return None
    prices = {"open": [row["open"]], "close": [row["close"]]}.get(
        fill, [row["open"], row["high"], row["low"], row["close"]]
    )
    if any(price is None for price in prices):
        return None
    return sum((_exact(price) for price in prices), ZERO) / len(prices)


def _slow_backtest(world: World, rules: Rules, listed_fees: bool) -> list[dict[str, float]]:
    rows = {(row["date"], row["symbol"]): row for row in world.prices.iter_rows(named=True)}
    ends: dict[date, dict[str, float | None]] = {}
    for row in world.delistings.iter_rows(named=True):
        ends.setdefault(max(row["date"], row["last_session"]), {})[row["symbol"]] = row["return"]
    scores: dict[date, dict[str, float]] = {}
    for symbol, day, score in world.scores.iter_rows():
        scores.setdefault(day, {})[symbol] = score
    sectors = {(day, symbol): sector or "" for symbol, day, sector in world.sectors.iter_rows()}
    styles = {(row["date"], row["symbol"]): row for row in world.styles.iter_rows(named=True)}
    decisive = world.decisions(rules)
    past = Past(world)

    cash = equity = _exact(rules.capital)
    shares: dict[str, Decimal] = {}
    marks: dict[str, Decimal] = {}
    sleeves: list[dict[str, Decimal]] = [{} for _ in range(rules.sleeves)]
    trades = False
    short_value = fee_per_year = ZERO
    history: list[dict[str, float]] = []
    for number, day in enumerate(world.sessions):
        before = equity
        years = Decimal((day - world.sessions[number - 1]).days) / 365 if number else ZERO
        borrow = fee_per_year * years
        on_shorts = rules.short_interest_bps_per_year
        on_shorts = rules.cash_interest_bps_per_year if on_shorts is None else on_shorts
        interest = (
            (cash - short_value) * _exact(rules.cash_interest_bps_per_year) + short_value * _exact(on_shorts)
        ) * BPS * years  # fmt: skip
        # Overnight: events, then the first prices of the day.
        today = {symbol: rows[day, symbol] for (row_day, symbol) in rows if row_day == day}
        dividends = ZERO
        fill_marks: dict[str, Decimal] = {}
        for symbol, row in today.items():
            if symbol in shares:
                dividends += shares[symbol] * _exact(row["dividend"])
                shares[symbol] *= _exact(row["split_ratio"])
            if symbol in marks:
                marks[symbol] /= _exact(row["adjustment"])
            if row["open"] is not None:
                marks[symbol] = _exact(row["open"])
            price = _fill_price(row, rules.fill)
            fill_marks[symbol] = marks.get(symbol, ZERO) if price is None else price
        cash += dividends
        at_fill = cash + sum((shares[symbol] * fill_marks.get(symbol, marks[symbol]) for symbol in shares), ZERO)
        overnight = at_fill - before
        cash += interest - borrow
        sized_on = at_fill + interest - borrow
        # Trades.
        traded = traded_shares = impact = bought = ZERO
        if trades:
            target: dict[str, Decimal] = {}
            for sleeve in sleeves:
                for symbol, weight in sleeve.items():
                    target[symbol] = target.get(symbol, ZERO) + weight / rules.sleeves
            if rules.volatility_target is not None:
                largest = rules.volatility_target / 252**0.5
                deviation = past.deviation(target, number - 1)
                target = {
                    s: weight * _exact(min(1.0, largest / (deviation or largest))) for s, weight in target.items()
                }
            for symbol in set(shares) | set(target):
                price = _fill_price(today.get(symbol), rules.fill)
                if price is None or today[symbol]["volume"] == 0:
                    continue
                change = target.get(symbol, ZERO) * sized_on / price - shares.get(symbol, ZERO)
                if rules.impact_coefficient:
                    volatility, volume = past.volatility(symbol, number - 1), past.dollar_volume(symbol, number - 1)
                    if volatility is None or not volume:
                        continue
                    part = (abs(change) * price / _exact(volume)).sqrt()
                    impact += abs(change) * price * _exact(rules.impact_coefficient) * _exact(volatility) * part
                bought += change * price
                traded += abs(change) * price
                traded_shares += abs(change)
                shares[symbol] = shares.get(symbol, ZERO) + change
        commission = traded * BPS * _exact(rules.commission_bps) + traded_shares * _exact(rules.commission_per_share)
        spread = traded * BPS * _exact(rules.spread_bps) / 2
        cash -= bought + commission + spread + impact
        # Close.
        for symbol, row in today.items():
            if row["close"] is not None:
                marks[symbol] = _exact(row["close"])
        paid_out = ZERO
        for symbol, value in ends.get(day, {}).items():
            if symbol in shares:
                paid = rules.assumed_delisting_return if value is None else value
                paid_out += shares.pop(symbol) * marks[symbol] * (1 + _exact(paid))
        cash += paid_out
        shares = {symbol: count for symbol, count in shares.items() if count}
        values = {symbol: shares[symbol] * marks[symbol] for symbol in shares}
        equity = cash + sum(values.values(), ZERO)
        shorts = {symbol: -value for symbol, value in values.items() if value < 0}
        short_value = sum(shorts.values(), ZERO)
        fee_per_year = sum(
            (value * _fee(world, rules, past, symbol, number, listed_fees) for symbol, value in shorts.items()), ZERO
        )
        costs = commission + spread + impact + borrow
        gross_profit = equity - before + costs - interest
        history.append(
            {
                "equity": float(equity),
                "cash": float(cash),
                "net_return": float(equity / before - 1),
                "gross_return": float(gross_profit / before),
                "overnight": float(overnight / before),
                "intraday": float((gross_profit - overnight) / before),
                "commission": float(commission / before),
                "spread": float(spread / before),
                "impact": float(impact / before),
                "borrow": float(borrow / before),
                "interest": float(interest / before),
                "dividends": float(dividends),
                "delistings": float(paid_out),
                "bought": float(bought),
                "turnover": float(traded / before),
                "gross_exposure": float(sum(abs(value) for value in values.values()) / equity),
                "net_exposure": float(sum(values.values()) / equity),
                "longs": float(sum(value > 0 for value in values.values())),
                "shorts": float(sum(value < 0 for value in values.values())),
                **{f"shares of {symbol}": float(count) for symbol, count in shares.items()},
            }
        )
        trades = bool(decisive[number])
        if trades:
            last = sleeves.pop(0)
            target = _slow_target(scores.get(day, {}), rules, last, past, number, sectors, day)
            if rules.neutral == "exposures":
                target = _balanced(target, rules, past, number, sectors, styles, day)
            sleeves.append(target)
    return history


def _fee(world: World, rules: Rules, past: Past, symbol: str, number: int, listed_fees: bool) -> Decimal:
    """What borrowing the stock costs per year, as a fraction, from the close of session `number` on."""
    bps = rules.borrow_bps_per_year
    if rules.hard_to_borrow_bps_per_year is not None:
        volume = past.dollar_volume(symbol, number)
        if volume is None or volume < rules.hard_to_borrow_below:
            bps = rules.hard_to_borrow_bps_per_year
    if listed_fees:
        rates = [row for row in world.borrow_rates.sort("date").iter_rows() if row[0] == symbol]
        passed = [rate for _, since, rate in rates if since <= world.sessions[number]]
        if passed and passed[-1] is not None:
            bps = passed[-1]
    return _exact(bps) * BPS


def _leg_counts(rules: Rules, scored: int) -> tuple[int, int]:
    longs, shorts = int(rules.long), int(rules.short)
    if longs + shorts > scored:
        if scored < 2 and shorts:
            return 0, 0
        both = longs + shorts
        longs, shorts = max(1, scored * longs // both), max(1 if shorts else 0, scored * shorts // both)
        longs, shorts = (longs, min(shorts, scored - longs)) if longs == 1 else (min(longs, scored - shorts), shorts)
    return (longs, shorts) if scored else (0, 0)


def _slow_target(
    scores: dict[str, float],
    rules: Rules,
    last: dict[str, Decimal],
    past: Past,
    number: int,
    sectors: dict[tuple[date, str], str],
    day: date,
) -> dict[str, Decimal]:
    """Best first, equal scores by name; whole numbers of names only, both legs shrunk if they overlap."""
    ranked = sorted(scores, key=lambda symbol: (-scores[symbol], symbol))
    longs, shorts = _leg_counts(rules, len(ranked))
    if rules.neutral != "sector":
        return _slow_group(ranked, scores, longs, shorts, rules, last, past, number, Decimal(1))
    groups: dict[str, list[str]] = {}
    for symbol in ranked:
        groups.setdefault(sectors[day, symbol], []).append(symbol)
    counts, below = {}, 0
    for name in sorted(groups):
        # Each sector's share of the names, rounded so that the sectors together have them all.
        size, scored = len(groups[name]), len(ranked)
        own_longs = (below + size) * longs // scored - below * longs // scored
        own_shorts = min((below + size) * shorts // scored - below * shorts // scored, size - own_longs)
        below += size
        if own_longs and own_shorts:
            counts[name] = own_longs, own_shorts
    balanced = sum(len(groups[name]) for name in counts)
    target: dict[str, Decimal] = {}
    for name, (own_longs, own_shorts) in counts.items():
        part = Decimal(len(groups[name])) / balanced
        target |= _slow_group(groups[name], scores, own_longs, own_shorts, rules, last, past, number, part)
    return target


def _slow_group(
    ranked: Sequence[str],
    scores: dict[str, float],
    longs: int,
    shorts: int,
    rules: Rules,
    last: dict[str, Decimal],
    past: Past,
    number: int,
    part: Decimal,
) -> dict[str, Decimal]:
    best = _leg(list(ranked), longs, shorts, rules, {symbol for symbol in last if last[symbol] > 0})
    worst = _leg(list(ranked)[::-1], shorts, longs, rules, {symbol for symbol in last if last[symbol] < 0})
    legs = [(1, best), (-1, worst)]
    shares = [_shares(leg, list(ranked), scores, rules, past, number) for _, leg in legs]
    each = Decimal(1) if rules.gross is None else _exact(rules.gross) / (2 if rules.short else 1)
    sizes = [each * part, each * part]
    if rules.neutral == "beta":
        betas = []
        for share in shares:
            known = {symbol: past.beta(symbol, number) for symbol in share}
            betas.append(sum((share[s] * (Decimal(1) if known[s] is None else _exact(known[s])) for s in share), ZERO))
        if min(betas) > 0:
            sizes = [2 * each * part * betas[1] / sum(betas), 2 * each * part * betas[0] / sum(betas)]
    target: dict[str, Decimal] = {}
    for (side, _), share, size in zip(legs, shares, sizes, strict=True):
        weights = {symbol: value * size for symbol, value in share.items()}
        if rules.max_weight is not None and rules.neutral != "exposures":
            weights = _capped(weights, _exact(rules.max_weight))
        target |= {symbol: side * weight for symbol, weight in weights.items()}
    return target


def _balanced(
    target: dict[str, Decimal],
    rules: Rules,
    past: Past,
    number: int,
    sectors: dict[tuple[date, str], str],
    styles: dict[tuple[date, str], dict[str, float]],
    day: date,
) -> dict[str, Decimal]:
    """The nearest weights on their sides that are orthogonal to every exposure, found by trying every set of names."""
    kept = {symbol: float(weight) for symbol, weight in target.items() if weight}
    group = {symbol: sectors[day, symbol] if "sector" in rules.exposures else "" for symbol in kept}
    sided = {(group[symbol], weight > 0) for symbol, weight in kept.items()}
    kept = {symbol: weight for symbol, weight in kept.items() if (group[symbol], weight < 0) in sided}
    if not kept:
        return {}
    columns = [[float(group[symbol] == name) for symbol in kept] for name in sorted({group[s] for s in kept})]
    for name in rules.exposures:
        if name == "market":
            betas = [past.beta(symbol, number) for symbol in kept]
            columns.append([1.0 if beta is None else beta for beta in betas])
        elif name != "sector":
            columns.append([styles.get((day, symbol), {}).get(name) or 0.0 for symbol in kept])
    weights = np.array(list(kept.values()))
    changed = _nearest_in_orthant(np.array(columns) * np.sign(weights), np.abs(weights)) * np.sign(weights)
    book = {symbol: value for symbol, value in zip(kept, changed, strict=True) if abs(value / kept[symbol]) > 1e-9}
    if not book:
        return {}
    each = 1.0 if rules.gross is None else rules.gross / 2.0
    scale = 2.0 * each / sum(abs(value) for value in book.values())
    if rules.max_weight is not None:
        scale = min(scale, rules.max_weight / max(abs(value) for value in book.values()))
    return {symbol: _exact(value * scale) for symbol, value in book.items()}


def _nearest_in_orthant(rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The `x >= 0` with `rows @ x = 0` nearest to `sizes`, in squares over `sizes`: every set of names is tried.

    Of all sets of which the projection is positive, the nearest one is the answer, however it is looked for.
    """
    best, least = np.zeros(len(sizes)), float(np.sum(sizes))
    for chosen in itertools.product([False, True], repeat=len(sizes)):
        names = np.flatnonzero(chosen)
        if not len(names):
            continue
        root = np.sqrt(sizes[names])
        spanned, values, _ = np.linalg.svd((rows[:, names] * root).T, full_matrices=False)
        spanned = spanned[:, values > 1e-9 * max(values[0], 1e-300)]
        left = (root - spanned @ (spanned.T @ root)) / root
        if (left <= 1e-9).any():
            continue
        distance = float(np.sum(sizes) - np.sum(sizes[names]) + np.sum(sizes[names] * (left - 1.0) ** 2))
        if distance < least - 1e-12:
            best, least = np.zeros(len(sizes)), distance
            best[names] = sizes[names] * left
    return best


def _leg(best_first: list[str], names: int, others: int, rules: Rules, before: set[str]) -> list[str]:
    """Held names within the band first, then the best of the rest."""
    band = min(len(best_first) - others, int(names * rules.hold_band + 1e-9))
    kept = [symbol for symbol in best_first[:band] if symbol in before][:names] if band > names else []
    fresh = [symbol for symbol in best_first if symbol not in kept][: names - len(kept)]
    return kept + fresh


def _shares(
    leg: list[str], ranked: list[str], scores: dict[str, float], rules: Rules, past: Past, number: int
) -> dict[str, Decimal]:
    values = sorted(_exact(scores[symbol]) for symbol in ranked)
    median = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2 if values else ZERO
    sizes = dict.fromkeys(leg, Decimal(1))
    if rules.weights == "score":
        sizes = {symbol: abs(_exact(scores[symbol]) - median) for symbol in leg}
    elif rules.weights == "rank":
        sizes = {symbol: abs(Decimal(2 * ranked.index(symbol) - len(ranked) + 1)) for symbol in leg}
    elif rules.weights == "volatility":
        known = {symbol: past.volatility(symbol, number) for symbol in leg}
        most = max((value for value in known.values() if value), default=1.0)
        sizes = {symbol: 1 / _exact(known[symbol] or most) for symbol in leg}
    if not sum(sizes.values()):
        sizes = dict.fromkeys(leg, Decimal(1))
    return {symbol: size / sum(sizes.values()) for symbol, size in sizes.items()}


def _capped(weights: dict[str, Decimal], cap: Decimal) -> dict[str, Decimal]:
    """The leg's weight spread in proportion, none above the cap."""
    total, full = sum(weights.values(), ZERO), set()
    while True:
        free = sum((weight for symbol, weight in weights.items() if symbol not in full), ZERO)
        if not free:
            # What is left over has nobody to go to.
            return {symbol: cap if symbol in full else ZERO for symbol in weights}
        left = total - cap * len(full)
        spread = {symbol: cap if symbol in full else weight * left / free for symbol, weight in weights.items()}
        over = {symbol for symbol, weight in spread.items() if symbol not in full and weight > cap}
        if not over:
            return spread
        full |= over
