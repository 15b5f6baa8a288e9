"""The containers of `compose.yaml`: a file that Compose takes, whose commands are real, that keeps apart what it must.

No container is started here: the long test runs the very commands of the services, with their variables, as processes
of this machine.
"""

import importlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import check_jsonschema
import click
import httpx
import jsonschema
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from stockpicker_dagster.cli import main
from stockpicker_dagster.home import PROJECT_ROOT
from stockpicker_dagster_tests.conftest import _free_port, _postgres_binaries, _postgres_server, require
from stockpicker_dagster_tests.system.test_secrets import SECRETS

COMPOSE = (PROJECT_ROOT / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "stockpicker"}
PASSWORDS = ("POSTGRES_PASSWORD", "DAGSTER_PASSWORD", "DESK_PASSWORD", "TRADER_PASSWORD")
OTHERS = ("STOCKPICKER_UID", "STOCKPICKER_GID", "STOCKPICKER_TRADER_ACCOUNT")
STATE = "/var/lib/stockpicker"
PROGRAMS = Path(sys.executable).parent


def _commands(service: dict[str, Any]) -> list[list[str]]:
    """The commands that a service runs, the one of its health check among them, as words."""
    given = service.get("command") or _default_command()
    commands = [given]
    if given[0] == "sh":
        commands = [each.split(">")[0].split() for each in given[-1].split(";")]
    check = service.get("healthcheck")
    return commands + ([check["test"][1:]] if check else [])


def _default_command() -> list[str]:
    [command] = re.findall(r"^CMD (\[.*?\])$", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
    return list(json.loads(command.replace("\\\n", "")))


def test_compose_takes_the_file() -> None:
    vendored = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.Draft202012Validator(json.loads(vendored.read_text())).validate(yaml.safe_load(COMPOSE))


def test_whoever_waits_waits_for_what_can_happen() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            waited = SERVICES[other]
            assert how["condition"] in ("service_healthy", "service_completed_successfully"), name
            needed = "healthcheck" if how["condition"] == "service_healthy" else "command"
            assert needed in waited, (name, other)
            # What has to end once must not be started again and again.
            assert ("restart" in waited) == (how["condition"] == "service_healthy"), (name, other)


@pytest.mark.parametrize("name", list(OURS))
def test_every_command_is_understood_by_its_program(name: str) -> None:
    import dagster._cli
    import dagster._daemon.cli

    programs = {
        "stockpicker": main,
        "dagster": dagster._cli.create_dagster_cli(),
        "dagster-daemon": dagster._daemon.cli.create_dagster_daemon_cli(),
    }
    for program, *arguments in _commands(OURS[name]):
        if program == "python":
            assert arguments[0] == "-c"
            compile(arguments[1], name, "exec")
            continue
        command: click.Command = programs[program]
        while isinstance(command, click.Group):
            found, command, arguments = command.resolve_command(click.Context(command), arguments)
            assert found is not None
        command.make_context(program, list(arguments))


def test_only_this_machine_reaches_the_one_door() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "console": ["127.0.0.1:3000:3000"]
    }
    assert [name for name, service in SERVICES.items() if service.get("privileged") or "network_mode" in service] == []
    assert [name for name, service in OURS.items() if service["cap_drop"] != ["ALL"]] == []


def test_the_key_that_signs_and_each_role_of_the_database_are_where_they_belong() -> None:
    with_keys = [name for name, service in SERVICES.items() if any("keys" in each for each in service["volumes"][1:])]
    assert with_keys == ["console"]
    roles = {
        name: urlsplit(service["environment"]["STOCKPICKER_DATABASE_URL"].split("${")[0]).netloc.rstrip(":")
        for name, service in OURS.items()
        if "STOCKPICKER_DATABASE_URL" in service["environment"]
    }
    assert roles == {"prepare": "stockpicker", "code": "dagster", "console": "desk", "trader": "trader"}
    # What a trader holds, nobody else does: no shared folder, and credentials in a file of its own.
    shared = {each.split(":")[0] for name, service in OURS.items() if name != "trader" for each in service["volumes"]}
    assert {each.split(":")[0] for each in OURS["trader"]["volumes"]} & shared == set()
    assert SERVICES["trader"]["profiles"] == ["live"]


def test_each_service_reads_the_files_that_the_page_names_and_no_others() -> None:
    page = (PROJECT_ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(\w+\.env)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    said = {file: set(re.findall(r"`(\w+)`", readers)) for file, readers, _ in rows}
    read: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for each in service.get("env_file", []):
            assert each["required"] is False
            read.setdefault(each["path"], set()).add(name)
    assert read == said
    assert read["trader.env"] == {"trader"}
    assert read["code.env"] & read["console.env"] == set()
    # Every secret has its file, and who must not know it does not read that.
    of_file = {name: file for file, _, holds in rows for name in re.findall(r"`([A-Z_]+)`", holds)}
    assert {of_file[name] for name in ("STOCKPICKER_OIDC_CLIENT_SECRET", "STOCKPICKER_PROXY_SECRET")} == {"console.env"}
    assert {name for name in SECRETS if name not in of_file} == set()


def test_no_password_is_in_the_file_and_none_has_a_default() -> None:
    used = re.findall(r"\$\{(\w+)(:[-?])?[^}]*\}", COMPOSE)
    assert {name for name, _ in used} == {*PASSWORDS, "STOCKPICKER_EXTRAS", *OTHERS}
    assert {how for name, how in used if name in PASSWORDS} == {":?"}
    assert re.findall(r"(?i)password: (?!\$\{)", COMPOSE) == []
    ignored = (PROJECT_ROOT / ".gitignore").read_text().split()
    assert {".env", "*.env"} <= set(ignored)
    assert {".env", "**/*.env"} <= set((PROJECT_ROOT / ".dockerignore").read_text().split())


def test_what_is_mounted_is_there() -> None:
    declared = yaml.safe_load(COMPOSE)["volumes"]
    for service in SERVICES.values():
        for source, target, *_ in (each.split(":") for each in service.get("volumes", ())):
            assert source in declared or (PROJECT_ROOT / source).exists(), source
            assert target.startswith("/")
    assert set(declared) == {"database", "state", "keys", "trader"}


@pytest.mark.parametrize("name", ["EcsRunLauncher", "K8sRunLauncher"])
def test_the_launchers_shown_are_taken_beside_the_settings_on_postgres(name: str, tmp_path: Path) -> None:
    page = (PROJECT_ROOT / "docs" / "operations.md").read_text()
    [shown] = [each for each in re.findall(r"```yaml\n(run_launcher:.*?)```", page, re.DOTALL) if name in each]
    settings = (PROJECT_ROOT / "dagster.postgres.yaml").read_text() + shown
    assert set(yaml.safe_load(settings)) > {"storage", "run_launcher"}
    (tmp_path / "dagster.yaml").write_text(settings)
    config, _ = dagster_instance_config(str(tmp_path))
    launcher = config["run_launcher"]
    launched_by = getattr(importlib.import_module(launcher["module"]), launcher["class"])
    checked = process_config(launched_by.config_type(), launcher["config"])
    assert checked.errors in (None, [])
    assert not process_config(launched_by.config_type(), {**launcher["config"], "imagined": 1}).success


# Everything at once ---------------------------------------------------------------------------------------------------


class Machine:
    """The services as processes: what they would find in their containers lies under `folder` and on loopback."""

    def __init__(self, folder: Path, database_port: int, passwords: dict[str, str]) -> None:
        self.folder, self.passwords = folder, passwords
        self.code_port, self.console_port = _free_port(), _free_port()
        self._replaced = {
            "@database/": f"@127.0.0.1:{database_port}/",
            "--host=database": f"--host=127.0.0.1 --port={database_port}",
            STATE: str(folder / "state"),
            "=/state/": f"={folder / 'state'}/",
            "0.0.0.0": "127.0.0.1",
            "3000": str(self.console_port),
            "4000": str(self.code_port),
        }
        shutil.copytree(
            PROJECT_ROOT / "stockpicker_dagster",
            folder / "project" / "stockpicker_dagster",
            ignore=shutil.ignore_patterns("__pycache__", "sp500_linear"),
        )
        for name in ("dagster.yaml", "dagster.postgres.yaml", "workspace.yaml", "pyproject.toml", "deploy"):
            source, target = PROJECT_ROOT / name, folder / "project" / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    def _here(self, word: str) -> str:
        for name, password in self.passwords.items():
            word = re.sub(rf"\$\{{{name}:\?[^}}]*\}}", password, word)
        for there, here in self._replaced.items():
            word = word.replace(there, here)
        return word

    def environment(self, name: str) -> dict[str, str]:
        own = {key: self._here(value) for key, value in SERVICES[name].get("environment", {}).items()}
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "NUMBA_CACHE_DIR") if key in os.environ}
        if "STOCKPICKER_CODE_HOST" in own:
            own |= {"STOCKPICKER_CODE_HOST": "127.0.0.1", "STOCKPICKER_CODE_PORT": str(self.code_port)}
        home = self.folder / "state"
        own |= {"STOCKPICKER_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        return kept | own | {"PATH": f"{PROGRAMS}:{kept['PATH']}", "PYTHONPATH": str(self.folder / "project")}

    def words(self, command: list[str]) -> list[str]:
        shell = command[0] == "sh"
        return [part for word in command for part in ([self._here(word)] if shell else self._here(word).split(" ", 1))]

    def once(self, name: str) -> str:
        """Runs a service that ends."""
        return self._run(name, self.words(SERVICES[name]["command"]))

    def healthy(self, name: str) -> bool:
        check = [self._here(word) for word in SERVICES[name]["healthcheck"]["test"][1:]]
        done = subprocess.run(check, env=self.environment(name), cwd=self.folder / "project", capture_output=True)
        return done.returncode == 0

    @contextmanager
    def running(self, name: str) -> Iterator[Path]:
        """A service that stays, healthy; yields what it prints."""
        log = self.folder / f"{name}.log"
        command = self.words(SERVICES[name].get("command") or _default_command())
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=self.environment(name), cwd=self.folder / "project", stdout=out, stderr=out
            )
        try:
            wait_for(lambda: process.poll() is not None or self.healthy(name), f"healthy {name}")
            assert process.poll() is None, log.read_text()
            yield log
        finally:
            process.terminate()
            process.wait(60)

    def _run(self, name: str, command: list[str]) -> str:
        done = subprocess.run(
            command, env=self.environment(name), cwd=self.folder / "project", capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done.stdout


def wait_for(question: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := question():
            return answer
        time.sleep(0.5)
    raise AssertionError(f"no {what} in {seconds} s")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_services_work_together_as_the_file_starts_them(tmp_path: Path) -> None:
    binaries = _postgres_binaries()
    require(binaries and shutil.which("psql"), "PostgreSQL (the programs initdb, postgres and psql)")
    assert binaries is not None
    with ExitStack() as stack:
        address = urlsplit(stack.enter_context(_postgres_server(binaries)))
        assert address.password is not None
        assert address.port is not None
        passwords = {name: secrets.token_hex(12) for name in PASSWORDS} | {"POSTGRES_PASSWORD": address.password}
        machine = Machine(tmp_path, address.port, passwords)
        server = {"PGHOST": "127.0.0.1", "PGPORT": str(address.port), "PGPASSWORD": address.password}
        subprocess.run(
            ["sh", PROJECT_ROOT / "deploy" / "postgres_roles.sh"],
            env=machine.environment("database") | server,
            check=True,
        )
        assert "done          the database has the newest schema" in machine.once("prepare")
        machine.once("grants")
        stack.enter_context(machine.running("code"))
        stack.enter_context(machine.running("daemon"))
        log = stack.enter_context(machine.running("console"))

        origin = f"http://127.0.0.1:{machine.console_port}"
        link = wait_for(lambda: re.search(rf"{origin}/first-person\?token=(\S+)", log.read_text()), "link")
        with httpx.Client(base_url=origin, headers={"Origin": origin}, timeout=60) as browser:
            secret = "correct horse battery"
            first = {"token": link[1], "name": "ada", "password": secret, "again": secret}
            assert browser.post("/first-person", data=first).status_code == 303
            assert browser.get("/").status_code == 200

            def ask(query: str, **variables: object) -> dict[str, Any]:
                answer = browser.post("/dagster/graphql", json={"query": query, "variables": variables})
                assert answer.status_code == 200, answer.text
                return dict(answer.json()["data"])

            selector = {"repositoryLocationName": "stockpicker", "repositoryName": "__repository__"}
            launched = ask(
                "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) "
                "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
                p={"selector": {**selector, "jobName": "cold_start"}, "mode": "default", "runConfigData": "{}"},
            )["launchRun"]
            run = launched["run"]["runId"]

            def status() -> str | None:
                found = ask("query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }", r=run)
                return (
                    found["runOrError"]["status"] if found["runOrError"]["status"] in ("SUCCESS", "FAILURE") else None
                )

            # Queued by the daemon, run by the code server, seen by the console.
            assert wait_for(status, "end of the run") == "SUCCESS"

        written = "UPDATE people SET role = 'approver'"
        as_dagster = create_engine(machine.environment("code")["STOCKPICKER_DATABASE_URL"])
        with pytest.raises(ProgrammingError, match="permission denied"), as_dagster.begin() as connection:
            connection.execute(text(written))
        as_dagster.dispose()
        as_desk = create_engine(machine.environment("console")["STOCKPICKER_DATABASE_URL"])
        with as_desk.begin() as connection:
            assert connection.execute(text(written)).rowcount == 1
        as_desk.dispose()
        # No password is in the state that the services share.
        shared = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
        assert [name for name, password in passwords.items() if password.encode() in shared] == []
