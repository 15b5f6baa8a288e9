"""What a served model is unpacked from: plain files of its own folder, and nothing else."""

import io
import tarfile
from pathlib import Path

import pytest

from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.local.serving import unpack


def archive(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for member, content in members:
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, 0o777
    return made


def test_files_come_out_as_they_went_in_and_none_can_be_run(tmp_path: Path) -> None:
    path = archive(
        tmp_path, (member("model.json"), b"{}"), (member("deep", tarfile.DIRTYPE), b""), (member("deep/a"), b"1")
    )
    unpack(path.as_uri(), tmp_path / "model")
    assert (tmp_path / "model/model.json").read_bytes() == b"{}"
    assert (tmp_path / "model/deep/a").read_bytes() == b"1"
    assert not (tmp_path / "model/model.json").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "hostile",
    [
        member("../outside"),
        member("deep/../../outside"),
        member("/tmp/outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "../outside"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda each: f"{each.name} of type {each.type.decode()}",
)
def test_an_archive_that_reaches_out_is_refused(hostile: tarfile.TarInfo, tmp_path: Path) -> None:
    path = archive(tmp_path, (hostile, b""))
    with pytest.raises(PlatformFailure, match="no plain file of the model's own folder"):
        unpack(path.as_uri(), tmp_path / "model")
    assert not (tmp_path / "outside").exists()
    assert list((tmp_path / "model").iterdir()) == []
