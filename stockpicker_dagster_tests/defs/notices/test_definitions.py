"""The sensor sends what waits; a day without a rebalance sends its ranking, and a day with one does not."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from stockpicker_dagster.defs.notices.definitions import announce_ranking, notices_sensor
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading.notifications.network import LOOPBACK_ALLOWED
from stockpicker_dagster.trading.notifications.targets import set_target
from stockpicker_dagster_tests.trading.notifications.receivers import Webhook, posted

SESSION = date(2024, 3, 4)
NOW = datetime(2024, 3, 5, 1, 20, tzinfo=UTC)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    monkeypatch.setenv(LOOPBACK_ALLOWED, "1")
    monkeypatch.setattr(Deployment, "now", lambda self: NOW)
    made = Deployment()
    symbols = ["AAA", "BBB", "CCC"]
    ranked = pl.DataFrame({"symbol": symbols, "date": [SESSION] * 3, "score": [3.0, 2.0, 1.0], "rank": [1, 2, 3]})
    made.lake.write_days("one/predictions", ranked, [SESSION], lambda year: [])
    made.lake.write_days("one/rebalance_orders", ranked.clear(), [SESSION], lambda year: [])
    return made


def tick(forms: Any = None) -> str:
    sensor = notices_sensor({"one": None} if forms is None else forms)  # type: ignore[dict-item]
    with dg.build_sensor_context(resources={"deployment": Deployment()}) as context:
        skipped = sensor(context)
    assert isinstance(skipped, dg.SkipReason)
    return str(skipped.skip_message)


def test_a_day_without_a_rebalance_sends_the_ranking_once(deployment: Deployment) -> None:
    with Webhook() as webhook:
        assert tick() == "0 notices written, 0 sent, 0 to be tried again, 0 given up"
        set_target(deployment.database, "hook", webhook.address, "ann", NOW - timedelta(hours=1))
        assert "1 sent" in tick()
        assert "0 sent" in tick()
        assert posted(webhook) == ["StockPicker: ranking of one, 2024-03-04"]
        assert "Most undervalued: AAA, BBB, CCC" in webhook.taken[0]["message"]
        assert "Most overvalued: CCC, BBB, AAA" in webhook.taken[0]["message"]


def test_a_day_that_is_proposed_or_long_past_sends_none(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_target(deployment.database, "hook", "slack://TokenAAAA/TokenBBBB/TokenCCCC", "ann", NOW)
    monkeypatch.setattr(Deployment, "now", lambda self: NOW + timedelta(days=3))
    assert announce_ranking(deployment, "one") == 0
    assert announce_ranking(deployment, "never_run") == 0
