"""Addresses of notices: an allow-list, nothing that reads files or switches checks off, secrets that stay secret."""

import logging
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.notifications.network import LOOPBACK_ALLOWED
from stockpicker_dagster.trading.notifications.targets import (
    check_address,
    disable_target,
    masked,
    resolved,
    set_target,
    targets,
)

NOW = datetime(2024, 3, 4, 12, tzinfo=UTC)
SLACK = "slack://TokenAAAA/TokenBBBB/TokenCCCC/#trading"


@pytest.mark.parametrize(
    "url",
    [
        SLACK,
        "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/12315544",
        "twilio://AC12345678901234567890123456789012:12345678901234567890123456789012@15551230001/15551230002",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
    ],
)
def test_services_that_are_allowed(url: str) -> None:
    assert check_address(url) is not None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("json://hooks.example.org/x", "kind 'json'"),
        ("mailto://me:hunter2@example.org", "kind 'mailto'"),
        ("syslog://", "kind 'syslog'"),
        ("dbus://", "kind 'dbus'"),
        ("file:///etc/passwd", "kind 'file'"),
        ("http://hunter2.example.org", "kind 'http'"),
        ("windows://", "kind 'windows'"),
        ("hunter2", "kind 'hunter2'"),
        (SLACK + "?verify=no", "sets verify"),
        (SLACK + "?Template=/etc/passwd", "sets template"),
        (SLACK + "?image=no;%76erify=no", "sets verify"),
        ("jsons://hunter2.example.org/x?:redirect=http://10.0.0.1", "sets redirect"),
        ("slack://", "not complete"),
        ("jsons://127.0.0.1/hunter2", "leads to 127.0.0.1"),
        ("jsons://[::1]/hunter2", "leads to ::1"),
        ("ntfys://169.254.169.254/hunter2", "leads to 169.254.169.254"),
        ("mailtos://me:hunter2@example.org?smtp=10.0.0.1&to=you@example.org", "leads to 10.0.0.1"),
        ("jsons://localhost/hunter2", "leads to"),
        ("jsons://0x7f000001/hunter2", "leads to 127.0.0.1"),
    ],
)
def test_addresses_that_are_refused_without_being_repeated(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(LOOPBACK_ALLOWED, raising=False)
    with caplog.at_level(logging.DEBUG), pytest.raises(InvalidInput) as refused:
        check_address(url)
    assert why in str(refused.value)
    if url != "hunter2":
        assert "hunter2" not in str(refused.value) + caplog.text


def test_a_target_is_kept_masked_in_what_is_shown(ledger_engine: Engine) -> None:
    made = set_target(ledger_engine, "chat", SLACK, "ann", NOW, ["halt", "proposal"])
    assert (made.address, made.kinds, made.created_by) == ("slack://...", ("halt", "proposal"), "ann")
    assert "Token" not in repr(targets(ledger_engine))
    replaced = set_target(ledger_engine, "chat", "env:CHAT_URL", "bob", NOW)
    assert (replaced.address, replaced.kinds) == ("env:CHAT_URL", None)
    disable_target(ledger_engine, "chat", NOW)
    assert [target.disabled for target in targets(ledger_engine)] == [True]
    with pytest.raises(InvalidInput, match="no target 'chat' in use"):
        disable_target(ledger_engine, "chat", NOW)


def test_an_address_may_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_URL", f" {SLACK} ")
    assert resolved("env:CHAT_URL") == SLACK
    assert masked("env:CHAT_URL") == "env:CHAT_URL"
    monkeypatch.delenv("CHAT_URL")
    with pytest.raises(InvalidInput, match="the environment has no CHAT_URL"):
        resolved("env:CHAT_URL")


def test_names_and_kinds_are_checked(ledger_engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="no name of a target"):
        set_target(ledger_engine, "Chat Room", SLACK, "ann", NOW)
    with pytest.raises(InvalidInput, match="allowed: proposal, decision"):
        set_target(ledger_engine, "chat", SLACK, "ann", NOW, ["gossip"])
