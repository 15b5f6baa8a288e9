"""The commands about notices: targets are set by an administrator, and their addresses are not shown."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from stockpicker_dagster.cli import main
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading.people import directory

PASSWORD = "correct horse battery staple"


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    return Deployment()


def run(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(main, ["notices", *arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def test_a_target_is_set_listed_and_disabled(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "notices go to chat (env:CHAT_URL)" in run("set", "chat", "--kind", "halt", "--from-environment", "CHAT_URL")
    address = "slack://TokenAAAA/TokenBBBB/TokenCCCC"
    monkeypatch.setattr("stockpicker_dagster.commands.notices.ask_secret", lambda question: address)
    assert "Token" not in run("set", "desk")
    listed = run("list")
    assert "slack://..." in listed
    assert "Token" not in listed
    assert "nothing more goes to chat" in run("disable", "chat")
    assert "(disabled)" in run("list")
    assert "0 notices written, 0 sent, 0 to be tried again, 0 given up\n" in run("send")


def test_only_an_administrator_sets_targets(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    now = deployment.now()
    directory.add_person(deployment.database, "ann", "administrator", PASSWORD, "os:me", now)
    directory.add_person(deployment.database, "val", "viewer", PASSWORD, "ann", now)
    for name, allowed in (("val", False), ("ann", True)):
        monkeypatch.setattr("stockpicker_dagster.commands.notices.sign_in", lambda deployment, login, who=name: who)
        run("set", "chat", "--from-environment", "CHAT_URL", fails=not allowed)
