"""PyTorch as it must be for equal models: a fixed number of threads, deterministic operations, and a named device.

Everything that changes PyTorch for the whole process is here, and is put back afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stockpicker_dagster.errors import InvalidInput

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


@contextmanager
def deterministic_torch(threads: int) -> "Iterator[None]":
    """Within, PyTorch uses so many threads and refuses operations whose result is left to chance on the CPU."""
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def torch_device(name: str) -> "torch.device":
    """The device of one of `DEVICES`: `auto` is a GPU where there is one. `InvalidInput` for `cuda` without a GPU."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device 'cuda' is asked for and PyTorch sees no GPU here; give 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
