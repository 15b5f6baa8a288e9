"""An OpenID Connect provider on loopback, written from its specification; tests bend its answers, none lives here.

Tokens are put together by hand, so that nothing of what checks them has a part in making them.
"""

import base64
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET = "stockpicker", "a secret/with:marks"


def base64url(content: bytes) -> str:
    """As tokens are written."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class Key:
    """A key of RSA; made when it is first used, because making one takes longer than a test."""

    kid: str

    @cached_property
    def private(self) -> rsa.RSAPrivateKey:
        """The key itself."""
        return rsa.generate_private_key(65537, 2048)

    def public(self) -> dict[str, str]:
        """As it is published."""
        numbers = self.private.public_key().public_numbers()
        parts = {"n": numbers.n, "e": numbers.e}
        encoded = {name: base64url(part.to_bytes((part.bit_length() + 7) // 8, "big")) for name, part in parts.items()}
        return {"kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256", **encoded}

    def token(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """The claims, signed."""
        head = {"alg": "RS256", "kid": self.kid, **(header or {})}
        signed = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(claims).encode())}"
        signature = self.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{base64url(signature)}"


@dataclass
class FakeProvider:
    """The provider: who signs in there, and what it says of them."""

    key: Key
    now: Callable[[], datetime]
    base: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    """What is said beside, or instead of, what a provider should say; None leaves a claim out."""
    sign: Callable[[dict[str, Any]], str] | None = None
    published: list[dict[str, str]] | None = None
    configured: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def authorize(self, address: str, **claims: Any) -> dict[str, str]:
        """What a person does there: signs in, and is sent back with this behind the question mark."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert address.startswith(f"{self.base}/authorize?"), address
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{next(self._numbers)}"
        self._codes[code] = asked
        self.claims = {"preferred_username": "ada", **claims}
        return {"code": code, "state": asked["state"]}

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """A code for tokens, once, for whoever asked for it."""
        held = self._codes.pop(form.get("code", ""), None)
        wanted = base64.b64encode(f"{CLIENT}:a%20secret%2Fwith%3Amarks".encode()).decode()
        challenge = base64url(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if held is None or held["code_challenge"] != challenge or held["redirect_uri"] != form.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        if authorization != f"Basic {wanted}":
            return 401, {"error": "invalid_client"}
        moment = int(self.now().timestamp())
        said: dict[str, Any] = {
            "iss": self.base,
            "sub": "4711",
            "aud": CLIENT,
            "exp": moment + 300,
            "iat": moment,
            "nonce": held["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in said.items() if value is not None}
        sign = self.sign or self.key.token
        return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": sign(claims)}

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """One request."""
        self.asked.append((path, form))
        if path == "/.well-known/openid-configuration":
            named = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            places = {name: f"{self.base}/{place}" for name, place in named.items()}
            return 200, {"issuer": self.base, **places, **self.configured}
        if path == "/keys":
            return 200, {"keys": self.published if self.published is not None else [self.key.public()]}
        return self.exchange(form, authorization) if path == "/token" else (404, {})


@contextmanager
def serving(provider: FakeProvider) -> Iterator[FakeProvider]:
    """The provider, answering on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._give(*provider.answer(self.path, {}, ""))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._give(*provider.answer(self.path, form, self.headers.get("Authorization", "")))

        def _give(self, status: int, document: Any) -> None:
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests say what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    provider.base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
