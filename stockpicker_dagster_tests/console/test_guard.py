"""Attacks over real HTTP and real web sockets: a recorder between the guard and Dagster counts what got through."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dagster as dg
import httpx
import pytest
import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from sqlalchemy import Engine
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from stockpicker_dagster.console.application import application
from stockpicker_dagster.console.door import sessions
from stockpicker_dagster.console.door.checks import Addresses
from stockpicker_dagster.console.guard import GRAPHQL, MAX_BODY_BYTES, PREFIX
from stockpicker_dagster.console.services import services
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.home import Home
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.people.sign_in import Proof
from stockpicker_dagster_tests.console.site import NOW, PASSWORD, SetDeployment

# One server for all of these tests, also where they run in several processes.
pytestmark = pytest.mark.xdist_group("guard")

DEFINITIONS = """
import dagster as dg

@dg.asset
def one() -> int:
    return 1

defs = dg.Definitions(assets=[one], executor=dg.in_process_executor)
"""


@dataclass
class Site:
    """A guarded server: its address, a researcher's cookie, and every request that Dagster itself saw."""

    port: int
    instance: DagsterInstance
    cookies: dict[str, str] = field(default_factory=dict)
    reached: list[tuple[str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cookie(self) -> str:
        """A researcher's."""
        return self.cookies["researcher"]

    @property
    def secret(self) -> str:
        """What the cookie holds."""
        return self.cookie.partition("=")[2]

    @property
    def own(self) -> dict[str, str]:
        """The headers that this server's own pages send with a GraphQL request."""
        return {"Cookie": self.cookie, "Origin": self.base, "Content-Type": "application/json"}


def _recording(app, site: Site):
    async def recorder(scope, receive, send):
        async def recording_receive():
            message = await receive()
            if message["type"] == "websocket.receive":
                site.messages.append(message["text"])
            return message

        if scope["type"] != "lifespan":
            site.reached.append((scope.get("method", "WEBSOCKET"), scope["path"]))
        await app(scope, recording_receive, send)

    return recorder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, new_ledger: Callable[[], Engine]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "small_definitions.py").write_text(DEFINITIONS)
    target = PythonFileTarget(str(folder / "small_definitions.py"), "defs", str(folder), "small")
    with (
        DagsterInstance.local_temp(str(folder)) as instance,
        WorkspaceProcessContext(instance, target) as context,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        site = Site(listener.getsockname()[1], instance)
        pages = create_app_from_workspace_process_context(context, path_prefix=PREFIX)
        engine = new_ledger()
        for role in ("administrator", "viewer", "researcher", "approver"):
            directory.add_person(engine, role, role, PASSWORD, "administrator", NOW)
            secret = sessions.begin(engine, Proof(role, "password", NOW), NOW)
            site.cookies[role] = f"stockpicker-{site.port}={secret}"
        desk = Desk(SetDeployment(Lake(folder / "lake"), engine), folder, instance)
        parts = services(desk, Home(folder), lambda: None)
        app = application(
            parts,
            addresses=Addresses.on_loopback(site.port),
            port=site.port,
            dagster_pages=_recording(pages, site),
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield site
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture(autouse=True)
def _nothing_reached_yet(site: Site) -> None:
    site.reached.clear()
    site.messages.clear()


def test_whoever_is_signed_in_sees_dagsters_pages(site: Site) -> None:
    for cookie in site.cookies.values():
        with httpx.Client(base_url=site.base, follow_redirects=True, headers={"Cookie": cookie}) as browser:
            answer = browser.get(f"{PREFIX}/")
            assert answer.status_code == 200
            assert '"assetPrefix":"/dagster"' in answer.text
            script = re.search(r'src="(/dagster/[^"]+\.js)"', answer.text)
            assert script is not None
            assert browser.get(script.group(1)).status_code == 200
            for name, value in {"x-frame-options": "DENY", "x-content-type-options": "nosniff"}.items():
                assert answer.headers[name] == value
            assert answer.headers["content-security-policy"]


WIPE = {"query": "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }"}


@pytest.mark.parametrize(
    ("role", "body", "status"),
    [
        ("viewer", {"query": "{ version }"}, 200),
        ("viewer", {"query": "mutation { reloadWorkspace { __typename } }"}, 403),
        ("researcher", {"query": "mutation { reloadWorkspace { __typename } }"}, 200),
        ("researcher", WIPE, 403),
        ("approver", WIPE, 403),
        ("administrator", WIPE, 200),
        ("administrator", {"query": "mutation { reportRunlessAssetEvents { __typename } }"}, 403),
    ],
)
def test_each_role_asks_of_dagster_what_it_may(role: str, body: dict, status: int, site: Site) -> None:
    headers = site.own | {"Cookie": site.cookies[role]}
    assert httpx.post(site.base + GRAPHQL, headers=headers, json=body, timeout=60).status_code == status
    assert (site.reached != []) is (status == 200)


def _ask(site: Site, query: str, **variables: object) -> dict:
    answer = httpx.post(
        site.base + GRAPHQL, headers=site.own, json={"query": query, "variables": variables}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_the_pages_own_requests_pass(site: Site) -> None:
    assert _ask(site, "{ assetsOrError { ... on AssetConnection { nodes { key { path } } } } }") == {
        "assetsOrError": {"nodes": [{"key": {"path": ["one"]}}]}
    }
    query = """mutation L($p: ExecutionParams!) { launchRun(executionParams: $p) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
    params = {
        "selector": {
            "repositoryLocationName": "small",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["one"]}],
        },
        "mode": "default",
        "runConfigData": "ops: {}\n",
    }
    assert _ask(site, query, p=params)["launchRun"]["__typename"] == "LaunchRunSuccess"
    assert site.reached == [("POST", GRAPHQL)] * 2


def test_a_browser_that_sends_no_origin_passes_by_its_fetch_metadata(site: Site) -> None:
    headers = {"Cookie": site.cookie, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
    assert httpx.post(site.base + GRAPHQL, headers=headers, json={"query": "{ version }"}).status_code == 200


MUTATION = {"query": "mutation { reloadWorkspace { __typename } }"}
QUERY = {"query": "{ version }"}
LAUNCH = "mutation L($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"


def _without(*names: str):
    return lambda site: {name: value for name, value in site.own.items() if name not in names}


def _with(**changes: object):
    """The pages' own headers with some replaced; `_` stands for `-`, a callable is given the site."""
    return lambda site: (
        site.own
        | {name.replace("_", "-"): value(site) if callable(value) else value for name, value in changes.items()}
    )


FORGED_HEADERS = {
    "no cookie": (401, _without("Cookie")),
    "a wrong cookie": (401, _with(Cookie=lambda site: site.cookie[:-1] + ("0" if site.cookie[-1] != "0" else "1"))),
    "an empty cookie": (401, _with(Cookie=lambda site: f"stockpicker-{site.port}=")),
    "the cookie twice": (401, _with(Cookie=lambda site: f"stockpicker-{site.port}=x; {site.cookie}")),
    "another port's cookie": (401, _with(Cookie=lambda site: site.cookie.replace(str(site.port), "1"))),
    "a cookie that is not ASCII": (401, _with(Cookie=b"stockpicker=\xff\xfe")),
    "the secret as bearer": (403, lambda site: _without("Cookie")(site) | {"Authorization": f"Bearer {site.secret}"}),
    "a rebound host": (403, _with(Host="evil.example")),
    "a rebound host with the port": (403, _with(Host=lambda site: f"evil.example:{site.port}")),
    "a host that only begins well": (403, _with(Host=lambda site: f"127.0.0.1:{site.port}.evil.example")),
    "the host without port": (403, _with(Host="127.0.0.1")),
    "the host with another port": (403, _with(Host="127.0.0.1:1")),
    "the host as IPv6": (403, _with(Host=lambda site: f"[::1]:{site.port}")),
    "the host with a user": (403, _with(Host=lambda site: f"me@127.0.0.1:{site.port}")),
    "all interfaces as host": (403, _with(Host=lambda site: f"0.0.0.0:{site.port}")),
    "no origin": (403, _without("Origin")),
    "a foreign origin": (403, _with(Origin="https://evil.example")),
    "the null origin": (403, _with(Origin="null")),
    "an empty origin": (403, _with(Origin="")),
    "another port's origin": (403, _with(Origin="http://127.0.0.1:1")),
    "the origin without port": (403, _with(Origin="http://127.0.0.1")),
    "the other name's origin": (403, _with(Origin=lambda site: f"http://localhost:{site.port}")),
    "the origin over TLS": (403, _with(Origin=lambda site: f"https://127.0.0.1:{site.port}")),
    "an origin that only begins well": (403, _with(Origin=lambda site: f"http://127.0.0.1:{site.port}.evil.example")),
    "a foreign page without origin": (403, lambda site: _without("Origin")(site) | {"Sec-Fetch-Site": "cross-site"}),
    "another port's page": (403, _with(Sec_Fetch_Site="same-site")),
    "a form": (415, _with(Content_Type="application/x-www-form-urlencoded")),
    "text": (415, _with(Content_Type="text/plain")),
    "text that mentions JSON": (415, _with(Content_Type="text/plain; application/json")),
    "a bare GraphQL document": (415, _with(Content_Type="application/graphql")),
    "a multipart upload": (415, _with(Content_Type="multipart/form-data; boundary=x")),
    "no content type": (415, _without("Content-Type")),
    "a forwarded host": (403, _with(Host="evil.example", X_Forwarded_Host=lambda site: f"127.0.0.1:{site.port}")),
}


@pytest.mark.parametrize("attack", FORGED_HEADERS)
def test_a_forged_request_never_reaches_dagster(site: Site, attack: str) -> None:
    status, headers = FORGED_HEADERS[attack]
    answer = httpx.post(site.base + GRAPHQL, headers=headers(site), content=json.dumps(MUTATION))
    assert answer.status_code == status, answer.text
    assert len(answer.text.strip().splitlines()) == 1, "the answer is one sentence"
    assert site.secret not in answer.text
    assert site.reached == []


FORGED_PAGES = {
    "a mutation in the address": (405, "GET", f"{GRAPHQL}?query=mutation%7BreloadWorkspace%7B__typename%7D%7D", None),
    "a query in the address": (405, "GET", f"{GRAPHQL}?query=%7Bversion%7D", None),
    "a mutation in the address of HEAD": (405, "HEAD", f"{GRAPHQL}?query=mutation%7Ba%7D", None),
    "a trailing slash": (405, "GET", f"{GRAPHQL}/?query=mutation%7Ba%7D", None),
    "an encoded path": (405, "GET", f"{PREFIX}/%67raphql?query=mutation%7Ba%7D", None),
    "a forged materialization": (403, "POST", f"{PREFIX}/report_asset_materialization/one", {}),
    "a forged materialization by GET": (403, "GET", f"{PREFIX}/report_asset_materialization/one", None),
    "a forged check": (403, "POST", f"{PREFIX}/report_asset_check/one", {"check_name": "c", "passed": True}),
    "a forged observation": (403, "POST", f"{PREFIX}/report_asset_observation/one", {}),
    "a notebook": (403, "GET", f"{PREFIX}/notebook?repoLocName=small&path=/tmp/x.ipynb", None),
    "a notebook by its old name": (403, "GET", f"{PREFIX}/dagit/notebook?path=/tmp/x.ipynb", None),
    "a path that climbs": (403, "GET", f"{PREFIX}/logs/%2e%2e/%2e%2e/%2e%2e/etc/passwd", None),
    "a POST elsewhere": (405, "POST", "/", MUTATION),
    "PUT": (405, "PUT", GRAPHQL, MUTATION),
    "DELETE": (405, "DELETE", GRAPHQL, None),
    "OPTIONS": (405, "OPTIONS", GRAPHQL, None),
    "TRACE": (405, "TRACE", GRAPHQL, None),
    "a list of requests": (403, "POST", GRAPHQL, [QUERY, MUTATION]),
    "a mutation by another name": (
        403,
        "POST",
        GRAPHQL,
        {"query": "mutation { launchRun: wipeAssets { id } }"},
    ),
    "a report through GraphQL": (403, "POST", GRAPHQL, {"query": "mutation { reportRunlessAssetEvents { id } }"}),
    "redirected resources": (
        403,
        "POST",
        GRAPHQL,
        {"query": LAUNCH, "variables": {"p": {"runConfigData": {"resources": {"io_manager": {}}}}}},
    ),
    "another executor": (
        403,
        "POST",
        GRAPHQL,
        {"query": LAUNCH, "variables": {"p": {"runConfigData": "execution: {config: {}}"}}},
    ),
    "no query": (403, "POST", GRAPHQL, {}),
}


@pytest.mark.parametrize("attack", FORGED_PAGES)
def test_not_even_the_cookie_opens_what_the_guard_keeps_shut(site: Site, attack: str) -> None:
    status, method, address, body = FORGED_PAGES[attack]
    content = None if body is None else json.dumps(body)
    answer = httpx.request(method, site.base + address, headers=site.own, content=content)
    assert answer.status_code == status, answer.text
    assert "set-cookie" not in answer.headers
    assert site.reached == []


@pytest.mark.parametrize("page", [f"{PREFIX}/", f"{PREFIX}/server_info", GRAPHQL, f"{PREFIX}/download_debug/x"])
def test_a_stranger_sees_nothing(site: Site, page: str) -> None:
    answer = httpx.get(site.base + page)
    assert answer.status_code == 401
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"
    assert site.reached == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"query { version }", b'{"query": ' + b'{"a":' * 50_000]
)
def test_a_body_that_is_not_json_is_refused(site: Site, body: bytes) -> None:
    assert httpx.post(site.base + GRAPHQL, headers=site.own, content=body).status_code == 400
    assert site.reached == []


def test_an_endless_body_is_cut_off(site: Site) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**16 + 64):
            yield b" " * 2**16

    # The server may close while the client still writes: either way nothing reaches Dagster.
    with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        assert httpx.post(site.base + GRAPHQL, headers=site.own, content=endless()).status_code == 413
    assert site.reached == []


@pytest.mark.parametrize("name", ["Host", "Origin", "Cookie", "Content-Type", "Sec-Fetch-Site"])
def test_a_decisive_header_sent_twice_is_refused(site: Site, name: str) -> None:
    body = json.dumps(MUTATION)
    own = site.own | {"Host": f"127.0.0.1:{site.port}", "Sec-Fetch-Site": "same-origin"}
    lines = [f"POST {GRAPHQL} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{key}: {value}" for key, value in own.items()] + [f"{name}: {own[name]}"]
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as wire:
        wire.sendall("\r\n".join([*lines, "", body]).encode())
        answer = wire.makefile("rb").readline()
    assert b" 400 " in answer
    assert site.reached == []


def _raw(site: Site, target: str, *lines: str, method: str = "POST", body: str = json.dumps(MUTATION)) -> bytes:
    """What is answered to a request that no honest client would write."""
    own = [f"{key}: {value}" for key, value in site.own.items()]
    head = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{site.port}", "Connection: close", *own, *lines]
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as wire:
        wire.sendall("\r\n".join([*head, "", body]).encode("latin-1"))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := wire.recv(65_536):
                answer += part
    return answer


_LENGTH = len(json.dumps(MUTATION))
_CHUNKED = f"{_LENGTH:x}\r\n{json.dumps(MUTATION)}\r\n0\r\n\r\n"
TWO_READINGS = {
    "two framings": (["Transfer-Encoding: chunked", f"Content-Length: {_LENGTH}"], _CHUNKED),
    "two framings, the other way round": (["Content-Length: 4", "Transfer-Encoding: chunked"], _CHUNKED),
    "two lengths": ([f"Content-Length: {_LENGTH}", "Content-Length: 3"], None),
    "one length twice": ([f"Content-Length: {_LENGTH}", f"Content-Length: {_LENGTH}"], None),
    "a list of lengths": ([f"Content-Length: {_LENGTH}, {_LENGTH}"], None),
    "a length with a sign": ([f"Content-Length: +{_LENGTH}"], None),
    "a negative length": (["Content-Length: -1"], None),
    "a hexadecimal length": (["Content-Length: 0x2c"], None),
    "a coding that nobody knows": (["Transfer-Encoding: xchunked"], _CHUNKED),
    "a coding after chunked": (["Transfer-Encoding: chunked, identity"], _CHUNKED),
    "a space before the colon": (["Transfer-Encoding : chunked"], _CHUNKED),
    "a folded line": ([f"Content-Length: {_LENGTH}", "X-One: a", " Transfer-Encoding: chunked"], None),
    "a bare line feed": ([f"Content-Length: {_LENGTH}\nTransfer-Encoding: chunked"], _CHUNKED),
    "a chunk of an endless size": (["Transfer-Encoding: chunked"], f"ffffffffffffffffff\r\n{json.dumps(MUTATION)}"),
}


@pytest.mark.parametrize("attack", TWO_READINGS)
def test_what_two_servers_could_read_differently_never_reaches_dagster(site: Site, attack: str) -> None:
    lines, body = TWO_READINGS[attack]
    answer = _raw(site, GRAPHQL, *lines, body=body if body is not None else json.dumps(MUTATION))
    status = answer.partition(b" ")[2][:3]
    assert status in (b"400", b"413", b""), answer[:200]
    assert site.reached == []


@pytest.mark.parametrize("written", ["//dagster/graphql", "/DAGSTER/graphql", "/dagster/GRAPHQL", "/dagster//graphql",
    "/dagster/graphql/", "/dagster/graphql;x=1", "/dagster/..;/dagster/graphql", "/dagster%2fgraphql",
    "/dagster/%67raphql%00", "/dagster/graphql%20", "/dagster/graphql%0d%0aX:1", "/static/..%2fdagster/graphql",
    "http://evil.example/dagster/graphql", "/dagster/./graphql", "/dagster/graphql%3Fquery=1"])  # fmt: skip
def test_an_address_written_otherwise_opens_nothing(site: Site, written: str) -> None:
    for method, headers in (
        ("POST", []),
        ("GET", ["X-HTTP-Method-Override: POST", "X-Method-Override: POST"]),
        ("GET", ["X-Original-URL: /dagster/graphql", "X-Rewrite-URL: /dagster/graphql", "X-Forwarded-Prefix: /x"]),
    ):
        body = json.dumps(WIPE)
        _raw(site, written, f"Content-Length: {len(body)}", *headers, method=method, body=body)
        assert [each for each in site.reached if each[0] != "GET"] == []


@pytest.mark.parametrize("written", ["report_asset_materialization/one", "/report_asset_materialization/one",
    "%72eport_asset_materialization/one", "report_asset_materialization%2fone", "REPORT_ASSET_MATERIALIZATION/one",
    "./report_asset_materialization/one", "x/../report_asset_materialization/one", "report_asset_materialization//one",
    "report_asset_materialization;x/one", "report_asset_check/one?check_name=c&passed=true",
    "report_asset_observation/one", "report_asset_materialization/one%3Fdata_version=1"])  # fmt: skip
def test_no_way_of_writing_it_forges_an_event(site: Site, written: str) -> None:
    for method in ("POST", "GET", "HEAD"):
        _raw(site, f"{PREFIX}/{written}", "Content-Length: 2", method=method, body="{}")
    key = dg.AssetKey(["one"])
    assert site.instance.get_latest_materialization_event(key) is None
    assert site.instance.fetch_observations(key, limit=1).records == []


def test_what_the_address_says_never_replaces_the_body(site: Site) -> None:
    """Dagster reads the query from the address where it finds none in the body."""
    forged = f"{site.base}{GRAPHQL}?query=mutation%7BwipeAssets%7B__typename%7D%7D"
    answer = httpx.post(forged, headers=site.own, json=QUERY)
    assert answer.json()["data"].keys() == {"version"}


def _open(site: Site, **changes: str | None):
    headers = {"Cookie": site.cookie, "Origin": site.base} | changes
    origin = headers.pop("Origin")
    return connect(
        f"ws://127.0.0.1:{site.port}{GRAPHQL}",
        origin=origin,
        additional_headers={name: value for name, value in headers.items() if value is not None},
        subprotocols=["graphql-ws"],
        open_timeout=10,
        close_timeout=2,
        proxy=None,
    )


SUBSCRIPTION = {
    "type": "start",
    "id": "1",
    "payload": {"query": "subscription { locationStateChangeEvents { __typename } }"},
}


def test_the_pages_own_subscriptions_pass(site: Site) -> None:
    with _open(site) as wire:
        wire.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(wire.recv(timeout=10)) == {"type": "connection_ack"}
        wire.send(json.dumps(SUBSCRIPTION))
        wire.send(json.dumps({"type": "stop", "id": "1"}))
        wire.send(json.dumps({"type": "connection_terminate"}))
        with pytest.raises(ConnectionClosed):
            wire.recv(timeout=10)
    assert [json.loads(message)["type"] for message in site.messages] == [
        "connection_init",
        "start",
        "stop",
        "connection_terminate",
    ]


@pytest.mark.parametrize(
    "forged",
    [
        {"Cookie": None},
        {"Cookie": "stockpicker=1"},
        {"Origin": None},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_a_forged_web_socket_is_never_opened(site: Site, forged: dict[str, str | None]) -> None:
    with pytest.raises(InvalidStatus) as refused, _open(site, **forged):
        pass
    assert refused.value.response.status_code == 403
    assert site.reached == []


def _start(query: str) -> str:
    return json.dumps({"type": "start", "id": "1", "payload": {"query": query}})


@pytest.mark.parametrize(
    "message",
    [
        _start("mutation { reloadWorkspace { __typename } }"),
        _start("mutation { wipeAssets { __typename } }"),
        _start("{ version }"),
        _start("subscription A { locationStateChangeEvents { __typename } } mutation B { reloadWorkspace { id } }"),
        json.dumps([SUBSCRIPTION]),
        json.dumps(SUBSCRIPTION | {"type": "subscribe"}),
        json.dumps(SUBSCRIPTION | {"id": {"a": 1}}),
        json.dumps({"type": "start", "id": "1"}),
        "{",
        b"\x00\x01",
    ],
    ids=range(10),
)
def test_a_web_socket_carries_nothing_but_subscriptions(site: Site, message: str | bytes) -> None:
    with _open(site) as wire:
        wire.send(message)
        with pytest.raises(ConnectionClosed):
            wire.recv(timeout=10)
    assert site.messages == []


def test_a_web_socket_elsewhere_is_never_opened(site: Site) -> None:
    with (
        pytest.raises(InvalidStatus),
        connect(
            f"ws://127.0.0.1:{site.port}{PREFIX}/other",
            origin=site.base,
            additional_headers={"Cookie": site.cookie},
            proxy=None,
        ),
    ):
        pass
    assert site.reached == []
