"""Runs from the command line: which sessions and models, one line an asset, and an asset's own words when it fails."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from stockpicker_dagster import runs
from stockpicker_dagster.components.partitions import trading_days
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.home import prepare_home
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.corrections import Record
from stockpicker_dagster.market.decision_records import append_record
from stockpicker_dagster.runs import (
    RunFailed,
    Span,
    days_before_a_decision,
    materialize,
    span_to_run,
    untrained_periods,
)
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION, Bundle
from stockpicker_dagster.strategy_form import COMPONENT_TYPE, StrategyForm
from stockpicker_dagster_tests.components.forms import FIXED, strategy_form

CALENDAR = trading_calendar("XNYS")
NOW = datetime(2023, 3, 12, 15, tzinfo=UTC)
"""A Sunday: the last completed session is Friday, 10 March."""
FRIDAY = date(2023, 3, 10)
FIRST = date(2023, 1, 3)
FORM = strategy_form(prices={"start": FIRST, "stocks": 12})
DAILY = (
    "simulated/prices",
    "simulated/factors/features",
    "mine/scaled_features",
    "mine/predictions",
    "mine/backtest_metrics",
    "mine/rebalance_orders",
)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, "before"))
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Deployment, "now", lambda _: NOW)


def store(table: str, first: date, last: date, form: StrategyForm = FORM) -> None:
    """Empty days, which are stored days all the same, made under the definition of `form`."""
    days, empty = CALENDAR.sessions(first, last), pl.DataFrame(schema={"date": pl.Date()})
    own = table.startswith("mine/")
    made = form.definition(table.removeprefix("mine/")) if own else form.features_definition
    note = {DEFINITION: made} if own or table.endswith("/features") else {}
    Deployment().lake.write_days(table, empty, days, lambda year: CALENDAR.sessions(*whole(year)), note)


def whole(year: int) -> tuple[date, date]:
    return date(year, 1, 1), date(year, 12, 31)


def span(first: date | None = None, last: date | None = None, form: StrategyForm = FORM) -> Span:
    return span_to_run("mine", form, Deployment(), first, last)


# Sessions


def test_a_run_covers_everything_up_to_the_last_completed_session() -> None:
    assert span() == Span(FIRST, FRIDAY)
    assert span(last=date(2023, 2, 1)) == Span(FIRST, date(2023, 2, 1))
    assert span(first=date(2023, 2, 1)) == Span(date(2023, 2, 1), FRIDAY)


@pytest.mark.parametrize("behind", DAILY)
def test_a_run_begins_with_the_first_session_that_any_daily_asset_lacks(behind: str) -> None:
    form = strategy_form(prices={"start": date(2023, 3, 6), "stocks": 12})
    for table in DAILY:
        store(table, date(2023, 3, 6), FRIDAY if table != behind else date(2023, 3, 7), form)
    assert span(form=form) == Span(date(2023, 3, 8), FRIDAY)
    store(behind, date(2023, 3, 8), FRIDAY, form)
    # With nothing lacking the last session is made again.
    assert span(form=form) == Span(FRIDAY, FRIDAY)


def test_after_a_change_of_the_strategy_everything_made_before_it_is_made_again() -> None:
    prices = {"start": date(2023, 3, 6), "stocks": 12}
    form = strategy_form(prices=prices)
    for table in DAILY:
        store(table, date(2023, 3, 6), FRIDAY, form)
    train("2021-10-01", form=form)
    assert span(form=form) == Span(FRIDAY, FRIDAY)
    for change, retrained in (
        ({"backtest": {"long": 3, "short": 3}}, False),
        ({"label": {"horizon_days": 7}}, True),
        ({"scaling": {"method": "rank"}}, True),
        ({"algorithm": {"hyperparameters": {"alpha": 50.0}}}, True),
        ({"trading": {"account": "another"}}, None),
    ):
        changed = strategy_form(prices=prices, **change)
        assert span(form=changed) == Span(date(2023, 3, 6) if retrained is not None else FRIDAY, FRIDAY)
        assert (changed.definition("trained_model") != form.definition("trained_model")) == bool(retrained)


def test_a_model_of_another_definition_is_trained_again() -> None:
    train("2021-10-01", "2022-01-01", form=strategy_form(label={"horizon_days": 7}))
    train("2022-04-01", "2022-07-01")
    lacking = ["2021-10-01", "2022-01-01", "2022-04-01", "2022-07-01"]
    assert untrained_periods("mine", WALKING, Deployment(), SERVED) == lacking


def decide(day: date) -> None:
    why = {"why": "wrong", "who": "os:me", "when": NOW, "after": {"close": 1.0}}
    append_record(Deployment().lake, "simulated", Record(0, "correct", day, "A", **why))  # type: ignore[arg-type]


def test_after_a_decision_about_a_price_its_day_and_all_later_ones_are_made_again() -> None:
    form = strategy_form(prices={"start": date(2023, 3, 6), "stocks": 12})
    for table in DAILY:
        store(table, date(2023, 3, 6), FRIDAY, form)
    decide(date(2023, 3, 8))
    assert days_before_a_decision("mine", form, Deployment().lake) == CALENDAR.sessions(date(2023, 3, 8), FRIDAY)
    assert span(form=form) == Span(date(2023, 3, 8), FRIDAY)


def test_a_model_that_learned_from_a_price_decided_on_since_is_trained_again() -> None:
    train("2021-10-01", "2022-01-01", "2022-04-01", "2022-07-01")
    decide(date(2022, 2, 1))
    assert untrained_periods("mine", WALKING, Deployment(), SERVED) == ["2022-04-01", "2022-07-01"]


def test_days_that_are_no_sessions_are_moved_inside_the_span() -> None:
    saturday, sunday = date(2023, 1, 7), date(2023, 1, 22)
    assert span(saturday, sunday) == Span(date(2023, 1, 9), date(2023, 1, 20))


def test_spans_reversed_in_the_future_or_before_the_prices_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"2023-03-13 is not there yet: the last completed session .* is 2023-03-10"):
        span(last=date(2023, 3, 13))
    with pytest.raises(InvalidInput, match="no session can be run from 2023-02-02 to 2023-02-01"):
        span(date(2023, 2, 2), date(2023, 2, 1))
    with pytest.raises(InvalidInput, match=r"no session can be run from 2023-01-02 .*prices start on 2023-01-03"):
        span(date(2023, 1, 2))
    with pytest.raises(InvalidInput, match="no session from 2023-01-03, where prices start, to 2022-12-30"):
        span(last=date(2022, 12, 30))


def test_files_are_run_up_to_their_own_last_session(tmp_path: Path) -> None:
    days = CALENDAR.sessions(FIRST, date(2023, 1, 20))
    rows = pl.DataFrame({"symbol": "A", "date": days}).with_columns(
        pl.lit(10.0).alias(name) for name in ("open", "high", "low", "close", "adj_close", "volume")
    )
    rows.write_csv(tmp_path / "prices.csv")
    prices = {"source": "files", "path": str(tmp_path / "prices.csv"), "basis": "as_traded", "start": FIRST}
    form = strategy_form(prices=prices, universe={"symbols": ["A", "B"]})
    assert runs.last_session(form, Deployment()) == date(2023, 1, 20)
    assert span(form=form) == Span(FIRST, date(2023, 1, 20))
    with pytest.raises(InvalidInput, match="the last completed session with prices is 2023-01-20"):
        span(last=date(2023, 1, 23), form=form)


def test_a_span_reads_as_a_day_or_a_range() -> None:
    assert str(Span(FIRST, FIRST)) == "2023-01-03"
    assert str(Span(FIRST, FRIDAY)) == "2023-01-03 to 2023-03-10"


# Strategies


def test_strategies_are_found_by_their_folder_and_an_unknown_name_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "STRATEGIES", tmp_path)
    with pytest.raises(InvalidInput, match="'yours' is unknown; known: none"):
        runs.find_strategy("yours")
    attributes = {
        "owner": "research",
        "universe": {"name": "simulated"},
        "prices": {"start": "2018-01-02"},
        "periods": {"train_years": 1, "validation_years": 1, "retrain": "yearly"},
    }
    for name in ("mine", "hers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "defs.yaml").write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes}))
    assert runs.find_strategy("mine").periods.retrain == "yearly"
    with pytest.raises(InvalidInput, match="'yours' is unknown; known: hers, mine"):
        runs.find_strategy("yours")
    for name in ("mine", "hers"):
        path = tmp_path / name / "defs.yaml"
        path.write_text(path.read_text().replace("research", "'not allowed'"))
    with pytest.raises(InvalidInput) as refused:
        runs.find_strategy("mine")
    assert all(f"{name}/defs.yaml:" in str(refused.value) for name in ("mine", "hers"))


# Models


WALKING = strategy_form()
SERVED = Span(date(2021, 11, 15), date(2022, 8, 15))


def train(*keys: str, form: StrategyForm = WALKING) -> None:
    model = json.dumps({"definition": form.definition("trained_model")}).encode()
    for key in keys:
        Deployment().lake.write_bundle("mine/trained_model", key, Bundle({"model.json": model}))


@pytest.mark.parametrize(
    ("stored", "lacking"),
    [
        ([], ["2021-10-01", "2022-01-01", "2022-04-01", "2022-07-01"]),
        (["2021-10-01", "2022-01-01"], ["2022-04-01", "2022-07-01"]),
        # A run trains one range of periods, so what lies between two lacking ones is trained again.
        (["2021-10-01", "2022-04-01"], ["2022-01-01", "2022-04-01", "2022-07-01"]),
        (["2021-10-01", "2022-01-01", "2022-04-01", "2022-07-01"], []),
        # Models of periods that the span does not touch help nobody.
        (["2021-07-01", "2022-10-01"], ["2021-10-01", "2022-01-01", "2022-04-01", "2022-07-01"]),
    ],
)
def test_the_models_that_serve_the_span_and_are_not_stored_are_one_range(stored: list[str], lacking: list[str]) -> None:
    train(*stored)
    assert untrained_periods("mine", WALKING, Deployment(), SERVED) == lacking


def test_no_model_is_trained_for_days_before_the_first_one_served() -> None:
    first = WALKING.first_served
    assert (
        untrained_periods("mine", WALKING, Deployment(), Span(date(2018, 1, 2), CALENDAR.previous_session(first))) == []
    )
    assert untrained_periods("mine", WALKING, Deployment(), Span(date(2018, 1, 2), first)) == [str(first)]


def test_fixed_periods_have_one_model() -> None:
    form = strategy_form(prices={"start": date(2020, 1, 2), "stocks": 12}, periods=FIXED)
    before, served = Span(date(2022, 5, 2), date(2022, 5, 31)), Span(date(2022, 5, 31), date(2022, 6, 1))
    assert untrained_periods("mine", form, Deployment(), before) == []
    assert untrained_periods("mine", form, Deployment(), served) == ["fixed"]
    train("fixed", form=form)
    assert untrained_periods("mine", form, Deployment(), served) == []


Materialized = list[tuple[Sequence[str], str | None, str | None]]


@pytest.fixture
def materialized(monkeypatch: pytest.MonkeyPatch) -> Materialized:
    """The runs that would have been started, in order."""
    started: Materialized = []
    monkeypatch.setattr(runs, "materialize", lambda assets, first, last, report: started.append((assets, first, last)))
    return started


def test_a_strategy_is_run_in_three_steps_and_trained_only_where_models_lack(materialized: Materialized) -> None:
    lines: list[str] = []
    days, prices = (str(SERVED.first), str(SERVED.last)), ("simulated/prices", "simulated/factors/features")
    collecting = ((*prices, "mine/scaled_features"), *days)
    training = (("mine/datasets", "mine/trained_model"), "2022-07-01", "2022-07-01")
    serving = (("mine/predictions", "mine/backtest_metrics", "mine/rebalance_orders"), *days)
    train("2021-10-01", "2022-01-01", "2022-04-01")
    runs.run_strategy("mine", WALKING, Deployment(), SERVED, lines.append)
    assert materialized == [collecting, training, serving]
    train("2022-07-01")
    materialized.clear()
    runs.run_strategy("mine", WALKING, Deployment(), SERVED, lines.append)
    assert materialized == [collecting, serving]
    assert lines == [
        "mine: 2021-11-15 to 2022-08-15, 1 model to train",
        "mine: 2021-11-15 to 2022-08-15, 0 models to train",
    ]


def test_a_run_before_the_first_model_serves_says_that_and_from_when(materialized: Materialized) -> None:
    lines: list[str] = []
    day = WALKING.first_served.replace(year=WALKING.first_served.year - 1)
    span = runs.Span(day, day)
    runs.run_strategy("mine", WALKING, Deployment(), span, lines.append)
    assert lines[-1].endswith(
        f"no model to train: the first serves from {WALKING.first_served}, and without one nothing is predicted"
    )
    assert len(materialized) == 2


def test_a_run_that_asks_for_spark_where_it_is_not_does_nothing(
    materialized: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "lacking", lambda: "there is no Java")
    spark = strategy_form(features={"compute": "spark"})
    with pytest.raises(RunFailed, match="there is no Java"):
        runs.run_strategy("mine", spark, Deployment(), Span(FIRST, FRIDAY), print)
    assert materialized == []


def test_the_model_of_fixed_periods_is_trained_without_a_range(materialized: Materialized) -> None:
    form = strategy_form(prices={"start": date(2020, 1, 2), "stocks": 12}, periods=FIXED)
    runs.run_strategy("mine", form, Deployment(), Span(date(2022, 6, 1), date(2022, 6, 1)), lambda _: None)
    assert materialized[1] == (("mine/datasets", "mine/trained_model"), None, None)


# Runs of Dagster


class Job:
    """Assets of a strategy that do nothing, or what a test puts into them."""

    def __init__(self) -> None:
        self.inside: Callable[[], None] = lambda: None
        days = trading_days(FIRST)
        monthly = dg.TimeWindowPartitionsDefinition(start="2023-01-01", fmt="%Y-%m-%d", cron_schedule="0 0 1 * *")
        self.assets = [
            self._asset("simulated/prices", days),
            self._asset("a__b/scaled_features", days, "simulated/prices"),
            self._asset("mine/datasets", monthly),
            self._asset("mine/trained_model", monthly, "mine/datasets"),
            self._asset("fixed/trained_model", None),
        ]

    def _asset(self, name: str, days: dg.PartitionsDefinition | None, *upstream: str) -> dg.AssetsDefinition:
        @dg.asset(
            key=name.split("/"),
            deps=[dg.AssetKey(each.split("/")) for each in upstream],
            partitions_def=days,
            backfill_policy=dg.BackfillPolicy.single_run() if days else None,
        )
        def empty() -> None:
            self.inside()

        return empty


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job in a home with Dagster's own settings."""
    prepare_home(announce=False)
    made = Job()
    resolved = dg.Definitions(
        assets=made.assets, executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()
    monkeypatch.setattr(runs, "_job", lambda: resolved)
    return made


@pytest.fixture
def uncaptured(job: Job, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job on an instance that keeps nothing, for tests of what comes out of it."""
    monkeypatch.setattr(dg.DagsterInstance, "get", dg.DagsterInstance.ephemeral)
    return job


def named(lines: Sequence[str]) -> list[str]:
    """The lines without the seconds, which differ."""
    return [line.partition(" in ")[0] for line in lines]


@pytest.mark.parametrize(
    ("assets", "first", "last", "expected"),
    [
        (("mine/datasets", "mine/trained_model"), "2023-01-01", "2023-03-01", [3, 3]),
        (("simulated/prices", "a__b/scaled_features"), "2023-01-03", "2023-01-03", [1, 1]),
        (("fixed/trained_model",), None, None, [1]),
    ],
)
def test_each_asset_has_one_line_the_last_of_a_run_included(
    job: Job,
    capfd: pytest.CaptureFixture[str],
    assets: tuple[str, ...],
    first: str | None,
    last: str | None,
    expected: list[int],
) -> None:
    reported: list[str] = []

    def report(line: str) -> None:
        reported.append(line)
        print(line, file=sys.stderr)

    materialize(assets, first, last, report)
    assert named(reported) == [f"  {name}: {count} partitions" for name, count in zip(assets, expected, strict=True)]
    # On the terminal itself, and not in the file that Dagster captures a run's output in: what is repeated from there
    # may lack the last lines.
    assert [line for line in capfd.readouterr().err.splitlines() if " partitions in " in line] == reported
    captured = list(Path(os.environ["DAGSTER_HOME"]).rglob("compute_logs/*.err"))
    assert captured
    assert not [path for path in captured if "partitions in" in path.read_text()]


def test_what_an_asset_prints_is_still_captured_beside_its_run(job: Job) -> None:
    before = os.fstat(sys.stderr.fileno())
    job.inside = lambda: print("from inside", file=sys.stderr, flush=True)
    materialize(("mine/datasets",), "2023-01-01", "2023-01-01", lambda line: None)
    captured = "".join(path.read_text() for path in Path(os.environ["DAGSTER_HOME"]).rglob("compute_logs/*.err"))
    assert captured.splitlines().count("from inside") == 1
    assert os.path.samestat(os.fstat(sys.stderr.fileno()), before)


def test_how_far_a_long_download_has_come_is_told_while_it_runs(job: Job) -> None:
    job.inside = lambda: logging.getLogger("stockpicker_dagster.market.sources.vendor").info("5 of 10 symbols")
    reported: list[str] = []
    materialize(("mine/datasets",), "2023-01-01", "2023-01-01", reported.append)
    assert named(reported) == ["  5 of 10 symbols", "  mine/datasets: 1 partitions"]


def test_an_error_of_ours_comes_out_as_its_own_sentence(uncaptured: Job) -> None:
    def fail() -> None:
        try:
            raise InvalidInput("prices.csv has no column 'close'; add it")
        except InvalidInput as error:
            raise RuntimeError("wrapped") from error

    uncaptured.inside = fail
    reported: list[str] = []
    with pytest.raises(RunFailed) as failed:
        materialize(("simulated/prices", "a__b/scaled_features"), "2023-01-03", "2023-01-04", reported.append)
    assert str(failed.value) == "prices.csv has no column 'close'; add it"
    # Neither the asset that failed nor the one after it is reported as made.
    assert reported == []


@pytest.mark.parametrize("warned", [False, True])
def test_a_check_that_ends_a_run_says_which_of_what_and_what_it_found(
    warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    @dg.asset(
        key=["own", "features"],
        check_specs=[dg.AssetCheckSpec("vary", asset=["own", "features"], blocking=True)],
        dagster_type=dg.Any,
    )
    def features() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        severity = dg.AssetCheckSeverity.WARN if warned else dg.AssetCheckSeverity.ERROR
        yield dg.MaterializeResult(value=1)
        yield dg.AssetCheckResult(check_name="vary", passed=False, severity=severity, metadata={"first": "x on a day"})

    @dg.asset(key=["own", "scaled"], deps=[["own", "features"]])
    def scaled() -> None:
        made.append("scaled")

    resolved = dg.Definitions([features, scaled], executor=dg.in_process_executor)
    monkeypatch.setattr(runs, "_job", resolved.resolve_implicit_global_asset_job_def)
    monkeypatch.setattr(dg.DagsterInstance, "get", dg.DagsterInstance.ephemeral)
    if warned:
        materialize(("own/features", "own/scaled"), None, None, lambda line: None)
    else:
        with pytest.raises(RunFailed, match=r"the check vary of own/features failed \(first: x on a day\)"):
            materialize(("own/features", "own/scaled"), None, None, lambda line: None)
    assert made == (["scaled"] if warned else [])


def test_an_error_that_is_not_ours_is_not_dressed_as_one(uncaptured: Job) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    uncaptured.inside = fail
    with pytest.raises(ZeroDivisionError, match="a defect"):
        materialize(("mine/datasets",), "2023-01-01", "2023-01-01", lambda line: None)


def test_a_chain_of_causes_that_leads_back_into_itself_ends(uncaptured: Job) -> None:
    def fail() -> None:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        raise one

    uncaptured.inside = fail
    with pytest.raises(ValueError, match="one"):
        materialize(("mine/datasets",), "2023-01-01", "2023-01-01", lambda line: None)


def test_the_note_of_the_last_plan_is_told_and_its_absence_too() -> None:
    prepare_home(announce=False)
    assert runs.latest_note("mine", "rebalance_orders", "proposal_note") == "rebalance_orders was not run"
    with dg.DagsterInstance.get() as instance:
        for note in ("older", "no proposal: trading is halted"):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(["mine", "rebalance_orders"], metadata={"proposal_note": note})
            )
    assert runs.latest_note("mine", "rebalance_orders", "proposal_note") == "no proposal: trading is halted"
    assert issubclass(RunFailed, StockPickerError)
