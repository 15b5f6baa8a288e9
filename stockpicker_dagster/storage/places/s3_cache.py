"""Objects of S3 as files of this machine, each version once.

A version of an object never changes, so a file of it is right for ever: what is read is one version as a whole, however
often and by whomever the object is replaced meanwhile. Reading `s3://` in place could see half of two versions. Files
that were not used for a day are removed, the longest unused first, once they take more than the limit.
"""

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

_UNUSED_S = 86_400.0
LIMIT = "STOCKPICKER_S3_CACHE_GB"


class S3Cache:
    """Files under `root` by bucket, key and version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        trim(root, float(os.environ.get(LIMIT) or 50.0) * 1e9)

    def file(self, key: str, version: str, fetch: Callable[[Path], None]) -> Path:
        """The file of one version of an object; `fetch` writes it where it is not there yet."""
        digest = hashlib.sha256(f"{key}\0{version}".encode()).hexdigest()
        path = self.root / digest[:2] / f"{digest[2:34]}{Path(key).suffix}"
        return self._kept(path, fetch)

    def folder(self, name: str) -> Path:
        """Where the files of one version of a bundle are kept, by their own names."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.root / digest[:2] / digest[2:34]

    def beside(self, folder: Path, name: str, fetch: Callable[[Path], None]) -> Path:
        """A file of a bundle in its folder."""
        return self._kept(folder / name, fetch)

    def _kept(self, path: Path, fetch: Callable[[Path], None]) -> Path:
        try:
            os.utime(path)
            return path
        except FileNotFoundError:
            pass
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.{random.getrandbits(32):x}")
        try:
            fetch(fresh)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        return path


def trim(root: Path, most_bytes: float) -> None:
    """Removes the longest unused files, none used within a day, until those left take no more than `most_bytes`."""
    files = []
    for path in root.rglob("*"):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            files.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in files)
    for used, size, path in sorted(files):
        if total <= most_bytes or time.time() - used < _UNUSED_S:
            return
        path.unlink(missing_ok=True)
        total -= size
