"""Writes the tables of the pages that repeat what the code declares: the form, features, reasons of a quarantine, ...

Each table stands between `<!-- table: NAME -->` and `<!-- end of table -->` in a page. Running this file rewrites
them; a test fails where page and code differ. Nothing but these tables is generated.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from stockpicker_dagster.market.cross_check import CAUSES
from stockpicker_dagster.market.prices import REASONS
from stockpicker_dagster.market.quality import FLAGS
from stockpicker_dagster.research.algorithms import algorithm, known_algorithms
from stockpicker_dagster.research.features.declaration import feature_set
from stockpicker_dagster.strategy_form import StrategyForm

PAGES = [Path(__file__).parent / f"{name}.md" for name in ("user-guide", "features", "learning", "market-data")]
_PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every table by name: one for each part of the form, `hyperparameters.<algorithm>`, `features.<set>`, terms."""
    return {
        **{name: "\n".join(_form_rows(form)) for name, form in forms().items()},
        **{f"hyperparameters.{name}": "\n".join(_hyperparameter_rows(name)) for name in known_algorithms()},
        "features.factors": "\n".join(_feature_rows("factors")),
        "features.alpha158": "\n".join(_windowed_rows("alpha158")),
        "features.multi_factor": "\n".join(_feature_rows("multi_factor")),
        "reasons": "\n".join(_term_rows("reason", REASONS)),
        "flags": "\n".join(_term_rows("flag", FLAGS)),
        "causes": "\n".join(_term_rows("likely cause", CAUSES)),
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
        for part in get_args(field.annotation) or (field.annotation,):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield prefix + name, part
                yield from _parts(part, f"{prefix}{name}.")


def _form_rows(form: type[BaseModel]) -> Iterator[str]:
    schema = form.model_json_schema()
    yield "| field | allowed | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, declared in schema["properties"].items():
        field = form.model_fields[name]
        if "allOf" in declared or any("$ref" in choice for choice in (declared, *declared.get("anyOf", ()))):
            continue
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield f"| `{name}` | {_allowed(declared)} | {default} | {_cell(field.description or '')} |"


def _default(value: Any) -> str:
    if value in (None, "", {}, []):
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
        allowed, default = each.allowed, list(each.default) if isinstance(each.default, tuple) else each.default
        if each.only_with is not None:
            other, values = each.only_with
            allowed += f"; only with `{other}` {' or '.join(f'`{value}`' for value in values)}"
        yield f"| `{each.name}` | {allowed} | `{default}` | {_cell(each.meaning)} ({each.unit}) |"


def _feature_rows(name: str) -> Iterator[str]:
    yield "| factor | look-back | formula and paper |"
    yield "| --- | --- | --- |"
    for each in feature_set(name).features:
        yield f"| `{each.name}` | {each.lookback} | {_cell(each.description)} |"


def _windowed_rows(name: str) -> Iterator[str]:
    """One row for the features that differ by their window alone, `w` in the formula."""
    alike: dict[str, list[tuple[str, int]]] = {}
    for each in feature_set(name).features:
        formula, _, _ = each.description.partition(" w = ")
        alike.setdefault(formula, []).append((each.name, each.lookback))
    yield "| feature | look-back | formula |"
    yield "| --- | --- | --- |"
    for formula, features in alike.items():
        names = ", ".join(f"`{feature}`" for feature, _ in features)
        lookbacks = ", ".join(str(lookback) for _, lookback in features)
        yield f"| {names} | {lookbacks} | {_cell(formula)} |"


def _term_rows(heading: str, terms: Mapping[str, str]) -> Iterator[str]:
    yield f"| {heading} | meaning |"
    yield "| --- | --- |"
    for name, meaning in terms.items():
        yield f"| `{name}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
