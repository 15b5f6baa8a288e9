"""What the guard lets through, judged against Dagster's own schema and by hiding what is refused in every way known."""

import json

import pytest
from dagster_graphql.schema import create_schema
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.console import operations
from stockpicker_dagster.console.operations import (
    ADMINISTRATORS_MUTATIONS,
    NO_MUTATIONS,
    RESEARCHERS_MUTATIONS,
    RefusedOperation,
    checked_subscription,
)


def checked_request(payload: object, allowed: frozenset[str] = RESEARCHERS_MUTATIONS) -> dict[str, object]:
    """As it is judged for a researcher, unless said otherwise."""
    return operations.checked_request(payload, allowed)


@pytest.fixture(scope="module")
def schema():
    return create_schema().graphql_schema


def test_every_mutation_that_is_not_named_is_refused(schema) -> None:
    known = set(schema.mutation_type.fields)
    for allowed in (NO_MUTATIONS, RESEARCHERS_MUTATIONS, ADMINISTRATORS_MUTATIONS):
        assert known >= allowed, "an allowed name that Dagster does not know guards nothing"
        for name in known - allowed:
            with pytest.raises(RefusedOperation, match=name):
                checked_request({"query": f"mutation {{ harmless: {name} {{ __typename }} }}"}, allowed)


def test_a_researcher_forgets_nothing_and_nobody_writes_history(schema) -> None:
    known = set(schema.mutation_type.fields)
    forgetting = {"wipeAssets", "deleteRun", "setSensorCursor", "shutdownRepositoryLocation"}
    assert forgetting <= ADMINISTRATORS_MUTATIONS - RESEARCHERS_MUTATIONS
    assert {"reportRunlessAssetEvents", "reportAssetCheckEvaluations"} <= known - ADMINISTRATORS_MUTATIONS
    assert not {name for name in ADMINISTRATORS_MUTATIONS if name.startswith("report")}


def test_run_configuration_has_one_name_everywhere_in_dagsters_schema(schema) -> None:
    """The guard looks for `runConfigData`: another field of that type would slip past it."""
    names = set()
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLInputObjectType):
            names |= {n for n, f in kind.fields.items() if get_named_type(f.type).name == "RunConfigData"}
        elif isinstance(kind, GraphQLObjectType):
            for field in kind.fields.values():
                names |= {n for n, a in field.args.items() if get_named_type(a.type).name == "RunConfigData"}
    assert names == {"runConfigData"}


LAUNCH = "mutation L($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"


def _literal(value: object) -> str:
    """`value` as GraphQL writes literals: names of fields are not quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_literal(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


HIDING_PLACES = {
    "variable": lambda config: {"query": LAUNCH, "variables": {"p": {"runConfigData": config}}},
    "variables as text": lambda config: {
        "query": LAUNCH,
        "variables": json.dumps({"p": {"runConfigData": config}}),
    },
    "text in a variable": lambda config: {"query": LAUNCH, "variables": {"p": {"runConfigData": json.dumps(config)}}},
    "literal": lambda config: {
        "query": f"mutation {{ launchRun(executionParams: {{runConfigData: {_literal(config)}}}) {{ __typename }} }}"
    },
    "literal text": lambda config: {
        "query": "mutation { launchRun(executionParams: {runConfigData: "
        + json.dumps(json.dumps(config))
        + "}) { __typename } }"
    },
    "variable inside a literal": lambda config: {
        "query": "mutation($c: RunConfigData) { launchRun(executionParams: {runConfigData: $c}) { __typename } }",
        "variables": {"c": config},
    },
    "default of a variable": lambda config: {
        "query": f"mutation($c: RunConfigData = {_literal(config)})"
        "{ launchRun(executionParams: {runConfigData: $c}) { __typename } }"
    },
    "list of launches": lambda config: {
        "query": "mutation($l: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $l) { __typename } }",
        "variables": {"l": [{}, {"runConfigData": config}]},
    },
    "second operation": lambda config: {
        "query": "query A { version } mutation B { b: launchRun(executionParams: {runConfigData: "
        f"{_literal(config)}}}) {{ __typename }} }}",
        "operationName": "A",
    },
    "reexecution": lambda config: {
        "query": "mutation($p: ExecutionParams) { launchRunReexecution(executionParams: $p) { __typename } }",
        "variables": {"p": {"runConfigData": config}},
    },
}
words = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)


@pytest.mark.parametrize("place", HIDING_PLACES)
@given(
    forbidden=st.sampled_from(["resources", "execution", "loggers", "Resources", "solids"]),
    harmless=st.dictionaries(st.sampled_from(["ops", "inputs"]), st.dictionaries(words, st.integers()), max_size=2),
    value=st.dictionaries(words, words, max_size=2),
)
@settings(max_examples=25, deadline=None)
def test_no_hiding_place_takes_run_configuration_past_the_guard(place, forbidden, harmless, value) -> None:
    hide = HIDING_PLACES[place]
    checked_request(hide(harmless))
    with pytest.raises(RefusedOperation, match=f"may not set {forbidden}"):
        checked_request(hide({**harmless, forbidden: value}))


def test_yaml_is_read_as_dagster_reads_it() -> None:
    anchored = "defaults: &d {io_manager: {}}\nresources: *d\n"
    merged = "<<: {resources: {broker: {config: {url: x}}}}\n"
    for text in (anchored, merged, "{resources: {}}", "? resources\n: {}"):
        with pytest.raises(RefusedOperation, match="resources"):
            checked_request({"query": LAUNCH, "variables": {"p": {"runConfigData": text}}})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ([{"query": "{ version }"}], "lists"),
        ("{ version }", "one JSON object"),
        (None, "one JSON object"),
        ({"query": ["{ version }"]}, "as text"),
        ({"query": "{ version"}, "cannot be read"),
        ({"query": "fragment F on Mutation { wipeAssets }"}, "no operation"),
        ({"query": "mutation { ...F } fragment F on Mutation { wipeAssets { __typename } }"}, "fragments"),
        ({"query": "mutation { ... on Mutation { wipeAssets { __typename } } }"}, "fragments"),
        ({"query": "mutation { launchRun: wipeAssets { __typename } }"}, "wipeAssets"),
        ({"query": "subscription { capturedLogs { __typename } }"}, "web socket"),
        ({"query": "{ version }", "variables": "[1"}, "not JSON"),
        ({"query": "{ version }", "variables": [1]}, "one JSON object"),
        ({"query": "{ version }", "operationName": {"a": 1}}, "text"),
        ({"query": "{ a " * 60_000}, "cannot be read"),
        ({"query": "{ a " * 4_000 + "}" * 4_000}, "nested too deeply"),
    ],
)
def test_requests_that_two_readers_could_read_differently_are_refused(payload: object, why: str) -> None:
    with pytest.raises(RefusedOperation, match=why):
        checked_request(payload)


def test_what_passes_is_only_what_was_judged() -> None:
    passed = checked_request({"query": "{ version }", "extensions": {"persistedQuery": 1}, "variables": None})
    assert passed == {"query": "{ version }", "variables": {}, "operationName": None}


@pytest.mark.parametrize("query", ["mutation { launchRun { id } }", "{ version }", "subscription A { a } { b }"])
def test_a_web_socket_carries_subscriptions_only(query: str) -> None:
    with pytest.raises(RefusedOperation, match="subscriptions only"):
        checked_subscription({"query": query})
    assert checked_subscription({"query": "subscription A { a }"})["query"] == "subscription A { a }"
