"""Where the files of a lake lie: a folder or S3, behind one protocol.

A place keeps named files whole: each appears at once or not at all, and is never seen half. Names are words separated
by single slashes, relative to the lake's root; what begins with a dot belongs to the place itself and is never listed.
What the files mean is the business of `storage.lake`.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from stockpicker_dagster.errors import StockPickerError


class FileChanged(StockPickerError):
    """A file was replaced or removed between looking at a folder and reading it; looking again shows the new one."""


class Place(Protocol):
    """A root under which files are stored. Every name was checked by the caller."""

    def listed(self, folder: str) -> dict[str, str]:
        """Every file below `folder`: its name relative to it, and a version that changes whenever the file does.

        A folder on disk is read under its locks alone and gives no versions.
        """

    def local(self, files: Mapping[str, str]) -> list[Path]:
        """Files of this machine with the contents of `files` (full name to version), in their order.

        They stay as they are for as long as they are read. Raises `FileChanged`.
        """

    def endings(self, files: Mapping[str, str]) -> list[Path | IO[bytes]]:
        """Something that Polars reads the metadata of each Parquet file from. Raises `FileChanged`."""

    def read(self, name: str) -> bytes | None:
        """The content of one file; None if there is none."""

    def write(self, contents: Mapping[str, bytes], over: Mapping[str, str] | None = None) -> None:
        """Stores files by full name, each as a whole, in order.

        `over` gives the version that a file is to replace, "" where it has to be new: where another one is found,
        `FileChanged` is raised and that one stays.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Stores a new file, durably and readable by its owner alone; False if the name is taken."""

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that are not there are none."""

    def locked(self, folder: str) -> AbstractContextManager[None]:
        """One writer of a folder at a time; one that dies lets go."""

    def write_bundle(self, folder: str, key: str, files: Mapping[str, bytes]) -> None:
        """Stores files that belong together, in the place of earlier ones under `key`: readers see all or none."""

    def bundles(self, folder: str) -> list[str]:
        """The keys of the bundles in `folder`, ascending."""

    def bundle(self, folder: str, key: str) -> Path | None:
        """A folder of this machine that holds a bundle; None if there is none."""

    def remove_bundle(self, folder: str, key: str) -> None:
        """Removes a bundle as a whole."""

    def __str__(self) -> str:
        """Where it is, as a reader would look for it."""
