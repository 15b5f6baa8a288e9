"""What a company's facts add up to on each session at which something new became known: one statement.

A statement has one period end: balances at it, flows over the twelve months that end at it, both as first reported.
Ratios of its figures are features and lie in `research.features.fundamental_factors`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl

from stockpicker_dagster.market.fundamentals.facts import CONCEPTS, ITEMS, in_order_of_knowledge

BALANCES = tuple(item.name for item in ITEMS if item.kind == "moment" and item.unit == "USD")
FLOWS = tuple(item.name for item in ITEMS if item.kind == "period")
_A_YEAR_AGO = ("assets",)
_SHARES = ("cover_shares", "balance_shares")

STATEMENTS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "known_at": pl.Date(),
    "period_end": pl.Date(),
    **{name: pl.Float64() for name in (*BALANCES, *FLOWS)},
    **{f"{name}_a_year_ago": pl.Float64() for name in _A_YEAR_AGO},
    "shares": pl.Float64(),
    "shares_as_of": pl.Date(),
    "shares_a_year_ago": pl.Float64(),
    "shares_a_year_ago_as_of": pl.Date(),
}
"""known_at the first session after whose close the statement may be used, until the next one of the symbol; period_end
null where no balance sheet goes with twelve months of income; balances at it and flows over the twelve months to it, in
USD; balances a year before it; shares outstanding as counted on `shares_as_of`, not adjusted for later splits. A figure
that was not reported is null."""

STATEMENT_AGE = timedelta(days=548)
"""A statement whose period ended longer ago says nothing about today: eighteen months."""
SHARES_AGE = timedelta(days=366)
"""A count of shares older than that is none: companies that report quarterly count them on every cover."""

_YEAR = timedelta(days=365)
_TWELVE_MONTHS = range(350, 381)
"""Days in a fiscal year: 364 or 371 for those that end on a weekday, 365 or 366 for all others."""
_LONGEST_PERIOD = 400
_MOST_PERIODS = 5
"""Three quarters, a year and its first nine months: the longest way to say twelve months that companies use."""
_BALANCE_SLACK, _COUNT_SLACK = timedelta(days=20), timedelta(days=45)

HISTORY = STATEMENT_AGE + _YEAR + _COUNT_SLACK + timedelta(days=12)
"""Facts on periods that ended longer before a day than this change nothing of it: the statement's own age and the year
before it, with slack for years of 53 weeks."""


def statements(facts: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """The statements in force on `days` (ascending): for each symbol the last before them, and each made within them.

    `facts` is in `FACTS_SCHEMA` and holds every fact known since `first_day_needed(days[0])`; what became known after
    a session changes nothing of the statements up to it. Returns `STATEMENTS_SCHEMA`, sorted by symbol and known_at.
    """
    known = in_order_of_knowledge(facts.filter(pl.col("date") <= days[-1]))
    columns = known.select("symbol", "date", "concept", "start", "end", "value")
    rows: list[dict[str, object]] = []
    for (symbol,), own in columns.partition_by("symbol", as_dict=True, maintain_order=True).items():
        rows += [{"symbol": symbol, **row} for row in _of_one_company(own, days[0])]
    return pl.DataFrame(rows, schema=STATEMENTS_SCHEMA, orient="row")


def first_day_needed(day: date) -> date:
    """The first day whose facts the statements in force on `day` may depend on."""
    return day - HISTORY


def trailing_year(periods: Mapping[tuple[date, date], float], end: date) -> float | None:
    """The sum over the twelve months that end on `end`, from figures of any periods; None if they do not add up to it.

    Every reported period is a step from its last day back to the day before its first, or forward with its sign
    reversed, and the sum is that of the fewest steps that lead from `end` back by twelve months. So an annual figure is
    taken as it is, a year to date completes the last fiscal year less the same months of it, and a fourth quarter that
    nobody reports is the year less nine months; a change of the fiscal year needs no rule of its own.

    >>> year, nine_months = (date(2020, 1, 1), date(2020, 12, 31)), (date(2020, 1, 1), date(2020, 9, 30))
    >>> since = (date(2021, 1, 1), date(2021, 9, 30))
    >>> trailing_year({year: 100.0, nine_months: 70.0, since: 90.0}, date(2021, 9, 30))
    120.0
    """
    goal = end.toordinal()
    steps = _steps(periods, goal)
    reached, frontier = {goal}, [(goal, 0.0)]
    for _ in range(_MOST_PERIODS):
        ahead: list[tuple[int, float]] = []
        for day, total in frontier:
            for next_day, value in steps.get(day, ()):
                if next_day in reached:
                    continue
                if goal - next_day in _TWELVE_MONTHS:
                    return total + value
                reached.add(next_day)
                ahead.append((next_day, total + value))
        frontier = ahead
    return None


def _steps(periods: Mapping[tuple[date, date], float], goal: int) -> dict[int, list[tuple[int, float]]]:
    """From each boundary between two days the boundaries that one figure leads to, the longest way back first."""
    steps: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for (first, last), value in periods.items():
        before, until = first.toordinal() - 1, last.toordinal()
        if goal - _LONGEST_PERIOD <= until <= goal and 0 < until - before <= _LONGEST_PERIOD:
            steps[until].append((before, value))
            steps[before].append((until, -value))
    for ways in steps.values():
        ways.sort()
    return steps


@dataclass
class _Known:
    """What is known of one company so far, each figure as it was first reported."""

    moments: dict[str, dict[date, float]] = field(default_factory=lambda: defaultdict(dict))
    periods: dict[str, dict[tuple[date, date], float]] = field(default_factory=lambda: defaultdict(dict))

    def learn(self, concept: str, start: date | None, end: date, value: float) -> None:
        item = CONCEPTS[concept]
        if item.kind == "moment":
            self.moments[item.name].setdefault(end, value)
        elif start is not None:
            self.periods[item.name].setdefault((start, end), value)

    def statement(self) -> dict[str, object]:
        return {**self._accounts(), **self._share_counts()}

    def _accounts(self) -> dict[str, object]:
        ends = sorted(self.moments["assets"], reverse=True)
        for end in ends:
            if ends[0] - end > STATEMENT_AGE:
                break
            if trailing_year(self.periods["net_income"], end) is not None:
                balances = {name: self.moments[name].get(end) for name in BALANCES}
                flows = {name: trailing_year(self.periods[name], end) for name in FLOWS}
                earlier = {
                    f"{name}_a_year_ago": self._near(name, end - _YEAR, _BALANCE_SLACK)[1] for name in _A_YEAR_AGO
                }
                return {"period_end": end, **balances, **flows, **earlier}
        return {}

    def _share_counts(self) -> dict[str, object]:
        newest = max(((max(self.moments[name]), name) for name in _SHARES if self.moments[name]), default=None)
        if newest is None:
            return {}
        day, name = newest
        before, earlier = self._near(name, day - _YEAR, _COUNT_SLACK)
        return {
            "shares": self.moments[name][day],
            "shares_as_of": day,
            "shares_a_year_ago": earlier,
            "shares_a_year_ago_as_of": before,
        }

    def _near(self, name: str, day: date, slack: timedelta) -> tuple[date | None, float | None]:
        """The balance nearest to `day`, the later of two that are equally near; nothing beyond `slack`."""
        found = self.moments[name]
        nearest = min(found, key=lambda end: (abs(end - day), -end.toordinal()), default=None)
        return (nearest, found[nearest]) if nearest is not None and abs(nearest - day) <= slack else (None, None)


def _of_one_company(facts: pl.DataFrame, first: date) -> Iterator[dict[str, object]]:
    """The statement in force before `first`, if any, and one for each session from `first` on that adds a fact."""
    known = _Known()
    by_day = facts.partition_by("date", as_dict=True, maintain_order=True)
    sessions = sorted(day for (day,) in by_day)
    for position, day in enumerate(sessions):
        for _, _, concept, start, end, value in by_day[(day,)].iter_rows():
            known.learn(concept, start, end, value)
        if position + 1 == len(sessions) or sessions[position + 1] > first:
            yield {"known_at": day, **known.statement()}
