"""Signing in: no guessing, no fixation, nobody signed in from elsewhere, and out means out everywhere."""

import pytest

from stockpicker_dagster.trading.people.sign_in import FAILURES_OF_ONE
from stockpicker_dagster_tests.console.site import BASE, PASSWORD, Site, hidden


def _try(site: Site, name: str, password: str) -> int:
    browser = site.stranger()
    entry = hidden(browser.get("/sign-in").text, "entry")
    fields = {"entry": entry, "name": name, "password": password}
    return browser.post("/sign-in", data=fields, headers={"Origin": BASE}).status_code


def test_the_right_password_opens_and_a_wrong_one_does_not(site: Site) -> None:
    assert _try(site, "vera", PASSWORD) == 303
    assert _try(site, "vera", PASSWORD + "x") == 403
    assert _try(site, "nobody", PASSWORD) == 403


def test_guessing_is_slowed_down_also_for_the_right_guess(site: Site) -> None:
    for place in range(FAILURES_OF_ONE):
        assert _try(site, "vera", f"guess number {place}") == 403
    assert _try(site, "vera", PASSWORD) == 403
    assert _try(site, "rob", PASSWORD) == 303, "somebody else is not locked out by it"


def test_what_is_answered_does_not_tell_who_exists(site: Site) -> None:
    pages = []
    for name in ("vera", "nobody"):
        browser = site.stranger()
        entry = hidden(browser.get("/sign-in").text, "entry")
        fields = {"entry": entry, "name": name, "password": "a wrong password"}
        page = browser.post("/sign-in", data=fields, headers={"Origin": BASE}).text
        pages.append(page.replace(hidden(page, "entry"), ""))
    assert pages[0] == pages[1]


def test_a_session_known_before_signing_in_is_worth_nothing(site: Site) -> None:
    browser = site.stranger()
    name = f"stockpicker-{BASE.rpartition(':')[2]}"
    browser.cookies.set(name, "planted-by-an-attacker", domain="127.0.0.1")
    entry = hidden(browser.get("/sign-in").text, "entry")
    fields = {"entry": entry, "name": "vera", "password": PASSWORD}
    answer = browser.post("/sign-in", data=fields, headers={"Origin": BASE})
    assert answer.status_code == 303
    assert "planted" not in answer.headers["set-cookie"]
    planted = site.stranger(Cookie=f"{name}=planted-by-an-attacker")
    assert planted.get("/").headers["location"] == "/sign-in"


def test_the_cookie_is_out_of_scripts_reach_and_not_sent_by_other_sites(site: Site) -> None:
    browser = site.stranger()
    entry = hidden(browser.get("/sign-in").text, "entry")
    fields = {"entry": entry, "name": "vera", "password": PASSWORD}
    cookie = browser.post("/sign-in", data=fields, headers={"Origin": BASE}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("entry", ["", "0" * 64])
def test_nobody_is_signed_in_from_another_page(entry: str, site: Site) -> None:
    fields = {"entry": entry, "name": "vera", "password": PASSWORD}
    assert site.stranger().post("/sign-in", data=fields, headers={"Origin": BASE}).status_code == 403


def test_signing_out_ends_copies_of_the_cookie_too(site: Site) -> None:
    browser = site.sign_in("vera")
    copy = site.stranger()
    copy.cookies.update(browser.cookies)
    assert copy.get("/").status_code == 200
    csrf = hidden(browser.get("/").text, "csrf")
    browser.post("/sign-out", data={"csrf": csrf}, headers={"Origin": BASE})
    assert copy.get("/").headers["location"] == "/sign-in"
