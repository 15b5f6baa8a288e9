"""A rebalance of 500 orders on paper: how long planning takes, what an order costs, how fast a halt is.

Planning is everything from target weights to a registered proposal: booking, reconciling, sizing, limits, document. An
order's own cost is what execution adds to the broker's time: the intent committed to disk before, the answer entered
after. It has to stay below the spacing of the quickest broker's rate limit, so that the limit alone decides how long a
basket takes. A halt comes from another connection in mid-basket, at a broker that takes 10 ms an order; counted is the
time from its commit to the last order that the broker still got, and until nothing is working any more.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stockpicker_dagster.storage.database import migrate, open_database
from stockpicker_dagster.trading import accounts, desk
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.brokers import OrderRequest, Submission
from stockpicker_dagster.trading.brokers.alpaca import AlpacaBroker
from stockpicker_dagster.trading.brokers.paper import PaperBroker
from stockpicker_dagster.trading.execution import ExecutionReport, execute
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster.trading.risk import Limits
from stockpicker_dagster_tests.trading.conftest import EVENING, MONDAY, SetMarket

NAMES = 500
ACCOUNT = "paper"
HALT_AFTER = 100
LIMITS = Limits(position=Decimal(1), gross=Decimal(3), net=Decimal(1), order_notional=Decimal(10**7))


class TimedBroker(PaperBroker):
    """The paper broker, which notes how long it took and when it got orders; `delay_s` is added to each."""

    delay_s = 0.0
    spent_s = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.got: list[float] = []
        self.on_order: Callable[[int], None] = lambda _number: None

    def submit(self, request: OrderRequest) -> Submission:
        """See `PaperBroker.submit`."""
        began = time.perf_counter()
        time.sleep(self.delay_s)
        answer = super().submit(request)
        self.got.append(time.perf_counter())
        self.spent_s += self.got[-1] - began
        self.on_order(len(self.got))
        return answer


class Rebalances:
    """One paper account on a fresh ledger on disk, and its rebalances of 500 names one evening after another."""

    def __init__(self, folder: Path) -> None:
        self.engine = open_database(f"sqlite:///{folder / 'ledger.sqlite'}")
        migrate(self.engine)
        ensure_paper_account(self.engine, ACCOUNT, EVENING, cash=50_000_000, limits=LIMITS)
        self.rng = np.random.default_rng(8)
        self.prices = {f"S{number:03d}": round(float(self.rng.uniform(10, 400)), 2) for number in range(NAMES)}
        self.market = SetMarket({name: Decimal(str(price)) for name, price in self.prices.items()})
        self.evenings = 0

    def plan(self) -> tuple[str, float]:
        """Plans the next evening's 500 orders; returns the proposal and the seconds from weights to registration."""
        session, now = MONDAY + timedelta(days=self.evenings), EVENING + timedelta(days=self.evenings)
        self.evenings += 1
        # Half of the names long, half short; every position grows on one evening and shrinks on the next.
        size = self.rng.uniform(0.001, 0.0015, NAMES) + 0.0015 * (self.evenings % 2)
        weights = size * np.where(np.arange(NAMES) % 2, 1, -1)
        began = time.perf_counter()
        outcome = desk.propose(
            self.engine,
            account_id=ACCOUNT,
            strategy="benchmark",
            author="os:benchmark",
            session=session,
            targets=dict(zip(self.prices, weights.tolist(), strict=True)),
            reference_prices=self.prices,
            volumes=dict.fromkeys(self.prices, 1e9),
            corporate_actions=(),
            venue=self.market,
            venue_name="set",
            latest_stored=session,
            model_id="m",
            code_version="c",
            data_version="d",
            limits={},
            now=now,
        )
        took = time.perf_counter() - began
        assert outcome.id is not None, outcome.reason
        decide(self.engine, outcome.id, "os:approver", "approve", "", now)
        self.now = now
        return outcome.id, took

    def run(self, proposal: str, broker: PaperBroker) -> ExecutionReport:
        """One pass over the proposal."""
        return execute(self.engine, proposal, broker, self.market, self.now)


def planning(rebalances: Rebalances) -> dict[str, Any]:
    """The first plan of an account without holdings, then one on 500 positions; the slower one counts."""
    first, on_cash = rebalances.plan()
    rebalances.run(first, PaperBroker(rebalances.engine, ACCOUNT))
    second, on_holdings = rebalances.plan()
    orders = len(load(rebalances.engine, second).document.orders)
    rebalances.run(second, PaperBroker(rebalances.engine, ACCOUNT))
    return _result("planning_500", max(on_cash, on_holdings), 1.0, orders=orders)


def submission(rebalances: Rebalances) -> dict[str, Any]:
    """What one order costs beside the broker, and the spacing that the quickest broker's limit asks for."""
    proposal, _ = rebalances.plan()
    broker = TimedBroker(rebalances.engine, ACCOUNT)
    began = time.perf_counter()
    report = rebalances.run(proposal, broker)
    took = time.perf_counter() - began
    assert report.status == "finished", report.message
    sent = len(broker.got)
    within = broker.got[-1] - began
    limit = AlpacaBroker.capabilities.requests_per_minute
    assert limit is not None
    return _result(
        "submission_500",
        (within - broker.spent_s) / sent,
        60 / limit,
        orders=sent,
        whole_execution_s=round(took, 2),
        orders_per_minute=round(60 * sent / within),
        broker_s=round(broker.spent_s, 2),
    )


def halting(rebalances: Rebalances) -> dict[str, Any]:
    """A halt from another thread and connection after a hundred orders."""
    rebalances.market.opened = False  # so that what was sent is working when the halt comes
    proposal, _ = rebalances.plan()
    broker = TimedBroker(rebalances.engine, ACCOUNT)
    broker.delay_s = 0.01
    halted: list[float] = []

    def halt() -> None:
        accounts.halt(rebalances.engine, ACCOUNT, "os:risk", "stop", rebalances.now)
        halted.append(time.perf_counter())

    threads: list[threading.Thread] = []

    def at(number: int) -> None:
        if number == HALT_AFTER:
            threads.append(threading.Thread(target=halt))
            threads[0].start()

    broker.on_order = at
    report = rebalances.run(proposal, broker)
    ended = time.perf_counter()
    threads[0].join()
    assert report.status == "halted", report.message
    assert broker.open_orders() == []
    last = max(broker.got) - halted[0]
    return _result(
        "halt_500",
        max(last, 0.0),
        1.0,
        sent_before=HALT_AFTER,
        sent=len(broker.got),
        all_cancelled_s=round(ended - halted[0], 3),
    )


def _result(name: str, seconds: float, target: float, **more: Any) -> dict[str, Any]:
    plain = {"name": name, "ours_s": round(seconds, 4), "peer": None, "peer_s": None, "ratio": None, "target": target}
    return {**plain, **more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument(
        "--folder", type=Path, help="where the ledger lies, on the disk that counts; default: a new one"
    )
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rebalances = Rebalances(Path(folder))
        for part in (planning, submission, halting):
            results.append(part(rebalances))
            if not options.json:
                print(results[-1], flush=True)
    print(json.dumps({"benchmark": "trading", "results": results}))


if __name__ == "__main__":
    main()
