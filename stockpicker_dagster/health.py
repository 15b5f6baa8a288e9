"""The health report of `stockpicker doctor`: what is wrong, and what to do about each thing that is.

A finding never raises: what cannot be examined is itself a finding.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version

from sqlalchemy import Engine, select

from stockpicker_dagster.compute.spark_session import lacking
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import PROJECT_ROOT, Home
from stockpicker_dagster.storage.aws.settings import on_aws
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake, describe_days
from stockpicker_dagster.storage.opening import open_lake
from stockpicker_dagster.storage.symbol_sets import incomplete_days
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import halt_in_force
from stockpicker_dagster.trading.trader_reports import trader_of


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    healthy: bool
    sentence: str


def findings(place: Home) -> Iterator[Finding]:
    """Everything that is looked at, in the order in which it has to be put right."""
    mode = place.root.stat().st_mode & 0o777
    yield Finding(
        "state folder", mode == 0o700, f"{place.root}, mode {mode:o}" + ("" if mode == 0o700 else "; chmod 700 it")
    )
    yield _versions()
    if not (yield from _account()):
        return
    yield from _strategies(open_lake())
    yield from _database()


def _versions() -> Finding:
    """Whether what is installed is what was tested together."""
    pinned = PROJECT_ROOT / "constraints.txt"
    if not pinned.is_file():
        return Finding("versions", True, "this installation has no constraints.txt to compare with")
    wrong = []
    for name in ("dagster", "dagster-webserver", "polars", "boto3", "SQLAlchemy"):
        [wanted] = re.findall(rf"(?im)^{name}==(\S+)", pinned.read_text())
        if (found := version(name)) != wanted:
            wrong.append(f"{name} {found} instead of {wanted}")
    return Finding("versions", not wrong, f"{', '.join(wrong)}; make install" if wrong else "those of constraints.txt")


def _account() -> Generator[Finding, None, bool]:
    """What is asked of AWS, where that is the deployment; False where nothing further can be looked at."""
    try:
        if not on_aws():
            return True
    except StockPickerError as error:
        yield Finding("deployment", False, str(error))
        return False
    from stockpicker_dagster.aws_health import account_lines

    reachable = True
    for what, healthy, sentence in account_lines():
        yield Finding(what, healthy, sentence)
        reachable = reachable and (healthy or what not in ("AWS credentials", "bucket", "rights on the lake"))
    return reachable


def _strategies(lake: Lake) -> Iterator[Finding]:
    from stockpicker_dagster.runs import strategies

    try:
        forms = strategies()
    except StockPickerError as error:
        yield Finding("strategies", False, f"{error}; correct the lines named")
        return
    for name, form in forms.items():
        if missing := form.missing_files():
            yield Finding(
                name, False, f"not there: {', '.join(map(str, missing))}; put it there, or change the strategy"
            )
            continue
        if form.features.compute == "spark" and (reason := lacking()) is not None:
            yield Finding(name, False, reason)
        if form.features.module is not None:
            yield _own_features(name, form)
        if on_aws():
            yield _where_it_trains(name, form)
        yield _stored_days(name, form, lake, forms)


def _where_it_trains(name: str, form: StrategyForm) -> Finding:
    """Where models are made and days scored, which on AWS may be either place."""
    what = f"{name}: models"
    try:
        place, scored = form.training.runs_on, form.training.scored_by
    except StockPickerError as error:
        return Finding(what, False, str(error))
    on = "trained by SageMaker" if place == "sagemaker" else "trained on this machine"
    said = ", as the strategy says" if form.training.platform != "auto" else ""
    return Finding(what, True, f"{on}{said}; days are scored by {scored}")


def _own_features(name: str, form: StrategyForm) -> Finding:
    """Whether features of one's own keep the rules of time, tried on invented prices."""
    from stockpicker_dagster.components.feature_trials import tried_on_invented_prices

    declared, code = form.features.declared(), form.features.code
    assert code is not None
    try:
        tried_on_invented_prices(declared, code, form.calendar)
    except StockPickerError as error:
        return Finding(name, False, f"feature module {declared.name!r}: {error}")
    return Finding(name, True, f"feature module {declared.name!r}: none of its features looks ahead")


def _stored_days(name: str, form: StrategyForm, lake: Lake, forms: dict[str, StrategyForm]) -> Finding:
    from stockpicker_dagster.defs.market.assets import symbols_in_use
    from stockpicker_dagster.runs import days_before_a_decision, days_of_another_definition

    prices = f"{form.prices.key}/prices"
    stored = lake.days(prices)
    if not stored:
        return Finding(name, True, f"nothing is stored yet; stockpicker run {name}")
    try:
        users = {other: each for other, each in forms.items() if each.prices.key == form.prices.key}
        incomplete = sorted(incomplete_days(lake, prices, symbols_in_use(users, form.prices.build(), lake)))
    except StockPickerError as error:
        return Finding(name, False, str(error))
    if incomplete:
        return Finding(
            name,
            False,
            f"{describe_days(incomplete)} of {prices} lack symbols that came into use later; "
            f"stockpicker run {name} --from {incomplete[0]} --to {incomplete[-1]}",
        )
    if decided := days_before_a_decision(name, form, lake):
        return Finding(
            name,
            False,
            f"{describe_days(decided)} were stored before a decision about their prices; "
            f"stockpicker run {name} makes them again",
        )
    if changed := days_of_another_definition(name, form, lake):
        return Finding(
            name,
            False,
            f"{describe_days(changed)} were stored before the strategy was changed; "
            f"stockpicker run {name} makes them again",
        )
    return Finding(name, True, f"prices stored for {describe_days(stored)}")


def _database() -> Iterator[Finding]:
    try:
        database = Deployment().database
        with database.connect() as connection:
            named = select(ledger.accounts.c.id, ledger.accounts.c.broker, ledger.accounts.c.mode)
            accounts = connection.execute(named.order_by(ledger.accounts.c.id)).all()
    except Exception as error:  # any driver's error means the same to the reader
        yield Finding("database", False, f"cannot be opened ({error}); check STOCKPICKER_DATABASE_URL and the disk")
        return
    yield Finding("database", True, f"{len(accounts)} accounts")
    for account, broker, mode in accounts:
        reason = halt_in_force(database, account)
        yield Finding(f"account {account}", reason is None, reason or "not halted")
        # The embedded broker is the ledger, and nothing answers for orders placed by hand.
        if broker not in ("paper", "ticket"):
            yield _broker(database, account, broker, mode)
        yield from _trader(database, account, mode)


def _broker(database: Engine, account: str, broker: str, mode: str) -> Finding:
    """Whether the broker of an account answers, agrees about the time, and would take orders; none is sent."""
    from stockpicker_dagster.trading.brokers.connections import connect
    from stockpicker_dagster.trading.brokers.contract import look

    what = f"broker of {account}"
    try:
        connected = connect(database, account)
    except StockPickerError as error:
        if mode == "live":
            return Finding(what, True, f"{broker} was not asked: only where its trader runs is it reached ({error})")
        return Finding(what, False, str(error))
    checks = list(look(connected, Deployment().now))
    broken = [f"it is not so that {check.promise} ({check.detail})" for check in checks if not check.kept]
    if broken:
        return Finding(what, False, f"{broker}: {'; '.join(broken)}")
    return Finding(what, True, f"{broker} answers: {'; '.join(check.detail for check in checks)}")


def _trader(database: Engine, account: str, mode: str) -> Iterator[Finding]:
    """How the trader of a live account is, and of any other that has had one."""
    now, said = Deployment().now(), trader_of(database, account)
    if said is not None:
        yield Finding(f"trader of {account}", said.running(now) and not said.problem, said.sentence(now))
        return
    if mode == "live":
        yield Finding(f"trader of {account}", False, f"never seen; start it with `stockpicker trader {account}`")
