"""A served model on this machine: `serve` as a process, its port found, its health awaited, and requests sent to it."""

import http.client
import re
import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from stockpicker_dagster.training.container.layout import Layout
from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.local.container_process import ContainerProcess
from stockpicker_dagster.training.platforms.local.locations import path_of

HOST = "127.0.0.1"
_SERVING = re.compile(rb"^serving \S+ on [0-9.]+:(\d+)$", re.MULTILINE)


class Server:
    """`serve` on the model of a container definition, under `folder`, on a port of this machine's own."""

    def __init__(
        self,
        container: Mapping[str, Any],
        variables: Mapping[str, str],
        folder: Path,
        log: Path,
        lock: int,
        warm: bool,
    ) -> None:
        """Raises `PlatformFailure` if the model's files are not there."""
        layout = Layout(folder / "ml")
        unpack(str(container.get("ModelDataUrl") or ""), layout.model)
        own = {"SAGEMAKER_BIND_TO_PORT": "0", "STOCKPICKER_BIND_TO_HOST": HOST}
        self._log, self._from = log, log.stat().st_size if log.exists() else 0
        self.process = ContainerProcess(
            "serve", layout, {**(container.get("Environment") or {}), **variables, **own}, log, lock, warm
        )
        self.port = 0

    def healthy(self) -> bool:
        """Whether it answers. Raises `PlatformFailure`, with what it said at last, if it has ended."""
        if self.process.poll() is not None:
            raise PlatformFailure(f"the container ended: {self._last_words()}")
        if not self.port:
            with self._log.open("rb") as file:
                file.seek(self._from)
                found = _SERVING.search(file.read())
            if not found:
                return False
            self.port = int(found[1])
        try:
            return ask(self.port, "GET", "/ping", timeout=2)[0] == 200
        except OSError:
            return False

    def await_health(self, seconds: float) -> None:
        """Waits until it answers. Raises `PlatformFailure` if it does not within `seconds`."""
        until = time.monotonic() + seconds
        while not self.healthy():
            if time.monotonic() > until:
                raise PlatformFailure(f"the container did not pass the ping health check within {seconds:g} s")
            time.sleep(0.02)

    def _last_words(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._from)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return (lines[-1] if lines else "it said nothing")[:900]


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    """Status, headers (names in small letters) and body of one request. Raises `OSError` if it is not answered."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"no answer of HTTP: {error!r}") from error
    finally:
        connection.close()


def unpack(location: str, target: Path) -> None:
    """Puts the files of a model, packed or in a folder, into `target`. Raises `PlatformFailure`."""
    source = path_of(location)
    target.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_dir():
            for file in source.rglob("*"):
                if file.is_file():
                    place = target / file.relative_to(source)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(file.read_bytes())
        else:
            with tarfile.open(source) as archive:
                for member in archive:
                    _unpack_file(archive, member, target)
    except (OSError, tarfile.TarError) as error:
        raise PlatformFailure(f"Failed to download model data from {location!r}: {error}") from error


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Puts one plain file under `target`; nothing else is made, nowhere else, and nothing that can be run."""
    if member.isdir():
        return
    name, content = PurePosixPath(member.name), archive.extractfile(member) if member.isfile() else None
    if content is None or name.is_absolute() or ".." in name.parts:
        raise tarfile.TarError(f"{member.name!r} is no plain file of the model's own folder")
    place = target / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with content, place.open("wb") as file:
        shutil.copyfileobj(content, file)
