"""What the tests of training share: a stored dataset and models trained on it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stockpicker_dagster.storage.lake import Bundle, Lake
from stockpicker_dagster_tests.training.small_strategy import dataset

Store = Callable[[str, Bundle], Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Stores a bundle in a lake and returns its folder."""
    lake = Lake(tmp_path)

    def put(name: str, bundle: Bundle) -> Path:
        lake.write_bundle("bundles", name, bundle)
        return lake.bundle("bundles", name)

    return put


@pytest.fixture
def dataset_folder(store: Store) -> Path:
    return store("dataset", dataset())
