"""The folder that each model has on a platform: `custom-models/<owner>/<model-id>/`.

`metadata.json` says what the model is and which job left it; `outputs/` holds what was scored with it; `model/` holds
its archive, where that of the job is no longer there. A model's id is the one of `model.json`: sixteen digits over
strategy, period, data and code, so that no two models share one.
"""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import Platform, PlatformFailure

METADATA, MODEL, ARTIFACT, OUTPUTS = "metadata.json", "model", "model.tar.gz", "outputs"
_NO_LETTER = re.compile(r"[^A-Za-z0-9_.@+-]")
_MODEL_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ModelFolder:
    """The folder of one model. Letters of an owner that cannot be in a name become `_`.

    Raises `InvalidInput` for an id that is none.
    """

    platform: Platform
    owner: str
    model_id: str

    def __post_init__(self) -> None:
        if not _MODEL_ID.fullmatch(self.model_id):
            raise InvalidInput(f"model id {self.model_id!r} is none; it is sixteen digits of 0 to f")

    @property
    def location(self) -> str:
        """Its URI, without a slash at the end."""
        return f"{self.platform.custom_models}/{_NO_LETTER.sub('_', self.owner)}/{self.model_id}"

    def output(self, name: str) -> str:
        """The URI of the folder for what a job of that name writes."""
        return f"{self.location}/{OUTPUTS}/{name}"

    def create(self, model: Mapping[str, Any], artifact: str, job: str) -> None:
        """Makes the folder: `model` is what `model.json` says, `artifact` where the training job `job` left the files.

        Made again, it is replaced.
        """
        known = {"owner": self.owner, "model_id": self.model_id, "artifact": artifact, "training_job": job}
        document = {**known, "model": dict(model)}
        self.platform.store(f"{self.location}/{METADATA}", (json.dumps(document, indent=1) + "\n").encode())

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What was said when the folder was made; None if it was not."""
        try:
            content = self.platform.fetch(f"{self.location}/{METADATA}")
        except PlatformFailure:
            return None
        try:
            document: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise PlatformFailure(f"{self.location}/{METADATA} cannot be read ({error}); remove it") from error
        return document

    def artifact(self, files: Path) -> str:
        """The URI of the model's archive: what its training job left, or else its stored `files`, brought there."""
        known = (self.metadata or {}).get("artifact", "")
        if known and known in self.platform.listed(known.rpartition("/")[0]):
            return str(known)
        packed = f"{self.location}/{MODEL}/{ARTIFACT}"
        if packed not in self.platform.listed(f"{self.location}/{MODEL}"):
            self.platform.store(packed, archive(files))
        return packed


def archive(folder: Path) -> bytes:
    """The plain files of a stored model as a `model.tar.gz`; equal files give equal bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                content = path.read_bytes()
                member = tarfile.TarInfo(path.name)
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
