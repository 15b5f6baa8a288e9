"""No connection to a private address, whatever a name resolves to by the time it is used.

A check of the name before it is used can be undone by a name server that answers differently a moment later. So the
check is made at the connection itself, on the address that is really connected to, by Python's own audit events.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

LOOPBACK_ALLOWED = "STOCKPICKER_NOTICES_TO_LOOPBACK"
"""Environment variable: `1` lets notices go to this very machine; meant for tests alone."""

_EMBEDDING = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv6 networks whose addresses have an IPv4 address inside, which a gateway would connect to."""
_WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg")


class PrivateAddress(OSError):
    """A connection to an address that is not on the public internet was refused."""


@dataclass
class _Watch:
    refused: list[str] = field(default_factory=list)


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)
_installed: list[bool] = []


def loopback_allowed() -> bool:
    """Whether the test setting is on."""
    return os.environ.get(LOOPBACK_ALLOWED) == "1"


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet; an address inside an address counts as that one."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if any(found in network for network in _EMBEDDING):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def refuse_private_host(host: str) -> None:
    """Raises `PrivateAddress` if a name or address leads to this machine or its network, as far as it resolves now."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise PrivateAddress(f"the host {host!r} cannot be resolved") from error
    for address in found:
        if not _allowed(address):
            raise PrivateAddress(f"the host {host!r} leads to {address}, which is not on the public internet")


@contextmanager
def public_only() -> Iterator[list[str]]:
    """Within it, this thread connects to public addresses only; the list says what was refused."""
    if not _installed:
        sys.addaudithook(_audit)
        _installed.append(True)
    watch = _Watch()
    token = _watch.set(watch)
    try:
        yield watch.refused
    finally:
        _watch.reset(token)


def _allowed(address: str) -> bool:
    if is_public(address):
        return True
    try:
        return loopback_allowed() and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    watch = _watch.get()
    if watch is None or event not in _WATCHED:
        return
    target = arguments[-1]
    if target is None:
        return  # sent on a connected socket, whose connection was looked at
    address = str(target[0]) if isinstance(target, tuple) else str(target)
    # What is no IP address is refused too: a name that the system would resolve by itself, a socket of this machine.
    if not _allowed(address):
        watch.refused.append(address)
        raise PrivateAddress(f"{address} is not on the public internet")
