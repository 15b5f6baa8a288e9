import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from stockpicker_dagster.market.downloads import REPEAT_FOR, RESUME_FOR, Journal


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    return tmp_path


class Stopped(Exception):
    pass


def stop_after(answers: dict[str, bytes], request: str = "2024") -> Journal:
    journal = Journal.of("vendor", request)

    def download() -> None:
        with journal:
            for key, answer in answers.items():
                journal.put(key, answer)
            raise Stopped

    with pytest.raises(Stopped):
        download()
    return journal


def age(journal: Journal, by: timedelta) -> None:
    then = time.time() - by.total_seconds()
    for path in (*journal.folder.iterdir(), journal.folder):
        os.utime(path, (then, then))


def test_a_stopped_download_goes_on_with_every_answer_it_had() -> None:
    stop_after({"AAPL": b"one", "BRK-B {}": b"two" * 1000})
    with Journal.of("vendor", "2024") as journal:
        assert journal.get("AAPL") == b"one"
        assert journal.get("BRK-B {}") == b"two" * 1000
        assert journal.get("MSFT") is None


def test_answers_of_another_request_or_source_are_not_mixed_in() -> None:
    stop_after({"AAPL": b"one"})
    with Journal.of("vendor", "2025") as other_request, Journal.of("other", "2024") as other_source:
        assert other_request.get("AAPL") is None
        assert other_source.get("AAPL") is None


def test_an_answer_that_was_written_by_half_is_no_answer() -> None:
    journal = stop_after({"AAPL": b"one" * 100})
    (kept,) = journal.folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-4])
    assert journal.get("AAPL") is None
    kept.write_bytes(b"")
    assert journal.get("AAPL") is None


def test_a_discarded_answer_is_asked_for_again() -> None:
    journal = stop_after({"AAPL": b"one"})
    journal.discard("AAPL")
    journal.discard("never there")
    assert journal.get("AAPL") is None


def test_a_process_that_finished_a_download_asks_afresh() -> None:
    with Journal.of("vendor", "2024") as journal:
        journal.put("AAPL", b"one")
    with Journal.of("vendor", "2024") as again:
        assert again.get("AAPL") is None


def test_a_finished_download_serves_another_process_for_a_while_should_the_first_have_ended_before_it_stored() -> None:
    script = (
        "from stockpicker_dagster.market.downloads import Journal\n"
        "with Journal.of('vendor', '2024') as journal: journal.put('AAPL', b'one')"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    journal = Journal.of("vendor", "2024")
    assert journal.get("AAPL") == b"one"
    age(journal, REPEAT_FOR + timedelta(minutes=1))
    assert Journal.of("vendor", "2024").get("AAPL") is None


def test_a_download_that_was_stopped_long_ago_starts_afresh_and_leaves_nothing_behind() -> None:
    recent, old = stop_after({"AAPL": b"one"}, "2024"), stop_after({"AAPL": b"one"}, "2023")
    age(recent, RESUME_FOR - timedelta(hours=1))
    age(old, RESUME_FOR + timedelta(hours=1))
    Journal.of("vendor", "2022")
    assert recent.folder.is_dir()
    assert not old.folder.exists()


def test_downloads_are_private_and_lie_in_the_state_folder(home: Path) -> None:
    journal = stop_after({"AAPL": b"one"})
    assert home / "downloads" / "vendor" in journal.folder.parents
    assert journal.folder.stat().st_mode & 0o777 == 0o700


def test_a_download_goes_on_though_another_process_that_had_its_answers_removed_the_folder() -> None:
    with Journal.of("vendor", "2024") as journal:
        journal.put("AAPL", b"one")
        shutil.rmtree(journal.folder)
        journal.put("MSFT", b"two")
        assert journal.get("AAPL") is None
        assert journal.get("MSFT") == b"two"


def test_a_file_that_goes_away_while_another_process_looks_at_its_age_stops_nobody() -> None:
    journal = stop_after({"AAPL": b"one"})
    # What another thread was writing, and has put in its place since.
    (journal.folder / ".half").symlink_to(journal.folder / "gone")
    assert Journal.of("vendor", "2024").get("AAPL") == b"one"
