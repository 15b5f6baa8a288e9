"""The first administrator's link: single use, a quarter of an hour, used up by sending the form alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.console.door.first_person import LASTS, FirstPersonLink
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster_tests.console.site import BASE, NOW, PASSWORD, Site, make_site


@pytest.fixture
def empty(tmp_path: Path, new_ledger: Callable[[], Engine]) -> Site:
    return make_site(tmp_path / "home", new_ledger(), tmp_path / "none")


def _send(site: Site, token: str, name: str = "ada", password: str = PASSWORD, again: str | None = None) -> int:
    fields = {"token": token, "name": name, "password": password, "again": password if again is None else again}
    answer = site.stranger().post("/first-person", data=fields, headers={"Origin": BASE})
    return answer.status_code


@pytest.mark.parametrize("path", ["/", "/sign-in", "/dagster/", "/api/today", "/people", "/nowhere"])
def test_until_then_everything_else_answers_503(path: str, empty: Site) -> None:
    assert empty.stranger().get(path).status_code == 503


def test_following_the_link_uses_nothing_up_and_sending_the_form_does(empty: Site) -> None:
    token = empty.parts.first_person.token
    assert token is not None
    for _ in range(3):
        assert empty.stranger().get(f"/first-person?token={token}").status_code == 200
    assert _send(empty, token) == 303
    assert _send(empty, token, "eve") == 403
    assert [(person.name, person.role) for person in directory.everybody(empty.database)] == [("ada", "administrator")]
    assert empty.stranger().get("/").headers["location"] == "/sign-in"


def test_a_form_that_does_not_fit_can_be_sent_again(empty: Site) -> None:
    token = str(empty.parts.first_person.token)
    assert _send(empty, token, password="short") == 400
    assert _send(empty, token, again="something else entirely") == 400
    assert _send(empty, token, name="Ada Lovelace") == 400
    assert _send(empty, token) == 303


def test_it_lasts_a_quarter_of_an_hour(empty: Site) -> None:
    token = str(empty.parts.first_person.token)
    empty.deployment.moment = NOW + LASTS
    assert empty.stranger().get(f"/first-person?token={token}").status_code == 403
    assert _send(empty, token) == 403
    assert timedelta(minutes=15) == LASTS


@pytest.mark.parametrize("token", ["", "x", "\udcff", "0" * 43])
def test_guesses_do_not_open(token: str, empty: Site) -> None:
    assert not empty.parts.first_person.opens(token, NOW)


def test_of_many_who_send_it_at_once_one_comes_in(empty: Site) -> None:
    token = str(empty.parts.first_person.token)
    with ThreadPoolExecutor(8) as racing:
        statuses = list(racing.map(lambda number: _send(empty, token, f"person{number}"), range(8)))
    assert sorted(statuses) == [303] + [403] * 7
    assert len(directory.everybody(empty.database)) == 1


def test_there_is_no_link_where_somebody_is_in_the_directory(site: Site) -> None:
    assert FirstPersonLink(site.database, NOW).token is None
    assert site.stranger().get("/first-person?token=x").status_code == 403
