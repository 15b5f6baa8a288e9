"""A decision is believed if a trusted key signed exactly it."""

import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.signatures import (
    TRUSTED_KEYS,
    NotSigned,
    SignedDecision,
    TrustedKeys,
    load_signing_key,
    load_trusted_keys,
    make_signing_key,
)

GIVEN = SignedDecision("ab" * 32, "live", "ada", "approve", "", "password", datetime(2024, 3, 5, tzinfo=UTC))


def trusting(tmp_path: Path, line: str) -> TrustedKeys:
    (tmp_path / TRUSTED_KEYS).write_text(f"# the desk\n\n{line} # its key\n")
    return load_trusted_keys(tmp_path / TRUSTED_KEYS)


def test_a_signature_covers_every_part(tmp_path: Path) -> None:
    signer = make_signing_key(tmp_path)
    trusted, signature = trusting(tmp_path, signer.public_text), signer.sign(GIVEN)
    trusted.verify(GIVEN, signer.key, signature)
    changed = {
        "digest": "ac" * 32,
        "account": "other",
        "person": "eve",
        "decision": "deny",
        "reason": "x",
        "method": "totp",
        "decided_at": datetime(2024, 3, 6, tzinfo=UTC),
    }
    assert set(changed) == set(vars(GIVEN))
    for name, value in changed.items():
        with pytest.raises(NotSigned, match="does not fit"):
            trusted.verify(replace(GIVEN, **{name: value}), signer.key, signature)  # type: ignore[arg-type]


def test_only_trusted_keys_count(tmp_path: Path) -> None:
    signer, stranger = make_signing_key(tmp_path / "a"), make_signing_key(tmp_path / "b")
    trusted = trusting(tmp_path, signer.public_text)
    with pytest.raises(NotSigned, match="not trusted here"):
        trusted.verify(GIVEN, stranger.key, stranger.sign(GIVEN))
    with pytest.raises(NotSigned, match="does not fit"):
        trusted.verify(GIVEN, signer.key, stranger.sign(GIVEN))
    for key, signature in ((None, None), (signer.key, None), (None, signer.sign(GIVEN))):
        with pytest.raises(NotSigned, match="is not signed"):
            trusted.verify(GIVEN, key, signature)
    with pytest.raises(NotSigned, match="does not fit"):
        trusted.verify(GIVEN, signer.key, "no base 64!")
    assert len(load_trusted_keys(tmp_path / "missing")) == 0


def test_a_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    signer = make_signing_key(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "decisions.pem").stat().st_mode) == 0o600
    with pytest.raises(InvalidInput, match="already"):
        make_signing_key(tmp_path / "keys")
    again = load_signing_key(tmp_path / "keys")
    assert (again.key, again.sign(GIVEN)) == (signer.key, signer.sign(GIVEN))
    with pytest.raises(NotSigned, match="signing-key` makes one"):
        load_signing_key(tmp_path / "elsewhere")


def test_a_list_that_is_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no public key"):
        trusting(tmp_path, "bm90IGEga2V5")
