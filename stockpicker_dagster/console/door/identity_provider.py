"""Signing in at an OpenID Connect provider: off unless the environment names one.

The authorization code flow (OpenID Connect Core 1.0, section 3.1) with PKCE (RFC 7636). `STOCKPICKER_OIDC_ISSUER` and
`STOCKPICKER_OIDC_CLIENT_ID` turn it on; `STOCKPICKER_OIDC_CLIENT_SECRET` is for providers that gave one. Who somebody
is follows from one claim of the checked id token, `preferred_username` unless `STOCKPICKER_OIDC_CLAIM` names another,
and that person must be in the directory already: a provider vouches for who somebody is, never for what they may do.
The claim `email` counts only where the provider has verified it, and only within `STOCKPICKER_OIDC_DOMAIN`.

What ties an answer to the browser that asked is derived from one secret in that browser's cookie, so that nothing is
stored for whoever only asks. Nothing here knows pages.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from stockpicker_dagster.console.door.checks import Refused, same
from stockpicker_dagster.errors import InvalidInput

ISSUER_VARIABLE, CLIENT_VARIABLE = "STOCKPICKER_OIDC_ISSUER", "STOCKPICKER_OIDC_CLIENT_ID"
SECRET_VARIABLE = "STOCKPICKER_OIDC_CLIENT_SECRET"  # noqa: S105 - the name of the variable
CLAIM_VARIABLE, DOMAIN_VARIABLE = "STOCKPICKER_OIDC_CLAIM", "STOCKPICKER_OIDC_DOMAIN"
USUAL_CLAIM, EMAIL = "preferred_username", "email"

LASTS = timedelta(minutes=10)
"""How long a person may take at the provider."""
MOST_ANSWERS = 500
"""Answers looked at within `LASTS`: each costs a request to the provider, and anybody can send one."""
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures with a public key. Never `none`, and never one with a shared key: then the client's secret would sign."""
_LEEWAY = timedelta(seconds=60)
_KEPT = timedelta(hours=1)
_FETCHED_AGAIN = timedelta(minutes=1)
_TIMEOUT_S = 10.0
_MOST_BYTES = 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class NotVouchedFor(Refused):
    """The provider's answer does not prove who somebody is."""

    def __init__(self, sentence: str) -> None:
        super().__init__(403, sentence)


@dataclass(frozen=True)
class Settings:
    """What is agreed with the provider."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    claim: str = USUAL_CLAIM
    domain: str = ""

    def __post_init__(self) -> None:
        _check_address(self.issuer, ISSUER_VARIABLE)
        if not self.client_id:
            raise InvalidInput(f"{CLIENT_VARIABLE} is not set; the provider gives it where the application is entered")
        if self.claim == EMAIL and not self.domain:
            raise InvalidInput(
                f"with {CLAIM_VARIABLE}={EMAIL}, set {DOMAIN_VARIABLE} to the one domain whose addresses count: "
                "ada@example.com is the person ada there, and nobody anywhere else"
            )

    @classmethod
    def from_environment(cls) -> "Settings | None":
        """The provider that the environment names; None where it names none. Raises `InvalidInput` for half of one."""
        issuer = os.environ.get(ISSUER_VARIABLE, "").strip()
        if not issuer:
            return None
        return cls(
            issuer,
            os.environ.get(CLIENT_VARIABLE, "").strip(),
            os.environ.get(SECRET_VARIABLE, "").strip(),
            os.environ.get(CLAIM_VARIABLE, "").strip() or USUAL_CLAIM,
            os.environ.get(DOMAIN_VARIABLE, "").strip().lower(),
        )

    @property
    def host(self) -> str:
        """Where people are sent, for the link's text."""
        return urlsplit(self.issuer).netloc


@dataclass
class IdentityProvider:
    """One provider; a second use of an answer is refused for as long as the answer would count."""

    settings: Settings
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _used: dict[str, datetime] = field(default_factory=dict, repr=False)
    _documents: dict[str, tuple[datetime, dict[str, Any]]] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def from_environment(cls) -> "IdentityProvider | None":
        """The provider that the environment names, if any."""
        settings = Settings.from_environment()
        return None if settings is None else cls(settings)

    def begin(self, redirect: str, now: datetime) -> tuple[str, str]:
        """Where to send the browser, and the secret that its cookie keeps until it is back at `redirect`."""
        made = f"{int(now.timestamp())}.{secrets.token_urlsafe(32)}"
        entry = f"{made}.{self._derived(made, 'entry')}"
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect,
            "scope": "openid profile email" if self.settings.claim == EMAIL else "openid profile",
            "state": self._derived(entry, "state"),
            "nonce": self._derived(entry, "nonce"),
            "code_challenge": _base64url(hashlib.sha256(self._derived(entry, "verifier").encode()).digest()),
            "code_challenge_method": "S256",
        }
        address = self._endpoint("authorization_endpoint", now)
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", entry

    def finish(self, entry: str, answer: Mapping[str, str], redirect: str, now: datetime) -> str:
        """The name of the person whom the provider's answer proves. Raises `NotVouchedFor`.

        `entry` is what the cookie kept and `answer` what stands behind the question mark. An answer counts once.
        """
        self._check_answer(entry, answer, now)
        if "error" in answer:
            said = re.sub(r"[^a-z_]", "", answer["error"].lower())[:40]
            raise NotVouchedFor(f"{self.settings.host} did not sign you in ({said or 'no reason'}); try again")
        code = answer.get("code", "")
        if not code:
            raise NotVouchedFor("the provider sent no code; sign in again")
        given = self._exchanged(code, self._derived(entry, "verifier"), redirect, now)
        token = given.get("id_token")
        if not isinstance(token, str):
            raise NotVouchedFor("the provider sent no id token; enter the application there with the scope openid")
        claims = self._claims(token, now)
        self._check_claims(claims, self._derived(entry, "nonce"), now)
        return self._person(claims)

    # The answer

    def _derived(self, entry: str, purpose: str) -> str:
        """43 characters that nobody can tell without this server's key."""
        return _base64url(hmac.new(self._key, f"{purpose} {entry}".encode(), hashlib.sha256).digest())

    def _check_answer(self, entry: str, answer: Mapping[str, str], now: datetime) -> None:
        """That this browser asked, not long ago, and that the answer was not looked at before."""
        made, _, proof = entry.rpartition(".")
        if not same(proof, self._derived(made, "entry")):
            raise NotVouchedFor("this browser did not begin to sign in here; begin at the sign-in page")
        began = datetime.fromtimestamp(int(made.partition(".")[0]), now.tzinfo)
        if not timedelta() <= now - began + timedelta(seconds=1) <= LASTS:
            raise NotVouchedFor("signing in took too long; begin again")
        if not same(answer.get("state", ""), self._derived(entry, "state")):
            raise NotVouchedFor("the answer is not to what this browser asked; begin again at the sign-in page")
        if "iss" in answer and answer["iss"] != self.settings.issuer:
            # RFC 9207: an answer of another provider, mixed in.
            raise NotVouchedFor("the answer comes from another provider")
        with self._lock:
            self._used = {used: at for used, at in self._used.items() if now - at <= LASTS}
            if entry in self._used:
                raise NotVouchedFor("this answer was used already; begin again at the sign-in page")
            if len(self._used) >= MOST_ANSWERS:
                raise Refused(429, "too many people are signing in; try again in some minutes")
            self._used[entry] = now

    def _exchanged(self, code: str, verifier: str, redirect: str, now: datetime) -> dict[str, Any]:
        """What the provider gives for the code."""
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": self.settings.client_id,
            "code_verifier": verifier,
        }
        # RFC 6749, section 2.3.1: both are encoded before they are put together.
        named, secret = (quote(part, safe="") for part in (self.settings.client_id, self.settings.client_secret))
        return _fetch(self._endpoint("token_endpoint", now), asked, (named, secret) if secret else None)

    # The token

    def _claims(self, token: str, now: datetime) -> dict[str, Any]:
        """The claims of a token that one of the provider's keys has signed."""
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError, JoseError
        from joserfc.jwk import KeySet

        for fresh in (False, True):
            keys = self._document(self._endpoint("jwks_uri", now), now, fresh=fresh)
            public = [key for key in keys.get("keys", ()) if isinstance(key, dict) and key.get("kty") != "oct"]
            try:
                known = KeySet.import_key_set({"keys": public})
                return jwt.decode(token, known, algorithms=list(ALGORITHMS)).claims
            except InvalidKeyIdError:
                # Providers change their keys: what is signed with a new one is looked for once more.
                continue
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise NotVouchedFor("the id token is not signed by the provider") from error
        raise NotVouchedFor("the id token is signed by a key that the provider does not publish")

    def _check_claims(self, claims: Mapping[str, Any], nonce: str, now: datetime) -> None:
        """OpenID Connect Core 1.0, section 3.1.3.7."""
        client, meant = self.settings.client_id, claims.get("aud")
        audience = meant if isinstance(meant, list) else [meant]
        expires, issued = _moment(claims.get("exp"), now), _moment(claims.get("iat"), now)
        begins = _moment(claims["nbf"], now) if "nbf" in claims else issued
        for kept, sentence in (
            (claims.get("iss") == self.settings.issuer, "the id token is of another issuer"),
            (client in audience, "the id token is for another application"),
            (len(audience) == 1 or "azp" in claims, "the id token is for several applications and names none"),
            (claims.get("azp", client) == client, "the id token was given to another application"),
            (expires is not None and now < expires + _LEEWAY, "the id token is over"),
            (issued is not None and now - LASTS - _LEEWAY <= issued <= now + _LEEWAY, "the id token is not of now"),
            (begins is not None and begins <= now + _LEEWAY, "the id token is not valid yet"),
            (same(str(claims.get("nonce", "")), nonce), "the id token is not for this sign-in"),
            (isinstance(claims.get("sub"), str) and claims["sub"], "the id token names nobody"),
        ):
            if not kept:
                raise NotVouchedFor(f"{sentence}; nobody is signed in")

    def _person(self, claims: Mapping[str, Any]) -> str:
        name, claim = claims.get(self.settings.claim), self.settings.claim
        if not isinstance(name, str) or not name:
            raise NotVouchedFor(f"the id token has no {claim}; name another claim in {CLAIM_VARIABLE}")
        if claim != EMAIL:
            return name
        if claims.get("email_verified") is not True:
            raise NotVouchedFor("the provider has not verified the e-mail address")
        local, _, domain = name.rpartition("@")
        if domain.lower() != self.settings.domain:
            raise NotVouchedFor(f"only addresses of {self.settings.domain} count here")
        return local

    # What the provider publishes

    def _endpoint(self, name: str, now: datetime) -> str:
        address = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        said = self._document(address, now)
        if said.get("issuer") != self.settings.issuer:
            raise NotVouchedFor(f"{address} is of another issuer than {ISSUER_VARIABLE} says")
        found = said.get(name)
        if not isinstance(found, str):
            raise NotVouchedFor(f"{address} names no {name}")
        _check_address(found, name)
        return found

    def _document(self, address: str, now: datetime, *, fresh: bool = False) -> dict[str, Any]:
        """A published document, kept for an hour; a `fresh` one is at most a minute old."""
        with self._lock:
            kept = self._documents.get(address)
        if kept is not None and timedelta() <= now - kept[0] < (_FETCHED_AGAIN if fresh else _KEPT):
            return kept[1]
        found = _fetch(address)
        with self._lock:
            self._documents[address] = (now, found)
        return found


def _check_address(address: str, what: str) -> None:
    """Secrets and keys travel encrypted, or do not leave this machine."""
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return
    raise InvalidInput(f"{what} is {address[:200]!r}; it has to begin with https://, or be on this machine")


def _fetch(address: str, form: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None) -> dict[str, Any]:
    """One JSON object from the provider; no redirect is followed."""
    import httpx

    try:
        with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
            method = "GET" if form is None else "POST"
            with client.stream(method, address, data=form, auth=auth, headers={"Accept": "application/json"}) as answer:
                content = b""
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise NotVouchedFor("the provider's answer has no end")
                if answer.status_code != 200:
                    raise NotVouchedFor(f"{urlsplit(address).netloc} answers {answer.status_code}; begin again")
        found = json.loads(content)
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise NotVouchedFor(f"{urlsplit(address).netloc} cannot be asked just now; sign in with a password") from error
    if not isinstance(found, dict):
        raise NotVouchedFor("the provider's answer is no object")
    return found


def _moment(value: object, like: datetime) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, like.tzinfo)
    except (ValueError, OverflowError, OSError):
        return None


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
