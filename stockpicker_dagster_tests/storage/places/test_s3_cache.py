"""Objects kept on this machine: each version once, whole, and not for ever."""

import os
import time
from pathlib import Path

import pytest

from stockpicker_dagster.storage.places.s3_cache import S3Cache, trim


def test_a_version_is_fetched_once_and_another_one_beside_it(tmp_path: Path) -> None:
    cache, fetched = S3Cache(tmp_path / "cache"), []

    def fetch(path: Path) -> None:
        fetched.append(path)
        path.write_bytes(b"content %d" % len(fetched))

    first = cache.file("a/b.parquet", "v1", fetch)
    assert cache.file("a/b.parquet", "v1", fetch) == first
    second = cache.file("a/b.parquet", "v2", fetch)
    assert (first.read_bytes(), second.read_bytes()) == (b"content 1", b"content 2")
    assert first.suffix == ".parquet"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_what_broke_off_leaves_no_file(tmp_path: Path) -> None:
    cache = S3Cache(tmp_path)

    def broken(path: Path) -> None:
        path.write_bytes(b"ha")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.file("k", "v", broken)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_longest_unused_go_first_and_none_used_today(tmp_path: Path) -> None:
    ages = {"old": 9, "older": 10, "used": 0}
    for name, days in ages.items():
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (time.time() - days * 86_400 - 60,) * 2)
    os.utime(tmp_path / "used")
    trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "used"]
    trim(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
