"""The JSON document of an artifact: written the same for the same model, and read without trusting it.

JSON is data: reading it executes nothing, and a path in it is a text like any other. What the numbers mean, and whether
they fit together, each algorithm checks for itself.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.hyperparameters import Value

FORMAT = 1
LARGEST = 512 * 2**20
"""Bytes of a document that is read; no model that ships comes near."""
_HEAD = {"label": str, "features": list, "hyperparameters": dict, "metrics": dict}


def write_document(
    path: Path,
    algorithm: str,
    label: str,
    features: tuple[str, ...],
    chosen: Mapping[str, Value],
    metrics: Mapping[str, float],
    content: Mapping[str, Any],
) -> None:
    """Write the document of a model: plain text, floats in their shortest exact form."""
    document = {
        "format": FORMAT,
        "algorithm": algorithm,
        "label": label,
        "hyperparameters": dict(chosen),
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "features": list(features),
        **content,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_document(path: Path, algorithm: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The document at `path`, whose fields beyond the common ones have these `kinds`.

    Missing metrics come back as NaN. Raises `InvalidInput` if it cannot be read, is too large, belongs to another
    algorithm or format, or lacks a field.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InvalidInput(f"the model {path} has {size} bytes, more than {LARGEST}; train it again")
        document = json.loads(path.read_text(encoding="utf-8"))
    except InvalidInput:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the model {path} cannot be read ({error}); train it again") from error
    if not isinstance(document, dict) or document.get("algorithm") != algorithm or document.get("format") != FORMAT:
        raise InvalidInput(f"{path} is no model of algorithm {algorithm!r} in format {FORMAT}; train it again")
    wrong = [name for name, kind in (_HEAD | dict(kinds)).items() if not isinstance(document.get(name), kind)]
    features: Any = document.get("features")
    metrics: Any = document.get("metrics")
    if not wrong and not (all(isinstance(each, str) for each in features) and len(set(features)) == len(features)):
        wrong = ["features"]
    if not wrong and not all(value is None or type(value) in (int, float) for value in metrics.values()):
        wrong = ["metrics"]
    if wrong:
        raise InvalidInput(f"the model {path} lacks {wrong}, or has something else in their place; train it again")
    document["metrics"] = {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    return document


def numbers(document: Mapping[str, Any], name: str, path: Path, whole: bool = False) -> NDArray[Any]:
    """A list of finite numbers (whole ones as int64, else float64) of a document; `InvalidInput` for anything else."""
    values = document[name]
    allowed = (int,) if whole else (int, float)
    if not all(type(each) in allowed and math.isfinite(each) and abs(each) < 2**62 for each in values):
        raise InvalidInput(
            f"the model {path} has something other than {'whole' if whole else 'finite'} numbers in {name!r}; "
            "train it again"
        )
    return np.array(values, dtype=np.int64 if whole else np.float64)
