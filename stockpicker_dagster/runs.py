"""Running a strategy's assets from the command line: the same Dagster runs as in its pages, with progress.

A strategy is three kinds of run, because days and model periods are different partitions: prices to scaled features;
datasets and models of the periods that are not trained yet; predictions to the proposed rebalance.
"""

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import dagster as dg
from dagster import AssetCheckEvaluation, AssetCheckSeverity, DagsterEventType, DagsterInstance, EventLogEntry
from dagster._core.utils import make_new_run_id

from stockpicker_dagster.compute.spark_session import lacking
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market import decision_records
from stockpicker_dagster.market.decision_records import load_decisions
from stockpicker_dagster.research.splits import walk_forward_periods
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.storage.lake import Lake, describe_days
from stockpicker_dagster.strategy_form import StrategyForm, load, reading
from stockpicker_dagster.training.models import describe_stored_model

STRATEGIES = reading.STRATEGIES
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

_OWN_DAILY = ("scaled_features", "predictions", "backtest_metrics", "rebalance_orders")

Report = Callable[[str], None]
"""Takes one line about the progress."""


class RunFailed(StockPickerError):
    """An asset failed; the message is the asset's own."""


@dataclass(frozen=True)
class Span:
    """The sessions that a run is for, both included."""

    first: date
    last: date

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def find_strategy(name: str) -> StrategyForm:
    """The strategy of that name. Raises `InvalidInput` if there is none, or if any strategy's file is broken.

    One broken file keeps Dagster from loading all of them, hence all are checked, each mistake with file and line.
    """
    known = strategies()
    if name not in known:
        raise InvalidInput(f"strategy {name!r} is unknown; known: {', '.join(sorted(known)) or 'none'}")
    return known[name]


def strategies() -> dict[str, StrategyForm]:
    """Every strategy in the project by name; `InvalidInput` lists the mistakes of all that are broken."""
    forms: dict[str, StrategyForm] = {}
    mistakes: list[str] = []
    for path in sorted(STRATEGIES.glob("*/defs.yaml")):
        try:
            forms[path.parent.name] = load(path)
        except InvalidInput as error:
            mistakes.append(str(error))
    if mistakes:
        raise InvalidInput("\n".join(mistakes))
    return forms


def last_session(form: StrategyForm, deployment: Deployment) -> date:
    """The last completed session that the strategy's source can answer for."""
    return form.last_session(deployment.now())


def span_to_run(name: str, form: StrategyForm, deployment: Deployment, first: date | None, last: date | None) -> Span:
    """What a run covers: up to the last completed session, from the first that any daily asset lacks.

    Days that were stored under another definition of the strategy, or before a decision about its prices, are lacking
    too, and all of them are made again.
    Raises `InvalidInput` for reversed days, or days outside what the source has.
    """
    calendar = form.calendar
    newest = last_session(form, deployment)
    if last is not None and last > newest:
        raise InvalidInput(f"{last} is not there yet: the last completed session with prices is {newest}")
    sessions = calendar.sessions(form.prices.start, min(last or newest, newest))
    if not sessions:
        raise InvalidInput(f"there is no session from {form.prices.start}, where prices start, to {last or newest}")
    if first is None:
        tables = (*_collecting(name, form), *_serving(name))
        lacking = [day for table in tables for day in deployment.lake.missing(table, sessions)[:1]]
        changed = days_to_make_again(name, form, deployment.lake)
        first = min([*lacking, *changed[:1], sessions[-1]])
    inside = [day for day in sessions if day >= first]
    if not inside or first < form.prices.start:
        raise InvalidInput(
            f"no session can be run from {first} to {sessions[-1]}; prices start on {form.prices.start} and the last "
            f"completed session is {newest}"
        )
    return Span(inside[0], inside[-1])


def days_of_another_definition(name: str, form: StrategyForm, lake: Lake) -> list[date]:
    """The days that some daily table of the strategy holds from before its form was changed, ascending."""
    definitions = {f"{name}/{asset}": form.definition(asset) for asset in _OWN_DAILY}
    definitions[f"{form.prices.key}/{form.features.name}/features"] = form.features_definition
    found = {day for table, made in definitions.items() for day in lake.days_of_another_definition(table, made)}
    return sorted(found)


def days_before_a_decision(name: str, form: StrategyForm, lake: Lake) -> list[date]:
    """The days that some daily table of the strategy holds from before a person decided about its prices, ascending."""
    decisions = load_decisions(lake, form.prices.key)
    # What companies filed does not follow from prices.
    tables = [table for table in (*_collecting(name, form), *_serving(name)) if not table.endswith("/fundamentals")]
    return sorted({day for table in tables for day in decision_records.days_before_a_decision(lake, table, decisions)})


def days_to_make_again(name: str, form: StrategyForm, lake: Lake) -> list[date]:
    """The stored days that are not what the strategy and the decisions about its prices say now, ascending."""
    return sorted({*days_of_another_definition(name, form, lake), *days_before_a_decision(name, form, lake)})


def run_strategy(name: str, form: StrategyForm, deployment: Deployment, span: Span, report: Report) -> None:
    """Materializes every asset of the strategy for `span`, and the models that serve it. Raises `RunFailed`."""
    if form.features.compute == "spark" and (reason := lacking()) is not None:
        # Before hours of prices are fetched for it.
        raise RunFailed(reason)
    periods = untrained_periods(name, form, deployment, span)
    if changed := days_of_another_definition(name, form, deployment.lake):
        report(f"the definition of {name!r} has changed: {describe_days(changed)} are made again")
    if decided := days_before_a_decision(name, form, deployment.lake):
        report(f"decisions about prices of {form.prices.key!r} changed {describe_days(decided)}")
    models = f"{len(periods)} model{'s' if len(periods) != 1 else ''} to train"
    report(f"{name}: {span}, {models if span.last >= form.first_served else _no_model_yet(form)}")
    materialize(_collecting(name, form), span.first.isoformat(), span.last.isoformat(), report)
    if periods:
        keys = (f"{name}/datasets", f"{name}/trained_model")
        if form.periods.walk_forward:
            materialize(keys, periods[0], periods[-1], report)
        else:
            materialize(keys, None, None, report)
    materialize(_serving(name), span.first.isoformat(), span.last.isoformat(), report)


def _no_model_yet(form: StrategyForm) -> str:
    return f"no model to train: the first serves from {form.first_served}, and without one nothing is predicted"


def untrained_periods(name: str, form: StrategyForm, deployment: Deployment, span: Span) -> list[str]:
    """The keys of the model periods that serve some day of `span` and have no stored model, from first to last.

    A model that was trained under another definition of the strategy, or before a decision about the prices that it
    learned from, is none.
    """
    table, definition = f"{name}/trained_model", form.definition("trained_model")
    decisions = load_decisions(deployment.lake, form.prices.key)

    def current(key: str) -> str:
        if not decisions.records:
            return definition
        split = form.split(None if key == UNPARTITIONED else key)
        return decision_records.definition_under(definition, decisions, split.last_known)

    stored = {
        key
        for key in deployment.lake.bundles(table)
        if describe_stored_model(deployment.lake.bundle(table, key)).get("definition") == current(key)
    }
    if form.periods.retrain is None:
        return [] if UNPARTITIONED in stored or span.last < form.first_served else [UNPARTITIONED]
    begin = max(span.first, form.first_served)
    if begin > span.last:
        return []
    keys = [period.key for period in walk_forward_periods(begin, span.last, form.periods.retrain)]
    lacking = [key for key in keys if key not in stored]
    return keys[keys.index(lacking[0]) :] if lacking else []


def latest_note(name: str, asset: str, label: str) -> str:
    """What the last run of one of the strategy's assets said under a label of its metadata, in a sentence."""
    event = DagsterInstance.get().get_latest_materialization_event(dg.AssetKey([name, asset]))
    materialization = event.asset_materialization if event else None
    note = materialization.metadata.get(label) if materialization else None
    return str(note.value) if note else f"{asset} was not run"


def execute_approved_session(name: str, session: date, report: Report) -> None:
    """Materializes the strategy's `executions` of one session."""
    materialize((f"{name}/executions",), session.isoformat(), session.isoformat(), report)


def materialize(assets: Sequence[str], first: str | None, last: str | None, report: Report) -> None:
    """One Dagster run over a range of partitions (None: an asset without any), in this process."""
    run_id = make_new_run_id()
    watch = _Progress(assets, report)
    market, downloads = logging.getLogger("stockpicker_dagster.market"), _Downloads(watch)
    market.addHandler(downloads)
    tags = {_RANGE_START: first, _RANGE_END: last} if first is not None and last is not None else {}
    try:
        with DagsterInstance.get() as instance:
            instance.add_event_listener(run_id, watch)
            _job().execute_in_process(
                instance=instance,
                run_id=run_id,
                asset_selection=[dg.AssetKey(asset.split("/")) for asset in assets],
                tags=tags,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
    except Exception as error:
        reason = _own_error(error)
        if reason is None and not watch.failed_checks:
            raise
        raise RunFailed(str(reason) if reason else "\n".join(watch.failed_checks)) from error
    finally:
        market.removeHandler(downloads)
        watch.end()


def _collecting(name: str, form: StrategyForm) -> tuple[str, ...]:
    return (*form.shared_tables, f"{name}/scaled_features")


def _serving(name: str) -> tuple[str, ...]:
    return (f"{name}/predictions", f"{name}/backtest_metrics", f"{name}/rebalance_orders")


@lru_cache(maxsize=1)
def _job() -> dg.JobDefinition:
    from stockpicker_dagster.definitions import defs

    strategies()  # a broken file keeps all from loading: named with file and line instead of a traceback
    return defs().resolve_implicit_global_asset_job_def()


def _own_error(error: BaseException | None) -> StockPickerError | None:
    """The error of ours that made Dagster's, if there is one; a chain of causes may lead back into itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, StockPickerError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


class _Progress:
    """Turns Dagster's events into a line per asset, and on a terminal into a counter that moves."""

    def __init__(self, assets: Sequence[str], report: Report) -> None:
        self.report = report
        self.live = sys.stderr.isatty()
        self.names = {asset.replace("/", "__"): asset for asset in assets}
        self.stored: Counter[str] = Counter()
        self.failed_checks: list[str] = []
        self.started = time.monotonic()
        self.terminal = _Terminal()

    def __call__(self, entry: EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        name = self.names.get(event.step_key, event.step_key)
        if event.event_type is DagsterEventType.STEP_START:
            self.started = time.monotonic()
            self._show(f"  {name} ...")
        elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
            self.stored[name] += 1
            if self.stored[name] % 100 == 0:
                self._show(f"  {name} {self.stored[name]} partitions stored")
        elif event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            self._judge(event.asset_check_evaluation_data)
        elif event.event_type is DagsterEventType.STEP_SUCCESS:
            self._done(name)

    def end(self) -> None:
        """Clears the moving line, and lets go of the terminal."""
        self._show("")
        self.terminal.close()

    def _judge(self, check: AssetCheckEvaluation) -> None:
        """Keeps what a check says that ends the run."""
        if check.blocking and not check.passed and check.severity is AssetCheckSeverity.ERROR:
            said = ", ".join(f"{label}: {each.value}" for label, each in check.metadata.items())
            self.failed_checks.append(
                f"the check {check.check_name} of {check.asset_key.to_user_string()} failed ({said}); "
                "nothing was built on what it is about"
            )

    def _done(self, name: str) -> None:
        self.say(f"  {name}: {self.stored[name]} partitions in {time.monotonic() - self.started:.1f} s")

    def say(self, line: str) -> None:
        """One line on the terminal that stays."""
        self._show("")
        with self.terminal.restored():
            self.report(line)

    def _show(self, line: str) -> None:
        if self.live:
            with self.terminal.restored():
                sys.stderr.write(f"\r\x1b[K{line}")


class _Downloads(logging.Handler):
    """Tells how far a download has come, which price sources write to their log."""

    def __init__(self, watch: _Progress) -> None:
        super().__init__(logging.INFO)
        self.watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self.watch.say(f"  {record.getMessage()}")


class _Terminal:
    """Standard error as it was before the run.

    During a run Dagster sends standard error to a file, and a second process repeats that file on the terminal. It is
    stopped with the run, often before it has come to the last lines, so progress does not go that way.
    """

    def __init__(self) -> None:
        try:
            self._stream = sys.stderr.fileno()
        except (AttributeError, OSError, ValueError):
            # A stream without a descriptor, such as a test's or a notebook's, is not captured either.
            self._stream, self._kept = -1, -1
        else:
            self._kept = os.dup(self._stream)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """What is written to standard error inside appears on the terminal."""
        if self._kept < 0:
            yield
            return
        sys.stderr.flush()
        captured = os.dup(self._stream)
        os.dup2(self._kept, self._stream)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(captured, self._stream)
            os.close(captured)

    def close(self) -> None:
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1
