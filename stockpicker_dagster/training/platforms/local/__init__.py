"""The local platform: the container's own code as processes of this machine, under the state folder.

It is the default of every strategy. What it is asked for is checked as SageMaker would check it, and what it starts
outlives who asked: a step that was killed finds its job again by name.
"""

import shutil
import uuid
from pathlib import Path
from typing import Any

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.local.client import LocalClient
from stockpicker_dagster.training.platforms.local.locations import files_under, path_of, uri
from stockpicker_dagster.training.platforms.local.records import LOG

IMAGE = "stockpicker-dagster:local"
_PIECE = 2**20


class LocalPlatform:
    """Trains and serves under `root`, by default the folder `training` of the state folder."""

    name = "local"
    image = IMAGE
    role = "arn:aws:iam::000000000000:role/stockpicker-local"
    poll_seconds = 0.01
    longest_poll_seconds = 0.5

    def __init__(self, root: Path | None = None, stop_seconds: float = 120) -> None:
        self.root = home().root / "training" if root is None else root
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.client = self.runtime = LocalClient(self.root, IMAGE, stop_seconds)
        self.output = uri(self.root / "output")
        self.custom_models = uri(self.root / "custom-models")
        self.marks = {"stockpicker": "local"}
        # Named as SageMaker wants them, and used for nothing: jobs run on this machine.
        self.training_resources: dict[str, Any] = {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
        }
        self.hosting_resources: dict[str, Any] = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.transform_resources: dict[str, Any] = {"InstanceType": "ml.m5.large", "InstanceCount": 1}

    def stage(self, source: Path, work: str) -> str:
        """The URI of the file or folder itself: nothing is copied."""
        if not source.exists():
            raise InvalidInput(f"{source} is not there, and cannot be given to a job")
        return uri(source)

    def unstage(self, work: str) -> None:
        """Nothing was copied."""

    def store(self, location: str, content: bytes) -> None:
        """Puts one file below the platform's own folder."""
        path = self._own(location)
        fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(content)
            fresh.rename(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise PlatformFailure(f"{location} cannot be written ({error.strerror})") from error

    def fetch(self, location: str) -> bytes:
        """The content of one file that a job wrote."""
        try:
            return path_of(location).read_bytes()
        except OSError as error:
            raise PlatformFailure(f"{location} cannot be read ({error.strerror})") from error

    def listed(self, location: str) -> list[str]:
        """The URIs of all files under a folder, ascending."""
        return [uri(path) for path, _ in files_under(location)]

    def remove(self, location: str) -> None:
        """Removes a file or folder below the platform's own."""
        path = self._own(location)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _own(self, location: str) -> Path:
        path = path_of(location)
        if not path.is_relative_to(self.root):
            raise InvalidInput(f"{location} is not below {self.root}; only what jobs wrote is changed")
        return path

    def read_log(self, job: str, position: str | None = None, kind: str = "training") -> tuple[list[str], str]:
        """The whole lines of a job's log after `position`, a number of bytes."""
        record = self.client.job_record(kind, job)
        start = int(position or 0)
        if record is None or not (record.folder / LOG).exists():
            return [], str(start)
        with (record.folder / LOG).open("rb") as file:
            file.seek(start)
            content = file.read(_PIECE)
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and len(content) == _PIECE:
            whole = content  # one endless line, in pieces
        return whole.decode(errors="replace").splitlines(), str(start + len(whole))
