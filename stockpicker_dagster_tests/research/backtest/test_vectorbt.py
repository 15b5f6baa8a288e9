"""The engine against vectorbt's portfolio, in what both can express.

That is: fractional shares traded at the next open to target weights of the equity there, positions that drift, and
costs in proportion to what is traded. Splits, dividends, delistings, impact, borrow fees and interest are unknown to
vectorbt; `slow_backtest` is the oracle for them.
"""

import numpy as np
import pytest

from stockpicker_dagster.research.backtest.engine import Rules, run, targets
from stockpicker_dagster_tests.research.backtest.random_markets import quiet_market


@pytest.mark.parametrize("weights", ["equal", "score", "rank"])
@pytest.mark.parametrize(("short", "hold_band"), [(4, 1.0), (4, 2.0), (0, 1.0)])
def test_equity_and_shares_are_those_of_vectorbt(weights: str, short: int, hold_band: float) -> None:
    vectorbt = pytest.importorskip("vectorbt")
    rng = np.random.default_rng(3)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (90, 15)), axis=0))
    opens = closes * np.exp(rng.normal(0, 0.01, closes.shape))
    market, scores = quiet_market(opens, closes), np.cumsum(rng.normal(size=closes.shape), axis=0)
    decisions = np.arange(90) % 5 == 0
    # With costs vectorbt would sell one name short of cash to buy the next, so the book is not fully invested.
    rules = Rules(4, short, weights, gross=1.6 if short else 0.8, hold_band=hold_band, commission_bps=7, spread_bps=10)
    history = run(scores, market, rules, decisions)
    orders = np.full(closes.shape, np.nan)
    orders[1:][decisions[:-1]] = targets(scores, market, rules, decisions)[:-1][decisions[:-1]]
    # Percentages of the equity at the open, before the costs of that day, as numbers of shares.
    before = np.concatenate([[rules.capital], history.equity[:-1]]) * (1 + history.overnight)
    portfolio = vectorbt.Portfolio.from_orders(
        closes,
        size=orders * before[:, None] / opens,
        size_type="targetamount",
        price=opens,
        fees=12e-4,
        group_by=np.zeros(15, dtype=int),
        cash_sharing=True,
        call_seq="auto",
        init_cash=rules.capital,
        freq="1D",
    )
    np.testing.assert_allclose(history.equity, portfolio.value().to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(history.shares, portfolio.assets().to_numpy(), rtol=1e-9, atol=1e-9)
