"""Reads a strategy from its `defs.yaml`, and says file and line of every mistake."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.strategy_form.base import check_name
from stockpicker_dagster.strategy_form.strategy import StrategyForm

STRATEGIES = Path(__file__).parent.parent / "defs" / "strategies"
"""Where every strategy has its folder."""

COMPONENT_TYPE = "stockpicker_dagster.components.StockPickerStrategy"


def load(path: Path) -> StrategyForm:
    """The strategy in a `defs.yaml`. Raises `InvalidInput` with one line, `file:line: sentence`, for each mistake."""
    try:
        text = path.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}:1: this is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = str(problem or error).splitlines()[0]
        raise InvalidInput(f"{path}:{mark.line + 1 if mark else 1}: this is no YAML: {reason}") from error
    if not isinstance(document, dict) or document.get("type") != COMPONENT_TYPE:
        found = document.get("type") if isinstance(document, dict) else None
        raise InvalidInput(f"{path}:{_line(node, ('type',))}: type is {found!r}; a strategy's type is {COMPONENT_TYPE}")
    try:
        check_name(path.parent.name, "a strategy's folder")
        return StrategyForm.model_validate(document.get("attributes") or {})
    except ValidationError as error:
        raise InvalidInput("\n".join(_located(path, node, error))) from error
    except ValueError as error:
        raise InvalidInput(f"{path}:1: {error}") from error


def _located(path: Path, node: yaml.Node | None, error: ValidationError) -> Iterator[str]:
    for details in error.errors():
        place = ".".join(str(part) for part in details["loc"])
        line = _line(node, ("attributes", *details["loc"]))
        yield f"{path}:{line}: {place + ': ' if place else ''}{details['ctx']['error']}"


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        step: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, step = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            step = node.value[part]
            line = step.start_mark.line + 1
        if step is None:
            break
        node = step
    return line
