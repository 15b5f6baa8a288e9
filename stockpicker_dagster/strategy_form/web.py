"""The form as fields on a page: what each takes, and how the texts that come back become a checked `defs.yaml`.

A page's author is not trusted as a file's is: Dagster fills in templates while it reads a file, so that no text with
template marks is taken; nothing but scalars and lists of scalars under known fields is written; files lie in the state
folder, and feature modules are those that are there already.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.research.algorithms import known_algorithms
from stockpicker_dagster.strategy_form.base import check_name
from stockpicker_dagster.strategy_form.reading import COMPONENT_TYPE
from stockpicker_dagster.strategy_form.strategy import StrategyForm

TEMPLATE_MARKS = ("{{", "{%", "{#")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PATHS = ("universe.file", "universe.of", "prices.path", "prices.symbol_changes", "reference.file")
_LONGEST = 20_000
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")


@dataclass(frozen=True)
class WebField:
    """One field of the form on a page."""

    path: str
    """Its place, such as `universe.name`."""
    kind: str
    """`text`, `long_text`, `integer`, `number`, `choice`, `list` (by commas) or `pairs` (`name: value` on a line)."""
    choices: Sequence[str]
    default: str
    meaning: str
    required: bool

    @property
    def section(self) -> str:
        """The part of the form that it belongs to; empty for the strategy itself."""
        return self.path.partition(".")[0] if "." in self.path else ""

    @property
    def label(self) -> str:
        """Its name, as people read it."""
        return self.path.rpartition(".")[2].replace("_", " ")


class Mistakes(InvalidInput):
    """What is wrong with a page's fields: a sentence for each, by place."""

    def __init__(self, by_place: Mapping[str, str]) -> None:
        self.by_place = dict(by_place)
        super().__init__("; ".join(f"{place}: {said}" if place else said for place, said in by_place.items()))


@lru_cache(maxsize=1)
def web_fields() -> tuple[WebField, ...]:
    """Every field that a page can show, in the form's order. Lists of price sources are for files only."""
    schema = StrategyForm.model_json_schema()
    return tuple(_fields(schema, schema["$defs"], "", schema.get("required", [])))


def attributes_from(texts: Mapping[str, str], kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The form's attributes from what a page sent, field by field; empty texts leave the default.

    `kept` are attributes of the file that no page shows. Raises `Mistakes`.
    """
    mistakes: dict[str, str] = {}
    attributes: dict[str, Any] = {}
    for field in web_fields():
        text = texts.get(field.path, "").strip()
        if not text:
            continue
        try:
            _put(attributes, field.path, _value(field, text))
        except InvalidInput as error:
            mistakes[field.path] = str(error)
    for path, value in _leaves(kept or {}):
        # What a page could not show stands in the file until something that it can show takes its place.
        if not texts.get(path, "").strip():
            _put(attributes, path, value)
    if mistakes:
        raise Mistakes(mistakes)
    return attributes


def checked(name: str, attributes: Mapping[str, Any]) -> StrategyForm:
    """The form that the attributes make; raises `Mistakes` with a sentence for each that does not fit."""
    try:
        check_name(name, "a strategy")
        return StrategyForm.model_validate(attributes)
    except ValidationError as error:
        raise Mistakes(
            {".".join(str(part) for part in each["loc"]): str(each["ctx"]["error"]) for each in error.errors()}
        ) from error
    except InvalidInput as error:
        raise Mistakes({"name": str(error)}) from error


def as_yaml(attributes: Mapping[str, Any]) -> str:
    """The `defs.yaml` of the attributes, with the one type that a page may write."""
    return yaml.safe_dump(
        {"type": COMPONENT_TYPE, "attributes": dict(attributes)}, sort_keys=False, allow_unicode=True, width=120
    )


def texts_of(file: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """A stored strategy as a page's texts, and those of its attributes that no page shows.

    Raises `InvalidInput` for a file that is no strategy.
    """
    try:
        document = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read; mend it by hand") from error
    attributes = (document or {}).get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise InvalidInput(f"{file} is no strategy; mend it by hand")
    known = {field.path: field for field in web_fields()}
    texts: dict[str, str] = {}
    kept: dict[str, Any] = {}
    for path, value in _leaves(attributes):
        field = known.get(path)
        text = _text(field, value) if field else None
        if text is None:
            _put(kept, path, value)
        else:
            texts[path] = text
    return texts, kept


def _fields(
    schema: Mapping[str, Any], parts: Mapping[str, Any], before: str, required: Sequence[str]
) -> Iterator[WebField]:
    for name, said in schema["properties"].items():
        path = f"{before}{name}"
        inner = _part(said, parts)
        if inner is not None:
            optional = "anyOf" in said
            yield from _fields(inner, parts, f"{path}.", () if optional else inner.get("required", []))
            continue
        kind, choices = _kind(path, said)
        if kind:
            default = said.get("default")
            shown = "" if default is None else _text(None, default) or ""
            yield WebField(path, kind, choices, shown, said.get("description", ""), name in required)


def _part(said: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of the form that a field holds; None for a field of its own."""
    options = [option for option in said.get("anyOf", [said]) if option.get("type") != "null"]
    if len(options) == 1 and "$ref" in options[0]:
        found: Mapping[str, Any] = parts[options[0]["$ref"].rpartition("/")[2]]
        return found
    return None


def _kind(path: str, said: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """How a page asks for the field, and among what; an empty kind is not shown."""
    if path == "algorithm.name":
        return "choice", known_algorithms()
    options = [option for option in said.get("anyOf", [said]) if option.get("type") != "null"]
    scalars = [option for option in options if option.get("type") in ("string", "integer", "number")]
    words = [word for option in scalars for word in _words(option)]
    free = [option for option in scalars if not _words(option)]
    if not scalars:
        kinds = {option.get("type") for option in options}
        if kinds == {"array"} and options[0]["items"].get("type") == "string":
            return "list", ()
        return ("pairs", ()) if kinds == {"object"} else ("", ())
    if words and not free:
        return "choice", words
    if len(free) == len(scalars) == 1:
        kind = {"integer": "integer", "number": "number", "string": "text"}[free[0]["type"]]
        return ("long_text" if path == "description" else kind), ()
    return "text", words


def _words(option: Mapping[str, Any]) -> list[str]:
    return [str(word) for word in option.get("enum", [option["const"]] if "const" in option else [])]


def _value(field: WebField, text: str) -> Any:
    """A page's text as the value that the file gets."""
    if len(text) > _LONGEST:
        raise InvalidInput(f"{len(text)} characters are too many; allowed: {_LONGEST}")
    if mark := next((mark for mark in TEMPLATE_MARKS if mark in text), None):
        raise InvalidInput(f"{mark!r} is not allowed: files with it would be read as templates")
    # YAML takes more characters for ends of lines than people see, and cannot hold lone surrogates.
    if any(unicodedata.category(letter) in _NO_TEXT and letter not in "\n\r\t" for letter in text):
        raise InvalidInput("control characters are not allowed")
    if field.path in _PATHS and text not in field.choices:
        _check_inside_home(text)
    if field.kind == "list":
        return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    if field.kind == "pairs":
        return dict(_pair(line) for line in text.splitlines() if line.strip())
    if field.kind in ("integer", "number"):
        return _number(text)
    if field.kind == "text" and field.choices and _NUMBER.fullmatch(text):
        return _number(text)
    return text


def _number(text: str) -> int | float:
    if not _NUMBER.fullmatch(text):
        raise InvalidInput(f"{text[:40]!r} is no number")
    value = float(text)
    if not math.isfinite(value):
        raise InvalidInput(f"{text[:40]!r} is too large")
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else value


def _pair(line: str) -> tuple[str, Any]:
    name, colon, text = line.partition(":")
    name, text = name.strip(), text.strip()
    if not colon or not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", name) or not text:
        raise InvalidInput(f"{line.strip()[:60]!r} is no setting; write each on a line of its own, as name: value")
    if text.startswith("[") and text.endswith("]"):
        return name, [_scalar(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return name, _scalar(text)


def _scalar(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return _number(text) if _NUMBER.fullmatch(text) else text


def _check_inside_home(text: str) -> None:
    """A page reaches no file outside the state folder, be it by name, by climbing or by a link."""
    given = Path(text)
    root = home().root.resolve()
    resolved = (given if given.is_absolute() else root / given).resolve()
    if ".." in PurePosixPath(text).parts or not resolved.is_relative_to(root):
        raise InvalidInput(f"{text[:100]!r} is outside the state folder; put the file under {root}")


def _put(attributes: dict[str, Any], path: str, value: Any) -> None:
    *parts, last = path.split(".")
    for part in parts:
        attributes = attributes.setdefault(part, {})
    attributes[last] = value


def _leaves(attributes: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping) and path != "algorithm.hyperparameters":
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _text(field: WebField | None, value: Any) -> str | None:
    """A value as a page's text; None where the field (None: any) cannot show it."""
    if isinstance(value, Mapping):
        return _pairs_text(value) if field is None or field.kind == "pairs" else None
    if isinstance(value, list | tuple):
        return _list_text(value) if field is None or field.kind == "list" else None
    return None if isinstance(value, bool) else f"{value}"


def _list_text(values: Sequence[Any]) -> str | None:
    texts = [f"{value}" for value in values]
    structured = any(isinstance(value, Mapping | list | tuple | bool) for value in values)
    return None if structured or any("," in text for text in texts) else ", ".join(texts)


def _pairs_text(values: Mapping[str, Any]) -> str | None:
    lines: list[str] = []
    for name, value in values.items():
        listed = _list_text(value) if isinstance(value, list | tuple) else None
        if isinstance(value, Mapping) or (isinstance(value, list | tuple) and listed is None):
            return None
        shown = f"{value}".lower() if isinstance(value, bool) else f"{value}"
        lines.append(f"{name}: [{listed}]" if listed is not None else f"{name}: {shown}")
    return "\n".join(lines)
