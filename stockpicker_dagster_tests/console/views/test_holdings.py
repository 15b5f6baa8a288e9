"""Why something is held: the pages lead from a position back to who wanted it, and say so to scripts as well."""

from datetime import date
from urllib.parse import quote

import pytest

from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.views.holdings import holders, holdings, why
from stockpicker_dagster.console.views.ranking import ranking
from stockpicker_dagster_tests.console.site import STRATEGY, Site
from stockpicker_dagster_tests.trading.conftest import TradingDesk
from stockpicker_dagster_tests.training import small_strategy

DAY: date = small_strategy.TESTED[-1]


@pytest.fixture
def bought(site: Site) -> tuple[Site, str, str]:
    """A site whose account holds the best stock; the stock and the proposal."""
    best = ranking(site.parts.desk, STRATEGY).rows["symbol"][0]
    trading = TradingDesk(site.database, session=DAY, now=site.deployment.now())
    proposal = trading.propose({best: 0.4, "B/C": -0.4}, {best: 20.0, "B/C": 50.0}, strategy=STRATEGY).id
    assert proposal is not None
    trading.approve(proposal, "ada")
    trading.execute(proposal)
    return site, best, proposal


def test_a_position_leads_to_its_prediction_and_its_model(bought: tuple[Site, str, str]) -> None:
    site, best, proposal = bought
    found = why(site.parts.desk, "paper", best)
    [each] = found.held.proposals
    behind = found.origins[proposal]
    assert each.id == proposal
    assert (behind.rank, behind.ranked) == (1, ranking(site.parts.desk, STRATEGY).rows.height)
    assert behind.model is not None
    assert not behind.model.same, "the invented proposal names another model, and that is said"


def test_the_pages_lead_to_each_other(bought: tuple[Site, str, str]) -> None:
    site, best, proposal = bought
    browser = site.browser("vera")
    here = f"/held/paper/{best}"
    assert f'href="{here}"' in browser.get("/held").text
    assert f'href="{here}"' in browser.get(f"/ranking/{STRATEGY}/{best}").text
    assert f'href="{here}?history=all"' in browser.get(f"/executions/{proposal}").text
    page = browser.get(here).text
    for address in (f"/proposals/{proposal}", f"/executions/{proposal}", f"/models/{STRATEGY}"):
        assert f'href="{address}"' in page
    assert f'href="/ranking/{STRATEGY}/{best}?session={DAY}"' in page
    assert "ada: approve" in page


def test_a_symbol_with_a_stroke_is_found(bought: tuple[Site, str, str]) -> None:
    site, _, _ = bought
    for written in ("B/C", quote("B/C", safe="")):
        assert "sold short" in site.browser("vera").get(f"/held/paper/{written}").text


def test_scripts_are_told_the_same(bought: tuple[Site, str, str]) -> None:
    site, best, proposal = bought
    script = site.script("vera")
    held = script.get("/api/held").json()["accounts"]
    assert {each["symbol"] for each in held["paper"]} == {best, "B/C"}
    told = script.get(f"/api/held/paper/{best}").json()
    assert told["held"]["proposals"][0]["id"] == proposal
    assert told["origins"][proposal]["rank"] == 1


def test_what_was_never_traded_and_what_is_no_account_is_not_found(bought: tuple[Site, str, str]) -> None:
    site, best, _ = bought
    for account, symbol in (("paper", "NEVER"), ("nobody", best)):
        with pytest.raises(NotFound):
            why(site.parts.desk, account, symbol)
        assert site.browser("vera").get(f"/held/{account}/{symbol}").status_code == 404
    assert holders(site.parts.desk, "NEVER") == []
    assert list(holdings(site.parts.desk)) == ["paper"]
