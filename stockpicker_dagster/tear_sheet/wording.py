"""How figures are written on the tear sheet: numbers and percentages, and a dash where there is none.

No figure that is rounded to zero keeps a minus.
"""

import math

NONE = "–"
"""A figure that does not exist for these days."""


def number(value: float, digits: int = 2) -> str:
    """With so many digits after the point.

    >>> number(1.005), number(-0.001), number(float("nan"))
    ('1.00', '0.00', '–')
    """
    return f"{value:z.{digits}f}" if math.isfinite(value) else NONE


def signed(value: float, digits: int = 2) -> str:
    """The same with a plus before what is not negative."""
    return f"{value:+z.{digits}f}" if math.isfinite(value) else NONE


def percent(value: float, digits: int = 1) -> str:
    """A fraction in per cent.

    >>> percent(0.0123), percent(float("inf"))
    ('1.2 %', '–')
    """
    return f"{100.0 * value:z.{digits}f} %" if math.isfinite(value) else NONE


def signed_percent(value: float, digits: int = 1) -> str:
    """The same with a plus before what is not negative."""
    return f"{100.0 * value:+z.{digits}f} %" if math.isfinite(value) else NONE
