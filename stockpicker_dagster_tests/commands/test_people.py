"""People are added, and decide, at a terminal; secrets are asked for there and nowhere else."""

from pathlib import Path

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner, Result

from stockpicker_dagster import commands
from stockpicker_dagster.cli import main
from stockpicker_dagster.trading.people import secrets

PASSWORD = "correct horse battery"


@pytest.fixture
def type_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Runs a command as if at a terminal, with what is typed there."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr(commands, "is_terminal", lambda: True)
    monkeypatch.setattr(secrets, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

    def run(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(main, arguments, input=typed)

    return run


def test_the_first_administrator_adds_others(type_in) -> None:  # type: ignore[no-untyped-def]
    twice = f"{PASSWORD}\n{PASSWORD}\n"
    assert "first person is an administrator" in type_in("user", "add", "vic", "--role", "viewer", typed=twice).output
    assert type_in("user", "add", "ada", "--role", "administrator", typed=twice).exit_code == 0
    assert "say who you are" in type_in("user", "add", "vic", "--role", "viewer", typed=twice).output
    wrong = type_in("user", "add", "vic", "--role", "viewer", "--as", "ada", typed=f"wrong password\n{twice}")
    assert "do not fit" in wrong.output
    added = type_in("user", "add", "vic", "--role", "viewer", "--as", "ada", typed=f"{PASSWORD}\n{twice}")
    assert "added vic as viewer" in added.output
    assert PASSWORD not in added.output
    listed = type_in("user", "list").output
    assert [line.split()[:2] for line in listed.splitlines() if "added" in line] == [
        ["ada", "administrator"],
        ["vic", "viewer"],
    ]
    raised = type_in("user", "role", "vic", "administrator", "--as", "vic", typed=f"{PASSWORD}\n")
    assert "this needs the role administrator" in raised.output


def test_without_a_terminal_no_secret_is_taken(type_in, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(commands, "is_terminal", lambda: False)
    refused = type_in("user", "add", "ada", "--role", "administrator", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert refused.exit_code == 1
    assert "on a terminal only" in refused.output


def test_accounts_are_set_up_by_administrators(type_in) -> None:  # type: ignore[no-untyped-def]
    assert "small: paper at paper" in type_in("account", "add", "small", "--cash", "5000", "--approvals", "2").output
    type_in("user", "add", "ada", "--role", "administrator", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert "say who you are" in type_in("account", "set", "small", "--approvals", "1").output
    lots = ("--lot", "10", "--lot", "AAA=100")
    changed = type_in("account", "set", "small", "--limit", "gross=1.5", *lots, "--as", "ada", typed=f"{PASSWORD}\n")
    assert "2 approvals" in changed.output
    assert "not halted" in type_in("account", "list").output
    assert "ada: " in type_in("account", "changes", "small").output
    key = type_in("account", "signing-key")
    assert len(key.output.splitlines()[-1].split(" # ")[0]) == 44
    assert "CREATE POLICY" in type_in("account", "grants", "--dagster", "a", "--trader", "b", "--desk", "c").output
