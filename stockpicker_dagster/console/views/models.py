"""The models of a strategy: which period each serves, what it learned from, and how well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.console.views.remembered import fingerprint
from stockpicker_dagster.training.models import describe_stored_model


@dataclass(frozen=True)
class ModelLine:
    """One stored model; `said` is its whole `model.json`."""

    period: str
    model_id: str
    algorithm: str
    train: Sequence[str]
    validation: Sequence[str]
    last_known: str
    metrics: dict[str, float | None]
    current: bool
    """Whether the strategy still has the settings that it was trained under."""
    said: dict[str, Any]


def models(desk: Desk, name: str) -> list[ModelLine]:
    """The strategy's models, newest period first."""
    definition, table = desk.form(name).definition("trained_model"), f"{name}/trained_model"
    lake = desk.lake
    described = desk.remembered.answer(
        ("models", name),
        fingerprint(lake, table),
        lambda: [describe_stored_model(lake.bundle(table, key)) for key in reversed(lake.bundles(table))],
    )
    return [
        ModelLine(
            said["period"],
            said["model_id"],
            said["algorithm"],
            said["train"],
            said["validation"],
            said["last_known"],
            said["metrics"],
            str(said.get("definition", "")).startswith(definition),
            said,
        )
        for said in described
    ]
