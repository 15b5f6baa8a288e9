"""`stockpicker up`: the console with Dagster's pages behind it, and Dagster's daemon, started and ended together.

The web server runs in this process, on one port of loopback, the daemon as its child; what those two start (code
servers, runs) ends with them. Nothing here knows what the definitions hold: any workspace file can be served. In a
container, whose loopback nobody else reaches, it listens on another address, and the daemon has a container of its own.
"""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO
from urllib.parse import urlencode

import dagster
import psutil
import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context

from stockpicker_dagster.console.application import answer_promptly, application
from stockpicker_dagster.console.door.checks import Addresses
from stockpicker_dagster.console.door.door import FIRST_PATH
from stockpicker_dagster.console.door.first_person import LASTS
from stockpicker_dagster.console.door.identity_provider import IdentityProvider
from stockpicker_dagster.console.door.proxies import TrustedProxy
from stockpicker_dagster.console.guard import PREFIX
from stockpicker_dagster.console.services import Services, services
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.console.views.stock import prepare_histories
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import PROJECT_ROOT, Home
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form.reading import STRATEGIES
from stockpicker_dagster.trading.signatures import load_signing_key

WORKSPACE = PROJECT_ROOT / "workspace.yaml"
LOOPBACK = "127.0.0.1"
# Where Dagster's users look first; taken if it is free and none was asked for.
USUAL_PORT = 3000
# How long a process may take to end what it is doing before it is ended.
PATIENCE_S = 10.0
# Dagster's own defaults for the web server's connections to its storage.
DATABASE_TIMEOUT_MS, DATABASE_RECYCLE_S, DATABASE_OVERFLOW = 15_000, 3_600, 20
# A web socket frame carries one subscription.
MAX_MESSAGE_BYTES = 2**20


class CannotServe(StockPickerError):
    """The pages cannot be served, or can no longer be."""


def serve(
    home: Home,
    port: int | None = None,
    *,
    workspace: Path = WORKSPACE,
    listen: str = LOOPBACK,
    with_daemon: bool = True,
) -> None:
    """Serves until SIGINT or SIGTERM, and returns once everything that was started has ended.

    `home` is prepared already (`DAGSTER_HOME` points into it). `port` is on `listen`; without one, 3000 if it is free,
    else any free one. Whatever it listens on, it answers at 127.0.0.1 and localhost of that port only. Prints the
    address on stdout; while nobody can sign in yet, it is the first person's link.
    Raises `CannotServe` if the port is taken, another process serves this home, or the daemon ends by itself. Call it
    from the main thread.
    """
    workspace = workspace.absolute()
    if not workspace.is_file():
        raise CannotServe(f"there is no workspace file {workspace}; start from the project, or name another one")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with _only_server_of(home) as lock, _listening(port, listen) as listener, _stop_signals() as stop:
        # The workspace file's `working_directory: .` is read relative to where its reader runs; a home that was named
        # relative to where the person stands must not move with it.
        os.environ["STOCKPICKER_HOME"] = str(home.root)
        os.chdir(workspace.parent)
        daemon = None
        try:
            _create_dagsters_storage()
            if with_daemon:
                with stop.held_back():
                    daemon = _start_daemon(workspace, lock)
            _run_web_server(listener, workspace, home, daemon, stop)
        except _Stopped:
            return
        finally:
            stop.only_noted()
            ours = [child for child in _children() if child.pid not in before]
            _end([*ours, *(_session_of(daemon) if daemon else ())])
        if daemon is not None and not stop.asked:
            raise CannotServe(f"Dagster's daemon ended by itself (status {daemon.returncode}); its reason is above")


class _Stopped(BaseException):
    """A signal to stop arrived before there was a server to tell; no handler of `Exception` may swallow it."""


class _StopSignals:
    """Whether SIGINT or SIGTERM has arrived. Until they are `only_noted`, the first one raises `_Stopped` at once."""

    def __init__(self) -> None:
        self.asked = False
        self._raises = True

    def only_noted(self) -> None:
        """From here on a signal raises nothing: the server reads it itself, or everything is ending already."""
        self._raises = False

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Lets what is inside finish, so that a process that was started is also known; then raises `_Stopped`."""
        self._raises = False
        yield
        self._raises = True
        if self.asked:
            raise _Stopped

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if self._raises and first:
            raise _Stopped


@contextmanager
def _stop_signals() -> Iterator[_StopSignals]:
    stop = _StopSignals()
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _only_server_of(home: Home) -> Iterator[IO[str]]:
    """Holds the home's lock: two daemons on one home would launch every scheduled run twice.

    The daemon inherits the lock, so that it holds even if this process is killed and leaves the daemon behind.
    """
    with (home.root / "up.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CannotServe(
                f"{home.root} is served already, by process {lock.read().strip() or 'unknown'}; "
                "end that one, or set STOCKPICKER_HOME to another folder"
            ) from error
        yield lock


@contextmanager
def _listening(port: int | None, listen: str = LOOPBACK) -> Iterator[socket.socket]:
    """A socket bound to `listen`: bound before anything is started, so that the address printed is the one served."""
    for candidate in [port] if port is not None else [USUAL_PORT, 0]:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((listen, candidate))
            # Until one of them listens, two sockets can be bound to one port.
            listener.listen()
        except (OSError, OverflowError) as error:
            listener.close()
            if port is not None:
                raise CannotServe(f"port {port} cannot be had on {listen} ({error}); name another or none") from error
            continue
        with listener:
            yield listener
        return
    raise CannotServe(f"no port is free on {listen}; end a server that holds one")


def _create_dagsters_storage() -> None:
    """On a new home, the web server and the daemon would otherwise both create the same tables, and one would fail."""
    with DagsterInstance.get() as instance:
        for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
            if storage is None:
                raise CannotServe("dagster.yaml names no storage for schedules; use the project's dagster.yaml")


def _start_daemon(workspace: Path, lock: IO[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "dagster._daemon", "run", "--log-level", "warning", "--workspace", str(workspace)]
    # A session of its own, so that Ctrl-C reaches it through this process alone, in order.
    daemon = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock.fileno()], cwd=workspace.parent
    )
    lock.truncate(0)
    lock.write(f"{os.getpid()} with its daemon {daemon.pid}")
    lock.flush()
    return daemon


def _run_web_server(
    listener: socket.socket, workspace: Path, home: Home, daemon: "subprocess.Popen[bytes] | None", stop: _StopSignals
) -> None:
    """Serves on `listener` until a signal asks to stop or the daemon, if there is one, ends."""
    port = int(listener.getsockname()[1])
    target = WorkspaceFileTarget([str(workspace)])
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target, version=dagster.__version__) as context,
    ):
        desk = Desk(Deployment(), STRATEGIES, instance, copies=home.root / "console" / "histories")
        prepare_histories(desk)
        provider = IdentityProvider.from_environment()
        parts = services(desk, home, lambda: load_signing_key(home.root / "keys"), provider)
        instance.optimize_for_webserver(DATABASE_TIMEOUT_MS, DATABASE_RECYCLE_S, DATABASE_OVERFLOW)
        pages = create_app_from_workspace_process_context(context, path_prefix=PREFIX)
        config = uvicorn.Config(
            application(
                parts,
                addresses=Addresses.on_loopback(port),
                port=port,
                dagster_pages=pages,
                proxy=TrustedProxy.from_environment(),
            ),
            log_level="warning",
            # An access log would hold the first person's token.
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=MAX_MESSAGE_BYTES,
            # Pages keep web sockets open for as long as they are shown.
            timeout_graceful_shutdown=2,
        )
        server = uvicorn.Server(config)
        answer_promptly()
        stop.only_noted()
        if not stop.asked:
            print(f"StockPicker is at {entrance(port, parts)}", flush=True)  # noqa: T201
            if parts.first_person.token:
                print(  # noqa: T201
                    "stockpicker: nobody can sign in yet; this address makes the first administrator, once, within "
                    f"{LASTS.total_seconds() / 60:.0f} minutes",
                    file=sys.stderr,
                    flush=True,
                )
            print("stockpicker: Ctrl-C ends it", file=sys.stderr, flush=True)  # noqa: T201
            asyncio.run(_serve_while_alive(server, listener, daemon))


def entrance(port: int, parts: Services) -> str:
    """Where to look first; the first person's token is in no log."""
    base = f"http://127.0.0.1:{port}"
    token = parts.first_person.token
    return f"{base}{FIRST_PATH}?{urlencode({'token': token})}" if token else f"{base}/"


async def _serve_while_alive(
    server: uvicorn.Server, listener: socket.socket, daemon: "subprocess.Popen[bytes] | None"
) -> None:
    async def watch() -> None:
        while daemon is None or daemon.poll() is None:
            await asyncio.sleep(0.5)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _session_of(daemon: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The daemon and what it started: every process of its session, also those whose parent has died."""
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == daemon.pid:
                members.append(process)
    return members


def _end(processes: Iterable[psutil.Process]) -> None:
    """Asks every process to end, waits, and ends those that did not."""
    remaining = list({process.pid: process for process in processes}.values())
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                ask(process)
        _, remaining = psutil.wait_procs(remaining, timeout=PATIENCE_S)
