"""The state folder: private, named by the environment, and refused in one sentence where it cannot be written."""

import os
from pathlib import Path

import pytest

from stockpicker_dagster import home as home_file
from stockpicker_dagster.home import PROJECT_ROOT, UnusableHome, home, prepare_home


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare_home` points Dagster and Numba at the home; other tests must not notice."""
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)


def test_only_its_owner_can_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "state"))
    old = os.umask(0)
    try:
        (tmp_path / "state").mkdir(0o777)
        place = prepare_home(announce=False)
    finally:
        os.umask(old)
    for folder in (place.root, place.lake, place.dagster):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_it_is_named_on_stderr_and_dagster_is_pointed_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    place = prepare_home()
    assert str(tmp_path) in capsys.readouterr().err
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / "dagster") == str(place.dagster)
    assert (place.dagster / "dagster.yaml").read_bytes() == (PROJECT_ROOT / "dagster.yaml").read_bytes()


def test_changed_settings_of_dagster_are_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(home_file, "PROJECT_ROOT", tmp_path)
    for text in ("telemetry: {enabled: false}\n", "nux: {enabled: false}\n"):
        (tmp_path / "dagster.yaml").write_text(text)
        assert (prepare_home(announce=False).dagster / "dagster.yaml").read_text() == text


def test_a_relative_name_starts_where_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOCKPICKER_HOME", "here/state")
    assert home().root == tmp_path / "here" / "state"
    monkeypatch.setenv("STOCKPICKER_HOME", "~/state")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert home().root == tmp_path / "me" / "state"


@pytest.mark.parametrize("named", [None, ""])
def test_unnamed_it_is_in_the_project_wherever_the_command_was_started(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STOCKPICKER_HOME")
    if named is not None:
        monkeypatch.setenv("STOCKPICKER_HOME", named)
    assert home().root == PROJECT_ROOT / ".stockpicker"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "taken"))
    with pytest.raises(UnusableHome, match=r"taken cannot be written \(.+\); make it writable or set STOCKPICKER_HOME"):
        prepare_home()
    assert "DAGSTER_HOME" not in os.environ

    def read_only(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", read_only)
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "state"))
    with pytest.raises(UnusableHome, match=r"state cannot be written \(Permission denied\)"):
        prepare_home()


def test_the_ledger_is_in_the_home_unless_the_environment_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    monkeypatch.delenv("STOCKPICKER_DATABASE_URL", raising=False)
    assert home().database_url == f"sqlite:///{tmp_path}/stockpicker.sqlite"
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", "postgresql://me@there/ledger")
    assert home().database_url == "postgresql://me@there/ledger"
