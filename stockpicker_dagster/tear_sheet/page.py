"""The tear sheet as one HTML file that needs nothing beside itself, on a screen, on a phone and in print.

plotly.js travels inside the file, compressed, and the browser unpacks it; the page's own policy forbids it to fetch
anything. Whatever a form says is shown as text.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stockpicker_dagster.research.backtest.significance.verdict import STRONG, WEAK
from stockpicker_dagster.tear_sheet.plots import Plot
from stockpicker_dagster.tear_sheet.sections import sections
from stockpicker_dagster.tear_sheet.sheet import TearSheet
from stockpicker_dagster.tear_sheet.wording import number, percent, signed_percent


def as_html(sheet: TearSheet) -> str:
    """The whole page; the same sheet always gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    templates = FileSystemLoader(Path(__file__).parent)
    pages = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"percent": percent, "signed_percent": signed_percent, "number": number}
    parts, verdict = sections(sheet), sheet.judgement.verdict
    drawn = [plot for section in parts for plot in section.plots]
    return pages.get_template("page.html").render(
        sheet=sheet,
        sections=parts,
        words=verdict.words if verdict else "no verdict",
        reason=verdict.reason if verdict else sheet.judgement.no_verdict,
        weak=WEAK,
        strong=STRONG,
        plotly_js=_packed(get_plotlyjs()),
        plots=_packed(json.dumps(_payload(drawn), separators=(",", ":"), allow_nan=False)),
    )


def _packed(text: str) -> str:
    """Compressed, as text that no browser mistakes for markup."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _payload(drawn: Sequence[Plot]) -> dict[str, Any]:
    """The plots with every distinct list of dates once: most lines share theirs."""
    axes: list[Sequence[Any]] = []
    shown = []
    for plot in drawn:
        traces = []
        for trace in plot.data:
            if trace["x"] not in axes:
                axes.append(trace["x"])
            traces.append({**trace, "x": axes.index(trace["x"])})
        shown.append({"name": plot.name, "data": traces, "layout": plot.layout})
    return {"axes": axes, "plots": shown}
