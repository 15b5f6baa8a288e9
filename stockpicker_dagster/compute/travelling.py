"""Functions and frames on their way to another machine, and the answer on its way back.

A function travels by name wherever the other machine has the project, and as code where it comes from a module of one's
own; what arrives is executed, so it is only ever read where its digest was given by another way. Frames travel as data.
"""

import hashlib
import io
import pickle
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import polars as pl

from stockpicker_dagster.compute import FrameFunction


def pickled(function: FrameFunction, own_modules: Sequence[str] = ()) -> bytes:
    """The function as bytes; `own_modules` name loaded modules that the other machine cannot import."""
    from numba import cloudpickle

    registered = set(cloudpickle.list_registry_pickle_by_value())
    fresh = [name for name in own_modules if name not in registered]
    try:
        for name in fresh:
            cloudpickle.register_pickle_by_value(sys.modules[name])
        return bytes(cloudpickle.dumps(function))
    finally:
        for name in fresh:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


def unpickled(content: bytes) -> FrameFunction:
    """The function again. This executes what is in the bytes."""
    from numba import cloudpickle

    function: FrameFunction = cloudpickle.loads(content)
    return function


def identity(function: FrameFunction, own_modules: Sequence[str] = ()) -> str:
    """A digest that two processes give one function with the same arguments, of one version of the code.

    `pickled` does not: what Numba compiles carries a name of its own in every process.
    """
    written = io.BytesIO()
    _Describing(written, own_modules).dump(function)
    return hashlib.sha256(written.getvalue()).hexdigest()


class _Describing(pickle.Pickler):
    """Writes functions as their names; those of modules of one's own with the text of the module, too."""

    def __init__(self, file: io.BytesIO, own_modules: Sequence[str]) -> None:
        super().__init__(file)
        self._own_modules = own_modules

    def reducer_override(self, given: Any) -> Any:
        plain = getattr(given, "py_func", given)
        if not isinstance(plain, FunctionType):
            return NotImplemented
        name = f"{plain.__module__}.{plain.__qualname__}"
        if plain.__module__ not in self._own_modules:
            return str, (name,)
        file = getattr(sys.modules[plain.__module__], "__file__", None)
        # A module without a text is not known to be the same in another process.
        text = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else uuid.uuid4().hex
        return str, (f"{name} {text}",)


def packed(frame: pl.DataFrame) -> bytes:
    """The frame in Arrow's file format."""
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> pl.DataFrame:
    """The frame again. Raises Polars' errors for bytes that are none."""
    return pl.read_ipc(content)
