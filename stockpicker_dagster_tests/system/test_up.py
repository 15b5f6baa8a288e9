"""`stockpicker up` as a person runs it: it starts, says where to look, does its work, and leaves no process behind."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.xdist_group("up")

WORKSPACE = """
load_from:
  - python_module:
      module_name: small_definitions
      attribute: defs
      location_name: small
      working_directory: .
"""
DEFINITIONS = """
import os
import time
import dagster as dg
from stockpicker_dagster.home import home

@dg.asset
def quick() -> None:
    assert home().root.samefile(os.environ["EXPECTED_HOME"]), home().root

@dg.asset
def endless() -> None:
    time.sleep(600)

@dg.sensor(target=[quick], minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def once():
    yield dg.RunRequest(run_key="once")

defs = dg.Definitions(assets=[quick, endless], sensors=[once], executor=dg.in_process_executor)
"""
SERVE = """
import sys
from pathlib import Path
from stockpicker_dagster.console.server import serve
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import prepare_home
try:
    serve(prepare_home(), workspace=Path(sys.argv[1]))
except StockPickerError as error:
    sys.exit(str(error))
"""


class Up:
    """A running `serve` and what it printed."""

    def __init__(self, folder: Path) -> None:
        self.home, project = folder / "home", folder / "project"
        project.mkdir()
        (project / "workspace.yaml").write_text(WORKSPACE)
        (project / "small_definitions.py").write_text(DEFINITIONS)
        # A home named relative to where the person stands, which is not the project.
        environment = os.environ | {"STOCKPICKER_HOME": "home", "EXPECTED_HOME": str(self.home)}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = psutil.Popen(
                [sys.executable, "-c", SERVE, "project/workspace.yaml"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
            )
        self._out, self._err = folder / "out", folder / "err"

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, question: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = question()
            if answer:
                return answer
            assert self.process.is_running(), f"ended before {what}: {self.err}"
            time.sleep(0.1)
        raise AssertionError(f"no {what} in {seconds} s: {self.out} {self.err}")

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    yield running
    if running.process.is_running():
        for process in reversed(running.family()):
            process.kill()
        running.process.wait(10)


def _address(up: Up) -> str:
    found = up.wait_for(lambda: re.search(r"^StockPicker is at (http://\S+)$", up.out, re.MULTILINE), "address")
    return found.group(1)


def test_up_serves_works_and_ends_without_a_trace(up: Up) -> None:
    address = httpx.URL(_address(up))
    assert (address.scheme, address.host, address.path) == ("http", "127.0.0.1", "/first-person")
    assert f"state is in {up.home}" in up.err

    origin = f"http://127.0.0.1:{address.port}"
    with httpx.Client(base_url=origin, headers={"Origin": origin}, timeout=30) as browser:
        assert browser.get("/dagster/").status_code == 503, "nobody can sign in yet"
        assert browser.get(address).status_code == 200
        password = "correct horse battery"
        first = {"token": address.params["token"], "name": "ada", "password": password, "again": password}
        assert browser.post("/first-person", data=first).status_code == 303
        assert browser.get("/").status_code == 200
        assert browser.get("/dagster/").status_code == 200

        def ask(query: str, **variables: object) -> dict:
            answer = browser.post("/dagster/graphql", json={"query": query, "variables": variables})
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        def healthy() -> bool:
            data = ask("{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }")
            required = [s for s in data["instance"]["daemonHealth"]["allDaemonStatuses"] if s["required"]]
            assert {"SCHEDULER", "SENSOR"} <= {s["daemonType"] for s in required}
            return all(s["healthy"] for s in required)

        def statuses() -> list[str]:
            data = ask("{ runsOrError { ... on Runs { results { status } } } }")
            return [run["status"] for run in data["runsOrError"]["results"]]

        up.wait_for(healthy, "healthy daemon")
        up.wait_for(lambda: statuses() == ["SUCCESS"], "run that a sensor asked for")
        launch = "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"
        selector = {
            "repositoryLocationName": "small",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["endless"]}],
        }
        assert ask(launch, p={"selector": selector, "mode": "default"})["launchRun"]["__typename"] == "LaunchRunSuccess"
        up.wait_for(lambda: "STARTED" in statuses(), "started run")

    family = up.family()
    assert len(family) >= 5, "server, daemon, a code server of each, and the run"
    assert {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == "LISTEN"} == {"127.0.0.1"}
    assert up.home.stat().st_mode & 0o777 == 0o700
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(30) == 0, up.err
    _, alive = psutil.wait_procs(family, timeout=1)
    assert alive == []
    assert "Traceback" not in up.err
    assert str(address) not in up.err, "the token is in no log"
    with sqlite3.connect(up.home / "dagster" / "history" / "runs.db") as runs_table:
        stored = {row[0] for row in runs_table.execute("SELECT status FROM runs")}
    assert stored <= {"SUCCESS", "FAILURE", "CANCELED"}, "no run is left looking as if it still ran"


def test_up_says_so_and_ends_when_its_daemon_dies(up: Up) -> None:
    _address(up)
    family = up.family()
    [daemon] = [process for process in family if "dagster._daemon" in process.cmdline()]
    daemon.kill()
    assert up.process.wait(30) == 1
    assert "daemon ended by itself (status -9)" in up.err
    _, alive = psutil.wait_procs(family, timeout=1)
    assert alive == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_can_be_ended_while_it_starts(up: Up, number: signal.Signals) -> None:
    up.wait_for(lambda: len(up.family()) > 1, "daemon")
    family = up.family()
    up.process.send_signal(number)
    assert up.process.wait(30) == 0, up.err
    _, alive = psutil.wait_procs(family, timeout=1)
    assert alive == []
    # Dagster's code server may have said that it starts; an address that answers no more is never printed.
    assert "token=" not in up.out
