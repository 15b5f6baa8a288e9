"""The trials: which back-tests were looked at, so that a verdict can say what the best of so many owes to luck.

A trial is one strategy's digest on one universe from one first session on. A window that only grows is the same trial,
because a day more is no new choice; so daily updates and retrained models add none. What the number of trials does to a
verdict is `research.backtest.significance`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Date, Engine, Float, Integer, MetaData, String, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from stockpicker_dagster.research.backtest.performance import SESSIONS_PER_YEAR
from stockpicker_dagster.storage.database import UtcTime, transaction
from stockpicker_dagster.strategy_form import StrategyForm

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})

trials = Table(
    "trials",
    metadata,
    Column("strategy_digest", String(16), primary_key=True),
    Column("universe", String(256), primary_key=True),
    Column("first_session", Date, primary_key=True),
    Column("last_session", Date, nullable=False),
    Column("sessions", Integer, nullable=False),
    Column("sharpe", Float(53)),
    Column("strategy", String(64), nullable=False),
    Column("logged_at", UtcTime, nullable=False),
)


@dataclass(frozen=True)
class Trial:
    """One back-test that was looked at."""

    strategy: str
    """The name under which it was looked at first."""
    strategy_digest: str
    universe: str
    first_session: date
    last_session: date
    """The latest last session that was looked at; the figures are those of that look."""
    sessions: int
    sharpe: float
    """Mean over standard deviation (ddof 1) of one session's net returns, never annualised; NaN if it never traded."""

    @property
    def annual_sharpe(self) -> float:
        """The same ratio with 252 sessions a year, as reports show it."""
        return self.sharpe * math.sqrt(SESSIONS_PER_YEAR)


def trial_of(name: str, form: StrategyForm, sessions: Sequence[date], net_return: NDArray[np.float64]) -> Trial:
    """The trial that looking at these days of a strategy is; at least one session, returns `(T,)` as fractions."""
    deviation = float(net_return.std(ddof=1)) if len(net_return) > 1 else 0.0
    return Trial(
        strategy=name,
        strategy_digest=form.trial_digest,
        universe=universe_of(form),
        first_session=sessions[0],
        last_session=sessions[-1],
        sessions=len(sessions),
        sharpe=float(net_return.mean()) / deviation if deviation > 1e-12 else math.nan,
    )


def universe_of(form: StrategyForm) -> str:
    """The universe that trials are counted over, with the price source.

    A sector, a filter or other symbols make another strategy on the same universe: to narrow it until the result looks
    good is to try, too.
    """
    universe = form.universe
    base = universe.of if universe.top is not None else universe.name or universe.file
    kind = "symbols" if universe.symbols is not None else str(getattr(base, "name", base) or "every stock")
    return f"{kind} on {form.prices.key}"


def log_trials(engine: Engine, looked_at: Sequence[Trial], now: datetime) -> None:
    """Remembers what was looked at. One already known is only brought up to date where its window has grown."""
    with transaction(engine) as connection:
        for trial in looked_at:
            _log(connection, trial, now)


def _log(connection: Connection, trial: Trial, now: datetime) -> None:
    row = {
        **asdict(trial),
        "sharpe": trial.sharpe if math.isfinite(trial.sharpe) else None,
        "logged_at": now,
    }
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    fresh = dialect.insert(trials).values(row)
    grown = {name: fresh.excluded[name] for name in ("last_session", "sessions", "sharpe")}
    connection.execute(
        fresh.on_conflict_do_update(
            index_elements=list(trials.primary_key.columns),
            set_=grown,
            where=fresh.excluded.last_session >= trials.c.last_session,
        )
    )


def logged_trials(engine: Engine, universe: str | None = None) -> list[Trial]:
    """Every trial on `universe` (None: on any), in the order in which they were first looked at."""
    query = select(trials).order_by(trials.c.logged_at, trials.c.strategy, trials.c.strategy_digest)
    if universe is not None:
        query = query.where(trials.c.universe == universe)
    with engine.connect() as connection:
        rows = connection.execute(query).mappings().all()
    kept = [field.name for field in fields(Trial)]
    return [
        Trial(**{name: row[name] for name in kept} | {"sharpe": math.nan if row["sharpe"] is None else row["sharpe"]})
        for row in rows
    ]


def trial_sharpes(engine: Engine, universe: str, first: date, last: date) -> NDArray[np.float64]:
    """The ratios per session of every trial on `universe` whose window shares a day with `first` to `last`, `(N,)`."""
    return np.array(
        [
            trial.sharpe
            for trial in logged_trials(engine, universe)
            if trial.first_session <= last and trial.last_session >= first
        ],
        dtype=np.float64,
    )
