"""Channels become the very tables of a stored dataset, as Parquet or CSV; what is missing or does not fit is named."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.container.channels import assemble_dataset
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.datasets import read_captions, read_table
from stockpicker_dagster_tests.training.container.conftest import FILES, Lay

LINEAR = Settings("linear", {}, dataset_definition="d", last_known="2023-06-01")


def _csv(folder: Path, name: str) -> bytes:
    return read_table(folder, name).write_csv().encode()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_a_stored_dataset_arrives_byte_for_byte(lay: Lay, dataset_folder: Path, scratch: Path) -> None:
    made = assemble_dataset(lay(), LINEAR, scratch)
    for file in ("train.parquet", "validation.parquet"):
        assert (made / file).read_bytes() == (dataset_folder / file).read_bytes()
    assert read_captions(made) == read_captions(dataset_folder)


@pytest.mark.parametrize("packed", [False, True])
def test_csv_gives_the_tables_that_parquet_gives(lay: Lay, dataset_folder: Path, scratch: Path, packed: bool) -> None:
    channels = {}
    for name in ("train", "validation"):
        content = _csv(dataset_folder, name)
        channels[name] = {"a.csv.gz": gzip.compress(content)} if packed else {"a.csv": content, "_SUCCESS": b""}
    made = assemble_dataset(lay(channels=channels), LINEAR, scratch)
    for name in ("train", "validation"):
        assert_frame_equal(read_table(made, name), read_table(dataset_folder, name), check_exact=True)
    captions = read_captions(made)
    assert captions["features"] == ["one", "two"]
    assert captions["train"][0] == str(read_table(dataset_folder, "train")["date"].min())
    assert captions["last_known"] == "2023-06-01"


def test_the_files_of_a_channel_are_one_table(lay: Lay, dataset_folder: Path, scratch: Path) -> None:
    whole = read_table(dataset_folder, "train")
    halves = {}
    for number, part in enumerate((whole[:100], whole[100:])):
        buffer = io.BytesIO()
        part.write_parquet(buffer)
        halves[f"part-{number}.parquet"] = buffer.getvalue()
    validation = {"v.parquet": (dataset_folder / "validation.parquet").read_bytes()}
    made = assemble_dataset(lay(channels={"train": halves, "validation": validation}), LINEAR, scratch)
    assert_frame_equal(read_table(made, "train"), whole)


def test_tables_of_another_dataset_are_refused(lay: Lay, dataset_folder: Path, scratch: Path) -> None:
    stored = {name: {file: (dataset_folder / file).read_bytes()} for name, file in FILES.items()}
    buffer = io.BytesIO()
    read_table(dataset_folder, "train")[1:].write_parquet(buffer)
    with pytest.raises(InvalidInput, match=r"not those that captions\.json describes.*all three channels from one"):
        assemble_dataset(lay(channels=stored | {"train": {"train.parquet": buffer.getvalue()}}), LINEAR, scratch)


_ROWS = b"date,symbol,one,label\n2023-01-03,A,1,0\n2023-01-03,B,2,1\n"
_LATER = b"date,symbol,one,label\n2023-05-03,A,1,0\n"


@pytest.mark.parametrize(
    ("channels", "config", "said"),
    [
        ({"train": {"a.csv": _ROWS}}, {}, "no channel 'validation'; it needs train and validation"),
        ({"train": {"a.csv": _ROWS}, "validation": {}}, {}, "channel 'validation' has no file"),
        ({"train": {"a.txt": _ROWS}, "validation": {"a.csv": _LATER}}, {}, "a file 'a.txt'; allowed: Parquet .* CSV"),
        ({"train": {"a.csv": _ROWS}, "validation": {"a.csv": _LATER}}, {"train": {"ContentType": "image/png"}},
         "content type 'image/png'; allowed"),
        ({"train": {"a.csv": _ROWS}, "validation": {"a.csv": _LATER}}, {"train": {"TrainingInputMode": "Pipe"}},
         "input mode 'Pipe'; allowed: 'File', 'FastFile'"),
        ({"train": {"a.parquet": b"no"}, "validation": {"a.csv": _LATER}}, {}, "a.parquet of the channel"),
        ({"train": {"a.csv": b"1,2\n3,4\n"}, "validation": {"a.csv": _LATER}}, {}, "has no column 'date'"),
        ({"train": {"a.csv": b"date,one\n2023-01-03,1\n"}, "validation": {"a.csv": _LATER}}, {}, "needs the columns"),
        ({"train": {"a.csv": b"date,one,label\n3.1.2023,1,1\n"}, "validation": {"a.csv": _LATER}}, {},
         "rows without a date"),
        ({"train": {"a.csv": _LATER}, "validation": {"a.csv": _ROWS}}, {}, "to 2023-05-03, which is not before"),
        ({"train": {"a.csv": _ROWS, "b.csv": b"date\n2023-01-04\n"}, "validation": {"a.csv": _LATER}}, {},
         "do not have the same columns"),
        ({"train": {"a.csv": _ROWS}, "validation": {"a.csv": _LATER}, "captions": {"captions.json": b"{}"}}, {},
         "captions.json lacks features, label"),
    ],
)  # fmt: skip
def test_channels_that_do_not_fit_are_named(
    lay: Lay, scratch: Path, channels: dict[str, dict[str, bytes]], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        assemble_dataset(lay(channels=channels, config=config), LINEAR, scratch)


@pytest.mark.parametrize("name", ["../outside", "a/b", ".."])
def test_a_channel_does_not_step_out_of_its_folder(lay: Lay, scratch: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="has no name of a folder"):
        assemble_dataset(lay(config={name: {}}), LINEAR, scratch)


@pytest.mark.parametrize(
    ("last_known", "said"), [("", "last_known '' is no date"), ("2023-05-03", "2023-05-03 is not after the last date")]
)
def test_without_captions_the_job_says_when_labels_are_known(
    lay: Lay, scratch: Path, last_known: str, said: str
) -> None:
    channels = {"train": {"a.csv": _ROWS}, "validation": {"a.csv": _LATER}}
    with pytest.raises(InvalidInput, match=said):
        assemble_dataset(lay(channels=channels), Settings("linear", {}, last_known=last_known), scratch)


def test_several_instances_and_unreadable_files_are_refused(lay: Lay, scratch: Path) -> None:
    layout = lay(hosts=("algo-1", "algo-2"))
    with pytest.raises(InvalidInput, match="2 instances, algo-1, algo-2; training needs InstanceCount 1"):
        assemble_dataset(layout, LINEAR, scratch)
    layout.resources.write_text("[")
    with pytest.raises(InvalidInput, match=r"resourceconfig\.json cannot be read"):
        assemble_dataset(layout, LINEAR, scratch)
    layout.channels.write_text(json.dumps({"train": "x"}))
    with pytest.raises(InvalidInput, match="one object a channel"):
        assemble_dataset(layout, LINEAR, scratch)
