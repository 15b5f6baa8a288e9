"""What `serve` refuses before it starts anything. Whole starts and ends are in `system/test_up.py`."""

import fcntl
import signal
import socket
from pathlib import Path

import psutil
import pytest

from stockpicker_dagster.console.server import (
    CannotServe,
    _end,
    _listening,
    _stop_signals,
    _Stopped,
    _StopSignals,
    serve,
)
from stockpicker_dagster.home import Home


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    file = tmp_path / "workspace.yaml"
    file.write_text("load_from: []\n")
    return file


@pytest.fixture(autouse=True)
def _no_process_is_left() -> None:
    before = psutil.Process().children(recursive=True)
    yield
    assert [child for child in psutil.Process().children(recursive=True) if child not in before] == []


def test_a_port_that_is_taken_is_named(tmp_path: Path, workspace: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=f"port {port} cannot be had on 127.0.0.1"):
            serve(Home(tmp_path), port, workspace=workspace)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_named(tmp_path: Path, workspace: Path, port: int) -> None:
    with pytest.raises(CannotServe, match=f"port {port} cannot be had"):
        serve(Home(tmp_path), port, workspace=workspace)


def test_a_workspace_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotServe, match=r"no workspace file .*/absent\.yaml"):
        serve(Home(tmp_path), workspace=tmp_path / "absent.yaml")


def test_a_home_is_served_once(tmp_path: Path, workspace: Path) -> None:
    with (tmp_path / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711 with its daemon 4712")
        lock.flush()
        with pytest.raises(CannotServe, match="served already, by process 4711 with its daemon 4712; end that one"):
            serve(Home(tmp_path), workspace=workspace)


def test_without_a_port_any_free_one_on_loopback_is_taken() -> None:
    with _listening(None) as first, _listening(None) as second:
        assert first.getsockname()[0] == second.getsockname()[0] == "127.0.0.1"
        assert first.getsockname()[1] != second.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_start_at_once_and_a_running_server_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with _stop_signals() as stop:
        with pytest.raises(_Stopped):
            signal.raise_signal(number)
        assert stop.asked
        signal.raise_signal(number)  # impatience while things end changes nothing
    with _stop_signals() as stop:
        stop.only_noted()
        signal.raise_signal(number)
        assert stop.asked
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_a_process_that_starts_is_known(number: signal.Signals) -> None:
    known = []

    def start(stop: _StopSignals) -> None:
        with stop.held_back():
            signal.raise_signal(number)
            known.append("daemon")
        known.append("never reached")

    with _stop_signals() as stop, pytest.raises(_Stopped):
        start(stop)
    assert known == ["daemon"]


def test_a_process_that_does_not_listen_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stockpicker_dagster.console.server.PATIENCE_S", 0.3)
    deaf = psutil.Popen(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], stdout=-1, text=True)
    assert deaf.stdout.readline() == "ready\n"
    _end([deaf, deaf])
    assert not deaf.is_running()
