"""What every part of the form shares: how values are refused, and what may be a name.

Unknown fields are refused, and every refusal is one plain sentence with the value and what is allowed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
CALENDAR = "XNYS"
"""The exchange that prices are of, unless the form names another one."""


class Misfit(ValueError):
    """Fields that are allowed by themselves do not fit together; the refusal is placed at `field`, or at the form."""

    def __init__(self, message: str, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class Form(BaseModel):
    """A part of the form: unknown fields are refused, and every refusal is one plain sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _speak_plainly(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        _refuse_booleans(cls, value)
        try:
            form = handler(value)
            form._agree()
        except ValidationError as error:
            plain = [_plain(cls, details) for details in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, plain) from None
        except Misfit as error:
            location = () if error.field is None else (error.field,)
            refused = _sentence(str(error), location, value)
            raise ValidationError.from_exception_data(cls.__name__, [refused]) from None
        return form

    def _agree(self) -> None:
        """Raises `Misfit` if fields that are allowed by themselves do not fit together."""


def under_home(path: Path) -> Path:
    """The path itself if absolute, else inside the state folder."""
    return path if path.is_absolute() else home().root / path


def check_name(name: str, what: str) -> None:
    """Raises `InvalidInput` unless the name is a lower-case word usable in keys and folders."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot name {what}: use a lower-case letter, then up to 40 lower-case letters, digits and "
            "underscores"
        )


def _refuse_booleans(form: type[Form], value: Any) -> None:
    """No field is true or false, and Pydantic would read `true` as the number 1."""
    given = value.items() if isinstance(value, Mapping) else ()
    refused = [
        _sentence(
            f"{item!r} was read as true or false, which {name} is not; quote it if it is a text", (str(name),), item
        )
        for name, item in given
        if isinstance(item, bool) and name in form.model_fields
    ]
    if refused:
        raise ValidationError.from_exception_data(form.__name__, refused)


def _plain(form: type[BaseModel], details: Any) -> InitErrorDetails:
    """One of Pydantic's refusals as a sentence with the value, what is allowed and the way out."""
    value, kind, location = details["input"], details["type"], tuple(details["loc"])
    context = details.get("ctx", {})
    field = location[-1] if location else ""
    if kind == "value_error":
        message = str(context["error"])
    elif kind == "extra_forbidden":
        message = f"{field!r} is no field here; known: {', '.join(sorted(form.model_fields))}"
    elif kind == "missing" and isinstance(field, int):
        message = f"{value!r} is not allowed: a period is two dates, [first, last]"
    elif kind == "missing":
        message = f"{field!r} is missing and has no default; it says: {form.model_fields[str(field)].description}"
    elif kind == "literal_error":
        message = f"{value!r} is not allowed; allowed: {str(context['expected']).replace(' or ', ', ')}"
    elif kind == "string_type":
        message = f"{value!r} was read as a {type(value).__name__}, not as text: quote it"
    elif kind.startswith("date_"):
        message = f"{value!r} is no day; write it as YYYY-MM-DD, such as 2024-03-08"
    else:
        message = f"{value!r} is not allowed: {details['msg'][0].lower()}{details['msg'][1:]}"
    return _sentence(message, location, value)


def _sentence(message: str, location: tuple[int | str, ...], value: Any) -> InitErrorDetails:
    # One of Pydantic's own types, because Dagster makes the error anew from its parts when it adds file and line.
    return InitErrorDetails(type="value_error", loc=location, input=value, ctx={"error": ValueError(message)})
