"""`compute`: what a processing job runs, one function of frames, by SageMaker's contract for processing.

The function and its frames are files of the job's input, the answer is one of its output. The function is executed, so
its digest has to be the one in the job's own request, whoever else can write where the files lie. The image has to hold
the same version of the code, since a function travels by name.
"""

import hashlib
import os
import sys
import traceback
from pathlib import Path

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.training.container.layout import FAILURE_CHARACTERS, Layout

FUNCTION, ANSWER = "function", "answer.arrow"
FRAMES, SCHEMA = ("0.arrow", "1.arrow"), "schema.arrow"
DIGEST, CODE, PYTHON = "STOCKPICKER_FUNCTION", "STOCKPICKER_CODE", "STOCKPICKER_PYTHON"
"""Variables of a request: the SHA-256 of the function's bytes, and the versions of code and Python that it is from."""
BY, ENGINE = "STOCKPICKER_BY", "STOCKPICKER_ENGINE"
"""The column whose values do not see each other, and whether to spread them: `process` or `spark`."""


def python_version() -> str:
    """The part of Python's version on which the bytes of travelling code depend."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def compute(layout: Layout) -> int:
    """Computes the answer under `layout`; 0 if it is there, 1 with a message else."""
    try:
        answer = _answer(layout.processing_input)
        layout.processing_output.mkdir(parents=True, exist_ok=True)
        fresh = layout.processing_output / f".{ANSWER}.new"
        fresh.write_bytes(answer)
        fresh.rename(layout.processing_output / ANSWER)
    except StockPickerError as error:
        return _fail(layout, str(error), "")
    except MemoryError:
        return _fail(layout, "computing needs more memory than this machine has; choose a larger one", "")
    except Exception as error:
        return _fail(layout, f"computing failed with {type(error).__name__}: {error}", traceback.format_exc())
    return 0


def _answer(folder: Path) -> bytes:
    from stockpicker_dagster.code_version import code_version
    from stockpicker_dagster.compute.travelling import packed, unpacked, unpickled

    for variable, here, way_out in (
        (CODE, code_version(), "build the image of this version and push it"),
        (PYTHON, python_version(), "build the image on the Python that Dagster runs on"),
    ):
        if os.environ.get(variable) != here:
            said = os.environ.get(variable)
            raise InvalidInput(f"the job's {variable} is {said!r} and the image's {here!r}; {way_out}")
    content = (folder / FUNCTION).read_bytes()
    if hashlib.sha256(content).hexdigest() != os.environ.get(DIGEST):
        raise InvalidInput(f"the function is not the one that the job names in {DIGEST}, and is not executed")
    function = unpickled(content)
    frames = [unpacked((folder / name).read_bytes()) for name in FRAMES if (folder / name).exists()]
    if os.environ.get(ENGINE) != "spark":
        return packed(function(*frames))
    from stockpicker_dagster.compute.spark import OnSpark
    from stockpicker_dagster.compute.spark_session import spark_session
    from stockpicker_dagster.home import home

    schema = unpacked((folder / SCHEMA).read_bytes()).schema
    return packed(OnSpark(spark_session(home())).run(function, frames, os.environ[BY], schema))


def _fail(layout: Layout, reason: str, details: str) -> int:
    """Says why on standard error and in the message file, the reason within what is shown of it."""
    sys.stderr.write(f"{reason}\n{details}")
    sys.stderr.flush()
    try:
        layout.message.parent.mkdir(parents=True, exist_ok=True)
        layout.message.write_text(reason[:FAILURE_CHARACTERS])
    except OSError as error:
        sys.stderr.write(f"the message file cannot be written: {error}\n")
    return 1
