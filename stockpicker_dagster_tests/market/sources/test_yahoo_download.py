import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from stockpicker_dagster.market.downloads import Journal
from stockpicker_dagster.market.sources import yahoo_download
from stockpicker_dagster.market.sources.yahoo_download import URL, ChartDownload, YahooUnavailable, plainly
from stockpicker_dagster.market.sources.yahoo_patience import Limits
from stockpicker_dagster_tests.market.sources.yahoo_server import (
    Company,
    Fault,
    YahooServer,
    come_back_in,
    too_many_requests,
    yahoo_server,
)

NOW = datetime(2024, 6, 14, 23, tzinfo=UTC)
SINCE = date(2024, 6, 1)
NAMES = [f"S{number:02d}" for number in range(12)]
QUICK = Limits(workers=3, batch=5, rest=0.0, first_wait=0.005, longest_wait=0.01, attempts=3)


@pytest.fixture
def yahoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[YahooServer]:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    companies = {name: Company(name, {date(2024, 6, 14): (10.0, 10.0, 10.0, 10.0, 5.0)}) for name in NAMES}
    with yahoo_server(companies, NOW) as server:
        monkeypatch.setenv(URL, server.url)
        yield server


def download_of(limits: Limits = QUICK, request: str = "") -> ChartDownload:
    journal = Journal.of("yahoo", request)
    journal.__enter__()
    return ChartDownload(journal, limits, lambda: NOW, len(NAMES))


def forbidden(status: int) -> Fault:
    return lambda handler: handler.send(status, b'{"chart": {"result": null, "error": {"code": "Unauthorized"}}}')


def test_every_symbol_is_asked_once_batch_by_batch(yahoo: YahooServer) -> None:
    batches = list(download_of().batches(dict.fromkeys(NAMES, SINCE)))
    assert [sorted(batch) for batch in batches] == [NAMES[:5], NAMES[5:10], NAMES[10:]]
    assert sorted(yahoo.asked) == NAMES


def test_a_whole_index_is_one_batch() -> None:
    assert Limits().batch >= 503


def test_a_refused_symbol_is_asked_again_when_yahoo_wants_it(yahoo: YahooServer) -> None:
    yahoo.faults["S01"].extend([come_back_in("0.05"), too_many_requests])
    assert sorted(download_of().charts(dict.fromkeys(NAMES, SINCE))) == NAMES
    assert yahoo.asked.count("S01") == 3
    assert len(yahoo.asked) == len(NAMES) + 2


def test_a_ban_longer_than_patience_ends_the_download_at_once(yahoo: YahooServer) -> None:
    yahoo.always[""] = come_back_in("86400")
    with pytest.raises(YahooUnavailable, match="it asks to be left alone for 86400 s"):
        download_of().charts(dict.fromkeys(NAMES, SINCE))
    assert len(yahoo.asked) <= QUICK.workers


@pytest.mark.parametrize("status", [401, 403])
def test_being_shut_out_is_never_taken_for_a_symbol_that_does_not_exist(yahoo: YahooServer, status: int) -> None:
    yahoo.always["S01"] = forbidden(status)
    download = download_of()
    assert "S01" not in download.charts({"S01": SINCE, "S02": SINCE})
    assert download.refused == {}
    assert download.failed == {"S01": f"HTTP status {status}"}


def test_many_failures_are_counted_and_a_few_named(yahoo: YahooServer) -> None:
    yahoo.always[""] = forbidden(403)
    download = download_of()
    list(download.batches(dict.fromkeys(NAMES, SINCE)))
    with pytest.raises(
        YahooUnavailable, match=r"no usable answer for 12 of 12 symbols \(S00: .*; S04: .*; and 7 more\)"
    ):
        download.raise_for_failures()


def test_progress_says_how_many_are_there_and_how_long_the_rest_takes(
    yahoo: YahooServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    list(download_of().batches(dict.fromkeys(NAMES, SINCE)))
    assert caplog.messages == []
    monkeypatch.setattr(yahoo_download, "_SAY_EVERY", 0.0)
    list(download_of(request="again").batches(dict.fromkeys(NAMES, SINCE)))
    assert len(caplog.messages) == len(NAMES)
    assert caplog.messages[-1] == "Yahoo: 12 of 12 symbols, about 0:00:00 left"


def test_errors_on_the_way_are_told_without_the_manual() -> None:
    told = OSError(
        "Failed to perform, curl: (6) Could not resolve host: query2.finance.yahoo.com. "
        "See https://curl.se/libcurl/c/libcurl-errors.html first for more details."
    )
    assert plainly(told) == "Could not resolve host: query2.finance.yahoo.com"
    assert plainly(ConnectionResetError()) == "ConnectionResetError"
