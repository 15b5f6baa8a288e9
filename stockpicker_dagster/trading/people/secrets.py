"""Passwords, codes and random secrets: making them and checking one against what is stored. No database, no clock.

Passwords are hashed with argon2id (RFC 9106's parameters for little memory, the library's default); codes are TOTP (RFC
6238): six digits, thirty seconds, SHA-1, as authenticator apps know them.
"""

import hashlib
import hmac
import secrets as random
from datetime import datetime
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from stockpicker_dagster.errors import InvalidInput

SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024
_STEP_S = 30
_STEPS_APART = (-1, 0, 1)
"""A phone's clock may be one step off."""

HASHER = PasswordHasher()


def check_password_rules(name: str, password: str) -> None:
    """Raises `InvalidInput` for a password that is too short, absurdly long, or holds the person's name."""
    if len(password) < SHORTEST_PASSWORD:
        raise InvalidInput(f"the password has {len(password)} characters; use {SHORTEST_PASSWORD} or more")
    if len(password) > _LONGEST_PASSWORD:
        raise InvalidInput(f"the password has {len(password)} characters; {_LONGEST_PASSWORD} are the most")
    if name.lower() in password.lower():
        raise InvalidInput("the password holds the person's name; choose one that does not")
    if len(set(password)) < 5:
        raise InvalidInput("the password repeats a few characters; choose one that is harder to guess")


def hash_password(password: str) -> str:
    """The argon2id hash, with its salt and parameters."""
    return HASHER.hash(password)


def password_fits(stored: str | None, password: str) -> bool:
    """Whether the password is the one that was hashed; takes as long where there is none, so that time tells nobody."""
    try:
        HASHER.verify(stored or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def new_totp_secret() -> str:
    """A fresh secret of 160 bits in base 32, as authenticator apps take it."""
    import pyotp

    return pyotp.random_base32()


def totp_address(name: str, secret: str) -> str:
    """The `otpauth://` address that an authenticator app reads from a QR code."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="StockPicker")


def totp_step(secret: str, code: str, now: datetime) -> int | None:
    """The time step whose code this is, within one step of `now`; None if it is no code of those."""
    import pyotp

    current = int(now.timestamp()) // _STEP_S
    wanted = code.strip().replace(" ", "")
    found = None
    for step in (current + apart for apart in _STEPS_APART):
        # No early exit: how long it takes says nothing about which step it was.
        if hmac.compare_digest(pyotp.TOTP(secret).generate_otp(step).encode(), wanted.encode()):
            found = step
    return found


def new_token() -> str:
    """A random secret of 256 bits for tokens and sessions, as text for a header or a cookie."""
    return random.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a random secret. It has too many possibilities to be guessed, so one SHA-256 is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    return HASHER.hash(random.token_urlsafe(16))
