"""Credentials come from the environment or one private file, and an account's own come first."""

from pathlib import Path

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.brokers.credentials import SECRETS_FILE, credential


def test_an_accounts_own_value_comes_before_the_common_one() -> None:
    environment = {"KEY": "common", "KEY__US_LIVE": " own "}
    assert credential("KEY", "us-live", environment) == "own"
    assert credential("KEY", "us-paper", environment) == "common"


def test_what_is_missing_is_named_with_both_ways_to_set_it() -> None:
    with pytest.raises(InvalidInput, match=r"needs KEY; set it \(or KEY__US_LIVE, for this account alone\)"):
        credential("KEY", "us-live", {"KEY": "  "})


def test_a_private_file_is_read_and_one_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text('# comment\nKEY = "quoted"\nOTHER=a=b\n\n')
    environment = {SECRETS_FILE: str(file)}
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(InvalidInput, match="chmod 600"):
            credential("KEY", "us", environment)
    file.chmod(0o600)
    assert credential("KEY", "us", environment) == "quoted"
    assert credential("OTHER", "us", environment) == "a=b"
    assert credential("KEY", "us", {**environment, "KEY": "environment first"}) == "environment first"
    with pytest.raises(InvalidInput, match="cannot be read"):
        credential("KEY", "us", {SECRETS_FILE: str(tmp_path / "none")})
