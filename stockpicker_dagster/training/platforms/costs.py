"""What a job or an endpoint costs about: seconds times instances times the price of the machine.

Prices differ by region, contract and year, so that an estimate says which price it used. `STOCKPICKER_AWS_PRICES` gives
one's own, in any currency: `ml.m5.xlarge=0.269,serverless-gb-second=0.00002`.
"""

import os
from collections.abc import Mapping
from typing import Any

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import Answer, Jobs

PRICES = "STOCKPICKER_AWS_PRICES"
SERVERLESS_PRICE = "serverless-gb-second"
_KNOWN = {"ml.m5.large": 0.1345, "ml.m5.xlarge": 0.269, "ml.m5.2xlarge": 0.538, "ml.m5.4xlarge": 1.076}
"""US dollars an hour, about; what most runs use. A serverless endpoint: for each GB of memory and second."""
_KNOWN_SERVERLESS = 0.00002


def price_of(machine: str) -> float | None:
    """The price of a machine's hour, or of `serverless-gb-second`; None if it is not known.

    Raises `InvalidInput` if the environment's prices cannot be read.
    """
    own = os.environ.get(PRICES, "")
    try:
        pairs = [each.partition("=") for each in own.split(",") if each.strip()]
        prices = {name.strip(): float(price) for name, _, price in pairs}
    except ValueError:
        said = f"{PRICES}={own!r} cannot be read; write it as ml.m5.xlarge=0.269,ml.c5.xlarge=0.24"
        raise InvalidInput(said) from None
    return prices.get(machine, _KNOWN_SERVERLESS if machine == SERVERLESS_PRICE else _KNOWN.get(machine))


def estimate(platform: Jobs, resources: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Metadata about the cost of `resources` (of a job, or `ServerlessConfig`) for so long; none on this machine.

    `cost_estimate` is left out where no price is known; `cost_formula` says how it was reckoned, or what to set.
    """
    if platform.name == "local":
        return {}
    if "MemorySizeInMB" in resources:
        units, machine = seconds * resources["MemorySizeInMB"] / 1024, SERVERLESS_PRICE
        reckoned = f"at most {seconds:.0f} s x {resources['MemorySizeInMB'] / 1024:g} GB"
    else:
        machine = str(resources["InstanceType"])
        count = int(resources.get("InstanceCount") or resources.get("InitialInstanceCount") or 1)
        units, reckoned = seconds / 3600 * count, f"{seconds:.0f} s / 3600 x {count}"
    price = price_of(machine)
    if price is None:
        return {"cost_formula": f"{reckoned} x the price of {machine}, which is not known; set {PRICES}"}
    return {"cost_estimate": round(units * price, 6), "cost_formula": f"{reckoned} x {price:g} ({machine})"}


def billed_seconds(job: Answer) -> float:
    """For how many seconds a described job is billed; while spot capacity is used, less than it took. 0 if unknown."""
    if (said := job.get("BillableTimeInSeconds") or job.get("TrainingTimeInSeconds")) is not None:
        return float(said)
    for begins, ends in (("TransformStartTime", "TransformEndTime"), ("ProcessingStartTime", "ProcessingEndTime")):
        if job.get(begins) and job.get(ends):
            return float((job[ends] - job[begins]).total_seconds())
    return 0.0
