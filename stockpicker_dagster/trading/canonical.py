"""Canonical JSON after RFC 8785, and the SHA-256 of it: one document has exactly one sequence of bytes and one digest.

Of JSON's types it takes objects, arrays, strings, booleans, null and integers that every reader represents exactly.
Decimals travel as strings, dates as ISO text, instants as UTC text with microseconds; floats are refused.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from stockpicker_dagster.errors import InvalidInput

_EXACT_INTEGERS = 2**53


def canonical_bytes(value: object) -> bytes:
    """The RFC 8785 bytes of `value`; raises `InvalidInput` for a float, an inexact integer or a broken string."""
    try:
        return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"a document may not hold half of a surrogate pair: {error.object!r}") from error


def digest(document: bytes) -> str:
    """The SHA-256 of the bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(document).hexdigest()


def decimal_text(value: Decimal) -> str:
    """The one plain spelling of a decimal: no exponent, no trailing zeros, no negative zero.

    >>> decimal_text(Decimal("1.50E+3")), decimal_text(Decimal("-0.00")), decimal_text(Decimal("0.10"))
    ('1500', '0', '0.1')
    """
    if not value.is_finite():
        raise InvalidInput(f"{value} is not a finite number")
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def utc_text(value: datetime) -> str:
    """An instant as UTC text with microseconds; raises `InvalidInput` where it has no zone."""
    if value.tzinfo is None:
        raise InvalidInput(f"the time {value} has no zone; give it one, such as datetime.now(UTC)")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain(value: object) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            if abs(value) >= _EXACT_INTEGERS:
                raise InvalidInput(f"the integer {value} is not exact in every JSON reader; pass it as a Decimal")
            return value
        case Decimal():
            return decimal_text(value)
        case datetime():
            return utc_text(value)
        case date():
            return value.isoformat()
        case Mapping():
            return _ordered(value)
        case list() | tuple():
            return [_plain(item) for item in value]
    raise InvalidInput(f"a document cannot hold {value!r} ({type(value).__name__}); numbers go in as Decimal")


def _ordered(mapping: Mapping[Any, object]) -> dict[str, Any]:
    wrong = [key for key in mapping if not isinstance(key, str)]
    if wrong:
        raise InvalidInput(f"the keys of a document are strings, not {wrong[0]!r}")
    # RFC 8785 sorts by UTF-16 code units, which differs from Python's order beyond the basic plane.
    keys = sorted(mapping, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    return {key: _plain(mapping[key]) for key in keys}
