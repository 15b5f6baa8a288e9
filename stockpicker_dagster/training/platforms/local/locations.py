"""Files as the platform names them: `file://` URIs of this machine, where SageMaker has `s3://` ones."""

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from stockpicker_dagster.errors import InvalidInput


def uri(path: Path) -> str:
    """The URI of a file or folder, without a slash at its end."""
    return "file://" + quote(str(path.absolute()))


def path_of(location: str) -> Path:
    """The path that a URI names. Raises `InvalidInput` for one of another machine or scheme."""
    parts = urlsplit(location)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InvalidInput(f"{location!r} is no file of this machine; it begins with file:///")
    path = Path(unquote(parts.path))
    if ".." in path.parts or "\0" in str(path):
        raise InvalidInput(f"{location!r} steps out of its folder; give the path without '..'")
    return path


def files_under(location: str) -> list[tuple[Path, str]]:
    """The files of a prefix, as S3 has them, each with its name below it: a file, or all in a folder, ascending."""
    path = path_of(location)
    if path.is_file():
        return [(path, path.name)]
    return [
        (file, file.relative_to(path).as_posix())
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]
