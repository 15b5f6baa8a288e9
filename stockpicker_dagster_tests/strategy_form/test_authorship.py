"""Who is asked to stay away from a proposal under four eyes: whoever last wrote the strategy, by hand or on a page."""

import getpass
from pathlib import Path

import pytest

from stockpicker_dagster.home import Home
from stockpicker_dagster.strategy_form.authorship import author_of, record_author


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "defs.yaml"
    path.write_text("type: x\n")
    return path


def test_a_file_written_by_hand_is_the_systems_users(file: Path, tmp_path: Path) -> None:
    assert author_of(file, Home(tmp_path)) == f"os:{getpass.getuser()}"


def test_a_file_written_on_a_page_is_the_persons(file: Path, tmp_path: Path) -> None:
    record_author(file, "ada", Home(tmp_path))
    assert author_of(file, Home(tmp_path)) == "ada"


def test_an_edit_by_hand_takes_the_authorship_over(file: Path, tmp_path: Path) -> None:
    record_author(file, "ada", Home(tmp_path))
    file.write_text("type: y\n")
    assert author_of(file, Home(tmp_path)) == f"os:{getpass.getuser()}"


def test_a_broken_record_names_nobody_else(file: Path, tmp_path: Path) -> None:
    record_author(file, "ada", Home(tmp_path))
    (tmp_path / "console" / "authors.json").write_text("[")
    assert author_of(file, Home(tmp_path)) == f"os:{getpass.getuser()}"
