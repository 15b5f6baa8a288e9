"""Today says how everything stands, trader processes included, and offers no run that cannot work."""

from datetime import date, timedelta

from stockpicker_dagster.strategy_form.web import as_yaml
from stockpicker_dagster.trading import locks
from stockpicker_dagster.trading.trader_reports import SILENT_AFTER, tell
from stockpicker_dagster_tests.console.site import ATTRIBUTES, STRATEGY, Site
from stockpicker_dagster_tests.trading.conftest import TradingDesk

TARGETS, PRICES = {"AAA": 0.4, "BBB": -0.4}, {"AAA": 20.0, "BBB": 50.0}


def test_a_trader_that_is_silent_or_troubled_is_told_and_one_that_is_well_is_no_warning(site: Site) -> None:
    now = site.deployment.now()
    trading = TradingDesk(site.database, session=date(2023, 6, 30), now=now)
    proposal = trading.proposed(TARGETS, PRICES)
    trading.approve(proposal, "ada")
    trading.execute(proposal)
    lock = locks.take(site.database, "paper")
    for problem, moment, warned in (
        ("", now, False),
        ("the broker does not answer", now, True),
        ("", now + SILENT_AFTER + timedelta(seconds=1), True),
    ):
        tell(site.database, lock, now, now, "waiting for <b>news</b>", problem, now)
        site.deployment.moment = moment
        page = site.browser("vera").get("/").text
        assert ("The trader of paper" in page) is warned
        assert "Traders" in page
        execution = site.browser("vera").get(f"/executions/{proposal}").text
        for shown in (page, execution):
            assert "books agreed" in shown
            assert "<b>news" not in shown
        assert problem in execution
        assert problem in page


def test_without_its_files_no_run_is_offered_and_the_page_says_what_is_missing(site: Site) -> None:
    assert f"Run {STRATEGY}" in site.browser("rob").get("/").text
    prices = {"source": "files", "name": "mine", "path": "absent.csv", "basis": "as_traded", "start": "2020-01-02"}
    universe = {"symbols": ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"]}
    form = site.parts.desk.file_of(STRATEGY)
    form.write_text(as_yaml(ATTRIBUTES | {"prices": prices, "universe": universe}))
    page = site.browser("rob").get("/").text
    assert "absent.csv" in page
    assert f"Run {STRATEGY}" not in page


def test_while_nothing_waits_the_page_says_after_which_close_it_proposes_next(site: Site) -> None:
    """The last ranking is of Friday, 2023-06-30; Tuesday, 2023-07-04, is a holiday."""
    form = site.parts.desk.file_of(STRATEGY)
    for rule, following in (("daily", "2023-07-03"), ("weekly", "2023-07-07"), ("monthly", "2023-07-31")):
        form.write_text(as_yaml(ATTRIBUTES | {"backtest": {"long": 3, "short": 3, "rebalance": rule}}))
        assert f"after the close of {following}" in site.browser("vera").get("/").text
    now = site.deployment.now()
    TradingDesk(site.database, session=date(2023, 6, 30), now=now).propose(TARGETS, PRICES, strategy=STRATEGY)
    assert "Proposes next" not in site.browser("vera").get("/").text
