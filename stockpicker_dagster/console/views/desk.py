"""What every view reads from: the deployment, the strategies' forms, and what is remembered of both.

Forms are read from their files whenever one has changed. A broken file is no reason to show nothing: the others are
shown, and its mistake is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from dagster import DagsterInstance
from sqlalchemy import Engine

from stockpicker_dagster.console.views.beside import Beside, one_worker
from stockpicker_dagster.console.views.histories import Histories
from stockpicker_dagster.console.views.remembered import Remembered, fingerprint
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm, load


class NotFound(StockPickerError):
    """What was asked for does not exist."""


@dataclass(frozen=True)
class Desk:
    """The deployment as the console reads it."""

    deployment: Deployment
    strategies_folder: Path
    dagster: DagsterInstance
    remembered: Remembered = field(default_factory=Remembered)
    beside: Beside[Any] = field(default_factory=lambda: Beside(one_worker()))
    """What takes long and is short when it is there; tear sheets, which take longer, have a worker of their own."""
    copies: Path | None = None
    """Where copies of histories are kept, sorted by stock; None keeps none."""
    histories: Histories = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "histories", Histories(self.deployment.lake, self.copies))

    @property
    def lake(self) -> Lake:
        """The lake."""
        return self.deployment.lake

    @property
    def database(self) -> Engine:
        """The ledger's database."""
        return self.deployment.database

    def now(self) -> datetime:
        """The current moment, in UTC."""
        return self.deployment.now()

    def forms(self) -> Mapping[str, StrategyForm]:
        """The strategies whose files can be read, by name."""
        return self._read()[0]

    def mistakes(self) -> Sequence[str]:
        """What is wrong with the files of the others."""
        return self._read()[1]

    def form(self, name: str) -> StrategyForm:
        """One strategy's form; raises `NotFound`, naming those there are."""
        forms = self.forms()
        if name not in forms:
            raise NotFound(f"there is no strategy {name!r}; there are: {', '.join(sorted(forms)) or 'none yet'}")
        return forms[name]

    def days(self, table: str) -> list[date]:
        """The stored sessions of a daily table, ascending."""
        lake = self.lake
        return self.remembered.answer(("days", table), fingerprint(lake, table), lambda: lake.days(table))

    def served(self, name: str) -> list[date]:
        """The stored sessions on which a model of the strategy served, ascending: those that have a ranking."""
        form, table = self.form(name), f"{name}/predictions"
        first = form.first_served
        return self.remembered.answer(
            ("served", name),
            (first, fingerprint(self.lake, table)),
            lambda: [day for day in self.lake.days(table) if day >= first],
        )

    def file_of(self, name: str) -> Path:
        """Where a strategy's form is."""
        return self.strategies_folder / name / "defs.yaml"

    def _read(self) -> tuple[dict[str, StrategyForm], list[str]]:
        files = sorted(self.strategies_folder.glob("*/defs.yaml"))
        seen = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
        return self.remembered.answer("forms", seen, lambda: _load_all(files))


def _load_all(files: Sequence[Path]) -> tuple[dict[str, StrategyForm], list[str]]:
    forms: dict[str, StrategyForm] = {}
    mistakes: list[str] = []
    for path in files:
        try:
            forms[path.parent.name] = load(path)
        except InvalidInput as error:
            mistakes.append(str(error))
    return forms, mistakes
