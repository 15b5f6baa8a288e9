"""Refreshing a list over HTTP: what is believed, what is put aside, and what stays when nothing comes."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes import refresh as refreshing
from stockpicker_dagster.market.universes.refresh import refresh
from stockpicker_dagster.market.universes.snapshots import Acceptance, listed_universe, stored_snapshots
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster_tests.market.universes.list_server import ListServer, list_server

NOW = datetime(2024, 1, 6, 11, tzinfo=UTC)
LATER = date(2030, 1, 2)
PERSON = Acceptance("os:jane", "looked at it")
HUNDRED = {f"S{n:03}": ("X", "Y")[n % 2] for n in range(100)}


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[ListServer]:
    with list_server() as server:
        monkeypatch.setenv("STOCKPICKER_UNIVERSE_URL_SP100", server.url)
        yield server


@pytest.fixture
def lake(tmp_path: Path, publisher: ListServer) -> Lake:
    """With one list of a hundred stored."""
    lake = Lake(tmp_path)
    publisher.publish(HUNDRED)
    assert refresh(lake, "sp100", NOW).outcome == "stored"
    return lake


def week(number: int) -> datetime:
    return NOW + timedelta(days=7 * number)


def test_a_changed_list_is_stored_with_its_changes(lake: Lake, publisher: ListServer) -> None:
    publisher.publish({symbol: sector for symbol, sector in HUNDRED.items() if symbol != "S000"} | {"NEW": "X"})
    refreshed = refresh(lake, "sp100", week(1))
    assert (refreshed.outcome, refreshed.changes.joined, refreshed.changes.left) == ("stored", ("NEW",), ("S000",))
    universe = listed_universe(lake, "sp100")
    assert "S000" in universe.members(week(1).date())
    assert {"NEW", "S000"} & set(universe.members(LATER)) == {"NEW"}


def test_a_list_as_stored_stores_nothing_and_says_when_it_was_compared(lake: Lake) -> None:
    assert refresh(lake, "sp100", week(2)).outcome == "unchanged"
    assert len(stored_snapshots(lake, "sp100")) == 1
    assert f"last compared with the public list on {week(2).date()}" in str(listed_universe(lake, "sp100").caveat)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b""),
        (404, b"gone"),
        (200, b"<html>Sorry</html>"),
        (200, b""),
        (200, b"Symbol,Security\nAAA,Alpha\nAAA,Alpha"),
    ],
)
def test_whatever_the_publisher_answers_the_stored_list_stays(
    lake: Lake, publisher: ListServer, status: int, body: bytes
) -> None:
    publisher.status, publisher.body = status, body
    refreshed = refresh(lake, "sp100", week(1))
    assert refreshed.outcome == "unreachable"
    assert "the stored list stays in force" in refreshed.sentence
    assert listed_universe(lake, "sp100").members(LATER) == sorted(HUNDRED)


def test_without_a_network_the_stored_list_stays(lake: Lake, publisher: ListServer) -> None:
    publisher.shutdown()
    publisher.server_close()
    refreshed = refresh(lake, "sp100", week(1))
    assert refreshed.outcome == "unreachable"
    assert "cannot be had from http://127.0.0.1" in refreshed.sentence


IMPLAUSIBLE = {
    "too short": (dict(list(HUNDRED.items())[:40]), "it has 40 members, not 95 to 110"),
    "many leave": (
        dict(list(HUNDRED.items())[11:]) | {f"N{n}": "X" for n in range(11)},
        "11 members join at once, of 100",
    ),
    "a sector is gone": (dict.fromkeys(HUNDRED, "X"), "no member is in the sector Y any more"),
}


@pytest.mark.parametrize("case", IMPLAUSIBLE)
def test_a_list_that_looks_wrong_waits_for_a_person(lake: Lake, publisher: ListServer, case: str) -> None:
    published, doubt = IMPLAUSIBLE[case]
    publisher.publish(published)
    refreshed = refresh(lake, "sp100", week(1))
    assert refreshed.outcome == "refused"
    assert doubt in refreshed.sentence
    assert 'stockpicker data universe sp100 --accept --reason "..."' in refreshed.sentence
    assert listed_universe(lake, "sp100").members(LATER) == sorted(HUNDRED)
    # What is accepted is what was looked at, not what the publisher says by then.
    publisher.publish({"OTHER": "X"})
    assert refresh(lake, "sp100", week(1), accepted=PERSON).outcome == "stored"
    assert listed_universe(lake, "sp100").members(LATER) == sorted(published)
    # Who took it, why, and what was wrong with it is kept with the list, and repeated by every report.
    assert stored_snapshots(lake, "sp100")[-1].accepted == Acceptance("os:jane", "looked at it", doubt)
    assert f"accepted by os:jane although {doubt}: looked at it" in str(listed_universe(lake, "sp100").caveat)


def test_a_good_list_after_a_refused_one_leaves_nothing_to_accept(lake: Lake, publisher: ListServer) -> None:
    publisher.publish({"OTHER": "X"})
    refresh(lake, "sp100", week(1))
    publisher.publish(HUNDRED)
    assert refresh(lake, "sp100", week(2)).outcome == "unchanged"
    assert refresh(lake, "sp100", week(2), accepted=PERSON).outcome == "unchanged"
    publisher.status = 503
    with pytest.raises(InvalidInput, match="cannot be had"):
        refresh(lake, "sp100", week(3), accepted=PERSON)


def test_a_list_that_a_person_brings_is_judged_like_the_public_one(lake: Lake) -> None:
    content = b"Symbol,Security,GICS Sector\nAAA,Alpha,X\nBBB,Beta,Y"
    brought = refreshing.list_from("sp100", content, "mine.csv")
    assert refreshing.refresh_from(lake, "sp100", brought, week(1), accepted=None).outcome == "refused"
    assert refreshing.refresh_from(lake, "sp100", brought, week(1), accepted=PERSON).outcome == "stored"
    assert listed_universe(lake, "sp100").members(LATER) == ["AAA", "BBB"]
