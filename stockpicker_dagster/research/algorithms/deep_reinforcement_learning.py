"""Deep reinforcement learning of the long-short book: A2C, PPO or SAC of stable-baselines3 with a shared policy.

The agent walks through the training dates, is paid what its book returns after costs (`long_short_environment`), and
scores each stock by one small network (`shared_policy`). By default it is paid for each step alone: with a discount of
zero, returns of other days, which are mostly noise, do not blur what a score was worth. Mnih et al. (2016), Schulman et
al. (2017), Haarnoja et al. (2018). Scoring is `feed_forward`, which needs none of these libraries.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

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
from stockpicker_dagster.research.algorithms.documents import read_document, write_document
from stockpicker_dagster.research.algorithms.feed_forward import FeedForward
from stockpicker_dagster.research.algorithms.long_short_environment import (
    Book,
    CrossSections,
    Terms,
    environment_class,
)
from stockpicker_dagster.research.algorithms.shared_policy import PACE, shared_policies
from stockpicker_dagster.research.algorithms.tables import Table, measured
from stockpicker_dagster.research.algorithms.torch_runtime import deterministic_torch
from stockpicker_dagster.research.algorithms.weights import Array, read_weights, write_weights

ARTIFACT = "deep_reinforcement_learning.json"
WEIGHTS = "deep_reinforcement_learning.safetensors"
_STAGE = 4096
"""Steps after which the state is kept and the policy looked at. A stage begins with empty books and random numbers of
its own, so that a training that goes on from one is the training that never stopped."""
_REPLAY_BYTES = 512 * 2**20
"""What SAC may remember of the past, at most."""

Vector = NDArray[np.float64]


@dataclass
class DeepReinforcementLearning(CheckedScores):
    """The score is the policy's for a stock that is not held; `inertia` is what it adds for a weight of 1 / stocks.

    `layers` are the weights (inputs, outputs) and biases of the policy's network, from the inputs on. The metric
    `validation_net_return` is the mean return a step (fraction of the gross exposure, after `cost_bps`) of the policy's
    book on the validation period, NaN where that has no labelled date; a policy that earned nothing there scores
    stocks, but does not trade (`act`).
    """

    name: ClassVar[str] = "deep_reinforcement_learning"
    warm_starts: ClassVar[bool] = True
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = (
        Hyperparameter(
            "method",
            str,
            "a2c",
            "Advantage actor-critic, proximal policy optimization, or soft actor-critic, which is slower and finds "
            "weak signals less reliably.",
            "name",
            words=("a2c", "ppo", "sac"),
        ),
        Hyperparameter("steps", int, 40_960, "Days traded while learning.", "steps", minimum=1, maximum=100_000_000),
        Hyperparameter(
            "widths", int, (16,), "Units of the policy's hidden layers.", "units", minimum=1, maximum=512, longest=5
        ),
        Hyperparameter("learning_rate", float, 0.003, "Of Adam.", "a step", minimum=1e-6, maximum=1.0),
        Hyperparameter(
            "discount",
            float,
            0.0,
            "What the next step's value counts today; above 0 the returns of later days blur what a score was worth.",
            "fraction",
            minimum=0.0,
            maximum=0.999,
        ),
        Hyperparameter(
            "deviation",
            float,
            1.0,
            "How far scores are varied at random while learning.",
            "standard deviation of an action",
            minimum=0.01,
            maximum=5.0,
            only_with=("method", ("a2c", "ppo")),
        ),
        Hyperparameter("walks", int, 8, "Books that walk side by side.", "walks", minimum=1, maximum=256),
        Hyperparameter(
            "steps_in_update",
            int,
            16,
            "Steps of each walk between two updates of the policy.",
            "steps",
            minimum=1,
            maximum=4096,
            only_with=("method", ("a2c", "ppo")),
        ),
        Hyperparameter(
            "cost_bps",
            float,
            3.5,
            "Cost of every notional traded while learning.",
            "basis points",
            minimum=0.0,
            maximum=1000.0,
        ),
        Hyperparameter(
            "risk_penalty",
            float,
            0.0,
            "Half of this times the square of a step's net return, in per cent, is taken off its reward.",
            "per per cent",
            minimum=0.0,
            maximum=1000.0,
        ),
        Hyperparameter(
            "patience",
            int,
            "none",
            f"The policy of the best mean rank IC on the validation period, looked at every {_STAGE} steps, is kept, "
            "and training ends once it is so many looks old; `none` keeps the last policy without such a look.",
            "looks",
            minimum=1,
            maximum=10_000,
            words=("none",),
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
    layers: list[tuple[Array, Array]]
    inertia: float
    chosen: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._network = FeedForward.of(self.layers)
        if self._network.sizes[0] != len(self.features):
            raise InvalidInput(
                f"the policy takes {self._network.sizes[0]} features and {len(self.features)} are named; train it again"
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
        """Learn in stages of some thousand steps; `seed` draws the policy's start, its trials and where walks begin.

        Books are paid by the column `label_return`, where there is one, and by the label otherwise; they decide every
        `horizon_days` dates, so that holdings do not overlap. State is kept after every stage; SAC, whose memory is
        large, keeps none and starts again. Raises `InvalidInput` as the protocol says, and for an earlier model of
        other layers.
        """
        settings: dict[str, Any] = validate_hyperparameters(cls.name, hyperparameters)
        check_packages(cls.name)
        known = Table.of(train, features, label, "training")
        held_out = Table.of(validation, features, label, "validation")
        known.check_learnable(label)
        if known.dates <= horizon_days:
            raise InvalidInput(
                f"the training table has {known.dates} dates, and a book that is held for {horizon_days} sessions "
                "needs more; train on a longer period"
            )
        if settings["patience"] != "none" and not np.isfinite(held_out.rank_ic(held_out.label)):
            raise InvalidInput(
                f"policies are compared by the rank IC on the validation period, which has no date with "
                f"different {label!r}; validate on a longer period, or give patience 'none'"
            )
        sizes = [len(features), *settings["widths"], 1]
        if start_from is not None and [int(size) for size in start_from._network.sizes] != sizes:
            raise InvalidInput(
                f"the earlier policy has layers of {start_from._network.sizes.tolist()} units and this one of {sizes}; "
                "train without a warm start, or with the same features and widths"
            )
        market = CrossSections.of(train, features, label, "training", horizon_days)
        start = _first_policy(sizes, seed) if start_from is None else _policy_of(start_from)
        with deterministic_torch(settings["threads"]), _own_random_numbers():
            stages = _Stages(market, known, held_out, settings, seed, supervision, start)
            policy = stages.run()
        model = cls(tuple(features), label, *_parts_of(policy), dict(settings))
        model.metrics = measured(known, model._network.scores(known.features), held_out, model._held_out(held_out))
        model.metrics |= {"steps": float(stages.steps_done), "inertia": model.inertia}
        earned = math.nan
        if held_out.dates:
            later = CrossSections.of(validation, features, label, "validation", horizon_days)
            gross, cost, _ = walk(model, later, Terms(settings["cost_bps"]))
            earned = math.fsum(gross - cost) / len(gross)
        model.metrics["validation_net_return"] = earned
        return model

    def _score(self, values: NDArray[np.float32]) -> Vector:
        """Scores of stocks that are not held."""
        return self._network.scores(values)

    def _contributions(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature adds, against a stock whose features are all zero; see `FeedForward.contributions`."""
        return self._network.contributions(values)

    def act(self, values: NDArray[np.float32], weights: Vector) -> Vector:
        """The policy's scores of one day's stocks, of which the book holds `weights` (fractions of its gross one).

        Those of a policy that earned nothing on the validation period are the weights: the book stays as it is.
        """
        if not self.trades:
            return weights
        return self._network.scores(values) + self.inertia * len(weights) * weights

    @property
    def trades(self) -> bool:
        """Whether the policy's book earned more than its costs on the validation period; so too where none is known."""
        return not self.metrics.get("validation_net_return", math.nan) <= 0.0

    def save(self, directory: Path) -> None:
        """Write `deep_reinforcement_learning.json` and `deep_reinforcement_learning.safetensors`."""
        path = directory / ARTIFACT
        write_document(
            path, self.name, self.label, self.features, self.chosen, self.metrics, {"inertia": float(self.inertia)}
        )
        write_weights(directory / WEIGHTS, _layer_arrays(self.layers))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read both files; `InvalidInput` if they are missing, of another kind or not consistent."""
        path = directory / ARTIFACT
        document = read_document(path, cls.name, {"inertia": float})
        arrays, _ = read_weights(directory / WEIGHTS)
        count = len(arrays) // 2
        if arrays.keys() != {f"{kind}_{place}" for place in range(count) for kind in ("weights", "biases")}:
            raise InvalidInput(f"the layers of {directory / WEIGHTS} do not fit together; train it again")
        if not math.isfinite(document["inertia"]):
            raise InvalidInput(f"the model {path} has the inertia {document['inertia']}; train it again")
        return cls(
            tuple(document["features"]),
            document["label"],
            [(arrays[f"weights_{place}"], arrays[f"biases_{place}"]) for place in range(count)],
            document["inertia"],
            document["hyperparameters"],
            document["metrics"],
        )

    def _held_out(self, held_out: Table) -> Vector:
        return self._network.scores(held_out.features)


def walk(
    model: DeepReinforcementLearning, market: CrossSections, terms: Terms, first: int = 0
) -> tuple[Vector, Vector, Vector]:
    """(gross returns, costs, turnovers) of the policy's book, step by step from the date `first`."""
    book = Book.empty(market, terms, first)
    told = []
    while not book.ended:
        told.append(book.trade(model.act(market.features[market.rows(book.date)], book.weights)))
    gross, cost, turnover = np.array(told).T
    return gross, cost, turnover


class _Stages:
    """A training in stages, whose state between them can be kept and taken up again."""

    def __init__(
        self,
        market: CrossSections,
        known: Table,
        held_out: Table,
        settings: dict[str, Any],
        seed: int,
        supervision: Supervision,
        start: dict[str, Array],
    ) -> None:
        self._market, self._known, self._held_out = market, known, held_out
        self._settings, self._seed, self._supervision, self._start = settings, seed, supervision, start
        self._digest = training_digest(
            algorithm=DeepReinforcementLearning.name,
            train=known.digest(),
            returns=market.returns.tolist(),
            horizon=market.horizon,
            validation=held_out.digest(),
            settings=settings,
            seed=seed,
            start={name: array.tolist() for name, array in start.items()},
        )
        self.steps_done = 0

    def run(self) -> dict[str, Array]:
        """The policy's arrays: the last, or with patience that of the best look."""
        learner = self._learner()
        policy, best = self._start, self._start
        best_ic, best_stage, first = -math.inf, 0, 0
        _put(learner.policy.scorer, policy)
        kept = None if self._off_policy else kept_state(self._supervision, DeepReinforcementLearning.name, self._digest)
        if kept is not None:
            arrays, figures = kept
            _restore(learner.policy, arrays)
            policy = _taken(learner.policy.scorer)
            best = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith("best.")}
            first, best_stage, self.steps_done = figures["stage"], figures["best_stage"], figures["steps_done"]
            best_ic = -math.inf if figures["best_ic"] is None else figures["best_ic"]
        stages = -(-self._settings["steps"] // _STAGE)
        patience = self._settings["patience"]
        for stage in range(first + 1, stages + 1):
            if patience != "none" and best_stage and stage - best_stage > patience:
                break
            steps = min(_STAGE, self._settings["steps"] - (stage - 1) * _STAGE)
            reward = self._learn(learner, stage, steps)
            self.steps_done += steps
            policy = _taken(learner.policy.scorer)
            rank_ic = self._held_out.rank_ic(FeedForward.of(_parts_of(policy)[0]).scores(self._held_out.features))
            if patience == "none" or rank_ic > best_ic:
                best, best_ic, best_stage = policy, rank_ic, stage
            self._supervision.progress(Progress(stage, stages, -reward, rank_ic))
            if not self._off_policy:
                self._keep(learner.policy, best, best_ic, best_stage, stage)
            if self._supervision.stop():
                raise TrainingStopped(f"training stopped after {self.steps_done} of {self._settings['steps']} steps")
        return best

    @property
    def _off_policy(self) -> bool:
        return bool(self._settings["method"] == "sac")

    def _learner(self) -> Any:
        from stable_baselines3 import A2C, PPO, SAC
        from torch.optim import Adam

        settings, (actor_critic, soft) = self._settings, shared_policies()
        common = {
            "env": self._walks(0),
            "learning_rate": settings["learning_rate"],
            "gamma": settings["discount"],
            "device": "cpu",
            "verbose": 0,
            "seed": self._seed % 2**31,
        }
        kept = {"widths": settings["widths"]}
        if self._off_policy:
            seen = 4 * self._market.widest * (self._market.features.shape[1] + 3)
            return SAC(
                soft,
                **common,
                buffer_size=int(min(settings["steps"], max(256, _REPLAY_BYTES // (2 * seen)))),
                learning_starts=256,
                batch_size=64,
                train_freq=4,
                gradient_steps=4,
                ent_coef=1e-4,
                policy_kwargs=kept,
            )
        kept |= {"log_std_init": math.log(settings["deviation"]), "optimizer_class": Adam, "optimizer_kwargs": {}}
        common |= {"n_steps": settings["steps_in_update"], "gae_lambda": 1.0, "policy_kwargs": kept}
        if settings["method"] == "a2c":
            return A2C(actor_critic, **common, normalize_advantage=True)
        batch = settings["steps_in_update"] * settings["walks"]
        return PPO(actor_critic, **common, n_epochs=1, batch_size=max(2, batch // 4), normalize_advantage=True)

    def _walks(self, stage: int) -> Any:
        from stable_baselines3.common.vec_env import DummyVecEnv

        terms = Terms(self._settings["cost_bps"], self._settings["risk_penalty"])
        length = max(2, min(128, -(-self._market.dates // self._market.horizon)))
        environment = environment_class()
        walks = DummyVecEnv([lambda: environment(self._market, terms, length)] * self._settings["walks"])
        # Each stage's walks draw from random numbers of their own.
        walks.seed(int(np.random.default_rng([self._seed, stage]).integers(2**31)))
        return walks

    def _learn(self, learner: Any, stage: int, steps: int) -> float:
        """One stage; the mean reward of its steps."""
        import torch

        drawn = np.random.default_rng([self._seed, stage, 1]).integers(2**31, size=2)
        torch.manual_seed(int(drawn[0]))
        np.random.seed(int(drawn[1]))
        learner.set_env(self._walks(stage), force_reset=True)
        collected = _collector()
        learner.learn(steps, callback=collected, reset_num_timesteps=not self._off_policy or stage == 1)
        return math.fsum(collected.rewards) / max(1, len(collected.rewards))

    def _keep(self, policy: Any, best: dict[str, Array], best_ic: float, best_stage: int, stage: int) -> None:
        if self._supervision.checkpoints is None:
            return
        arrays = _state(policy) | {f"best.{name}": array for name, array in best.items()}
        figures = {
            "stage": stage,
            "best_stage": best_stage,
            "best_ic": best_ic if math.isfinite(best_ic) else None,
            "steps_done": self.steps_done,
        }
        keep_state(self._supervision, DeepReinforcementLearning.name, self._digest, arrays, figures)


def _collector() -> Any:
    from stable_baselines3.common.callbacks import BaseCallback

    class Collector(BaseCallback):
        """Remembers the rewards of a stage."""

        def __init__(self) -> None:
            super().__init__()
            self.rewards: list[float] = []

        def _on_step(self) -> bool:
            self.rewards.extend(self.locals["rewards"].tolist())
            return True

    return Collector()


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Within, the global random numbers may be seeded; afterwards they are as they were."""
    import torch

    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)


def _first_policy(sizes: Sequence[int], seed: int) -> dict[str, Array]:
    """A random start whose scores are small beside the deviation of actions."""
    rng = np.random.default_rng([seed, 2])
    policy: dict[str, Array] = {"inertia": np.zeros((), np.float32)}
    last = len(sizes) - 2
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        deviation = math.sqrt(2.0 / inputs) if place < last else 0.1 / math.sqrt(inputs)
        policy[f"weights_{place}"] = (deviation * rng.standard_normal((inputs, outputs))).astype(np.float32)
        policy[f"biases_{place}"] = np.zeros(outputs, np.float32)
    return policy


def _layer_arrays(layers: Sequence[tuple[Array, Array]]) -> dict[str, Array]:
    return {
        f"{kind}_{place}": array
        for place, layer in enumerate(layers)
        for kind, array in zip(("weights", "biases"), layer, strict=True)
    }


def _policy_of(model: DeepReinforcementLearning) -> dict[str, Array]:
    return _layer_arrays(model.layers) | {"inertia": np.array(model.inertia, np.float32)}


def _parts_of(policy: Mapping[str, Array]) -> tuple[list[tuple[Array, Array]], float]:
    count = len(policy) // 2
    layers = [(policy[f"weights_{place}"], policy[f"biases_{place}"]) for place in range(count)]
    return layers, float(policy["inertia"])


def _linear_layers(scorer: Any) -> list[Any]:
    return [module for module in scorer.layers if hasattr(module, "weight")]


def _put(scorer: Any, policy: Mapping[str, Array]) -> None:
    """Write arrays into the scorer of a policy."""
    import torch

    with torch.no_grad():
        for place, layer in enumerate(_linear_layers(scorer)):
            layer.weight.copy_(torch.from_numpy(np.array(policy[f"weights_{place}"].T)))
            layer.bias.copy_(torch.from_numpy(np.array(policy[f"biases_{place}"])))
        scorer.inertia.copy_(torch.from_numpy(np.array(policy["inertia"] / np.float32(PACE))))


def _taken(scorer: Any) -> dict[str, Array]:
    """The arrays of a scorer; scores are in units of the action's bound for SAC, which changes no order."""
    layers = [
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in _linear_layers(scorer)
    ]
    return _layer_arrays(layers) | {"inertia": np.float32(PACE) * scorer.inertia.detach().numpy()}


def _state(policy: Any) -> dict[str, Array]:
    """Everything of an actor-critic that learning changes: parameters and Adam's moments."""
    arrays: dict[str, Array] = {}
    for name, tensor in policy.named_parameters():
        arrays[f"policy.{name}"] = tensor.detach().numpy().copy()
        moments = policy.optimizer.state[tensor]
        if moments:
            arrays[f"step.{name}"] = np.array(int(moments["step"]), np.int64)
            arrays[f"first.{name}"] = moments["exp_avg"].numpy().copy()
            arrays[f"second.{name}"] = moments["exp_avg_sq"].numpy().copy()
    return arrays


def _restore(policy: Any, arrays: Mapping[str, Array]) -> None:
    """Put back what `_state` took."""
    import torch

    with torch.no_grad():
        for name, tensor in policy.named_parameters():
            tensor.copy_(torch.from_numpy(np.array(arrays[f"policy.{name}"])))
            if f"step.{name}" in arrays:
                policy.optimizer.state[tensor] = {
                    "step": torch.tensor(float(arrays[f"step.{name}"])),
                    "exp_avg": torch.from_numpy(np.array(arrays[f"first.{name}"])),
                    "exp_avg_sq": torch.from_numpy(np.array(arrays[f"second.{name}"])),
                }
