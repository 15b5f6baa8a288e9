"""The list of platforms."""

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import platform


def test_an_unknown_platform_is_refused_with_those_known() -> None:
    with pytest.raises(InvalidInput, match=r"platform 'cluster' is unknown; known: .*local"):
        platform("cluster")
