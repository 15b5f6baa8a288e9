"""The console over a lake on S3 shows what it shows over a folder, and what is stored there later."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine

from stockpicker_dagster.console.views import remembered
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.storage.places.s3 import S3Place
from stockpicker_dagster_tests.aws.buckets import make_bucket
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT
from stockpicker_dagster_tests.console.conftest import invented_lake, peopled_ledger  # noqa: F401 - fixtures
from stockpicker_dagster_tests.console.site import STRATEGY, make_site, write_invented_lake
from stockpicker_dagster_tests.training import small_strategy

BUCKET = "stockpicker-console"
RANKING = f"/api/strategies/{STRATEGY}/ranking"
PATIENCE_S = 120


def test_pages_of_a_lake_on_s3_are_those_of_a_folder_and_follow_what_is_stored(
    aws: FaultyProxy,
    tmp_path: Path,
    peopled_ledger: Callable[[], Engine],  # noqa: F811 - a fixture
    invented_lake: Path,  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lake = Lake(S3Place(make_bucket(BUCKET), BUCKET, "lake", ACCOUNT, tmp_path / "cache"))
    write_invented_lake(lake)
    engine = peopled_ledger()
    # Both on one ledger, so that one token opens both.
    on_s3, on_disk = (
        make_site(tmp_path / name, engine, place) for name, place in (("s3", lake), ("disk", invented_lake))
    )
    script, browser = on_s3.script("vera"), on_s3.browser("vera")
    expected = on_disk.stranger(Authorization=script.headers["authorization"])

    rows = script.get(RANKING).json()["rows"]
    best = rows[0]["symbol"]
    for path in (
        RANKING,
        f"{RANKING}?session={small_strategy.TESTED[3]}&sort=change&order=down",
        f"/api/strategies/{STRATEGY}/stocks/{best}?history=all",
        f"/api/strategies/{STRATEGY}/models",
    ):
        assert script.get(path).json() == expected.get(path).json(), path
    for path in ("/", f"/ranking/{STRATEGY}", f"/ranking/{STRATEGY}.csv", f"/ranking/{STRATEGY}/{best}"):
        assert browser.get(path).status_code == 200, path

    # However long a tear sheet takes to be made: what was seen of the objects is old at every look.
    days = small_strategy.SESSIONS
    lake.write_days("simulated/delistings", pl.DataFrame(schema={**DELISTINGS_SCHEMA}), days, lambda _: days)
    moments = itertools.count(time.monotonic() + 60.0, 60.0)
    monkeypatch.setattr(remembered, "monotonic", lambda: next(moments))
    deadline = time.monotonic() + PATIENCE_S
    while (answer := script.get(f"/api/strategies/{STRATEGY}/backtest")).status_code == 202:
        assert time.monotonic() < deadline, "it is made again and again"
        time.sleep(0.1)
    assert answer.json()["strategy"] == STRATEGY, answer.text
    assert "section" in browser.get(f"/backtest/{STRATEGY}").text

    # A day that is made again stands there turned round.
    table, last = f"{STRATEGY}/predictions", small_strategy.TESTED[-1]
    stored, note = lake.read(table, [last]), lake.notes(table)[last]
    turned = stored.with_columns(rank=stored.height + 1 - pl.col("rank"), score=-pl.col("score"))
    lake.write_days(table, turned, [last], lambda _: small_strategy.TESTED, note)
    assert [row["symbol"] for row in script.get(RANKING).json()["rows"]] == [row["symbol"] for row in rows][::-1]
