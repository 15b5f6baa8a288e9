"""One document has one sequence of bytes: the vectors of RFC 8785, and what it may not hold."""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.canonical import canonical_bytes, decimal_text, digest


def test_keys_are_sorted_as_in_section_3_2_3_of_rfc_8785() -> None:
    document = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    assert list(json.loads(canonical_bytes(document)).values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


def test_strings_are_escaped_as_in_section_3_2_2_of_rfc_8785() -> None:
    text = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/"
    assert canonical_bytes(text) == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcäé😀"), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN, st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_bytes_read_back_and_do_not_depend_on_the_order_of_keys(document: object, random: object) -> None:
    stored = canonical_bytes(document)
    assert json.loads(stored) == document
    if isinstance(document, dict):
        keys = list(document)
        random.shuffle(keys)  # type: ignore[attr-defined]
        assert canonical_bytes({key: document[key] for key in keys}) == stored


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12))
@settings(max_examples=50, deadline=None)
def test_equal_decimals_have_one_spelling(value: Decimal) -> None:
    assert Decimal(decimal_text(value)) == value
    assert decimal_text(value) == decimal_text(value.normalize()) == decimal_text(value.quantize(Decimal("1e-9")))


def test_dates_and_instants_are_text_in_utc() -> None:
    moment = datetime(2024, 3, 4, 20, 15, tzinfo=timezone(timedelta(hours=-5)))
    assert canonical_bytes([date(2024, 3, 4), moment]) == b'["2024-03-04","2024-03-05T01:15:00.000000Z"]'
    assert canonical_bytes(moment) == canonical_bytes(moment.astimezone(UTC))


@pytest.mark.parametrize(
    "value", [0.5, 2**53, Decimal("NaN"), {1: "x"}, {"x": object()}, "\ud800", datetime(2024, 3, 4), b"bytes"]
)
def test_what_has_no_one_spelling_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        canonical_bytes(value)


def test_the_digest_is_sha_256() -> None:
    assert digest(b"{}") == hashlib.sha256(b"{}").hexdigest()
