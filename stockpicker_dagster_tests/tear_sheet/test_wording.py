"""Figures as text: rounded, signed where it matters, and a dash where there is none."""

import math

import pytest

from stockpicker_dagster.tear_sheet import wording


@pytest.mark.parametrize("write", [wording.number, wording.signed, wording.percent, wording.signed_percent])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_does_not_exist_is_a_dash(write: object, value: float) -> None:
    assert write(value) == "–"  # type: ignore[operator]


def test_a_figure_rounded_to_zero_has_no_minus() -> None:
    assert (wording.number(-0.004), wording.percent(-0.0004)) == ("0.00", "0.0 %")
    assert (wording.signed(-0.004), wording.signed_percent(-0.0004)) == ("+0.00", "+0.0 %")


def test_gains_are_signed_where_losses_are() -> None:
    assert (wording.signed(1.5, 1), wording.signed(-1.5, 1)) == ("+1.5", "-1.5")
    assert (wording.signed_percent(0.123), wording.signed_percent(-0.123)) == ("+12.3 %", "-12.3 %")
    assert (wording.number(1.5, 1), wording.percent(0.5, 0)) == ("1.5", "50 %")
