"""Strategies side by side on the sessions that all of them have, every one of them counted as a trial.

Figures and text; the page is `comparison.html` beside this file. Choosing the best of several is a choice like any
other: their verdicts already count all of them, and the probability of over-fitting is that of this very choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.evaluation.judgement import Judgement, judge_all
from stockpicker_dagster.evaluation.stored_days import stored_backtest, stored_span
from stockpicker_dagster.evaluation.trials import universe_of
from stockpicker_dagster.research.backtest.days import BacktestSummary, overfitting_among, summarize
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm


@dataclass(frozen=True)
class Compared:
    """One strategy on the common span."""

    name: str
    universe: str
    summary: BacktestSummary
    judgement: Judgement


@dataclass(frozen=True)
class Comparison:
    """Several strategies on the sessions from `first` to `last`, both included."""

    first: date
    last: date
    sessions: int
    strategies: tuple[Compared, ...]
    correlations: NDArray[np.float64]
    """Of daily net returns, `(n, n)`; NaN beside a strategy that never traded."""
    overfitting: float | None
    """The probability that the best of them owes its place to over-fitting; None where the span is too short."""
    caveats: tuple[str, ...]


def compare(
    forms: Mapping[str, StrategyForm], deployment: Deployment, first: date | None = None, last: date | None = None
) -> Comparison:
    """Compare strategies from stored days, on all sessions that every one of them has, or from `first` to `last`.

    Raises `InvalidInput` for fewer than two strategies, different trading calendars or no common session, and
    `MissingDays` where a session within the span is not stored.
    """
    if len(forms) < 2:
        raise InvalidInput(f"{len(forms)} strategies cannot be compared; name at least two different ones")
    if len({form.calendar.name for form in forms.values()}) > 1:
        named = ", ".join(f"{name} on {form.calendar.name}" for name, form in forms.items())
        raise InvalidInput(f"strategies on different trading days cannot be compared ({named}); compare those of one")
    lake = deployment.lake
    spans = {name: stored_span(name, form, lake) for name, form in forms.items()}
    begin = max([span[0] for span in spans.values()] + ([first] if first else []))
    end = min([span[1] for span in spans.values()] + ([last] if last else []))
    if begin > end:
        told = ", ".join(f"{name} {span[0]} to {span[1]}" for name, span in spans.items())
        asked = f" from {first or 'the start'} to {last or 'the end'}" if first or last else ""
        raise InvalidInput(f"these strategies have no session in common{asked}; stored are {told}")
    days = {name: stored_backtest(name, form, lake, begin, end) for name, form in forms.items()}
    judged = judge_all(forms, days, deployment.database, deployment.now())
    returns = np.column_stack([part["net_return"].to_numpy() for part in days.values()])
    sessions = next(iter(days.values()))["date"]
    return Comparison(
        first=sessions[0],
        last=sessions[-1],
        sessions=len(sessions),
        strategies=tuple(
            Compared(name, universe_of(form), _summary(days[name]), judged[name]) for name, form in forms.items()
        ),
        correlations=_correlations(returns),
        overfitting=overfitting_among(returns),
        caveats=_caveats(forms),
    )


def _summary(days: pl.DataFrame) -> BacktestSummary:
    summary = summarize(days)
    assert summary is not None
    return summary


def _correlations(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    moves = returns.std(axis=0) > 0.0
    matrix = np.full((returns.shape[1],) * 2, np.nan)
    if len(returns) > 1 and moves.any():
        matrix[np.ix_(moves, moves)] = np.atleast_2d(np.corrcoef(returns[:, moves], rowvar=False))
    return matrix


def _caveats(forms: Mapping[str, StrategyForm]) -> tuple[str, ...]:
    caveats = [form.prices.build().caveat for form in forms.values()]
    if len({universe_of(form) for form in forms.values()}) > 1:
        named = ", ".join(f"{name}: {universe_of(form)}" for name, form in forms.items())
        caveats.append(f"the universes differ ({named}), so that the figures are of different stocks and trials")
    return tuple(dict.fromkeys(caveat for caveat in caveats if caveat))


# In words


@dataclass(frozen=True)
class Row:
    """One figure of every strategy, in the order in which they were named."""

    label: str
    shown: tuple[str, ...]


def rows(comparison: Comparison) -> list[Row]:
    """The figures side by side; `-` where one does not exist. The verdict comes first."""
    return [Row(label, tuple(_shown(each, label) for each in comparison.strategies)) for label in _LABELS]


_LABELS = (
    "verdict",
    "universe",
    "net Sharpe ratio",
    "gross Sharpe ratio",
    "net Sharpe, all rebalance offsets",
    "annual return, net",
    "volatility",
    "largest drawdown",
    "turnover a year",
    "costs a year",
    "random books beaten",
    "permutation p",
    "deflated Sharpe ratio",
    "trials counted",
)


def _shown(each: Compared, label: str) -> str:
    figures, books, verdict = each.summary.performance, each.summary.random_books, each.judgement.verdict
    offsets = verdict.offsets if verdict else None
    texts = {
        "verdict": verdict.words if verdict else f"none: {each.judgement.no_verdict}",
        "universe": each.universe,
        "net Sharpe ratio": _number(figures.net_sharpe, ".2f"),
        "gross Sharpe ratio": _number(figures.gross_sharpe, ".2f"),
        "net Sharpe, all rebalance offsets": (
            f"{offsets.mean:.2f} ({offsets.lowest:.2f} to {offsets.highest:.2f})" if offsets else "-"
        ),
        "annual return, net": _number(figures.net_annual_return, "+.1%"),
        "volatility": _number(figures.volatility, ".1%"),
        "largest drawdown": _number(figures.max_drawdown, ".1%"),
        "turnover a year": _number(figures.turnover_per_year, ".0f"),
        "costs a year": _number(figures.cost_per_year, ".1%"),
        "random books beaten": f"{books.percentile:.1f} % of {books.books}" if books else "-",
        "permutation p": f"{books.p_value:.3f}" if books else "-",
        "deflated Sharpe ratio": f"{verdict.deflated_sharpe:.3f}" if verdict else "-",
        "trials counted": str(verdict.trials) if verdict else "-",
    }
    return texts[label]


def _number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)


def correlation_texts(comparison: Comparison) -> list[list[str]]:
    """The correlations as they are shown, line by line."""
    return [[_number(value, ".2f") for value in line] for line in comparison.correlations]


def overfitting_sentence(comparison: Comparison) -> str:
    """What the probability of over-fitting says, or that there is none."""
    if comparison.overfitting is None or np.isnan(comparison.overfitting):
        return "The probability that the best of them was chosen by luck cannot be told from so few sessions."
    return (
        f"Probability that the best of these {len(comparison.strategies)} owes its place to over-fitting: "
        f"{comparison.overfitting:.2f} (0.50 where they differ by luck alone)."
    )


def as_text(comparison: Comparison) -> str:
    """The comparison for a person, one column a strategy."""
    names = [each.name for each in comparison.strategies]
    head = (
        f"{' and '.join(names)}: {comparison.first} to {comparison.last}, {comparison.sessions} sessions, after costs"
    )
    table = _table([Row("", tuple(names)), *rows(comparison)])
    correlations = [Row(name, tuple(line)) for name, line in zip(names, correlation_texts(comparison), strict=True)]
    return "\n".join(
        [
            head,
            *(f"CAVEAT: {caveat}" for caveat in comparison.caveats),
            "",
            *table,
            "",
            "correlation of daily net returns",
            *_table([Row("", tuple(names)), *correlations]),
            "",
            overfitting_sentence(comparison),
        ]
    )


def _table(lines: Sequence[Row]) -> list[str]:
    first = max(len(line.label) for line in lines)
    widths = [max(len(line.shown[place]) for line in lines) for place in range(len(lines[0].shown))]
    return [
        f"  {line.label:<{first}}"
        + "".join(f"  {text:>{width}}" for text, width in zip(line.shown, widths, strict=True))
        for line in lines
    ]


def as_markdown(comparison: Comparison) -> str:
    """The table of figures as Dagster's pages show it."""
    head = ["", *(each.name for each in comparison.strategies)]
    lines = [head, ["---"] * len(head), *([row.label, *row.shown] for row in rows(comparison))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_html(comparison: Comparison) -> str:
    """The comparison as one page that needs nothing beside itself."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return pages.get_template("comparison.html").render(
        comparison=comparison,
        names=[each.name for each in comparison.strategies],
        rows=rows(comparison),
        correlations=correlation_texts(comparison),
        reasons={each.name: each.judgement.verdict.reason for each in comparison.strategies if each.judgement.verdict},
        overfitting=overfitting_sentence(comparison),
    )
