"""Dagster's runs, and what an asset's last run said, read from Dagster's own storage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus

from stockpicker_dagster.console.views.desk import Desk

_UNDER_WAY = frozenset(
    {
        DagsterRunStatus.QUEUED,
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    }
)


@dataclass(frozen=True)
class RunLine:
    """A run in a list."""

    id: str
    job: str
    status: str
    assets: Sequence[str]
    partitions: str
    created_at: datetime
    seconds: float | None
    """How long it took; None while it runs."""

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return DagsterRunStatus(self.status) in _UNDER_WAY


def runs(desk: Desk, most: int = 50) -> list[RunLine]:
    """The newest runs."""
    return [_line(record) for record in desk.dagster.get_run_records(limit=most)]


def latest_metadata(desk: Desk, strategy: str, asset: str) -> tuple[dict[str, str], datetime | None]:
    """What the last run of one of the strategy's assets said, as text by label, and when; empty where it never ran."""
    event = desk.dagster.get_latest_materialization_event(dg.AssetKey([strategy, asset]))
    if event is None or event.asset_materialization is None:
        return {}, None
    said = {
        label: str(entry.value)
        for label, entry in event.asset_materialization.metadata.items()
        if isinstance(entry.value, str | int | float)
    }
    return said, datetime.fromtimestamp(event.timestamp, UTC)


def _line(record: Any) -> RunLine:
    run = record.dagster_run
    tags = run.tags
    first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    partitions = tags.get("dagster/partition") or (f"{first} to {last}" if first and first != last else first or "")
    assets = sorted("/".join(key.path) for key in run.asset_selection or ())
    took = record.end_time - record.start_time if record.end_time and record.start_time else None
    return RunLine(
        run.run_id, run.job_name, run.status.value, assets, partitions, record.create_timestamp.astimezone(UTC), took
    )
