"""A token is its owner's, for a time, and cannot be read back."""

from datetime import timedelta
from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.people import directory, tokens
from stockpicker_dagster.trading.people.directory import NotAllowed
from stockpicker_dagster.trading.people.sign_in import SignInRefused
from stockpicker_dagster_tests.trading.people.conftest import NOON, PASSWORD

DAY = timedelta(days=1)


def test_a_token_stands_for_its_person_until_it_ends(people: Any) -> None:
    token, secret = tokens.create_token(people, "ada", "nightly script", DAY, NOON)
    assert tokens.person_of_token(people, secret, NOON).name == "ada"
    assert tokens.tokens_of(people, "ada")[0].used_at == NOON
    for wrong, at in ((secret, NOON + DAY), (secret + "x", NOON), (token.id, NOON), ("", NOON)):
        with pytest.raises(SignInRefused):
            tokens.person_of_token(people, wrong, at)


def test_a_revoked_token_is_worth_nothing(people: Any) -> None:
    directory.add_person(people, "vic", "viewer", PASSWORD, "ada", NOON)
    token, secret = tokens.create_token(people, "ada", "script", DAY, NOON)
    with pytest.raises(NotAllowed):
        tokens.revoke_token(people, token.id, "vic", NOON)
    tokens.revoke_token(people, token.id, "ada", NOON)
    with pytest.raises(SignInRefused):
        tokens.person_of_token(people, secret, NOON)


def test_a_disabled_person_s_token_is_worth_nothing(people: Any) -> None:
    directory.add_person(people, "vic", "viewer", PASSWORD, "ada", NOON)
    _, secret = tokens.create_token(people, "vic", "script", DAY, NOON)
    directory.disable(people, "vic", "ada", NOON)
    with pytest.raises(SignInRefused):
        tokens.person_of_token(people, secret, NOON)


@pytest.mark.parametrize("lasts", [timedelta(), timedelta(days=366), -DAY])
def test_tokens_do_not_last_for_ever(people: Any, lasts: timedelta) -> None:
    with pytest.raises(InvalidInput, match="up to 365 days"):
        tokens.create_token(people, "ada", "script", lasts, NOON)
