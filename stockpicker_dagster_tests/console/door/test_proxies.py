"""A proxy vouches for who somebody is, with its secret, and for nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.console.door.proxies import PERSON_HEADER, SECRET_HEADER, TrustedProxy
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster_tests.console.site import BASE, NOW, Site, hidden, make_site, signed_in

SECRET = "s" * 40


@pytest.fixture
def behind(tmp_path: Path, peopled_ledger: Callable[[], Engine], invented_lake: Path) -> Site:
    return make_site(tmp_path / "home", peopled_ledger(), invented_lake, TrustedProxy(SECRET))


def _asking(site: Site, person: str, secret: str = SECRET):
    return site.stranger(**{SECRET_HEADER: secret, PERSON_HEADER: person})


def test_whom_the_proxy_names_is_in_with_the_directorys_role(behind: Site) -> None:
    assert signed_in(_asking(behind, "vera").get("/").text) == "vera, viewer"
    browser = _asking(behind, "vera")
    csrf = hidden(browser.get("/people").text, "csrf")
    fields = {"csrf": csrf, "reason": "x"}
    assert browser.post("/halt", data=fields, headers={"Origin": BASE}).status_code == 403, "a viewer still"


def test_a_change_still_needs_the_forms_token(behind: Site) -> None:
    browser = _asking(behind, "rob")
    assert browser.post("/halt", data={"reason": "x"}, headers={"Origin": BASE}).status_code == 403
    csrf = hidden(browser.get("/halt").text, "csrf")
    fields = {"csrf": csrf, "reason": "x"}
    assert browser.post("/halt", data=fields, headers={"Origin": BASE}).status_code == 303


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], SECRET + "s"])
def test_without_the_secret_the_name_means_nothing(secret: str, behind: Site) -> None:
    assert _asking(behind, "root1", secret).get("/").headers["location"] == "/sign-in"


def test_where_no_proxy_is_trusted_its_headers_mean_nothing(site: Site) -> None:
    assert _asking(site, "root1").get("/").headers["location"] == "/sign-in"
    assert _asking(site, "root1", "").get("/").headers["location"] == "/sign-in"


def test_strangers_and_disabled_people_stay_out(behind: Site) -> None:
    assert _asking(behind, "mallory").get("/").status_code == 403
    directory.disable(behind.database, "vera", "root1", NOW)
    assert _asking(behind, "vera").get("/").status_code == 403


def test_it_is_off_by_default_and_refuses_a_guessable_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOCKPICKER_PROXY_SECRET", raising=False)
    assert TrustedProxy.from_environment() is None
    monkeypatch.setenv("STOCKPICKER_PROXY_SECRET", SECRET)
    assert TrustedProxy.from_environment() == TrustedProxy(SECRET)
    monkeypatch.setenv("STOCKPICKER_PROXY_SECRET", "short")
    with pytest.raises(InvalidInput, match="32 or more"):
        TrustedProxy.from_environment()
