"""What the tests of trading share: fresh ledgers, a market whose opening prices a test sets, and a desk to trade at."""

import itertools
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, event

from stockpicker_dagster.market.sources import Window
from stockpicker_dagster.storage.database import migrate, open_database
from stockpicker_dagster.trading import desk
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.brokers.paper import PaperBroker, no_fault
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.execution import ExecutionReport, execute, no_checkpoint
from stockpicker_dagster.trading.risk import Limits

MONDAY = date(2024, 3, 4)
EVENING = datetime(2024, 3, 5, 1, 15, tzinfo=UTC)


@dataclass
class SetMarket:
    """A venue that opens at the prices it was given; sessions follow each other every calendar day."""

    prices: dict[str, Decimal] = field(default_factory=dict)
    opened: bool = True
    hours: int = 12
    simulated: bool = True
    exchange: str = "XNYS"

    def window(self, session: date, latest_stored: date, now: datetime) -> Window | None:
        """Open from the evening of the session for `hours`, and only for the latest session."""
        opens = datetime.combine(session, datetime.min.time(), UTC) + timedelta(hours=22)
        return Window(opens, opens + timedelta(hours=self.hours)) if session == latest_stored else None

    def trade_session(self, session: date) -> date:
        """The next day."""
        return session + timedelta(days=1)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """The prices set, once the session has opened."""
        return {s: self.prices[s] for s in symbols if s in self.prices} if self.opened else None


@dataclass
class TradingDesk:
    """One paper account of 100,000 and one market, with the steps of a rebalance as short calls."""

    engine: Engine
    market: SetMarket = field(default_factory=SetMarket)
    account: str = "paper"
    session: date = MONDAY
    now: datetime = EVENING

    def __post_init__(self) -> None:
        roomy = Limits(position=Decimal(1), net=Decimal(1), order_notional=Decimal(100_000))
        ensure_paper_account(self.engine, self.account, self.now, cash=100_000, limits=roomy)

    def propose(
        self,
        targets: Mapping[str, float],
        prices: Mapping[str, float],
        actions: Collection[CorporateAction] = (),
        strategy: str = "momentum",
        limits: Mapping[str, object] | None = None,
        session: date | None = None,
        now: datetime | None = None,
        code_version: str = "code-1",
        tickers: Mapping[str, str | None] | None = None,
        volumes: Mapping[str, float] | None = None,
    ) -> desk.ProposalOutcome:
        """Proposes on the closing prices, at which the market will also open; much is traded unless said otherwise."""
        self.market.prices = {symbol: Decimal(str(price)) for symbol, price in prices.items()}
        session = session or self.session
        return desk.propose(
            self.engine,
            account_id=self.account,
            strategy=strategy,
            author="os:author",
            session=session,
            targets=targets,
            reference_prices=prices,
            volumes=dict.fromkeys(targets, 1e9) if volumes is None else volumes,
            corporate_actions=actions,
            venue=self.market,
            venue_name="set",
            latest_stored=session,
            model_id="model-1",
            code_version=code_version,
            data_version="data-1",
            limits=limits or {},
            now=now or self.now,
            tickers=tickers,
        )

    def proposed(self, targets: Mapping[str, float], prices: Mapping[str, float]) -> str:
        """The id of a proposal that must come about."""
        outcome = self.propose(targets, prices)
        assert outcome.id is not None, outcome.reason
        return outcome.id

    def approve(self, proposal: str, person: str = "os:approver") -> None:
        """One approval, now."""
        decide(self.engine, proposal, person, "approve", "", self.now)

    def broker(self, fault: Callable[[str], None] = no_fault) -> PaperBroker:
        """The account's broker."""
        return PaperBroker(self.engine, self.account, fault)

    def execute(
        self,
        proposal: str,
        checkpoint: Callable[[str], None] = no_checkpoint,
        fault: Callable[[str], None] = no_fault,
        now: datetime | None = None,
    ) -> ExecutionReport:
        """Executes at the account's broker, now."""
        return execute(self.engine, proposal, self.broker(fault), self.market, now or self.now, checkpoint)

    def rebalance(self, targets: Mapping[str, float], prices: Mapping[str, float]) -> ExecutionReport:
        """Proposes, approves and executes, then moves on to the next session."""
        proposal = self.proposed(targets, prices)
        self.approve(proposal)
        report = self.execute(proposal)
        self.next_session()
        return report

    def next_session(self) -> None:
        """One day later."""
        self.session += timedelta(days=1)
        self.now += timedelta(days=1)


@pytest.fixture(scope="session")
def new_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Engine]]:
    """Makes a fresh, migrated SQLite ledger at each call; migrated once, then copied."""
    folder = tmp_path_factory.mktemp("ledgers")
    template = folder / "template.sqlite"
    engine = open_database(f"sqlite:///{template}")
    migrate(engine)
    engine.dispose()
    numbers = itertools.count()
    made: list[Engine] = []

    def fresh() -> Engine:
        path = folder / f"ledger{next(numbers)}.sqlite"
        shutil.copyfile(template, path)
        made.append(open_database(f"sqlite:///{path}"))
        # These ledgers need not survive a power cut; waiting for the disk would be most of the tests' time.
        event.listen(made[-1], "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return made[-1]

    yield fresh
    for engine in made:
        engine.dispose()


@pytest.fixture
def ledger_engine(new_ledger: Callable[[], Engine]) -> Engine:
    """A fresh ledger."""
    return new_ledger()


@pytest.fixture
def trading_desk(ledger_engine: Engine) -> TradingDesk:
    """A desk on a fresh ledger."""
    return TradingDesk(ledger_engine)


@pytest.fixture
def new_desk(new_ledger: Callable[[], Engine]) -> Callable[[], TradingDesk]:
    """Makes a desk on a fresh ledger at each call, for sweeps and properties."""
    return lambda: TradingDesk(new_ledger())


@pytest.fixture(params=["sqlite", "postgresql"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A migrated, empty ledger, once on SQLite and once on a real PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("new_ledger")()
        return
    from sqlalchemy import text

    engine = open_database(request.getfixturevalue("postgres_url"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    migrate(engine)
    yield engine
    engine.dispose()
