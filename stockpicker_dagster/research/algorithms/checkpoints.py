"""The state of a training that was stopped or killed, as data, so that it can go on to the same bytes.

State belongs to one training: it carries a digest of the tables, settings and seed, and any other is as good as none.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.supervision import Supervision
from stockpicker_dagster.research.algorithms.weights import Array, read_weights, write_weights


def training_digest(**parts: Any) -> str:
    """A digest of everything that a training depends on; numbers count to their last bit."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def keep_state(
    supervision: Supervision, name: str, digest: str, arrays: Mapping[str, Array], figures: Mapping[str, Any]
) -> None:
    """Keep `arrays`, and `figures` that JSON can hold, in the checkpoint folder, if there is one."""
    if supervision.checkpoints is not None:
        write_weights(_path(supervision, name), arrays, {"digest": digest, "figures": json.dumps(figures)})


def kept_state(supervision: Supervision, name: str, digest: str) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """What `keep_state` kept of the training with this digest; None if it kept nothing, or of another training."""
    if supervision.checkpoints is None or not _path(supervision, name).is_file():
        return None
    try:
        arrays, metadata = read_weights(_path(supervision, name))
        figures = json.loads(metadata["figures"])
    except (InvalidInput, ValueError, KeyError):
        # Not ours, or from another version: the training begins again and replaces it.
        return None
    return (arrays, figures) if metadata.get("digest") == digest and isinstance(figures, dict) else None


def _path(supervision: Supervision, name: str) -> Path:
    assert supervision.checkpoints is not None
    return supervision.checkpoints / f"{name}.checkpoint.safetensors"
