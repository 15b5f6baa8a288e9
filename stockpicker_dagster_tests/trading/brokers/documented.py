"""Holds what a fake server answered against the OpenAPI document that its broker publishes."""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from stockpicker_dagster_tests.trading.brokers.faulty_server import Answered


def example(document: Path, path: str, method: str, name: str) -> Any:
    """The document's own example of an answer, with exact decimals."""
    described = json.loads(document.read_text(), parse_float=Decimal)["paths"][path][method]["responses"]["200"]
    return described["content"]["application/json"]["examples"][name]["value"]


def hold_against(document: Path, answered: Sequence[Answered], undescribed: set[int]) -> set[tuple[str, str]]:
    """Raises where an answer is not what the document allows; says which operations were seen, as method and path.

    `undescribed` are statuses that the document leaves out for operations that have them.
    """
    import requests
    import schemathesis
    from schemathesis.core.transport import Response

    # "oneOf" of objects without required fields fits several of them at once, whatever is answered.
    schema = schemathesis.openapi.from_dict(json.loads(document.read_text().replace('"oneOf"', '"anyOf"')))
    templates = {path: re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)) for path in schema}
    seen = set()
    for answer in answered:
        path = next(t for t in sorted(templates, key=lambda t: t.count("{")) if templates[t].fullmatch(answer.path))
        operation: Any = schema[path][answer.method]
        described = operation.definition.raw["responses"]
        if str(answer.status) not in described:
            assert answer.status in undescribed, f"{answer} is not described; described: {sorted(described)}"
            continue
        request = requests.Request(answer.method, f"http://127.0.0.1{answer.path}").prepare()
        headers = {"content-type": ["application/json"]} if answer.body else {}
        operation.validate_response(Response(answer.status, headers, answer.body, request, 0.0, verify=False))
        seen.add((answer.method, path))
    return seen
