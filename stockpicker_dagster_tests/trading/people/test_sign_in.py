"""Who signs in has proved it; guessing is limited, and a code works once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pyotp
import pytest
from sqlalchemy import Engine

from stockpicker_dagster.trading.people import directory, secrets, sign_in
from stockpicker_dagster.trading.people.sign_in import SignInRefused
from stockpicker_dagster_tests.trading.people.conftest import NOON, PASSWORD


def enter(
    engine: Any, password: str = PASSWORD, code: str | None = None, at: timedelta = timedelta(), who: str = "ada"
):
    return sign_in.sign_in(engine, who, password, code, "cli:somebody", NOON + at)


def with_codes(engine: Any) -> str:
    secret = secrets.new_totp_secret()
    directory.set_totp(engine, "ada", secret, pyotp.TOTP(secret).at(NOON), "ada", NOON)
    return secret


def test_the_right_password_is_a_proof(people: Any) -> None:
    assert enter(people) == sign_in.Proof("ada", "password", NOON)


def test_a_refusal_does_not_say_what_was_wrong(people: Any) -> None:
    messages = set()
    for password, who in ((PASSWORD + "x", "ada"), (PASSWORD, "nobody")):
        with pytest.raises(SignInRefused) as refused:
            enter(people, password, who=who)
        messages.add(str(refused.value))
    assert len(messages) == 1


def test_a_disabled_person_does_not_get_in(people: Any) -> None:
    directory.add_person(people, "bob", "administrator", PASSWORD, "ada", NOON)
    directory.disable(people, "ada", "bob", NOON)
    with pytest.raises(SignInRefused):
        enter(people)
    with pytest.raises(SignInRefused):
        sign_in.prove_again(people, "ada", PASSWORD, "web", NOON)


def test_guessing_stops_after_five_and_starts_again_later(people: Any) -> None:
    for _ in range(sign_in.FAILURES_OF_ONE):
        with pytest.raises(SignInRefused, match="do not fit"):
            enter(people, "wrong password")
    with pytest.raises(SignInRefused, match="too many tries"):
        enter(people)
    # Somebody elsewhere is not locked out by a stranger's guesses.
    assert sign_in.sign_in(people, "ada", PASSWORD, None, "web:elsewhere", NOON).person == "ada"
    assert enter(people, at=sign_in.WINDOW + timedelta(seconds=1)).person == "ada"


def test_many_guesses_at_once_gain_nothing(any_engine: Engine) -> None:
    directory.add_person(any_engine, "ada", "administrator", PASSWORD, "os:root", NOON)

    def guess(number: int) -> bool:
        try:
            enter(any_engine, f"wrong password {number}")
        except SignInRefused as refused:
            return "do not fit" in str(refused)
        return True

    with ThreadPoolExecutor(8) as pool:
        looked_at = sum(pool.map(guess, range(24)))
    assert looked_at == sign_in.FAILURES_OF_ONE


def test_codes_are_asked_for_where_they_are_on_and_work_once(people: Any) -> None:
    secret = with_codes(people)
    later = timedelta(minutes=1)
    code = pyotp.TOTP(secret).at(NOON + later)
    assert sign_in.needs_code(people, "ada")
    for wrong in (None, "", "000000", pyotp.TOTP(secret).at(NOON)):  # the last one was used to turn codes on
        with pytest.raises(SignInRefused):
            enter(people, code=wrong, at=later)
    assert enter(people, code=code, at=later).method == "password+totp"
    with pytest.raises(SignInRefused):
        enter(people, code=code, at=later + timedelta(seconds=5))


def test_one_code_used_twice_at_once_works_once(any_engine: Engine) -> None:
    directory.add_person(any_engine, "ada", "administrator", PASSWORD, "os:root", NOON)
    secret = with_codes(any_engine)
    at = timedelta(minutes=2)
    code = pyotp.TOTP(secret).at(NOON + at)

    def use(number: int) -> bool:
        try:
            sign_in.prove_again(any_engine, "ada", code, f"web:{number}", NOON + at)
        except SignInRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 1


def test_a_fresh_proof_is_a_password_or_a_code(people: Any) -> None:
    secret = with_codes(people)
    at = NOON + timedelta(minutes=1)
    assert sign_in.prove_again(people, "ada", PASSWORD, "web", at).method == "password"
    assert sign_in.prove_again(people, "ada", pyotp.TOTP(secret).at(at), "web", at).method == "totp"
    with pytest.raises(SignInRefused):
        sign_in.prove_again(people, "ada", "wrong password", "web", at)


def test_a_code_that_does_not_fit_turns_nothing_on(people: Any) -> None:
    from stockpicker_dagster.errors import InvalidInput

    with pytest.raises(InvalidInput, match="does not fit"):
        directory.set_totp(people, "ada", secrets.new_totp_secret(), "000000", "ada", NOON)
    assert not sign_in.needs_code(people, "ada")
