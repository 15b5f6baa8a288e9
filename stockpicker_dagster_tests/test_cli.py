"""The command: results on stdout, an error of ours as one message with exit code 1, and never a traceback."""

import getpass
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import click
import polars as pl
import pytest
import yaml
from click.testing import CliRunner, Result
from sqlalchemy import select

from stockpicker_dagster import runs
from stockpicker_dagster.cli import main
from stockpicker_dagster.home import home
from stockpicker_dagster.market.sources.simulated import simulated_market
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import DEFINITION, Lake
from stockpicker_dagster.storage.symbol_sets import store_symbol_set
from stockpicker_dagster.strategy_form import COMPONENT_TYPE, StrategyForm
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.desk import propose
from stockpicker_dagster.training.datasets import read_table
from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA
from stockpicker_dagster_tests.evaluation.stored_strategies import SERVED, book, served_form, store
from stockpicker_dagster_tests.market.universes.list_server import list_server
from stockpicker_dagster_tests.tear_sheet.invented import store_strategy
from stockpicker_dagster_tests.training.small_strategy import PRICES, SESSIONS, dataset

Run = Callable[..., Result]
STRATEGY = {
    "owner": "research",
    "universe": {"name": "simulated"},
    "prices": {"source": "simulated", "start": "2023-01-03", "stocks": 12},
    "periods": {"train_years": 1, "validation_years": 1, "retrain": "quarterly"},
}
PREDICTED = pl.DataFrame(
    {
        "symbol": ["A", "B"],
        "date": [SESSIONS[0]] * 2,
        "score": [0.5, -0.5],
        "rank": [1, 2],
        "model_id": ["m"] * 2,
        "contributions": [[{"feature": "one", "value": 0.5}, {"feature": "two", "value": -0.25}], []],
    },
    schema=PREDICTIONS_SCHEMA,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `stockpicker` in a home and a project of its own, with the strategy `mine`; checks that no error leaks."""
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(runs, "STRATEGIES", tmp_path / "strategies")
    folder = tmp_path / "strategies" / "mine"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": STRATEGY}))

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def stored(run: Run) -> Lake:
    """A lake with prices, predictions and a dataset of `mine`."""
    lake = Lake(home().lake)
    asked = store_symbol_set(lake, "simulated/prices", None)
    lake.write_days("simulated/prices", PRICES, SESSIONS, lambda _: SESSIONS, asked)
    note = {DEFINITION: StrategyForm.model_validate(STRATEGY).definition("predictions")}
    lake.write_days("mine/predictions", PREDICTED, SESSIONS[:1], lambda _: SESSIONS, note)
    lake.write_bundle("mine/datasets", "2023-04-01", dataset())
    return lake


def refused(result: Result) -> str:
    """The one message of a refused command."""
    assert result.exit_code == 1
    assert result.stdout == ""
    [message] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return message


def test_an_unknown_strategy_is_refused_naming_those_known(run: Run) -> None:
    assert refused(run("run", "yours")) == "Error: strategy 'yours' is unknown; known: mine"


def test_a_broken_strategy_is_refused_with_file_and_line(run: Run) -> None:
    path = runs.STRATEGIES / "mine" / "defs.yaml"
    path.write_text(path.read_text().replace("owner: research", "owner: 7"))
    line = path.read_text().splitlines().index("  owner: 7") + 1
    assert f"{path}:{line}: owner: 7 was read as a int" in refused(run("run", "mine"))


def test_sessions_that_cannot_be_run_are_refused(run: Run) -> None:
    assert "2999-01-02 is not there yet: the last completed session" in refused(
        run("run", "mine", "--to", "2999-01-02")
    )
    assert "no session from 2023-01-03, where prices start" in refused(run("run", "mine", "--to", "2022-01-03"))
    assert "no session can be run from 2023-02-01 to 2023-01-31" in refused(
        run("run", "mine", "--from", "2023-02-01", "--to", "2023-01-31")
    )


@pytest.mark.parametrize("day", ["tomorrow", "2024-13-01", "2024-02-30"])
def test_a_day_that_is_none_is_refused_with_the_way_to_write_it(run: Run, day: str) -> None:
    result = run("run", "mine", "--to", day)
    assert result.exit_code == 2
    assert f"{day!r} is no day; write it as YYYY-MM-DD, such as 2024-03-08" in result.stderr


def test_a_state_folder_that_cannot_be_written_is_one_message(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "taken"))
    assert "taken cannot be written" in refused(run("doctor"))


def test_an_unknown_kind_of_database_is_one_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", "mysql://there/ledger")
    assert "the database kind 'mysql' is not supported" in refused(run("resume"))


def test_approving_twice_decides_once_and_a_denial_after_it_is_refused(run: Run) -> None:
    market = simulated_market("simulated", date(2023, 1, 3), 12)
    session = date(2023, 6, 1)
    prices = dict(market.fetch(None, [session]).prices.select("symbol", "close").iter_rows())
    deployment = Deployment()
    proposed = propose(
        deployment.database,
        account_id="paper",
        strategy="mine",
        author="os:author",
        session=session,
        targets=dict(zip(prices, (0.2, 0.2, -0.2, -0.2), strict=False)),
        reference_prices=prices,
        volumes=dict.fromkeys(prices, 1e9),
        corporate_actions=[],
        venue=market.venue(),
        venue_name="simulated",
        latest_stored=session,
        model_id="m",
        code_version="c",
        data_version="d",
        limits={},
        now=deployment.now(),
    )
    assert proposed.id, proposed.reason
    assert run("approve", proposed.id, "--no-execute").stdout == f"{proposed.id}: approved\n"
    assert run("approve", proposed.id, "--no-execute").stdout == f"{proposed.id}: already approved\n"
    with deployment.database.connect() as connection:
        assert len(connection.execute(select(ledger.decisions)).all()) == 1
        assert connection.execute(select(ledger.order_intents)).all() == []
    assert "already" in refused(run("deny", proposed.id, "--reason", "second thoughts"))


def test_an_unknown_proposal_and_a_halt_that_is_not_there_are_refused(run: Run) -> None:
    assert "no-such" in refused(run("approve", "no-such"))
    assert "there is no halt of all accounts" in refused(run("resume"))


def test_a_halt_of_all_accounts_is_reported_by_the_doctor_until_it_is_lifted(run: Run) -> None:
    assert run("halt", "--reason", "a drill").exit_code == 0
    resumed = run("resume")
    assert resumed.exit_code == 0
    assert "1 halts lifted" in resumed.stdout


def test_the_doctor_names_what_is_wrong_and_fails(run: Run, stored: Lake) -> None:
    healthy = run("doctor")
    assert healthy.exit_code == 0, healthy.output
    assert "prices stored for 124 days" in healthy.stdout
    stored.write_days("mine/predictions", PREDICTED, SESSIONS[:1], lambda _: SESSIONS, {DEFINITION: "another"})
    assert "FAIL mine: 2023-01-03 were stored before the strategy was changed" in run("doctor").stdout
    path = runs.STRATEGIES / "mine" / "defs.yaml"
    path.write_text("type: [")
    broken = run("doctor")
    assert broken.exit_code == 1
    assert f"FAIL strategies: {path}:1: this is no YAML" in broken.stdout


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_datasets_are_exported_with_captions_and_market_data(run: Run, stored: Lake, tmp_path: Path, kind: str) -> None:
    result = run("export", "datasets", "mine", "--format", kind, "--output", str(tmp_path / "out"))
    files = {Path(line).name.removeprefix("mine_datasets_2023-04-01_"): Path(line) for line in result.stdout.split()}
    assert set(files) == {f"{part}.{kind}" for part in ("train", "validation", "test", "market_data")} | {
        "captions.json"
    }
    read = pl.read_parquet if kind == "parquet" else pl.read_csv
    captions = json.loads(files["captions.json"].read_text())
    for part, rows in captions["rows"].items():
        table = read(files[f"{part}.{kind}"])
        assert table.height == rows
        assert table.columns == ["symbol", "date", *captions["features"], captions["label"], "label_return"]
    market_data = read(files[f"market_data.{kind}"])
    assert market_data.columns == captions["market_data"]
    own = read_table(stored.bundle("mine/datasets", "2023-04-01"), "market_data")
    assert market_data["close"].to_list() == pytest.approx(own["close"].to_list(), rel=1e-12)


def test_the_days_asked_for_are_exported_and_named_in_the_file(run: Run, stored: Lake) -> None:
    first, last = SESSIONS[3], SESSIONS[5]
    result = run("export", "prices", "mine", "--format", "parquet", "--from", str(first), "--to", str(last))
    [path] = [Path(line) for line in result.stdout.split()]
    assert path == home().root / "exports" / f"mine_prices_{first}_{last}.parquet"
    assert pl.read_parquet(path).equals(PRICES.filter(pl.col("date").is_between(first, last)))


def test_contributions_are_words_in_csv(run: Run, stored: Lake) -> None:
    [path] = run("export", "predictions", "mine").stdout.split()
    assert pl.read_csv(path)["contributions"].to_list() == ["one=0.5 two=-0.25", ""]


def test_an_export_of_nothing_is_refused_naming_what_is_stored(run: Run, stored: Lake) -> None:
    message = refused(run("export", "prices", "mine", "--from", "2030-01-02"))
    assert f"no day from 2030-01-02 to its end; stored: {SESSIONS[0]} to {SESSIONS[-1]}" in message
    assert "stored: nothing" in refused(run("export", "features", "mine"))
    assert "no period that begins by 2020-01-01" in refused(run("export", "datasets", "mine", "--to", "2020-01-01"))
    assert "not from 2023-01-03 on" in refused(run("export", "datasets", "mine", "--from", "2023-01-03"))


def test_an_export_into_a_folder_that_cannot_be_written_says_so(run: Run, stored: Lake, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for table in ("prices", "datasets"):
        message = refused(run("export", table, "mine", "--output", str(tmp_path / "taken" / "deeper")))
        assert "cannot be written" in message
        assert "choose another folder with --output" in message


def test_a_universe_is_compared_shown_and_accepted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sectors = {f"S{n:03}": ("X", "Y")[n % 2] for n in range(100)}
    with list_server() as publisher:
        monkeypatch.setenv("STOCKPICKER_UNIVERSE_URL_SP100", publisher.url)
        publisher.publish(sectors)
        assert "S&P 100: 100 members from http://127.0.0.1" in run("data", "universe", "sp100").stdout
        publisher.publish({"AAA": "X", "BBB": "Y"})
        doubted = run("data", "universe", "sp100")
        assert (doubted.exit_code, "is not taken, because it has 2 members" in doubted.stdout) == (1, True)
        assert "  AAA joined\n  BBB joined\n  S000 left" in doubted.stdout
        publisher.status = 503
        unreasoned = run("data", "universe", "sp100", "--accept")
        assert (unreasoned.exit_code, "accepted for a reason" in unreasoned.stderr) == (1, True)
        taken = run("data", "universe", "sp100", "--accept", "--reason", "it is so")
        assert f"accepted by os:{getpass.getuser()} although it has 2 members" in taken.stdout
        assert "the stored list stays in force" in run("data", "universe", "sp100").stdout
    (tmp_path / "mine.csv").write_text("symbol,sector\nAAA,X\nCCC,Y\n")
    brought = run(
        "data", "universe", "sp100", "--file", str(tmp_path / "mine.csv"), "--accept", "--reason", "mine"
    ).stdout
    assert brought.splitlines()[1:] == ["  CCC joined", "  BBB left"]
    history = run("data", "universe", "sp100", "--history").stdout.splitlines()
    assert history[0].startswith("in force from ever: 100 members")
    assert "2 members" in history[-1]
    assert history[-1].endswith(": mine")


def test_every_command_explains_itself_and_its_options(run: Run) -> None:
    for command in main.commands.values():
        assert command.help
        unexplained = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
        assert unexplained == [], command.name
    assert run("--help").exit_code == 0


# Strategies side by side, and what was tried


def test_strategies_are_compared_from_stored_days_and_listed_as_trials(run: Run, tmp_path: Path) -> None:
    forms = {"one": served_form(), "two": served_form(label={"horizon_days": 4})}
    for seed, (name, form) in enumerate(forms.items()):
        folder = runs.STRATEGIES / name
        folder.mkdir()
        attributes = form.model_dump(mode="json", exclude_unset=True)
        (folder / "defs.yaml").write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes}))
        store(Deployment(), name, form, book(SERVED, 0.001, seed))
    assert run("trials").stdout == ""
    page = tmp_path / "page.html"
    compared = run("compare", "one", "two", "--html", str(page))
    assert compared.exit_code == 0, compared.stderr
    assert compared.stdout.startswith(f"one and two: {SERVED[0]} to {SERVED[-1]}, {len(SERVED)} sessions")
    assert "CAVEAT: simulated market" in compared.stdout
    assert "<h1>one and two</h1>" in page.read_text()
    listed = run("trials")
    assert [line.split()[1:5] for line in listed.stdout.splitlines()] == [
        [name, "simulated", "on", "simulated"] for name in forms
    ]
    assert "2 trials" in listed.stderr
    assert "no session in common from 2030-01-02 to the end" in refused(
        run("compare", "one", "two", "--from", "2030-01-02")
    )
    assert "name at least two different ones" in refused(run("compare", "one", "one"))
    assert "'mine' has no back-test yet" in refused(run("compare", "one", "mine"))


def test_a_tear_sheet_is_written_into_the_exports_or_where_it_was_asked_for(run: Run, tmp_path: Path) -> None:
    form = served_form()
    folder = runs.STRATEGIES / "one"
    folder.mkdir()
    attributes = form.model_dump(mode="json", exclude_unset=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes}))
    store_strategy(Deployment(), "one", form)
    written = run("tearsheet", "one")
    assert written.exit_code == 0, written.stderr
    assert written.stdout.startswith("one: cannot be told from luck")
    assert "exports/one_tearsheet.html" in written.stderr
    page = tmp_path / "page.html"
    assert run("tearsheet", "one", "--from", str(SERVED[5]), "--html", str(page)).exit_code == 0
    assert f"Back-test from {SERVED[5]} to {SERVED[-1]}" in page.read_text()
    assert "cannot be written" in refused(run("tearsheet", "one", "--html", str(tmp_path / "none" / "page.html")))
    assert "'mine' has no back-test yet" in refused(run("tearsheet", "mine"))
