"""How pages are drawn: templates with everything escaped, numbers as people read them, and one frame around all."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from stockpicker_dagster.tear_sheet.wording import number, percent, signed_percent

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The console's templates; a name that is not given is an error, and what is given is escaped."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": percent,
        "signed_percent": signed_percent,
        "number": number,
        "moment": moment,
        "amount": amount,
        "weight": weight,
        "shares": shares,
        "score": score,
        "figure": figure,
        "coded": coded,
    }
    return made


def render(template: str, context: Mapping[str, Any]) -> str:
    """The page as HTML."""
    return templates().get_template(template).render(context)


def moment(value: datetime | date | None) -> str:
    """A moment in UTC to the minute, a day as it is, a dash for none.

    >>> moment(date(2024, 3, 8)), moment(None)
    ('2024-03-08', '–')
    """
    if value is None:
        return "–"
    return f"{value:%Y-%m-%d %H:%M} UTC" if isinstance(value, datetime) else str(value)


def amount(value: Decimal | float | None, digits: int = 2) -> str:
    """Money with its thousands apart.

    >>> amount(Decimal("1234567.891")), amount(None)
    ('1,234,567.89', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def weight(value: Decimal | float | None) -> str:
    """A fraction of equity in per cent, with its sign.

    >>> weight(Decimal("-0.0312")), weight(Decimal(0)), weight(Decimal("-0.00001"))
    ('-3.12 %', '0.00 %', '0.00 %')
    """
    if value is None:
        return "–"
    rounded = round(float(value) * 100, 2)
    return f"{rounded:+.2f} %" if rounded else "0.00 %"


def shares(value: Decimal) -> str:
    """Shares without zeros behind the point.

    >>> shares(Decimal("-1200.50")), shares(Decimal("1E+3"))
    ('-1,200.5', '1,000')
    """
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def score(value: float) -> str:
    """A score with its sign.

    >>> score(0.0123456)
    '+0.0123'
    """
    return f"{value:+.4f}"


def figure(value: Decimal) -> str:
    """A figure of any size to three places, without zeros behind the point.

    >>> figure(Decimal("39200.000")), figure(Decimal("0.3920")), figure(Decimal(2_000_000))
    ('39,200', '0.392', '2,000,000')
    """
    text = f"{value:,.3f}"
    return text.rstrip("0").rstrip(".")


def coded(sentence: str) -> Markup:
    """A sentence with what stands between backticks set as code; everything in it is escaped.

    >>> coded("run `a < b`")
    Markup('run <code>a &lt; b</code>')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - escaped before
