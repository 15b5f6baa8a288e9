"""People and one's own settings: administrators change people, everybody their own secrets, knowing the old ones."""

import pyotp
import pytest

from stockpicker_dagster.trading.people import directory
from stockpicker_dagster_tests.console.site import PASSWORD, Site, hidden

NEW = "a new and longer password"


def _people(site: Site) -> dict[str, str]:
    return {person.name: person.role for person in directory.everybody(site.database) if not person.disabled_at}


def test_an_administrator_adds_changes_and_disables(site: Site) -> None:
    added = {"name": "grace", "role": "viewer", "password": PASSWORD}
    assert site.post("root1", "/people", added, "/people").status_code == 303
    assert site.post("root1", "/people/grace/role", {"role": "approver"}, "/people").status_code == 303
    assert _people(site)["grace"] == "approver"
    browser = site.sign_in("grace")
    assert site.post("root1", "/people/grace/disable", page="/people").status_code == 303
    assert browser.get("/").headers["location"] == "/sign-in"
    assert site.post("root1", "/people/grace/enable", page="/people").status_code == 303
    assert "grace" in _people(site)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/people", {"name": "Grace", "role": "viewer", "password": PASSWORD}),
        ("/people", {"name": "grace", "role": "owner", "password": PASSWORD}),
        ("/people", {"name": "grace", "role": "viewer", "password": "short"}),
        ("/people/root1/role", {"role": "viewer"}),
        ("/people/root1/disable", {}),
        ("/people/nobody/role", {"role": "viewer"}),
    ],
)
def test_what_cannot_be_changes_nothing(path: str, data: dict[str, str], site: Site) -> None:
    before = _people(site)
    assert site.post("root1", path, data, "/people").status_code in (400, 403)
    assert _people(site) == before


def test_others_see_themselves_alone(site: Site) -> None:
    page = site.browser("vera").get("/people").text
    assert "vera" in page
    assert "root1" not in page


def test_a_new_password_needs_the_old_one_and_ends_every_session(site: Site) -> None:
    wanted = {"password": NEW, "again": NEW}
    assert site.post("vera", "/settings/password", {"secret": "wrong", **wanted}, "/people").status_code == 409
    other = site.sign_in("vera")
    assert site.post("vera", "/settings/password", {"secret": PASSWORD, **wanted}, "/people").status_code == 303
    assert other.get("/").headers["location"] == "/sign-in"
    assert site.sign_in("vera", NEW).get("/").status_code == 200


def test_codes_are_on_once_a_first_one_fits(site: Site) -> None:
    browser = site.browser("vera")
    page = site.post("vera", "/settings/codes/begin", page="/people").text
    secret = hidden(page, "totp_secret")
    code = pyotp.TOTP(secret).at(site.deployment.now())
    fields = {"totp_secret": secret, "secret": PASSWORD}
    assert site.post("vera", "/settings/codes", {**fields, "code": "000000"}, "/people").status_code == 400
    assert site.post("vera", "/settings/codes", {**fields, "code": code}, "/people").status_code == 303
    assert browser.get("/people").text.count("on</td>") == 1
    entry_page = site.stranger()
    entry = hidden(entry_page.get("/sign-in").text, "entry")
    answer = entry_page.post(
        "/sign-in",
        data={"entry": entry, "name": "vera", "password": PASSWORD},
        headers={"Origin": "http://127.0.0.1:3999"},
    )
    assert answer.status_code == 403, "the password alone opens no more"


def test_a_token_is_shown_once(site: Site) -> None:
    page = site.post("vera", "/settings/tokens", {"label": "my script", "days": "30"}, "/people").text
    secret = page.partition("<code>sp_")[2].partition("</code>")[0]
    assert len(secret) > 30
    assert secret not in site.browser("vera").get("/people").text
    assert site.stranger(Authorization=f"Bearer sp_{secret}").get("/api/today").status_code == 200


@pytest.mark.parametrize("days", ["0", "366", "-1", "x", "9999"])
def test_a_token_lasts_a_year_at_most(days: str, site: Site) -> None:
    assert site.post("vera", "/settings/tokens", {"label": "x", "days": days}, "/people").status_code == 400
