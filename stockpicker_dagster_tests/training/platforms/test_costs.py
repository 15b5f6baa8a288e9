"""An estimate says what it multiplied, and never invents a price."""

from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms.costs import estimate


class _Place:
    name = "sagemaker"


PLACE: Any = _Place()


def test_hours_times_instances_times_the_price() -> None:
    said = estimate(PLACE, {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2}, 1800)
    assert said == {"cost_estimate": 0.269, "cost_formula": "1800 s / 3600 x 2 x 0.269 (ml.m5.xlarge)"}
    said = estimate(PLACE, {"MemorySizeInMB": 3072}, 100)
    assert said == {"cost_estimate": 0.006, "cost_formula": "at most 100 s x 3 GB x 2e-05 (serverless-gb-second)"}


def test_prices_of_ones_own_count_and_unknown_ones_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    unknown = estimate(PLACE, machine, 3600)
    assert unknown == {
        "cost_formula": "3600 s / 3600 x 1 x the price of ml.g5.xlarge, which is not known; set STOCKPICKER_AWS_PRICES"
    }
    monkeypatch.setenv("STOCKPICKER_AWS_PRICES", "ml.g5.xlarge=1.5, ml.m5.xlarge=0.3")
    assert estimate(PLACE, machine, 3600)["cost_estimate"] == 1.5
    monkeypatch.setenv("STOCKPICKER_AWS_PRICES", "ml.g5.xlarge:1.5")
    with pytest.raises(InvalidInput, match=r"cannot be read; write it as ml\.m5\.xlarge=0\.269"):
        estimate(PLACE, machine, 3600)


def test_this_machine_sends_no_bill() -> None:
    place: Any = type("Place", (), {"name": "local"})()
    assert estimate(place, {"InstanceType": "ml.m5.large"}, 3600) == {}
