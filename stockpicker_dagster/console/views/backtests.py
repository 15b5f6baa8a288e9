"""The tear sheet of a strategy as the console shows it; gathered once for every state of the stored days.

Gathering takes seconds (the verdict draws its own samples), so that it happens beside the pages: whoever asks first is
told that it is being made.
"""

from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.console.views.remembered import fingerprint
from stockpicker_dagster.tear_sheet.sections import Section, sections
from stockpicker_dagster.tear_sheet.sheet import TearSheet, tear_sheet


@dataclass(frozen=True)
class Gathered:
    """A tear sheet with its sections."""

    sheet: TearSheet
    sections: list[Section]


@dataclass
class TearSheets:
    """Tear sheets under way and made, the newest of each strategy."""

    desk: Desk
    _made: dict[str, tuple[Hashable, "Future[Gathered]"]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    # One at a time: each uses every core.
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tear-sheet"))

    def get(self, name: str) -> Gathered | None:
        """The tear sheet of what is stored now; None while it is being made. Raises what making it raised."""
        form, lake = self.desk.form(name), self.desk.lake
        state = (form.trial_digest, fingerprint(lake, f"{name}/backtest_metrics"))
        with self._lock:
            kept = self._made.get(name)
            if kept is None or kept[0] != state:
                kept = state, self._worker.submit(self._gather, name)
                self._made[name] = kept
        future = kept[1]
        return future.result() if future.done() else None

    def close(self) -> None:
        """Waits for nothing: what is under way is left."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _gather(self, name: str) -> Gathered:
        sheet = tear_sheet(name, self.desk.form(name), self.desk.deployment)
        return Gathered(sheet, sections(sheet))


def payload(gathered: Gathered) -> list[dict[str, Any]]:
    """The plots as plotly draws them: `name`, `data`, `layout`."""
    return [
        {"name": plot.name, "data": list(plot.data), "layout": plot.layout}
        for section in gathered.sections
        for plot in section.plots
    ]
