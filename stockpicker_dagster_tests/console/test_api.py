"""The API answers as its own document says, whatever it is asked, and shows what the pages show."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from stockpicker_dagster.console.api import PAGES, openapi
from stockpicker_dagster_tests.console.site import BASE, STRATEGY, Site


def test_the_document_names_every_address_once(read_site: Site) -> None:
    served = read_site.script("vera").get("/api/openapi.json").json()
    assert served == json.loads(json.dumps(openapi()))
    described = {(method.upper(), path) for path, said in served["paths"].items() for method in said}
    assert described == {(page.method, page.path) for page in PAGES}
    identifiers = [each["operationId"] for said in served["paths"].values() for each in said.values()]
    assert len(identifiers) == len(set(identifiers))


def test_whatever_is_asked_is_answered_as_described(read_site: Site) -> None:
    """Run by a person who reads only, so that nothing that is guessed can start or change anything."""
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", read_site.app, headers=_headers(read_site, "vera"))
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == len(PAGES) - 1, "all but the document itself"
    for operation in operations:

        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @_given(operation)
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(headers=_headers(read_site, "vera"), base_url=BASE)
            case.validate_response(
                answer,
                checks=[
                    schemathesis.checks.not_a_server_error,
                    *_checks("response_schema_conformance", "content_type_conformance", "status_code_conformance"),
                ],
            )

        ask()


def _given(operation):
    from hypothesis import given

    return given(case=operation.as_strategy())


def _checks(*names: str):
    from schemathesis.checks import load_all_checks
    from schemathesis.specs.openapi import checks

    load_all_checks()
    return [getattr(checks, name) for name in names]


def _headers(site: Site, person: str) -> dict[str, str]:
    return {"Authorization": site.script(person).headers["authorization"], "Host": BASE.removeprefix("http://")}


def test_the_ranking_is_the_pages_ranking(read_site: Site) -> None:
    rows = read_site.script("vera").get(f"/api/strategies/{STRATEGY}/ranking").json()["rows"]
    page = read_site.browser("vera").get(f"/ranking/{STRATEGY}.csv").text.strip().splitlines()[1:]
    assert [row["symbol"] for row in rows] == [line.split(",")[1] for line in page]


@pytest.mark.parametrize("path", ["/", "/people", "/proposals", "/dagster/"])
def test_a_token_opens_nothing_but_the_api(path: str, read_site: Site) -> None:
    assert read_site.script("root1").get(path).status_code == 403


@pytest.mark.parametrize("header", ["Bearer nonsense", "Basic YTpi", "Bearer", "", "Bearer sp_" + "0" * 43])
def test_a_wrong_token_opens_nothing(header: str, read_site: Site) -> None:
    assert read_site.stranger(Authorization=header).get("/api/today").status_code == 401


@pytest.mark.parametrize("path", ["/api/strategies/a\\b", "/api/today", "/api/strategies/%2e%2e"])
def test_what_the_door_refuses_a_script_is_an_object_too(path: str, read_site: Site) -> None:
    answer = read_site.stranger(Authorization="Bearer nonsense").get(path)
    assert answer.status_code in (401, 403)
    assert set(answer.json()) == {"error"}


def test_a_revoked_token_opens_nothing_any_more(site: Site) -> None:
    script = site.script("vera")
    assert script.get("/api/today").status_code == 200
    page = site.browser("vera").get("/people").text
    token = page.partition("/settings/tokens/")[2].partition("/")[0]
    assert site.post("vera", f"/settings/tokens/{token}/revoke", page="/people").status_code == 303
    assert script.get("/api/today").status_code == 401


@pytest.mark.parametrize("body", [b"[", b"[]", b'{"reason": 1}', b'{"reason": {}}', b"[" * 50_000, b'"x"'])
def test_a_body_that_is_no_object_of_texts_is_refused(body: bytes, read_site: Site) -> None:
    answer = read_site.script("rob").post("/api/halt", content=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def test_a_script_halts_and_resumes(site: Site) -> None:
    assert site.script("rob").post("/api/halt", json={"reason": "from a script"}).json() == {"cancelled": 0}
    assert site.script("vera").get("/api/today").json()["halts"][0]["reason"] == "from a script"
    assert site.script("rob").post("/api/resume", json={}).status_code == 403
    assert site.script("ada").post("/api/resume", json={}).json() == {"lifted": 1}
