"""Arrays of numbers in the safetensors format: a JSON header that says where each array lies, then the bytes.

Reading executes nothing and trusts nothing: every size and place is checked before a byte is taken. The format is that
of the safetensors project, whose own library reads and writes the same files; only the kinds used here are taken.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

Array = NDArray[Any]

LARGEST = 2**31
"""Bytes of a file that is read; no model that ships comes near."""
LARGEST_HEADER = 2**20
_KINDS: dict[str, "np.dtype[Any]"] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_METADATA = "__metadata__"


def write_weights(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write float32, float64 and int64 arrays, by name; equal arrays give equal bytes. The file appears whole."""
    header: dict[str, Any] = {_METADATA: dict(sorted((metadata or {}).items()))} if metadata else {}
    place, parts = 0, []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        ends = place + len(content)
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [place, ends]}
        parts.append(content)
        place = ends
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    unfinished.replace(path)


def read_weights(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays of a file by name, and its metadata.

    Raises `InvalidInput` for a file that cannot be read, is too large, whose header is not sound, whose arrays overlap,
    leave gaps or go past its end, or that holds NaN or infinite values.
    """
    try:
        size = path.stat().st_size
        if not 8 <= size <= LARGEST:
            raise _refused(path, f"it has {size} bytes; 8 to {LARGEST} are allowed")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LARGEST_HEADER, size - 8):
                raise _refused(path, f"its header claims {length} bytes")
            header = json.loads(file.read(length).decode("utf-8"))
            content = file.read()
    except InvalidInput:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(path, str(error)) from error
    if not isinstance(header, dict):
        raise _refused(path, "its header is no mapping")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused(path, "its metadata are not texts")
    arrays, place = {}, 0
    for name, described in sorted(header.items(), key=lambda item: _offsets(item[1], path)):
        kind, shape, ends = _described(described, place, len(content), path)
        array = np.frombuffer(content[place:ends], dtype=kind).reshape(shape)
        if not np.isfinite(array).all():
            raise _refused(path, f"{name!r} holds NaN or infinite values")
        # A copy in the machine's own byte order, which may be written to.
        arrays[name] = array.astype(kind.newbyteorder("="))
        place = ends
    if place != len(content):
        raise _refused(path, f"{len(content) - place} bytes belong to no array")
    return arrays, metadata


def _offsets(described: object, path: Path) -> list[int]:
    offsets = described.get("data_offsets") if isinstance(described, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(each) is int for each in offsets):
        raise _refused(path, "an array has no place")
    return offsets


def _described(
    described: Mapping[str, Any], place: int, available: int, path: Path
) -> tuple["np.dtype[Any]", list[int], int]:
    """(kind, shape, end) of an array that must begin at `place`."""
    shape, (first, ends) = described.get("shape"), described["data_offsets"]
    name = described.get("dtype")
    kind: np.dtype[Any] | None = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(shape, list) or not all(type(each) is int and each >= 0 for each in shape):
        raise _refused(path, f"an array of kind {name!r} and shape {shape!r} is not allowed")
    if first != place or not place <= ends <= available or ends - place != math.prod(shape) * kind.itemsize:
        raise _refused(path, f"an array of shape {shape} does not fit from byte {first} to {ends}")
    return kind, shape, ends


def _refused(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"the weights {path} cannot be read ({why}); train the model again")
