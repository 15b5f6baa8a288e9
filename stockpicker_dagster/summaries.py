"""What a run ends with: the ranking, the back-test with its random books, and the proposal, as figures and as text.

Everything is read from the lake and the ledger; nothing is computed that is not derived from stored days.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.backtest.days import (
    BacktestSummary,
    DelistingSensitivity,
    OffsetResult,
    delisting_sensitivity,
    offset_spread,
    score_quality,
    summarize,
)
from stockpicker_dagster.research.backtest.signal_quality import SignalQuality
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import CALENDAR, StrategyForm
from stockpicker_dagster.trading.proposal import StoredProposal, open_proposals

_SHOWN = 10
_ORDERS_SHOWN = 6


@dataclass(frozen=True)
class StrategySummary:
    """One strategy after the close of `session`."""

    strategy: str
    session: date
    caveats: tuple[str, ...]
    ranking: pl.DataFrame
    """The predictions of `session`, best first; empty before the first model."""
    backtest: BacktestSummary | None
    quality: SignalQuality | None
    offsets: tuple[OffsetResult, ...]
    delistings: DelistingSensitivity | None
    proposal: StoredProposal | None
    no_proposal: str
    """Why nothing is proposed; empty if something is."""


def summarize_strategy(
    name: str, form: StrategyForm, deployment: Deployment, session: date, proposal_note: str = "the plan was not run"
) -> StrategySummary:
    """The summary of `name` after the close of `session`, from stored days. Raises `MissingDays` where one lacks."""
    lake, calendar = deployment.lake, trading_calendar(CALENDAR)
    first = form.first_served
    served = calendar.sessions(first, session) if first <= session else []
    source = form.prices.build()
    universe = form.universe.build(source, session)
    caveats = list(dict.fromkeys(caveat for caveat in (source.caveat, universe.caveat) if caveat))
    ranking = lake.read(f"{name}/predictions", [session])
    caveats += _quarantine_caveat(lake.read(f"{form.prices.key}/quarantine", [session]), session)
    if not served:
        return StrategySummary(name, session, tuple(caveats), ranking, None, None, (), None, None, proposal_note)
    predictions = lake.scan(f"{name}/predictions", served).select("symbol", "date", "score").collect()
    prices = lake.read(f"{form.prices.key}/prices", served)
    delistings = lake.read(f"{form.prices.key}/delistings", served)
    market = (predictions, prices, delistings, served, form.backtest.rules(), calendar)
    proposal = _proposal_of(name, form.trading.account, session, deployment)
    return StrategySummary(
        strategy=name,
        session=session,
        caveats=tuple(caveats),
        ranking=ranking,
        backtest=summarize(lake.read(f"{name}/backtest_metrics", served)),
        quality=score_quality(predictions, prices, delistings, calendar, form.label.horizon_days),
        offsets=tuple(offset_spread(*market)),
        delistings=delisting_sensitivity(*market),
        proposal=proposal,
        no_proposal="" if proposal else proposal_note,
    )


def _quarantine_caveat(quarantine: pl.DataFrame, session: date) -> list[str]:
    if quarantine.is_empty():
        return []
    reasons = quarantine["reason"].value_counts().sort("reason").iter_rows()
    return [f"price rows of {session} in quarantine: " + ", ".join(f"{count} {reason}" for reason, count in reasons)]


def _proposal_of(name: str, account: str, session: date, deployment: Deployment) -> StoredProposal | None:
    wanted = (name, account, session)
    for proposal in open_proposals(deployment.database):
        document = proposal.document
        if (document.strategy, document.account, document.session) == wanted:
            return proposal
    return None


def as_json(summary: StrategySummary, commands: Sequence[str]) -> dict[str, Any]:
    """The summary as plain data; a figure that does not exist is null."""
    ranking = summary.ranking.select("rank", "symbol", "score").to_dicts()
    proposal = summary.proposal
    return _finite(
        {
            "strategy": summary.strategy,
            "session": str(summary.session),
            "caveats": list(summary.caveats),
            "most_undervalued": ranking[:_SHOWN],
            "most_overvalued": ranking[: -_SHOWN - 1 : -1],
            "backtest": _backtest_json(summary.backtest),
            "signal": asdict(summary.quality) if summary.quality else None,
            "rebalance_offsets": [asdict(offset) for offset in summary.offsets],
            "unknown_delistings": asdict(summary.delistings) if summary.delistings else None,
            "no_proposal": summary.no_proposal,
            "proposal": None
            if proposal is None
            else {
                "id": proposal.id,
                "digest": proposal.digest,
                "state": proposal.state,
                "account": proposal.document.account,
                "trade_session": str(proposal.document.trade_session),
                "expires_at": proposal.document.expires_at.isoformat(),
                "equity": str(proposal.document.equity),
                "orders": [
                    {
                        "symbol": order.symbol,
                        "side": order.side,
                        "quantity": str(order.quantity),
                        "reference_price": str(order.reference_price),
                    }
                    for order in proposal.document.orders
                ],
            },
            "next_commands": list(commands),
        }
    )


def _backtest_json(backtest: BacktestSummary | None) -> dict[str, Any] | None:
    if backtest is None:
        return None
    return {
        "first": str(backtest.first),
        "last": str(backtest.last),
        **asdict(backtest.performance),
        "random_books": asdict(backtest.random_books) if backtest.random_books else None,
        "fresh_picks_before_costs": asdict(backtest.fresh_picks) if backtest.fresh_picks else None,
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def as_text(summary: StrategySummary) -> str:
    """The summary for a person."""
    blocks = [
        f"{summary.strategy}, after the close of {summary.session}"
        + "".join(f"\nCAVEAT: {caveat}" for caveat in summary.caveats),
        _ranking_text(summary.ranking),
        _backtest_text(summary),
        _proposal_text(summary),
    ]
    return "\n\n".join(blocks)


def _ranking_text(ranking: pl.DataFrame) -> str:
    if ranking.is_empty():
        return "No stock is ranked: the first model serves later."
    top, bottom = ranking.head(_SHOWN), ranking.tail(_SHOWN).reverse()
    lines = [f"{ranking.height} stocks ranked against the universe's mean", ""]
    lines.append(f"  {'most undervalued':<30}{'most overvalued'}")
    for good, bad in zip(top.iter_rows(named=True), bottom.iter_rows(named=True), strict=True):
        lines.append(f"  {_ranked(good):<30}{_ranked(bad)}")
    return "\n".join(lines)


def _ranked(row: dict[str, Any]) -> str:
    return f"{row['rank']:>4}  {row['symbol']:<8} {row['score']:+.4f}"


def _backtest_text(summary: StrategySummary) -> str:
    backtest = summary.backtest
    if backtest is None:
        return "No back-test yet: the first model serves later."
    figures = backtest.performance
    lines = [
        f"back-test {backtest.first} to {backtest.last}, {figures.sessions} sessions, after costs",
        f"  annual return {figures.net_annual_return:+.1%} (before costs {figures.gross_annual_return:+.1%}), "
        f"volatility {figures.volatility:.1%}, largest drawdown {figures.max_drawdown:.1%}",
        f"  Sharpe {figures.net_sharpe:.2f} (before costs {figures.gross_sharpe:.2f}), "
        f"turnover {figures.turnover_per_year:.0f} times equity a year, costs {figures.cost_per_year:.1%} a year",
    ]
    if backtest.random_books:
        lines.append(
            f"  beats {backtest.random_books.percentile:.1f} % of {backtest.random_books.books} random books with the "
            f"same turnover and costs (p = {backtest.random_books.p_value:.3f})"
        )
    if backtest.fresh_picks:
        lines.append(
            f"  before costs it beats {backtest.fresh_picks.percentile:.1f} % of {backtest.fresh_picks.books} books of "
            "fresh random picks"
        )
    if summary.quality:
        quality = summary.quality
        lines.append(
            f"  IC {quality.mean_ic:+.4f} (t {quality.ic_t:.1f}), rank IC {quality.mean_rank_ic:+.4f} "
            f"(t {quality.rank_ic_t:.1f}, Newey-West, lag {quality.horizon}) over {quality.days} days"
        )
    if len(summary.offsets) > 1:
        spread = ", ".join(f"{each.offset}: {each.gross_sharpe:.2f}/{each.net_sharpe:.2f}" for each in summary.offsets)
        lines.append(f"  Sharpe before/after costs by rebalance offset  {spread}")
    if summary.delistings:
        lines.append(
            f"  {summary.delistings.unknown} delistings have no known return: Sharpe after costs "
            f"{summary.delistings.net_sharpe_at_zero:.2f} if each is 0, "
            f"{summary.delistings.net_sharpe_at_minus_30:.2f} if each is -30 %"
        )
    return "\n".join(lines)


def _waits_for(proposal: StoredProposal) -> str:
    until = f"{proposal.document.expires_at:%Y-%m-%d %H:%M} UTC"
    if proposal.state == "open":
        return f"  open for a decision until {until}; nothing is sent before"
    return f"  {proposal.state}, to be executed until {until}; `stockpicker approve {proposal.id}` goes on with it"


def _proposal_text(summary: StrategySummary) -> str:
    proposal = summary.proposal
    if proposal is None:
        return f"No rebalance is proposed: {summary.no_proposal.removeprefix('no proposal: ')}."
    document = proposal.document
    lines = [
        f"proposed rebalance {proposal.id}: {len(document.orders)} orders for account {document.account!r} "
        f"({document.mode}), to fill at the open of {document.trade_session}",
        _waits_for(proposal),
    ]
    for order in document.orders[:_ORDERS_SHOWN]:
        lines.append(f"  {order.side:<6} {order.quantity:>8} {order.symbol:<8} at about {order.reference_price}")
    if len(document.orders) > _ORDERS_SHOWN:
        lines.append(f"  and {len(document.orders) - _ORDERS_SHOWN} more")
    return "\n".join(lines)
