import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.fundamentals.sec_client import (
    CONTACT,
    DATA_URL,
    FILES_URL,
    EdgarUnavailable,
    SecClient,
)
from stockpicker_dagster_tests.market.fundamentals.companies import ALL
from stockpicker_dagster_tests.market.fundamentals.sec_server import BROKEN, Answer, SecServer, serving

CONTACT_TEXT = "Jane Doe jane@example.com"
PATH = "/files/company_tickers.json"


@pytest.fixture
def sec() -> Iterator[SecServer]:
    with serving(SecServer(list(ALL))) as server:
        yield server


def test_every_request_names_its_contact_and_without_one_nothing_is_asked(sec: SecServer) -> None:
    assert SecClient(CONTACT_TEXT, sec.url, sec.url).json(sec.url + PATH)
    assert sec.agents == {f"StockPicker {CONTACT_TEXT}"}
    for contact in ("", "me", "me@home"):
        with pytest.raises(InvalidInput, match=f"set {CONTACT} to"):
            SecClient(contact, sec.url, sec.url)


def test_the_environment_names_contact_and_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CONTACT, DATA_URL, FILES_URL):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInput, match=CONTACT):
        SecClient.from_environment()
    monkeypatch.setenv(CONTACT, CONTACT_TEXT)
    real = SecClient.from_environment()
    assert (real.data_url, real.files_url) == ("https://data.sec.gov", "https://www.sec.gov")
    monkeypatch.setenv(DATA_URL, "http://127.0.0.1:1/")
    monkeypatch.setenv(FILES_URL, "http://127.0.0.1:2")
    redirected = SecClient.from_environment()
    assert (redirected.data_url, redirected.files_url) == ("http://127.0.0.1:1", "http://127.0.0.1:2")


def test_requests_keep_the_pace_over_all_threads(sec: SecServer) -> None:
    waits: list[float] = []
    client = SecClient(CONTACT_TEXT, sec.url, sec.url, 0.01, wait=waits.append)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client.json, [sec.url + PATH] * 9))
    # Nobody slept, so that the n-th request would have had to wait for n intervals of 100 s.
    assert [round(wait / 100) for wait in sorted(waits)] == list(range(1, 9))


def test_an_answer_that_does_not_come_is_given_up_and_asked_for_again(sec: SecServer) -> None:
    sec.instead = lambda path, times: time.sleep(0.3) if times == 1 else None
    client = SecClient(CONTACT_TEXT, sec.url, sec.url, 1e6, 2, 0.0, timeout=(1.0, 0.1))
    assert client.json(sec.url + PATH)
    assert sec.asked[PATH] == 2


def test_what_is_not_there_is_none_at_once(sec: SecServer) -> None:
    client = SecClient(CONTACT_TEXT, sec.url, sec.url, wait=lambda seconds: pytest.fail("it waited"))
    assert client.json(f"{sec.url}/submissions/CIK0000009999.json") is None
    assert sum(sec.asked.values()) == 1


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_fault_is_waited_out_longer_every_time_and_named_when_it_stays(sec: SecServer, answer: Answer) -> None:
    waits: list[float] = []
    client = SecClient(CONTACT_TEXT, sec.url, sec.url, 1e6, 4, 10.0, waits.append)
    sec.instead = lambda path, times: answer if times <= 3 else None
    assert client.json(sec.url + PATH)
    assert len(waits) == 3
    asked_for = float(answer[2].get("Retry-After", 0))
    for number, waited in enumerate(waits):
        assert max(asked_for, 7.5 * 2**number) <= waited <= max(asked_for, 12.5 * 2**number)
    sec.asked.clear()
    sec.instead = lambda path, times: answer
    with pytest.raises(EdgarUnavailable, match=r"company_tickers.json could not be read in 4 attempts: \w"):
        client.json(sec.url + PATH)
    assert sec.asked[PATH] == 4
