"""The set `multi_factor`: value, profitability, investment, size and leverage beside classic factors of the price.

Each function is one factor with its formula and paper. Notation, for a stock and a session t: figures are those of the
statement in force at t, as first reported, flows over twelve months (TTM) and balances at the end of those months, in
USD; ME is market equity, the as-traded close of t times the shares outstanding at t. A factor is undefined where a
figure that it needs is absent or too old; nothing is estimated. Every value is known after the close of t. Factors of
the price alone are those of `factors`.
"""

import numpy as np

from stockpicker_dagster.research.features import factors, rolling
from stockpicker_dagster.research.features.declaration import Feature, feature
from stockpicker_dagster.research.features.panel import Panel
from stockpicker_dagster.research.features.rolling import Matrix

COUNTED = 260
"""More sessions than lie between a count of shares and the day it is too old: every split since it is in the panel."""
COUNTED_A_YEAR_BEFORE = 540
"""The same for the count of a year before it."""

MARKET_EQUITY = ("close", "split_ratio")
SHARES = ("shares", "shares_as_of")
BOOK = ("stockholders_equity", "total_equity", "minority_interest", "preferred_stock", "deferred_taxes")
SALES_AND_COSTS = ("revenue", "cost_of_revenue", "gross_profit")


# Value ----------------------------------------------------------------------------------------------------------------


@feature(lookback=COUNTED, inputs=MARKET_EQUITY, fundamentals=(*BOOK, *SHARES), scale_invariant=False, price_level=True)
def book_to_market(panel: Panel) -> Matrix:
    """BE / ME, undefined where BE is not positive. Rosenberg, Reid and Lanstein (1985); Fama and French (1992).

    BE, book equity, is stockholders' equity plus deferred taxes (if any) less preferred stock (if any), as in Davis,
    Fama and French (2000).
    """
    return _positive(_book_equity(panel)) / panel.once(_market_equity)


@feature(
    lookback=COUNTED,
    inputs=MARKET_EQUITY,
    fundamentals=("net_income", *SHARES),
    scale_invariant=False,
    price_level=True,
)
def earnings_to_price(panel: Panel) -> Matrix:
    """Net income TTM / ME, losses included. Basu (1983), "The relationship between earnings' yield"."""
    return _figure(panel, "net_income") / panel.once(_market_equity)


@feature(
    lookback=COUNTED,
    inputs=MARKET_EQUITY,
    fundamentals=("operating_cash_flow", *SHARES),
    scale_invariant=False,
    price_level=True,
)
def cash_flow_to_price(panel: Panel) -> Matrix:
    """Cash flow from operations TTM / ME. Desai, Rajgopal and Venkatachalam (2004), "Value-glamour and accruals"."""
    return _figure(panel, "operating_cash_flow") / panel.once(_market_equity)


@feature(
    lookback=COUNTED, inputs=MARKET_EQUITY, fundamentals=("revenue", *SHARES), scale_invariant=False, price_level=True
)
def sales_to_price(panel: Panel) -> Matrix:
    """Revenue TTM / ME. Barbee, Mukherji and Raines (1996), "Do sales-price and debt-equity explain"."""
    return _figure(panel, "revenue") / panel.once(_market_equity)


# Profitability and quality --------------------------------------------------------------------------------------------


@feature(lookback=1, inputs=(), fundamentals=("net_income", *BOOK))
def return_on_equity(panel: Panel) -> Matrix:
    """Net income TTM / BE, undefined where BE is not positive. Haugen and Baker (1996), "Commonality"."""
    return _figure(panel, "net_income") / _positive(_book_equity(panel))


@feature(lookback=1, inputs=(), fundamentals=(*SALES_AND_COSTS, "assets"))
def gross_profitability(panel: Panel) -> Matrix:
    """(Revenue - cost of revenue) TTM / total assets. Novy-Marx (2013), "The other side of value".

    Gross profit as reported where a company reports it, else the difference.
    """
    difference = _figure(panel, "revenue") - _figure(panel, "cost_of_revenue")
    return _first_of(_figure(panel, "gross_profit"), difference) / _positive(_figure(panel, "assets"))


@feature(
    lookback=1,
    inputs=(),
    fundamentals=("revenue", "cost_of_revenue", "selling_and_administration", "interest_expense", *BOOK),
)
def operating_profitability(panel: Panel) -> Matrix:
    """(Revenue - cost of revenue - selling and administration - interest) TTM / BE. Fama and French (2015).

    As in the paper, at least one of the three expenses is reported and the others count as none; undefined where BE is
    not positive.
    """
    costs = [_figure(panel, name) for name in ("cost_of_revenue", "selling_and_administration", "interest_expense")]
    none_reported = np.all(np.isnan(costs), axis=0)
    profit = _figure(panel, "revenue") - sum(np.nan_to_num(cost) for cost in costs)
    return np.where(none_reported, np.nan, profit) / _positive(_book_equity(panel))


@feature(lookback=1, inputs=(), fundamentals=("net_income", "operating_cash_flow", "assets", "assets_a_year_ago"))
def accruals(panel: Panel) -> Matrix:
    """(Net income - cash flow from operations) TTM / mean of total assets now and a year before. Sloan (1996).

    Accruals from the cash-flow statement, as Hribar and Collins (2002) recommend.
    """
    average = (_figure(panel, "assets") + _figure(panel, "assets_a_year_ago")) / 2.0
    return (_figure(panel, "net_income") - _figure(panel, "operating_cash_flow")) / _positive(average)


# Investment -----------------------------------------------------------------------------------------------------------


@feature(lookback=1, inputs=(), fundamentals=("assets", "assets_a_year_ago"))
def asset_growth(panel: Panel) -> Matrix:
    """Total assets over those a year before, less 1. Cooper, Gulen and Schill (2008), "Asset growth"."""
    return _figure(panel, "assets") / _positive(_figure(panel, "assets_a_year_ago")) - 1.0


@feature(
    lookback=COUNTED_A_YEAR_BEFORE,
    inputs=("split_ratio",),
    fundamentals=(*SHARES, "shares_a_year_ago", "shares_a_year_ago_as_of"),
    scale_invariant=False,
    price_level=True,
)
def net_share_issuance(panel: Panel) -> Matrix:
    """ln of the shares outstanding over those a year before, both adjusted by splits. Pontiff and Woodgate (2008).

    It needs the splits as they happened, which split-adjusted prices do not show.
    """
    now = _shares_today(panel, "shares")
    return rolling.logarithm(now / _shares_today(panel, "shares_a_year_ago"))


# Size and leverage ----------------------------------------------------------------------------------------------------


@feature(lookback=COUNTED, inputs=MARKET_EQUITY, fundamentals=SHARES, scale_invariant=False, price_level=True)
def size(panel: Panel) -> Matrix:
    """ln of ME in USD. Banz (1981), "The relationship between return and market value of common stocks"."""
    return rolling.logarithm(panel.once(_market_equity))


@feature(
    lookback=COUNTED,
    inputs=MARKET_EQUITY,
    fundamentals=("assets", "stockholders_equity", "total_equity", "minority_interest", "preferred_stock", *SHARES),
    scale_invariant=False,
    price_level=True,
)
def leverage(panel: Panel) -> Matrix:
    """(Total assets - book value of common equity) / ME. Bhandari (1988), "Debt/equity ratio and expected returns"."""
    common = _stockholders_equity(panel) - np.nan_to_num(_figure(panel, "preferred_stock"))
    return (_figure(panel, "assets") - common) / panel.once(_market_equity)


FEATURES: tuple[Feature, ...] = (
    book_to_market,
    earnings_to_price,
    cash_flow_to_price,
    sales_to_price,
    return_on_equity,
    gross_profitability,
    operating_profitability,
    accruals,
    asset_growth,
    net_share_issuance,
    size,
    leverage,
    factors.reversal_1m,
    factors.momentum_12_1,
    factors.high_52_week,
    factors.volatility_3m,
    factors.maximum_daily_return,
    factors.illiquidity,
    factors.dollar_volume,
)
"""The set, in the order of its columns."""


def _figure(panel: Panel, name: str) -> Matrix:
    """A figure of the statements in force; NaN everywhere in a panel without statements."""
    return np.full(panel.shape, np.nan) if panel.fundamentals is None else panel.fundamentals[name]


def _first_of(figure: Matrix, otherwise: Matrix) -> Matrix:
    return np.where(np.isnan(figure), otherwise, figure)


def _positive(figure: Matrix) -> Matrix:
    """The figure as a denominator: undefined where it is zero or negative."""
    return np.where(figure > 0.0, figure, np.nan)


def _stockholders_equity(panel: Panel) -> Matrix:
    """Equity of the parent's owners; where only that with minorities is reported, less the minorities' (if any)."""
    total = _figure(panel, "total_equity") - np.nan_to_num(_figure(panel, "minority_interest"))
    return _first_of(_figure(panel, "stockholders_equity"), total)


def _book_equity(panel: Panel) -> Matrix:
    """Stockholders' equity plus deferred taxes less preferred stock; either of the last two is none if not reported."""
    deferred, preferred = (np.nan_to_num(_figure(panel, name)) for name in ("deferred_taxes", "preferred_stock"))
    return _stockholders_equity(panel) + deferred - preferred


def _market_equity(panel: Panel) -> Matrix:
    return panel.close * _shares_today(panel, "shares")


def _shares_today(panel: Panel, count: str) -> Matrix:
    """A count of shares times every split after the day of the count; NaN where the panel begins after that day.

    A count made on the day of a split already has it, because the cover of a report counts what is outstanding then.
    """
    days = np.array(panel.sessions, dtype="datetime64[D]").astype(np.float64)
    counted_on = _figure(panel, f"{count}_as_of")
    session = np.searchsorted(days, counted_on, side="right") - 1
    splits = panel.once(_splits)
    since = splits / np.take_along_axis(splits, np.maximum(session, 0), axis=0)
    return np.where((session >= 0) & np.isfinite(counted_on), _figure(panel, count) * since, np.nan)


def _splits(panel: Panel) -> Matrix:
    """Shares that one share of the panel's first session has become."""
    return np.multiply.accumulate(panel.split_ratio, axis=0)
