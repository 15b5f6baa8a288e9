"""What is remembered: an answer lasts as long as what it was read from, and one request sees one state of a table."""

from pathlib import Path

from stockpicker_dagster.console.views.remembered import Remembered, fingerprint, one_look
from stockpicker_dagster.storage.lake import Lake


def _store(root: Path, name: str) -> None:
    folder = root / "a_strategy" / "predictions" / "year=2024"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(name.encode())


def test_a_changed_source_is_read_again(tmp_path: Path) -> None:
    lake, remembered = Lake(tmp_path), Remembered()
    _store(tmp_path, "2024-03-04.parquet")

    def files() -> int:
        now = fingerprint(lake, "a_strategy/predictions")
        return remembered.answer("files", now, lambda: len(list(tmp_path.rglob("*.parquet"))))

    assert files() == 1
    _store(tmp_path, "2024-03-05.parquet")
    assert files() == 2


def test_one_request_sees_one_state_of_a_table_and_the_next_sees_what_was_stored_since(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _store(tmp_path, "2024-03-04.parquet")
    with one_look():
        before = fingerprint(lake, "a_strategy/predictions")
        _store(tmp_path, "2024-03-05.parquet")
        assert fingerprint(lake, "a_strategy/predictions") == before
        assert fingerprint(lake, "a_strategy/prices") != before, "of each table its own"
    with one_look():
        assert fingerprint(lake, "a_strategy/predictions") != before
