"""Writes the tables of the user guide that repeat what the code declares: the form, hyperparameters and factors.

Each table stands between `<!-- table: NAME -->` and `<!-- end of table -->` in the page. Running this file rewrites
them; a test fails where page and code differ. Nothing but these tables is generated.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stockpicker_dagster.research.algorithms import algorithm
from stockpicker_dagster.research.features.declaration import feature_set
from stockpicker_dagster.strategy_form import StrategyForm

PAGE = Path(__file__).parent / "user-guide.md"
_PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every table by name: one for each part of the form, `hyperparameters.<algorithm>` and `features.<set>`."""
    return {
        **{name: "\n".join(_form_rows(form)) for name, form in forms().items()},
        "hyperparameters.linear": "\n".join(_hyperparameter_rows("linear")),
        "features.factors": "\n".join(_feature_rows("factors")),
    }


def forms() -> dict[str, type[BaseModel]]:
    """The parts of the form by their dotted name; the strategy itself is `strategy`."""
    return {"strategy": StrategyForm, **dict(_parts(StrategyForm, ""))}


def with_tables(page: str) -> str:
    """`page` with every table as the code declares it. Raises `KeyError` for a table of an unknown name."""
    made = tables()
    return _PLACE.sub(lambda place: f"{place[1]}{made[place[2]]}\n{place[3]}", page)


def tables_on(page: str) -> list[str]:
    """The names of the tables that `page` has a place for, in order."""
    return [place[2] for place in _PLACE.finditer(page)]


def _parts(form: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in form.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield prefix + name, field.annotation
            yield from _parts(field.annotation, f"{prefix}{name}.")


def _form_rows(form: type[BaseModel]) -> Iterator[str]:
    schema = form.model_json_schema()
    yield "| field | allowed | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, declared in schema["properties"].items():
        field = form.model_fields[name]
        if "$ref" in declared or "allOf" in declared:
            continue
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield f"| `{name}` | {_allowed(declared)} | {default} | {_cell(field.description or '')} |"


def _default(value: Any) -> str:
    if value is None or value == "" or value == {}:
        return "none"
    return f"`{value:.12g}`" if isinstance(value, float) else f"`{value}`"


def _allowed(declared: dict[str, Any]) -> str:
    """What a property of the JSON schema takes, in words."""
    choices = [choice for choice in declared.get("anyOf", [declared]) if choice.get("type") != "null"]
    if {choice.get("type") for choice in choices} == {"integer", "number"}:
        return "number"
    return " or ".join(_one_allowed({**declared, **choice}) for choice in choices)


def _one_allowed(declared: dict[str, Any]) -> str:
    if "const" in declared:
        return f"`{declared['const']}`"
    if "enum" in declared:
        return ", ".join(f"`{choice}`" for choice in declared["enum"])
    if declared.get("type") == "array":
        return "from, to" if declared.get("maxItems") == 2 else "list"
    words = {"date": "date", "path": "path"}.get(declared.get("format", ""))
    kind = (
        words
        or {"integer": "whole number", "number": "number", "string": "text", "object": "mapping"}[declared["type"]]
    )
    bounds = [
        f"{sign} {declared[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in declared
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _hyperparameter_rows(name: str) -> Iterator[str]:
    yield "| hyperparameter | allowed | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for each in algorithm(name).hyperparameters:
        yield f"| `{each.name}` | {each.allowed} | `{each.default}` | {_cell(each.meaning)} ({each.unit}) |"


def _feature_rows(name: str) -> Iterator[str]:
    yield "| factor | look-back | formula and paper |"
    yield "| --- | --- | --- |"
    for each in feature_set(name).features:
        yield f"| `{each.name}` | {each.lookback} | {_cell(each.description)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
