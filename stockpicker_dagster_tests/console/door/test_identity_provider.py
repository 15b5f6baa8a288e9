"""A provider vouches for who somebody is: once, to the browser that asked, with its own signature, and for no more."""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from stockpicker_dagster.console.application import application
from stockpicker_dagster.console.door.checks import Addresses
from stockpicker_dagster.console.door.door import BACK_PATH, ELSEWHERE_PATH
from stockpicker_dagster.console.door.identity_provider import LASTS, IdentityProvider, Settings
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.people.tables import people
from stockpicker_dagster_tests.console.fake_provider import CLIENT, SECRET, FakeProvider, Key, base64url, serving
from stockpicker_dagster_tests.console.site import BASE, NOW, PEOPLE, PORT, Site, signed_in

OURS, FOREIGN = Key("one"), Key("two")
# As a browser sends what a link on another site leads to.
FROM_ELSEWHERE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with serving(FakeProvider(OURS, lambda: NOW)) as serves:
        yield serves


@pytest.fixture
def vouched(read_site: Site, provider: FakeProvider) -> Iterator[Site]:
    """A console that trusts the provider; nothing in its directory may be changed."""
    yield _trusting(read_site, Settings(provider.base, CLIENT, SECRET))
    read_site.deployment.moment = NOW


def _trusting(site: Site, settings: Settings) -> Site:
    parts = replace(site.parts, provider=IdentityProvider(settings))
    app = application(parts, addresses=Addresses.on_loopback(PORT), port=PORT)
    return Site(site.folder, site.deployment, parts, app)


def _go(site: Site) -> tuple[TestClient, str]:
    """A browser that has followed the link, and where it was sent."""
    browser = site.stranger()
    answer = browser.get(ELSEWHERE_PATH)
    assert answer.status_code == 303
    return browser, answer.headers["location"]


def _back(browser: TestClient, answer: dict[str, str]) -> Any:
    return browser.get(f"{BACK_PATH}?{urlencode(answer)}", headers=FROM_ELSEWHERE)


def _signed_in(browser: TestClient) -> bool:
    return browser.get("/").status_code == 200


def test_whom_the_provider_vouches_for_is_in_with_the_directorys_role(vouched: Site, provider: FakeProvider) -> None:
    assert f'href="{ELSEWHERE_PATH}"' in vouched.stranger().get("/sign-in").text
    for person, role in PEOPLE.items():
        browser, address = _go(vouched)
        answer = _back(browser, provider.authorize(address, preferred_username=person))
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        assert signed_in(browser.get("/").text) == f"{person}, {role}"


def test_without_a_provider_there_is_no_such_way_in(site: Site) -> None:
    assert ELSEWHERE_PATH not in site.stranger().get("/sign-in").text
    for path in (ELSEWHERE_PATH, BACK_PATH):
        assert site.stranger().get(path).status_code == 404


def test_nobody_is_added_and_no_role_is_given(vouched: Site, provider: FakeProvider) -> None:
    with vouched.database.connect() as connection:
        before = connection.execute(select(people.c.name, people.c.role).order_by(people.c.name)).all()
    for claims in (
        {"preferred_username": "mallory", "role": "approver", "groups": ["approver", "administrator"]},
        {"preferred_username": "vera", "role": "administrator", "roles": ["approver"]},
    ):
        browser, address = _go(vouched)
        _back(browser, provider.authorize(address, **claims))
    with vouched.database.connect() as connection:
        assert connection.execute(select(people.c.name, people.c.role).order_by(people.c.name)).all() == before


@pytest.mark.parametrize("name", ["mallory", "Ada", "ada ", "os:test", "", "<script>alert(1)</script>", 7, None])
def test_a_name_that_is_not_exactly_in_the_directory_is_nobody(
    name: object, vouched: Site, provider: FakeProvider
) -> None:
    browser, address = _go(vouched)
    answer = _back(browser, provider.authorize(address, preferred_username=name))
    assert answer.status_code == 403
    assert "<script>alert" not in answer.text
    assert not _signed_in(browser)


def test_the_disabled_stay_outside(site: Site, provider: FakeProvider) -> None:
    directory.disable(site.database, "ada", "root1", NOW)
    vouched = _trusting(site, Settings(provider.base, CLIENT, SECRET))
    browser, address = _go(vouched)
    assert _back(browser, provider.authorize(address)).status_code == 403
    assert not _signed_in(browser)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": [CLIENT, "another"]},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"azp": "another"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": int(NOW.timestamp()) - 61},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": 1e300},
        {"iat": int((NOW - timedelta(hours=1)).timestamp())},
        {"iat": int((NOW + timedelta(hours=1)).timestamp())},
        {"iat": None},
        {"nbf": int((NOW + timedelta(hours=1)).timestamp())},
        {"sub": None},
        {"sub": ""},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_opens_nothing(
    claims: dict[str, Any], vouched: Site, provider: FakeProvider
) -> None:
    browser, address = _go(vouched)
    answer = _back(browser, provider.authorize(address, **claims))
    assert answer.status_code == 403
    assert not _signed_in(browser)


def _unsigned(header: dict[str, Any]) -> Callable[[dict[str, Any]], str]:
    return lambda claims: f"{base64url(json.dumps(header).encode())}.{base64url(json.dumps(claims).encode())}."


def _with_shared_key(secret: bytes, **header: Any) -> Callable[[dict[str, Any]], str]:
    def sign(claims: dict[str, Any]) -> str:
        signed = _unsigned({"alg": "HS256", **header})(claims)[:-1]
        return f"{signed}.{base64url(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

    return sign


def _tampered(claims: dict[str, Any]) -> str:
    head, _, signature = OURS.token({**claims, "preferred_username": "vera"}).split(".")
    return f"{head}.{base64url(json.dumps(claims).encode())}.{signature}"


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param(_unsigned({"alg": "none"}), id="none"),
        pytest.param(_unsigned({"alg": "None", "kid": "one"}), id="None"),
        pytest.param(_unsigned({"alg": "RS256", "kid": "one"}), id="no signature"),
        pytest.param(_unsigned({}), id="no algorithm"),
        pytest.param(_with_shared_key(SECRET.encode()), id="the client's secret"),
        pytest.param(_with_shared_key(json.dumps(OURS.public()).encode(), kid="one"), id="the public key as a secret"),
        pytest.param(FOREIGN.token, id="an unknown key"),
        pytest.param(lambda claims: FOREIGN.token(claims, {"kid": "one"}), id="an unknown key under a known name"),
        pytest.param(
            lambda claims: FOREIGN.token(claims, {"jwk": FOREIGN.public(), "kid": "one"}), id="brings its key"
        ),
        pytest.param(lambda claims: OURS.token(claims, {"crit": ["b64"], "b64": False}), id="critical header"),
        pytest.param(_tampered, id="tampered"),
        pytest.param(lambda claims: "a.b", id="no token"),
        pytest.param(lambda claims: "", id="empty"),
        pytest.param(lambda claims: "a.b.c.d.e", id="encrypted"),
    ],
)
def test_a_token_that_the_provider_did_not_sign_opens_nothing(
    sign: Callable[[dict[str, Any]], str], vouched: Site, provider: FakeProvider
) -> None:
    provider.sign = sign
    browser, address = _go(vouched)
    assert _back(browser, provider.authorize(address)).status_code == 403
    assert not _signed_in(browser)


def test_a_shared_key_among_the_published_ones_signs_nothing(vouched: Site, provider: FakeProvider) -> None:
    provider.published = [{"kty": "oct", "kid": "shared", "k": base64url(b"known to all")}]
    provider.sign = _with_shared_key(b"known to all", kid="shared")
    browser, address = _go(vouched)
    assert _back(browser, provider.authorize(address)).status_code == 403


def test_an_answer_counts_once(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    kept = dict(browser.cookies)
    answer = provider.authorize(address)
    assert _back(browser, answer).status_code == 303
    copy = vouched.stranger()
    copy.cookies.update(kept)
    # The provider would give a token for another code; the answer itself is what was used.
    again = {**provider.authorize(address), "state": answer["state"]}
    for replayed in (answer, again):
        assert _back(copy, replayed).status_code == 403
    assert not _signed_in(copy)
    assert sum(path == "/token" for path, _ in provider.asked) == 1, "nothing is asked for an answer that was used"


def test_a_code_that_was_used_is_refused_as_the_provider_refuses_it(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    answer = provider.authorize(address)
    assert _back(browser, answer).status_code == 303
    other, its_address = _go(vouched)
    mixed = {"code": answer["code"], "state": provider.authorize(its_address)["state"]}
    assert _back(other, mixed).status_code == 403
    assert not _signed_in(other)


def test_a_stolen_code_is_of_no_use_in_another_browser(vouched: Site, provider: FakeProvider) -> None:
    """The attacker began a sign-in too, so that the state fits; the proof key of the code does not."""
    _, of_victim = _go(vouched)
    stolen = provider.authorize(of_victim, preferred_username="root1")["code"]
    attacker, of_attacker = _go(vouched)
    state = parse_qs(urlsplit(of_attacker).query)["state"][0]
    assert _back(attacker, {"code": stolen, "state": state}).status_code == 403
    assert not _signed_in(attacker)


def test_nobody_is_signed_in_as_somebody_else_by_a_link(vouched: Site, provider: FakeProvider) -> None:
    """An attacker's own answer, sent as a link, finds no browser that asked for it."""
    _, address = _go(vouched)
    answer = provider.authorize(address, preferred_username="vera")
    victim = vouched.stranger()
    assert _back(victim, answer).status_code == 403
    began, _ = _go(vouched)
    assert _back(began, answer).status_code == 403, "nor one that asked for another"
    assert not _signed_in(victim)
    assert not _signed_in(began)


@pytest.mark.parametrize("entry", ["", "x", "1.2.3", "9999999999.abc.def", "\u00e9.b.c"])
def test_an_invented_cookie_is_worth_nothing(entry: str, vouched: Site, provider: FakeProvider) -> None:
    _, address = _go(vouched)
    answer = provider.authorize(address)
    browser = vouched.stranger(Cookie=f"stockpicker-{BASE.rpartition(':')[2]}-provider={entry}".encode("latin-1"))
    assert _back(browser, answer).status_code == 403
    assert provider.asked[-1][0] != "/token"


def test_an_answer_that_comes_too_late_is_over(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    vouched.deployment.moment = NOW + LASTS + timedelta(seconds=2)
    assert _back(browser, provider.authorize(address)).status_code == 403


def test_the_way_back_leads_nowhere_else(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    asked = parse_qs(urlsplit(address).query)
    assert asked["redirect_uri"] == [f"{BASE}{BACK_PATH}"]
    extra = dict.fromkeys(("next", "redirect", "return_to", "redirect_uri", "url"), "https://evil.example/")
    answer = _back(browser, {**provider.authorize(address), **extra})
    assert answer.headers["location"] == "/"
    sent = vouched.stranger().get(f"{ELSEWHERE_PATH}?redirect_uri=https://evil.example/&next=//evil.example")
    assert "evil" not in sent.headers["location"]


def test_an_answer_of_another_provider_is_not_mixed_in(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    assert _back(browser, {**provider.authorize(address), "iss": "https://evil.example"}).status_code == 403
    other, address = _go(vouched)
    assert _back(other, {**provider.authorize(address), "iss": provider.base}).status_code == 303


def test_what_the_provider_refuses_is_told_without_its_markup(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    state = provider.authorize(address)["state"]
    answer = _back(browser, {"error": "access_denied<b>", "error_description": "<script>", "state": state})
    assert answer.status_code == 403
    assert "access_deniedb" in answer.text
    assert "<script>" not in answer.text


def test_a_session_known_before_is_worth_nothing_after(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    name = f"stockpicker-{BASE.rpartition(':')[2]}"
    browser.cookies.set(name, "planted", domain="127.0.0.1")
    cookies = _back(browser, provider.authorize(address)).headers["set-cookie"].lower()
    assert "planted" not in cookies
    assert "httponly" in cookies
    assert vouched.stranger(Cookie=f"{name}=planted").get("/").headers["location"] == "/sign-in"


def test_keys_that_the_provider_changed_are_looked_for_once_more(vouched: Site, provider: FakeProvider) -> None:
    browser, address = _go(vouched)
    assert _back(browser, provider.authorize(address)).status_code == 303
    provider.sign, provider.published = FOREIGN.token, [FOREIGN.public()]
    vouched.deployment.moment = NOW + timedelta(minutes=2)
    provider.now = lambda: NOW + timedelta(minutes=2)
    browser, address = _go(vouched)
    assert _back(browser, provider.authorize(address)).status_code == 303


@pytest.mark.parametrize(
    "configured",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
    ],
    ids=str,
)
def test_a_description_that_leads_elsewhere_is_not_followed(
    configured: dict[str, Any], vouched: Site, provider: FakeProvider
) -> None:
    provider.configured = configured
    answer = vouched.stranger().get(ELSEWHERE_PATH)
    assert answer.status_code in (400, 403)
    assert "location" not in answer.headers


def test_a_provider_that_is_gone_leaves_the_password(read_site: Site) -> None:
    site = _trusting(read_site, Settings("http://127.0.0.1:9", CLIENT))
    answer = site.stranger().get(ELSEWHERE_PATH)
    assert answer.status_code == 403
    assert 'name="password"' in answer.text
    assert _signed_in(site.sign_in("vera"))


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"email": "ada@example.com", "email_verified": True}, 303),
        ({"email": "ada@EXAMPLE.com", "email_verified": True}, 303),
        ({"email": "ada@example.com", "email_verified": False}, 403),
        ({"email": "ada@example.com", "email_verified": "true"}, 403),
        ({"email": "ada@example.com"}, 403),
        ({"email": "ada@evil.example", "email_verified": True}, 403),
        ({"email": "ada@evil.example@example.com", "email_verified": True}, 403),
        ({"email": "ada", "email_verified": True}, 403),
    ],
    ids=str,
)
def test_an_address_counts_where_it_is_verified_and_of_the_domain(
    claims: dict[str, Any], status: int, read_site: Site, provider: FakeProvider
) -> None:
    site = _trusting(read_site, Settings(provider.base, CLIENT, SECRET, "email", "example.com"))
    browser, address = _go(site)
    assert _back(browser, provider.authorize(address, **claims)).status_code == status


def test_a_provider_is_off_unless_all_of_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IdentityProvider.from_environment() is None
    monkeypatch.setenv("STOCKPICKER_OIDC_ISSUER", "https://login.example.com")
    with pytest.raises(InvalidInput, match="STOCKPICKER_OIDC_CLIENT_ID"):
        IdentityProvider.from_environment()
    monkeypatch.setenv("STOCKPICKER_OIDC_CLIENT_ID", "stockpicker")
    found = IdentityProvider.from_environment()
    assert found is not None
    assert found.settings == Settings("https://login.example.com", "stockpicker")
    monkeypatch.setenv("STOCKPICKER_OIDC_CLAIM", "email")
    with pytest.raises(InvalidInput, match="STOCKPICKER_OIDC_DOMAIN"):
        IdentityProvider.from_environment()
    monkeypatch.setenv("STOCKPICKER_OIDC_ISSUER", "http://login.example.com")
    with pytest.raises(InvalidInput, match="https"):
        IdentityProvider.from_environment()


def test_no_secret_is_in_what_is_printed_of_it() -> None:
    trusted = IdentityProvider(Settings("https://login.example.com", CLIENT, SECRET))
    assert SECRET not in repr(trusted)
