"""Which GraphQL operations pass the guard, read from the document itself and not from what the request calls it.

Reading is free. A mutation passes by name and by role: a researcher asks Dagster to do its work, an administrator also
deletes what Dagster remembers; nobody writes history (materializations, checks) that no run made. Run configuration
may set what an op is told, never which resource, executor or logger it gets: a redirected resource is a redirected
broker.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dagster_shared.yaml_utils import load_run_config_yaml
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    parse,
    value_from_ast_untyped,
)
from yaml import YAMLError

from stockpicker_dagster.errors import StockPickerError

RESEARCHERS_MUTATIONS = frozenset(
    {
        # Starting, repeating and ending work.
        "launchRun",
        "launchPipelineExecution",
        "launchMultipleRuns",
        "launchRunReexecution",
        "launchPipelineReexecution",
        "launchPartitionBackfill",
        "resumePartitionBackfill",
        "reexecutePartitionBackfill",
        "cancelPartitionBackfill",
        "terminateRun",
        "terminateRuns",
        "terminatePipelineExecution",
        # Turning what runs by itself on and off, and trying it without consequences.
        "startSchedule",
        "stopRunningSchedule",
        "resetSchedule",
        "startSensor",
        "stopSensor",
        "resetSensor",
        "scheduleDryRun",
        "sensorDryRun",
        "setAutoMaterializePaused",
        # Reading the definitions again.
        "reloadRepositoryLocation",
        "reloadWorkspace",
        # What the pages say about themselves; nothing is sent anywhere.
        "setNuxSeen",
        "logTelemetry",
    }
)
ADMINISTRATORS_MUTATIONS = RESEARCHERS_MUTATIONS | {
    # Forgetting: events of assets, runs, dynamic partitions. The lake and the ledger keep what they have.
    "wipeAssets",
    "deleteRun",
    "deletePipelineRun",
    "deleteDynamicPartitions",
    # Where a sensor goes on, and what holds runs back.
    "setSensorCursor",
    "setConcurrencyLimit",
    "deleteConcurrencyLimit",
    "freeConcurrencySlots",
    "freeConcurrencySlotsForRun",
    "shutdownRepositoryLocation",
}
NO_MUTATIONS: frozenset[str] = frozenset()
ALLOWED_RUN_CONFIG = frozenset({"ops", "inputs"})
# Bounds the work of reading a document; no page comes near it.
MAX_TOKENS = 50_000


class RefusedOperation(StockPickerError):
    """A GraphQL request asks for something that the guard lets nobody do here."""


def checked_request(payload: object, allowed: frozenset[str]) -> dict[str, object]:
    """The request that may be passed on: `query`, `variables` and `operationName`, and nothing else.

    `allowed` are the mutations of whoever asks.
    Every operation of the document is judged, whichever of them `operationName` picks. Raises `RefusedOperation`.
    """
    query, variables, name = _parts(payload)
    for operation in _operations(_document(query)):
        if operation.operation is OperationType.SUBSCRIPTION:
            raise RefusedOperation("a subscription belongs on the web socket")
        if operation.operation is OperationType.MUTATION:
            _check_mutation(operation, variables, allowed)
    return {"query": query, "variables": variables, "operationName": name}


def checked_subscription(payload: object) -> dict[str, object]:
    """The subscription that may be passed on; any other operation on a web socket raises `RefusedOperation`."""
    query, variables, _ = _parts(payload)
    for operation in _operations(_document(query)):
        if operation.operation is not OperationType.SUBSCRIPTION:
            raise RefusedOperation(f"a web socket carries subscriptions only, not a {operation.operation.value}")
    return {"query": query, "variables": variables}


def _parts(payload: object) -> tuple[str, dict[str, Any], str | None]:
    if not isinstance(payload, dict):
        raise RefusedOperation("a GraphQL request is one JSON object; lists of requests are not taken")
    query, variables, name = payload.get("query"), payload.get("variables"), payload.get("operationName")
    if not isinstance(query, str):
        raise RefusedOperation("a GraphQL request has its document as text in `query`")
    if isinstance(variables, str):
        # Dagster reads variables that are text as JSON; what it would read is what is judged here.
        try:
            variables = json.loads(variables)
        except json.JSONDecodeError as error:
            raise RefusedOperation(f"the variables are not JSON: {error.msg}") from error
    if variables is None:
        variables = {}
    if not isinstance(variables, dict):
        raise RefusedOperation("the variables of a GraphQL request are one JSON object")
    if name is not None and not isinstance(name, str):
        raise RefusedOperation("`operationName` is text")
    return query, variables, name


def _document(query: str) -> DocumentNode:
    try:
        return parse(query, no_location=True, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        raise RefusedOperation(f"the GraphQL document cannot be read: {error.message}") from error
    except RecursionError as error:
        raise RefusedOperation("the GraphQL document is nested too deeply") from error


def _operations(document: DocumentNode) -> Iterator[OperationDefinitionNode]:
    found = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if not found:
        raise RefusedOperation("the GraphQL document holds no operation")
    yield from found


def _check_mutation(operation: OperationDefinitionNode, variables: Mapping[str, Any], allowed: frozenset[str]) -> None:
    defaults = {
        definition.variable.name.value: value_from_ast_untyped(definition.default_value)
        for definition in operation.variable_definitions
        if definition.default_value is not None
    }
    known = {**defaults, **variables}
    for field in operation.selection_set.selections:
        if not isinstance(field, FieldNode):
            # A fragment here would hide what is asked for; the pages never write one.
            raise RefusedOperation("a mutation names its fields itself, not through fragments")
        if field.name.value not in allowed and field.name.value != "__typename":
            listed = ", ".join(sorted(allowed)) or "none for your role, which reads only"
            raise RefusedOperation(f"the mutation '{field.name.value}' is not allowed here; allowed: {listed}")
        for argument in field.arguments:
            for config in _run_configs(value_from_ast_untyped(argument.value, known)):
                _check_run_config(config)


def _run_configs(value: object) -> Iterator[object]:
    """Every value of a field called `runConfigData` inside an argument, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "runConfigData":
                yield inner
            else:
                yield from _run_configs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _run_configs(inner)


def _check_run_config(config: object) -> None:
    if isinstance(config, str):
        # The same reader that Dagster uses, so that both see the same keys.
        try:
            config = load_run_config_yaml(config)
        except YAMLError as error:
            raise RefusedOperation("the run configuration is not YAML") from error
    if not config:
        return
    if not isinstance(config, Mapping):
        raise RefusedOperation("the run configuration is one mapping")
    refused = sorted(str(key) for key in config if key not in ALLOWED_RUN_CONFIG)
    if refused:
        raise RefusedOperation(
            f"run configuration may not set {', '.join(refused)}; allowed: {', '.join(sorted(ALLOWED_RUN_CONFIG))}"
        )
