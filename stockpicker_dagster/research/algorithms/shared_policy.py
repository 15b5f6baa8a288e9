"""Policies for stable-baselines3 that score every stock by the same small network, however many stocks there are.

A stock's score is a network of its features plus `inertia` times its current weight: what it is worth to keep what is
held. Actor-critics (A2C, PPO) explore with a normal deviation that is given, not learned; the critic sees the mean of
the cross-section. For SAC the critic judges each stock's features, weight and score, and averages.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from stockpicker_dagster.research.algorithms.long_short_environment import BOUND

PACE = 5.0
"""Inertia is learned so many times faster than other parameters: it has to outgrow the deviation of actions before a
book is left as it is, where that is right."""


@lru_cache(maxsize=1)
def shared_policies() -> tuple[type[Any], type[Any]]:
    """(actor-critic policy, SAC policy); made on demand because PyTorch and stable-baselines3 are extras.

    Both take `widths`, the units of hidden layers, and have a `scorer`.
    """
    import torch
    from stable_baselines3.common.distributions import DiagGaussianDistribution, SquashedDiagGaussianDistribution
    from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
    from stable_baselines3.sac.policies import SACPolicy
    from torch import nn

    # What the library declares of its classes is wider than what these policies take.
    actor_critic_base: Any = ActorCriticPolicy
    soft_base: Any = SACPolicy

    class Scorer(nn.Module):
        """The score of each stock of an observation (batch, stocks, features + 2); 0 for a row without one."""

        def __init__(self, features: int, widths: Sequence[int]) -> None:
            super().__init__()
            self.layers = layers_of(features, widths)
            self.inertia = nn.Parameter(torch.zeros(()))

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            scores = self.layers(seen[..., :-2]).squeeze(-1) + PACE * self.inertia * seen[..., -2]
            return scores * seen[..., -1]

    class SharedActorCritic(actor_critic_base):
        """A normal distribution of fixed deviation around the scores, and a linear critic of the mean stock."""

        def __init__(
            self,
            observation_space: Any,
            action_space: Any,
            lr_schedule: Any,
            widths: Sequence[int] = (16,),
            **rest: Any,
        ) -> None:
            self._widths = tuple(widths)
            super().__init__(observation_space, action_space, lr_schedule, **rest)

        def _build(self, lr_schedule: Any) -> None:
            features = self.observation_space.shape[1] - 2
            self.scorer = Scorer(features, self._widths)
            self.critic = nn.Linear(features, 1)
            nn.init.zeros_(self.critic.weight)
            nn.init.zeros_(self.critic.bias)
            self.register_buffer("deviation", torch.full((self.action_space.shape[0],), float(self.log_std_init)))
            learned = [*self.scorer.parameters(), *self.critic.parameters()]
            self.optimizer = self.optimizer_class(learned, lr=lr_schedule(1), **self.optimizer_kwargs)

        def forward(
            self, obs: torch.Tensor, deterministic: bool = False
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            distribution = self.get_distribution(obs)
            actions = distribution.get_actions(deterministic=deterministic)
            return actions, self.predict_values(obs), distribution.log_prob(actions)

        def evaluate_actions(
            self, obs: torch.Tensor, actions: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
            distribution = self.get_distribution(obs)
            return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

        def get_distribution(self, obs: torch.Tensor) -> DiagGaussianDistribution:
            distribution = DiagGaussianDistribution(self.action_space.shape[0])
            return distribution.proba_distribution(self.scorer(obs), self.deviation)

        def predict_values(self, obs: torch.Tensor) -> torch.Tensor:
            here = obs[..., -1:]
            return self.critic((obs[..., :-2] * here).sum(1) / here.sum(1).clamp(min=1.0))

        def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
            return self.get_distribution(observation).get_actions(deterministic=deterministic)

    class SharedActor(BasePolicy):
        """A squashed normal distribution around the scores, whose one deviation is learned."""

        def __init__(self, observation_space: Any, action_space: Any, widths: Sequence[int]) -> None:
            super().__init__(observation_space, action_space, squash_output=True, normalize_images=False)
            self.scorer = Scorer(observation_space.shape[1] - 2, widths)
            self.log_deviation = nn.Parameter(torch.tensor(-0.7))
            self.action_dist = SquashedDiagGaussianDistribution(action_space.shape[0])

        def get_action_dist_params(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
            mean = self.scorer(obs) / BOUND
            return mean, self.log_deviation.clamp(-3.0, 0.0).expand_as(mean), {}

        def forward(self, obs: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
            mean, deviation, rest = self.get_action_dist_params(obs)
            return self.action_dist.actions_from_params(mean, deviation, deterministic=deterministic, **rest)

        def action_log_prob(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean, deviation, rest = self.get_action_dist_params(obs)
            return self.action_dist.log_prob_from_params(mean, deviation, **rest)

        def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
            return self(observation, deterministic)

    class SharedCritic(BaseModel):
        """Two judgements of a book: the mean over its stocks of a network of features, weight and score."""

        def __init__(self, observation_space: Any, action_space: Any, widths: Sequence[int]) -> None:
            super().__init__(observation_space, action_space, normalize_images=False)
            self.judges = nn.ModuleList(layers_of(observation_space.shape[1], widths) for _ in range(2))

        def forward(self, obs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
            here = obs[..., -1:]
            given = torch.cat([obs[..., :-1], BOUND * actions.unsqueeze(-1)], dim=-1)
            count = here.sum(1).clamp(min=1.0)
            return tuple((judge(given) * here).sum(1) / count for judge in self.judges)

        def q1_forward(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return self(obs, actions)[0]

    class SharedSoftPolicy(soft_base):
        """The actor and the critics of SAC."""

        def __init__(
            self,
            observation_space: Any,
            action_space: Any,
            lr_schedule: Any,
            widths: Sequence[int] = (16,),
            **rest: Any,
        ) -> None:
            self._widths = tuple(widths)
            super().__init__(observation_space, action_space, lr_schedule, **rest)

        def make_actor(self, features_extractor: Any = None) -> Any:
            return SharedActor(self.observation_space, self.action_space, self._widths).to(self.device)

        def make_critic(self, features_extractor: Any = None) -> Any:
            return SharedCritic(self.observation_space, self.action_space, (32, 32)).to(self.device)

        @property
        def scorer(self) -> Any:
            return self.actor.scorer

    def layers_of(inputs: int, widths: Sequence[int]) -> nn.Sequential:
        sizes = [inputs, *widths]
        modules: list[nn.Module] = []
        for before, after in pairwise(sizes):
            modules += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*modules, nn.Linear(sizes[-1], 1))

    return SharedActorCritic, SharedSoftPolicy
