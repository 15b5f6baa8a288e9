"""One stock: its shares in the score add up to the model's score, and its adjusted price earns the total return."""

import json

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.views.ranking import ranking
from stockpicker_dagster.console.views.stock import SESSIONS_SHOWN, stock
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.training.models import load_model
from stockpicker_dagster_tests.console.site import STRATEGY, Site
from stockpicker_dagster_tests.training import small_strategy


def test_shares_of_features_differ_between_stocks_as_their_scores_do(read_site: Site) -> None:
    """A score is the model's less the day's mean, so that differences of shares are differences of scores."""
    desk = read_site.parts.desk
    symbols = ranking(desk, STRATEGY).rows["symbol"].to_list()
    first, second = (stock(desk, STRATEGY, symbol) for symbol in (symbols[0], symbols[-1]))
    shares = [sum(each.adds for each in found.contributions) for found in (first, second)]
    assert shares[0] - shares[1] == pytest.approx(first.score - second.score, abs=1e-12)


def test_exposures_are_the_stored_scaled_features(read_site: Site) -> None:
    desk, last = read_site.parts.desk, small_strategy.TESTED[-1]
    symbol = ranking(desk, STRATEGY).rows["symbol"][4]
    stored = read_site.lake.read(f"{STRATEGY}/scaled_features", [last]).filter(pl.col("symbol") == symbol)
    found = {each.feature: each.exposure for each in stock(desk, STRATEGY, symbol).contributions}
    assert found == {name: stored[name][0] for name in small_strategy.FEATURES}


def test_the_adjusted_price_earns_what_a_holder_earned(read_site: Site) -> None:
    desk = read_site.parts.desk
    symbol = ranking(desk, STRATEGY).rows["symbol"][0]
    history = stock(desk, STRATEGY, symbol, everything=True).history
    prices = small_strategy.PRICES.filter(pl.col("symbol") == symbol).sort("date")
    earned = (prices["close"] * prices["adjustment"] / prices["close"].shift(1)).to_numpy()[1:]
    adjusted = history["adjusted"].to_numpy()
    assert history["date"].to_list() == prices["date"].to_list()
    np.testing.assert_allclose(adjusted[1:] / adjusted[:-1], earned, rtol=1e-12)
    assert adjusted[-1] == prices["close"][-1]


def test_a_year_is_shown_until_more_is_asked_for(read_site: Site) -> None:
    desk = read_site.parts.desk
    symbol = ranking(desk, STRATEGY).rows["symbol"][0]
    assert stock(desk, STRATEGY, symbol).history.height <= SESSIONS_SHOWN


def test_the_page_tells_how_the_rank_and_the_score_came_about(read_site: Site) -> None:
    last, before = small_strategy.TESTED[-1], small_strategy.TESTED[-2]
    stored = read_site.lake.read(f"{STRATEGY}/predictions", small_strategy.TESTED).sort("date")
    symbol = ranking(read_site.parts.desk, STRATEGY).rows["symbol"][3]
    own = stored.filter(pl.col("symbol") == symbol)
    ranks = dict(own.select("date", "rank").iter_rows())
    gained = ranks[before] - ranks[last]
    page = read_site.browser("vera").get(f"/ranking/{STRATEGY}/{symbol}").text
    word = "up" if gained > 0 else "down"
    assert (f"{word} {abs(gained)} since the session before" if gained else "as the session before") in page
    plots = {each["name"]: each for each in json.loads(page.partition('id="plots">')[2].partition("</script>")[0])}
    [line] = plots["score"]["data"]
    drawn = {day: score for day, score in zip(line["x"], line["y"], strict=True) if score is not None}
    assert drawn == {str(day): score for day, score in own.select("date", "score").iter_rows()}


def test_nothing_after_the_session_is_shown(read_site: Site) -> None:
    desk, day = read_site.parts.desk, small_strategy.TESTED[3]
    symbol = ranking(desk, STRATEGY, day).rows["symbol"][0]
    assert stock(desk, STRATEGY, symbol, day, everything=True).history["date"].max() == day


def test_the_model_is_the_one_that_ranked_it(read_site: Site) -> None:
    desk = read_site.parts.desk
    symbol = ranking(desk, STRATEGY).rows["symbol"][0]
    folder = read_site.lake.bundle(f"{STRATEGY}/trained_model", UNPARTITIONED)
    model = load_model(folder, STRATEGY, small_strategy.FEATURES)
    assert stock(desk, STRATEGY, symbol).model_id == model.model_id


@pytest.mark.parametrize("symbol", ["NOPE", "<script>", "%00", "a" * 500])
def test_an_unknown_stock_is_not_found(symbol: str, read_site: Site) -> None:
    with pytest.raises(NotFound):
        stock(read_site.parts.desk, STRATEGY, symbol)
    answer = read_site.browser("vera").get(f"/ranking/{STRATEGY}/{symbol.replace('/', '%2f')}")
    assert answer.status_code in (403, 404)
    assert "<script>alert" not in answer.text
