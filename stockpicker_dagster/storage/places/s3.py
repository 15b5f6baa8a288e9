"""A lake on S3: the same names and bytes as in a folder, under one prefix of one bucket.

Every object appears whole, by S3's own promise. Where several belong together a small manifest says which they are:
they are written beside what is there, one conditional PUT of the manifest shows all of them, and only then do they take
the names they have in a folder. Whoever reads meanwhile sees all of the old ones or all of the new ones.

Reading is by boto3 into files of this machine (`s3_cache`), one version each, many at a time; Polars reads those.
"""

import json
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.aws.errors import AwsRefusal, asking, code_of
from stockpicker_dagster.storage.places import FileChanged
from stockpicker_dagster.storage.places.s3_cache import S3Cache
from stockpicker_dagster.storage.places.s3_lease import Lease, leased, taken

_AT_ONCE = 16
_ATTEMPTS = 6
_PART = 16 * 2**20
_ENDING = 64 * 2**10
_MANIFEST = "manifest.json"
_STAGED = re.compile(r"([0-9a-f]{12})/")
_GONE = ("NoSuchKey", "404", "PreconditionFailed", "412")

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Encryption:
    """How objects are encrypted at rest: by keys of S3 itself, or by a KMS key."""

    kms_key: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        if self.kms_key is None:
            return {"ServerSideEncryption": "AES256"}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key, "BucketKeyEnabled": True}


class S3Place:
    """Files under `s3://bucket/prefix`; see `Place`. `owner` is the account that has to own the bucket."""

    def __init__(
        self, s3: Any, bucket: str, prefix: str, owner: str, cache: Path, encryption: Encryption | None = None
    ) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.prefix = prefix
        self.owner = owner
        self.cache = S3Cache(cache)
        self.encryption = encryption or Encryption()
        self._held = threading.local()

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    # Files

    def listed(self, folder: str) -> dict[str, str]:
        return {
            name: version
            for name, version in self._every(f"{folder}/").items()
            if not any(part.startswith(".") for part in name.split("/"))
        }

    def local(self, files: Mapping[str, str]) -> list[Path]:
        def kept(item: tuple[str, str]) -> Path:
            name, version = item
            return self.cache.file(f"{self}/{name}", version, lambda path: self._download(name, version, path))

        return _all_at_once(kept, files.items())

    def endings(self, files: Mapping[str, str]) -> list[Path | IO[bytes]]:
        return _all_at_once(self._ending, files.items())

    def read(self, name: str) -> bytes | None:
        found = self._get(name)
        return found[0] if found else None

    def write(self, contents: Mapping[str, bytes], over: Mapping[str, str] | None = None) -> None:
        lease: Lease | None = getattr(self._held, "lease", None)

        def stored(item: tuple[str, bytes]) -> None:
            name, content = item
            if lease is not None:
                lease.still_held()
            if self._put(name, content, None if over is None else over.get(name)) is None:
                raise FileChanged(f"{self}/{name} was written by another writer at the same time; run again")

        _all_at_once(stored, contents.items())

    def create(self, name: str, content: bytes) -> bool:
        return self._put(name, content, "") is not None

    def remove(self, names: Iterable[str]) -> None:
        def removed(name: str) -> None:
            with asking(f"{self}/{name} was to be removed"):
                self.s3.delete_object(Bucket=self.bucket, Key=self._key(name), ExpectedBucketOwner=self.owner)

        _all_at_once(removed, names)

    @contextmanager
    def locked(self, folder: str) -> Iterator[None]:
        name = f"{folder}/.lock"
        with leased(
            lambda content, over: self._put(name, content, over),
            lambda: self._get(name),
            lambda: self.remove([name]),
            f"{self}/{name}",
        ) as lease:
            before = getattr(self._held, "lease", None)
            self._held.lease = lease
            try:
                yield
            finally:
                self._held.lease = before

    # Bundles

    def write_bundle(self, folder: str, key: str, files: Mapping[str, bytes]) -> None:
        with self.locked(folder):
            staged = f"{folder}/.{key}.{uuid.uuid4().hex[:12]}"
            self.write({f"{staged}/{name}": content for name, content in files.items()})
            self._show_bundle(folder, key, staged, sorted(files))
            self._settle(folder, key)
            self._sweep(folder, key)

    def bundles(self, folder: str) -> list[str]:
        found = (name.split("/") for name in self._every(f"{folder}/"))
        manifests = (parts[0] for parts in found if len(parts) == 2 and parts[1] == _MANIFEST)
        return sorted(part[1:-7] for part in manifests if part.startswith(".") and part.endswith(".bundle"))

    def bundle(self, folder: str, key: str) -> Path | None:
        found = self._get(_manifest(folder, key))
        if found is None:
            return None
        manifest, version = json.loads(found[0]), found[1]
        target = self.cache.folder(f"{self}/{folder}/{key}@{version}")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)

        def kept(item: tuple[str, str]) -> Path:
            name, etag = item
            place = f"{manifest['at']}/{name}"
            return self.cache.beside(target, name, lambda path: self._download(place, etag, path))

        _all_at_once(kept, manifest["files"].items())
        return target

    def remove_bundle(self, folder: str, key: str) -> None:
        with self.locked(folder):
            self.remove([_manifest(folder, key)])
            self.remove(f"{folder}/{key}/{name}" for name in self._every(f"{folder}/{key}/"))
            self._sweep(folder, key)

    def _show_bundle(self, folder: str, key: str, at: str, names: Iterable[str]) -> None:
        """Flips the manifest to the files under `at`, unless another writer has flipped it meanwhile."""
        there = self._every(f"{at}/")
        manifest = {"at": at, "files": {name: there[name] for name in names}}
        earlier = self._get(_manifest(folder, key))
        content = json.dumps(manifest, sort_keys=True).encode()
        self.write({_manifest(folder, key): content}, over={_manifest(folder, key): earlier[1] if earlier else ""})

    def _settle(self, folder: str, key: str) -> None:
        """Gives staged files of a shown bundle the names that they have in a folder, and shows them there."""
        found = self._get(_manifest(folder, key))
        assert found is not None
        manifest, final = json.loads(found[0]), f"{folder}/{key}"

        def copied(name: str) -> None:
            source = {"Bucket": self.bucket, "Key": self._key(f"{manifest['at']}/{name}")}
            with asking(f"{self}/{final}/{name} was to be copied into its place"):
                self.s3.copy(
                    source,
                    self.bucket,
                    self._key(f"{final}/{name}"),
                    ExtraArgs={"ExpectedBucketOwner": self.owner, **_copied(self.encryption.arguments)},
                )

        _all_at_once(copied, manifest["files"])
        self._show_bundle(folder, key, final, manifest["files"])
        stale = set(self._every(f"{final}/")) - set(manifest["files"])
        self.remove(f"{final}/{name}" for name in stale)

    def _sweep(self, folder: str, key: str) -> None:
        """Removes staged files that no manifest shows: of this writer, and of one that died."""
        found = self._get(_manifest(folder, key))
        shown = json.loads(found[0])["at"] if found else ""
        begins = f"{folder}/.{key}."
        for name in self._every(begins):
            staged = _STAGED.match(name)
            if staged and f"{begins}{staged[1]}" != shown:
                self.remove([f"{begins}{name}"])

    # Objects

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _every(self, begins: str) -> dict[str, str]:
        """Every object whose name begins so: the rest of its name, and its version."""
        found: dict[str, str] = {}
        key = self._key(begins)
        with asking(f"{self}/{begins} was to be listed"):
            pages = self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=key, ExpectedBucketOwner=self.owner
            )
            for page in pages:
                for each in page.get("Contents", ()):
                    found[each["Key"].removeprefix(key)] = each["ETag"].strip('"')
        return found

    def _get(self, name: str) -> tuple[bytes, str] | None:
        """Content and version of an object; None if there is none."""

        def got() -> tuple[bytes, str] | None:
            try:
                answer = self.s3.get_object(Bucket=self.bucket, Key=self._key(name), ExpectedBucketOwner=self.owner)
            except self.s3.exceptions.NoSuchKey:
                return None
            return _whole(answer, name), answer["ETag"].strip('"')

        return self._persistently(f"{self}/{name} was to be read", got)

    def _range(self, name: str, version: str, asked: str) -> tuple[bytes, int]:
        """Part of one version of an object, and the size of the whole. Raises `FileChanged`."""

        def got() -> tuple[bytes, int]:
            try:
                answer = self.s3.get_object(
                    Bucket=self.bucket,
                    Key=self._key(name),
                    IfMatch=f'"{version}"',
                    Range=asked,
                    ExpectedBucketOwner=self.owner,
                )
            except self.s3.exceptions.ClientError as error:
                if code_of(error) in _GONE:
                    raise FileChanged(f"{self}/{name} was replaced while it was read; read it again") from error
                raise
            size = int(answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2])
            return _whole(answer, name), size

        return self._persistently(f"{self}/{name} was to be read", got)

    def _ending(self, item: tuple[str, str]) -> Path | IO[bytes]:
        """The last bytes of a Parquet file, which say how long its metadata is, or more where it is longer."""
        name, version = item
        ending, _ = self._range(name, version, f"bytes=-{_ENDING}")
        if (needed := int.from_bytes(ending[-8:-4], "little") + 8) > len(ending):
            ending, _ = self._range(name, version, f"bytes=-{needed}")
        return BytesIO(ending)

    def _download(self, name: str, version: str, path: Path) -> None:
        """Writes one version of an object into a file, large ones in parts at once."""
        first, size = self._first_part(name, version)
        with path.open("wb") as file:
            file.write(first)
            starts = range(len(first), size, _PART)
            for at in range(0, len(starts), _AT_ONCE):
                parts = [f"bytes={start}-{start + _PART - 1}" for start in starts[at : at + _AT_ONCE]]
                for content, _ in _all_at_once(lambda asked: self._range(name, version, asked), parts):
                    file.write(content)

    def _first_part(self, name: str, version: str) -> tuple[bytes, int]:
        try:
            return self._range(name, version, f"bytes=0-{_PART - 1}")
        except AwsRefusal as refusal:
            if refusal.code in ("InvalidRange", "416"):
                return b"", 0  # an empty object has no first byte
            raise

    def _put(self, name: str, content: bytes, over: str | None) -> str | None:
        """Stores an object and gives its version; None where another one is there than `over` (None: any) says."""
        writer = uuid.uuid4().hex
        condition = {} if over is None else ({"IfNoneMatch": "*"} if over == "" else {"IfMatch": f'"{over}"'})
        arguments = {"Bucket": self.bucket, "Key": self._key(name), "ExpectedBucketOwner": self.owner}
        described = {**arguments, "Metadata": {"writer": writer}, **self.encryption.arguments}
        with asking(f"{self}/{name} was to be written"):
            try:
                if len(content) > 4 * _PART:
                    return self._put_in_parts(arguments, described, content, condition)
                return str(self.s3.put_object(Body=content, **described, **condition)["ETag"]).strip('"')
            except self.s3.exceptions.ClientError as error:
                if not condition or (not taken(code_of(error)) and code_of(error) not in _GONE):
                    raise
                # An attempt may have arrived although its answer was lost; the next one then finds its own object.
                return self._written_by(arguments, writer)

    def _put_in_parts(
        self, arguments: dict[str, Any], described: dict[str, Any], content: bytes, condition: dict[str, str]
    ) -> str:
        upload = self.s3.create_multipart_upload(**described)["UploadId"]
        try:

            def sent(number: int) -> dict[str, Any]:
                part = content[(number - 1) * _PART : number * _PART]
                answer = self.s3.upload_part(**arguments, UploadId=upload, PartNumber=number, Body=part)
                return {"PartNumber": number, "ETag": answer["ETag"]}

            parts = _all_at_once(sent, range(1, 1 + -(-len(content) // _PART)))
            done = self.s3.complete_multipart_upload(
                **arguments, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            # Otherwise the parts would be paid for until the bucket's lifecycle removes them.
            self.s3.abort_multipart_upload(**arguments, UploadId=upload)
            raise
        return str(done["ETag"]).strip('"')

    def _written_by(self, arguments: dict[str, Any], writer: str) -> str | None:
        """The version of the object that is there if this writer wrote it."""
        try:
            there = self.s3.head_object(**arguments)
        except self.s3.exceptions.ClientError as error:
            if code_of(error) in _GONE:
                return None
            raise
        return str(there["ETag"]).strip('"') if there["Metadata"].get("writer") == writer else None

    def _persistently(self, doing: str, got: Callable[[], _Made]) -> _Made:
        """botocore repeats requests, but not the reading of an answer that breaks off: that is repeated here."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
        from urllib3.exceptions import HTTPError

        broken = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, HTTPError, ConnectionError, _CutOff)
        for attempt in range(_ATTEMPTS):
            try:
                with asking(doing):
                    return got()
            except (AwsRefusal, *broken) as error:
                cause = error.__cause__ if isinstance(error, AwsRefusal) else error
                if not isinstance(cause, broken) or attempt == _ATTEMPTS - 1:
                    if isinstance(error, StockPickerError):
                        raise
                    raise AwsRefusal(doing, type(error).__name__, f"{error}; run again") from error
                time.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))  # noqa: S311 - jitter is no secret
        raise AssertionError("the last attempt returns or raises")


class _CutOff(Exception):
    """Fewer bytes came than were announced."""


def _whole(answer: dict[str, Any], name: str) -> bytes:
    content: bytes = answer["Body"].read()
    if len(content) != answer["ContentLength"]:
        raise _CutOff(f"{len(content)} of {answer['ContentLength']} bytes of {name} came")
    return content


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    """What of an object's encryption the transfer of a copy takes; the bucket's own setting says the rest."""
    return {name: value for name, value in arguments.items() if name != "BucketKeyEnabled"}


def _manifest(folder: str, key: str) -> str:
    return f"{folder}/.{key}.bundle/{_MANIFEST}"


def _all_at_once(do: Callable[[Any], _Made], items: Iterable[Any]) -> list[_Made]:
    """`do` of each item, several at a time, in their order. The first error is raised once all have ended."""
    wanted = list(items)
    if len(wanted) <= 1:
        return [do(item) for item in wanted]
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
        return [future.result() for future in [pool.submit(do, item) for item in wanted]]
