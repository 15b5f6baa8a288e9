from pathlib import Path

import numpy as np

from stockpicker_dagster.research.algorithms.checkpoints import keep_state, kept_state, training_digest
from stockpicker_dagster.research.algorithms.supervision import UNSUPERVISED, Supervision

ARRAYS = {"weights": np.array([[0.1, 0.2]], np.float32)}


def test_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    supervision = Supervision(checkpoints=tmp_path / "new")
    assert kept_state(supervision, "mine", "d") is None
    keep_state(supervision, "mine", "d", ARRAYS, {"best": 0.1 + 0.2, "epoch": 3, "none": None})
    kept = kept_state(supervision, "mine", "d")
    assert kept is not None
    assert kept[0]["weights"].tobytes() == ARRAYS["weights"].tobytes()
    assert kept[1] == {"best": 0.1 + 0.2, "epoch": 3, "none": None}


def test_state_of_another_training_or_none_at_all_is_not_taken(tmp_path: Path) -> None:
    supervision = Supervision(checkpoints=tmp_path)
    keep_state(supervision, "mine", "d", ARRAYS, {})
    assert kept_state(supervision, "mine", "other") is None
    assert kept_state(supervision, "yours", "d") is None
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert kept_state(supervision, "mine", "d") is None
    keep_state(UNSUPERVISED, "mine", "d", ARRAYS, {})
    assert kept_state(UNSUPERVISED, "mine", "d") is None


def test_the_digest_changes_with_every_part_and_the_last_bit() -> None:
    digests = {
        training_digest(seed=seed, settings={"rate": rate}) for seed in (0, 1) for rate in (0.3, np.nextafter(0.3, 1))
    }
    assert len(digests) == 4
    assert training_digest(a=1, b=2) == training_digest(b=2, a=1)
