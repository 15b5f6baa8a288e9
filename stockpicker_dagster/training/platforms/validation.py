"""Requests checked before they are sent: against botocore's own model of SageMaker, its limits and patterns included.

boto3 sends whatever has the right types; lengths, patterns, enumerations and quotas are only refused by the service,
minutes or an upload later. Here they raise the service's own error at once, naming the member and what is allowed.
"""

import difflib
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from botocore import model
from botocore.validate import ParamValidator

from stockpicker_dagster.training.platforms.errors import client_error

QUOTAS = {"HyperParameters": 100, "InputDataConfig": 20, "Tags": 50}
"""How many of each one request may have."""


def validate_request(operation: str, request: dict[str, Any], schemes: Collection[str] = ("s3", "https")) -> None:
    """Raises `ClientError` with `ValidationException` unless SageMaker could accept `request` for `operation`.

    `operation` is named as in the API (`CreateTrainingJob`). `schemes` are those that a URI may have.
    """
    shape = _shape(operation)
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise client_error(operation, "ValidationException", report.generate_report())
    wrong = list(_mistakes(request, shape, "", tuple(schemes)))
    wrong += [
        f"{name} has {len(request[name])} entries; allowed: at most {most}"
        for name, most in QUOTAS.items()
        if len(request.get(name) or ()) > most
    ]
    wrong += _disagreements(operation, request)
    if wrong:
        raise client_error(operation, "ValidationException", "; ".join(wrong))


def allowed_values(shape: str) -> list[str]:
    """What an enumeration of SageMaker allows, such as `TrainingInstanceType`."""
    return list(_service().shape_for(shape).metadata["enum"])


def _mistakes(value: Any, shape: Any, where: str, schemes: tuple[str, ...]) -> Any:
    if isinstance(shape, model.StructureShape):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _mistakes(value[name], member, f"{where}.{name}" if where else name, schemes)
    elif isinstance(shape, model.ListShape):
        for position, each in enumerate(value):
            yield from _mistakes(each, shape.member, f"{where}[{position}]", schemes)
    elif isinstance(shape, model.MapShape):
        for key, each in value.items():
            yield from _mistakes(key, shape.key, f"the key {key!r} of {where}", schemes)
            yield from _mistakes(each, shape.value, f"{where}[{key!r}]", schemes)
    else:
        yield from _scalar_mistakes(value, shape, where, schemes)
    limits = shape.metadata if not isinstance(shape, model.StructureShape) else {}
    size = len(value) if isinstance(value, str | list | tuple | dict) else value
    if "max" in limits and isinstance(size, int | float) and size > limits["max"]:
        kind = "characters" if isinstance(value, str) else "entries" if not isinstance(value, int | float) else "it"
        shown = f"is {value}" if kind == "it" else f"has {size} {kind}"
        yield f"{where} {shown}; allowed: at most {limits['max']}"


def _scalar_mistakes(value: Any, shape: Any, where: str, schemes: tuple[str, ...]) -> Any:
    if not isinstance(value, str):
        return
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=5, cutoff=0.5)
        listed = ", ".join(near or allowed[:20]) + (" ..." if len(allowed) > len(near or allowed[:20]) else "")
        yield f"{where} {value!r} is not allowed; allowed: {listed}"
    pattern = shape.metadata.get("pattern")
    if pattern and "://" in pattern and "s3" in pattern:
        # URIs: which schemes there are is the platform's, and none of them steps out of its folder.
        if not re.fullmatch(rf"({'|'.join(schemes)})://.*", value, re.DOTALL) or ".." in value.split("/"):
            begin = " or ".join(schemes)
            yield f"{where} {value!r} is no URI of this platform; it begins with {begin}://, without '..'"
    elif pattern and not re.fullmatch(_translated(pattern), value, re.DOTALL):
        yield f"{where} {value!r} is not allowed; allowed: {pattern}"


def _translated(pattern: str) -> str:
    """A pattern of the service, which speaks Java's dialect, for Python."""
    for theirs, ours in (("L", "\\w"), ("Z", "\\s"), ("N", "\\d"), ("Alnum", "a-zA-Z0-9")):
        pattern = pattern.replace(f"\\p{{{theirs}}}", ours)
    return pattern


def _disagreements(operation: str, request: dict[str, Any]) -> list[str]:
    """Members that are allowed by themselves and not together."""
    wrong = []
    if operation == "CreateTrainingJob":
        stop = request.get("StoppingCondition") or {}
        run, wait = stop.get("MaxRuntimeInSeconds", 86_400), stop.get("MaxWaitTimeInSeconds")
        if wait is not None and wait < run:
            wrong.append(f"MaxWaitTimeInSeconds {wait} is less than MaxRuntimeInSeconds {run}")
        if request.get("EnableManagedSpotTraining") and wait is None:
            wrong.append("EnableManagedSpotTraining needs MaxWaitTimeInSeconds")
        names = [channel["ChannelName"] for channel in request.get("InputDataConfig") or []]
        if len(set(names)) != len(names):
            wrong.append(f"InputDataConfig names a channel twice: {', '.join(names)}")
        if dotted := [name for name in names if set(name) == {"."}]:
            wrong.append(f"ChannelName {dotted[0]!r} is no name of a folder")
    if operation == "CreateTransformJob":
        payload, at_once = request.get("MaxPayloadInMB", 6), request.get("MaxConcurrentTransforms") or 1
        if payload > 100 or payload * at_once > 100:
            wrong.append(
                f"MaxPayloadInMB {payload} times MaxConcurrentTransforms {at_once} is above 100; lower one of them"
            )
        split = (request.get("TransformInput") or {}).get("SplitType", "None")
        if request.get("BatchStrategy") == "MultiRecord" and split == "None":
            wrong.append("BatchStrategy MultiRecord needs a SplitType")
        joined = (request.get("DataProcessing") or {}).get("JoinSource", "None") == "Input"
        if joined and (split != "Line" or (request.get("TransformOutput") or {}).get("AssembleWith") != "Line"):
            wrong.append("JoinSource Input needs SplitType Line and AssembleWith Line")
    if operation == "CreateEndpointConfig":
        for variant in request.get("ProductionVariants") or []:
            wrong += _variant_mistakes(variant)
    return wrong


def _variant_mistakes(variant: dict[str, Any]) -> list[str]:
    """What is wrong with what a variant runs on: either instances, or no server of its own."""
    serverless, named = variant.get("ServerlessConfig"), variant.get("VariantName")
    instances = [name for name in ("InstanceType", "InitialInstanceCount") if name in variant]
    if serverless is None:
        missing = [name for name in ("InstanceType", "InitialInstanceCount") if name not in variant]
        return [f"the variant {named!r} lacks {' and '.join(missing)}, or a ServerlessConfig"] if missing else []
    wrong = [f"the variant {named!r} has a ServerlessConfig, and {' and '.join(instances)}"] if instances else []
    if serverless["MemorySizeInMB"] % 1024:
        wrong.append(f"MemorySizeInMB {serverless['MemorySizeInMB']} is not allowed; allowed: 1024, 2048, ... 6144")
    return wrong


@lru_cache(maxsize=1)
def _service() -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model("sagemaker")


@lru_cache(maxsize=64)
def _shape(operation: str) -> Any:
    return _service().operation_model(operation).input_shape
