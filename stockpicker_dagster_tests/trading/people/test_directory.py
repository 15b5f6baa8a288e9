"""Only administrators change people, there is always one, and every change is kept."""

from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DatabaseError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading.people import directory, tables, tokens
from stockpicker_dagster.trading.people.directory import NotAllowed, UnknownPerson
from stockpicker_dagster_tests.trading.people.conftest import NOON, PASSWORD


def test_the_first_person_is_an_administrator(ledger_engine: Engine) -> None:
    with pytest.raises(NotAllowed, match="first person is an administrator"):
        directory.add_person(ledger_engine, "vic", "viewer", PASSWORD, "os:root", NOON)
    added = directory.add_person(ledger_engine, "ada", "administrator", PASSWORD, "os:root", NOON)
    assert added.may("viewer")
    assert added.may("administrator")


@pytest.mark.parametrize("who", ["os:root", "vic", "nobody"])
def test_only_administrators_change_people(people: Any, who: str) -> None:
    directory.add_person(people, "vic", "approver", PASSWORD, "ada", NOON)
    for change in (
        lambda: directory.add_person(people, "eve", "administrator", PASSWORD, who, NOON),
        lambda: directory.set_role(people, "vic", "administrator", who, NOON),
        lambda: directory.set_password(people, "ada", PASSWORD, who, NOON),
        lambda: directory.disable(people, "ada", who, NOON),
        lambda: directory.remove_totp(people, "vic", who, NOON),
    ):
        with pytest.raises((NotAllowed, UnknownPerson)):
            change()
    assert [person.name for person in directory.everybody(people)] == ["ada", "vic"]


def test_roles_include_those_before_them(people: Any) -> None:
    allowed = {}
    for role in directory.ROLES:
        person = directory.add_person(people, f"a-{role}", role, PASSWORD, "ada", NOON)
        allowed[role] = [other for other in directory.ROLES if person.may(other)]
    assert allowed == {role: list(directory.ROLES[: i + 1]) for i, role in enumerate(directory.ROLES)}


def test_the_last_administrator_stays(people: Any) -> None:
    with pytest.raises(NotAllowed, match="only administrator left"):
        directory.set_role(people, "ada", "approver", "ada", NOON)
    with pytest.raises(NotAllowed, match="only administrator left"):
        directory.disable(people, "ada", "ada", NOON)
    directory.add_person(people, "bob", "administrator", PASSWORD, "ada", NOON)
    directory.disable(people, "ada", "bob", NOON)
    with people.connect() as connection, pytest.raises(NotAllowed, match="disabled"):
        directory.require(connection, "ada", "viewer")
    directory.enable(people, "ada", "bob", NOON)
    with people.connect() as connection:
        assert directory.require(connection, "ada", "administrator").name == "ada"


def test_a_new_password_ends_tokens_and_sessions(people: Any) -> None:
    from datetime import timedelta

    _, secret = tokens.create_token(people, "ada", "script", timedelta(days=1), NOON)
    with transaction(people) as connection:
        connection.execute(
            tables.sessions.insert().values(
                secret_hash="x", person="ada", created_at=NOON, seen_at=NOON, fresh_at=NOON, expires_at=NOON
            )
        )
    directory.set_password(people, "ada", PASSWORD + "!", "ada", NOON)
    with people.connect() as connection:
        assert connection.execute(select(tables.sessions.c.ended_at)).scalar_one() == NOON
        assert connection.execute(select(tables.api_tokens.c.revoked_at)).scalar_one() == NOON
        stored = connection.execute(text("SELECT * FROM api_tokens")).one()
    assert secret not in stored


def test_changes_are_kept_for_ever(people: Any) -> None:
    directory.add_person(people, "vic", "viewer", PASSWORD, "ada", NOON)
    directory.set_role(people, "vic", "approver", "ada", NOON)
    assert [what for _, _, what in directory.changes(people, "vic")] == [
        "added as viewer",
        "role viewer became approver",
    ]
    with pytest.raises(DatabaseError, match="append-only"), transaction(people) as connection:
        connection.execute(text("DELETE FROM people_changes"))


@pytest.mark.parametrize("name", ["", "Ada", "os:ada", "a b", "a" * 42, "<b>"])
def test_names_that_could_be_mistaken_are_refused(people: Any, name: str) -> None:
    with pytest.raises(InvalidInput, match="is no name"):
        directory.add_person(people, name, "viewer", PASSWORD, "ada", NOON)
