"""Strategies side by side: the figures are the command's, and nothing is compared that cannot be."""

import json
import re
import shutil
import time

import numpy as np
import pytest

from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.evaluation import comparison
from stockpicker_dagster.storage.lake import DEFINITION
from stockpicker_dagster_tests.console.site import STRATEGY, Site
from stockpicker_dagster_tests.evaluation.stored_strategies import book
from stockpicker_dagster_tests.training import small_strategy

OTHER = "other"
ADDRESS = f"/compare?strategy={STRATEGY}&strategy={OTHER}"


@pytest.fixture
def two(site: Site) -> Site:
    """A second strategy of the same form, whose book went another way."""
    folder = site.parts.desk.strategies_folder
    shutil.copytree(folder / STRATEGY, folder / OTHER)
    tested, calendar = small_strategy.TESTED, small_strategy.CALENDAR
    note = {DEFINITION: site.parts.desk.form(OTHER).definition("backtest_metrics")}
    days = book(tested, -0.001, 5)
    year = calendar.sessions(tested[0].replace(month=1, day=3), tested[0].replace(month=12, day=31))
    site.lake.write_days(f"{OTHER}/backtest_metrics", days, tested, lambda _: year, note)
    return site


def _made(site: Site, path: str) -> str:
    deadline = time.monotonic() + 60
    while "are being compared" in (text := site.browser("vera").get(path).text):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return text


def test_the_page_shows_what_the_command_prints(two: Site) -> None:
    page = _made(two, ADDRESS)
    desk = two.parts.desk
    told = comparison.compare({name: desk.form(name) for name in (STRATEGY, OTHER)}, desk.deployment)
    for row in comparison.rows(told):
        line = re.search(rf'<th scope="row">{re.escape(row.label)}</th>(.*?)</tr>', page, re.DOTALL)
        assert line, row.label
        assert re.findall(r"<td[^>]*>(.*?)</td>", line.group(1), re.DOTALL) == list(row.shown)
    assert comparison.overfitting_sentence(told) in page
    shown = two.script("vera").get(f"/api/comparison?strategies={STRATEGY},{OTHER}").json()
    assert shown["figures"] == [{"name": row.label, "shown": list(row.shown)} for row in comparison.rows(told)]


def test_wealth_is_what_each_book_earned(two: Site) -> None:
    page = _made(two, ADDRESS)
    plots = json.loads(page.partition('id="plots">')[2].partition("</script>")[0])
    lines = {line["name"]: line["y"] for line in plots[0]["data"]}
    for name, mean, seed in ((STRATEGY, 0.001, 1), (OTHER, -0.001, 5)):
        earned = np.cumprod(1.0 + book(small_strategy.TESTED, mean, seed)["net_return"].to_numpy())
        np.testing.assert_allclose(lines[name], earned, atol=1e-6)


def test_the_back_test_offers_the_others(two: Site) -> None:
    page = two.browser("vera").get("/compare").text
    assert f'value="{OTHER}"' in page
    assert 'id="plots"' not in page


@pytest.mark.parametrize("chosen", [[], [STRATEGY], [STRATEGY, STRATEGY], [STRATEGY] + [f"s{n}" for n in range(9)]])
def test_too_few_and_too_many_are_refused(chosen: list[str], site: Site) -> None:
    with pytest.raises(InvalidInput, match="choose from 2 to 8"):
        site.parts.comparisons.get(chosen)


@pytest.mark.parametrize("other", ["nobody", "<script>alert(1)</script>", "../x"])
def test_an_unknown_strategy_is_not_found(other: str, site: Site) -> None:
    with pytest.raises(NotFound):
        site.parts.comparisons.get([STRATEGY, other])
    answer = site.browser("vera").get("/compare", params={"strategy": [STRATEGY, other]})
    assert answer.status_code == 404
    assert "<script>alert" not in answer.text
