"""Today: of each strategy its data's age, its verdict, what waits for a decision, and whether anything is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import select

from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.console.views.proposals import ProposalLine, waiting
from stockpicker_dagster.console.views.runs import latest_metadata
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.research.rebalancing import rebalance_days
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.trader_reports import trader_of

LONGEST_WAIT = timedelta(days=380)
"""Longer than from one decision to the next under any rule."""
# Put together once, because every page asks it.
_HALTS = select(ledger.halts).where(ledger.halts.c.resumed_at.is_(None)).order_by(ledger.halts.c.id.desc())


@dataclass(frozen=True)
class StrategyToday:
    """How one strategy stands."""

    name: str
    description: str
    last_ranked: date | None
    """The last session with a ranking; None before the first."""
    sessions_behind: int | None
    """Completed sessions that it lacks; None where the source's own end is not known just now."""
    ran_at: datetime | None
    """When its back-test last ran."""
    verdict: str
    verdict_reason: str
    caveat: str
    waiting: Sequence[ProposalLine]
    decides_next: date | None
    """The next session after whose close it proposes anew; None before the first ranking, or beyond the calendar."""
    problem: str
    """What is wrong, and what to do about it; empty where nothing is."""
    runnable: bool
    """Whether everything is there that a run reads."""


@dataclass(frozen=True)
class HaltLine:
    """One halt in force; `account` is None where it holds for all."""

    account: str | None
    who: str
    reason: str
    halted_at: datetime


@dataclass(frozen=True)
class TraderLine:
    """The trader process of one account, in a line; `well` says that it runs and nothing troubles it."""

    account: str
    sentence: str
    well: bool


@dataclass(frozen=True)
class Today:
    """The first page."""

    strategies: Sequence[StrategyToday]
    mistakes: Sequence[str]
    """What is wrong with forms that cannot be read; while there are any, Dagster loads none."""
    halts: Sequence[HaltLine]
    traders: Sequence[TraderLine]
    """Of every account that ever had a trader."""


def today(desk: Desk) -> Today:
    """Everything on the first page."""
    held = waiting(desk)
    strategies = [
        _strategy(desk, name, form, [line for line in held if line.strategy == name])
        for name, form in desk.forms().items()
    ]
    return Today(strategies, desk.mistakes(), halts_in_force(desk), traders(desk))


def traders(desk: Desk) -> list[TraderLine]:
    """What the trader processes last said of themselves, by account."""
    told = [(name, trader_of(desk.database, name)) for name in account_names(desk)]
    now = desk.now()
    return [
        TraderLine(name, report.sentence(now), report.running(now) and not report.problem)
        for name, report in told
        if report is not None
    ]


def halts_in_force(desk: Desk) -> list[HaltLine]:
    """The halts that hold now, newest first."""
    with desk.database.connect() as connection:
        return [HaltLine(row.account, row.who, row.reason, row.halted_at) for row in connection.execute(_HALTS)]


def account_names(desk: Desk) -> list[str]:
    """Every trading account."""
    with desk.database.connect() as connection:
        return list(connection.execute(select(ledger.accounts.c.id).order_by(ledger.accounts.c.id)).scalars())


def _strategy(desk: Desk, name: str, form: StrategyForm, held: Sequence[ProposalLine]) -> StrategyToday:
    ranked = desk.served(name)
    said, ran_at = latest_metadata(desk, name, "backtest_metrics")
    problem, behind = "", None
    try:
        behind = _behind(desk, form, ranked[-1] if ranked else None)
    except StockPickerError as error:
        problem = str(error)
    if missing := form.missing_files():
        problem = f"not there: {', '.join(map(str, missing))}; put it there, or change the strategy"
    elif not ranked:
        problem = problem or f"nothing is ranked yet; run it here, or by `stockpicker run {name}`"
    elif behind:
        problem = (
            problem or f"{behind} session{'s' if behind > 1 else ''} behind the last close; the next run catches up"
        )
    return StrategyToday(
        name=name,
        description=form.description or "",
        last_ranked=ranked[-1] if ranked else None,
        sessions_behind=behind,
        ran_at=ran_at,
        verdict=said.get("verdict", "no back-test yet"),
        verdict_reason=said.get("verdict_reason", ""),
        caveat=said.get("caveat", ""),
        waiting=held,
        decides_next=_decides_next(desk, name, form, ranked[-1]) if ranked else None,
        problem=problem,
        runnable=not missing,
    )


def _decides_next(desk: Desk, name: str, form: StrategyForm, last: date) -> date | None:
    def find() -> date | None:
        rules, calendar = form.backtest.rules(), form.calendar
        end = min(last + LONGEST_WAIT, calendar.last_day)
        coming = calendar.sessions(last, end)[1:] if last < end else []
        marks = rebalance_days(coming, rules.rebalance, calendar, rules.rebalance_offset)
        return next((day for day, decides in zip(coming, marks, strict=True) if decides), None)

    return desk.remembered.answer(("decides next", name), (last, form.trial_digest), find)


def _behind(desk: Desk, form: StrategyForm, last: date | None) -> int | None:
    newest = _newest(desk, form)
    if newest is None:
        return None
    if last is None or last >= newest:
        return 0
    return len(form.calendar.sessions(last, newest)) - 1


def _newest(desk: Desk, form: StrategyForm) -> date | None:
    """The last session that the source can answer for; None while its files are being read, which can take long."""
    files = [file for path in form.prices.paths for file in ([path] if path.is_file() else sorted(path.glob("*")))]
    if not files:
        return form.last_session(desk.now())
    try:
        seen = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    except FileNotFoundError:
        return None
    completed = form.calendar.last_completed(desk.now())
    newest: date | None = desk.beside.get(
        ("last session", form.prices.key), (seen, completed), lambda: form.last_session(desk.now())
    )
    return newest
