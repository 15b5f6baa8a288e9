"""No notice reaches a private address, whatever a name server says at which moment."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from stockpicker_dagster.trading.notifications.delivery import send
from stockpicker_dagster.trading.notifications.network import (
    LOOPBACK_ALLOWED,
    PrivateAddress,
    is_public,
    public_only,
    refuse_private_host,
)

PUBLIC = "93.184.216.34"


@pytest.fixture(autouse=True)
def without_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOOPBACK_ALLOWED, raising=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::1",
        "2001:0:a00:1:0:0:80ff:fffe",
        "localhost",
        "",
    ],
)
def test_private_addresses_in_all_their_disguises(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A name server that gives each answer once, the last one for ever; the list says what was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host in ("127.0.0.1", None):
            return real(host, port, *more, **named)
        asked.append(str(host))
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_a_name_that_leads_to_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [PUBLIC, "10.0.0.5"])
    with pytest.raises(PrivateAddress, match=r"leads to 10\.0\.0\.5"):
        refuse_private_host("hooks.example.org")
    answering(monkeypatch, [PUBLIC])
    refuse_private_host("hooks.example.org")


@pytest.mark.parametrize("scheme", ["jsons", "ntfys", "gotifys"])
def test_a_name_that_changes_between_check_and_use_reaches_nothing(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket, scheme: str
) -> None:
    port = listening.getsockname()[1]
    asked = answering(monkeypatch, [PUBLIC], ["127.0.0.1"])
    why = send(f"{scheme}://rebind.example.org:{port}/token-abcdefgh", "subject", "body")
    assert why == "a connection to 127.0.0.1 was refused: not on the public internet"
    assert len(asked) >= 2
    with pytest.raises(TimeoutError):
        listening.accept()


def test_mail_to_a_name_that_changes_reaches_nothing(monkeypatch: pytest.MonkeyPatch, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    answering(monkeypatch, [PUBLIC], ["127.0.0.1"])
    why = send(f"mailtos://me:secret@rebind.example.org:{port}/?to=you@example.org", "subject", "body")
    assert why == "a connection to 127.0.0.1 was refused: not on the public internet"
    with pytest.raises(TimeoutError):
        listening.accept()


def test_only_what_is_inside_the_guard_is_watched(listening: socket.socket) -> None:
    address = listening.getsockname()
    with public_only() as refused:
        with pytest.raises(PrivateAddress), socket.create_connection(address, timeout=1):
            pass
        with pytest.raises(PrivateAddress), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            datagram.sendto(b"hello", address)
        with pytest.raises(PrivateAddress), socket.socket(socket.AF_UNIX) as local:
            local.connect("/var/run/docker.sock")
        with pytest.raises(PrivateAddress), socket.socket() as named:
            named.connect(("localhost", address[1]))
    assert refused == ["127.0.0.1", "127.0.0.1", "/var/run/docker.sock", "localhost"]
    with socket.create_connection(address, timeout=1):
        pass


def test_loopback_is_open_with_the_test_setting_alone(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    monkeypatch.setenv(LOOPBACK_ALLOWED, "1")
    with public_only() as refused:
        socket.create_connection(listening.getsockname(), timeout=1).close()
        with pytest.raises(PrivateAddress):
            socket.create_connection(("169.254.169.254", 80), timeout=1)
    assert refused == ["169.254.169.254"]
