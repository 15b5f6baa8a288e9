"""The console on 3,000 stocks and ten years of history: every page's server time, and 50 people reading at once.

A strategy's lake is written as its assets would leave it (prices, scaled features, models, predictions, back-test,
plan), with a ledger of past rebalances and one proposal that waits. A server of its own then answers over loopback.
`pages` takes the slowest page: each is asked for as it is met first (a stock and a session that nobody has looked at),
and the median of further ones is told beside it. `fifty_people` has 50 signed-in people who each ask for a page, read
for two seconds on average, and ask for the next, while a rebalance of 200 orders executes in a process of its own;
whoever asks shares the two cores with the server. There is no peer that does the same work.

Run it with `.venv/bin/python benchmarks/console.py [--json] [--home FOLDER]`; a named folder is kept and used again.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

TARGET_SECONDS, LOAD_TARGET_SECONDS = 0.100, 0.300
STOCKS, PEOPLE, ORDERS = 3_000, 50, 200
# The last year lacks its last session, so that it is as many files as a year can be.
START, LAST = date(2015, 1, 2), date(2024, 12, 30)
STRATEGY, SOURCE = "big", "mine"
SECTORS = ("Energy", "Materials", "Industrials", "Financials", "Health Care", "Information Technology", "Utilities")
SYMBOLS = [f"S{number:04d}" for number in range(STOCKS)]
FORM: dict[str, Any] = {
    "owner": "benchmark",
    "description": "3,000 stocks and ten years of history.",
    "universe": {"file": "members.csv"},
    "prices": {"source": "files", "name": SOURCE, "path": "prices.parquet", "basis": "as_traded", "start": str(START)},
    "features": {"set": "factors"},
    "periods": {"train_years": 1, "validation_years": 1, "retrain": "quarterly"},
    "backtest": {"long": 50, "short": 50, "rebalance": "daily", "simulations": 1000},
}
READING_S = 2.0
SERVED: list[date] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--home", type=Path, help="a folder to keep what is prepared in")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the 50 people read")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--execute", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["STOCKPICKER_HOME"] = str(options.home or scratch)
        os.environ["DAGSTER_HOME"] = str(Path(os.environ["STOCKPICKER_HOME"]) / "dagster")
        if options.serve:
            serve(options.serve)
        elif options.execute:
            execute()
        else:
            report(options.json, options.seconds)


def report(quietly: bool, seconds: float) -> None:
    """Prepares what is not there yet, measures, and prints the figures."""
    began = time.monotonic()
    if not (home() / "sessions.json").is_file():
        prepare()
    if not quietly:
        print(f"prepared in {time.monotonic() - began:.0f} s: {STOCKS} stocks, {START} to {LAST}")
    waiting = propose()
    with serving() as base:
        first, again = measure_pages(base, waiting, quietly)
        load = fifty_people(base, waiting, seconds)
    slowest = max(first, key=lambda name: first[name])
    results = [
        {
            "name": "pages",
            "ours_s": round(first[slowest], 3),
            "peer": None,
            "peer_s": None,
            "ratio": None,
            "target": TARGET_SECONDS,
            "slowest": slowest,
            "pages": len(first),
            "median_s": round(statistics.median(again.values()), 3),
        },
        {
            "name": "fifty_people",
            "ours_s": round(load.p95, 3),
            "peer": None,
            "peer_s": None,
            "ratio": None,
            "target": LOAD_TARGET_SECONDS,
            "answers": load.answers,
            "errors": load.errors,
            "median_s": round(load.median, 3),
            "longest_s": round(load.longest, 3),
            "execution_s": round(load.execution_s, 1),
        },
    ]
    print(json.dumps({"benchmark": "console", "results": results}))


def home() -> Path:
    return Path(os.environ["STOCKPICKER_HOME"])


# What there is to look at


def prepare() -> None:
    """Everything but the proposal that waits."""
    import numpy as np
    import polars as pl

    from stockpicker_dagster.strategy_form.web import as_yaml

    home().mkdir(parents=True, exist_ok=True)
    folder = home() / "strategies" / STRATEGY
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defs.yaml").write_text(as_yaml(FORM))
    sectors = [SECTORS[number % len(SECTORS)] for number in range(STOCKS)]
    pl.DataFrame({"symbol": SYMBOLS, "sector": sectors}).write_csv(home() / "members.csv")
    rng = np.random.default_rng(3)
    write_prices(rng)
    write_models(rng)
    write_scores(rng)
    write_backtest(rng)
    write_ledger()
    write_runs()


def form() -> Any:
    from stockpicker_dagster.strategy_form import StrategyForm

    return StrategyForm.model_validate(FORM)


def lake() -> Any:
    from stockpicker_dagster.storage.lake import Lake

    return Lake(home() / "lake")


def years() -> Iterator[tuple[list[date], Any]]:
    """The sessions of each year that are stored, and what says all of its sessions."""
    calendar = form().calendar

    def whole(year: int) -> list[date]:
        return calendar.sessions(date(year, 1, 1), date(year, 12, 31))

    for year in range(START.year, LAST.year + 1):
        yield [day for day in whole(year) if START <= day <= LAST], whole


def rows_of(days: Sequence[date]) -> Any:
    """`symbol` and `date` of every stock on every one of `days`, sorted by date, then symbol."""
    import polars as pl

    return pl.DataFrame({"date": days}).join(pl.DataFrame({"symbol": SYMBOLS}), how="cross").select("symbol", "date")


def write_prices(rng: Any) -> None:
    """Random walks, and the file that they are said to come from."""
    import numpy as np
    import polars as pl

    from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA

    close, kept = np.full(STOCKS, 50.0), []
    for days, whole in years():
        moves = np.exp(rng.normal(0.0, 0.02, (len(days), STOCKS)).cumsum(axis=0))
        closes = np.round(close * moves, 2).clip(1.0)
        close = closes[-1]
        flat = closes.ravel()
        rows = rows_of(days).with_columns(
            open=pl.Series(flat),
            high=pl.Series(flat * 1.01),
            low=pl.Series(flat * 0.99),
            close=pl.Series(flat),
            volume=pl.Series(rng.integers(10_000, 1_000_000, flat.size).astype(np.float64)),
            dividend=0.0,
            split_ratio=1.0,
            adjustment=1.0,
            known_at=None,
            source=pl.lit(SOURCE),
        )
        prices = rows.select(pl.col(name).cast(kind) for name, kind in PRICES_SCHEMA.items())
        lake().write_days(f"{SOURCE}/prices", prices, days, whole)
        for table, schema in (("delistings", DELISTINGS_SCHEMA), ("quarantine", QUARANTINE_SCHEMA)):
            lake().write_days(f"{SOURCE}/{table}", pl.DataFrame(schema={**schema}), days, whole)
        kept.append(prices.select("symbol", "date", "open", "high", "low", "close", "volume"))
    # A file is as long as its owner keeps it; what the pages show of the past is in the lake.
    kept[-1].filter(pl.col("date") > LAST - timedelta(days=90)).write_parquet(home() / "prices.parquet")


def write_models(rng: Any) -> None:
    """A model of every quarter, all with the weights that were learned once from a small dataset."""
    import polars as pl

    from stockpicker_dagster.storage.lake import Bundle
    from stockpicker_dagster.training.datasets import LabelRule, build_dataset
    from stockpicker_dagster.training.models import MODEL, train_model

    chosen = form()
    features = chosen.feature_set().names
    served = chosen.calendar.sessions(chosen.first_served, LAST)
    split = chosen.split(chosen.period_key(served[0]))
    learned = [*split.train[::5], *split.validation[::5]]
    small = rows_of(learned).filter(pl.col("symbol").is_in(SYMBOLS[:40]))
    scaled = small.with_columns(pl.Series(name, rng.normal(size=small.height), dtype=pl.Float32) for name in features)
    days = chosen.calendar.sessions(START, split.last_known)
    prices = lake().scan(f"{SOURCE}/prices", days).filter(pl.col("symbol").is_in(SYMBOLS[:40])).collect()
    gone = lake().read(f"{SOURCE}/delistings", days)
    dataset = build_dataset(scaled, prices, gone, split, [], features, LabelRule(5, "rank", None), chosen.calendar)
    lake().write_bundle(f"{STRATEGY}/datasets", "first", dataset)
    definition = chosen.definition("trained_model")
    folder = lake().bundle(f"{STRATEGY}/datasets", "first")
    for key in sorted({chosen.period_key(day) for day in served}):
        files = dict(train_model(STRATEGY, key, folder, "linear", {}, 0, definition).files)
        files[MODEL] = json.dumps(json.loads(files[MODEL]) | {"last_known": str(split.last_known)}).encode()
        lake().write_bundle(f"{STRATEGY}/trained_model", key, Bundle(files))


def write_scores(rng: Any) -> None:
    """Scaled features, and the predictions that the models make from them."""
    import polars as pl

    from stockpicker_dagster.storage.lake import DEFINITION
    from stockpicker_dagster.training.models import load_model
    from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA, score_days

    chosen = form()
    features = chosen.feature_set().names
    keys = lake().bundles(f"{STRATEGY}/trained_model")
    models = {key: load_model(lake().bundle(f"{STRATEGY}/trained_model", key), STRATEGY, features) for key in keys}
    for days, whole in years():
        rows = rows_of(days)
        drawn = rng.standard_normal((len(features), rows.height), dtype="float32")
        scaled = rows.with_columns(pl.Series(name, drawn[place]) for place, name in enumerate(features))
        lake().write_days(
            f"{STRATEGY}/scaled_features", scaled, days, whole, {DEFINITION: chosen.definition("scaled_features")}
        )
        scored = score_days(scaled, days, features, chosen.first_served, models, chosen.period_key)
        scored = scored if scored.height else pl.DataFrame(schema=PREDICTIONS_SCHEMA)
        lake().write_days(
            f"{STRATEGY}/predictions", scored, days, whole, {DEFINITION: chosen.definition("predictions")}
        )


def write_backtest(rng: Any) -> None:
    """A book of 100 names a day with 1,000 random ones beside it."""
    import numpy as np
    import polars as pl

    from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA
    from stockpicker_dagster.storage.lake import DEFINITION

    chosen, equity = form(), 1e6
    book = [
        {"symbol": symbol, "shares": 100.0 if place < 50 else -100.0, "weight": 0.01 if place < 50 else -0.01}
        for place, symbol in enumerate(SYMBOLS[:100])
    ]
    for every, whole in years():
        days = [day for day in every if day >= chosen.first_served]
        if not days:
            continue
        net = rng.normal(0.0003, 0.008, len(days))
        levels = equity * np.cumprod(1 + net)
        equity = float(levels[-1])
        frame = pl.DataFrame(
            {
                "date": days,
                "net_return": net,
                "gross_return": net + 0.0003,
                "commission": 0.0001,
                "spread": 0.0002,
                "impact": 0.0,
                "borrow": 0.0,
                "interest": 0.0,
                "equity": levels,
                "turnover": 0.4,
                "gross_exposure": 2.0,
                "net_exposure": 0.0,
                "longs": 50,
                "shorts": 50,
                "positions": [book] * len(days),
                "random_net_returns": rng.normal(-0.0003, 0.008, (len(days), 1000)),
                "fresh_gross_returns": rng.normal(0.0, 0.008, (len(days), 1000)),
                "random_turnover": 0.4,
                "offset_net_returns": net[:, None],
                "offset_gross_returns": net[:, None] + 0.0003,
                "unknown_delistings": 0,
                "cautious_net_return": net,
            }
        ).select(pl.col(name).cast(kind) for name, kind in BACKTEST_SCHEMA.items())
        note = {DEFINITION: chosen.definition("backtest_metrics")}
        lake().write_days(f"{STRATEGY}/backtest_metrics", frame, days, whole, note)


@dataclass(frozen=True)
class Market:
    """A venue that is always open, at the prices of the plan."""

    simulated: bool = True

    def window(self, session: date, latest_stored: date, now: datetime) -> Any:
        from stockpicker_dagster.market.sources import Window

        return Window(now - timedelta(hours=1), now + timedelta(hours=23))

    def trade_session(self, session: date) -> date:
        return session + timedelta(days=1)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal]:
        return {symbol: Decimal(50) for symbol in symbols}


def database() -> Any:
    from stockpicker_dagster.storage.database import migrate, open_database

    engine = open_database(f"sqlite:///{home() / 'stockpicker.sqlite'}")
    migrate(engine)
    return engine


def write_ledger() -> None:
    """People with their sessions, twenty past rebalances, and a hundred proposals that came to nothing."""
    from sqlalchemy import event

    from stockpicker_dagster.console.door import sessions
    from stockpicker_dagster.trading.accounts import ensure_paper_account
    from stockpicker_dagster.trading.approval import decide
    from stockpicker_dagster.trading.brokers.paper import PaperBroker
    from stockpicker_dagster.trading.execution import execute as send
    from stockpicker_dagster.trading.people import directory
    from stockpicker_dagster.trading.people.sign_in import Proof
    from stockpicker_dagster.trading.risk import Limits

    engine, now = database(), datetime.now(UTC)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    engine.dispose()
    ensure_paper_account(engine, "paper", now, cash=10_000_000, limits=Limits(order_notional=Decimal(1_000_000)))
    past = form().calendar.sessions(date(2024, 6, 3), LAST)[-120:]
    for place, session in enumerate(past[:-1]):
        moment = now - timedelta(days=len(past) - place)
        proposal = plan(engine, session, targets(place), moment)
        if place % 6 == 0:
            decide(engine, proposal, "os:benchmark", "approve", "", moment)
            send(engine, proposal, PaperBroker(engine, "paper"), Market(), moment)
    secrets = {}
    for place in range(PEOPLE):
        name = f"person{place}"
        role = "administrator" if place == 0 else "researcher"
        directory.add_person(engine, name, role, "correct horse battery", "person0", now)  # type: ignore[arg-type]
        secrets[name] = sessions.begin(engine, Proof(name, "password", now), now)
    (home() / "sessions.json").write_text(json.dumps(secrets))


def targets(turn: int, names: int = 100) -> dict[str, float]:
    """Half long, half short; each turn moves on by a few names."""
    chosen = [SYMBOLS[(turn * 7 + place) % STOCKS] for place in range(names)]
    return {symbol: (1 if place < names // 2 else -1) / names for place, symbol in enumerate(chosen)}


def plan(engine: Any, session: date, wanted: Mapping[str, float], now: datetime) -> str:
    from stockpicker_dagster.trading import desk

    made = desk.propose(
        engine,
        account_id="paper",
        strategy=STRATEGY,
        author="os:benchmark",
        session=session,
        targets=wanted,
        reference_prices=dict.fromkeys({*wanted, *desk.held_symbols(engine, "paper")}, 50.0),
        volumes=dict.fromkeys(wanted, 1e9),
        corporate_actions=(),
        venue=Market(),
        venue_name="always open",
        latest_stored=session,
        model_id="0123456789abcdef",
        code_version="1",
        data_version="1",
        limits={},
        now=now,
    )
    assert made.id is not None, made.reason
    return made.id


def propose() -> str:
    """The proposal that waits, newer than all others and for other names than are held."""
    from sqlalchemy import func, select

    from stockpicker_dagster.trading import ledger

    engine = database()
    with engine.connect() as connection:
        before = connection.execute(select(func.count()).select_from(ledger.proposals)).scalar_one()
    return plan(engine, LAST + timedelta(days=before), targets(500 + before, ORDERS), datetime.now(UTC))


def write_runs() -> None:
    """Two hundred ended runs."""
    import dagster as dg
    from dagster import DagsterRun, DagsterRunStatus

    from stockpicker_dagster.home import prepare_home

    prepare_home(announce=False)
    with dg.DagsterInstance.get() as instance:
        for place, day in enumerate(form().calendar.sessions(date(2024, 3, 1), LAST)[-200:]):
            keys = {dg.AssetKey([STRATEGY, asset]) for asset in ("predictions", "backtest_metrics", "scaled_features")}
            instance.run_storage.add_run(
                DagsterRun(
                    job_name="__ASSET_JOB",
                    run_id=str(uuid.UUID(int=place)),
                    status=DagsterRunStatus.SUCCESS,
                    asset_selection=frozenset(keys),
                    tags={"dagster/partition": str(day)},
                )
            )
        said = {"verdict": "cannot be told from luck", "verdict_reason": "a benchmark", "caveat": "none"}
        instance.report_runless_asset_event(
            dg.AssetMaterialization(dg.AssetKey([STRATEGY, "backtest_metrics"]), metadata=said)
        )


# The server


def serve(port: int) -> None:
    """The console alone, as `stockpicker up` serves it."""
    import uvicorn
    from dagster import DagsterInstance

    from stockpicker_dagster.console.application import answer_promptly, application
    from stockpicker_dagster.console.door.checks import Addresses
    from stockpicker_dagster.console.services import services
    from stockpicker_dagster.console.views.desk import Desk
    from stockpicker_dagster.console.views.stock import prepare_histories
    from stockpicker_dagster.home import Home
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading.signatures import load_signing_key

    with DagsterInstance.get() as instance:
        desk = Desk(Deployment(), home() / "strategies", instance, copies=home() / "console" / "histories")
        prepare_histories(desk)
        parts = services(desk, Home(home()), lambda: load_signing_key(home() / "keys"))
        app = application(parts, addresses=Addresses.on_loopback(port), port=port)
        answer_promptly()
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


@contextmanager
def serving() -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    import socket

    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*this(), "--serve", str(port)])
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{base}/sign-in")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait()


def this() -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--home", str(home())]


def client(base: str, person: str) -> Any:
    import httpx

    secret = json.loads((home() / "sessions.json").read_text())[person]
    return httpx.Client(base_url=base, cookies={f"stockpicker-{base.rpartition(':')[2]}": secret}, timeout=60.0)


# What is measured


def pages(waiting: str, place: int) -> dict[str, str]:
    """Every page; of stocks and sessions, others at every place."""
    served = SERVED or SERVED.extend(form().calendar.sessions(form().first_served, LAST)) or SERVED
    symbol, day = SYMBOLS[(place * 37 + 11) % STOCKS], served[(place * 211 + 5) % len(served)]
    ranked, of_stock = f"/ranking/{STRATEGY}", f"/ranking/{STRATEGY}/{symbol}"
    return {
        "today": "/",
        "ranking": ranked,
        "ranking of a day": f"{ranked}?session={day}",
        "ranking searched": f"{ranked}?search=S{place:02d}",
        "ranking by change": f"{ranked}?sort=change&order=down",
        "ranking as CSV": f"{ranked}.csv",
        "stock": of_stock,
        "stock on a day": f"{of_stock}?session={day}",
        "stock, all history": f"/ranking/{STRATEGY}/{SYMBOLS[(place * 53 + 7) % STOCKS]}?history=all",
        "back-test": f"/backtest/{STRATEGY}",
        "plots of the back-test": f"/backtest/{STRATEGY}/plots.json",
        "proposals": "/proposals",
        "proposal": f"/proposals/{waiting}",
        "executions": "/executions",
        "models": f"/models/{STRATEGY}",
        "strategies": "/strategies",
        "strategy": f"/strategies/{STRATEGY}",
        "new strategy": "/strategies/new",
        "runs": "/runs",
        "people": "/people",
        "halt": "/halt",
        "API: today": "/api/today",
        "API: ranking": f"/api/strategies/{STRATEGY}/ranking",
        "API: proposals": "/api/proposals",
    }


def measure_pages(base: str, waiting: str, quietly: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds from question to answer: as each page is met first, and the median of what follows."""
    first: dict[str, float] = {}
    again: dict[str, list[float]] = {}
    with client(base, "person0") as browser:
        executions = browser.get("/api/executions").json()["executions"]
        for _ in range(600):
            if "being made" not in browser.get(f"/backtest/{STRATEGY}").text:
                break
            time.sleep(1.0)
        for place in range(6):
            asked = pages(waiting, place) | {"execution": f"/executions/{executions[place]['proposal']}"}
            for name, path in asked.items():
                began = time.perf_counter()
                answer = browser.get(path)
                took = time.perf_counter() - began
                assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
                if place == 0:
                    first[name] = took
                else:
                    again.setdefault(name, []).append(took)
    medians = {name: statistics.median(each) for name, each in again.items()}
    if not quietly:
        for name, took in first.items():
            print(f"{name:<24} {took * 1000:7.1f} ms first, {medians[name] * 1000:7.1f} ms then")
    return first, medians


@dataclass(frozen=True)
class Load:
    """What 50 people met."""

    answers: int
    errors: int
    median: float
    p95: float
    longest: float
    execution_s: float


def fifty_people(base: str, waiting: str, seconds: float) -> Load:
    """Everybody reads for `seconds`, from all pages at random; the proposal is approved and executed meanwhile."""
    took: list[float] = []
    errors: list[str] = []
    until = time.monotonic() + seconds
    executing = subprocess.Popen([*this(), "--execute"], stdout=subprocess.PIPE, text=True)

    def read(person: int) -> None:
        chance = random.Random(person)
        with client(base, f"person{person}") as browser:
            time.sleep(chance.random() * READING_S)
            while time.monotonic() < until:
                asked = pages(waiting, chance.randrange(100)) | {"execution": f"/executions/{waiting}"}
                name = chance.choice(sorted(asked))
                began = time.perf_counter()
                answer = browser.get(asked[name])
                took.append(time.perf_counter() - began)
                # Until it is claimed, there is no execution to be seen.
                if answer.status_code != 200 and not (name == "execution" and answer.status_code == 404):
                    errors.append(f"{asked[name]}: {answer.status_code}")
                time.sleep(chance.expovariate(1 / READING_S))

    readers = [threading.Thread(target=read, args=(person,)) for person in range(PEOPLE)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    said = json.loads(executing.communicate(timeout=300)[0].splitlines()[-1])
    assert said["status"] == "finished", said
    if errors:
        print(f"errors: {sorted(set(errors))[:20]}", file=sys.stderr)
    ordered = sorted(took)
    return Load(
        answers=len(took),
        errors=len(errors),
        median=statistics.median(took),
        p95=ordered[int(len(ordered) * 0.95)],
        longest=ordered[-1],
        execution_s=said["seconds"],
    )


def execute() -> None:
    """Approves and executes what waits, as the run of the `executions` asset does."""
    from stockpicker_dagster.trading.approval import decide
    from stockpicker_dagster.trading.brokers.paper import PaperBroker
    from stockpicker_dagster.trading.execution import execute as send
    from stockpicker_dagster.trading.people.sign_in import Proof
    from stockpicker_dagster.trading.proposal import open_proposals

    engine, now = database(), datetime.now(UTC)
    time.sleep(3.0)
    [waiting] = open_proposals(engine)
    proof = Proof("person0", "password", now)
    decide(engine, waiting.id, "person0", "approve", "", now, proof=proof)
    began = time.monotonic()
    done = send(engine, waiting.id, PaperBroker(engine, "paper"), Market(), datetime.now(UTC))
    print(json.dumps({"status": done.status, "seconds": time.monotonic() - began, "orders": len(done.orders)}))


if __name__ == "__main__":
    main()
