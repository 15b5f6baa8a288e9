"""The plots of the tear sheet, as the data and layout that plotly.js draws.

Arithmetic of returns is in `research.backtest`; how a plot gets into the page is `page`. Colours are those of Okabe and
Ito (2008), which colour-blind readers can tell apart; lines differ in dash or width too, so that a grey print shows
them. No colour means good or bad.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.tear_sheet.wording import number, percent, signed, signed_percent

Floats = NDArray[np.float64]

BLUE, VERMILLION, ORANGE, SKY, PURPLE, GREY = "#0072B2", "#D55E00", "#E69F00", "#56B4E9", "#AA4A87", "#5A6570"
INK = "#1C2733"
_GRID = "#E3E8ED"
_BAND = "rgba(90,101,112,0.20)"
_DIGITS = 6
"""Significant digits of what is drawn: more than any screen shows, and half the size of the page."""

BAND = (5.0, 50.0, 95.0)
"""Percentiles of random books: the band's lower edge, its middle and its upper edge."""


@dataclass(frozen=True)
class Plot:
    """One plot: `data` and `layout` as plotly.js takes them, and in words what a reader would see in it."""

    name: str
    title: str
    description: str
    """The caption, and what those hear who do not see: what is drawn, in which unit, and how it ends."""
    data: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]


def equity(
    name: str, title: str, sessions: Sequence[date], own: Floats, books: Floats, whose: str, kind: str, remark: str = ""
) -> Plot:
    """Compounded returns `(T,)` from 1 over the band of random books `(T, n)`; `whose` and `kind` say what they are.

    `remark` is one more sentence for the caption, with a space before it.
    """
    wealth: Floats = np.cumprod(1.0 + own, dtype=np.float64)
    low, middle, high = percentiles(np.cumprod(1.0 + books, axis=0))
    logarithmic = float(min(wealth.min(), low.min())) > 0.0 and float(max(wealth.max(), high.max())) > 4.0
    scale = ", on a logarithmic axis" if logarithmic else ""
    beaten = int((np.prod(1.0 + books, axis=0) < wealth[-1]).sum())
    return Plot(
        name,
        title,
        f"Wealth from 1 at the start, {kind}{scale}. The strategy ends at {number(wealth[-1])}, the middle one of "
        f"{books.shape[1]} {whose} at {number(middle[-1])}; the band holds {BAND[2] - BAND[0]:.0f} % of them "
        f"({number(low[-1])} to {number(high[-1])} at the end). The strategy's end is above {beaten} of theirs."
        f"{remark}",
        (
            *_band(sessions, low, high, f"{whose}, {BAND[0]:.0f} to {BAND[2]:.0f} %"),
            _line(sessions, middle, "their median", GREY, dash="dash", width=1.2),
            _line(sessions, wealth, "strategy", BLUE),
        ),
        _layout("wealth, start = 1", kind="log" if logarithmic else "linear", height=360),
    )


def drawdown(sessions: Sequence[date], falls: Floats) -> Plot:
    """How far wealth is below its peak, `falls` `(T,)` as positive fractions."""
    deepest = int(falls.argmax())
    return Plot(
        "drawdown",
        "Drawdown, after costs",
        f"How far wealth is below its highest level so far, in per cent of it. Deepest: {percent(falls[deepest])} on "
        f"{sessions[deepest]}; at the end {percent(falls[-1])}.",
        ({**_line(sessions, -falls, "drawdown", BLUE, width=1.2), "fill": "tozeroy", "fillcolor": _tint(BLUE)},),
        _layout("below the peak", tickformat=".0%", legend=False, height=220),
    )


def rolling_sharpe(sessions: Sequence[date], own: Floats, low: Floats, high: Floats, window: int) -> Plot:
    """The Sharpe ratio over the last `window` sessions, beside the band of random books; NaN before them."""
    last = own[-1]
    return Plot(
        "rolling_sharpe",
        f"Rolling Sharpe ratio, after costs, {window} sessions",
        f"Mean over standard deviation of the last {window} daily net returns, times the square root of 252. At the "
        f"end {number(last)}; 90 % of the random books lie between {number(low[-1])} and {number(high[-1])} there.",
        (
            *_band(sessions, low, high, "random books, 5 to 95 %"),
            _line(sessions, own, "strategy", BLUE),
        ),
        _layout("Sharpe ratio, per year", height=260),
    )


def random_sharpes(own: float, permuted: Floats) -> Plot:
    """Where the net Sharpe ratio stands among those of the permuted books; NaN ones never traded and are left out."""
    known = permuted[~np.isnan(permuted)]
    counts, edges = np.histogram(known, bins=min(40, max(5, len(known) // 10)))
    middles = 0.5 * (edges[1:] + edges[:-1])
    top = int(counts.max())
    return Plot(
        "random_sharpes",
        "The Sharpe ratio among those of random books, after costs",
        f"How many of {len(known)} random books, with the same turnover and costs, reached which Sharpe ratio. The "
        f"strategy's {number(own)} is the vertical line; {percent(float((known < own).mean()))} of the books lie "
        "left of it.",
        (
            {
                "type": "bar",
                "x": _numbers(middles),
                "y": counts.tolist(),
                "width": float(edges[1] - edges[0]) * 0.96,
                "name": "random books",
                "marker": {"color": "#A9B3BD"},
            },
            {
                "type": "scatter",
                "mode": "lines",
                "x": _numbers(np.array([own, own])),
                "y": [0, top],
                "name": "strategy",
                "line": {"color": BLUE, "width": 3},
            },
        ),
        _layout("random books", across="Sharpe ratio, per year", height=260),
    )


def exposures(sessions: Sequence[date], gross: Floats, net: Floats) -> Plot:
    """Gross and net exposure at each close, over equity."""
    return Plot(
        "exposures",
        "Exposure at each close",
        "Long plus short market value (gross) and long less short (net), in per cent of equity. On average "
        f"{percent(gross.mean(), 0)} gross and {signed_percent(net.mean())} net.",
        (
            _line(sessions, gross, "gross", BLUE, width=1.4),
            _line(sessions, net, "net", VERMILLION, dash="dot", width=1.6),
        ),
        _layout("of equity", tickformat=".0%", height=240),
    )


def turnover(months: Sequence[str], traded: Floats, random: float) -> Plot:
    """Notional bought plus sold in each month, over equity; `random` is the same of the mean random book, a month."""
    return Plot(
        "turnover",
        "Turnover by month",
        f"Notional bought plus sold in each month, as a multiple of equity: {traded.mean():.1f} in a mean month, and "
        f"{random:.1f} for the mean random book.",
        ({"type": "bar", "x": list(months), "y": _numbers(traded), "name": "turnover", "marker": {"color": BLUE}},),
        _layout("times equity", legend=False, height=220),
    )


def costs(sessions: Sequence[date], by_kind: Mapping[str, Floats]) -> Plot:
    """What was paid so far, by kind, the daily fractions of equity added up."""
    styles = ((BLUE, "solid"), (VERMILLION, "dash"), (ORANGE, "dot"), (PURPLE, "dashdot"))
    paid = {kind: np.cumsum(daily) for kind, daily in by_kind.items()}
    ends = ", ".join(f"{kind} {percent(sums[-1])}" for kind, sums in paid.items())
    return Plot(
        "costs",
        "Costs so far, by kind",
        f"Daily costs added up, in per cent of equity. At the end: {ends}.",
        tuple(
            _line(sessions, sums, kind, colour, dash=dash, width=1.6)
            for (kind, sums), (colour, dash) in zip(paid.items(), styles, strict=False)
        ),
        _layout("of equity, added up", tickformat=".1%", height=240),
    )


def quantile_fan(sessions: Sequence[date], cumulative: Floats) -> Plot:
    """Compounded returns of stocks by quantile of the score `(T, q)`, less those of all; the last is the best."""
    shades = ("#B35806", "#E08214", "#8A8F98", "#4393C3", "#08519C")
    dashes = ("dash", "dot", "solid", "dashdot", "solid")
    groups = cumulative.shape[1]
    ends = ", ".join(f"{at + 1}: {signed_percent(cumulative[-1, at])}" for at in range(groups))
    return Plot(
        "quantile_fan",
        "Stocks by quantile of the score",
        f"Every day the scored stocks are cut into {groups} groups by score, {groups} being the most attractive. Each "
        "line compounds the mean return of a group from the next open to the one after, less that of all stocks, "
        f"without costs. At the end {ends}. A score that orders the stocks opens a fan with {groups} on top.",
        tuple(
            _line(
                sessions,
                cumulative[:, at],
                _quantile_name(at + 1, groups),
                shades[round(at * (len(shades) - 1) / max(groups - 1, 1))],
                dash=dashes[at % len(dashes)],
                width=2.2 if at in (0, groups - 1) else 1.3,
            )
            for at in range(groups)
        ),
        _layout("return less that of all", tickformat=".0%", height=320),
    )


def _quantile_name(quantile: int, groups: int) -> str:
    return f"{quantile}" + {1: " (least attractive)", groups: " (most attractive)"}.get(quantile, "")


def rank_ic(sessions: Sequence[date], daily: Floats, window: int, horizon: int) -> Plot:
    """The mean rank IC of the last `window` days with one; `daily` may hold NaN."""
    smooth = trailing_mean(daily, window)
    return Plot(
        "rank_ic",
        f"Rank IC, mean of {window} days",
        f"Spearman's correlation of scores with returns over the {horizon} sessions that followed, within each "
        f"day: 0 says that the score orders nothing. Over all days {signed(float(np.nanmean(daily)), 4)}. The last "
        "days have no figure until their returns are known.",
        (_line(sessions, smooth, "rank IC", BLUE, width=1.4),),
        _layout("rank IC", legend=False, from_zero=True, height=240),
    )


def ic_decay(horizons: Sequence[int], means: Floats, errors: Floats) -> Plot:
    """The mean rank IC against returns over several horizons, with 95 % intervals (`errors` are one standard error)."""
    told = ", ".join(f"{horizon}: {signed(mean, 4)}" for horizon, mean in zip(horizons, means, strict=True))
    return Plot(
        "ic_decay",
        "How the rank IC changes with the horizon",
        f"Mean rank IC against the return over so many sessions, with 95 % intervals (Newey-West). {told}.",
        (
            {
                "type": "scatter",
                "mode": "markers",
                "x": [str(horizon) for horizon in horizons],
                "y": _numbers(means),
                "error_y": {"type": "data", "array": _numbers(1.96 * errors), "color": INK, "thickness": 1.4},
                "marker": {"color": BLUE, "size": 9},
                "name": "rank IC",
            },
        ),
        _layout("rank IC", across="horizon, sessions", category=True, legend=False, height=240),
    )


def by_year(ratios: Mapping[int, float]) -> Plot:
    """The net Sharpe ratio of each calendar year."""
    known = {year: ratio for year, ratio in ratios.items() if not math.isnan(ratio)}
    positive = sum(ratio > 0.0 for ratio in known.values())
    return Plot(
        "by_year",
        "Sharpe ratio by calendar year, after costs",
        f"Years with at least 21 sessions; {positive} of {len(known)} are above zero.",
        (
            {
                "type": "bar",
                "x": [str(year) for year in known],
                "y": _numbers(np.array(list(known.values()))),
                "marker": {"color": BLUE},
                "name": "Sharpe ratio",
            },
        ),
        _layout("Sharpe ratio, per year", category=True, legend=False, height=220),
    )


def offsets(names: Sequence[str], net: Floats, gross: Floats, own: int) -> Plot:
    """The Sharpe ratios of the same scores on every rebalance offset; `own` is the place of the strategy's."""
    ring = [3 if place == own else 0 for place in range(len(names))]
    return Plot(
        "offsets",
        "The same scores, decided on other days",
        f"Sharpe ratios for every rebalance offset: after costs from {number(np.nanmin(net))} to "
        f"{number(np.nanmax(net))}, mean {number(float(np.nanmean(net)))}. The strategy's own, {names[own]}, is "
        "ringed. Which one was chosen says nothing about the future.",
        tuple(
            {
                "type": "scatter",
                "mode": "markers",
                "x": list(names),
                "y": _numbers(values),
                "name": label,
                "marker": {"color": colour, "size": 11, "symbol": symbol, "line": {"color": INK, "width": ring}},
            }
            for values, label, colour, symbol in (
                (net, "after costs", BLUE, "circle"),
                (gross, "before costs", ORANGE, "diamond"),
            )
        ),
        _layout("Sharpe ratio, per year", category=True, height=240),
    )


def percentiles(books: NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
    """The three of `BAND` over the books of `(T, n)`, `(T,)` each."""
    low, middle, high = np.percentile(books, BAND, axis=1).astype(np.float64)
    return low, middle, high


def trailing_mean(values: Floats, window: int) -> Floats:
    """The mean of the last `window` values that are no NaN; NaN until there are so many, and where the value is NaN."""
    known = ~np.isnan(values)
    result = np.full(len(values), np.nan)
    sums = np.concatenate([[0.0], np.cumsum(values[known])])
    if known.sum() >= window:
        places = np.flatnonzero(known)[window - 1 :]
        result[places] = (sums[window:] - sums[:-window]) / window
    return result


def _band(sessions: Sequence[date], low: Floats, high: Floats, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    edge = {"color": "rgba(90,101,112,0.55)", "width": 0.8}
    lower = {**_line(sessions, low, "5 %", GREY), "line": edge, "showlegend": False}
    upper = {**_line(sessions, high, name, GREY), "line": edge, "fill": "tonexty", "fillcolor": _BAND}
    return lower, upper


def _line(
    x: Sequence[date], y: Floats, name: str, colour: str, dash: str = "solid", width: float = 2.0
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [str(value) for value in x],
        "y": _numbers(y),
        "name": name,
        "line": {"color": colour, "width": width, "dash": dash},
    }


def _numbers(values: Floats) -> list[float | None]:
    """Rounded for drawing; JSON has no NaN, and plotly.js leaves a gap where there is null."""
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]


def _tint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _layout(
    up: str,
    *,
    across: str = "",
    tickformat: str = "",
    kind: str = "linear",
    category: bool = False,
    legend: bool = True,
    from_zero: bool = False,
    height: int = 260,
) -> dict[str, Any]:
    title = {"font": {"size": 12}, "standoff": 6}
    lines = {"gridcolor": _GRID, "linecolor": "#9AA5B1", "zerolinecolor": "#7A8793", "automargin": True}
    return {
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 30 if legend else 10, "b": 52 if across else 30},
        "bargap": 0.35,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "font": {"size": 12}},
        "hovermode": "x unified" if not across else "closest",
        "dragmode": False,
        "xaxis": {**lines, "title": {**title, "text": across}, **({"type": "category"} if category else {})},
        "yaxis": {
            **lines,
            "title": {**title, "text": up},
            "type": kind,
            "tickformat": tickformat,
            "rangemode": "tozero" if from_zero else "normal",
        },
    }
