"""The assets and checks of one strategy: scaled features, datasets, model, predictions, back-test, plan, executions.

They are thin: each names what it reads and which room does the work. Arithmetic is in `research`, fitting in
`training`, everything about orders in `trading`.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from stockpicker_dagster.components import checks
from stockpicker_dagster.components.account_orders import EXECUTIONS_SCHEMA, execute_session, propose_rebalance
from stockpicker_dagster.components.backtest_days import MadeDays, make_backtest_days
from stockpicker_dagster.components.computing import Computing
from stockpicker_dagster.components.feature_view import DayFigures, FeatureView, stored_before
from stockpicker_dagster.components.metadata import (
    backtest_plots,
    bars,
    column_schema,
    describe_last,
    histogram,
    row_counts,
)
from stockpicker_dagster.components.partitions import model_periods, serving_model, sessions_of, trading_days
from stockpicker_dagster.components.plans import make_plans
from stockpicker_dagster.components.scoring_runs import scorers
from stockpicker_dagster.components.training_runs import train_periods
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.evaluation.judgement import judge
from stockpicker_dagster.evaluation.stored_days import stored_backtest
from stockpicker_dagster.market.decision_records import definition_under, load_decisions
from stockpicker_dagster.market.universes import Universe
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA, summarize
from stockpicker_dagster.research.cross_section import scale_at
from stockpicker_dagster.research.exposures import sessions_needed, size_and_beta
from stockpicker_dagster.research.neutralization import Exposures
from stockpicker_dagster.research.plan import PLAN_SCHEMA
from stockpicker_dagster.research.splits import Split
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.storage.lake import DEFINITION, MEMBERS, Bundle, DayTable, Lake
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.datasets import LabelRule, build_dataset
from stockpicker_dagster.training.models import check_dataset, describe_model, load_model
from stockpicker_dagster.training.platforms.requests import TrainingJob
from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA, score_days

_DAILY = (
    "scaled_features",
    "predictions",
    "backtest_metrics",
    "rebalance_orders",
    "rebalance_approval",
    "executions",
)


class _Strategy:
    """What every asset of one strategy shares: keys, partitions, owners, the form and the calendar."""

    def __init__(self, name: str, form: StrategyForm) -> None:
        self.name = name
        self.form = form
        self.features = form.feature_set().names
        self.calendar = form.calendar
        self.days = trading_days(form.prices.start, form.prices.calendar)
        self.periods = model_periods(form)
        self.prices_key = dg.AssetKey([form.prices.key, "prices"])
        self.features_key = dg.AssetKey([form.prices.key, form.features.name, "features"])
        self.delistings_table = f"{form.prices.key}/delistings"
        self.caveat = form.prices.build().caveat or "none"

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.name, asset])

    def settings(
        self,
        asset: str,
        kinds: set[str],
        description: str,
        schema: dg.TableSchema | None = None,
        check_names: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The arguments that all assets have in common."""
        metadata = {"dagster/column_schema": schema} if schema else {}
        return {
            "key": self.key(asset),
            "partitions_def": self.days if asset in _DAILY else self.periods,
            "backfill_policy": dg.BackfillPolicy.single_run() if asset in _DAILY or self.periods else None,
            "group_name": self.name,
            "owners": [self.form.dagster_owner],
            "kinds": kinds,
            "description": description,
            "metadata": metadata,
            "check_specs": checks.specs(self.key(asset), check_names),
            # With checks beside it, the annotation alone would say that nothing is stored.
            "dagster_type": dg.Any,
        }

    def days_of(
        self, asset: str, table: pl.DataFrame, made_from: dg.AssetKey, members: Mapping[date, str] | None = None
    ) -> DayTable:
        """A daily table with the definition that its days were made under, and the asset that they were made from.

        `members` digests who was a member on each day.
        """
        note = {DEFINITION: self.form.definition(asset)}
        of_days = {day: {MEMBERS: digest} for day, digest in (members or {}).items()}
        return DayTable(table, note=note, day_notes=of_days, made_from=made_from.to_user_string())

    def definition(self, asset: str, period: str, lake: Lake) -> str:
        """The definition of a period's dataset or model, and of the decisions about prices that it was made under."""
        decisions = load_decisions(lake, self.form.prices.key)
        return definition_under(self.form.definition(asset), decisions, self.split(period).last_known)

    def sessions_served(self, through: date) -> list[date]:
        """The sessions from the first that a model serves up to `through`."""
        first = self.form.first_served
        return self.calendar.sessions(first, through) if first <= through else []

    def split(self, period: str) -> Split:
        return self.form.split(None if self.periods is None else period)

    def period_key(self, day: date) -> str:
        return self.form.period_key(day) or UNPARTITIONED


def strategy_assets(name: str, form: StrategyForm) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The eight assets of DESIGN's table that belong to one strategy."""
    strategy = _Strategy(name, form)
    return [
        _scaled_features(strategy),
        _datasets(strategy),
        _trained_model(strategy),
        _predictions(strategy),
        _backtest_metrics(strategy),
        _rebalance_orders(strategy),
        _rebalance_approval(strategy),
        _executions(strategy),
    ]


def _scaled_features(strategy: _Strategy) -> dg.AssetsDefinition:
    form = strategy.form
    columns = {"symbol": pl.String(), "date": pl.Date(), **dict.fromkeys(strategy.features, pl.Float32())}

    @dg.asset(
        **strategy.settings(
            "scaled_features",
            {"spark" if form.features.compute == "spark" else "numba", "parquet"},
            "The universe's members on the day, each feature scaled over that day's cross-section, imputed and finite.",
            column_schema(columns),
            checks.SCALED,
        ),
        ins={"features": dg.AssetIn(strategy.features_key)},
        deps=_membership_deps(strategy),
    )
    def scaled_features(
        context: dg.AssetExecutionContext, features: pl.LazyFrame, deployment: Deployment, computing: Computing
    ) -> dg.MaterializeResult:
        days = sessions_of(context)
        source, lake = form.prices.build(), deployment.lake
        form.universe.keep_list(lake, deployment.now())
        universe = form.universe.build(source, (days[0], days[-1]), lake, strategy.calendar)
        members = form.universe.narrowed(universe.membership(days), source, lake, strategy.calendar)
        rows = (
            features.select("symbol", "date", *strategy.features)
            .join(members.lazy(), on=["symbol", "date"], how="semi")
            .collect()
        )
        scaling = form.scaling
        exposures = _exposures(strategy, universe, rows, lake)
        where = computing.at(form.features.compute)
        table = scale_at(
            where, rows, strategy.features, scaling.method, scaling.imputation, scaling.quantiles, exposures
        )
        raw, view = _looked_at(strategy, lake, days, rows, table)
        describe_last(
            context,
            {
                "caveat": strategy.caveat,
                "universe": universe.name,
                "universe_point_in_time": universe.history,
                "universe_caveat": universe.caveat or "none",
                "members_last_day": members.filter(pl.col("date") == days[-1]).height,
                "neutralized": ", ".join(scaling.neutralize or ["nothing"]),
                **view.metadata(),
            },
        )
        listed = {} if form.universe.needs_prices else universe.digests(days)
        return dg.MaterializeResult(
            value=strategy.days_of("scaled_features", table, strategy.features_key, listed),
            metadata=row_counts(context, table, days),
            check_results=[
                checks.complete_and_finite(table, strategy.features),
                checks.coverage_holds(raw, days),
                checks.columns_vary(view.figures.counting(raw), days, raw),
                checks.past_members_confirmed(universe.name, _days_of_other_members(strategy, lake, days)),
            ],
        )

    return scaled_features


def _days_of_other_members(strategy: _Strategy, lake: Lake, days: Sequence[date]) -> list[date]:
    """The stored days, but for `days`, of which the universe's list says otherwise now who was a member."""
    form, stored = strategy.form, lake.notes(strategy.key("scaled_features").to_user_string())
    noted = {day: note[MEMBERS] for day, note in stored.items() if MEMBERS in note and day not in set(days)}
    if not noted or form.universe.needs_prices:
        return []
    span = (min(noted), max(noted))
    now = form.universe.build(form.prices.build(), span, lake, strategy.calendar).digests(list(noted))
    return [day for day, digest in noted.items() if now[day] != digest]


def _looked_at(
    strategy: _Strategy, lake: Lake, days: Sequence[date], rows: pl.DataFrame, table: pl.DataFrame
) -> tuple[DayFigures, FeatureView]:
    """The figures of the members' features, and a view of the scaled ones, both from the sessions before `days` on."""
    names, form = strategy.features, strategy.form
    features_before = stored_before(
        lake, strategy.features_key.to_user_string(), names, form.features_definition, days[0]
    )
    scaled_before = stored_before(
        lake, strategy.key("scaled_features").to_user_string(), names, form.definition("scaled_features"), days[0]
    )
    view = FeatureView(names, scaled_before)
    view.look_at(days, table)
    return DayFigures.of(features_before, names).then(DayFigures.of(rows, names)), view


def _exposures(strategy: _Strategy, universe: Universe, rows: pl.DataFrame, lake: Lake) -> Exposures | None:
    """What features shall say nothing about, for each of `rows`; None where nothing is asked to be taken out."""
    scaling, prices = strategy.form.scaling, strategy.form.prices
    table = rows.select("symbol", "date")
    if not scaling.neutralize or table.is_empty():
        return None
    days = table["date"].unique().sort().to_list()
    if scaling.by_numbers:
        stored = lake.scan(strategy.prices_key.to_user_string(), sessions_needed(days, strategy.calendar, prices.start))
        asked = stored.filter(pl.col("symbol").is_in(table["symbol"].unique().to_list())).collect()
        table = size_and_beta(table, asked, strategy.calendar)
    if scaling.by_sector:
        table = table.join(universe.sectors_on(days), on=["symbol", "date"], how="left")
        if table["sector"].null_count() == table.height:
            raise InvalidInput(
                f"scaling cannot neutralize the sector: the universe {universe.name!r} says no member's sector; "
                "leave it out, or give the list a column sector"
            )
    return Exposures(table, "sector" if scaling.by_sector else None, scaling.by_numbers)


def _membership_deps(strategy: _Strategy) -> list[dg.AssetDep]:
    """What decides membership and exposures beside the features: a universe's lists, and prices up to the day.

    Windows of prices reach back over as many sessions as the rule says, and are read from the lake.
    """
    universe = strategy.form.universe
    needs_prices = universe.needs_prices or strategy.form.scaling.by_numbers
    lists = [dg.AssetDep(["universes", universe.listed, "members"])] if universe.listed else []
    return [*lists, *([dg.AssetDep(strategy.prices_key)] if needs_prices else [])]


def _datasets(strategy: _Strategy) -> dg.AssetsDefinition:
    form = strategy.form
    rule = LabelRule(form.label.horizon_days, form.label.transform, form.label.quantiles)

    def dataset(deployment: Deployment, period: str) -> Bundle:
        split = strategy.split(period)
        lake, scaled_table = deployment.lake, strategy.key("scaled_features").to_user_string()
        tested = _test_sessions(strategy, lake.days(scaled_table))
        last = max([split.last_known, *tested])
        sessions = strategy.calendar.sessions(split.train[0], last)
        return build_dataset(
            lake.read(scaled_table, sorted({*split.train, *split.validation, *tested})),
            lake.read(strategy.prices_key.to_user_string(), sessions),
            lake.read(strategy.delistings_table, sessions),
            split,
            tested,
            strategy.features,
            rule,
            strategy.calendar,
            strategy.definition("datasets", period, lake),
            form.scaling.method,
        )

    @dg.asset(
        **strategy.settings(
            "datasets",
            {"parquet"},
            "Training, validation and test tables with labels, captions, and the market data of the same days.",
        ),
        # Training reaches years back from the period it serves, which no mapping between cadences can say.
        deps=[
            dg.AssetDep(strategy.key("scaled_features"), partition_mapping=dg.AllPartitionMapping()),
            dg.AssetDep(strategy.prices_key, partition_mapping=dg.AllPartitionMapping()),
        ],
    )
    def datasets(context: dg.AssetExecutionContext, deployment: Deployment) -> dict[str, Bundle]:
        made: dict[str, Bundle] = {}
        for period in _periods_of(context):
            made[period] = dataset(deployment, period)
            context.log.info("dataset of %s is ready", period)
        describe_last(
            context, {"caveat": strategy.caveat, "split_of_last_period": _split_text(strategy.split(max(made)))}
        )
        return made

    return datasets


def _test_sessions(strategy: _Strategy, stored: Sequence[date]) -> list[date]:
    """The test sessions of fixed periods up to the last stored; a walk-forward model is tested by what it serves."""
    test = strategy.form.periods.test
    inside = [day for day in stored if test[0] <= day <= test[1]] if test else []
    # Every session up to the last one: a day that is lacking in between raises when it is read.
    return strategy.calendar.sessions(test[0], inside[-1]) if test and inside else []


def _split_text(split: Split) -> str:
    return (
        f"train {split.train[0]} to {split.train[-1]}, validation {split.validation[0]} to {split.validation[-1]}, "
        f"labels known by {split.last_known}"
    )


def _periods_of(context: dg.AssetExecutionContext) -> list[str]:
    return (
        sorted(context.partition_keys)
        if context.has_partition_key or context.has_partition_key_range
        else [UNPARTITIONED]
    )


def _trained_model(strategy: _Strategy) -> dg.AssetsDefinition:
    algorithm = strategy.form.algorithm

    @dg.asset(
        **strategy.settings(
            "trained_model",
            {algorithm.name},
            "The fitted model of one period, with the data and code it was made from; model_id is a hash of them.",
        ),
        ins={"datasets": dg.AssetIn(strategy.key("datasets"))},
    )
    def trained_model(
        context: dg.AssetExecutionContext, datasets: dict[str, Path], deployment: Deployment
    ) -> dict[str, Bundle]:
        jobs: dict[str, TrainingJob] = {}
        for period, folder in datasets.items():
            made_under = strategy.definition("datasets", period, deployment.lake)
            check_dataset(folder, strategy.name, period, made_under)
            settings = Settings(
                algorithm.name,
                algorithm.hyperparameters,
                algorithm.seed,
                strategy.name,
                period,
                strategy.definition("trained_model", period, deployment.lake),
                made_under,
                search=algorithm.search_settings.as_text() if algorithm.search_settings else "",
            )
            jobs[period] = TrainingJob(settings, folder, round(3600 * strategy.form.training.max_hours))
        trained, said = train_periods(
            context, strategy.form, jobs, lambda period: _earlier_model(strategy, period, deployment.lake)
        )
        models = {period: each.bundle for period, each in trained.items()}
        for period, model in models.items():
            described = describe_model(model)
            context.log.info("model %s of %s: %s", described["model_id"], period, described["metrics"])
        describe_last(context, {"caveat": strategy.caveat, **_model_metadata(models), **said})
        return models

    return trained_model


def _earlier_model(strategy: _Strategy, period: str, lake: Lake) -> Path:
    """The stored model of a period, from which the next one begins. Raises `InvalidInput` if it is not there."""
    table = strategy.key("trained_model").to_user_string()
    if period not in lake.bundles(table):
        raise InvalidInput(
            f"with a warm start a model begins from that of {period}, which is not trained yet; train {period} first"
        )
    folder = lake.bundle(table, period)
    load_model(folder, strategy.name, strategy.features, strategy.definition("trained_model", period, lake))
    return folder


def _model_metadata(models: dict[str, Bundle]) -> dict[str, Any]:
    described = {period: describe_model(model) for period, model in models.items()}
    last = described[max(described)]
    ics = [each["metrics"].get("validation_rank_ic") or 0.0 for each in described.values()]
    return {
        "model_id": last["model_id"],
        "data_version": last["data_version"],
        "code_version": last["code_version"],
        "hyperparameters": dg.MetadataValue.json(last["chosen"]),
        "metrics": dg.MetadataValue.json(last["metrics"]),
        **bars("validation_rank_ic_by_period", list(described), ics),
    }


def _predictions(strategy: _Strategy) -> dg.AssetsDefinition:
    model_in = dg.AssetIn(
        strategy.key("trained_model"), partition_mapping=serving_model() if strategy.periods else None
    )

    @dg.asset(
        **strategy.settings(
            "predictions",
            {"parquet"},
            "Every member ranked against the universe's mean, from most undervalued (rank 1) to most overvalued.",
            column_schema(PREDICTIONS_SCHEMA),
            checks.PREDICTIONS,
        ),
        ins={"scaled_features": dg.AssetIn(strategy.key("scaled_features")), "trained_model": model_in},
    )
    def predictions(
        context: dg.AssetExecutionContext,
        scaled_features: pl.LazyFrame,
        trained_model: dict[str, Path],
        deployment: Deployment,
    ) -> dg.MaterializeResult:
        days = sessions_of(context)
        made_under = {period: strategy.definition("trained_model", period, deployment.lake) for period in trained_model}
        asked = scorers(context, strategy.name, strategy.form, strategy.features, trained_model, made_under)
        table = score_days(
            scaled_features.collect(),
            days,
            strategy.features,
            strategy.form.first_served,
            asked.models,
            strategy.period_key,
            asked.infer,
        )
        last = table.filter(pl.col("date") == days[-1])
        describe_last(
            context,
            {
                "caveat": strategy.caveat,
                **asked.metadata,
                "scored_last_day": last.height,
                "most_undervalued": ", ".join(last["symbol"].head(10)),
                "most_overvalued": ", ".join(last["symbol"].tail(10).reverse()),
                **histogram("scores_last_day", last["score"].to_numpy(), "score"),
            },
        )
        return dg.MaterializeResult(
            value=strategy.days_of("predictions", table, strategy.key("scaled_features")),
            metadata=row_counts(context, table, days),
            check_results=[checks.every_member_ranked(table)],
        )

    return predictions


def _backtest_metrics(strategy: _Strategy) -> dg.AssetsDefinition:

    @dg.asset(
        **strategy.settings(
            "backtest_metrics",
            {"numba", "parquet"},
            "The long-short book's day: returns, positions and costs, beside random books under the same rules.",
            column_schema(BACKTEST_SCHEMA),
            checks.BACKTEST,
        ),
        # The book's day follows from every day before it, which are read from the lake: a mapping that reaches back
        # over the whole history takes Dagster longer to count than the back-test takes to run.
        deps=[strategy.key("predictions"), strategy.prices_key],
    )
    def backtest_metrics(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.MaterializeResult:
        days = sessions_of(context)
        made = make_backtest_days(strategy.name, strategy.form, deployment.lake, days)
        context.log.info("the back-test %s", made.began)
        describe_last(context, _backtest_metadata(strategy, deployment, made, days[0]))
        return dg.MaterializeResult(
            value=strategy.days_of("backtest_metrics", made.table, strategy.key("predictions")),
            metadata=row_counts(context, made.table, days),
            check_results=[checks.equity_adds_up(made.table)],
        )

    return backtest_metrics


def _backtest_metadata(strategy: _Strategy, deployment: Deployment, made: MadeDays, first: date) -> dict[str, Any]:
    """The back-test up to the last day of the run, from stored days, with its verdict.

    To show it is to look at it, and makes it a trial.
    """
    table, caveat = made.table, strategy.caveat
    if table.is_empty():
        return {"caveat": caveat, "back_test": made.began}
    earlier = strategy.sessions_served(first)[:-1]
    try:
        if earlier:
            past = stored_backtest(strategy.name, strategy.form, deployment.lake, earlier[0], earlier[-1])
            table = pl.concat([past, table])
    except StockPickerError as error:
        return {"caveat": caveat, "back_test": made.began, "verdict": f"none: {error}"}
    judgement = judge(strategy.name, strategy.form, table, deployment.database, deployment.now())
    summary = summarize(table)
    assert summary is not None
    performance = summary.performance
    return {
        "caveat": caveat,
        "back_test": made.began,
        "verdict": judgement.verdict.words if judgement.verdict else f"none: {judgement.no_verdict}",
        "verdict_reason": judgement.verdict.reason if judgement.verdict else "none",
        "trials": judgement.verdict.trials if judgement.verdict else "none",
        "span": f"{summary.first} to {summary.last}",
        "net_sharpe": performance.net_sharpe,
        "gross_sharpe": performance.gross_sharpe,
        "net_annual_return": performance.net_annual_return,
        "max_drawdown": performance.max_drawdown,
        "turnover_per_year": performance.turnover_per_year,
        "random_book_percentile": summary.random_books.percentile if summary.random_books else "never traded",
        **backtest_plots(table, caveat),
    }


def _rebalance_orders(strategy: _Strategy) -> dg.AssetsDefinition:
    form = strategy.form

    @dg.asset(
        **strategy.settings(
            "rebalance_orders",
            {"parquet"},
            "The account-free plan: target weights and reference prices. The current session also proposes it to a "
            "person.",
            column_schema(PLAN_SCHEMA),
            checks.PLAN,
        ),
        # As with the back-test, a target may follow from those before it, which are read from the lake.
        deps=[strategy.key("predictions"), strategy.prices_key, strategy.key("backtest_metrics")],
    )
    def rebalance_orders(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.MaterializeResult:
        days = sessions_of(context)
        plan = make_plans(strategy.name, form, deployment.lake, days)
        outcome = propose_rebalance(deployment, strategy.name, form, days[-1], plan, context.run.run_id)
        context.log.info(outcome.sentence)
        describe_last(
            context,
            {
                "caveat": strategy.caveat,
                "proposal": outcome.proposal_id or "none",
                "proposal_note": outcome.sentence,
            },
        )
        return dg.MaterializeResult(
            value=strategy.days_of("rebalance_orders", plan, strategy.key("predictions")),
            metadata=row_counts(context, plan, days),
            check_results=[checks.legs_balance(plan, form.backtest.rules().largest_leg)],
        )

    return rebalance_orders


def _rebalance_approval(strategy: _Strategy) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=strategy.key("rebalance_approval"),
        deps=[strategy.key("rebalance_orders")],
        partitions_def=strategy.days,
        group_name=strategy.name,
        owners=[strategy.form.dagster_owner],
        kinds={"person"},
        description="A person's decision on the proposal. An event here is a trace of it, never a proof: that is in "
        "the database.",
    )


def _executions(strategy: _Strategy) -> dg.AssetsDefinition:
    @dg.asset(
        **strategy.settings(
            "executions",
            {"parquet"},
            "What was ordered and filled for an approved proposal. Nothing is sent without an approval in the "
            "database.",
            column_schema(EXECUTIONS_SCHEMA),
        ),
        deps=[strategy.key("rebalance_approval")],
    )
    def executions(context: dg.AssetExecutionContext, deployment: Deployment) -> pl.DataFrame:
        days = sessions_of(context)
        reports = [execute_session(deployment, strategy.name, strategy.form, day) for day in days]
        for report in reports:
            context.log.info(report.sentence)
        table = pl.concat([report.orders for report in reports])
        context.add_output_metadata(row_counts(context, table, days))
        describe_last(context, {"caveat": strategy.caveat, "outcome": reports[-1].sentence})
        return table

    return executions
