"""What every test may ask for: the real prices, a real PostgreSQL and Spark, and a way to say what is missing.

A test that lacks something skips and says what; where `STOCKPICKER_CI=1` it fails instead, so that a machine that is
meant to run everything cannot pass by leaving tests out. Fixtures of one room live in that room's own conftest.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.home import Home
from stockpicker_dagster_tests.aws.fixtures import aws, aws_proxy, moto_url

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["aws", "aws_proxy", "moto_url"]

# Compiled kernels are shared by all test processes and runs of one version of the sources, never by two.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / ".numba_cache" / code_version()))

# How long an example takes depends on what else the machine does: no promise is about that.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REAL_DATA = "STOCKPICKER_REAL_DATA"
CI = "STOCKPICKER_CI"


def require(condition: object, what: str) -> None:
    """Skips the running test unless `condition` holds, naming `what` is missing; fails it where `STOCKPICKER_CI=1`."""
    if condition:
        return
    if os.environ.get(CI) == "1":
        pytest.fail(f"{what}: missing, and {CI}=1 allows no test to be skipped for it", pytrace=False)
    pytest.skip(f"{what}: missing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `real_data` run only where the real prices are."""
    if item.get_closest_marker("real_data"):
        _real_data_folder()


def _real_data_folder() -> Path:
    named = os.environ.get(REAL_DATA)
    if named == "":
        # Set but empty is said on purpose: this machine has none, and that is no mistake even in CI.
        pytest.skip(f"real prices: {REAL_DATA} is empty, so this machine has none")
    require(named, f"real prices (set {REAL_DATA} to their folder)")
    folder = Path(str(named)).expanduser().absolute()
    if not folder.is_dir():
        pytest.fail(f"{REAL_DATA} names {folder}, which is no folder", pytrace=False)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_test_touches_the_users_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever a test forgets to redirect lands in a folder that is thrown away."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STOCKPICKER_HOME", str(tmp_path_factory.mktemp("home")))
        environment.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
        environment.delenv("STOCKPICKER_DATABASE_URL", raising=False)
        environment.delenv("DAGSTER_HOME", raising=False)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real prices, universes and factors."""
    return _real_data_folder()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A SQLAlchemy URL of an empty database on a real PostgreSQL that this test session started on loopback.

    One server for each pytest process, thrown away at its end. Tests that need a clean slate make a schema or a
    database of their own in it.
    """
    binaries = _postgres_binaries()
    require(binaries, "PostgreSQL (the programs initdb and postgres)")
    assert binaries is not None
    require(importlib.util.find_spec("psycopg"), "psycopg (the extra `postgres`)")
    with _postgres_server(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SparkSession"]:
    """A real Spark on two cores of this machine, as `spark.conf` in a state folder asks for it; one a pytest process.

    Tests that use it carry `xdist_group("spark")`, so that they share it.
    """
    from stockpicker_dagster.compute.spark_session import SETTINGS, lacking, spark_session

    reason = lacking()
    require(reason is None, f"Spark ({reason})")
    root = tmp_path_factory.mktemp("spark")
    # The last one: a JVM that lives for seconds spends more on compiling itself well than that gains.
    lines = ("spark.master local[2]", "spark.driver.memory 1g", "spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1")
    (root / SETTINGS).write_text("\n".join(lines))
    session = spark_session(Home(root))
    yield session
    session.stop()


def _postgres_binaries() -> Path | None:
    """The folder that holds `initdb` and `postgres`: on the path, or where Debian keeps them."""
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


@contextmanager
def _postgres_server(binaries: Path) -> Iterator[str]:
    """Runs a server whose folder, password and port nobody else has; yields the URL of its `stockpicker` database."""
    folder = Path(tempfile.mkdtemp(prefix="stockpicker-postgres-"))
    password, port = secrets.token_urlsafe(16), _free_port()
    (folder / "password").write_text(password)
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    initdb: list[str | Path] = [binaries / "initdb", "-D", folder / "data", "-U", "stockpicker"]
    initdb += [f"--pwfile={folder / 'password'}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    _run_as(user, initdb)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        # Nothing here outlives the tests: durability would only cost time.
        "fsync": "off",
        "full_page_writes": "off",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            user=user,
        )
    try:
        credentials = {"host": "127.0.0.1", "port": port, "user": "stockpicker", "password": password}
        _create_database(server, credentials, folder / "log")
        yield f"postgresql+psycopg://stockpicker:{password}@127.0.0.1:{port}/stockpicker"
    finally:
        server.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown: its folder goes away next
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _create_database(server: "subprocess.Popen[bytes]", credentials: dict[str, object], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(dbname="postgres", autocommit=True, connect_timeout=5, **credentials) as connection:  # type: ignore[arg-type]
                connection.execute("CREATE DATABASE stockpicker")
                return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from error
            time.sleep(0.05)


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: then it runs as its own user, or as nobody."""
    import pwd

    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _run_as(user: str | None, command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, cwd="/", user=user, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
