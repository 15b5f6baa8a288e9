"""Signed decisions: made where a person decides, verified where an order is sent (Ed25519, RFC 8032).

Whoever can write to the database alone can not make an approval: the signing key is in the state folder of the machine
on which people decide, and the trader believes only the public keys in its own list. The database carries signatures,
never keys. A key's name is the start of the SHA-256 of its public bytes.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.trading.canonical import canonical_bytes, digest

SIGNING_KEY = "decisions.pem"
TRUSTED_KEYS = "trusted_keys"
_NAME_LENGTH = 16


class NotSigned(StockPickerError):
    """A decision carries no signature of a trusted key, or one that does not fit."""


@dataclass(frozen=True)
class SignedDecision:
    """What a signature covers: the whole proposal by its digest, and who decided what about it, when, how and why."""

    digest: str
    account: str
    person: str
    decision: str
    reason: str
    method: str
    decided_at: datetime

    def to_bytes(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical_bytes({"format": "stockpicker-decision/1", **vars(self)})


@dataclass(frozen=True)
class Signer:
    """Signs decisions; `key` is the name of its public key."""

    key: str
    _private: Ed25519PrivateKey

    def sign(self, decision: SignedDecision) -> str:
        """The signature, in base 64."""
        return base64.b64encode(self._private.sign(decision.to_bytes())).decode()

    @property
    def public_text(self) -> str:
        """The public key as one line of a list of trusted keys."""
        return base64.b64encode(_public_bytes(self._private.public_key())).decode()


class TrustedKeys:
    """The public keys that a trader believes."""

    def __init__(self, keys: Iterable[Ed25519PublicKey] = ()) -> None:
        self._keys: Mapping[str, Ed25519PublicKey] = {_name(key): key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def verify(self, decision: SignedDecision, key: str | None, signature: str | None) -> None:
        """Raises `NotSigned`, saying why, unless a trusted key signed exactly this."""
        if key is None or signature is None:
            raise NotSigned(f"the decision of {decision.person} is not signed")
        if key not in self._keys:
            raise NotSigned(
                f"the decision of {decision.person} is signed by key {key}, which is not trusted here; trusted: "
                f"{', '.join(sorted(self._keys)) or 'none'}"
            )
        try:
            self._keys[key].verify(base64.b64decode(signature, validate=True), decision.to_bytes())
        except (InvalidSignature, ValueError) as error:
            raise NotSigned(f"the signature of {decision.person}'s decision does not fit it") from error


def make_signing_key(folder: Path) -> Signer:
    """A new signing key in `folder`, readable by its owner alone; raises `InvalidInput` where there is one already."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / SIGNING_KEY
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput(f"there is a signing key in {path} already; move it away to make another one") from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return Signer(_name(private.public_key()), private)


def load_signing_key(folder: Path) -> Signer:
    """The signing key of this machine; raises `NotSigned`, saying how to make one."""
    path = folder / SIGNING_KEY
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise NotSigned(f"there is no signing key in {path}; `stockpicker account signing-key` makes one") from error
    except ValueError as error:
        raise NotSigned(f"{path} holds no signing key: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise NotSigned(f"{path} holds a key of another kind; it has to be Ed25519")
    return Signer(_name(private.public_key()), private)


def load_trusted_keys(path: Path) -> TrustedKeys:
    """The keys listed in `path`, one in base 64 a line, `#` before remarks; none where there is no such file."""
    if not path.is_file():
        return TrustedKeys()
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    try:
        return TrustedKeys(
            Ed25519PublicKey.from_public_bytes(base64.b64decode(line, validate=True)) for line in lines if line
        )
    except ValueError as error:
        raise InvalidInput(f"{path} holds a line that is no public key: {error}") from error


def _public_bytes(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _name(key: Ed25519PublicKey) -> str:
    return digest(_public_bytes(key))[:_NAME_LENGTH]
