"""The time rules over every asset: nothing stored depends on what came later, or on how it was run.

Where years are stored as one file only once they are whole, days are compared by themselves; everywhere else files are
compared byte for byte.
"""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster import health, runs
from stockpicker_dagster.components import metadata
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import home
from stockpicker_dagster.market.sources.simulated import simulated_market
from stockpicker_dagster.storage.lake import MissingBundle, MissingDays
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.models import WrongModel, describe_stored_model
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    DAILY_FROM,
    DIVIDEND,
    END,
    EVENING,
    LAST_TRADED,
    LISTED,
    SPLIT,
    SPLIT_WITH_DIVIDEND,
    START,
    SYMBOLS,
    TEST,
    TRAIN,
    VALIDATION,
    Pipeline,
    day_bytes,
    differing_files,
    files_form,
    market_rows,
    simulated_form,
    stored_files,
)

pytestmark = pytest.mark.xdist_group("time rules")

FRIDAY = date(2023, 1, 20)
"""A day after `EVENING` on which the weekly book is decided."""


def _before(name: str) -> bool:
    """Whether a path in the lake is a day up to `EVENING`, or a year that was whole by then."""
    return "/year=" in name and (name.endswith("/year=2022/year.parquet") or Path(name).name <= f"{EVENING}.parquet")


def _learned(pipeline: Pipeline) -> dict[str, bytes]:
    """What a model is made of: its training and validation tables and its own files."""
    folders = (pipeline.lake.bundle(asset, "fixed") for asset in pipeline.training)
    return {
        f"{folder.parent.name}/{path.name}": path.read_bytes()
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.name not in ("test.parquet", "market_data.parquet", "captions.json")
    }


# Truncation


@pytest.fixture(scope="module")
def with_another_future(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """After `EVENING` prices, volumes and events are others, half of the stocks vanish and one comes back."""
    folder = tmp_path_factory.mktemp("another")
    path, rows = folder / "prices.csv", market_rows()
    past, future = rows.filter(pl.col("date") <= EVENING), rows.filter(pl.col("date") > EVENING)
    prices = [pl.col(name) * 3.7 for name in ("open", "high", "low", "close")]
    other = future.filter(pl.col("symbol") > "FFF").with_columns(
        *prices, volume=pl.col("volume") * 11, dividend=pl.lit(1.25), split_ratio=pl.lit(0.25)
    )
    back = future.filter(pl.col("symbol") == "KKK").with_columns(symbol=pl.lit("OUT"))
    pl.concat([past, other, back]).write_csv(path)
    pipeline = Pipeline(folder / "home", {"momentum": files_form(path)})
    pipeline.run(START, FRIDAY)
    return pipeline


@pytest.mark.parametrize("future", ["evening_run", "with_another_future"])
def test_deleting_or_changing_the_future_changes_no_stored_byte_of_the_past(
    future: str, whole_run: Pipeline, request: pytest.FixtureRequest
) -> None:
    truncated: Pipeline = request.getfixturevalue(future)
    past = stored_files(whole_run.lake, _before)
    days = len(CALENDAR.sessions(date(2023, 1, 1), EVENING))
    assert len(past) == len(whole_run.daily_tables) * (1 + days)
    assert differing_files(past, stored_files(truncated.lake, _before)) == []
    assert _learned(truncated) == _learned(whole_run)
    tested = [
        pl.read_parquet(pipeline.lake.bundle("momentum/datasets", "fixed") / "test.parquet")
        for pipeline in (truncated, whole_run)
    ]
    horizon = whole_run.form.label.horizon_days
    known = [table.filter(pl.col("date") <= CALENDAR.offset(EVENING, -1 - horizon)) for table in tested]
    assert known[0].height > 0
    assert known[0].equals(known[1])


def test_the_changed_future_is_seen_where_it_should_be(whole_run: Pipeline, with_another_future: Pipeline) -> None:
    """Else the test above would compare a market with itself."""
    for table in (*whole_run.collecting, *whole_run.serving):
        changed, own = (day_bytes(each.lake, table, [FRIDAY]) for each in (with_another_future, whole_run))
        assert changed != own, table


# Backfill equals daily


ALONE = {SPLIT[1], DIVIDEND[1], SPLIT_WITH_DIVIDEND[1], LISTED[1], LAST_TRADED[1], CALENDAR.offset(LAST_TRADED[1], 10),
         date(2022, 12, 30), date(2023, 1, 3), date(2023, 1, 13), END}  # fmt: skip
"""Days that are run by themselves: every event's, the ends of a year, a Friday, and the last."""


def _evenings(alone: Collection[date]) -> list[tuple[date, date]]:
    """First and last day of each run from `DAILY_FROM` on: the days `alone`, and the quiet ones between together."""
    runs: list[tuple[date, date]] = []
    for day in CALENDAR.sessions(DAILY_FROM, END):
        quiet = bool(runs) and day not in alone and runs[-1][1] not in alone
        runs[-1:] = [(runs[-1][0], day)] if quiet else [*runs[-1:], (day, day)]
    return runs


def _lived_through(eve: Pipeline, folder: Path, alone: Collection[date]) -> Pipeline:
    """The market after its eve: the file grows, and what is new in it is run that evening."""
    path, rows = folder / "prices.csv", market_rows()
    pipeline = Pipeline(eve.copied_to(folder / "home").root, {"momentum": files_form(path)})
    with pytest.MonkeyPatch.context() as patch:
        # Pictures for Dagster's pages are no part of the lake, and take a fifth of a day's run.
        patch.setattr(metadata, "_picture", lambda *_: dg.MetadataValue.md("none"))
        for first, last in _evenings(alone):
            rows.filter(pl.col("date") <= last).write_csv(path)
            pipeline.materialize((*pipeline.collecting, *pipeline.serving), first, last)
    return pipeline


@pytest.fixture(scope="module")
def daily_run(eve_run: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return _lived_through(eve_run, tmp_path_factory.mktemp("daily"), ALONE)


@pytest.mark.long
def test_every_single_day_run_alone_leaves_the_files_of_one_run(
    whole_run: Pipeline, eve_run: Pipeline, tmp_path: Path
) -> None:
    days = CALENDAR.sessions(DAILY_FROM, END)
    assert _evenings(days) == [(day, day) for day in days]
    lived = _lived_through(eve_run, tmp_path, days)
    of_days = [stored_files(pipeline.lake, lambda name: "/year=" in name) for pipeline in (whole_run, lived)]
    assert differing_files(*of_days) == []


def test_days_run_one_by_one_leave_the_files_of_one_run(whole_run: Pipeline, daily_run: Pipeline) -> None:
    evenings = _evenings(ALONE)
    assert CALENDAR.count(DAILY_FROM, END) >= 30
    assert {first for first, last in evenings if first == last} >= ALONE
    assert any(first < last for first, last in evenings)
    one, other = (stored_files(pipeline.lake, lambda name: "/year=" in name) for pipeline in (whole_run, daily_run))
    assert len(one) == len(whole_run.daily_tables) * (1 + CALENDAR.count(date(2023, 1, 1), END))
    assert differing_files(one, other) == []
    assert _learned(daily_run) == _learned(whole_run)


def test_a_dataset_made_later_has_the_files_of_one_made_at_once(whole_run: Pipeline, daily_run: Pipeline) -> None:
    daily_run.train()
    assert differing_files(stored_files(whole_run.lake), stored_files(daily_run.lake)) == []


def test_the_days_compared_hold_every_kind_of_event(whole_run: Pipeline) -> None:
    days = CALENDAR.sessions(DAILY_FROM, END)
    prices = whole_run.lake.read(whole_run.prices, days)
    events = prices.filter((pl.col("dividend") > 0) | (pl.col("split_ratio") != 1))
    assert events.select("symbol", "date", "split_ratio", "dividend").sort("date").rows() == [
        (SPLIT[0], SPLIT[1], SPLIT[2], 0.0),
        (DIVIDEND[0], DIVIDEND[1], 1.0, DIVIDEND[2]),
        (*SPLIT_WITH_DIVIDEND,),
    ]
    assert prices.filter(pl.col("symbol") == LISTED[0])["date"].min() == LISTED[1]
    delisted = whole_run.lake.read("hand_made/delistings", days)
    assert delisted.select("symbol", "last_session", "date").rows() == [
        (*LAST_TRADED, CALENDAR.offset(LAST_TRADED[1], 10))
    ]
    assert (whole_run.lake.root / "momentum/predictions/year=2022/year.parquet").is_file()


def test_running_a_range_again_changes_no_file(whole_run: Pipeline, tmp_path: Path) -> None:
    again = whole_run.copied_to(tmp_path / "home")
    again.run(date(2022, 12, 19), date(2023, 1, 20))
    assert differing_files(stored_files(whole_run.lake), stored_files(again.lake)) == []


# Purge


def test_no_label_of_a_stored_dataset_reaches_into_a_later_part(whole_run: Pipeline) -> None:
    folder = whole_run.lake.bundle("momentum/datasets", "fixed")
    horizon = whole_run.form.label.horizon_days
    last = {name: pl.read_parquet(folder / f"{name}.parquet")["date"].max() for name in ("train", "validation")}
    begins = {"train": VALIDATION[0], "validation": TEST[0]}
    known = {name: CALENDAR.offset(day, 1 + horizon) for name, day in last.items()}
    assert all(known[name] < begins[name] for name in begins)
    # Nor is more left out than that: the next session's label would be known one session later.
    assert CALENDAR.next_session(known["train"]) == VALIDATION[0]
    assert CALENDAR.next_session(known["validation"]) == TEST[0]


# Membership as of the day

LEFT, JOINED = date(2023, 1, 10), date(2023, 1, 18)
"""The first day out of DDD, and the first day in of EEE."""


def _members_file(path: Path, leaves: dict[str, date], joins: dict[str, date]) -> Path:
    lines = [f"{symbol},{joins.get(symbol, '2000-01-03')},{leaves.get(symbol, '')}" for symbol in SYMBOLS]
    path.write_text("\n".join(["ticker,start_date,end_date", *lines]) + "\n")
    return path


def _run_members(whole_run: Pipeline, members: Path, root: Path) -> Pipeline:
    """The strategy `members`, on the prices and features that are stored already."""
    path = whole_run.form.prices.path
    assert path is not None
    pipeline = Pipeline(whole_run.copied_to(root).root, {"members": files_form(path, universe={"file": str(members)})})
    pipeline.materialize(["members/scaled_features"], TRAIN[0], END)
    pipeline.train()
    pipeline.materialize(["members/predictions"], TEST[0], END)
    return pipeline


@pytest.fixture(scope="module")
def members_run(whole_run: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("members")
    members = _members_file(folder / "members.csv", leaves={"DDD": LEFT}, joins={"EEE": JOINED})
    return _run_members(whole_run, members, folder / "home")


@pytest.mark.parametrize("table", ["scaled_features", "predictions"])
def test_who_leaves_is_scored_until_then_and_who_joins_only_from_then(members_run: Pipeline, table: str) -> None:
    stored = members_run.lake.read(f"members/{table}", CALENDAR.sessions(TEST[0], END))
    days = {symbol: set(stored.filter(pl.col("symbol") == symbol)["date"]) for symbol in ("DDD", "EEE", "FFF")}
    assert days["FFF"] == set(CALENDAR.sessions(TEST[0], END))
    assert days["DDD"] == {day for day in days["FFF"] if day < LEFT}
    assert days["EEE"] == {day for day in days["FFF"] if day >= JOINED}


def test_leaving_the_universe_removes_no_label(members_run: Pipeline) -> None:
    tested = pl.read_parquet(members_run.lake.bundle("members/datasets", "fixed") / "test.parquet")
    last_as_member = tested.filter((pl.col("symbol") == "DDD") & (pl.col("date") == CALENDAR.previous_session(LEFT)))
    assert last_as_member.select(pl.col("label_return").is_finite()).to_series().to_list() == [True]


def test_what_the_members_file_says_of_later_days_changes_nothing_earlier(
    whole_run: Pipeline, members_run: Pipeline, tmp_path: Path
) -> None:
    leaves, joins = {"DDD": LEFT, "FFF": date(2023, 2, 1)}, {"EEE": date(2023, 1, 25)}
    other = _run_members(whole_run, _members_file(tmp_path / "members.csv", leaves, joins), tmp_path / "home")
    days = CALENDAR.sessions(TEST[0], EVENING)
    for table in ("members/scaled_features", "members/predictions"):
        assert day_bytes(other.lake, table, days) == day_bytes(members_run.lake, table, days)
        assert day_bytes(other.lake, table, [END]) != day_bytes(members_run.lake, table, [END])
    assert _learned(other) == _learned(members_run)


# Nothing missing in silence


@pytest.mark.parametrize(
    ("deleted", "asset"),
    [
        ("hand_made/prices", "hand_made/short/features"),
        ("hand_made/short/features", "momentum/scaled_features"),
        ("hand_made/prices", "momentum/datasets"),
        ("momentum/scaled_features", "momentum/datasets"),
        ("momentum/scaled_features", "momentum/predictions"),
        ("hand_made/prices", "momentum/backtest_metrics"),
        ("hand_made/delistings", "momentum/backtest_metrics"),
        ("momentum/predictions", "momentum/backtest_metrics"),
        ("hand_made/prices", "momentum/rebalance_orders"),
        ("momentum/predictions", "momentum/rebalance_orders"),
    ],
)
def test_a_deleted_day_stops_what_reads_it_by_name(
    whole_run: Pipeline, tmp_path: Path, deleted: str, asset: str
) -> None:
    pipeline = whole_run.copied_to(tmp_path / "home")
    day = date(2023, 2, 7)
    (pipeline.lake.root / deleted / f"year=2023/{day}.parquet").unlink()
    before = stored_files(pipeline.lake)
    with pytest.raises(MissingDays, match=f"^{deleted} was never materialized for .*{day}"):
        pipeline.materialize([asset], *(() if asset.endswith("datasets") else (day, END)))
    assert stored_files(pipeline.lake) == before


def test_a_deleted_model_stops_the_scores(whole_run: Pipeline, tmp_path: Path) -> None:
    pipeline = whole_run.copied_to(tmp_path / "home")
    model = pipeline.lake.bundle("momentum/trained_model", "fixed")
    model.rename(tmp_path / "lost")
    with pytest.raises(MissingBundle, match=r"^momentum/trained_model was never materialized for 'fixed'"):
        pipeline.serve(END)


def test_an_upstream_that_was_never_run_is_named_with_its_days(price_file: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "home", {"momentum": files_form(price_file)})
    for asset, upstream in (
        ("hand_made/short/features", "hand_made/prices"),
        ("momentum/scaled_features", "hand_made/short/features"),
        ("momentum/predictions", "momentum/scaled_features"),
        ("momentum/backtest_metrics", "momentum/predictions"),
        ("momentum/rebalance_orders", "momentum/predictions"),
    ):
        with pytest.raises(MissingDays, match=f"^{upstream} was never materialized for .*2023-01-13"):
            pipeline.materialize([asset], EVENING)
    with pytest.raises(MissingDays, match=r"^momentum/scaled_features was never materialized for .*2022-11-07"):
        pipeline.materialize(["momentum/datasets"])
    with pytest.raises(MissingBundle, match=r"^momentum/datasets was never materialized"):
        pipeline.materialize(["momentum/trained_model"])


def test_a_model_that_knows_the_day_may_not_score_it(whole_run: Pipeline, tmp_path: Path) -> None:
    pipeline = whole_run.copied_to(tmp_path / "home")
    path = pipeline.lake.bundle("momentum/trained_model", "fixed") / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"last_known": str(END)}))
    with pytest.raises(WrongModel, match=f"knows labels up to {END} and may not score"):
        pipeline.serve(EVENING)


def test_days_before_the_first_model_are_stored_and_empty(whole_run: Pipeline) -> None:
    before = CALENDAR.sessions(START, CALENDAR.previous_session(TEST[0]))
    for table in whole_run.serving:
        assert whole_run.lake.missing(table, before) == []
        assert whole_run.lake.read(table, before).is_empty()
        assert not whole_run.lake.read(table, CALENDAR.sessions(TEST[0], END)).is_empty()


# Symbols that come into use later


def test_new_symbols_change_no_other_row_and_past_days_are_named_until_backfilled(
    whole_run: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.csv"
    market_rows([*SYMBOLS, "PPP"]).write_csv(path)
    forms = {"momentum": files_form(path), "wider": files_form(path, universe={"symbols": [*SYMBOLS, "PPP"]})}
    pipeline = Pipeline(whole_run.copied_to(tmp_path / "home").root, forms)
    _write_strategies(tmp_path / "strategies", forms)
    monkeypatch.setattr(runs, "STRATEGIES", tmp_path / "strategies")

    past = CALENDAR.sessions(START, CALENDAR.previous_session(END))
    check = _check(pipeline.materialize([pipeline.prices], END), "every_symbol_asked_for")
    assert not check.passed
    assert check.metadata["incomplete_days"].value == len(past)
    assert check.metadata["backfill"].value == f"{past[0]} to {past[-1]}"
    assert check.metadata["symbols"].value == "PPP"
    complaints = _strategies_doctor(pipeline)
    assert [finding.healthy for finding in complaints] == [False, False]
    assert all(f"--from {past[0]} --to {past[-1]}" in finding.sentence for finding in complaints)

    assert _check(pipeline.materialize([pipeline.prices], past[0], past[-1]), "every_symbol_asked_for").passed
    pipeline.materialize(pipeline.collecting[1:], TRAIN[0], END)
    pipeline.serve(TEST[0], END)
    assert all(finding.healthy for finding in _strategies_doctor(pipeline))
    for table in pipeline.collecting[:2]:
        days = CALENDAR.sessions(TRAIN[0], END)
        wider = pipeline.lake.read(table, days)
        assert wider.filter(pl.col("symbol") == "PPP")["date"].to_list() == days
        assert wider.filter(pl.col("symbol") != "PPP").equals(whole_run.lake.read(table, days))
    # A book's state, from which one more day goes on, names every stock of the market: it is no result.
    results = lambda name: name.startswith("momentum/") and ".books/" not in name  # noqa: E731
    own = [stored_files(each.lake, results) for each in (pipeline, whole_run)]
    assert differing_files(*own) == []


def _write_strategies(folder: Path, forms: dict[str, StrategyForm]) -> None:
    for name, form in forms.items():
        (folder / name).mkdir(parents=True)
        document = {
            "type": "stockpicker_dagster.components.StockPickerStrategy",
            "attributes": form.model_dump(mode="json", exclude_none=True, exclude_unset=True),
        }
        # JSON is YAML; days are quoted in it, and the form reads them.
        (folder / name / "defs.yaml").write_text(json.dumps(document))


def _check(result, name: str):
    return next(each for each in result.get_asset_check_evaluations() if each.check_name == name)


def _strategies_doctor(pipeline: Pipeline) -> list[health.Finding]:
    with pipeline.at_home():
        return [finding for finding in health.findings(home()) if finding.what in pipeline.forms]


# The simulated market


def test_extending_the_simulation_changes_no_earlier_byte(simulated_run: Pipeline, tmp_path: Path) -> None:
    market = simulated_run.form.prices
    simulated_market.cache_clear()
    # Asked first for a day years ahead: what was simulated beyond a session must not show in it.
    simulated_market(market.key, market.start, market.stocks, market.seed).fetch(None, [date(2025, 6, 2)])
    shorter = Pipeline(tmp_path / "home", simulated_run.forms)
    shorter.run(START, EVENING)
    past = stored_files(shorter.lake, _before)
    assert differing_files(past, stored_files(simulated_run.lake, _before)) == []
    assert _learned(shorter) == _learned(simulated_run)
    learned = _learned(shorter)

    simulated_market.cache_clear()
    shorter.run(CALENDAR.next_session(EVENING), END)
    assert differing_files(past, stored_files(shorter.lake, _before)) == []
    assert _learned(shorter) == learned
    assert differing_files(stored_files(shorter.lake), stored_files(simulated_run.lake)) == []


# A model for each period


WARM = {
    "name": "neural_network",
    "start": "warm",
    "hyperparameters": {"ensemble": 1, "hidden_layers": 1, "epochs": 3, "dates_in_batch": 64},
}


@pytest.fixture(scope="module")
def walk_forward(tmp_path_factory: pytest.TempPathFactory) -> Callable[[date, Mapping[str, object]], Pipeline]:
    """Runs a strategy that is retrained every month, on a simulated market up to some day, with an algorithm."""

    def run(last: date, algorithm: Mapping[str, object]) -> Pipeline:
        form = simulated_form(
            prices={"source": "simulated", "start": date(2020, 11, 2), "stocks": 20, "seed": 3},
            periods={"train_years": 1, "validation_years": 1, "retrain": "monthly"},
            algorithm=algorithm,
        )
        simulated_market.cache_clear()
        pipeline = Pipeline(tmp_path_factory.mktemp("walk"), {"invented": form})
        pipeline.collect(form.prices.start, last)
        pipeline.train(str(form.first_served), str(last.replace(day=1)))
        pipeline.serve(form.first_served, last)
        return pipeline

    return run


@pytest.mark.long
@pytest.mark.parametrize("algorithm", [{"name": "linear"}, WARM], ids=["cold", "warm"])
def test_each_periods_model_knows_nothing_later_and_no_older_one_takes_its_place(
    walk_forward: Callable[[date, Mapping[str, object]], Pipeline], algorithm: Mapping[str, object]
) -> None:
    first, evening, last = date(2023, 1, 3), date(2023, 2, 10), date(2023, 3, 10)
    longer, shorter = walk_forward(last, algorithm), walk_forward(evening, algorithm)
    models = [pipeline.lake.bundles("invented/trained_model") for pipeline in (longer, shorter)]
    assert models == [["2023-01-01", "2023-02-01", "2023-03-01"], ["2023-01-01", "2023-02-01"]]
    for asset in longer.training:
        own, other = (
            stored_files(each.lake, lambda name, asset=asset: name.startswith(asset)) for each in (longer, shorter)
        )
        assert other
        assert {name: own[name] for name in other} == other
    days = CALENDAR.sessions(first, evening)
    for table in (*longer.collecting, *longer.serving):
        assert day_bytes(longer.lake, table, days) == day_bytes(shorter.lake, table, days)
    scored = longer.lake.read("invented/predictions", CALENDAR.sessions(first, last))
    by_month = scored.group_by(pl.col("date").dt.month()).agg(pl.col("model_id").n_unique()).sort("date")
    assert by_month.rows() == [(1, 1), (2, 1), (3, 1)]
    assert scored["model_id"].n_unique() == 3
    told = [describe_stored_model(longer.lake.bundle("invented/trained_model", period)) for period in models[0]]
    began = [model.get("start_from") for model in told]
    assert began == ([None, *(model["model_id"] for model in told[:-1])] if algorithm is WARM else [None] * 3)

    shutil.rmtree(longer.lake.bundle("invented/trained_model", "2023-02-01"))
    with pytest.raises(StockPickerError, match="2023-02-01"):
        longer.serve(date(2023, 1, 20), evening)
