"""The form: what it accepts, and that every refusal is one sentence with file, line, value and what is allowed."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import PROJECT_ROOT
from stockpicker_dagster.market.sources.alpaca import AlpacaSource
from stockpicker_dagster.market.sources.chained import ChainedSource
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.market.sources.yahoo import YahooSource
from stockpicker_dagster.research.splits import walk_forward_periods
from stockpicker_dagster.strategy_form import COMPONENT_TYPE, LimitsForm, PricesForm, StrategyForm, definition_of, load

FILES = {"source": "files", "path": "p.parquet", "basis": "as_traded", "start": date(2018, 1, 2)}
MEMBER = {"source": "files", "path": "p.parquet", "basis": "as_traded"}
SPLIT_ADJUSTED = {**MEMBER, "basis": "split_adjusted"}
FIXED = {
    "train": [date(2019, 6, 3), date(2020, 5, 29)],
    "validation": [date(2020, 6, 1), date(2020, 8, 31)],
    "test": [date(2020, 9, 1), date(2020, 12, 31)],
}
WALKING = {"train_years": 1, "validation_years": 1, "retrain": "quarterly"}


def attributes(**changes: Any) -> dict[str, Any]:
    """A whole strategy with `changes`; None leaves a field out."""
    whole = {
        "owner": "research",
        "universe": {"name": "simulated"},
        "prices": {"source": "simulated", "start": date(2018, 1, 2)},
        "periods": WALKING,
    }
    return {field: value for field, value in {**whole, **changes}.items() if value is not None}


Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a strategy's file, one field a line, and returns its path."""

    def write(document: Any, name: str = "mine") -> Path:
        path = tmp_path / name / "defs.yaml"
        path.parent.mkdir(exist_ok=True)
        text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
        path.write_text(text)
        return path

    return write


def refusal(path: Path) -> str:
    """The one line that refuses the file."""
    with pytest.raises(InvalidInput) as refused:
        load(path)
    [line] = str(refused.value).splitlines()
    return line


def test_the_shipped_strategies_are_accepted() -> None:
    shipped = sorted((PROJECT_ROOT / "stockpicker_dagster" / "defs" / "strategies").glob("*/defs.yaml"))
    assert [path.parent.name for path in shipped] == ["quickstart", "sp500_linear"]
    for path in shipped:
        assert load(path).owner == "research"


def test_what_is_left_out_has_its_default(write: Write) -> None:
    form = load(write({"type": COMPONENT_TYPE, "attributes": attributes()}))
    assert (form.label.horizon_days, form.scaling.method, form.algorithm.name) == (5, "standard", "linear")
    assert (form.backtest.long, form.backtest.rebalance, form.trading.account) == (10, "weekly", "paper")
    assert form.trading.limits == LimitsForm()


# Where, what is given there, and what the sentence has to say. The place is a path below `attributes`.
REFUSED: list[tuple[str, Any, list[str]]] = [
    ("owner", None, ["'owner' is missing", "team's name"]),
    ("owner", "two words", ["'two words'", "team's name", "e-mail"]),
    ("owner", 7, ["7 was read as a int", "quote it"]),
    ("description", "x" * 2001, ["2000"]),
    ("universe", None, ["'universe' is missing"]),
    ("prices", None, ["'prices' is missing"]),
    ("periods", None, ["'periods' is missing"]),
    ("universe", "sp500", ["'sp500'", "dictionary"]),
    ("universe", {}, ["exactly one of name, symbols, file and top", "none was given"]),
    ("universe", {"name": "simulated", "symbols": ["A", "B"]}, ["exactly one", "name and symbols"]),
    ("universe", {"name": "simulated", "file": "a.csv"}, ["exactly one", "name and file"]),
    ("universe.name", {"name": "sp5000"}, ["'sp5000'", "allowed: 'simulated', 'sp100', 'sp500', 'russell3000'"]),
    ("universe.symbols.1", {"symbols": ["AAPL", True]}, ["True was read as a bool", "quote it"]),
    ("universe.symbols.0", {"symbols": [1.5, "AAPL"]}, ["1.5 was read as a float", "quote it"]),
    ("universe.symbols", {"symbols": []}, ["[]", "at least two"]),
    ("universe.symbols", {"symbols": ["AAPL", "AAPL"]}, ["AAPL", "at least two"]),
    ("universe.symbols", {"symbols": "AAPL"}, ["'AAPL'", "list"]),
    ("universe.file", {"file": 3}, ["3", "path"]),
    ("universe.sector", {"symbols": ["A", "B"], "sector": "Energy"}, ["'Energy'", "list only its symbols"]),
    ("universe.sector", {"name": "simulated", "sector": 4}, ["4 was read as a int", "quote it"]),
    ("universe.industry", {"symbols": ["A", "B"], "industry": "Banks"}, ["'Banks'", "list only its symbols"]),
    ("universe.sector", {"top": 5, "sector": "Energy"}, ["'Energy'", "name a universe to choose from with of"]),
    ("universe.top", {"top": 1}, ["1 is not allowed", "greater than or equal to 2"]),
    ("universe.by", {"top": 5, "by": "size"}, ["'size'", "'dollar_volume'"]),
    ("universe.of", {"top": 5, "of": "sp5000"}, ["'sp5000'", "allowed: sp100, sp500, russell3000", ".csv or .parquet"]),
    ("universe.of", {"symbols": ["A", "B"], "of": "sp500"}, ["'sp500' belongs to top"]),
    ("universe.rebalance", {"symbols": ["A", "B"], "rebalance": "yearly"}, ["'yearly' belongs to top"]),
    ("universe.min_price", {"symbols": ["A", "B"], "min_price": 0}, ["0", "greater than 0"]),
    ("universe.min_dollar_volume", {"symbols": ["A", "B"], "min_dollar_volume": -1}, ["-1", "greater than 0"]),
    ("universe.largest", {"largest": 500}, ["'largest' is no field here", "min_price, name, of"]),
    ("prices.source", {"source": "bloom"}, ["'bloom'", "'simulated', 'files', 'yahoo', 'alpaca', or a list"]),
    ("prices.source", {"source": ["yahoo"]}, ["['yahoo']", "two or more of different names"]),
    ("prices.source", {"source": ["yahoo", "yahoo"]}, ["['yahoo', 'yahoo']", "two or more of different names"]),
    ("prices.source", {"source": ["yahoo", "simulated"]}, ["simulated", "invented rows"]),
    ("prices.source", {"source": ["yahoo", 3]}, ["3 is not allowed in a list", "'files', 'yahoo', 'alpaca'"]),
    ("prices.source", {"source": ["yahoo", SPLIT_ADJUSTED]}, ["different bases", "files: split_adjusted"]),
    ("prices.source.1.feed", {"source": ["yahoo", {**MEMBER, "feed": "iex"}]}, ["'iex'", "belongs to source alpaca"]),
    (
        "prices.source.1.bassis",
        {"source": ["yahoo", {**MEMBER, "bassis": 1}]},
        ["'bassis' is no field"],
    ),
    ("prices.source.1", {"source": ["yahoo", {"source": "files", "path": "p.csv"}]}, ["basis", "missing"]),
    ("prices.source.1.source", {"source": ["yahoo", {"path": "p.csv"}]}, ["'source' is missing"]),
    ("prices.path", {"source": ["yahoo", "alpaca"], "path": "p.csv"}, ["'p.csv'", "one of the listed sources"]),
    ("prices.name", {"source": ["yahoo", MEMBER], "name": "A"}, ["'A'", "lower-case"]),
    ("prices.feed", {"source": "alpaca", "feed": "boats"}, ["'boats'", "'sip', 'iex', 'otc'"]),
    ("prices.feed", {"source": "yahoo", "feed": "iex"}, ["'iex'", "belongs to source alpaca, not to yahoo"]),
    ("prices.currency", {"source": "yahoo", "currency": "dollars"}, ["'dollars'", "pattern"]),
    ("prices.name", {"name": "My Prices"}, ["'My Prices'", "lower-case"]),
    ("prices.start", {"start": date(2018, 1, 1)}, ["2018-01-01 is no session", "2018-01-02"]),
    ("prices.start", {"start": "tomorrow"}, ["'tomorrow' is no day", "YYYY-MM-DD"]),
    ("prices.start", {"start": 2018}, ["2018 is no day", "YYYY-MM-DD"]),
    ("prices.start", {**FILES, "calendar": "XLON", "start": date(2018, 5, 7)}, ["2018-05-07 is no session", "-08"]),
    ("prices.calendar", {**FILES, "calendar": "XLN"}, ["'XLN' is unknown", "did you mean XLON"]),
    ("prices.calendar", {**FILES, "calendar": "XSAU"}, ["XSAU", "Saturdays or Sundays"]),
    ("prices.calendar", {**FILES, "calendar": "24/5"}, ["24/5", "leaves no hour"]),
    ("prices.calendar", {"source": "alpaca", "calendar": "XTKS"}, ["'XTKS'", "alpaca", "New York"]),
    ("prices.symbol_changes", {"source": "simulated", "symbol_changes": "c.csv"}, ["'c.csv'", "simulated"]),
    ("prices", {"source": "files", "basis": "as_traded"}, ["path", "missing"]),
    ("prices", {"source": "files", "path": "p.csv"}, ["basis", "as_traded", "split_adjusted"]),
    ("prices.basis", {**FILES, "basis": "adjusted"}, ["'adjusted'", "'as_traded', 'split_adjusted'"]),
    ("prices.path", {"source": "simulated", "path": "p.csv"}, ["'p.csv'", "belongs to source files"]),
    ("prices.basis", {"source": "simulated", "basis": "as_traded"}, ["'as_traded'", "belongs to source files"]),
    ("prices.seed", {**FILES, "seed": 3}, ["'3'", "belongs to source simulated"]),
    ("prices.stocks", {**FILES, "stocks": 30}, ["'30'", "belongs to source simulated"]),
    ("prices.stocks", {"stocks": 9}, ["9", "10"]),
    ("prices.stocks", {"stocks": 3001}, ["3001", "3000"]),
    ("prices.stocks", {"stocks": True}, ["True", "stocks"]),
    ("prices.seed", {"seed": -1}, ["-1", "0"]),
    ("prices", FILES, ["'simulated'", "'files'"]),
    ("features.set", {"set": "alpha9"}, ["'alpha9'", "known: alpha158, factors, multi_factor"]),
    ("features.names", {"names": ["momentum_12_2"]}, ["'momentum_12_2'", "did you mean 'momentum_12_7'?"]),
    ("features.names", {"names": []}, ["[]", "at least 1"]),
    ("features.names.0", {"names": [False]}, ["False was read as a bool", "quote it"]),
    ("features.compute", {"compute": "dask"}, ["'dask' is not allowed", "'local', 'spark', 'processing'"]),
    ("features.cores", {"cores": 2}, ["'cores' is no field here", "known: compute, fundamentals, "]),
    ("features.fundamentals", {"fundamentals": "terminal"}, ["'terminal' is not allowed", "'edgar'"]),
    ("features.set", {"set": "multi_factor"}, ["'multi_factor' needs figures", "add `fundamentals: edgar`"]),
    ("features.fundamentals", {"fundamentals": "edgar"}, ["of no use to set 'factors'", "leave it out"]),
    ("label.horizon_days", {"horizon_days": 0}, ["0", "1"]),
    ("label.horizon_days", {"horizon_days": 253}, ["253", "252"]),
    ("label.horizon_days", {"horizon_days": True}, ["True", "horizon_days"]),
    ("label.horizon_days", {"horizon_days": "five"}, ["'five'", "integer"]),
    ("label.horizon_days", {"horizon_days": 2.5}, ["2.5", "integer"]),
    ("label.transform", {"transform": "log"}, ["'log'", "'rank', 'standard', 'none'"]),
    ("label.winsorize", {"winsorize": 0.5}, ["0.5", "less than 0.5"]),
    ("scaling.method", {"method": "zscore"}, ["'zscore'", "'standard', 'minmax', 'rank', 'robust'"]),
    ("scaling.neutralize", {"neutralize": ["size", "size"]}, ["['size', 'size']", "each once"]),
    ("features.module", {"module": "No Such"}, ["'No Such'"]),
    ("scaling.imputation", {"imputation": "mean"}, ["'mean'", "'median', 'neutral'"]),
    ("scaling.winsorize", {"winsorize": 0}, ["0", "greater than 0"]),
    ("periods", {}, ["train, validation and test", "train_years, validation_years and retrain", "nothing"]),
    ("periods", {**FIXED, **WALKING}, ["either", "train, validation, test, train_years"]),
    ("periods", {"train": FIXED["train"]}, ["given: train"]),
    ("periods.train_years", {**WALKING, "train_years": 0}, ["0", "1"]),
    ("periods.train_years", {**WALKING, "train_years": 51}, ["51", "50"]),
    ("periods.validation_years", {**WALKING, "validation_years": 21}, ["21", "20"]),
    ("periods.retrain", {**WALKING, "retrain": "daily"}, ["'daily'", "'weekly', 'monthly', 'quarterly', 'yearly'"]),
    ("periods.train", {**FIXED, "train": FIXED["train"][::-1]}, ["train is reversed", "2020-05-29", "swap"]),
    ("periods.validation", {**FIXED, "validation": FIXED["validation"][::-1]}, ["validation is reversed", "swap"]),
    ("periods.test", {**FIXED, "test": FIXED["test"][::-1]}, ["test is reversed", "swap"]),
    (
        "periods.validation",
        {**FIXED, "validation": [date(2020, 5, 29), date(2020, 8, 31)]},
        ["validation begins on 2020-05-29", "train", "2020-05-29"],
    ),
    (
        "periods.test",
        {**FIXED, "test": [date(2020, 8, 3), date(2020, 12, 31)]},
        ["test begins on 2020-08-03", "2020-08-31"],
    ),
    ("periods.train", {**FIXED, "train": [date(2019, 6, 3)]}, ["two dates", "[first, last]"]),
    ("periods.train.0", {**FIXED, "train": ["soon", date(2020, 1, 2)]}, ["'soon' is no day"]),
    (
        "periods",
        {**FIXED, "train": [date(2018, 1, 2), date(2020, 5, 29)]},
        ["training from 2018-01-02", "earliest possible training day"],
    ),
    (
        "periods",
        {**FIXED, "validation": [date(2020, 8, 27), date(2020, 8, 31)]},
        ["validation period 2020-08-27 to 2020-08-31", "longer"],
    ),
    ("algorithm.name", {"name": "magic"}, ["'magic'", "known: boosted_trees"]),
    ("algorithm.hyperparameters", {"hyperparameters": {"alfa": 1}}, ["'alfa'", "did you mean 'alpha'?"]),
    ("algorithm.hyperparameters", {"hyperparameters": {"alpha": -1}}, ["-1", "at least 0"]),
    ("algorithm.hyperparameters", {"hyperparameters": {"l1_ratio": 0.5}}, ["l1_ratio 0.5", "method 'ridge'"]),
    ("algorithm.search", {"search": {"over": {"alfa": [1, 2]}}}, ["'alfa'", "did you mean 'alpha'"]),
    ("algorithm.search", {"search": {"over": {}}}, ["nothing to search over"]),
    ("algorithm.search.over", {"search": {"over": 1}}, ["1 is not allowed"]),
    ("algorithm.search.trials", {"search": {"over": {"alpha": [1, 2]}, "trials": 0}}, ["0", "1"]),
    ("algorithm.search.method", {"search": {"over": {"alpha": [1, 2]}, "method": "random"}}, ["'random'"]),
    ("algorithm.search.folds", {"search": {"over": {"alpha": [1, 2]}, "folds": 1}}, ["1", "2"]),
    ("algorithm.start", {"start": "hot"}, ["'hot'", "'cold'", "'warm'"]),
    ("algorithm.start", {"start": "warm"}, ["neural_network", "not for linear"]),
    (
        "algorithm.start",
        {"name": "neural_network", "start": "warm", "search": {"over": {"hidden_layers": [1, 3]}}},
        ["do not go together", "leave one of them out"],
    ),
    ("periods.window", {"train_years": 2, "validation_years": 1, "retrain": "yearly", "window": "all"}, ["'all'"]),
    (
        "algorithm.hyperparameters",
        {"name": "neural_network", "hyperparameters": {"widths": [8]}},
        ["widths [8]", "3 hidden_layers"],
    ),
    ("algorithm.seed", {"seed": -1}, ["-1", "0"]),
    ("training.platform", {"platform": "cluster"}, ["'cluster'", "'auto'", "'local'", "'sagemaker'"]),
    (
        "training.instance_type",
        {"platform": "local", "instance_type": "ml.m5.large"},
        ["instance_type", "platform: auto"],
    ),
    (
        "training.instance_type",
        {"platform": "sagemaker", "instance_type": "ml.m5.xlargo"},
        ["'ml.m5.xlargo'", "ml.m5.xlarge"],
    ),
    ("training.volume_gb", {"platform": "sagemaker", "volume_gb": 0}, ["0", "greater than or equal to 1"]),
    ("training.max_wait_hours", {"platform": "sagemaker", "max_wait_hours": 1}, ["max_wait_hours 1", "raise it"]),
    ("training.scoring", {"scoring": "batch"}, ["'batch'", "'process'", "'transform'", "'serverless'", "'endpoint'"]),
    (
        "training.scoring_instance_type",
        {"platform": "sagemaker", "scoring_instance_type": "ml.t3.medium"},
        ["scoring_instance_type 'ml.t3.medium' cannot score", "such as ml."],
    ),
    ("training.max_hours", {"max_hours": 0}, ["0", "greater than 0"]),
    ("backtest.long", {"long": 0}, ["0", "greater than 0"]),
    ("backtest.long", {"long": 2.5}, ["2.5", "neither a number of stocks nor a fraction"]),
    ("backtest.long", {"long": "many"}, ["'many'", "number"]),
    ("backtest.short", {"short": -1}, ["-1", "0"]),
    ("backtest.short", {"long": 0.6, "short": 0.6}, ["0.6", "overlap", "at most 1"]),
    ("backtest.weights", {"weights": "value"}, ["'value'", "'equal', 'score'"]),
    ("backtest.rebalance", {"rebalance": "yearly"}, ["'yearly'", "'daily', 'weekly', 'monthly'"]),
    ("backtest.rebalance_offset", {"rebalance": "monthly", "rebalance_offset": 21}, ["21", "allowed: 0 to 20"]),
    ("backtest.rebalance_offset", {"rebalance": 5, "rebalance_offset": 5}, ["5", "allowed: 0 to 4"]),
    ("backtest.rebalance", {"rebalance": 1}, ["1 is not allowed", "'monthly', or a number of sessions from 2 to 252"]),
    ("backtest.neutral", {"neutral": "beta", "short": 0}, ["'beta'", "short is 0"]),
    ("backtest.neutral", {"neutral": "exposures"}, ["exposures []", "[market, sector]"]),
    ("backtest.exposures", {"exposures": ["market"]}, ["'dollar' with exposures", "none with any other"]),
    ("backtest.exposures", {"exposures": ["market", "market"]}, ["name one thing twice"]),
    ("backtest.volatility_target", {"volatility_target": 0}, ["0", "greater than 0"]),
    ("backtest.borrow_bps_by_name", {"borrow_bps_by_name": {"GME": -1}}, ["the fee of GME is -1", "0 to 1000000"]),
    (
        "backtest",
        {"neutral": "exposures", "exposures": ["momentun"]},
        ["'momentun'", "no feature of the strategy; known: market, sector"],
    ),
    ("backtest.hold_band", {"hold_band": 0.5}, ["0.5", "greater than or equal to 1"]),
    ("backtest.rebalance_offset", {"rebalance_offset": 5}, ["5 is no weekday", "4 is Friday"]),
    ("backtest.rebalance_offset", {"rebalance": "daily", "rebalance_offset": 1}, ["1", "leave it out"]),
    ("backtest.commission_bps", {"commission_bps": -0.1}, ["-0.1", "0"]),
    ("backtest.spread_bps", {"spread_bps": 1001}, ["1001", "1000"]),
    ("backtest.spread_bps", {"spread_bps": float("nan")}, ["nan", "finite"]),
    ("backtest.borrow_bps_per_year", {"borrow_bps_per_year": 1e6}, ["1000000.0", "100000"]),
    ("backtest.commission_per_share", {"commission_per_share": -0.01}, ["-0.01", "0"]),
    ("backtest.fill", {"fill": "limit"}, ["'limit'", "'open', 'close', 'vwap_proxy'"]),
    ("backtest.gross", {"gross": 0}, ["0", "greater than 0"]),
    ("backtest.max_weight", {"max_weight": 0}, ["0", "greater than 0"]),
    ("backtest.sleeves", {"sleeves": 0}, ["0", "1"]),
    ("backtest.impact_coefficient", {"impact_coefficient": -1}, ["-1", "0"]),
    ("backtest.hard_to_borrow_bps_per_year", {"hard_to_borrow_bps_per_year": -1}, ["-1", "0"]),
    ("backtest.hard_to_borrow_below", {"hard_to_borrow_below": 0}, ["0", "greater than 0"]),
    ("backtest.cash_interest_bps_per_year", {"cash_interest_bps_per_year": -5}, ["-5", "0"]),
    ("backtest.short_interest_bps_per_year", {"short_interest_bps_per_year": -5}, ["-5", "0"]),
    ("backtest.capital", {"capital": 0}, ["0", "greater than 0"]),
    ("backtest.capital", {"capital": float("inf")}, ["inf", "finite"]),
    ("backtest.simulations", {"simulations": 0}, ["0", "1"]),
    ("backtest.simulations", {"simulations": True}, ["True", "simulations"]),
    ("backtest.seed", {"seed": -1}, ["-1", "0"]),
    ("trading.account", {"account": "Paper 1"}, ["'Paper 1'", "lower-case"]),
    ("trading.limits.gross", {"limits": {"gross": 11}}, ["11", "10"]),
    ("trading.limits.net", {"limits": {"net": -1}}, ["-1", "0"]),
    ("trading.limits.position", {"limits": {"position": 1.5}}, ["1.5", "1"]),
    ("trading.limits.order_notional", {"limits": {"order_notional": 0}}, ["0", "greater than 0"]),
    ("trading.limits.turnover", {"limits": {"turnover": 0}}, ["0", "greater than 0"]),
    ("trading.limits.orders", {"limits": {"orders": 0}}, ["0", "1"]),
    ("trading.limits.price_age_days", {"limits": {"price_age_days": -1}}, ["-1", "0"]),
    ("trading.limits.volume_share", {"limits": {"volume_share": 2}}, ["2", "1"]),
    ("trading.limits.daily_loss", {"limits": {"daily_loss": 0}}, ["0"]),
    ("trading.limits.orders_per_minute", {"limits": {"orders_per_minute": 0}}, ["0", "1"]),
    ("trading.limits.collar", {"limits": {"collar": 2}}, ["2", "1"]),
    ("trading.limits.buying_power", {"limits": {"buying_power": 0}}, ["0", "greater than 0"]),
    ("trading.limits.restricted.0", {"limits": {"restricted": [True]}}, ["True was read as a bool", "quote it"]),
    ("benchmark", "spy", ["'benchmark' is no field here", "known: algorithm, backtest"]),
]


@pytest.mark.parametrize(
    ("place", "given_there", "says"), REFUSED, ids=[f"{p}-{n}" for n, (p, *_) in enumerate(REFUSED)]
)
def test_every_refusal_is_one_sentence_at_its_line(place: str, given_there: Any, says: list[str], write: Write) -> None:
    part = place.split(".")[0]
    form = attributes()
    form.pop(part, None)
    if given_there is not None:
        form[part] = given_there
    if part == "prices" and isinstance(given_there, dict):
        form[part] = {"start": date(2018, 1, 2), **given_there}
    path = write({"type": COMPONENT_TYPE, "attributes": form})
    line = refusal(path)
    matched = re.fullmatch(rf"{re.escape(str(path))}:(\d+): (?:[\w.]+: )?(.+)", line)
    assert matched, line
    for phrase in says:
        assert phrase in matched[2], line
    at = path.read_text().splitlines()[int(matched[1]) - 1]
    if given_there is None:
        assert at == "attributes:"
    elif given_there is FILES:
        assert at == "  universe:"  # what does not fit these prices
    else:
        assert at.strip().startswith((f"{place.split('.')[-1]}:", "- ")), f"{line} points to {at!r}"


def _every_field() -> Iterator[tuple[str, str]]:
    pending: list[tuple[str, type[BaseModel]]] = [("", StrategyForm)]
    while pending:
        place, form = pending.pop()
        for name, field in form.model_fields.items():
            where = f"{place}{name}"
            yield where, field.description or ""
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                pending.append((f"{where}.", field.annotation))


def test_every_field_says_what_it_means() -> None:
    described = dict(_every_field())
    assert len(described) > 50
    assert [place for place, description in described.items() if len(description) < 10] == []


def test_the_refusals_cover_every_field() -> None:
    """A field whose every value is allowed needs no refusal; there is none but those named here."""
    tried = {re.sub(r"\.\d+$", "", place) for place, *_ in REFUSED}
    groups = {"features", "label", "scaling", "algorithm", "training", "reference", "trading"}
    groups |= {"trading.limits"}
    assert {place for place, _ in _every_field()} - tried == groups


def test_every_mistake_has_a_line_of_its_own(write: Write) -> None:
    path = write(
        {"type": COMPONENT_TYPE, "attributes": attributes(label={"horizon_days": 0}, backtest={"seed": -1, "x": 1})}
    )
    with pytest.raises(InvalidInput) as refused:
        load(path)
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type: [", r":\d+: this is no YAML"),
        ("type: a\n---\ntype: b\n", r":\d+: this is no YAML"),
        ("type: \x01\n", r":\d+: this is no YAML"),
        ("- 1\n", r":1: type is None; a strategy's type is stockpicker"),
        ("# first\ntype: other.Component\n", r":2: type is 'other.Component'; a strategy's type is stockpicker"),
        (f"type: {COMPONENT_TYPE}\nattributes: [1]\n", r":2: \[1\] is not allowed"),
    ],
)
def test_a_file_that_is_no_strategy_is_named_with_its_line(text: str, says: str, write: Write) -> None:
    path = write(text)
    assert re.match(re.escape(str(path)) + says, refusal(path))


def test_a_file_that_is_no_text_is_named(write: Write) -> None:
    path = write("")
    path.write_bytes(b"type: \xff\xfe\n")
    assert refusal(path) == f"{path}:1: this is no UTF-8 text (invalid start byte); save it as UTF-8"
    path.unlink()
    assert "cannot be read (No such file or directory)" in refusal(path)


@pytest.mark.parametrize("name", ["Mine", "9lives", "with-dash", "x" * 42])
def test_a_folder_whose_name_cannot_be_a_key_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "defs.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes()}))
    assert f"{path}:1: {name!r} cannot name a strategy's folder" in refusal(path)


def test_a_price_level_is_refused_on_split_adjusted_prices() -> None:
    prices = {**FILES, "basis": "split_adjusted"}
    universe = {"symbols": ["A", "B"]}
    with pytest.raises(ValueError, match=r"price level.*as-traded source"):
        StrategyForm.model_validate(
            attributes(prices=prices, universe=universe, features={"names": ["price_level", "reversal_1m"]})
        )
    form = StrategyForm.model_validate(attributes(prices=prices, universe=universe))
    assert "price_level" not in form.feature_set().names
    assert "price_level" in StrategyForm.model_validate(attributes()).feature_set().names


def test_labels_longer_than_a_walk_forward_validation_are_refused() -> None:
    with pytest.raises(ValueError, match="252 sessions; make it longer"):
        StrategyForm.model_validate(attributes(label={"horizon_days": 252}))


def test_settings_that_are_left_out_equal_settings_given_with_the_default() -> None:
    """Sources are shared on it: two strategies agree however explicitly they were written."""
    assert PricesForm.model_validate({}) == PricesForm.model_validate({"source": "simulated", "stocks": 100, "seed": 7})


def test_a_list_of_sources_is_a_chain_of_them() -> None:
    form = PricesForm.model_validate({"source": ["yahoo", {**MEMBER, "name": "mine"}], "start": date(2018, 1, 2)})
    assert (form.kind, form.key, form.split_adjusted) == ("chain", "yahoo_mine", False)
    assert [path.name for path in form.paths] == ["p.parquet"]
    assert form == PricesForm.model_validate({"source": [{"source": "yahoo"}, form.chain[1]], "start": form.start})
    chain = form.build()
    assert isinstance(chain, ChainedSource)
    assert [(source.name, source.kind, source.start) for source in chain.sources] == [
        ("yahoo", "yahoo", form.start),
        ("mine", "files", form.start),
    ]


def test_settings_reach_the_source() -> None:
    alpaca = PricesForm.model_validate({"source": "alpaca", "feed": "iex"}).build()
    assert isinstance(alpaca, AlpacaSource)
    assert (alpaca.name, alpaca.feed) == ("alpaca", "iex")
    yahoo = PricesForm.model_validate({"source": "yahoo", "currency": "GBp"}).build()
    assert isinstance(yahoo, YahooSource)
    assert yahoo.currency == "GBp"
    files = {"source": "files", "path": "p.csv", "basis": "as_traded"}
    for added, currency in (({}, "USD"), ({"currency": "EUR"}, "EUR")):
        built = PricesForm.model_validate(files | added).build()
        assert isinstance(built, FilesSource)
        assert built.currency == currency


def test_where_features_are_computed_is_no_part_of_the_definition() -> None:
    local, spark, other = (
        StrategyForm.model_validate(attributes(features=features))
        for features in ({}, {"compute": "spark"}, {"set": "alpha158"})
    )
    assert spark.features.compute == "spark"
    for asset in ("scaled_features", "trained_model", "backtest_metrics"):
        assert local.definition(asset) == spark.definition(asset) != other.definition(asset)
    assert local.features_definition == spark.features_definition != other.features_definition


def test_where_a_file_of_a_list_lies_is_no_part_of_the_definition() -> None:
    here, there, other = (
        PricesForm.model_validate({"source": ["yahoo", {**MEMBER, "path": path, "name": name}]})
        for path, name in (("p.parquet", "mine"), ("moved/q.parquet", "mine"), ("p.parquet", "other"))
    )
    assert definition_of(here) == definition_of(there) != definition_of(other)


@settings(max_examples=25, deadline=None)
@given(
    retrain=st.sampled_from(["weekly", "monthly", "quarterly", "yearly"]),
    years=st.integers(1, 3),
    start=st.sampled_from([date(2010, 1, 4), date(2012, 6, 29), date(2015, 2, 11)]),
)
def test_the_first_day_served_is_the_earliest_period_with_enough_history(retrain: str, years: int, start: date) -> None:
    periods = {"train_years": years, "validation_years": 1, "retrain": retrain}
    form = StrategyForm.model_validate(attributes(prices={"start": start}, periods=periods))
    first = form.first_served
    assert form.period_key(first) == first.isoformat()
    split = form.split(first.isoformat())
    assert split.last_known < first
    before = walk_forward_periods(date.fromordinal(first.toordinal() - 1), first, form.periods.retrain)[0]
    with pytest.raises(InvalidInput, match="earliest period"):
        form.split(before.key)


def test_fixed_periods_have_no_keys() -> None:
    form = StrategyForm.model_validate(attributes(periods=FIXED))
    assert form.period_key(date(2020, 9, 1)) is None
    assert form.first_served == date(2020, 9, 1)
    split = form.split(None)
    assert split.train[0] == date(2019, 6, 3)
    assert split.train[-1] < date(2020, 5, 29)  # purged: its label would reach into validation


def test_relative_files_are_looked_for_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    form = StrategyForm.model_validate(attributes(prices=FILES, universe={"file": "/nowhere/members.csv"}))
    assert form.missing_files() == [tmp_path / "p.parquet", Path("/nowhere/members.csv")]
    (tmp_path / "p.parquet").touch()
    assert form.missing_files() == [Path("/nowhere/members.csv")]


def test_the_form_needs_no_dagster() -> None:
    code = "import sys, stockpicker_dagster.strategy_form; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    assert done.stdout.strip() == "False"
