"""Feed-forward neural networks of one to five hidden layers, in the family of Gu, Kelly and Xiu (2020).

Each hidden layer is an affine map, batch normalization and rectified linear units; weights carry an L1 penalty;
training takes mini-batches of whole dates and ends early by the rank IC on the validation period; the score is the
average over an ensemble that differs by its random start. PyTorch learns; scoring is `feed_forward`, which needs none
of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import (
    UNSUPERVISED,
    Hyperparameter,
    Progress,
    Supervision,
    TrainingStopped,
    Value,
    check_packages,
    validate_hyperparameters,
)
from stockpicker_dagster.research.algorithms.checked_scores import CheckedScores
from stockpicker_dagster.research.algorithms.checkpoints import keep_state, kept_state, training_digest
from stockpicker_dagster.research.algorithms.documents import numbers, read_document, write_document
from stockpicker_dagster.research.algorithms.feed_forward import FeedForward
from stockpicker_dagster.research.algorithms.tables import Table, measured
from stockpicker_dagster.research.algorithms.torch_runtime import DEVICES, deterministic_torch, torch_device
from stockpicker_dagster.research.algorithms.weights import Array, read_weights, write_weights
from stockpicker_dagster.research.order_statistics import average_ranks

if TYPE_CHECKING:
    import torch

ARTIFACT = "neural_network.json"
WEIGHTS = "neural_network.safetensors"
_EPSILON = 1e-5
"""Added to variances by batch normalization, PyTorch's default."""
_NORMALIZATION = ("gain", "shift", "mean", "variance")

Vector = NDArray[np.float64]
Parameters = dict[str, Array]
"""Of one member: `weights_0` (inputs, outputs), `biases_0`, ..., and `gain_0`, `shift_0`, `mean_0`, `variance_0` of the
batch normalization after each hidden layer."""


@dataclass
class NeuralNetwork(CheckedScores):
    """The score is the mean over the ensemble's networks, each in its own `scales` unit.

    With the loss `mse` networks predict the label and all scales are 1; other losses rank only, so that each network's
    scores are divided by their standard deviation on the training rows before they are averaged.
    """

    name: ClassVar[str] = "neural_network"
    warm_starts: ClassVar[bool] = True
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter("hidden_layers", int, 3, "Hidden layers.", "layers", minimum=1, maximum=5),
        Hyperparameter(
            "widths",
            int,
            (32, 16, 8, 4, 2),
            "Units of the hidden layers, from the inputs on; the first `hidden_layers` of them are taken.",
            "units",
            minimum=1,
            maximum=1024,
            longest=5,
        ),
        Hyperparameter("batch_norm", bool, True, "Batch normalization after each hidden layer.", "yes or no"),
        Hyperparameter(
            "loss",
            str,
            "rank_ic",
            "What is minimized, date by date: `rank_ic`, less the correlation of scores and ranked labels; `mse`, the "
            "mean squared error, which finds weak signals less reliably; or `list_wise`, the cross-entropy of the "
            "softmax of scores against that of labels (Cao et al., 2007).",
            "name",
            words=("rank_ic", "mse", "list_wise"),
        ),
        Hyperparameter(
            "l1", float, 1e-3, "Penalty on the absolute weights.", "loss a unit of weight", minimum=0.0, maximum=10.0
        ),
        Hyperparameter(
            "learning_rate", float, 1e-3, "Of Adam (Kingma and Ba, 2015).", "a step", minimum=1e-6, maximum=1.0
        ),
        Hyperparameter(
            "epochs", int, 60, "Passes over the training dates at most.", "epochs", minimum=1, maximum=10_000
        ),
        Hyperparameter(
            "patience",
            int,
            6,
            "A network is done once its best mean rank IC on the validation period is so many epochs ago, and is kept "
            "as it was then; `none` trains all epochs without a look at the validation period.",
            "epochs",
            minimum=1,
            maximum=10_000,
            words=("none",),
        ),
        Hyperparameter("dates_in_batch", int, 8, "Whole dates in a mini-batch.", "dates", minimum=1, maximum=1024),
        Hyperparameter(
            "ensemble", int, 5, "Networks from different random starts, averaged.", "networks", minimum=1, maximum=100
        ),
        Hyperparameter(
            "device",
            str,
            "auto",
            "Where training runs: `cuda` is a GPU, `auto` takes one if there is one. Only on a CPU are equal models "
            "promised.",
            "name",
            words=DEVICES,
        ),
        Hyperparameter(
            "threads",
            int,
            1,
            "Processor threads; the last bits of a model depend on how many.",
            "threads",
            minimum=1,
            maximum=256,
        ),
    )

    features: tuple[str, ...]
    label: str
    members: list[Parameters]
    scales: list[float]
    chosen: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._networks = [folded(member) for member in self.members]
        if any(network.sizes[0] != len(self.features) for network in self._networks) or not self._networks:
            raise InvalidInput(
                f"the networks take {[int(each.sizes[0]) for each in self._networks]} features and "
                f"{len(self.features)} are named; train the model again"
            )

    @classmethod
    def check_together(cls, settings: Mapping[str, Value]) -> None:
        """Raises `InvalidInput` if there are fewer widths than hidden layers."""
        layers, widths = settings["hidden_layers"], settings["widths"]
        assert isinstance(layers, int)
        assert isinstance(widths, list)
        if len(widths) < layers:
            raise InvalidInput(
                f"hyperparameter widths {widths} has no width for each of {layers} hidden_layers; give more"
            )

    @classmethod
    def fit(
        cls,
        train: pl.DataFrame,
        validation: pl.DataFrame,
        features: Sequence[str],
        label: str,
        hyperparameters: Mapping[str, object] | None = None,
        seed: int = 0,
        supervision: Supervision = UNSUPERVISED,
        start_from: Self | None = None,
        horizon_days: int = 1,
    ) -> Self:
        """Train one network after the other; `seed` draws their starts and the order of dates.

        With `start_from`, networks begin as those of the earlier model of the same layers and go on learning. State is
        kept after every epoch. Raises `InvalidInput` as the protocol says, for a validation without a rank IC while
        `patience` is a number, and for an earlier model of other layers.
        """
        settings: dict[str, Any] = validate_hyperparameters(cls.name, hyperparameters)
        check_packages(cls.name)
        device = torch_device(settings["device"])
        known = Table.of(train, features, label, "training")
        held_out = Table.of(validation, features, label, "validation")
        known.check_learnable(label)
        if settings["patience"] != "none" and not np.isfinite(held_out.rank_ic(held_out.label)):
            raise InvalidInput(
                f"networks are trained while the rank IC on the validation period rises, which has no date with "
                f"different {label!r}; validate on a longer period, or give patience 'none'"
            )
        sizes = [len(features), *settings["widths"][: settings["hidden_layers"]], 1]
        if start_from is not None:
            _check_start(start_from, features, sizes, settings)
        with deterministic_torch(settings["threads"]):
            training = _Training(
                known,
                held_out,
                sizes,
                settings,
                seed,
                supervision,
                [] if start_from is None else start_from.members,
                device,
            )
            members = training.run()
        scales = [_scale(member, known, settings["loss"]) for member in members]
        model = cls(tuple(features), label, members, scales, dict(settings))
        model.metrics = measured(known, model._score(known.features), held_out, model._score(held_out.features))
        model.metrics["epochs"] = float(training.epochs_done)
        return model

    def _contributions(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature adds, against a stock whose features are all zero; with its score they add up.

        See `FeedForward.contributions`. Zero is the middle of the cross-section under `standard`, `robust` and `rank`.
        """
        total = np.zeros(values.shape)
        for network, scale in zip(self._networks, self.scales, strict=True):
            total += network.contributions(values) / scale
        return total / len(self._networks)

    def save(self, directory: Path) -> None:
        """Write `neural_network.json` and `neural_network.safetensors`."""
        content = {"scales": self.scales, "members": len(self.members)}
        path = directory / ARTIFACT
        write_document(path, self.name, self.label, self.features, self.chosen, self.metrics, content)
        write_weights(directory / WEIGHTS, joined(self.members))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read both files; `InvalidInput` if they are missing, of another kind or not consistent."""
        path = directory / ARTIFACT
        document = read_document(path, cls.name, {"scales": list, "members": int})
        scales = numbers(document, "scales", path).tolist()
        arrays, _ = read_weights(directory / WEIGHTS)
        members = separated(arrays)
        if len(members) != document["members"] or len(scales) != len(members) or not all(each > 0 for each in scales):
            raise InvalidInput(
                f"the model {path} names {document['members']} networks and {len(scales)} scales, and "
                f"{directory / WEIGHTS} holds {len(members)}; train it again"
            )
        return cls(
            tuple(document["features"]),
            document["label"],
            members,
            scales,
            document["hyperparameters"],
            document["metrics"],
        )

    def _score(self, values: NDArray[np.float32]) -> Vector:
        total = np.zeros(len(values))
        for network, scale in zip(self._networks, self.scales, strict=True):
            total += network.scores(values) / scale
        return total / len(self._networks)


def folded(member: Parameters) -> FeedForward:
    """One network with its batch normalization taken into weights and biases, as it scores."""
    layers: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = []
    while f"weights_{len(layers)}" in member:
        place = len(layers)
        if f"biases_{place}" not in member:
            raise InvalidInput(f"layer {place} of the model has no biases; train it again")
        weights, biases = member[f"weights_{place}"].astype(np.float64), member[f"biases_{place}"].astype(np.float64)
        present = [name for name in _NORMALIZATION if f"{name}_{place}" in member]
        if present:
            if len(present) < len(_NORMALIZATION) or any(member[f"{n}_{place}"].shape != biases.shape for n in present):
                raise InvalidInput(
                    f"the batch normalization of layer {place} of the model does not fit; train it again"
                )
            gain, shift, mean, variance = (member[f"{name}_{place}"].astype(np.float64) for name in _NORMALIZATION)
            if not bool((variance >= 0).all()) or weights.shape[1:] != gain.shape:
                raise InvalidInput(
                    f"the batch normalization of layer {place} of the model does not fit; train it again"
                )
            factor = gain / np.sqrt(variance + _EPSILON)
            weights, biases = weights * factor, (biases - mean) * factor + shift
        layers.append((weights, biases))
    return FeedForward.of(layers)


def joined(members: Sequence[Parameters], prefix: str = "member") -> dict[str, Array]:
    """The parameters of several networks under names of their own."""
    return {f"{prefix}_{place}.{name}": array for place, member in enumerate(members) for name, array in member.items()}


def separated(arrays: Mapping[str, Array], prefix: str = "member") -> list[Parameters]:
    """The opposite of `joined`; names that follow no network are left out."""
    members: list[Parameters] = []
    while own := {
        name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{prefix}_{len(members)}.")
    }:
        members.append(own)
    return members


def _check_start(
    earlier: NeuralNetwork, features: Sequence[str], sizes: Sequence[int], settings: Mapping[str, Any]
) -> None:
    had = [int(size) for size in earlier._networks[0].sizes]
    normalized = "gain_0" in earlier.members[0]
    if list(earlier.features) != list(features) or had != list(sizes) or normalized != settings["batch_norm"]:
        raise InvalidInput(
            f"the earlier model has layers of {had} units on {len(earlier.features)} features, "
            f"{'with' if normalized else 'without'} batch normalization, and this one has {list(sizes)} on "
            f"{len(features)}; train without a warm start, or with the same features and layers"
        )
    if len(earlier.members) != settings["ensemble"]:
        raise InvalidInput(
            f"the earlier model is an ensemble of {len(earlier.members)} networks and this one of "
            f"{settings['ensemble']}; train without a warm start, or with as many"
        )


def _scale(member: Parameters, known: Table, loss: str) -> float:
    if loss == "mse":
        return 1.0
    deviation = float(folded(member).scores(known.features).std())
    return deviation if deviation > 1e-12 else 1.0


class _Training:
    """The training of an ensemble, epoch by epoch, whose state can be kept and taken up again."""

    def __init__(
        self,
        known: Table,
        held_out: Table,
        sizes: Sequence[int],
        settings: dict[str, Any],
        seed: int,
        supervision: Supervision,
        starts: Sequence[Parameters],
        device: "torch.device",
    ) -> None:
        import torch

        self._known, self._held_out = known, held_out
        self._sizes, self._settings, self._seed = sizes, settings, seed
        self._supervision, self._starts, self._device = supervision, starts, device
        self._digest = training_digest(
            algorithm=NeuralNetwork.name,
            train=known.digest(),
            validation=held_out.digest(),
            settings=settings,
            seed=seed,
            device=str(device),
            starts=[{name: array.tolist() for name, array in start.items()} for start in starts],
        )
        self._values = torch.from_numpy(known.features).to(device)
        self._targets = torch.from_numpy(_targets(known, settings["loss"])).to(device)
        self._loss = _LOSSES[settings["loss"]]
        self.epochs_done = 0

    def run(self) -> list[Parameters]:
        """The networks, each as it was at its best epoch."""
        kept = kept_state(self._supervision, NeuralNetwork.name, self._digest)
        done: list[Parameters] = []
        state: tuple[dict[str, Array], dict[str, Any]] | None = None
        if kept is not None:
            done, state = separated(kept[0]), kept
            self.epochs_done = kept[1]["epochs_done"]
        for place in range(len(done), self._settings["ensemble"]):
            done.append(self._train_member(place, done, state))
            state = None
        return done

    def _train_member(
        self, place: int, done: list[Parameters], state: tuple[dict[str, Array], dict[str, Any]] | None
    ) -> Parameters:
        if state is None:
            start = (
                self._starts[place]
                if self._starts
                else _first_parameters(self._sizes, self._settings["batch_norm"], [self._seed, place])
            )
            member = _Member(start, self._settings, self._device)
            best, best_ic, best_epoch, first = start, -math.inf, 0, 0
        else:
            arrays, figures = state
            member = _Member(_under(arrays, "current"), self._settings, self._device)
            member.restore(_under(arrays, "moment_1"), _under(arrays, "moment_2"), figures["steps"])
            best, first, best_epoch = _under(arrays, "best"), figures["epoch"], figures["best_epoch"]
            best_ic = -math.inf if figures["best_ic"] is None else figures["best_ic"]
        epochs, patience = self._settings["epochs"], self._settings["patience"]
        for epoch in range(first + 1, epochs + 1):
            if patience != "none" and best_epoch and epoch - best_epoch > patience:
                break
            loss = self._epoch(member, place, epoch)
            current = member.parameters()
            rank_ic = self._held_out.rank_ic(folded(current).scores(self._held_out.features))
            self.epochs_done += 1
            if patience == "none" or rank_ic > best_ic:
                best, best_ic, best_epoch = current, rank_ic, epoch
            of = epochs * self._settings["ensemble"]
            self._supervision.progress(Progress(place * epochs + epoch, of, loss, rank_ic))
            self._keep(done, member, current, best, best_ic, best_epoch, epoch)
            if self._supervision.stop():
                raise TrainingStopped(
                    f"training stopped in epoch {epoch} of network {place + 1} of {self._settings['ensemble']}"
                )
        return best

    def _epoch(self, member: "_Member", place: int, epoch: int) -> float:
        """One pass over all dates in an order of its own; the mean loss of its batches."""
        blocks, size = self._known.blocks, self._settings["dates_in_batch"]
        order = np.random.default_rng([self._seed, place, epoch]).permutation(self._known.dates)
        losses = []
        for first in range(0, len(order), size):
            dates = [(int(blocks[date]), int(blocks[date + 1])) for date in order[first : first + size]]
            rows = np.concatenate([np.arange(*date) for date in dates])
            # Batch normalization of one row is nothing but its shift: such a batch has nothing to teach.
            if len(rows) > 1:
                losses.append(member.step(self._values, self._targets, rows, [b - a for a, b in dates], self._loss))
        return math.fsum(losses) / len(losses) if losses else math.nan

    def _keep(
        self,
        done: list[Parameters],
        member: "_Member",
        current: Parameters,
        best: Parameters,
        best_ic: float,
        best_epoch: int,
        epoch: int,
    ) -> None:
        if self._supervision.checkpoints is None:
            return
        first, second, steps = member.moments()
        parts = {"current": current, "best": best, "moment_1": first, "moment_2": second}
        arrays = joined(done) | {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}
        figures = {
            "epoch": epoch,
            "best_epoch": best_epoch,
            "best_ic": best_ic if math.isfinite(best_ic) else None,
            "steps": steps,
            "epochs_done": self.epochs_done,
        }
        keep_state(self._supervision, NeuralNetwork.name, self._digest, arrays, figures)


class _Member:
    """One network on a device, with its optimizer."""

    def __init__(self, start: Parameters, settings: Mapping[str, Any], device: "torch.device") -> None:
        import torch

        self._layers = sum(name.startswith("weights_") for name in start)
        self._tensors = {name: torch.from_numpy(np.array(array)).to(device) for name, array in start.items()}
        self._learned = [name for name in self._tensors if not name.startswith(("mean_", "variance_"))]
        for name in self._learned:
            self._tensors[name].requires_grad_()
        self._l1 = settings["l1"]
        self._optimizer = torch.optim.Adam(
            [self._tensors[name] for name in self._learned], lr=settings["learning_rate"]
        )

    def step(
        self,
        values: "torch.Tensor",
        targets: "torch.Tensor",
        rows: NDArray[np.int64],
        sizes: Sequence[int],
        loss: Callable[..., "torch.Tensor"],
    ) -> float:
        """One step of the optimizer on some dates' rows; the loss before it, the penalty left out."""
        import torch

        chosen = torch.from_numpy(rows).to(values.device)
        scores = self._forward(values[chosen])
        wanted = targets[chosen]
        parts = zip(torch.split(scores, list(sizes)), torch.split(wanted, list(sizes)), strict=True)
        error = torch.stack([loss(*part) for part in parts]).mean()
        total = error
        if self._l1:
            total = error + self._l1 * sum(
                self._tensors[f"weights_{place}"].abs().sum() for place in range(self._layers)
            )
        self._optimizer.zero_grad()
        total.backward()
        self._optimizer.step()
        return float(error.detach())

    def parameters(self) -> Parameters:
        """A copy of everything that scores."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._tensors.items()}

    def moments(self) -> tuple[Parameters, Parameters, int]:
        """Adam's running means of gradients and of their squares, and how many steps it took."""
        states = {name: self._optimizer.state[self._tensors[name]] for name in self._learned}
        first, second = (
            {name: state[key].cpu().numpy().copy() for name, state in states.items() if state}
            for key in ("exp_avg", "exp_avg_sq")
        )
        steps = [int(state["step"]) for state in states.values() if state]
        return first, second, max(steps, default=0)

    def restore(self, first: Parameters, second: Parameters, steps: int) -> None:
        """Put back what `moments` gave."""
        import torch

        for name in first:
            tensor = self._tensors[name]
            self._optimizer.state[tensor] = {
                "step": torch.tensor(float(steps)),
                "exp_avg": torch.from_numpy(np.array(first[name])).to(tensor.device),
                "exp_avg_sq": torch.from_numpy(np.array(second[name])).to(tensor.device),
            }

    def _forward(self, values: "torch.Tensor") -> "torch.Tensor":
        """Scores while learning: batch normalization by the batch's own moments, which also move the running ones."""
        from torch.nn.functional import batch_norm

        tensors = self._tensors
        for place in range(self._layers):
            values = values @ tensors[f"weights_{place}"] + tensors[f"biases_{place}"]
            if place == self._layers - 1:
                break
            if f"gain_{place}" in tensors:
                values = batch_norm(
                    values,
                    tensors[f"mean_{place}"],
                    tensors[f"variance_{place}"],
                    tensors[f"gain_{place}"],
                    tensors[f"shift_{place}"],
                    training=True,
                    eps=_EPSILON,
                )
            values = values.relu()
        return values.squeeze(1)


def _first_parameters(sizes: Sequence[int], batch_norm: bool, seed: Sequence[int]) -> Parameters:
    """A random start: normal weights of variance 2 / inputs (He et al., 2015), everything else neutral."""
    rng = np.random.default_rng(seed)
    member: Parameters = {}
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        deviation = math.sqrt(2.0 / inputs) if place < len(sizes) - 2 else math.sqrt(1.0 / inputs)
        member[f"weights_{place}"] = (deviation * rng.standard_normal((inputs, outputs))).astype(np.float32)
        member[f"biases_{place}"] = np.zeros(outputs, np.float32)
        if batch_norm and place < len(sizes) - 2:
            for name in _NORMALIZATION:
                member[f"{name}_{place}"] = np.full(outputs, name in ("gain", "variance"), np.float32)
    return member


def _under(arrays: Mapping[str, Array], part: str) -> Parameters:
    return {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{part}.")}


def _targets(known: Table, loss: str) -> NDArray[np.float32]:
    """What is learned: the labels, or their ranks within the date, standardized, where only the order counts."""
    if loss == "mse":
        return known.label.astype(np.float32)
    targets = np.zeros(len(known.label))
    for first, last in zip(known.blocks[:-1], known.blocks[1:], strict=True):
        ranks = average_ranks(known.label[first:last])
        spread = ranks.std()
        targets[first:last] = (ranks - ranks.mean()) / spread if spread > 0 else 0.0
    return targets.astype(np.float32)


def _squared_error(scores: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    return ((scores - targets) ** 2).mean()


def _negative_correlation(scores: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    centred = scores - scores.mean()
    size = (centred.square().mean() * targets.square().mean() + 1e-12).sqrt()
    return -(centred * targets).mean() / size


def _cross_entropy(scores: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    return -(targets.softmax(0) * scores.log_softmax(0)).sum()


_LOSSES = {"mse": _squared_error, "rank_ic": _negative_correlation, "list_wise": _cross_entropy}
