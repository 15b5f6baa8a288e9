"""The tear sheet of a strategy as the console shows it; gathered once for every state of the stored days.

Gathering takes seconds (the verdict draws its own samples), so that it happens beside the pages.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stockpicker_dagster.console.views.beside import Beside
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.console.views.remembered import fingerprint
from stockpicker_dagster.tear_sheet.sections import Section, sections
from stockpicker_dagster.tear_sheet.sheet import TearSheet, tear_sheet


@dataclass(frozen=True)
class Gathered:
    """A tear sheet with its sections."""

    sheet: TearSheet
    sections: list[Section]
    plots: bytes
    """The plots as plotly draws them, as JSON: a list of `name`, `data`, `layout`."""


class TearSheets:
    """Tear sheets under way and made, the newest of each strategy."""

    def __init__(self, desk: Desk, worker: ThreadPoolExecutor) -> None:
        self.desk = desk
        self._made: Beside[Gathered] = Beside(worker)

    def get(self, name: str) -> Gathered | None:
        """The tear sheet of what is stored now; None while it is being made. Raises what making it raised."""
        form, lake = self.desk.form(name), self.desk.lake
        state = (form.trial_digest, fingerprint(lake, f"{name}/backtest_metrics"))
        return self._made.get(name, state, lambda: self._gather(name))

    def _gather(self, name: str) -> Gathered:
        sheet = tear_sheet(name, self.desk.form(name), self.desk.deployment)
        gathered = sections(sheet)
        return Gathered(
            sheet, gathered, json.dumps(_payload(gathered), separators=(",", ":"), allow_nan=False).encode()
        )


def _payload(gathered: list[Section]) -> list[dict[str, Any]]:
    return [
        {"name": plot.name, "data": list(plot.data), "layout": plot.layout}
        for section in gathered
        for plot in section.plots
    ]
