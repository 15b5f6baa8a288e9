"""Secrets are what the standards say, and nothing that is stored gives one away."""

from datetime import UTC, datetime, timedelta

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.people import secrets
from stockpicker_dagster_tests.trading.people.conftest import NOON, PASSWORD

RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # "12345678901234567890", of RFC 6238's appendix B


@pytest.mark.parametrize(("second", "code"), [(59, "287082"), (1111111109, "081804"), (20000000000, "353130")])
def test_codes_are_those_of_the_standard(second: int, code: str) -> None:
    moment = datetime.fromtimestamp(second, UTC)
    assert secrets.totp_step(RFC_SECRET, code, moment) == second // 30


def test_a_phone_may_be_one_step_off_and_no_more() -> None:
    late = datetime.fromtimestamp(59, UTC)
    assert secrets.totp_step(RFC_SECRET, "287 082", late + timedelta(seconds=30)) == 1
    assert secrets.totp_step(RFC_SECRET, "287082", late + timedelta(seconds=61)) is None
    assert secrets.totp_step(RFC_SECRET, "28708", late) is None
    assert secrets.totp_step(RFC_SECRET, "", late) is None


def test_a_password_fits_its_own_hash_only() -> None:
    stored = secrets.hash_password(PASSWORD)
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored
    assert secrets.password_fits(stored, PASSWORD)
    assert not secrets.password_fits(stored, PASSWORD + "x")
    assert not secrets.password_fits(None, PASSWORD)
    assert not secrets.password_fits("not a hash", PASSWORD)


@pytest.mark.parametrize(
    ("password", "why"),
    [("short", "12 or more"), ("x" * 1025, "the most"), ("Ada's password", "name"), ("ab" * 8, "few")],
)
def test_weak_passwords_are_refused(password: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        secrets.check_password_rules("ada", password)


def test_the_address_for_an_app_names_person_and_issuer() -> None:
    address = secrets.totp_address("ada", RFC_SECRET)
    assert address.startswith("otpauth://totp/StockPicker:ada?secret=" + RFC_SECRET)
    assert NOON.tzinfo is UTC
