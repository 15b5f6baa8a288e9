"""What lies behind a line of a proposal: the prediction and the model in the lake, and the runs in Dagster's event log.

The ledger says which strategy, session and model a proposal rests on; here that is looked up where it is kept. What has
been made again since is said to be so, never shown as if it were what was traded on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import dagster as dg
import polars as pl
from dagster import DagsterInstance

from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading.shortfall import DayPrices
from stockpicker_dagster.training.models import describe_stored_model

DAILY = ("scaled_features", "predictions", "rebalance_orders", "executions")
"""The strategy's assets of one session that are named with their runs."""


@dataclass(frozen=True)
class ModelOrigin:
    """The model that serves the session now; `same` says that it is the one that the proposal names.

    `train` and `validation` are the first and last days that it learned from and was chosen on, `last_known` the last
    day of whose outcome it knew.
    """

    model_id: str
    period: str
    algorithm: str
    train: Sequence[str]
    validation: Sequence[str]
    last_known: str
    data_version: str
    same: bool


@dataclass(frozen=True)
class MadeBy:
    """One partition of an asset and the Dagster run that last made it (None: Dagster does not know of one)."""

    asset: str
    partition: str
    run: str | None


@dataclass(frozen=True)
class Origin:
    """Why a strategy wanted a symbol on one session; prediction figures are None where the day has none of it.

    `rank` 1 is the most attractive of `ranked` members; `score` is in units of the label, after the session's close;
    `contributions` name the features that moved it most.
    """

    score: float | None
    rank: int | None
    ranked: int
    contributions: Sequence[tuple[str, float]]
    model: ModelOrigin | None
    made_by: Sequence[MadeBy]


def origin(
    lake: Lake, instance: DagsterInstance, strategy: str, form: StrategyForm, session: date, symbol: str, model_id: str
) -> Origin:
    """What the lake and Dagster keep behind `symbol` in the strategy's plan of `session`."""
    table = f"{strategy}/predictions"
    rows = lake.read(table, [session]) if session in lake.days(table) else None
    here = None if rows is None else rows.filter(pl.col("symbol") == symbol)
    found = None if here is None or here.is_empty() else here.row(0, named=True)
    key = form.period_key(session) or UNPARTITIONED
    prices = form.prices.key
    partitions = [(f"{prices}/prices", session.isoformat())]
    partitions += [(f"{strategy}/{name}", session.isoformat()) for name in DAILY]
    partitions += [(f"{strategy}/{name}", key) for name in ("datasets", "trained_model")]
    return Origin(
        score=found["score"] if found else None,
        rank=found["rank"] if found else None,
        ranked=0 if rows is None else rows.height,
        contributions=[(each["feature"], each["value"]) for each in found["contributions"] or ()] if found else [],
        model=_model(lake, strategy, key, model_id),
        made_by=[MadeBy(asset, partition, _run(instance, asset, partition)) for asset, partition in partitions],
    )


def day_prices(lake: Lake, form: StrategyForm, session: date, symbols: Sequence[str]) -> Mapping[str, DayPrices] | None:
    """Open, close and adjustment of `symbols` on `session`, as a shortfall needs them; None before it is stored."""
    table = f"{form.prices.key}/prices"
    if session not in lake.days(table):
        return None
    rows = lake.read(table, [session]).filter(pl.col("symbol").is_in(list(symbols)))

    def exact(figure: float | None) -> Decimal | None:
        return None if figure is None else Decimal(str(figure))

    return {
        row["symbol"]: DayPrices(exact(row["open"]), exact(row["close"]), exact(row["adjustment"]) or Decimal(1))
        for row in rows.iter_rows(named=True)
    }


def _model(lake: Lake, strategy: str, key: str, model_id: str) -> ModelOrigin | None:
    table = f"{strategy}/trained_model"
    if key not in lake.bundles(table):
        return None
    said = describe_stored_model(lake.bundle(table, key))
    return ModelOrigin(
        model_id=said["model_id"],
        period=said["period"],
        algorithm=said["algorithm"],
        train=said["train"],
        validation=said["validation"],
        last_known=said["last_known"],
        data_version=said["data_version"],
        same=said["model_id"] == model_id,
    )


def _run(instance: DagsterInstance, asset: str, partition: str) -> str | None:
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(asset.split("/")),
        asset_partitions=None if partition == UNPARTITIONED else [partition],
    )
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].run_id if records else None
