import json
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from stockpicker_dagster.market.sources.yahoo_chart import Refused, Unusable, as_traded, read_chart
from stockpicker_dagster_tests.market.sources.yahoo_server import Company, YahooServer

DAYS = [date(2024, 6, day) for day in (3, 4, 5, 6, 7, 10)]
EVENING = datetime(2024, 6, 10, 23, tzinfo=UTC)


def company(closes: list[float], **events: Any) -> Company:
    rows: dict[date, tuple[float | None, ...]] = {
        day: (close, close, close, close, 1000.0) for day, close in zip(DAYS, closes, strict=True)
    }
    return Company("ACME", rows, **events)


def body_of(served: Company, now: datetime = EVENING) -> dict[str, Any]:
    _, body = YahooServer({"ACME": served}, now).answer("ACME", datetime(2020, 1, 1, tzinfo=UTC), now)
    return body


def tables(served: Company, now: datetime = EVENING) -> tuple[pl.DataFrame, pl.DataFrame]:
    return as_traded([read_chart("ACME", json.dumps(body_of(served, now)).encode())])


def test_prices_volumes_and_dividends_come_back_as_traded_after_any_splits() -> None:
    traded = [751.19, 186.12, 194.1, 195.94, 195.58, 19.6]
    splits = {DAYS[1]: (4.0, 1.0), DAYS[5]: (10.0, 1.0)}
    rows, events = tables(company(traded, splits=splits, dividends={DAYS[1]: 0.16, DAYS[3]: 0.04}))
    assert rows["close"].to_list() == traded
    assert rows["volume"].to_list() == [1000.0] * 6
    assert events.filter(pl.col("dividend") > 0).select("ex_date", "dividend").rows() == [
        (DAYS[1], 0.16),
        (DAYS[3], 0.04),
    ]
    assert events.filter(pl.col("split_ratio") != 1)["split_ratio"].to_list() == [4.0, 10.0]


def test_a_spin_off_stays_the_ratio_that_it_is() -> None:
    rows, events = tables(company([100.0, 100.0, 80.0, 80.5, 81.0, 81.5], splits={DAYS[2]: (1253.0, 1000.0)}))
    assert rows["close"].to_list() == [100.0, 100.0, 80.0, 80.5, 81.0, 81.5]
    assert events["split_ratio"].to_list() == [1.253]


def test_half_cents_fall_to_the_same_side_before_and_after_a_split() -> None:
    halves = [37.445, 12.345, 801.995, 0.1234, 1.005, 5.0]
    before = tables(company(halves))[0]
    for ratio in (2.0, 3.0, 7.0, 10.0, 0.1):
        later = company(halves, splits={date(2024, 6, 11): (ratio, 1.0)})
        after = tables(later, datetime(2024, 6, 12, 23, tzinfo=UTC))[0]
        assert after["close"].to_list() == before["close"].to_list()


def test_capital_gains_count_as_dividends() -> None:
    body = body_of(company([10.0] * 6, dividends={DAYS[2]: 0.1}))
    result = body["chart"]["result"][0]
    result["events"]["capitalGains"] = result["events"]["dividends"]
    _, events = as_traded([read_chart("ACME", json.dumps(body).encode())])
    assert events["dividend"].to_list() == [0.2]


def test_the_live_quote_beside_the_row_of_its_session_is_no_row() -> None:
    body = body_of(company([10.0, 11.0, 12.0, 13.0, 14.0, 15.0]))
    result = body["chart"]["result"][0]
    result["timestamp"].append(result["meta"]["regularMarketTime"])
    for column in result["indicators"]["quote"][0].values():
        column.append(column[-1])
    rows, _ = as_traded([read_chart("ACME", json.dumps(body).encode())])
    assert rows["date"].to_list() == DAYS


def test_days_are_the_exchanges_own_in_winter_and_summer() -> None:
    served = company([10.0] * 6)
    served.rows = {date(2024, 1, 5): (10.0,) * 5, date(2024, 3, 11): (10.0,) * 5}
    served.time_zone = "Asia/Tokyo"
    assert tables(served)[0]["date"].to_list() == [date(2024, 1, 5), date(2024, 3, 11)]


def test_unknown_figures_are_null_and_stay_rows() -> None:
    served = company([10.0] * 6)
    served.rows[DAYS[3]] = (None, None, None, None, None)
    rows, _ = tables(served)
    assert rows.height == 6
    assert rows.row(3) == ("ACME", DAYS[3], None, None, None, None, None)


def test_what_yahoo_does_not_know_is_refused_in_its_own_words() -> None:
    _, body = YahooServer({}, EVENING).answer("ACME", EVENING, EVENING)
    with pytest.raises(Refused, match="No data found, symbol may be delisted"):
        read_chart("ACME", json.dumps(body).encode())
    body = body_of(company([10.0] * 6))
    with pytest.raises(Refused, match="about ACME instead"):
        read_chart("APEX", json.dumps(body).encode())


def test_anything_but_a_whole_answer_is_unusable_and_named() -> None:
    whole = json.dumps(body_of(company([10.0] * 6))).encode()
    for body, what in (
        (b"", "an empty answer"),
        (b" <html>sorry</html>", "an HTML page"),
        (whole[:-9], "an incomplete answer"),
        (b"[]", "an incomplete answer"),
        (b'{"chart": {"result": [], "error": null}}', "an incomplete answer"),
        (whole.replace(b'"1d"', b'"1mo"'), "rows of 1mo instead of days"),
        (whole.replace(b"America/New_York", b"Atlantis/Capital"), "an incomplete answer"),
        (whole.replace(b'"close": [10.0, ', b'"close": ['), "columns of different length"),
    ):
        with pytest.raises(Unusable, match=what):
            read_chart("ACME", body)
    assert len(read_chart("ACME", whole).times) == 6
