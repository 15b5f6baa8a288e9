"""Sessions: one person's, known by its secret alone, and over when it should be."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from stockpicker_dagster.console.door import sessions
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.people.sign_in import Proof
from stockpicker_dagster.trading.people.tables import sessions as table
from stockpicker_dagster_tests.console.site import NOW, PASSWORD


@pytest.fixture
def engine(new_ledger: Callable[[], Engine]) -> Engine:
    made = new_ledger()
    directory.add_person(made, "root1", "administrator", PASSWORD, "os:test", NOW)
    directory.add_person(made, "vera", "viewer", PASSWORD, "root1", NOW)
    return made


def _begin(engine: Engine) -> str:
    return sessions.begin(engine, Proof("vera", "password", NOW), NOW)


def test_a_session_is_found_by_its_secret_alone(engine: Engine) -> None:
    secret = _begin(engine)
    found = sessions.find(engine, secret, NOW)
    assert found is not None
    assert (found.person.name, found.fresh_at) == ("vera", NOW)
    assert sessions.find(engine, secret[:-1], NOW) is None
    assert sessions.find(engine, "", NOW) is None


def test_the_database_does_not_know_the_secret(engine: Engine) -> None:
    secret = _begin(engine)
    with engine.connect() as connection:
        [row] = connection.execute(select(table)).all()
    assert secret not in map(str, row)


def test_every_sign_in_is_a_new_session(engine: Engine) -> None:
    assert _begin(engine) != _begin(engine)


@pytest.mark.parametrize(
    ("visits", "last", "there"),
    [
        ([], timedelta(hours=1, minutes=59), True),
        ([], timedelta(hours=2, minutes=1), False),
        ([90 * place for place in range(1, 8)], timedelta(hours=11, minutes=59), True),
        ([90 * place for place in range(1, 8)], timedelta(hours=12, minutes=1), False),
    ],
)
def test_it_ends_when_idle_and_after_twelve_hours(
    visits: list[int], last: timedelta, there: bool, engine: Engine
) -> None:
    secret = _begin(engine)
    for minutes in visits:
        assert sessions.find(engine, secret, NOW + timedelta(minutes=minutes)) is not None
    assert (sessions.find(engine, secret, NOW + last) is not None) is there


def test_it_ends_with_signing_out_a_new_password_and_the_persons_access(engine: Engine) -> None:
    secret = _begin(engine)
    sessions.end(engine, secret, NOW)
    assert sessions.find(engine, secret, NOW) is None
    secret = _begin(engine)
    directory.set_password(engine, "vera", "another long password", "vera", NOW)
    assert sessions.find(engine, secret, NOW) is None
    secret = _begin(engine)
    directory.disable(engine, "vera", "root1", NOW)
    assert sessions.find(engine, secret, NOW) is None


def test_forms_of_two_sessions_differ_and_tell_no_secret(engine: Engine) -> None:
    first, second = _begin(engine), _begin(engine)
    assert sessions.csrf_token(first) != sessions.csrf_token(second)
    assert first not in sessions.csrf_token(first)
