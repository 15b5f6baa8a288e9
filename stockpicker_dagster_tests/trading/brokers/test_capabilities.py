"""What a venue says it can do decides what is sent there, and until when."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.trading.brokers.capabilities import Capabilities, CutOff

NOW = datetime(2024, 3, 4, 14, tzinfo=UTC)


def capable(**figures: object) -> Capabilities:
    return Capabilities(**{"shorts": True, "verified": "here", **figures})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "quantity", "why"),
    [
        ("buy", "0", "more than 0"),
        ("buy", "-1", "more than 0"),
        ("buy", "NaN", "more than 0"),
        ("buy", "Infinity", "more than 0"),
        ("buy", "1.5", "only whole shares"),
        ("short", "1.5", "shorts are whole shares"),
        ("cover", "1.5", "shorts are whole shares"),
    ],
)
def test_quantities_that_no_order_can_have(side: str, quantity: str, why: str) -> None:
    assert why in str(capable().refusal("id", side, Decimal(quantity), "market", "opg"))


def test_fractions_are_for_longs_where_the_venue_has_them() -> None:
    able = capable(fractional_longs=True, fractional_orders=frozenset({("market", "day")}))
    assert "not taken as market opg; taken: market day" in str(
        able.refusal("id", "buy", Decimal("0.3"), "market", "opg")
    )
    assert able.refusal("id", "buy", Decimal("0.3"), "market", "day") is None
    assert able.refusal("id", "sell", Decimal("0.3"), "market", "day") is None
    assert "whole shares" in str(able.refusal("id", "cover", Decimal("0.3"), "market", "day"))


def test_shorts_are_refused_where_there_are_none() -> None:
    able = capable(shorts=False)
    assert "sold short" in str(able.refusal("id", "short", Decimal(1), "market", "opg"))
    assert able.refusal("id", "cover", Decimal(1), "market", "opg") is None


def test_an_order_is_refused_by_what_it_asks_for_in_words() -> None:
    assert "taken: limit cls, limit day" in str(capable().refusal("id", "buy", Decimal(1), "market", "ioc"))
    assert "0 characters; allowed: 1 to 64" in str(capable().refusal("", "buy", Decimal(1), "market", "day"))
    assert "65 characters" in str(capable().refusal("x" * 65, "buy", Decimal(1), "market", "day"))
    assert capable().refusal("x" * 64, "buy", Decimal(1), "market", "day") is None


def test_cut_offs_follow_the_sessions_own_hours() -> None:
    able = capable(
        cut_offs={"opg": CutOff("open", timedelta(minutes=2)), "cls": CutOff("close", timedelta(minutes=10))}
    )
    calendar = trading_calendar("XNYS")
    # The day after Thanksgiving closes at 13:00 New York.
    for day, opg, cls in (("2023-11-24", "14:28", "17:50"), ("2023-11-27", "14:28", "20:50")):
        session = datetime.fromisoformat(day).date()
        hours = calendar.open_at(session), calendar.close_at(session)
        assert f"{able.latest_submission('opg', *hours):%H:%M}" == opg
        assert f"{able.latest_submission('cls', *hours):%H:%M}" == cls
        assert able.latest_submission("day", *hours) is None


def test_when_an_order_may_be_sent_again_and_when_it_is_certainly_not_there() -> None:
    able = capable(client_id_window=timedelta(hours=24), late_arrival=timedelta(minutes=1))
    assert able.may_send_again(NOW, NOW + timedelta(hours=23))
    assert not able.may_send_again(NOW, NOW + timedelta(hours=24))
    assert capable().may_send_again(NOW, NOW + timedelta(days=9999))
    assert not able.absence_is_final(NOW, NOW + timedelta(seconds=59))
    assert able.absence_is_final(NOW, NOW + timedelta(minutes=1))
    assert capable().absence_is_final(NOW, NOW)
