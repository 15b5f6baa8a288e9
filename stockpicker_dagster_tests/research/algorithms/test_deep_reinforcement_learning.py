import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import Progress, Supervision, TrainingStopped, validate_hyperparameters
from stockpicker_dagster.research.algorithms import deep_reinforcement_learning as module
from stockpicker_dagster.research.algorithms.deep_reinforcement_learning import (
    ARTIFACT,
    WEIGHTS,
    DeepReinforcementLearning,
    walk,
)
from stockpicker_dagster.research.algorithms.long_short_environment import CrossSections, Terms, book_of
from stockpicker_dagster_tests.research.algorithms.planted import rank_ic
from stockpicker_dagster_tests.research.algorithms.traded import FEATURES, traded

QUICK: dict[str, object] = {"steps": 300, "widths": [4], "walks": 2, "cost_bps": 0.0}
TRAIN, VALIDATION = traded(1, 60, 12), traded(2, 30, 12)


@pytest.fixture(autouse=True)
def _short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STAGE", 128)


def fit(
    settings: dict[str, object] | None = None, seed: int = 0, supervision: Supervision | None = None
) -> DeepReinforcementLearning:
    given = QUICK | (settings or {})
    return DeepReinforcementLearning.fit(
        TRAIN, VALIDATION, FEATURES, "label", given, seed, supervision or Supervision()
    )


def files(model: DeepReinforcementLearning, folder: Path) -> list[bytes]:
    model.save(folder)
    return [(folder / name).read_bytes() for name in (ARTIFACT, WEIGHTS)]


def values(frame: pl.DataFrame) -> np.ndarray:
    return frame.select(FEATURES).to_numpy()


def sharpe(returns: np.ndarray) -> float:
    return float(returns.mean() / returns.std())


@pytest.mark.parametrize(("method", "steps"), [("a2c", 3000), ("ppo", 3000), ("sac", 1500)])
def test_a_leaked_return_is_found(method: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STAGE", 2048)
    train, validation, later = (traded(seed, 150, 20, leak=True) for seed in (1, 2, 3))
    settings: dict[str, object] = {"method": method, "steps": steps, "cost_bps": 0.0}
    model = DeepReinforcementLearning.fit(train, validation, FEATURES, "label", settings)
    market = CrossSections.of(later, FEATURES, "label", "test", 1)
    gross, _, _ = walk(model, market, Terms())
    oracle = [
        (book_of(market.returns[market.rows(day)]) * market.returns[market.rows(day)]).sum() for day in range(150)
    ]
    assert sharpe(gross) > 0.5 * sharpe(np.array(oracle))


def test_a_planted_signal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller version of the gate in benchmarks/reinforcement_learning.py."""
    monkeypatch.setattr(module, "_STAGE", 4096)
    train, validation, later = (traded(seed, 300, 30, ic=0.2) for seed in (1, 2, 3))
    settings: dict[str, object] = {"steps": 8192, "cost_bps": 0.0}
    model = DeepReinforcementLearning.fit(train, validation, FEATURES, "label", settings)
    found = rank_ic(later, model.predict(values(later), FEATURES))
    assert found > 0.5 * rank_ic(later, later["truth"].to_numpy())


@pytest.mark.parametrize("method", ["a2c", "ppo", "sac"])
def test_equal_input_gives_equal_bytes_and_another_seed_does_not(method: str, tmp_path: Path) -> None:
    state, numbers = torch.get_rng_state(), np.random.get_state()
    one = files(fit({"method": method}), tmp_path / "1")
    torch.rand(3)
    assert one == files(fit({"method": method}), tmp_path / "2")
    assert one[1] != files(fit({"method": method}, seed=1), tmp_path / "3")[1]
    torch.set_rng_state(state)
    assert np.array_equal(numbers[1], np.random.get_state()[1])


@pytest.mark.parametrize("method", ["a2c", "ppo", "sac"])
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(method: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings: dict[str, object] = {"method": method, "patience": 2}
    whole = files(fit(settings), tmp_path / "whole")
    stopping = Supervision(seen.append, lambda: len(seen) == 2, tmp_path / "state")
    with pytest.raises(TrainingStopped, match="after 256 of 300 steps"):
        fit(settings, supervision=stopping)
    resumed = fit(settings, supervision=Supervision(seen.append, checkpoints=tmp_path / "state"))
    assert files(resumed, tmp_path / "resumed") == whole
    again = [1, 2, 3] if method == "sac" else [3]
    assert [each.step for each in seen] == [1, 2, *again]


def test_the_best_look_is_kept_with_patience() -> None:
    seen: list[Progress] = []
    model = fit({"patience": 1, "steps": 1280}, supervision=Supervision(seen.append))
    best = max(seen, key=lambda each: each.validation_rank_ic)
    assert model.metrics["validation_rank_ic"] == pytest.approx(best.validation_rank_ic, abs=1e-12)
    assert seen[-1].step - best.step <= 1


def test_a_loaded_model_scores_the_same_bytes_without_any_learning_library(tmp_path: Path) -> None:
    model = fit()
    before = files(model, tmp_path)
    loaded = DeepReinforcementLearning.load(tmp_path)
    assert files(loaded, tmp_path / "again") == before
    whole = model.predict(values(TRAIN), FEATURES)
    assert loaded.predict(values(TRAIN)[5:9], FEATURES).tobytes() == whole[5:9].tobytes()
    code = f"""
import sys
for name in ("torch", "gymnasium", "stable_baselines3", "sklearn"):
    sys.modules[name] = None
import numpy as np
from stockpicker_dagster.research.algorithms import algorithm
from pathlib import Path
model = algorithm("deep_reinforcement_learning").load(Path({str(tmp_path)!r}))
print(model.predict(np.ones((1, 4), np.float32), model.features)[0].hex())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == model.predict(np.ones((1, 4), np.float32), FEATURES)[0].hex()


def test_a_policy_acts_by_its_score_and_what_is_held() -> None:
    model = fit()
    model.inertia = 0.5
    assert model.trades
    day = values(TRAIN)[:12]
    held = np.linspace(-0.1, 0.1, 12)
    np.testing.assert_allclose(model.act(day, held), model.predict(day, FEATURES) + 0.5 * 12 * held)


def test_a_policy_that_earned_nothing_after_costs_does_not_trade(tmp_path: Path) -> None:
    """Returns are new every day and cost more than they bring, whatever is learned from them."""
    market = CrossSections.of(VALIDATION, FEATURES, "label", "test", 1)
    for cost_bps, trades in ((0.0, True), (1000.0, False)):
        model = fit({"cost_bps": cost_bps})
        model.metrics["validation_net_return"] = math.nan
        gross, costs, _ = walk(model, market, Terms(cost_bps))
        earned = fit({"cost_bps": cost_bps})
        assert earned.metrics["validation_net_return"] == pytest.approx((gross - costs).mean(), rel=1e-12)
        assert earned.trades == trades == (earned.metrics["validation_net_return"] > 0.0)
        files(earned, tmp_path / str(trades))
        loaded = DeepReinforcementLearning.load(tmp_path / str(trades))
        assert bool(walk(loaded, market, Terms(cost_bps))[2].sum() > 0.0) == trades
    held = np.linspace(-0.1, 0.1, 12)
    np.testing.assert_array_equal(loaded.act(values(VALIDATION)[:12], held), held)


def test_a_warm_start_begins_where_the_earlier_policy_ended() -> None:
    earlier = fit()
    settings = QUICK | {"steps": 64, "learning_rate": 1e-6}
    warm = DeepReinforcementLearning.fit(TRAIN, VALIDATION, FEATURES, "label", settings, start_from=earlier)
    np.testing.assert_allclose(warm.layers[0][0], earlier.layers[0][0], atol=1e-4)
    with pytest.raises(InvalidInput, match=r"layers of \[4, 4, 1\] units and this one of \[4, 5, 1\]"):
        DeepReinforcementLearning.fit(TRAIN, VALIDATION, FEATURES, "label", QUICK | {"widths": [5]}, start_from=earlier)


def test_what_cannot_be_learned_from_is_refused_before_a_step() -> None:
    seen: list[Progress] = []
    silent = VALIDATION.with_columns(label=pl.lit(None, dtype=pl.Float64))
    for train, validation, settings, horizon, why in (
        (TRAIN, silent, {"patience": 1}, 1, "or give patience 'none'"),
        (TRAIN.with_columns(label=pl.lit(1.0)), VALIDATION, {}, 1, "every row of a date has the same"),
        (TRAIN.with_columns(f1=pl.lit(None, pl.Float32)), VALIDATION, {}, 1, r"training features \['f1'\]"),
        (TRAIN, VALIDATION, {}, 60, "60 dates, and a book that is held for 60 sessions"),
    ):
        with pytest.raises(InvalidInput, match=why):
            DeepReinforcementLearning.fit(
                train,
                validation,
                FEATURES,
                "label",
                QUICK | settings,
                supervision=Supervision(seen.append),
                horizon_days=horizon,
            )
    assert seen == []
    with pytest.raises(InvalidInput, match=r"deviation 0\.5 means nothing with method 'sac'"):
        validate_hyperparameters("deep_reinforcement_learning", {"method": "sac", "deviation": 0.5})


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    fit().save(tmp_path)
    document = json.loads((tmp_path / ARTIFACT).read_text())
    for change, why in (
        ({"inertia": float("inf")}, "inertia inf"),
        ({"inertia": "1"}, r"lacks \['inertia'\]"),
        ({"features": ["one"]}, "takes 4 features and 1 are named"),
    ):
        (tmp_path / ARTIFACT).write_text(json.dumps(document | change))
        with pytest.raises(InvalidInput, match=why):
            DeepReinforcementLearning.load(tmp_path)
