"""What a session is started with, and what is said where it cannot be. A real one is started by `test_spark`."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stockpicker_dagster.compute import spark_session as session_room
from stockpicker_dagster.compute.spark_session import SETTINGS, SparkUnavailable, lacking, settings, spark_session
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import Home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_without_a_file_it_is_this_machine_and_nobody_else_reaches_it(tmp_path: Path) -> None:
    found = settings(Home(tmp_path))
    assert found["spark.master"] == "local[*]"
    assert found["spark.driver.bindAddress"] == found["spark.driver.host"] == "127.0.0.1"
    assert found["spark.ui.enabled"] == "false"


def test_the_file_chooses_the_cluster_and_nothing_of_this_machine_stays(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text(
        "# EMR\n\nspark.master yarn\nspark.archives=hdfs:///env.tar.gz#environment\nspark.executor.memory  =  8g \n"
    )
    found = settings(Home(tmp_path))
    assert found["spark.master"] == "yarn"
    assert found["spark.archives"] == "hdfs:///env.tar.gz#environment"
    assert found["spark.executor.memory"] == "8g"
    assert "spark.driver.host" not in found
    assert "spark.ui.enabled" not in found


@pytest.mark.parametrize("line", ["master yarn", "spark.master", "spark.master=", "yarn"])
def test_a_line_that_is_no_setting_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / SETTINGS).write_text(f"# mine\n{line}\n")
    with pytest.raises(InvalidInput, match=rf"spark\.conf:2: '{line}' is no setting of Spark; .* `spark.master yarn`"):
        settings(Home(tmp_path))


def test_a_missing_extra_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_room, "find_spec", lambda name: None)
    with pytest.raises(SparkUnavailable, match=r"^features: \{compute: spark\} needs the extra `spark`.*pip install"):
        spark_session(Home(tmp_path))


@pytest.mark.parametrize("java_home", [None, "nowhere"])
def test_missing_java_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, java_home: str | None) -> None:
    monkeypatch.setattr(session_room, "find_spec", lambda name: object())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if java_home is not None:
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / java_home))
    with pytest.raises(SparkUnavailable, match="needs Java 17 or later, and no `java` was found; install it"):
        spark_session(Home(tmp_path))


@pytest.mark.xdist_group("spark")
def test_a_session_that_does_not_start_is_one_sentence(tmp_path: Path, spark: "SparkSession") -> None:
    """In a process of its own, because this one has a session; `spark` says that there is a Java."""
    assert lacking() is None
    (tmp_path / SETTINGS).write_text("spark.master nonsense\n")
    code = f"""
from pathlib import Path
from stockpicker_dagster.compute.spark_session import SparkUnavailable, spark_session
from stockpicker_dagster.home import Home
try:
    spark_session(Home(Path({str(tmp_path)!r})))
except SparkUnavailable as error:
    print("SAID", error)
"""
    root = Path(session_room.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    [said] = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    assert said.startswith("SAID Spark did not start on 'nonsense' (")
    assert said.endswith(f"the cluster is chosen by {tmp_path / SETTINGS}")
