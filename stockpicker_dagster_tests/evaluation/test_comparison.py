"""Strategies side by side: on the same sessions, every one a trial, and never comparing what cannot be compared."""

from collections.abc import Iterator
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.evaluation.comparison import Comparison, as_html, as_markdown, as_text, compare, rows
from stockpicker_dagster.evaluation.stored_days import stored_backtest, stored_span
from stockpicker_dagster.evaluation.trials import logged_trials
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import MissingDays
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster_tests.evaluation.stored_strategies import SERVED, book, served_form, store

FORMS = {
    "good": served_form(),
    "poor": served_form(label={"horizon_days": 4}),
    "idle": served_form(label={"horizon_days": 3}),
    "picked": served_form(universe={"symbols": ["S0", "S1", "S2"]}),
}
DAYS = {
    "good": book(SERVED, 0.004, 1),
    "poor": book(SERVED[:-5], 0.0, 2),
    "idle": book(SERVED, 0.0, 3).with_columns(net_return=0.0, gross_return=0.0),
    "picked": book(SERVED, 0.001, 4),
}


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    place = Deployment()
    for name, form in FORMS.items():
        store(place, name, form, DAYS[name])
    yield place
    place.database.dispose()


def of(deployment: Deployment, *names: str, first: date | None = None, last: date | None = None) -> Comparison:
    return compare({name: FORMS[name] for name in names}, deployment, first, last)


def cell(comparison: Comparison, label: str) -> tuple[str, ...]:
    return next(row.shown for row in rows(comparison) if row.label == label)


def test_figures_are_of_the_sessions_that_all_of_them_have(deployment: Deployment) -> None:
    found = of(deployment, "good", "poor")
    assert (found.first, found.last, found.sessions) == (SERVED[0], SERVED[-6], len(SERVED) - 5)
    nets = [DAYS[name]["net_return"].to_numpy()[:-5] if name == "good" else DAYS[name]["net_return"].to_numpy()
            for name in ("good", "poor")]  # fmt: skip
    assert cell(found, "net Sharpe ratio") == tuple(f"{net.mean() / net.std(ddof=1) * 252**0.5:.2f}" for net in nets)
    assert found.correlations[0, 1] == pytest.approx(np.corrcoef(nets)[0, 1])
    assert np.diag(found.correlations).tolist() == pytest.approx([1.0, 1.0])


def test_all_of_them_are_trials_of_each_other(deployment: Deployment) -> None:
    found = of(deployment, "good", "poor", "idle")
    assert len(logged_trials(deployment.database)) == 3
    # The one that never traded has no verdict and counts all the same.
    assert cell(found, "trials counted") == ("3", "3", "-")
    assert cell(found, "verdict")[2] == "none: the book never traded, so that there is nothing to judge"
    assert cell(found, "net Sharpe ratio")[2] == "-"
    assert np.isnan(found.correlations[2]).all()
    of(deployment, "good", "poor", "idle")
    assert len(logged_trials(deployment.database)) == 3


def test_a_span_that_was_asked_for_is_another_trial(deployment: Deployment) -> None:
    found = of(deployment, "good", "poor", first=SERVED[20] - timedelta(days=0), last=SERVED[80])
    assert (found.first, found.last, found.sessions) == (SERVED[20], SERVED[80], 61)
    of(deployment, "good", "poor")
    assert len(logged_trials(deployment.database)) == 4


def test_different_universes_are_named_as_a_caveat(deployment: Deployment) -> None:
    found = of(deployment, "good", "picked")
    assert found.caveats[0] == "simulated market"
    assert "good: simulated on simulated, picked: symbols on simulated" in found.caveats[1]
    assert f"CAVEAT: {found.caveats[1]}" in as_text(found)
    assert of(deployment, "good", "poor").caveats == ("simulated market",)


def test_what_cannot_be_compared_is_refused(deployment: Deployment) -> None:
    with pytest.raises(InvalidInput, match="at least two different ones"):
        of(deployment, "good")
    with pytest.raises(InvalidInput, match=r"no session in common from 2023-01-03 to the end; stored are good 2022-06"):
        of(deployment, "good", "poor", first=date(2023, 1, 3))
    with pytest.raises(InvalidInput, match="'new' has no back-test yet; `stockpicker run new` makes one"):
        compare({"good": FORMS["good"], "new": served_form()}, deployment)
    with pytest.raises(InvalidInput, match="made before the strategy was changed"):
        compare({"good": FORMS["good"], "poor": served_form(label={"horizon_days": 2})}, deployment)
    assert logged_trials(deployment.database) == []


def test_strategies_on_other_trading_days_are_refused(deployment: Deployment) -> None:
    prices = {"source": "files", "name": "london", "path": "p.csv", "basis": "as_traded", "calendar": "XLON"}
    london = served_form().model_dump(exclude_unset=True) | {"prices": prices, "universe": {"symbols": ["A", "B"]}}
    abroad = StrategyForm.model_validate(london)
    with pytest.raises(
        InvalidInput, match=r"different trading days cannot be compared \(good on XNYS, abroad on XLON\)"
    ):
        compare({"good": FORMS["good"], "abroad": abroad}, deployment)


def test_a_gap_is_named_and_days_before_the_first_model_are_no_part(deployment: Deployment) -> None:
    form = served_form(label={"horizon_days": 6})
    store(deployment, "gap", form, DAYS["good"].filter(DAYS["good"]["date"] != SERVED[7]))
    assert stored_span("gap", form, deployment.lake) == (SERVED[0], SERVED[-1])
    with pytest.raises(MissingDays, match=str(SERVED[7])):
        stored_backtest("gap", form, deployment.lake, SERVED[0], SERVED[-1])
    early = stored_backtest("good", FORMS["good"], deployment.lake, date(2022, 1, 3), SERVED[3])
    assert early["date"].to_list() == SERVED[:4]
    with pytest.raises(InvalidInput, match="has no session from"):
        stored_backtest("good", FORMS["good"], deployment.lake, date(2022, 1, 3), date(2022, 2, 1))


class _Text(HTMLParser):
    """What a reader sees, and whatever the page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.fetched: list[str | None] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.seen.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value for name, value in attrs if name in ("src", "href")]


def test_text_markdown_and_page_show_the_same_figures(deployment: Deployment) -> None:
    found = of(deployment, "good", "poor")
    text, markdown, page = as_text(found), as_markdown(found), _Text(as_html(found))
    for row in rows(found):
        for shown in row.shown:
            assert shown in text
            assert shown in markdown
            assert shown in page.seen
    assert page.fetched == []
    verdict = found.strategies[0].judgement.verdict
    assert verdict is not None
    assert any(verdict.reason in seen for seen in page.seen)
    assert "cannot be told from so few sessions" in text
