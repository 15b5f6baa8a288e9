import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.weights import read_weights, write_weights

ARRAYS = {
    "one": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(0.5),
    "none": np.zeros((0, 4), np.float32),
    "steps": np.array([3, -1], np.int64),
}


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name]) for name in one
    )


def test_the_formats_own_library_reads_what_is_written_and_is_read(tmp_path: Path) -> None:
    write_weights(tmp_path / "ours", ARRAYS, {"note": "x"})
    assert same(load_file(tmp_path / "ours"), ARRAYS)
    save_file(ARRAYS, tmp_path / "theirs", {"note": "y"})
    arrays, metadata = read_weights(tmp_path / "theirs")
    assert same(arrays, ARRAYS)
    assert metadata == {"note": "y"}


def test_equal_arrays_give_equal_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_weights(tmp_path / "one", ARRAYS)
    write_weights(tmp_path / "two", dict(reversed(ARRAYS.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def file(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "0 bytes"),
        (file({}, length=2**40), "header claims 1099511627776 bytes"),
        (file(b"[" * 200_000), "recursion"),
        (file(b"{"), "Expecting property name"),
        (file([]), "no mapping"),
        (file({"__metadata__": {"a": 1}}), "not texts"),
        (file({"a": 1}), "no place"),
        (file({"a": entry(offsets=[0])}, bytes(8)), "no place"),
        (file({"a": entry("BF16")}, bytes(8)), "'BF16'"),
        (file({"a": entry(["F32"])}, bytes(8)), "not allowed"),  # type: ignore[arg-type]
        (file({"a": entry(shape=[-2])}, bytes(8)), "not allowed"),
        (file({"a": entry(shape=[2**70])}, bytes(8)), "does not fit"),
        (file({"a": entry(offsets=[0, 80])}, bytes(8)), "does not fit"),
        (file({"a": entry(offsets=[-8, 0])}, bytes(8)), "does not fit"),
        (file({"a": entry(), "b": entry()}, bytes(8)), "does not fit"),
        (file({"a": entry()}, bytes(12)), "4 bytes belong to no array"),
        (file({"a": entry()}, np.array([1, np.nan], "<f4").tobytes()), "NaN"),
        (file({"a": entry()}, np.array([1, np.inf], "<f4").tobytes()), "NaN or infinite"),
        (pickle.dumps({"a": 1}), "cannot be read"),
    ],
)
def test_a_file_that_is_not_sound_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(InvalidInput, match=f"(?i){why}.*train the model again"):
        read_weights(tmp_path / "bad")


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_weights(tmp_path / "absent")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(2**31 + 1)
    with pytest.raises(InvalidInput, match="2147483649 bytes"):
        read_weights(tmp_path / "huge")


class Bomb:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_under_the_name_of_weights_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(InvalidInput):
        read_weights(tmp_path / "bomb")
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / "bomb").read_bytes())
    assert (tmp_path / "executed").exists()
