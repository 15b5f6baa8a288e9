import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize
from sklearn.linear_model import ElasticNet
from sklearn.linear_model import Ridge as SklearnRidge

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import Progress, Supervision, TrainingStopped
from stockpicker_dagster.research.algorithms.linear import ALPHA_GRID, ARTIFACT, LinearModel

FEATURES = ["size", "value", "momentum"]
WEIGHTS = np.array([0.3, -0.2, 0.0])


def table(seed: int, days: int = 25, noise: float = 1.0, first: date = date(2020, 1, 1)) -> pl.DataFrame:
    """Days of unequal size, features that are correlated, a label with known weights."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 40, days)
    dates = [first + timedelta(days=day) for day, size in enumerate(sizes) for _ in range(size)]
    features = rng.normal(size=(len(dates), 3))
    features[:, 2] += 0.8 * features[:, 0]
    label = 0.05 + features @ WEIGHTS + noise * rng.normal(size=len(dates))
    columns = {name: features[:, position].astype(np.float32) for position, name in enumerate(FEATURES)}
    symbols = [f"S{row:05d}" for row in range(len(dates))]
    return pl.DataFrame({"symbol": symbols, "date": dates, "label": label, **columns})


def matrix(frame: pl.DataFrame) -> np.ndarray:
    return frame.select(FEATURES).to_numpy()


def fit(
    alpha: float | str = 0.5, train: pl.DataFrame | None = None, validation: pl.DataFrame | None = None
) -> LinearModel:
    known = table(1) if train is None else train
    held_out = table(2, first=date(2021, 1, 1)) if validation is None else validation
    return LinearModel.fit(known, held_out, FEATURES, "label", {"alpha": alpha})


def date_weights(frame: pl.DataFrame) -> np.ndarray:
    return frame.select(1 / (pl.len().over("date") * frame["date"].n_unique())).to_series().to_numpy()


@pytest.mark.parametrize("alpha", [0.0, 0.01, 1.0, 50.0])
def test_coefficients_agree_with_scikit_learn_where_every_date_weighs_the_same(alpha: float) -> None:
    train = table(1)
    reference = SklearnRidge(alpha=alpha, solver="cholesky").fit(
        matrix(train).astype(float), train["label"], sample_weight=date_weights(train)
    )
    model = fit(alpha, train)
    np.testing.assert_allclose(model.coefficients, reference.coef_, rtol=1e-9)
    assert model.intercept == pytest.approx(reference.intercept_, rel=1e-9)
    np.testing.assert_allclose(
        model.predict(matrix(train), FEATURES), reference.predict(matrix(train).astype(float)), rtol=1e-9, atol=1e-12
    )


def test_a_plain_signal_is_recovered_without_noise() -> None:
    model = fit(0.0, table(3, noise=0.0))
    np.testing.assert_allclose(model.coefficients, WEIGHTS, atol=1e-6)
    assert model.intercept == pytest.approx(0.05, abs=1e-6)


def test_copies_of_a_date_change_nothing() -> None:
    train = table(1)
    doubled = pl.concat([train, train.filter(pl.col("date") == date(2020, 1, 3)).with_columns(symbol=pl.lit("copy"))])
    np.testing.assert_allclose(fit(1.0, doubled).coefficients, fit(1.0, train).coefficients, rtol=1e-9)


def test_auto_takes_the_alpha_with_the_best_rank_ic_on_validation() -> None:
    train, validation = table(1, days=4, noise=3.0), table(2, first=date(2021, 1, 1))
    chosen = fit("auto", train, validation)
    by_alpha = {alpha: fit(alpha, train, validation).metrics["validation_rank_ic"] for alpha in ALPHA_GRID}
    best = max(by_alpha.values())
    assert len(set(by_alpha.values())) > 1
    assert chosen.chosen["alpha"] == max(alpha for alpha, value in by_alpha.items() if value == best)
    assert chosen.metrics["validation_rank_ic"] == best


def test_of_equally_good_alphas_the_largest_is_taken() -> None:
    # One feature alone ranks the stocks the same way under every penalty.
    model = LinearModel.fit(table(1), table(2, first=date(2021, 1, 1)), ["size"], "label")
    assert model.chosen["alpha"] == max(ALPHA_GRID)


def test_rank_ic_agrees_with_scipy() -> None:
    model, validation = fit(), table(2, first=date(2021, 1, 1)).with_columns(pl.col("label").round(1))
    measured = LinearModel.fit(table(1), validation, FEATURES, "label", {"alpha": 0.5}).metrics["validation_rank_ic"]
    daily = [
        stats.spearmanr(model.predict(matrix(day), FEATURES), day["label"]).statistic
        for day in validation.partition_by("date")
    ]
    assert measured == pytest.approx(np.mean(daily), rel=1e-9)


def test_fitting_twice_and_in_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    fit("auto").save(tmp_path / "one")
    fit("auto", table(1).sample(fraction=1.0, shuffle=True, seed=3)).save(tmp_path / "two")
    assert (tmp_path / "one" / ARTIFACT).read_bytes() == (tmp_path / "two" / ARTIFACT).read_bytes()


def test_rows_without_a_label_are_left_out() -> None:
    train = table(1)
    nothing = pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col("label"))
    partly = train.with_columns(label=nothing)
    expected = fit(0.5, partly.drop_nulls("label")).coefficients
    assert fit(0.5, partly).coefficients.tobytes() == expected.tobytes()
    assert (
        fit(0.5, partly.with_columns(pl.col("label").fill_null(float("nan")))).coefficients.tobytes()
        == expected.tobytes()
    )


@settings(max_examples=40, deadline=None)
@given(rows=st.sets(st.integers(0, 300), min_size=1), seed=st.integers(0, 100))
def test_a_score_does_not_depend_on_the_rows_scored_with_it(rows: set[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    many = [f"feature_{number}" for number in range(37)]
    model = LinearModel(tuple(many), "label", 0.1, rng.normal(size=37))
    values = rng.normal(size=(301, 37)).astype(np.float32)
    chosen = sorted(rows)
    whole = model.predict(values, many)
    assert model.predict(values[chosen], many).tobytes() == whole[chosen].tobytes()
    assert model.predict(np.asfortranarray(values), many).tobytes() == whole.tobytes()
    assert whole.dtype == np.float64


def test_contributions_and_the_intercept_add_up_to_the_score() -> None:
    model, values = fit(), matrix(table(4))
    contributions = model.contributions(values, FEATURES)
    assert contributions.shape == values.shape
    np.testing.assert_allclose(
        contributions.sum(axis=1) + model.intercept, model.predict(values, FEATURES), rtol=1e-12, atol=1e-14
    )


def test_a_loaded_model_scores_the_same_bytes(tmp_path: Path) -> None:
    model, values = fit("auto"), matrix(table(4))
    model.save(tmp_path)
    loaded = LinearModel.load(tmp_path)
    assert loaded.predict(values, FEATURES).tobytes() == model.predict(values, FEATURES).tobytes()
    assert (loaded.label, loaded.chosen, loaded.metrics) == (model.label, model.chosen, model.metrics)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / ARTIFACT).read_bytes() == (tmp_path / ARTIFACT).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": [1.0, 2.0]}, "2 coefficients for 3 features"),
        ({"coefficients": [1.0, 2.0, "3"]}, "other than finite numbers in 'coefficients'"),
        ({"features": ["size", "size", "value"]}, "lacks \\['features'\\]"),
        ({"algorithm": "boosted_trees"}, "no model of algorithm 'linear'"),
        ({"format": 2}, "no model of algorithm 'linear'"),
        ({"intercept": None}, "lacks \\['intercept'\\]"),
    ],
)
def test_an_artifact_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    fit().save(tmp_path)
    document = json.loads((tmp_path / ARTIFACT).read_text()) | change
    (tmp_path / ARTIFACT).write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match=message):
        LinearModel.load(tmp_path)


def test_a_missing_or_broken_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        LinearModel.load(tmp_path)
    (tmp_path / ARTIFACT).write_text("{")
    with pytest.raises(InvalidInput, match="cannot be read"):
        LinearModel.load(tmp_path)


def test_changed_features_are_named() -> None:
    model = fit()
    values = matrix(table(4))
    with pytest.raises(InvalidInput, match=r"missing \['momentum'\], not trained on \['beta'\]"):
        model.predict(values, ["size", "value", "beta"])
    with pytest.raises(InvalidInput, match="in that order"):
        model.contributions(values, FEATURES[::-1])
    with pytest.raises(InvalidInput, match=r"shape \(\d+, 2\)"):
        model.predict(values[:, :2], FEATURES)


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_features_that_are_not_finite_are_named(bad: float | None) -> None:
    spoilt = table(1).with_columns(value=pl.when(pl.int_range(pl.len()) == 7).then(bad).otherwise(pl.col("value")))
    with pytest.raises(InvalidInput, match=r"training features \['value'\]"):
        fit(0.5, spoilt)
    with pytest.raises(InvalidInput, match=r"validation features \['value'\]"):
        fit(0.5, validation=spoilt)
    with pytest.raises(InvalidInput, match=r"features to score \['value'\]"):
        fit().predict(matrix(spoilt), FEATURES)


def test_tables_without_labels_or_columns_are_refused() -> None:
    empty = table(1).with_columns(label=pl.lit(None, dtype=pl.Float64))
    with pytest.raises(InvalidInput, match="training table has no row with a 'label'"):
        fit(0.5, empty)
    with pytest.raises(InvalidInput, match="alpha 'auto' is chosen on the validation period"):
        fit("auto", validation=empty)
    with pytest.raises(InvalidInput, match=r"training table lacks the columns \['size'\]"):
        fit(0.5, table(1).drop("size"))
    with pytest.raises(InvalidInput, match="of any feature"):
        LinearModel.fit(table(1), table(2), [], "label")
    assert np.isnan(fit(0.5, validation=empty).metrics["validation_rank_ic"])


def test_linearly_dependent_features_need_a_penalty() -> None:
    twins = table(1).with_columns(momentum=pl.col("size"))
    with pytest.raises(InvalidInput, match="depend linearly"):
        fit(0.0, twins)
    model = fit(0.1, twins)
    assert model.coefficients[0] == pytest.approx(model.coefficients[2])


@pytest.mark.parametrize(("alpha", "l1_ratio"), [(0.05, 0.5), (0.2, 0.9), (0.01, 1.0)])
def test_the_elastic_net_agrees_with_scikit_learn(alpha: float, l1_ratio: float) -> None:
    train = table(1)
    reference = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000).fit(
        matrix(train).astype(float), train["label"], sample_weight=date_weights(train)
    )
    settings = {"method": "elastic_net", "alpha": alpha, "l1_ratio": l1_ratio}
    model = LinearModel.fit(train, table(2), FEATURES, "label", settings)
    np.testing.assert_allclose(model.coefficients, reference.coef_, atol=1e-8)
    assert model.intercept == pytest.approx(reference.intercept_, abs=1e-8)
    assert model.chosen == settings


def test_the_elastic_net_leaves_out_what_carries_nothing() -> None:
    model = LinearModel.fit(
        table(1, noise=0.0), table(2), FEATURES, "label", {"method": "elastic_net", "alpha": 0.05, "l1_ratio": 1.0}
    )
    assert [bool(value) for value in model.coefficients] == [True, True, False]


@pytest.mark.parametrize("threshold", [0.2, 1.0])
def test_huber_agrees_with_a_general_minimizer(threshold: float) -> None:
    train = table(1).with_columns(label=pl.col("label") + 40 * (pl.int_range(pl.len()) % 50 == 0))
    weights, alpha = date_weights(train), 0.3
    values, label = matrix(train).astype(float), train["label"].to_numpy()
    deviation = np.sqrt(np.average((label - np.average(label, weights=weights)) ** 2, weights=weights))
    limit = threshold * deviation

    def objective(parameters: np.ndarray) -> float:
        size = np.abs(label - parameters[0] - values @ parameters[1:])
        losses = np.where(size <= limit, size**2, 2 * limit * size - limit**2)
        return float(np.average(losses, weights=weights) + alpha * (parameters[1:] ** 2).sum())

    expected = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-10}).x
    model = LinearModel.fit(
        train, table(2), FEATURES, "label", {"method": "huber", "alpha": alpha, "threshold": threshold}
    )
    np.testing.assert_allclose([model.intercept, *model.coefficients], expected, atol=1e-4)


def test_huber_moves_less_than_ridge_when_a_few_labels_are_absurd() -> None:
    absurd = table(1).with_columns(label=pl.col("label") + 40 * pl.col("size") * (pl.int_range(pl.len()) % 97 == 0))
    errors = {
        method: np.abs(
            LinearModel.fit(absurd, table(2), FEATURES, "label", {"method": method, "alpha": 0.01}).coefficients
            - WEIGHTS
        ).max()
        for method in ("ridge", "huber")
    }
    assert errors["huber"] < 0.5 * errors["ridge"]


@pytest.mark.parametrize("method", ["elastic_net", "huber"])
def test_every_method_chooses_its_penalty_and_loads_again(method: str, tmp_path: Path) -> None:
    model = LinearModel.fit(table(1), table(2, first=date(2021, 1, 1)), FEATURES, "label", {"method": method})
    assert isinstance(model.chosen["alpha"], float)
    model.save(tmp_path)
    values = matrix(table(4))
    loaded = LinearModel.load(tmp_path)
    assert loaded.predict(values, FEATURES).tobytes() == model.predict(values, FEATURES).tobytes()
    assert loaded.chosen == model.chosen


def test_labels_that_do_not_differ_within_a_date_are_refused() -> None:
    same = table(1).with_columns(label=pl.lit(0.25))
    with pytest.raises(InvalidInput, match=r"every row of a date has the same 'label' .*0\.25"):
        fit(0.5, same)


def test_progress_is_told_for_every_penalty_and_a_stop_is_heeded() -> None:
    seen: list[Progress] = []
    LinearModel.fit(table(1), table(2), FEATURES, "label", supervision=Supervision(progress=seen.append))
    assert [(each.step, each.of) for each in seen] == [(step, 5) for step in range(1, 6)]
    assert all(np.isfinite([each.loss, each.validation_rank_ic]).all() for each in seen)
    with pytest.raises(TrainingStopped, match="stopped before alpha 100"):
        LinearModel.fit(table(1), table(2), FEATURES, "label", supervision=Supervision(stop=lambda: True))


def test_a_warm_start_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one solution, wherever it starts"):
        LinearModel.fit(table(1), table(2), FEATURES, "label", start_from=fit())
