"""Random books against the engine itself, run on score panels that a slow permutation made."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import random_books
from stockpicker_dagster.research.backtest.book_state import BookState
from stockpicker_dagster.research.backtest.engine import BookRuined, Rules, run
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.performance import max_drawdown, sharpe, sharpes
from stockpicker_dagster.research.backtest.random_books import (
    Percentile,
    RandomBooks,
    fresh_picks,
    percentile,
    permuted_books,
    permuted_figures,
    standing,
)
from stockpicker_dagster_tests.research.backtest.random_markets import NAN, World, quiet_market, random_world, slow_draw

RULES = [
    Rules(2, 2, rebalance="daily", commission_bps=3, spread_bps=12, borrow_bps_per_year=400),
    Rules(0.3, 0.3, "score", rebalance="weekly", commission_bps=3, spread_bps=12, borrow_bps_per_year=400),
    Rules(3, 0, "score", rebalance="monthly", cash_interest_bps_per_year=300, assumed_delisting_return=-0.3),
]
SEEDS = st.integers(0, 10**6)


def distinct(world: World) -> World:
    """The same world without ties among its scores, whose order the two sides would break differently."""
    rng = np.random.default_rng(0)
    return replace(world, scores=world.scores.with_columns(score=rng.normal(size=world.scores.height)))


def permuted_panel(scores: np.ndarray, market: MarketData, seed: int, book: int) -> np.ndarray:
    """The panel of one book by the definition: stock i's score goes to stock sigma(i), if that is scored itself."""
    order: list[int] = []
    sigma: list[int] = []
    permuted = np.full(scores.shape, NAN)
    for t in range(len(scores)):
        present = set(np.flatnonzero(~np.isnan(scores[t])).tolist())
        for column in sorted(present - set(order), key=lambda column: market.symbols[column]):
            order.append(column)
            place = slow_draw(seed, book, len(sigma), len(sigma) + 1)
            sigma.append(len(sigma))
            sigma[place], sigma[-1] = sigma[-1], sigma[place]
        for source, destination in zip(order, sigma, strict=True):
            if source in present and order[destination] in present:
                permuted[t, order[destination]] = scores[t, source]
    return permuted


def simulated(world: World, rules: Rules, books: int, seed: int = 1, workers: int | None = None) -> RandomBooks:
    market = world.market()
    panel, decisions = world.panel(market), world.decisions(rules)
    return permuted_books(panel, market, rules, decisions, books=books, seed=seed, workers=workers)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(RULES))
def test_a_book_is_the_engine_on_the_permuted_panel_up_to_the_order_of_sums(seed: int, rules: Rules) -> None:
    world = distinct(random_world(seed))
    market = world.market()
    scores, decisions = world.panel(market), world.decisions(rules)
    books = permuted_books(scores, market, rules, decisions, books=5, seed=seed)
    for book in range(5):
        if books.ruined[book] >= 0:
            continue
        alone = run(permuted_panel(scores, market, seed, book), market, rules, decisions)
        for name in ("net_return", "gross_return", "turnover"):
            np.testing.assert_allclose(getattr(books, name)[:, book], getattr(alone, name), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rules", RULES)
def test_the_identity_reproduces_the_strategy_itself(rules: Rules) -> None:
    """With three stocks, every sixth book or so leaves all of them in their place."""
    world = distinct(random_world(3, names=3))
    market = world.market()
    scores, decisions = world.panel(market), world.decisions(rules)
    own = run(scores, market, rules, decisions)
    books = permuted_books(scores, market, rules, decisions, books=60, seed=1)
    identical = [
        book for book in range(60) if np.array_equal(permuted_panel(scores, market, 1, book), scores, equal_nan=True)
    ]
    assert len(identical) > 2
    for book in identical:
        assert books.net_return[:, book].tobytes() == own.net_return.tobytes()
        assert books.gross_return[:, book].tobytes() == own.gross_return.tobytes()


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(RULES), st.integers(1, 59))
def test_a_day_of_a_random_book_ignores_everything_after_it(seed: int, rules: Rules, count: int) -> None:
    """New symbols list after the cut in most of these worlds."""
    world = random_world(seed)
    whole, cut = simulated(world, rules, 7), simulated(world.until(count), rules, 7)
    for name in ("net_return", "gross_return", "turnover"):
        assert np.ascontiguousarray(getattr(whole, name)[:count]).tobytes() == getattr(cut, name).tobytes(), name


def test_fresh_picks_ignore_the_future_too() -> None:
    world, rules = random_world(8), RULES[0]
    results = []
    for known in (world, world.until(33)):
        market = known.market()
        panel, decisions = known.panel(market), known.decisions(rules)
        results.append(fresh_picks(panel, market, rules, decisions, books=9, seed=4).net_return)
    assert np.ascontiguousarray(results[0][:33]).tobytes() == results[1].tobytes()


def test_a_book_does_not_depend_on_how_many_there_are_or_who_computes_them() -> None:
    world, rules = random_world(5), RULES[1]
    many = simulated(world, rules, 40, workers=3)
    few = simulated(world, rules, 18, workers=1)
    assert np.ascontiguousarray(many.net_return[:, :18]).tobytes() == few.net_return.tobytes()
    assert (simulated(world, rules, 40, seed=2).net_return != many.net_return).any()


def test_permuted_books_turn_over_exactly_as_the_strategy_does() -> None:
    """A full panel on prices that stand still: turnover then is a matter of the scores alone."""
    rng = np.random.default_rng(2)
    market = quiet_market(np.full((80, 20), 10.0))
    scores = np.cumsum(rng.normal(size=(80, 20)), axis=0)
    decisions, rules = np.ones(80, dtype=bool), Rules(4, 5, "score", commission_bps=2, spread_bps=4)
    own = run(scores, market, rules, decisions)
    books = permuted_books(scores, market, rules, decisions, books=30, seed=1)
    np.testing.assert_allclose(books.turnover, np.repeat(own.turnover[:, None], 30, axis=1), atol=1e-12)
    np.testing.assert_allclose(books.net_return, np.repeat(own.net_return[:, None], 30, axis=1), atol=1e-12)


def test_fresh_picks_hold_the_strategys_legs_before_costs_and_turn_over_more() -> None:
    rng = np.random.default_rng(2)
    prices = 10 * np.exp(np.cumsum(rng.normal(0, 0.01, size=(80, 20)), axis=0))
    market, decisions = quiet_market(prices), np.ones(80, dtype=bool)
    scores = np.repeat(rng.normal(size=(1, 20)), 80, axis=0)
    fresh = fresh_picks(scores, market, RULES[0], decisions, books=30, seed=1)
    permuted = permuted_books(scores, market, RULES[0], decisions, books=30, seed=1)
    np.testing.assert_array_equal(fresh.net_return, fresh.gross_return)
    assert fresh.turnover[2:].mean() > 10 * permuted.turnover[2:].mean()
    assert "before costs" in fresh.label
    assert "after the same costs" in permuted.label


def test_fresh_picks_choose_every_scored_member_equally_often_and_nobody_else() -> None:
    """Long one of five names that each earn another return between the open and the close; the sixth has no score."""
    opens = np.full((201, 6), 10.0)
    gains = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    scores = np.repeat([[5.0, 4.0, 3.0, 2.0, 1.0, NAN]], 201, axis=0)
    fresh = fresh_picks(
        scores, quiet_market(opens, opens * (1 + gains)), Rules(1, 0), np.ones(201, dtype=bool), books=20, seed=3
    )
    # Each night the old pick falls back to the open; the day's gain belongs to the new one.
    wealth = 1 + fresh.net_return[1:]
    overnight = 1.0
    picks = []
    for day in wealth:
        earned = day / overnight
        picks.append(np.abs(earned[:, None] - (1 + gains)).argmin(axis=1))
        np.testing.assert_allclose(earned, 1 + gains[picks[-1]], rtol=1e-9)
        overnight = 1 / (1 + gains[picks[-1]])
    counts = np.bincount(np.concatenate(picks), minlength=6)
    assert counts[5] == 0
    assert stats.chisquare(counts[:5]).pvalue > 1e-4


@pytest.mark.parametrize("simulate", [permuted_books, fresh_picks])
@pytest.mark.parametrize(
    "rules", [RULES[0], Rules(3, 3, "rank", rebalance=2, hold_band=1.5, sleeves=2, commission_bps=3, spread_bps=12)]
)
def test_random_books_go_on_from_a_stored_state_as_if_run_from_the_start(simulate: Any, rules: Rules) -> None:
    """Byte for byte, with stocks that are first scored after the day of the state."""
    world, count = random_world(8, names=14), 9
    market, known = world.market(), world.until(count)
    whole = simulate(world.panel(market), market, rules, world.decisions(rules), books=40, seed=4)
    first_market = known.market()
    first = simulate(known.panel(first_market), first_market, rules, known.decisions(rules), books=40, seed=4)
    state = BookState.from_bytes(first.state.to_bytes())
    after = pl.col("date") > known.sessions[-1]
    later_market = market_data(
        world.prices.filter(after), world.delistings, world.sessions[count:], known=state.symbols.tolist()
    )
    scores = later_market.panel(world.scores.filter(after), "score")
    decisions = world.decisions(rules)[count:]
    later = simulate(scores, later_market, rules, decisions, books=40, seed=4, resume_from=state)
    assert len(state.symbols) < len(market.symbols)
    for name in ("net_return", "gross_return", "turnover"):
        expected = np.ascontiguousarray(getattr(whole, name)[count:])
        assert getattr(later, name).tobytes() == expected.tobytes(), name
    assert later.state.to_bytes() == whole.state.to_bytes()


def test_books_of_a_sector_neutral_strategy_exchange_identities_within_sectors() -> None:
    """On prices that stand still all of them hold as much of every sector as the strategy does."""
    rng = np.random.default_rng(2)
    sectors = np.array(["Banks", "Energy", "Retail"])[np.arange(24) % 3]
    market = replace(quiet_market(np.full((30, 24), 10.0)), sector=np.broadcast_to(sectors, (30, 24)))
    scores = np.cumsum(rng.normal(size=(30, 24)), axis=0)
    decisions, rules = np.ones(30, dtype=bool), Rules(6, 6, neutral="sector", commission_bps=2)
    own = run(scores, market, rules, decisions)
    books = permuted_books(scores, market, rules, decisions, books=20, seed=1)
    for sector in set(sectors):
        np.testing.assert_allclose(own.weights[1:, sectors == sector].sum(axis=1), 0.0, atol=1e-3)
    np.testing.assert_allclose(books.turnover, np.repeat(own.turnover[:, None], 20, axis=1), atol=1e-12)


def test_figures_by_streaming_are_those_of_the_books_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_books, "_BOOKS_IN_MEMORY", 16)
    world, rules = random_world(5), RULES[0]
    market = world.market()
    panel, decisions = world.panel(market), world.decisions(rules)
    streamed = permuted_figures(panel, market, rules, decisions, books=40, seed=1)
    kept = simulated(world, rules, 40).net_return
    np.testing.assert_array_equal(streamed.sharpe, sharpes(kept))
    np.testing.assert_allclose(streamed.total_return, (1 + kept).prod(axis=0) - 1)
    np.testing.assert_allclose(streamed.max_drawdown, [max_drawdown(book).depth for book in kept.T])
    own = run(panel, market, rules, decisions).net_return
    placed = standing(own, streamed)
    assert placed.sharpe == percentile(sharpe(own), sharpes(kept))
    deeper = sum(max_drawdown(book).depth > max_drawdown(own).depth for book in kept.T)
    assert placed.max_drawdown.percentile == pytest.approx(100 * deeper / 40)


def test_a_ruined_book_loses_everything_once_and_stays_so() -> None:
    prices = np.full((8, 4), 10.0)
    prices[4:, 0] = 100.0
    market = quiet_market(prices, start=date(2019, 3, 4))
    scores = np.repeat([[1.0, 2.0, 3.0, 4.0]], 8, axis=0)
    decisions = np.ones(8, dtype=bool)
    with pytest.raises(BookRuined, match=str(market.sessions[4])):
        run(scores, market, Rules(1, 1), decisions)
    books = permuted_books(scores, market, Rules(1, 1), decisions, books=60, seed=1)
    ruined = books.ruined >= 0
    assert 0 < ruined.sum() < 60
    assert set(books.ruined[ruined]) == {4}
    assert (books.net_return[4, ruined] == -1.0).all()
    assert not books.net_return[5:, ruined].any()


@pytest.mark.parametrize(
    ("figure", "books", "expected"),
    [
        (1.0, [0.0, 0.5, 0.9], Percentile(100.0, 0.25, 3)),
        (-1.0, [0.0, 0.5, 0.9], Percentile(0.0, 1.0, 3)),
        (0.5, [0.0, 0.5, 0.9, NAN], Percentile(25.0, 0.8, 4)),
    ],
)
def test_the_percentile_is_exact_and_ties_count_against_the_strategy(
    figure: float, books: list[float], expected: Percentile
) -> None:
    assert percentile(figure, books) == expected


def test_the_p_value_of_luck_is_uniform() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(4000, 20))
    p_values = np.array([percentile(row[0], row[1:]).p_value for row in draws])
    counts = np.bincount(np.rint(p_values * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_requests_without_an_answer_are_refused() -> None:
    for figure, books in [(NAN, [1.0]), (1.0, [])]:
        with pytest.raises(InvalidInput, match="has no percentile"):
            percentile(figure, books)
    with pytest.raises(InvalidInput, match="0 random books"):
        simulated(random_world(1), RULES[0], 0)
    with pytest.raises(InvalidInput, match="seed -1"):
        simulated(random_world(1), RULES[0], 3, seed=-1)
