"""One stock in one strategy: its price, its scores, what it is exposed to, and why it has its rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.console.views.desk import Desk, NotFound
from stockpicker_dagster.console.views.ranking import Ranking, ranking
from stockpicker_dagster.console.views.remembered import fingerprint
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.models import TrainedModel, load_model

SESSIONS_SHOWN = 252
"""A year: more is read only when somebody asks for all."""
OF_PRICES, OF_SCORES = ("close", "adjustment"), ("score", "rank")


@dataclass(frozen=True)
class Contribution:
    """One feature's share in a score."""

    feature: str
    exposure: float
    """The scaled feature: in standard deviations, or as the strategy's scaling says."""
    adds: float
    """What it adds to the score, before the day's mean is taken off; in units of the score."""


@dataclass(frozen=True)
class Stock:
    """What is known of one stock after the close of `session`."""

    strategy: str
    symbol: str
    ticker: str
    session: date
    rank: int
    of: int
    change: int | None
    """Places gained since the session before; None for a newcomer."""
    score: float
    sector: str | None
    model_id: str
    history: pl.DataFrame
    """`date`, `close` (currency, as traded), `adjusted` (the last close carried back over splits and dividends),
    `score`, `rank` (null where not ranked); ascending."""
    contributions: Sequence[Contribution]
    """Every feature, largest share first."""


def stock(desk: Desk, name: str, symbol: str, session: date | None = None, everything: bool = False) -> Stock:
    """The stock on `session`, by default the last with a ranking. Raises `NotFound` where it is not ranked then."""
    form, found = desk.form(name), ranking(desk, name, session, reasons=False)
    row = found.rows.filter(pl.col("symbol") == symbol)
    if row.is_empty():
        raise NotFound(
            f"{symbol!r} is not among the {found.rows.height} stocks that {name!r} ranked on {found.session}"
        )
    tables = (f"{form.prices.key}/prices", f"{name}/predictions")
    key = ("stock", name, symbol, found.session, everything)
    history = desk.remembered.answer(
        key, fingerprint(desk.lake, *tables), lambda: _history(desk, form, found, symbol, everything)
    )
    of_model = (f"{name}/trained_model", f"{name}/scaled_features")
    contributions = desk.remembered.answer(
        ("contributions", name, symbol, found.session),
        fingerprint(desk.lake, *of_model),
        lambda: _contributions(desk, name, form, found.session, symbol),
    )
    [seen] = row.iter_rows(named=True)
    return Stock(
        strategy=name,
        symbol=symbol,
        ticker=seen["ticker"],
        session=found.session,
        rank=seen["rank"],
        of=found.rows.height,
        change=seen["change"],
        score=seen["score"],
        sector=seen["sector"],
        model_id=seen["model_id"],
        history=history,
        contributions=contributions,
    )


def _history(desk: Desk, form: StrategyForm, found: Ranking, symbol: str, everything: bool) -> pl.DataFrame:
    stored = [day for day in desk.days(f"{form.prices.key}/prices") if day <= found.session]
    days = stored if everything else stored[-SESSIONS_SHOWN:]
    prices = desk.histories.rows(f"{form.prices.key}/prices", days, symbol, OF_PRICES)
    # The last close is the anchor: what came before is divided by the adjustments that followed it.
    later = prices["adjustment"].fill_null(1.0).to_numpy()
    factor = np.ones(len(later))
    if len(later):
        factor[:-1] = np.cumprod(later[:0:-1])[::-1]
    adjusted = prices.with_columns((pl.col("close") / pl.Series(factor)).alias("adjusted"))
    scored = [day for day in found.sessions if days and days[0] <= day <= found.session]
    scores = desk.histories.rows(f"{found.strategy}/predictions", scored, symbol, OF_SCORES)
    return adjusted.select("date", "close", "adjusted").join(scores, on="date", how="left").sort("date")


def _contributions(desk: Desk, name: str, form: StrategyForm, session: date, symbol: str) -> list[Contribution]:
    scaled = desk.lake.scan(f"{name}/scaled_features", [session]).filter(pl.col("symbol") == symbol).collect()
    features = [column for column in scaled.columns if column not in ("symbol", "date")]
    if scaled.is_empty():
        return []
    model = _model(desk, name, form, session, features)
    values = scaled.select(features).to_numpy().astype(np.float32, order="C")
    adds = model.algorithm.contributions(values, features)[0]
    order = np.argsort(-np.abs(adds), kind="stable")
    return [Contribution(features[place], float(values[0, place]), float(adds[place])) for place in order]


def _model(desk: Desk, name: str, form: StrategyForm, session: date, features: Sequence[str]) -> TrainedModel:
    table, key = f"{name}/trained_model", form.period_key(session) or UNPARTITIONED
    return desk.remembered.answer(
        ("model", name, key),
        fingerprint(desk.lake, table),
        lambda: load_model(desk.lake.bundle(table, key), name, features),
    )


def prepare_histories(desk: Desk) -> None:
    """Has everything made beside the pages that a stock's page reads quickly."""
    for name, form in desk.forms().items():
        desk.histories.prepare(f"{form.prices.key}/prices", OF_PRICES)
        desk.histories.prepare(f"{name}/predictions", OF_SCORES)
