import pickle

import numpy as np
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features import FeatureSet, Panel, feature, feature_set
from stockpicker_dagster_tests.research.price_frames import START, random_market, sessions


@feature(lookback=2, inputs=["close"])
def ratio(panel: Panel) -> np.ndarray:
    """C_t / C_t."""
    return panel.close / panel.close


@feature(lookback=7, inputs=["open", "high"], scale_invariant=False, price_level=True)
def level(panel: Panel) -> np.ndarray:
    """O_t."""
    return panel.open


def panel() -> Panel:
    days = sessions(START, START.replace(day=12))
    return Panel.from_prices(random_market(days, 2), days, ["S0", "S1"])


def test_a_declaration_keeps_name_lookback_inputs_and_docstring() -> None:
    assert (level.name, level.lookback, level.inputs) == ("level", 7, ("open", "high"))
    assert level.description == "O_t."


def test_a_set_knows_its_columns_longest_lookback_and_inputs() -> None:
    both = FeatureSet.of("mine", [level, ratio])
    assert both.names == ("level", "ratio")
    assert both.lookback == 7
    assert both.inputs == ("open", "high", "close")


def test_a_selection_keeps_the_anchor_of_its_set() -> None:
    chosen = FeatureSet.of("mine", [level, ratio]).select(["ratio"])
    assert chosen.names == ("ratio",)
    assert chosen.lookback == 7


def test_an_unknown_feature_is_named_with_the_nearest_and_the_known() -> None:
    with pytest.raises(InvalidInput, match="'high_52_weeks' is not in the set 'factors'; did you mean 'high_52_week'"):
        feature_set("factors").select(["high_52_weeks"])


def test_an_unknown_set_is_named_with_the_known() -> None:
    with pytest.raises(InvalidInput, match="'factor' is unknown; known: alpha158, factors, multi_factor"):
        feature_set("factor")


def test_split_adjusted_prices_have_no_price_level_and_say_so() -> None:
    safe = FeatureSet.of("mine", [level, ratio]).without_price_level()
    assert safe.names == ("ratio",)
    assert safe.lookback == 7
    with pytest.raises(InvalidInput, match="'level' is a price level"):
        safe.select(["level"])
    with pytest.raises(InvalidInput, match="'level' is a price level"):
        safe.select(["ratio"]).select(["level"])
    with pytest.raises(InvalidInput, match="'rati' is not in the set"):
        safe.select(["rati"])


def test_infinite_values_become_undefined() -> None:
    @feature(lookback=1, inputs=["close"])
    def endless(panel: Panel) -> np.ndarray:
        """C / 0."""
        return panel.close / 0.0

    assert np.isnan(endless(panel())).all()


def test_a_wrong_shape_is_refused() -> None:
    @feature(lookback=1, inputs=["close"])
    def short(panel: Panel) -> np.ndarray:
        """The first row."""
        return panel.close[:1]

    with pytest.raises(InvalidInput, match=r"'short' returned the shape \(1, 2\)"):
        short(panel())


def test_a_wrong_declaration_is_refused() -> None:
    def documented(panel: Panel) -> np.ndarray:
        """Something."""
        return panel.close

    def silent(panel: Panel) -> np.ndarray:
        return panel.close

    with pytest.raises(InvalidInput, match="look-back of 0"):
        feature(lookback=0, inputs=["close"])(documented)
    with pytest.raises(InvalidInput, match="'closing'"):
        feature(lookback=1, inputs=["closing"])(documented)
    with pytest.raises(InvalidInput, match="no docstring"):
        feature(lookback=1, inputs=["close"])(silent)
    with pytest.raises(InvalidInput, match="scale_invariant=False"):
        feature(lookback=1, inputs=["close"], price_level=True)(documented)


def test_a_set_has_features_of_different_names() -> None:
    with pytest.raises(InvalidInput, match="no features"):
        FeatureSet.of("mine", [])
    with pytest.raises(InvalidInput, match=r"'ratio'.* twice"):
        FeatureSet.of("mine", [ratio, ratio])


def test_the_factors_are_at_least_forty_and_all_say_formula_and_paper() -> None:
    factors = feature_set("factors")
    assert len(factors.names) >= 40
    for each in factors.features:
        assert each.description.count("(") >= 1
        assert any(year in each.description for year in map(str, range(1970, 2025))), each.name


def test_a_set_that_ships_travels_by_name_and_arrives_as_it_was() -> None:
    for whole in (feature_set("factors"), feature_set("alpha158")):
        for given in (whole, whole.select(whole.names[3:1:-1]), whole.without_price_level()):
            sent = pickle.dumps(given)
            arrived = pickle.loads(sent)
            assert (type(arrived), arrived) == (type(given), given)
            assert all(one is other for one, other in zip(arrived.features, given.features, strict=True))
            assert len(sent) < 300 + 30 * len(given.names)


def test_a_set_of_ones_own_goes_with_its_features() -> None:
    # Of the same name as one that ships, and not the same.
    mine = FeatureSet.of("factors", [ratio])
    rebuild, parts = mine.__reduce__()
    assert rebuild is FeatureSet
    assert rebuild(*parts) == mine
