"""A console over an invented strategy, with a person of every role signed in; no test lives here."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
from dagster import DagsterInstance
from sqlalchemy import Engine
from starlette.testclient import TestClient

from stockpicker_dagster.console.application import application
from stockpicker_dagster.console.door.checks import Addresses
from stockpicker_dagster.console.door.identity_provider import IdentityProvider
from stockpicker_dagster.console.door.proxies import TrustedProxy
from stockpicker_dagster.console.services import Services, services
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.home import Home
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.storage.lake import DEFINITION, Bundle, Lake
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.strategy_form.web import as_yaml
from stockpicker_dagster.trading.people import directory, tokens
from stockpicker_dagster.trading.signatures import make_signing_key
from stockpicker_dagster.training.models import load_model, train_model
from stockpicker_dagster.training.scoring import score_days
from stockpicker_dagster_tests.evaluation.stored_strategies import book
from stockpicker_dagster_tests.training import small_strategy

PORT = 3999
BASE = f"http://127.0.0.1:{PORT}"
NOW = datetime(2023, 7, 1, 1, 15, tzinfo=UTC)
STRATEGY = "invented"
PASSWORD = "correct horse battery"
PEOPLE = {"vera": "viewer", "rob": "researcher", "ada": "approver", "root1": "administrator"}
ATTRIBUTES: dict[str, Any] = {
    "owner": "research",
    "universe": {"name": "simulated"},
    "prices": {"source": "simulated", "start": "2020-01-02", "stocks": 12},
    "periods": {
        "train": ["2023-01-03", "2023-03-31"],
        "validation": ["2023-04-03", "2023-05-31"],
        "test": ["2023-06-01", "2023-06-30"],
    },
    "backtest": {"long": 3, "short": 3, "simulations": 20},
}


class SetDeployment:
    """A lake, a ledger and a clock that a test sets."""

    def __init__(self, lake: Lake, database: Engine) -> None:
        self.lake = lake
        self.database = database
        self.moment = NOW

    def now(self) -> datetime:
        """The moment that was set."""
        return self.moment


@dataclass
class Site:
    """The application with a browser of every role."""

    folder: Path
    deployment: SetDeployment
    parts: Services
    app: Any
    browsers: dict[str, TestClient] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return self.deployment.lake

    @property
    def database(self) -> Engine:
        return self.deployment.database

    def stranger(self, **headers: str) -> TestClient:
        """A browser that nobody is signed in with."""
        return TestClient(self.app, base_url=BASE, follow_redirects=False, headers=headers)

    def browser(self, person: str) -> TestClient:
        """A browser in which this person is signed in."""
        if person not in self.browsers:
            self.browsers[person] = self.sign_in(person)
        return self.browsers[person]

    def sign_in(self, person: str, password: str = PASSWORD) -> TestClient:
        """Signs in as a person does, through the form."""
        browser = self.stranger()
        entry = hidden(browser.get("/sign-in").text, "entry")
        answer = browser.post(
            "/sign-in", data={"entry": entry, "name": person, "password": password}, headers={"Origin": BASE}
        )
        assert answer.status_code == 303, answer.text
        return browser

    def post(self, person: str, path: str, data: Mapping[str, str] | None = None, page: str = "/halt") -> Any:
        """Sends a form as the page does that it stands on."""
        browser = self.browser(person)
        csrf = hidden(browser.get(page).text, "csrf")
        return browser.post(path, data={**(data or {}), "csrf": csrf}, headers={"Origin": BASE})

    def script(self, person: str) -> TestClient:
        """A client with a new personal token."""
        _, secret = tokens.create_token(self.database, person, "a test", timedelta(days=1), self.deployment.now())
        return self.stranger(Authorization=f"Bearer {secret}")


def signed_in(page: str) -> str:
    """Whom the head of a page says it is for, and their role."""
    found = re.search(r'<span class="who">([^<]*)<span class="role">([^<]*)</span></span>', page)
    assert found, "nobody is signed in"
    return "".join(found.groups())


def hidden(page: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, f"no field {name} in {page[:500]}"
    return found.group(1)


def add_everybody(engine: Engine) -> None:
    """A person of every role."""
    directory.add_person(engine, "root1", "administrator", PASSWORD, "os:test", NOW)
    for name, role in PEOPLE.items():
        if name != "root1":
            directory.add_person(engine, name, role, PASSWORD, "root1", NOW)  # type: ignore[arg-type]


def make_site(
    folder: Path,
    engine: Engine,
    lake: Path | Lake,
    proxy: TrustedProxy | None = None,
    provider: IdentityProvider | None = None,
) -> Site:
    """A console on a copy of the folder `lake`, or on that lake itself, and on `engine`, with the people in it."""
    home = Home(folder)
    home.lake.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(lake, Path) and lake.is_dir():
        shutil.copytree(lake, home.lake)
    strategies = folder / "strategies"
    (strategies / STRATEGY).mkdir(parents=True)
    (strategies / STRATEGY / "defs.yaml").write_text(as_yaml(ATTRIBUTES))
    deployment = SetDeployment(lake if isinstance(lake, Lake) else Lake(home.lake), engine)
    desk = Desk(deployment, strategies, DagsterInstance.ephemeral())  # type: ignore[arg-type]
    parts = services(desk, home, lambda: make_signing_key(folder), provider)
    app = application(parts, addresses=Addresses.on_loopback(PORT), port=PORT, proxy=proxy)
    return Site(folder, deployment, parts, app)


def write_invented_lake(lake: Lake) -> None:
    """Prices, scaled features, a model, predictions and a back-test of the strategy, as its assets store them."""
    form = StrategyForm.model_validate(ATTRIBUTES)
    tested, calendar = small_strategy.TESTED, small_strategy.CALENDAR

    def year(number: int) -> list[date]:
        return calendar.sessions(date(number, 1, 1), date(number, 12, 31))

    def note(asset: str) -> dict[str, str]:
        return {DEFINITION: form.definition(asset)}

    prices = small_strategy.PRICES.with_columns(pl.lit("simulated").alias("source"))
    lake.write_days("simulated/prices", prices, small_strategy.SESSIONS, year)
    scaled = small_strategy.SCALED.filter(pl.col("date").is_in(tested))
    lake.write_days(f"{STRATEGY}/scaled_features", scaled, tested, year, note("scaled_features"))
    dataset = small_strategy.dataset()
    lake.write_bundle(f"{STRATEGY}/datasets", UNPARTITIONED, dataset)
    model: Bundle = train_model(
        STRATEGY,
        "all",
        lake.bundle(f"{STRATEGY}/datasets", UNPARTITIONED),
        "linear",
        {},
        0,
        form.definition("trained_model"),
    )
    lake.write_bundle(f"{STRATEGY}/trained_model", UNPARTITIONED, model)
    features = list(small_strategy.FEATURES)
    trained = load_model(lake.bundle(f"{STRATEGY}/trained_model", UNPARTITIONED), STRATEGY, features)
    predictions = score_days(scaled, tested, features, tested[0], {"all": trained}, lambda _: "all")
    lake.write_days(f"{STRATEGY}/predictions", predictions, tested, year, note("predictions"))
    lake.write_days(f"{STRATEGY}/backtest_metrics", book(tested, 0.001, 1), tested, year, note("backtest_metrics"))


def exact(figure: float) -> Decimal:
    """A figure as the ledger has it."""
    return Decimal(str(figure))
