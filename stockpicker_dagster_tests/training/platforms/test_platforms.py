"""The list of platforms."""

from pathlib import Path

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import platform, platforms_of_deployment
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT, set_environment


def test_an_unknown_platform_is_refused_with_those_known() -> None:
    with pytest.raises(InvalidInput, match=r"platform 'cluster' is unknown; known: .*local"):
        platform("cluster")


def test_what_is_left_is_looked_for_on_every_platform_that_strategies_can_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    assert [place.name for place in platforms_of_deployment()] == ["local"]
    set_environment(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_AWS_ACCOUNT", ACCOUNT)
    assert [place.name for place in platforms_of_deployment()] == ["sagemaker", "local"]
