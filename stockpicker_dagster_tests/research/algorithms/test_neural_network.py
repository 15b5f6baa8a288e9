import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import (
    Progress,
    Supervision,
    TrainingStopped,
    validate_hyperparameters,
)
from stockpicker_dagster.research.algorithms.linear import LinearModel
from stockpicker_dagster.research.algorithms.neural_network import (
    ARTIFACT,
    WEIGHTS,
    NeuralNetwork,
    folded,
)
from stockpicker_dagster.research.algorithms.weights import read_weights, write_weights
from stockpicker_dagster_tests.research.algorithms.planted import FEATURES, matrix, share_of_achievable, table

QUICK: dict[str, object] = {
    "hidden_layers": 2,
    "widths": [6, 4],
    "ensemble": 2,
    "epochs": 3,
    "learning_rate": 0.01,
    "loss": "mse",
    "l1": 1e-5,
}
TRAIN, VALIDATION = table(1, 25, 20), table(2, 10, 20, first=2020)


def fit(
    settings: dict[str, object] | None = None, seed: int = 0, supervision: Supervision | None = None
) -> NeuralNetwork:
    given = QUICK | (settings or {})
    return NeuralNetwork.fit(TRAIN, VALIDATION, FEATURES, "label", given, seed, supervision or Supervision())


@pytest.fixture(scope="module")
def fitted() -> NeuralNetwork:
    return fit()


def files(model: NeuralNetwork, folder: Path) -> list[bytes]:
    model.save(folder)
    return [(folder / name).read_bytes() for name in (ARTIFACT, WEIGHTS)]


@pytest.mark.parametrize("loss", ["mse", "rank_ic", "list_wise"])
def test_networks_find_what_no_line_can(loss: str) -> None:
    train, validation, later = (table(seed, 100, shape="product") for seed in (1, 2, 3))
    settings = {"hidden_layers": 2, "ensemble": 1, "learning_rate": 0.01, "loss": loss, "epochs": 25, "l1": 1e-5}
    network = NeuralNetwork.fit(train, validation, FEATURES, "label", settings)
    assert share_of_achievable(later, network.predict(matrix(later), FEATURES)) > 0.8
    line = LinearModel.fit(train, validation, FEATURES, "label")
    assert share_of_achievable(later, line.predict(matrix(later), FEATURES)) < 0.2


def test_scores_agree_with_torchs_own_modules(fitted: NeuralNetwork) -> None:
    values = matrix(table(3))
    for member in fitted.members:
        modules: list[torch.nn.Module] = []
        for place in range(3):
            linear = torch.nn.Linear(*member[f"weights_{place}"].shape)
            linear.weight.data = torch.from_numpy(member[f"weights_{place}"].T.copy())
            linear.bias.data = torch.from_numpy(member[f"biases_{place}"])
            modules.append(linear)
            if place < 2:
                norm = torch.nn.BatchNorm1d(linear.out_features)
                norm.weight.data, norm.bias.data = (torch.from_numpy(member[f"{n}_{place}"]) for n in ("gain", "shift"))
                norm.running_mean, norm.running_var = (
                    torch.from_numpy(member[f"{name}_{place}"]) for name in ("mean", "variance")
                )
                modules += [norm, torch.nn.ReLU()]
        expected = torch.nn.Sequential(*modules).double().eval()(torch.from_numpy(values).double()).squeeze(1)
        np.testing.assert_allclose(folded(member).scores(values), expected.detach(), rtol=1e-9, atol=1e-12)


def test_one_step_is_torchs(fitted: NeuralNetwork) -> None:
    """One batch of all dates: the parameters after it are those of an independent step by Adam."""
    settings = {
        "ensemble": 1,
        "epochs": 1,
        "dates_in_batch": 1000,
        "l1": 0.001,
        "batch_norm": False,
        "patience": "none",
    }
    after = fit(settings).members[0]
    rng = np.random.default_rng([0, 0])
    sizes, tensors = [6, 6, 4, 1], []
    for place in range(3):
        deviation = np.sqrt((2 if place < 2 else 1) / sizes[place])
        weights = (deviation * rng.standard_normal((sizes[place], sizes[place + 1]))).astype(np.float32)
        tensors += [torch.tensor(weights, requires_grad=True), torch.zeros(sizes[place + 1], requires_grad=True)]
    scores = torch.tensor(matrix(TRAIN))
    for place in range(3):
        scores = scores @ tensors[2 * place] + tensors[2 * place + 1]
        scores = scores.relu() if place < 2 else scores
    each = (scores.squeeze(1) - torch.tensor(TRAIN["label"].to_numpy(), dtype=torch.float32)) ** 2
    by_date = torch.tensor((1 / TRAIN.select(pl.len().over("date")).to_series() / 25).to_numpy(), dtype=torch.float32)
    loss = (each * by_date).sum() + 0.001 * sum(tensors[2 * place].abs().sum() for place in range(3))
    optimizer = torch.optim.Adam(tensors, lr=0.01)
    loss.backward()
    optimizer.step()
    for place in range(3):
        np.testing.assert_allclose(after[f"weights_{place}"], tensors[2 * place].detach(), atol=2e-5)
        np.testing.assert_allclose(after[f"biases_{place}"], tensors[2 * place + 1].detach(), atol=2e-5)


def test_equal_input_gives_equal_bytes_and_another_seed_does_not(fitted: NeuralNetwork, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    one, two, other = files(fitted, tmp_path / "1"), files(fit(), tmp_path / "2"), files(fit(seed=1), tmp_path / "3")
    assert one == two
    assert one[1] != other[1]
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(
    steps: int, fitted: NeuralNetwork, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    stopping = Supervision(seen.append, lambda: len(seen) >= steps, tmp_path / "state")
    with pytest.raises(TrainingStopped, match=f"network {1 + (steps - 1) // 3} of 2"):
        fit(supervision=stopping)
    going_on = Supervision(seen.append, lambda: False, tmp_path / "state")
    assert files(fit(supervision=going_on), tmp_path / "resumed") == files(fitted, tmp_path / "whole")
    assert [each.step for each in seen] == [1, 2, 3, 4, 5, 6]


def test_state_of_other_data_is_not_gone_on_from(fitted: NeuralNetwork, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(TrainingStopped):
        fit(seed=5, supervision=Supervision(stop=lambda: True, checkpoints=tmp_path / "state"))
    resumed = fit(supervision=Supervision(progress=seen.append, checkpoints=tmp_path / "state"))
    assert files(resumed, tmp_path / "resumed") == files(fitted, tmp_path / "whole")
    assert seen[0].step == 1


def test_the_best_epoch_on_validation_is_kept_and_patience_ends_a_network() -> None:
    seen: list[Progress] = []
    settings: dict[str, object] = {"ensemble": 1, "epochs": 40, "patience": 2, "learning_rate": 0.05}
    model = fit(settings, supervision=Supervision(progress=seen.append))
    best = max(seen, key=lambda each: each.validation_rank_ic)
    assert model.metrics["validation_rank_ic"] == pytest.approx(best.validation_rank_ic, abs=1e-12)
    assert seen[-1].step == best.step + 2 < 40
    assert model.metrics["epochs"] == len(seen)


def test_the_penalty_shrinks_weights(fitted: NeuralNetwork) -> None:
    penalized = fit({"l1": 0.05})
    size = [
        sum(np.abs(each[f"weights_{place}"]).sum() for each in model.members for place in range(3))
        for model in (fitted, penalized)
    ]
    assert size[1] < 0.9 * size[0]


def test_a_warm_start_begins_where_the_earlier_model_ended(fitted: NeuralNetwork, tmp_path: Path) -> None:
    tiny = QUICK | {"learning_rate": 1e-6, "epochs": 1}
    warm = NeuralNetwork.fit(TRAIN, VALIDATION, FEATURES, "label", tiny, start_from=fitted)
    cold = NeuralNetwork.fit(TRAIN, VALIDATION, FEATURES, "label", tiny)
    for name, near in fitted.members[0].items():
        if name.startswith("weights"):
            assert np.abs(warm.members[0][name] - near).max() < 1e-3
            assert np.abs(cold.members[0][name] - near).max() > 1e-2
    with pytest.raises(InvalidInput, match=r"layers of \[6, 6, 4, 1\] units .* train without a warm start"):
        NeuralNetwork.fit(TRAIN, VALIDATION, FEATURES, "label", QUICK | {"widths": [6, 5]}, start_from=fitted)
    with pytest.raises(InvalidInput, match="ensemble of 2 networks and this one of 3"):
        NeuralNetwork.fit(TRAIN, VALIDATION, FEATURES, "label", QUICK | {"ensemble": 3}, start_from=fitted)


def test_a_loaded_model_scores_the_same_bytes(fitted: NeuralNetwork, tmp_path: Path) -> None:
    before = files(fitted, tmp_path)
    loaded, values = NeuralNetwork.load(tmp_path), matrix(table(4))
    assert loaded.predict(values, FEATURES).tobytes() == fitted.predict(values, FEATURES).tobytes()
    assert loaded.contributions(values, FEATURES).tobytes() == fitted.contributions(values, FEATURES).tobytes()
    assert (loaded.label, loaded.chosen, loaded.metrics) == (fitted.label, fitted.chosen, fitted.metrics)
    assert files(loaded, tmp_path / "again") == before


def test_contributions_and_the_score_of_zeros_add_up(fitted: NeuralNetwork) -> None:
    for model in (fitted, fit({"loss": "rank_ic"})):
        values = matrix(table(4))
        middle = model.predict(np.zeros((1, len(FEATURES)), np.float32), FEATURES)
        told = model.contributions(values, FEATURES).sum(axis=1) + middle
        np.testing.assert_allclose(told, model.predict(values, FEATURES), rtol=1e-9, atol=1e-9)


def test_networks_that_rank_only_weigh_the_same_in_the_average() -> None:
    model = fit({"loss": "rank_ic"})
    values = matrix(TRAIN)
    for member, scale in zip(model.members, model.scales, strict=True):
        assert (folded(member).scores(values) / scale).std() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scales": [1.0]}, "names 2 networks and 1 scales"),
        ({"scales": [1.0, 0.0]}, "networks"),
        ({"scales": [1.0, float("nan")]}, "other than finite numbers"),
        ({"members": 3}, "names 3 networks"),
        ({"features": FEATURES[:-1]}, "5 are named"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(
    change: dict[str, object], why: str, fitted: NeuralNetwork, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    (tmp_path / ARTIFACT).write_text(json.dumps(json.loads((tmp_path / ARTIFACT).read_text()) | change))
    with pytest.raises(InvalidInput, match=why):
        NeuralNetwork.load(tmp_path)


@pytest.mark.parametrize("lost", ["biases_1", "gain_0", "weights_2"])
def test_weights_that_do_not_fit_are_refused(lost: str, fitted: NeuralNetwork, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    arrays, _ = read_weights(tmp_path / WEIGHTS)
    del arrays[f"member_1.{lost}"]
    write_weights(tmp_path / WEIGHTS, arrays)
    with pytest.raises(InvalidInput, match="train it again"):
        NeuralNetwork.load(tmp_path)


def test_what_cannot_be_learned_from_is_refused_before_an_epoch() -> None:
    seen: list[Progress] = []
    silent = VALIDATION.with_columns(label=pl.lit(None, dtype=pl.Float64))
    for train, validation, why in (
        (TRAIN, silent, "or give patience 'none'"),
        (TRAIN.with_columns(label=pl.lit(1.0)), VALIDATION, "every row of a date has the same"),
        (TRAIN.with_columns(f1=pl.lit(None, pl.Float32)), VALIDATION, r"training features \['f1'\]"),
    ):
        with pytest.raises(InvalidInput, match=why):
            NeuralNetwork.fit(train, validation, FEATURES, "label", QUICK, supervision=Supervision(seen.append))
    assert seen == []


def test_fewer_widths_than_layers_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"widths \[8\] has no width for each of 3 hidden_layers"):
        validate_hyperparameters("neural_network", {"widths": [8]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'cuda' is asked for and PyTorch sees no GPU here; give 'auto' or 'cpu'"):
        fit({"device": "cuda"})
