"""Which version of the research code made something: a digest of the sources themselves.

A package version is bumped by hand and forgotten; two models are comparable only if the code that made them was the
same.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import stockpicker_dagster

_ROOMS = ("research", "training")


@lru_cache(maxsize=1)
def code_version() -> str:
    """Sixteen hexadecimal digits over every source file of the rooms that features, models and back-tests come from."""
    package = Path(stockpicker_dagster.__file__).parent
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
