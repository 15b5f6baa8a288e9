"""The tables of a training, from its channels: `train` and `validation` as Parquet or CSV, and `captions`.

`captions` holds the `captions.json` of a stored dataset: which columns are features, and from when labels are known.
Without it, features are all columns but `symbol`, `date` and the label's, and the job says `last_known`. Either way the
outcome is a folder laid out like a stored dataset.
"""

import gzip
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.container.layout import Layout
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.datasets import CAPTIONS, LABEL, data_version

PARQUET, CSV = ("application/x-parquet", "application/vnd.apache.parquet"), ("text/csv",)
LEARNED_FROM = ("train", "validation")
EARLIER = "earlier"
"""The channel of the model that learning begins from, where the settings name one: its files as they were stored."""
_NO_FEATURES = ("symbol", "date", "label", "label_return")


def assemble_dataset(layout: Layout, settings: Settings, into: Path) -> Path:
    """The folder `into` with `train.parquet`, `validation.parquet` and `captions.json`.

    Raises `InvalidInput` for a channel that is missing, empty, of an unknown kind or without the columns it needs, for
    tables that are not those that the captions describe, and for dates of training that reach into validation.
    """
    config = _channel_config(layout)
    _refuse_several_hosts(layout)
    for name in LEARNED_FROM:
        if name not in config:
            raise InvalidInput(f"the job has no channel {name!r}; it needs {' and '.join(LEARNED_FROM)}")
    for name in LEARNED_FROM:
        _gather(layout.data / name, name, config[name], into / f"{name}.parquet")
    captions = _given_captions(layout.data / "captions") if "captions" in config else None
    if captions is None:
        captions = _derived_captions(into, settings)
    elif (found := data_version(into)) != captions.get("data_version"):
        raise InvalidInput(
            f"the tables are not those that captions.json describes: their version is {found[:12]}, it says "
            f"{str(captions.get('data_version'))[:12]}; give all three channels from one dataset"
        )
    (into / CAPTIONS).write_text(json.dumps(captions))
    return into


def _channel_config(layout: Layout) -> dict[str, dict[str, Any]]:
    try:
        config = json.loads(layout.channels.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{layout.channels} cannot be read ({error}); the platform writes it") from error
    if not isinstance(config, dict) or not all(isinstance(each, dict) for each in config.values()):
        raise InvalidInput(f"{layout.channels.name} must hold an object with one object a channel")
    for name, channel in config.items():
        if Path(name).name != name or name in (".", ".."):
            raise InvalidInput(f"the channel {name!r} has no name of a folder")
        if channel.get("TrainingInputMode", "File") == "Pipe":
            raise InvalidInput(f"the channel {name!r} has the input mode 'Pipe'; allowed: 'File', 'FastFile'")
    return config


def _refuse_several_hosts(layout: Layout) -> None:
    try:
        hosts = json.loads(layout.resources.read_text()).get("hosts", [])
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{layout.resources} cannot be read ({error}); the platform writes it") from error
    if len(hosts) > 1:
        raise InvalidInput(f"the job has {len(hosts)} instances, {', '.join(hosts)}; training needs InstanceCount 1")


def _gather(folder: Path, name: str, config: dict[str, Any], target: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] not in "._"]
    if not files:
        raise InvalidInput(f"the channel {name!r} has no file in {folder}")
    kinds = {_kind(path, name, config.get("ContentType")) for path in files}
    if len(files) == 1 and kinds == {"parquet"}:
        # As it is: the very bytes are what a dataset's version counts.
        _read(files[0], name, "parquet", rows=1)
        target.symlink_to(files[0].resolve())
        return
    tables = [_read(path, name, _kind(path, name, config.get("ContentType"))) for path in files]
    try:
        whole = pl.concat(tables, how="vertical")
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"the files of the channel {name!r} do not have the same columns ({error})") from error
    whole.write_parquet(target)


def _kind(path: Path, channel: str, content_type: str | None) -> str:
    declared = (content_type or "").split(";")[0].strip().lower()
    suffixes = path.suffixes[-2:] if path.suffix == ".gz" else [path.suffix]
    if declared in PARQUET or (not declared and suffixes == [".parquet"]):
        return "parquet"
    if declared in CSV or (not declared and suffixes[:1] == [".csv"]):
        return "csv"
    what = f"the content type {content_type!r}" if declared else f"a file {path.name!r}"
    raise InvalidInput(f"the channel {channel!r} has {what}; allowed: Parquet ({PARQUET[0]}) and CSV ({CSV[0]})")


def _read(path: Path, channel: str, kind: str, rows: int | None = None) -> pl.DataFrame:
    try:
        if kind == "parquet":
            return pl.read_parquet(path, hive_partitioning=False, n_rows=rows)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        table = pl.read_csv(content, infer_schema_length=0)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"{path.name} of the channel {channel!r} cannot be read as {kind} ({error})") from error
    if "date" not in table.columns:
        raise InvalidInput(
            f"{path.name} of the channel {channel!r} has no column 'date'; a CSV file begins with its columns' names"
        )
    return table.with_columns(_typed(name) for name in table.columns)


def _typed(name: str) -> pl.Expr:
    if name == "symbol":
        return pl.col(name)
    if name == "date":
        return pl.col(name).str.to_date("%Y-%m-%d", strict=False)
    return pl.col(name).cast(pl.Float64 if name in _NO_FEATURES else pl.Float32, strict=False)


def _given_captions(folder: Path) -> dict[str, Any]:
    try:
        captions = json.loads((folder / CAPTIONS).read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"the channel 'captions' has no {CAPTIONS} that can be read ({error})") from error
    needed = ("features", "label", "data_version", "train", "validation", "last_known")
    lacking = [name for name in needed if name not in captions] if isinstance(captions, dict) else list(needed)
    if lacking:
        raise InvalidInput(f"{CAPTIONS} lacks {', '.join(lacking)}; give that of a stored dataset")
    return dict(captions)


def _derived_captions(folder: Path, settings: Settings) -> dict[str, Any]:
    tables = {name: pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False) for name in LEARNED_FROM}
    spans: dict[str, tuple[date, date]] = {}
    for name, table in tables.items():
        absent = [column for column in ("date", LABEL) if column not in table.columns]
        if absent or table.schema["date"] != pl.Date():
            raise InvalidInput(
                f"the channel {name!r} needs the columns 'date' (a date) and {LABEL!r}; it has: "
                f"{', '.join(table.columns)}"
            )
        if table["date"].null_count() or table.is_empty():
            raise InvalidInput(f"the channel {name!r} has {'no row' if table.is_empty() else 'rows without a date'}")
        days = table["date"].sort()
        spans[name] = (days[0], days[-1])
    features = [name for name in tables["train"].columns if name not in _NO_FEATURES]
    if spans["train"][1] >= spans["validation"][0]:
        raise InvalidInput(
            f"training reaches to {spans['train'][1]}, which is not before validation, from {spans['validation'][0]} on"
        )
    try:
        last_known = date.fromisoformat(settings.last_known)
    except ValueError:
        raise InvalidInput(
            f"hyperparameter last_known {settings.last_known!r} is no date; without a channel 'captions' it says after "
            "which day's close the last label is known"
        ) from None
    if last_known <= spans["validation"][1]:
        raise InvalidInput(
            f"hyperparameter last_known {last_known} is not after the last date of validation, "
            f"{spans['validation'][1]}; a label is known only after its return"
        )
    return {
        "features": features,
        "label": LABEL,
        "definition": settings.dataset_definition,
        "data_version": _version(folder),
        **{name: [str(day) for day in span] for name, span in spans.items()},
        "last_known": str(last_known),
    }


def _version(folder: Path) -> str:
    """Which data is learned from, where no stored dataset says it: a digest of the tables as gathered."""
    digest = hashlib.sha256()
    for name in LEARNED_FROM:
        table = pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False)
        digest.update(name.encode() + b"\0" + table.write_csv().encode())
    return digest.hexdigest()
