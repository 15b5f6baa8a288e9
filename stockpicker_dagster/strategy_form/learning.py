"""What is learned, from which periods, by which algorithm, and where."""

import difflib
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import (
    algorithm,
    check_packages,
    known_algorithms,
    validate_hyperparameters,
)
from stockpicker_dagster.strategy_form.base import Form, Misfit
from stockpicker_dagster.training.platforms import default_platform
from stockpicker_dagster.training.search import SearchSettings, check_search

Period = Annotated[
    tuple[date, date],
    # Dagster makes a sample file from the schema and reads lists of one kind only.
    WithJsonSchema({"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 2, "maxItems": 2}),
]


class LabelForm(Form):
    """What is learned: the return from the next open to one `horizon_days` sessions later, less the universe's mean."""

    horizon_days: int = Field(5, ge=1, le=252, description="Sessions between entry and exit.")
    transform: Literal["rank", "standard", "none"] = Field(
        "rank", description="Per date: ranks, standard scores, or the returns themselves."
    )
    winsorize: float | None = Field(
        None, gt=0, lt=0.5, description="Per date: quantile at which both tails are clipped."
    )

    @property
    def quantiles(self) -> tuple[float, float] | None:
        """Both quantiles at which tails are clipped."""
        return None if self.winsorize is None else (self.winsorize, 1 - self.winsorize)


class PeriodsForm(Form):
    """When is trained, validated and tested: fixed dates, or walk-forward with a model for each period served."""

    train: Period | None = Field(None, description="Fixed: first and last date trained on.")
    validation: Period | None = Field(None, description="Fixed: first and last date validated on.")
    test: Period | None = Field(None, description="Fixed: first and last date tested on.")
    train_years: int | None = Field(None, ge=1, le=50, description="Walk-forward: years trained on.")
    validation_years: int | None = Field(
        None, ge=1, le=20, description="Walk-forward: years validated on, after those trained on."
    )
    retrain: Literal["weekly", "monthly", "quarterly", "yearly"] | None = Field(
        None, description="Walk-forward: how often a new model is trained."
    )

    window: Literal["rolling", "expanding"] | None = Field(
        None,
        description="Walk-forward: `rolling` (default) always trains on train_years; `expanding` on everything since "
        "the first day with full features, at least train_years.",
    )

    def _agree(self) -> None:
        fixed = {"train": self.train, "validation": self.validation, "test": self.test}
        walking = {"train_years": self.train_years, "validation_years": self.validation_years, "retrain": self.retrain}
        given_fixed = [name for name, value in fixed.items() if value is not None]
        given_walking = [name for name, value in walking.items() if value is not None]
        if (len(given_fixed), len(given_walking)) not in {(3, 0), (0, 3)}:
            given = ", ".join(given_fixed + given_walking) or "nothing"
            raise Misfit(
                "periods are either train, validation and test, or train_years, validation_years and retrain; "
                f"given: {given}"
            )
        if self.window is not None and self.retrain is None:
            raise Misfit(
                f"periods window {self.window!r} is for walk-forward models; leave it out, or give train_years, "
                "validation_years and retrain",
                "window",
            )

    @field_validator("train", "validation", "test")
    @classmethod
    def _in_order(cls, value: tuple[date, date] | None, others: ValidationInfo) -> tuple[date, date] | None:
        if value is None:
            return value
        (first, last), name = value, others.field_name
        if first > last:
            raise ValueError(f"{name} is reversed: it begins on {first} and ends on {last}; swap the dates")
        for earlier in ("train", "validation"):
            ends = (others.data.get(earlier) or (None, None))[1] if earlier != name else None
            if ends is not None and first <= ends:
                raise ValueError(
                    f"{name} begins on {first}, which is not after {earlier}, which ends on {ends}; begin it later"
                )
        return value

    @property
    def walk_forward(self) -> bool:
        """Whether a model is trained for each period, rather than once."""
        return self.retrain is not None


class SearchForm(Form):
    """Hyperparameters that are searched for, anew for every model, on the days that it may learn from."""

    over: dict[str, list[Any]] = Field(
        description="Hyperparameters by name: a number's range as [least, most], or two choices or more."
    )
    trials: int = Field(20, ge=1, le=1000, description="How many settings are tried.")
    method: Literal["walk_forward", "combinatorial"] = Field(
        "walk_forward",
        description="How folds are made: each tested by what was known before it, or by everything around it, purged.",
    )
    folds: int = Field(3, ge=2, le=10, description="On how many folds each trial is fitted and judged.")


class AlgorithmForm(Form):
    """What learns."""

    name: str = Field(
        "linear",
        description="The algorithm by name: `linear`, `boosted_trees`, `neural_network` or "
        "`deep_reinforcement_learning`.",
    )
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the algorithm; Learning lists them with type, range and default."
    )
    seed: int = Field(0, ge=0, description="Fixes whatever the algorithm draws at random.")
    search: SearchForm | None = Field(None, description="A search for further hyperparameters; none by default.")
    start: Literal["cold", "warm"] = Field(
        "cold",
        description="Where learning begins: `cold`, at random; `warm`, walk-forward and for `neural_network` and "
        "`deep_reinforcement_learning`, at the model of the period before.",
    )

    @property
    def warm_start(self) -> bool:
        """Whether each model begins from the one of the period before."""
        return self.start == "warm"

    @property
    def search_settings(self) -> SearchSettings | None:
        """The search as training takes it."""
        asked = self.search
        return None if asked is None else SearchSettings(asked.trials, asked.over, asked.method, asked.folds)

    def _agree(self) -> None:
        if self.warm_start and not algorithm(self.name).warm_starts:
            able = [name for name in known_algorithms() if algorithm(name).warm_starts]
            raise Misfit(
                f"algorithm start 'warm' is for {' and '.join(able)}, not for {self.name}; leave it out", "start"
            )
        if self.warm_start and self.search is not None:
            raise Misfit(
                "algorithm start 'warm' and a search do not go together, because a search may choose other layers than "
                "the model before has; leave one of them out",
                "start",
            )
        if self.search_settings is not None:
            try:
                check_search(self.name, self.hyperparameters, self.search_settings)
            except InvalidInput as error:
                raise Misfit(str(error), "search") from error

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, value: str) -> str:
        algorithm(value)
        check_packages(value)
        return value

    @field_validator("hyperparameters")
    @classmethod
    def _hyperparameters_are_allowed(cls, value: dict[str, Any], others: ValidationInfo) -> dict[str, Any]:
        if "name" in others.data:
            validate_hyperparameters(others.data["name"], value)
        return value


class TrainingForm(Form):
    """Where training runs."""

    platform: Literal["auto", "local", "sagemaker"] = Field(
        "auto",
        description="`auto`: where the deployment is, so that on `aws` it is SageMaker; `local`: on this machine, "
        "whatever the deployment; `sagemaker`: in the account of the deployment `aws` alone.",
    )
    instance_type: str | None = Field(
        None, description="The machine on SageMaker; unset, ml.m5.xlarge. Not on platform local."
    )
    volume_gb: int | None = Field(None, ge=1, le=16384, description="Its disk in GB; unset, 30. Not on platform local.")
    max_wait_hours: float | None = Field(
        None,
        gt=0,
        le=672,
        description="Takes spot capacity of SageMaker, and is the most hours to wait for it, training included; unset, "
        "on demand. Not on platform local.",
    )
    scoring: Literal["process", "transform", "serverless", "endpoint"] | None = Field(
        None,
        description="How days are scored: `process`, where Dagster runs; `transform`, by a batch job of the platform; "
        "`serverless` or `endpoint`, by an endpoint that is deleted afterwards. Unset, `process` on this machine and "
        "`transform` on SageMaker.",
    )
    scoring_instance_type: str | None = Field(
        None, description="The machine that scores on SageMaker; unset, ml.m5.xlarge. Not on platform local."
    )
    max_hours: float = Field(24, gt=0, le=672, description="Hours that one model may train; then it is stopped.")

    @property
    def runs_on(self) -> Literal["local", "sagemaker"]:
        """The platform, whether it was said or not. Raises `InvalidInput` for an environment that is wrong."""
        return default_platform() if self.platform == "auto" else self.platform

    @property
    def platform_settings(self) -> dict[str, Any]:
        """What the platform `runs_on` is made with; this machine is what it is."""
        return self._of_sagemaker if self.runs_on == "sagemaker" else {}

    @property
    def scored_by(self) -> Literal["process", "transform", "serverless", "endpoint"]:
        """How days are scored, whether it was said or not."""
        return self.scoring or ("process" if self.runs_on == "local" else "transform")

    @property
    def _of_sagemaker(self) -> dict[str, Any]:
        names = ("instance_type", "volume_gb", "max_wait_hours", "scoring_instance_type")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @field_validator("instance_type")
    @classmethod
    def _instance_type_trains(cls, value: str | None) -> str | None:
        _check_instance_type("instance_type", value, "train", ["TrainingInstanceType"])
        return value

    @field_validator("scoring_instance_type")
    @classmethod
    def _scoring_instance_type_scores(cls, value: str | None) -> str | None:
        kinds = ["TransformInstanceType", "ProductionVariantInstanceType"]
        _check_instance_type("scoring_instance_type", value, "score, by transform and by endpoint,", kinds)
        return value

    def _agree(self) -> None:
        if self.platform == "local" and self._of_sagemaker:
            raise Misfit(
                f"training {', '.join(self._of_sagemaker)} is for SageMaker, which platform local never is; leave it "
                "out, or set platform: auto",
                next(iter(self._of_sagemaker)),
            )
        if self.max_wait_hours is not None and self.max_wait_hours < self.max_hours:
            raise Misfit(
                f"training max_wait_hours {self.max_wait_hours} is less than max_hours {self.max_hours}, which it "
                "includes; raise it, or lower max_hours",
                "max_wait_hours",
            )


def _check_instance_type(field: str, value: str | None, does: str, kinds: list[str]) -> None:
    """Raises `ValueError` unless SageMaker has machines of that type for every one of `kinds`."""
    if value is None:
        return
    from stockpicker_dagster.training.platforms.validation import allowed_values

    known = [each for each in allowed_values(kinds[0]) if all(each in allowed_values(kind) for kind in kinds[1:])]
    if value not in known:
        near = ", ".join(difflib.get_close_matches(value, known, n=5, cutoff=0.4) or known[:5])
        raise ValueError(f"{field} {value!r} cannot {does} on SageMaker; such as {near}")
