"""The ranking on a page: the stored ranks, how they moved, and what a search finds."""

import polars as pl
import pytest

from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.views.ranking import ranking
from stockpicker_dagster_tests.console.site import STRATEGY, Site
from stockpicker_dagster_tests.training import small_strategy


def test_every_stock_stands_once_with_its_stored_rank_and_score(read_site: Site) -> None:
    found = ranking(read_site.parts.desk, STRATEGY)
    assert found.session == small_strategy.TESTED[-1]
    stored = read_site.lake.read(f"{STRATEGY}/predictions", [found.session]).sort("rank")
    assert found.rows.select("rank", "symbol", "score").equals(stored.select("rank", "symbol", "score"))
    assert found.rows["rank"].to_list() == list(range(1, stored.height + 1))


def test_changes_are_places_gained_since_the_session_before(read_site: Site) -> None:
    last, before = small_strategy.TESTED[-1], small_strategy.TESTED[-2]
    found = ranking(read_site.parts.desk, STRATEGY, last)
    ranks = {
        day: dict(read_site.lake.read(f"{STRATEGY}/predictions", [day]).select("symbol", "rank").iter_rows())
        for day in (before, last)
    }
    for row in found.rows.iter_rows(named=True):
        was = ranks[before].get(row["symbol"])
        assert row["change"] == (None if was is None else was - row["rank"])
    assert found.before == before
    assert found.after is None


def test_the_first_session_has_only_newcomers(read_site: Site) -> None:
    found = ranking(read_site.parts.desk, STRATEGY, small_strategy.TESTED[0])
    assert found.rows["change"].null_count() == found.rows.height
    assert found.before is None


@pytest.mark.parametrize(("sort", "descending"), [("score", True), ("symbol", False), ("change", True), ("rank", True)])
def test_it_is_sorted_as_asked(sort: str, descending: bool, read_site: Site) -> None:
    rows = ranking(read_site.parts.desk, STRATEGY).part("", sort, descending)[sort].drop_nulls().to_list()
    assert rows == sorted(rows, reverse=descending)


def test_a_search_finds_parts_of_symbols_and_takes_nothing_as_a_pattern(read_site: Site) -> None:
    found = ranking(read_site.parts.desk, STRATEGY)
    symbol = found.rows["symbol"][3]
    assert symbol in found.part(symbol.lower())["symbol"].to_list()
    assert found.part(".*").is_empty()
    assert found.part("(").is_empty()


@pytest.mark.parametrize("query", ["session=1999-01-04", "session=yesterday", "sort=price", "from=-1", "from=1e9"])
def test_what_is_not_there_is_said(query: str, read_site: Site) -> None:
    assert read_site.browser("vera").get(f"/ranking/{STRATEGY}?{query}").status_code == 404


def test_an_unknown_strategy_names_those_there_are(read_site: Site) -> None:
    with pytest.raises(NotFound, match="there are: invented"):
        ranking(read_site.parts.desk, "nothing")


def test_a_new_day_is_shown_at_once(site: Site) -> None:
    desk = site.parts.desk
    before = ranking(desk, STRATEGY).rows
    table, last = f"{STRATEGY}/predictions", small_strategy.TESTED[-1]
    flipped = site.lake.read(table, [last]).with_columns(rank=before.height + 1 - pl.col("rank"))
    site.lake.write_days(table, flipped, [last], lambda _: small_strategy.TESTED)
    assert ranking(desk, STRATEGY).rows["symbol"].to_list() == before["symbol"].to_list()[::-1]


def test_the_csv_holds_every_row_and_no_formula(read_site: Site) -> None:
    answer = read_site.browser("vera").get(f"/ranking/{STRATEGY}.csv")
    assert answer.headers["content-disposition"].startswith("attachment")
    lines = answer.text.strip().splitlines()
    assert lines[0] == "rank,symbol,ticker,score,change,sector,model_id"
    assert len(lines) == 1 + ranking(read_site.parts.desk, STRATEGY).rows.height
    from stockpicker_dagster.console.pages.reading import _csv

    assert _csv([{"symbol": "=1+1", "score": -0.5}]) == "symbol,score\n'=1+1,-0.5\n"
