"""After whole runs of a strategy, from training to fills, no secret of the environment is anywhere that can be read.

Every secret that the software knows is set to an invented one, and both databases' password is another. Then everything
is searched: Dagster's runs, tags, configuration, events and metadata, the ledger, the lake, training jobs, logs and
models.
"""

import gzip
import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from sqlalchemy.engine import make_url

from stockpicker_dagster.home import PROJECT_ROOT, prepare_home
from stockpicker_dagster.storage.database import create_database
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.proposal import open_proposals
from stockpicker_dagster_tests.system.pipelines import CALENDAR, END, Pipeline
from stockpicker_dagster_tests.system.test_postgres import everything_in

pytestmark = pytest.mark.xdist_group("pipelines")

SECRETS = (
    "APCA_API_KEY_ID",
    "APCA_API_SECRET_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "STOCKPICKER_OIDC_CLIENT_SECRET",
    "STOCKPICKER_PROXY_SECRET",
)
NO_SECRETS = ("STOCKPICKER_AWS_KMS_KEY", "STOCKPICKER_DATABASE_SECRET", "STOCKPICKER_PROXY_PERSON")
"""Their values name a key or a secret and are none."""
_VARIABLE = re.compile(r'"((?:STOCKPICKER|APCA|AWS|MLFLOW)_[A-Z_]*(?:SECRET|TOKEN|PASSWORD|KEY)[A-Z_]*)"')
CANARIES = {name: f"canary-{number}-{'of-the-tests' * 3}" for number, name in enumerate(SECRETS)}


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder as it is, and what is packed in it."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield str(path), content
        if path.suffix == ".parquet":
            yield f"{path} (rows)", pl.read_parquet(path, hive_partitioning=False).write_ndjson().encode()
            yield f"{path} (notes)", str(pl.read_parquet_metadata(path)).encode()
        elif path.name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive.getmembers():
                    file = archive.extractfile(member)
                    yield f"{path} ({member.name})", file.read() if file else b""
        elif path.suffix == ".gz":
            yield f"{path} (unpacked)", gzip.decompress(content)


def holding(found: list[tuple[str, bytes]], canaries: dict[str, str]) -> set[str]:
    """The names of the secrets of which anything holds the value."""
    return {name for name, value in canaries.items() if any(value.encode() in content for _, content in found)}


@pytest.fixture
def urls(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Databases of Dagster's and of ours on a server, named by the environment."""
    named = {name: postgres_url.rsplit("/", 1)[0] + f"/secrets_{name}" for name in ("of_dagster", "of_ours")}
    for url in named.values():
        create_database(url)
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", named["of_ours"])
    monkeypatch.setenv("STOCKPICKER_DAGSTER_DATABASE_URL", named["of_dagster"].replace("+psycopg", ""))
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, "before"))
    return named


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    packed = {"as it is": "one.txt", "rows": "rows.parquet", "packed": "model.tar.gz", "notes": "notes.parquet"}
    (tmp_path / packed["as it is"]).write_text(f"key={CANARIES['AWS_SECRET_ACCESS_KEY']}")
    pl.DataFrame({"x": [CANARIES["APCA_API_KEY_ID"]] * 50}).write_parquet(tmp_path / packed["rows"])
    notes = {"note": CANARIES["AWS_SESSION_TOKEN"]}
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / packed["notes"], metadata=notes)
    with tarfile.open(tmp_path / packed["packed"], "w:gz") as archive:
        content = CANARIES["APCA_API_SECRET_KEY"].encode()
        member = tarfile.TarInfo("model.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    found = holding(list(contents(tmp_path)), CANARIES)
    assert found == {"AWS_SECRET_ACCESS_KEY", "APCA_API_KEY_ID", "AWS_SESSION_TOKEN", "APCA_API_SECRET_KEY"}


def test_every_secret_that_the_software_reads_is_among_those_searched_for() -> None:
    """By the names of variables in its sources."""
    named = {
        name
        for path in (PROJECT_ROOT / "stockpicker_dagster").rglob("*.py")
        for name in re.findall(
            r"\"((?:STOCKPICKER|APCA|AWS|MLFLOW)_[A-Z_]*(?:SECRET|TOKEN|PASSWORD|KEY)[A-Z_]*)\"", path.read_text()
        )
    }
    assert named - {*SECRETS, *NO_SECRETS} <= {"STOCKPICKER_SECRETS_FILE"}


def test_nothing_that_can_be_read_holds_a_secret_after_training_proposing_and_executing(
    simulated_run: Pipeline,
    urls: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipeline = simulated_run.copied_to(tmp_path / "home")
    # So that the model is trained once more, under the invented secrets.
    for left in (pipeline.root / "training" / "training-jobs").glob("*"):
        left.rename(tmp_path / left.name)
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    session = CALENDAR.next_session(END)
    with pipeline.at_home():
        monkeypatch.setenv("STOCKPICKER_HOME", os.environ["STOCKPICKER_HOME"])
        place = prepare_home(announce=False)
        with dg.DagsterInstance.get() as instance:
            traced = Pipeline(pipeline.root, pipeline.forms, instance)
            traced.train()
            traced.materialize((*traced.collecting, *traced.serving), session)
            deployment = Deployment()
            [proposal] = open_proposals(deployment.database)
            decide(deployment.database, proposal.id, "os:somebody", "approve", "a test", deployment.now())
            traced.materialize([f"{traced.name}/executions"], session)
            runs = [record.dagster_run for record in instance.get_run_records()]
            assert len(runs) == 3
            assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
            told = "".join(str(run.tags) + str(run.run_config) for run in runs)
    assert len(list((place.root / "training" / "training-jobs").glob("*"))) == 1
    assert pipeline.lake.read(f"{pipeline.name}/executions", [session]).height > 5

    stored = {name: everything_in(url) for name, url in urls.items()}
    # The search covers what it is meant to: events with metadata, and the decision.
    assert "ASSET_MATERIALIZATION" in stored["of_dagster"]
    assert "os:somebody" in stored["of_ours"]
    shown = capfd.readouterr()
    found = [*contents(place.root), ("runs", told.encode()), ("output", (shown.out + shown.err).encode())]
    found += [(name, content.encode()) for name, content in stored.items()]
    assert any(name.endswith("request.json") for name, _ in found)
    assert any("model.tar.gz (" in name for name, _ in found)
    password = str(make_url(urls["of_ours"]).password)
    assert holding(found, {**CANARIES, "password": password}) == set()
