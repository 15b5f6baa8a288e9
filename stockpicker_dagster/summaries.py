"""What a run ends with: the ranking, the back-test with its random books, and the proposal, as figures and as text.

Everything is read from the lake and the ledger; nothing is computed that is not derived from stored days.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import polars as pl

from stockpicker_dagster.evaluation.against_reference import ReferenceResult, against_reference
from stockpicker_dagster.evaluation.judgement import Judgement, judge
from stockpicker_dagster.evaluation.missing_names import survivorship_of
from stockpicker_dagster.market.identity import Identities
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster.market.universes import Universe
from stockpicker_dagster.market.universes.survivorship import Survivorship
from stockpicker_dagster.research.backtest.capacity import Capacity
from stockpicker_dagster.research.backtest.days import (
    BacktestSummary,
    DelistingSensitivity,
    OffsetResult,
    delisting_sensitivity,
    offset_results,
    score_quality,
    summarize,
)
from stockpicker_dagster.research.backtest.signal_quality import SignalQuality
from stockpicker_dagster.research.backtest.trades import capacity_of
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading.proposal import StoredProposal, open_proposals

_SHOWN = 10
_ORDERS_SHOWN = 6


@dataclass(frozen=True)
class StrategySummary:
    """One strategy after the close of `session`."""

    strategy: str
    session: date
    caveats: tuple[str, ...]
    universe: Universe
    ranking: pl.DataFrame
    """The predictions of `session`, best first; empty before the first model."""
    backtest: BacktestSummary | None
    judgement: Judgement | None
    """The verdict on the back-test, or why there is none; None without a back-test."""
    survivorship: Survivorship | None
    quality: SignalQuality | None
    offsets: tuple[OffsetResult, ...]
    delistings: DelistingSensitivity | None
    proposal: StoredProposal | None
    no_proposal: str
    """Why nothing is proposed; empty if something is."""
    capacity: Capacity | None = None
    reference: ReferenceResult | None = None
    """None where the strategy names no benchmark and no factors."""
    tickers: Mapping[str, str] = field(default_factory=dict)
    """What the ranked and ordered stocks are called on `session`, where that is not their id."""


def summarize_strategy(
    name: str, form: StrategyForm, deployment: Deployment, session: date, proposal_note: str = "the plan was not run"
) -> StrategySummary:
    """The summary of `name` after the close of `session`, from stored days. Raises `MissingDays` where one lacks."""
    lake, calendar = deployment.lake, form.calendar
    first = form.first_served
    served = calendar.sessions(first, session) if first <= session else []
    source = form.prices.build()
    universe = form.universe.build(source, (min([session, *served]), session), lake, calendar)
    caveats = list(dict.fromkeys(caveat for caveat in (source.caveat, universe.caveat) if caveat))
    ranking = lake.read(f"{name}/predictions", [session])
    identities = identities_in_force(lake, form.prices.key)
    caveats += _quarantine_caveat(lake.read(f"{form.prices.key}/quarantine", [session]), session)
    if not served:
        return StrategySummary(
            *(name, session, tuple(caveats), universe, ranking, None, None, None, None, (), None, None, proposal_note),
            tickers=_tickers(identities, session, ranking["symbol"]),
        )
    predictions = lake.scan(f"{name}/predictions", served).select("symbol", "date", "score").collect()
    prices = lake.read(f"{form.prices.key}/prices", served)
    delistings = lake.read(f"{form.prices.key}/delistings", served)
    days = lake.read(f"{name}/backtest_metrics", served)
    proposal = _proposal_of(name, form.trading.account, session, deployment)
    ordered = [order.symbol for order in proposal.document.orders] if proposal else []
    return StrategySummary(
        strategy=name,
        session=session,
        caveats=tuple(caveats),
        universe=universe,
        ranking=ranking,
        backtest=summarize(days),
        judgement=judge(name, form, days, deployment.database, deployment.now()),
        survivorship=survivorship_of(universe, predictions, prices, served, calendar),
        quality=score_quality(predictions, prices, delistings, calendar, form.label.horizon_days),
        offsets=tuple(offset_results(days)),
        delistings=delisting_sensitivity(days),
        proposal=proposal,
        no_proposal="" if proposal else proposal_note,
        capacity=capacity_of(days, prices),
        reference=against_reference(form.reference, days) if form.reference else None,
        tickers=_tickers(identities, session, [*ranking["symbol"], *ordered]),
    )


def _tickers(identities: Identities, session: date, symbols: Iterable[str]) -> dict[str, str]:
    """The tickers on `session` of those of the ids that have another one than they are named after."""
    tickers = {symbol: identities.latest_ticker(symbol, session) for symbol in symbols}
    return {symbol: ticker for symbol, ticker in tickers.items() if ticker != symbol}


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
            "universe": {
                "name": summary.universe.name,
                "point_in_time": summary.universe.point_in_time,
                "point_in_time_since": _text_or_none(summary.universe.point_in_time_since),
            },
            "tickers": dict(summary.tickers),
            "most_undervalued": ranking[:_SHOWN],
            "most_overvalued": ranking[: -_SHOWN - 1 : -1],
            "backtest": _backtest_json(summary.backtest),
            "verdict": asdict(summary.judgement.verdict) if summary.judgement and summary.judgement.verdict else None,
            "no_verdict": summary.judgement.no_verdict if summary.judgement else "",
            "capacity": asdict(summary.capacity) if summary.capacity else None,
            "reference": _reference_json(summary.reference),
            "survivorship": asdict(summary.survivorship) if summary.survivorship else None,
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


def _text_or_none(day: date | None) -> str | None:
    return None if day is None else str(day)


def _backtest_json(backtest: BacktestSummary | None) -> dict[str, Any] | None:
    if backtest is None:
        return None
    return {
        "first": str(backtest.first),
        "last": str(backtest.last),
        **asdict(backtest.performance),
        **asdict(backtest.risk),
        "random_books": asdict(backtest.random_books) if backtest.random_books else None,
        "fresh_picks_before_costs": asdict(backtest.fresh_picks) if backtest.fresh_picks else None,
    }


def _reference_json(reference: ReferenceResult | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    if (figures := reference.figures) is None:
        return {"no_figures": reference.no_figures}
    return {**asdict(figures), "first": str(figures.first), "last": str(figures.last)}


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def as_text(summary: StrategySummary) -> str:
    """The summary for a person."""
    blocks = [
        f"{summary.strategy}, after the close of {summary.session}"
        + "".join(f"\nCAVEAT: {caveat}" for caveat in summary.caveats),
        _ranking_text(summary.ranking, summary.tickers),
        _backtest_text(summary),
        _proposal_text(summary),
    ]
    return "\n\n".join(blocks)


def _ranking_text(ranking: pl.DataFrame, tickers: Mapping[str, str]) -> str:
    if ranking.is_empty():
        return "No stock is ranked: the first model serves later."
    top, bottom = ranking.head(_SHOWN), ranking.tail(_SHOWN).reverse()
    lines = [f"{ranking.height} stocks ranked against the universe's mean", ""]
    lines.append(f"  {'most undervalued':<30}{'most overvalued'}")
    for good, bad in zip(top.iter_rows(named=True), bottom.iter_rows(named=True), strict=True):
        lines.append(f"  {_ranked(good, tickers):<30}{_ranked(bad, tickers)}")
    return "\n".join(lines)


def _ranked(row: dict[str, Any], tickers: Mapping[str, str]) -> str:
    return f"{row['rank']:>4}  {_called(row['symbol'], tickers):<8} {row['score']:+.4f}"


def _called(symbol: str, tickers: Mapping[str, str]) -> str:
    """What the stock trades under today and, where that is another name, its id."""
    return f"{tickers[symbol]} ({symbol})" if symbol in tickers else symbol


def _backtest_text(summary: StrategySummary) -> str:
    backtest = summary.backtest
    if backtest is None:
        return "No back-test yet: the first model serves later."
    figures = backtest.performance
    lines = [
        *(_verdict_lines(summary.judgement) if summary.judgement else []),
        f"back-test {backtest.first} to {backtest.last}, {figures.sessions} sessions, after costs",
        f"  annual return {figures.net_annual_return:+.1%} (before costs {figures.gross_annual_return:+.1%}), "
        f"volatility {figures.volatility:.1%}, largest drawdown {figures.max_drawdown:.1%}",
        f"  Sharpe {figures.net_sharpe:.2f} (before costs {figures.gross_sharpe:.2f}), "
        f"turnover {figures.turnover_per_year:.0f} times equity a year, costs {figures.cost_per_year:.1%} a year",
        f"  Sortino {backtest.risk.sortino:.2f}, Calmar {backtest.risk.calmar:.2f}, worst days (5 %) "
        f"{backtest.risk.expected_shortfall:+.2%} on average, held {backtest.risk.holding_sessions:.0f} sessions",
    ]
    if summary.capacity:
        lines.append(_capacity_line(summary.capacity))
    if summary.reference:
        lines += _reference_lines(summary.reference)
    lines.append(f"  universe {summary.universe.name}: {summary.universe.history}")
    if summary.survivorship:
        lines += _survivorship_lines(summary.survivorship)
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


def _capacity_line(capacity: Capacity) -> str:
    if capacity.break_even == 0.0:
        return "  capacity: none, there is no return for market impact to take"
    return (
        f"  capacity: market impact takes half of the return at {capacity.half_of_return:,.0f}, all of it at "
        f"{capacity.break_even:,.0f}; one trade in ten is above 1 % of the day's volume from "
        f"{capacity.at_one_percent_of_volume:,.0f}"
    )


def _reference_lines(reference: ReferenceResult) -> list[str]:
    figures = reference.figures
    if figures is None:
        return [f"  no benchmark or factors: {reference.no_figures}"]
    over = f"{figures.first} to {figures.last}"
    lines = []
    if (beside := figures.benchmark) is not None:
        lines.append(
            f"  against {figures.benchmark_name}, {over}: beta {beside.beta:.2f}, alpha {beside.alpha:+.1%} a year "
            f"(t {beside.alpha_t:.1f})"
        )
    if (model := figures.factors) is not None:
        betas = ", ".join(f"{name} {beta:+.2f}" for name, beta in model.betas.items())
        lines.append(
            f"  factors, {over}: alpha {model.alpha:+.1%} a year (t {model.alpha_t:.1f}), {betas}, "
            f"R2 {model.r_squared:.2f}"
        )
    return lines


def _verdict_lines(judgement: Judgement) -> list[str]:
    """Plain words, the reason, and the few figures that say how far to trust them."""
    verdict = judgement.verdict
    if verdict is None:
        return [f"verdict: none, {judgement.no_verdict}"]
    ratio, back = verdict.sharpe_interval, verdict.break_even_cost
    lines = [
        f"verdict: {verdict.words}",
        f"  {verdict.reason}",
        f"  Sharpe after costs {verdict.sharpe:.2f}, 95 % interval {ratio.low:.2f} to {ratio.high:.2f}; "
        f"{verdict.trials} {'trial' if verdict.trials == 1 else 'trials'} on this universe so far",
    ]
    if verdict.offsets:
        lines.append(
            f"  over all rebalance offsets {verdict.offsets.mean:.2f} on average, {verdict.offsets.lowest:.2f} to "
            f"{verdict.offsets.highest:.2f}"
        )
    if verdict.sharpe > 0:
        length = verdict.minimum_track_record
        lines.append(
            f"  sure to 95 % after {length:.0f} sessions if it goes on like this ({verdict.sessions} so far)"
            + ("" if math.isnan(back) else f"; nothing is left if costs are {back:.1f} times as high")
        )
    return lines


def _survivorship_lines(estimate: Survivorship) -> list[str]:
    lines = []
    thin = [year for year in estimate.years if year.with_prices < year.members]
    if thin:
        worst = min(thin, key=lambda year: year.with_prices / year.members)
        lines.append(
            f"  {estimate.coverage:.0%} of the members of a year have prices; fewest in {worst.year}: "
            f"{worst.with_prices} of {worst.members}"
        )
    if estimate.gap is None:
        lines.append(f"  survivorship: {estimate.compared}")
    else:
        lines.append(f"  survivorship: about {estimate.gap:+.1%} a year, equal weights ({estimate.compared})")
    return lines


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
    if document.over_volume:
        lines.append(f"  {document.less_opened}")
    for order in document.orders[:_ORDERS_SHOWN]:
        stock = _called(order.symbol, summary.tickers)
        lines.append(f"  {order.side:<6} {order.quantity:>8} {stock:<8} at about {order.reference_price}")
    if len(document.orders) > _ORDERS_SHOWN:
        lines.append(f"  and {len(document.orders) - _ORDERS_SHOWN} more")
    return "\n".join(lines)
