"""`stockpicker reap`: it says what is left, and deletes only what is asked for."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from stockpicker_dagster.cli import main
from stockpicker_dagster.training.platforms import platforms_of_deployment
from stockpicker_dagster.training.platforms.scoring_requests import PURPOSE


def test_what_is_left_is_named_and_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    [place] = platforms_of_deployment()
    tags = [{"Key": key, "Value": value} for key, value in {**place.marks, **PURPOSE}.items()]
    container = {"Image": place.image, "ModelDataUrl": f"{place.output}/model.tar.gz"}
    place.client.create_model(ModelName="left", PrimaryContainer=container, Tags=tags)

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["reap", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert said() == ""  # it is young
    assert said("--plan", "--older-than", "0").startswith("would delete model left, made 2")
    assert len(place.client.list_models()["Models"]) == 1
    assert said("--older-than", "0").startswith("deleted: model left, made 2")
    assert said("--plan", "--older-than", "0") == ""
