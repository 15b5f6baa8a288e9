"""The set `factors`: characteristics of one stock's prices and volumes that the literature ties to later returns.

Each function is one factor with its formula, look-back and paper; none says in which direction it pays, which is for a
model to learn. Notation, for a stock and a session t: O, H, L, C are as-traded prices, P is the total-return-adjusted
close, r_t = P_t / P_{t-1} - 1 the daily total return, V shares adjusted by splits, D = C x as-traded shares the dollar
volume. "Mean over 21" is over the 21 sessions that end at t; where less than two thirds of a window is observed, or a
variance is nothing but rounding, the factor is undefined. Every value is known after the close of t.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.research.features import rolling
from stockpicker_dagster.research.features.declaration import Feature, feature
from stockpicker_dagster.research.features.panel import Panel

Matrix = NDArray[np.float64]

CLOSE = ("close", "adjustment")
MONTH, QUARTER, YEAR = 21, 63, 252
"""Sessions in a month, a quarter and a year, as the literature counts them."""
NO_MOVE = 1e-9
"""A daily return this close to zero is a zero return: prices move in ticks, adjustment factors round."""


# Past returns ---------------------------------------------------------------------------------------------------------


@feature(lookback=6, inputs=CLOSE)
def reversal_1w(panel: Panel) -> Matrix:
    """Return over the last week, P_t / P_{t-5} - 1. Lehmann (1990), "Fads, martingales, and market efficiency"."""
    return _past_return(panel, 5, 0)


@feature(lookback=MONTH + 1, inputs=CLOSE)
def reversal_1m(panel: Panel) -> Matrix:
    """Return over the last month, P_t / P_{t-21} - 1. Jegadeesh (1990), "Evidence of predictable behavior"."""
    return _past_return(panel, MONTH, 0)


@feature(lookback=127, inputs=CLOSE)
def momentum_6_1(panel: Panel) -> Matrix:
    """Return over six months without the last, P_{t-21} / P_{t-126} - 1. Jegadeesh and Titman (1993)."""
    return _past_return(panel, 126, MONTH)


@feature(lookback=YEAR + 1, inputs=CLOSE)
def momentum_12_1(panel: Panel) -> Matrix:
    """Return over twelve months without the last, P_{t-21} / P_{t-252} - 1. Jegadeesh and Titman (1993)."""
    return _past_return(panel, YEAR, MONTH)


@feature(lookback=YEAR + 1, inputs=CLOSE)
def momentum_12_7(panel: Panel) -> Matrix:
    """Return from twelve to seven months ago, P_{t-126} / P_{t-252} - 1. Novy-Marx (2012), "Is momentum really"."""
    return _past_return(panel, YEAR, 126)


@feature(lookback=YEAR + 1, inputs=CLOSE)
def momentum_change(panel: Panel) -> Matrix:
    """Return over six months less that over the six before, P_t / P_{t-126} - P_{t-126} / P_{t-252}.

    Gettleman and Marks (2006), "Acceleration strategies"; `chmom` of Green, Hand and Zhang (2017).
    """
    return _past_return(panel, 126, 0) - _past_return(panel, YEAR, 126)


@feature(lookback=YEAR + 1, inputs=CLOSE)
def return_seasonality(panel: Panel) -> Matrix:
    """Return a year ago over the month that now comes, P_{t-231} / P_{t-252} - 1. Heston and Sadka (2008)."""
    return _past_return(panel, YEAR, YEAR - MONTH)


@feature(lookback=YEAR + 1, inputs=CLOSE)
def information_discreteness(panel: Panel) -> Matrix:
    """How abruptly the past year's return came: sign(momentum_12_1) x (share of down days - share of up days).

    Shares over the 231 sessions of the momentum window. Da, Gurun and Warachka (2014), "Frog in the pan".
    """
    up_minus_down = np.sign(_flatten_noise(panel.daily_return))
    balance = rolling.mean(up_minus_down, YEAR - MONTH, max(0, panel.since - MONTH))
    return -np.sign(_past_return(panel, YEAR, MONTH)) * rolling.lag(balance, MONTH)


@feature(lookback=MONTH + 1, inputs=("open", "close", "adjustment"))
def overnight_momentum(panel: Panel) -> Matrix:
    """Mean over 21 of the return from close to open. Lou, Polk and Skouras (2019), "A tug of war"."""
    return rolling.mean(panel.overnight_return, MONTH, panel.since)


@feature(lookback=MONTH, inputs=("open", "close"))
def intraday_momentum(panel: Panel) -> Matrix:
    """Mean over 21 of the return from open to close. Lou, Polk and Skouras (2019), "A tug of war"."""
    return rolling.mean(panel.intraday_return, MONTH, panel.since)


@feature(lookback=61, inputs=CLOSE)
def return_autocorrelation(panel: Panel) -> Matrix:
    """Correlation of r_t with r_{t-1} over 60. Lo and MacKinlay (1990), "When are contrarian profits due to"."""
    gross = 1.0 + panel.daily_return
    return rolling.correlation(gross, rolling.lag(gross, 1), 59, panel.since)


@feature(lookback=131, inputs=CLOSE)
def variance_ratio(panel: Panel) -> Matrix:
    """Variance over 126 of ln P_t / P_{t-5}, by five times that of ln P_t / P_{t-1}. Lo and MacKinlay (1988)."""
    close = panel.adjusted_close
    daily, weekly = (rolling.logarithm(close / rolling.lag(close, days)) for days in (1, 5))
    deviation = rolling.standard_deviation(daily, 126, panel.since, scale=1.0)
    return _variance(weekly, 126, panel.since) / (5.0 * deviation * deviation)


# Income ---------------------------------------------------------------------------------------------------------------


@feature(lookback=YEAR, inputs=("split_ratio", "adjustment"))
def dividend_yield(panel: Panel) -> Matrix:
    """252 x the mean over 252 of the dividend by the close before it went ex. Litzenberger and Ramaswamy (1979).

    Read off the adjustment: dividend / previous close = 1 - split ratio / adjustment.
    """
    paid = 1.0 - panel.split_ratio / panel.adjustment
    return YEAR * rolling.mean(np.where(panel.present, paid, np.nan), YEAR, panel.since)


# Trend ----------------------------------------------------------------------------------------------------------------


@feature(lookback=YEAR, inputs=("high", "close", "adjustment"))
def high_52_week(panel: Panel) -> Matrix:
    """P_t over the largest adjusted high of 252. George and Hwang (2004), "The 52-week high and momentum"."""
    return panel.adjusted_close / rolling.maximum(panel.adjusted_high, YEAR, panel.since)


@feature(lookback=YEAR, inputs=("high", "adjustment"))
def recency_of_high(panel: Panel) -> Matrix:
    """1 - sessions since the largest adjusted high of 252 (the latest of equal ones) / 251. Bhootra and Hur (2013)."""
    since_high = rolling.sessions_since_maximum(panel.adjusted_high, YEAR, panel.since, NO_MOVE)
    return 1.0 - since_high / (YEAR - 1.0)


@feature(lookback=14, inputs=("high", "low", "close", "adjustment"))
def stochastic_14(panel: Panel) -> Matrix:
    """Place of P_t between the smallest adjusted low and the largest adjusted high of 14, 0 to 1. Lane (1984)."""
    low = rolling.minimum(panel.adjusted_low, 14, panel.since)
    width = rolling.maximum(panel.adjusted_high, 14, panel.since) - low
    return (panel.adjusted_close - low) / np.where(width > NO_MOVE * low, width, np.nan)


@feature(lookback=50, inputs=CLOSE)
def price_to_average_50(panel: Panel) -> Matrix:
    """P_t over the mean of P over 50, less 1. Brock, Lakonishok and LeBaron (1992), "Simple technical trading"."""
    return panel.adjusted_close / rolling.mean(panel.adjusted_close, 50, panel.since) - 1.0


@feature(lookback=200, inputs=CLOSE)
def price_to_average_200(panel: Panel) -> Matrix:
    """P_t over the mean of P over 200, less 1. Brock, Lakonishok and LeBaron (1992), "Simple technical trading"."""
    return panel.adjusted_close / rolling.mean(panel.adjusted_close, 200, panel.since) - 1.0


@feature(lookback=200, inputs=CLOSE)
def moving_average_distance(panel: Panel) -> Matrix:
    """Mean of P over 21 by its mean over 200, less 1. Avramov, Kaplanski and Subrahmanyam (2021)."""
    short = rolling.mean(panel.adjusted_close, MONTH, panel.since)
    return short / rolling.mean(panel.adjusted_close, 200, panel.since) - 1.0


@feature(lookback=15, inputs=CLOSE)
def relative_strength_14(panel: Panel) -> Matrix:
    """Mean gain / (mean gain + mean loss) over 14, from 0 to 1. Wilder (1978), with plain means as in Cutler's form."""
    moves = _flatten_noise(panel.daily_return)
    gain = rolling.mean(np.maximum(moves, 0.0), 14, panel.since)
    loss = rolling.mean(np.maximum(-moves, 0.0), 14, panel.since)
    return gain / (gain + loss)


# Risk -----------------------------------------------------------------------------------------------------------------


@feature(lookback=22, inputs=CLOSE)
def volatility_1m(panel: Panel) -> Matrix:
    """Standard deviation of r over 21. Ang, Hodrick, Xing and Zhang (2006), "The cross-section of volatility"."""
    return rolling.standard_deviation(panel.daily_return, MONTH, panel.since, scale=1.0)


@feature(lookback=QUARTER + 1, inputs=CLOSE)
def volatility_3m(panel: Panel) -> Matrix:
    """Standard deviation of r over 63. Ang, Hodrick, Xing and Zhang (2006)."""
    return rolling.standard_deviation(panel.daily_return, QUARTER, panel.since, scale=1.0)


@feature(lookback=YEAR + 1, inputs=CLOSE)
def volatility_12m(panel: Panel) -> Matrix:
    """Standard deviation of r over 252. Blitz and van Vliet (2007), "The volatility effect"."""
    return rolling.standard_deviation(panel.daily_return, YEAR, panel.since, scale=1.0)


@feature(lookback=QUARTER + 1, inputs=CLOSE)
def downside_volatility(panel: Panel) -> Matrix:
    """Root of the mean over 63 of min(r, 0)^2. Ang, Chen and Xing (2006), "Downside risk"."""
    losses = np.minimum(_flatten_noise(panel.daily_return), 0.0)
    return np.sqrt(rolling.mean(losses * losses, QUARTER, panel.since))


@feature(lookback=MONTH + 1, inputs=CLOSE)
def maximum_daily_return(panel: Panel) -> Matrix:
    """Largest r of 21. Bali, Cakici and Whitelaw (2011), "Maxing out"."""
    return rolling.maximum(panel.daily_return, MONTH, panel.since)


@feature(lookback=MONTH + 1, inputs=CLOSE)
def five_largest_returns(panel: Panel) -> Matrix:
    """Mean of the five largest r of 21. Bali, Brown, Murray and Tang (2017), "A lottery-demand-based explanation"."""
    return rolling.mean_of_largest(panel.daily_return, 5, MONTH, panel.since)


@feature(lookback=MONTH + 1, inputs=CLOSE)
def minimum_daily_return(panel: Panel) -> Matrix:
    """Smallest r of 21. Bali, Cakici and Whitelaw (2011), "Maxing out"."""
    return rolling.minimum(panel.daily_return, MONTH, panel.since)


@feature(lookback=QUARTER + 1, inputs=CLOSE)
def return_skewness(panel: Panel) -> Matrix:
    """Third over 3/2 power of second central moment of r over 63. Boyer, Mitton and Vorkink (2010)."""
    return rolling.skewness(panel.daily_return, QUARTER, panel.since, scale=1.0)


@feature(lookback=QUARTER + 1, inputs=CLOSE)
def return_kurtosis(panel: Panel) -> Matrix:
    """Fourth over squared second central moment of r over 63, less 3. Amaya, Christoffersen, Jacobs, Vasquez (2015)."""
    return rolling.excess_kurtosis(panel.daily_return, QUARTER, panel.since, scale=1.0)


@feature(lookback=QUARTER + 1, inputs=CLOSE)
def relative_signed_jump(panel: Panel) -> Matrix:
    """Sum over 63 of r^2 on days up less that on days down, by their sum. Bollerslev, Li and Zhao (2020), daily."""
    moves = _flatten_noise(panel.daily_return)
    signed = rolling.mean(np.sign(moves) * moves * moves, QUARTER, panel.since)
    return signed / rolling.mean(moves * moves, QUARTER, panel.since)


@feature(lookback=QUARTER + 1, inputs=("open", "close", "adjustment"))
def overnight_variance_share(panel: Panel) -> Matrix:
    """Variance over 63 of the return from close to open, by that plus that from open to close. French and Roll (1986).

    "Stock return variances: the arrival of information and the reaction of traders".
    """
    overnight = _variance(panel.overnight_return, QUARTER, panel.since)
    return overnight / (overnight + _variance(panel.intraday_return, QUARTER, panel.since))


@feature(lookback=MONTH, inputs=("high", "low"))
def parkinson_volatility(panel: Panel) -> Matrix:
    """Root of the mean over 21 of ln(H / L)^2 / (4 ln 2). Parkinson (1980), "The extreme value method"."""
    spread = rolling.logarithm(panel.high / panel.low)
    return np.sqrt(rolling.mean(spread * spread, MONTH, panel.since) / (4.0 * math.log(2.0)))


@feature(lookback=MONTH, inputs=("open", "high", "low", "close"))
def garman_klass_volatility(panel: Panel) -> Matrix:
    """Root of the mean over 21 of ln(H / L)^2 / 2 - (2 ln 2 - 1) ln(C / O)^2. Garman and Klass (1980), eq. 20."""
    spread = rolling.logarithm(panel.high / panel.low)
    move = rolling.logarithm(panel.close / panel.open)
    variance = 0.5 * spread * spread - (2.0 * math.log(2.0) - 1.0) * move * move
    return np.sqrt(np.maximum(rolling.mean(variance, MONTH, panel.since), 0.0))


@feature(lookback=MONTH, inputs=("open", "high", "low", "close"))
def rogers_satchell_volatility(panel: Panel) -> Matrix:
    """Root of the mean over 21 of ln(H / C) ln(H / O) + ln(L / C) ln(L / O). Rogers and Satchell (1991)."""
    return np.sqrt(np.maximum(rolling.mean(_rogers_satchell(panel), MONTH, panel.since), 0.0))


@feature(lookback=MONTH + 1, inputs=("open", "high", "low", "close", "adjustment"))
def yang_zhang_volatility(panel: Panel) -> Matrix:
    """Root of Var(o) + k Var(c) + (1 - k) x the square of `rogers_satchell_volatility`. Yang and Zhang (2000), eq. 10.

    Over n = 21: o = ln of the adjusted open by the adjusted close before, c = ln(C / O), and
    k = 0.34 / (1.34 + (n + 1) / (n - 1)).
    """
    k = 0.34 / (1.34 + (MONTH + 1.0) / (MONTH - 1.0))
    overnight = rolling.logarithm(panel.adjusted_open / rolling.lag(panel.adjusted_close, 1))
    intraday = rolling.logarithm(panel.close / panel.open)
    ranged = np.maximum(rolling.mean(_rogers_satchell(panel), MONTH, panel.since), 0.0)
    moved = _variance(overnight, MONTH, panel.since) + k * _variance(intraday, MONTH, panel.since)
    return np.sqrt(moved + (1.0 - k) * ranged)


# Liquidity ------------------------------------------------------------------------------------------------------------


@feature(lookback=MONTH + 1, inputs=("close", "volume", "adjustment"), scale_invariant=False)
def illiquidity(panel: Panel) -> Matrix:
    """10^6 x the mean over 21 of |r| / D; days without volume are unobserved. Amihud (2002), "Illiquidity".

    Per million of currency: it depends on the currency, but not on splits.
    """
    traded = np.where(panel.dollar_volume > 0.0, panel.dollar_volume, np.nan)
    return rolling.mean(1e6 * np.abs(panel.daily_return) / traded, MONTH, panel.since)


@feature(lookback=MONTH, inputs=("close", "volume"), scale_invariant=False)
def dollar_volume(panel: Panel) -> Matrix:
    """ln of the mean over 21 of D, in currency. Brennan, Chordia and Subrahmanyam (1998)."""
    return rolling.logarithm(rolling.mean(panel.dollar_volume, MONTH, panel.since))


@feature(lookback=QUARTER, inputs=("close", "volume"))
def volume_variability(panel: Panel) -> Matrix:
    """Standard deviation of D over 63 by its mean. Chordia, Subrahmanyam and Anshuman (2001)."""
    deviation = rolling.standard_deviation(panel.dollar_volume, QUARTER, panel.since)
    return deviation / rolling.mean(panel.dollar_volume, QUARTER, panel.since)


@feature(lookback=50, inputs=("volume", "split_ratio"))
def high_volume(panel: Panel) -> Matrix:
    """Share of the 49 sessions before t with a volume below V_t. Gervais, Kaniel and Mingelgrin (2001)."""
    return rolling.rank_of_last(panel.adjusted_volume, 50, panel.since)


@feature(lookback=YEAR, inputs=("volume", "split_ratio"))
def volume_trend(panel: Panel) -> Matrix:
    """Mean of V over 21 by its mean over 252, less 1. Lee and Swaminathan (2000), "Price momentum and volume"."""
    recent = rolling.mean(panel.adjusted_volume, MONTH, panel.since)
    return recent / rolling.mean(panel.adjusted_volume, YEAR, panel.since) - 1.0


@feature(lookback=QUARTER + 1, inputs=("close", "volume", "split_ratio", "adjustment"))
def return_volume_correlation(panel: Panel) -> Matrix:
    """Correlation of 1 + r and V over 63. Karpoff (1987), "The relation between price changes and trading volume"."""
    return rolling.correlation(1.0 + panel.daily_return, panel.adjusted_volume, QUARTER, panel.since)


@feature(lookback=QUARTER + 1, inputs=CLOSE)
def zero_return_days(panel: Panel) -> Matrix:
    """Share of 63 sessions with r = 0. Lesmond, Ogden and Trzcinka (1999), "A new estimate of transaction costs"."""
    moves = _flatten_noise(panel.daily_return)
    return rolling.mean(np.where(np.isnan(moves), np.nan, moves == 0.0), QUARTER, panel.since)


@feature(lookback=MONTH + 1, inputs=("high", "low", "close", "adjustment"))
def bid_ask_spread(panel: Panel) -> Matrix:
    """Mean over 21 of the two-day high-low spread S. Corwin and Schultz (2012), eq. 14, 18 and section II.

    S = 2 (e^a - 1) / (1 + e^a), a = (sqrt(2 b) - sqrt(b)) / k - sqrt(g / k), k = 3 - 2 sqrt(2), b the sum of the two
    days' ln(H / L)^2, g = ln(H / L)^2 over both; the second day is shifted to undo an overnight gap, negative S are 0.
    """
    high, low, close = panel.adjusted_high, panel.adjusted_low, panel.adjusted_close
    return rolling.mean(_two_day_spread(high, low, close), MONTH, panel.since)


@feature(lookback=MONTH + 1, inputs=("high", "low", "close", "adjustment"))
def close_high_low_spread(panel: Panel) -> Matrix:
    """Root of 4 x the mean over 21 of (c - m)(c - m'), or 0 if negative. Abdi and Ranaldo (2017), eq. 10.

    c is ln of the adjusted close of the day before, m and m' the middle of ln H and ln L, adjusted, of that day and of
    the next.
    """
    middle = 0.5 * rolling.logarithm(panel.adjusted_high * panel.adjusted_low)
    close = rolling.lag(rolling.logarithm(panel.adjusted_close), 1)
    bounce = (close - rolling.lag(middle, 1)) * (close - middle)
    return _root_above_noise(4.0 * rolling.mean(bounce, MONTH, panel.since))


@feature(lookback=QUARTER + 2, inputs=CLOSE)
def roll_spread(panel: Panel) -> Matrix:
    """2 x the root of minus the covariance of r_t and r_{t-1} over 63, or 0 if that is positive. Roll (1984)."""
    today, before = panel.daily_return, rolling.lag(panel.daily_return, 1)
    both = np.where(np.isnan(today) | np.isnan(before), np.nan, 0.0)
    of_both, of_today, of_before = (
        rolling.mean(each + both, QUARTER, panel.since) for each in (today * before, today, before)
    )
    return _root_above_noise(4.0 * (of_today * of_before - of_both))


@feature(lookback=1, inputs=("close",), scale_invariant=False, price_level=True)
def price_level(panel: Panel) -> Matrix:
    """ln of C, in currency as traded. Miller and Scholes (1982), "Dividends and taxes"."""
    return rolling.logarithm(panel.close)


FEATURES: tuple[Feature, ...] = (
    reversal_1w,
    reversal_1m,
    momentum_6_1,
    momentum_12_1,
    momentum_12_7,
    momentum_change,
    return_seasonality,
    information_discreteness,
    overnight_momentum,
    intraday_momentum,
    return_autocorrelation,
    variance_ratio,
    dividend_yield,
    high_52_week,
    recency_of_high,
    stochastic_14,
    price_to_average_50,
    price_to_average_200,
    moving_average_distance,
    relative_strength_14,
    volatility_1m,
    volatility_3m,
    volatility_12m,
    downside_volatility,
    maximum_daily_return,
    five_largest_returns,
    minimum_daily_return,
    return_skewness,
    return_kurtosis,
    relative_signed_jump,
    overnight_variance_share,
    parkinson_volatility,
    garman_klass_volatility,
    rogers_satchell_volatility,
    yang_zhang_volatility,
    illiquidity,
    dollar_volume,
    volume_variability,
    high_volume,
    volume_trend,
    return_volume_correlation,
    zero_return_days,
    bid_ask_spread,
    close_high_low_spread,
    roll_spread,
    price_level,
)
"""The set, in the order of its columns."""


def _past_return(panel: Panel, from_ago: int, to_ago: int) -> Matrix:
    """Total return from the close `from_ago` sessions ago to the close `to_ago` sessions ago."""
    return rolling.lag(panel.adjusted_close, to_ago) / rolling.lag(panel.adjusted_close, from_ago) - 1.0


def _flatten_noise(returns: Matrix) -> Matrix:
    """Returns within a billionth of zero as exactly zero; NaN stays."""
    return np.where(np.abs(returns) <= NO_MOVE, 0.0, returns)


def _variance(values: Matrix, window: int, since: int) -> Matrix:
    """The sample variance of returns over the window; 0 where it is nothing but rounding."""
    deviation = rolling.standard_deviation(values, window, since, scale=1.0)
    still = np.isnan(deviation) & ~np.isnan(rolling.mean(values, window, since))
    return np.where(still, 0.0, deviation * deviation)


def _rogers_satchell(panel: Panel) -> Matrix:
    """Each session's part of the variance; never negative but for rounding."""
    above = rolling.logarithm(panel.high / panel.close) * rolling.logarithm(panel.high / panel.open)
    return above + rolling.logarithm(panel.low / panel.close) * rolling.logarithm(panel.low / panel.open)


def _root_above_noise(squares: Matrix) -> Matrix:
    """The root of squared returns; 0 where they are negative or nothing but rounding, NaN where they are."""
    return np.sqrt(np.where(squares <= rolling.VARIANCE_FLOOR, 0.0, squares))


@njit(cache=True, nogil=True)
def _two_day_spread(high: Matrix, low: Matrix, close: Matrix) -> Matrix:
    """Corwin and Schultz's spread of each session with the one before it; NaN if either lacks a price."""
    rows, columns = high.shape
    result = np.full((rows, columns), np.nan)
    k = 3.0 - 2.0 * math.sqrt(2.0)
    for row in range(1, rows):
        for column in range(columns):
            before = close[row - 1, column]
            high1, low1, high2, low2 = high[row - 1, column], low[row - 1, column], high[row, column], low[row, column]
            if not (low1 > 0.0 and low2 > 0.0 and high1 > 0.0 and high2 > 0.0 and before > 0.0):
                continue
            gap = max(0.0, low2 - before) + min(0.0, high2 - before)
            high2 -= gap
            low2 -= gap
            if low2 <= 0.0:
                continue
            b = math.log(high1 / low1) ** 2 + math.log(high2 / low2) ** 2
            g = math.log(max(high1, high2) / min(low1, low2)) ** 2
            a = (math.sqrt(2.0 * b) - math.sqrt(b)) / k - math.sqrt(g / k)
            result[row, column] = max(0.0, 2.0 * math.tanh(a / 2.0))
    return result
