"""The settings of an algorithm: what each may be, what it means, and the check of what a user gave.

Which settings there are is each algorithm's own matter; they are all checked before anything is computed.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from stockpicker_dagster.errors import InvalidInput

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]


@dataclass(frozen=True)
class Hyperparameter:
    """One setting of an algorithm.

    `type` is that of a number or a text; `minimum` and `maximum` are allowed themselves; `words` are texts allowed
    beside it (or the only texts allowed); `unit` is what the number counts. With `longest`, the value is a list of one
    to so many of these, and `default` is a tuple. `only_with` names another setting and its values without which this
    one means nothing, and is refused.
    """

    name: str
    type: type
    default: Scalar | tuple[Scalar, ...]
    meaning: str
    unit: str
    minimum: float | None = None
    maximum: float | None = None
    words: tuple[str, ...] = ()
    longest: int | None = None
    only_with: tuple[str, tuple[Scalar, ...]] | None = None

    def check(self, value: object) -> Value:
        """The value as the declared type; `InvalidInput` says what is allowed."""
        if self.longest is None:
            checked = self._check_one(value)
            if checked is not None:
                return checked
        elif isinstance(value, list | tuple) and 1 <= len(value) <= self.longest:
            several = [self._check_one(each) for each in value]
            if None not in several:
                return cast(list[Scalar], several)
        raise InvalidInput(
            f"hyperparameter {self.name} {value!r} is not allowed; allowed: {self.allowed} ({self.unit})"
        )

    def applies(self, settings: Mapping[str, Value]) -> bool:
        """Whether the setting means anything beside these."""
        return self.only_with is None or settings.get(self.only_with[0]) in self.only_with[1]

    @property
    def allowed(self) -> str:
        """What may be given, in words.

        >>> Hyperparameter("alpha", float, 1.0, "penalty", "variances", minimum=0.0, words=("auto",)).allowed
        "float of at least 0 or 'auto'"
        >>> Hyperparameter("layers", int, (32,), "widths", "units", minimum=1, longest=5).allowed
        'list of 1 to 5, each int of at least 1'
        """
        parts = [self.type.__name__] if self.type is not str or not self.words else []
        if parts and self.minimum is not None:
            parts[0] += f" of at least {self.minimum:g}"
        if parts and self.maximum is not None:
            parts[0] += f"{' and' if self.minimum is not None else ' of'} at most {self.maximum:g}"
        each = " or ".join(parts + [repr(word) for word in self.words])
        return each if self.longest is None else f"list of 1 to {self.longest}, each {each}"

    def _check_one(self, value: object) -> Scalar | None:
        if isinstance(value, str) and value in self.words:
            return value
        if self.type in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
            whole = self.type is float or float(value).is_integer()
            if whole and math.isfinite(value) and self._within(value):
                return int(value) if self.type is int else float(value)
        if self.type in (bool, str) and type(value) is self.type and not self.words:
            return cast(Scalar, value)
        return None

    def _within(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


def check_settings(
    algorithm: str, declared: Sequence[Hyperparameter], given: Mapping[str, object] | None = None
) -> dict[str, Value]:
    """All hyperparameters of `algorithm` that apply: those given, checked, and defaults for the rest.

    A setting that means nothing beside the others is absent. Raises `InvalidInput` for an unknown name, naming the
    nearest one, for a value that is not allowed, and for a given one that means nothing.
    """
    by_name = {each.name: each for each in declared}
    for key in given or {}:
        if key not in by_name:
            close = difflib.get_close_matches(str(key), by_name, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidInput(
                f"hyperparameter {key!r} of algorithm {algorithm!r} is unknown; {hint}"
                f"known: {', '.join(sorted(by_name))}"
            )
    settings = {key: each.check((given or {}).get(key, each.default)) for key, each in by_name.items()}
    for key, each in by_name.items():
        if each.only_with is not None and not each.applies(settings):
            if given is not None and key in given:
                other, values = each.only_with
                raise InvalidInput(
                    f"hyperparameter {key} {given[key]!r} means nothing with {other} {settings.get(other)!r}; leave it "
                    f"out, or give {other} {' or '.join(repr(value) for value in values)}"
                )
            del settings[key]
    return settings
