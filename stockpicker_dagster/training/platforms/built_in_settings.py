"""The hyperparameters of SageMaker's built-in algorithms that may be set here; names and ranges are SageMaker's.

What would make a score something else than one number a row, such as classification, cannot be set.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.hyperparameters import Hyperparameter, Value, check_settings
from stockpicker_dagster.research.algorithms.xgboost_model import OBJECTIVES

BuiltIn = Literal["xgboost", "linear-learner"]

_LOSSES = ("squared_loss", "absolute_loss", "huber_loss")
_OPTIMIZERS = ("auto", "adam", "sgd", "rmsprop")
_SWITCH = ("auto", "true", "false")

DECLARED: dict[str, tuple[Hyperparameter, ...]] = {
    "xgboost": (
        Hyperparameter("num_round", int, 200, "rounds of boosting", "trees", 1, 10_000),
        Hyperparameter("objective", str, OBJECTIVES[0], "what is minimized", "a name", words=OBJECTIVES),
        Hyperparameter("eta", float, 0.05, "shrinkage of each tree", "a fraction", 0, 1),
        Hyperparameter("max_depth", int, 6, "depth of a tree", "levels", 1, 20),
        Hyperparameter("min_child_weight", float, 1.0, "least weight in a leaf", "rows", 0),
        Hyperparameter("gamma", float, 0.0, "least gain of a split", "loss", 0),
        Hyperparameter("lambda", float, 1.0, "L2 penalty of leaves", "a weight", 0),
        Hyperparameter("alpha", float, 0.0, "L1 penalty of leaves", "a weight", 0),
        Hyperparameter("subsample", float, 1.0, "rows that a tree sees", "a fraction", 0.01, 1),
        Hyperparameter("colsample_bytree", float, 1.0, "features that a tree sees", "a fraction", 0.01, 1),
        Hyperparameter(
            "early_stopping_rounds", int, 0, "rounds without gain on validation; 0: never", "trees", 0, 1_000
        ),
        Hyperparameter("seed", int, 0, "of sampling", "a number", 0, 2**31 - 1),
    ),
    "linear-learner": (
        Hyperparameter("epochs", int, 15, "passes over the training table", "passes", 1, 1_000),
        Hyperparameter("mini_batch_size", int, 1_000, "rows of a step", "rows", 1, 10_000_000),
        Hyperparameter(
            "loss",
            str,
            "squared_loss",
            "what is minimized",
            "a name",
            words=("squared_loss", "absolute_loss", "huber_loss"),
        ),
        Hyperparameter("learning_rate", float, "auto", "size of a step", "a rate", 1e-7, 1, words=("auto",)),
        Hyperparameter(
            "optimizer", str, "auto", "how steps are taken", "a name", words=("auto", "adam", "sgd", "rmsprop")
        ),
        Hyperparameter("l1", float, "auto", "L1 penalty", "a weight", 0, words=("auto",)),
        Hyperparameter("wd", float, "auto", "L2 penalty", "a weight", 0, words=("auto",)),
        Hyperparameter(
            "num_models", int, 32, "models trained side by side, the best of which is kept", "models", 1, 64
        ),
        Hyperparameter(
            "normalize_label", str, "auto", "whether the label is scaled", "a word", words=("auto", "true", "false")
        ),
    ),
}
"""The settings of each algorithm; the names and ranges are SageMaker's, where we allow them."""
FIXED: dict[str, dict[str, str]] = {
    "xgboost": {"booster": "gbtree", "verbosity": "1"},
    "linear-learner": {"predictor_type": "regressor", "feature_dim": "auto"},
}
"""What every request says beside them."""


def validate_settings(algorithm: str, given: Mapping[str, object] | None = None) -> dict[str, Value]:
    """All hyperparameters of a built-in algorithm: those given, checked, and defaults for the rest.

    Raises `InvalidInput` naming what is unknown or not allowed, and what is.
    """
    if algorithm not in get_args(BuiltIn):
        raise InvalidInput(f"built-in algorithm {algorithm!r} is unknown; known: {', '.join(get_args(BuiltIn))}")
    return check_settings(algorithm, DECLARED[algorithm], given)
