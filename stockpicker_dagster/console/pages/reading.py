"""The pages that only read: today, ranking, one stock, back-test, comparison, executions, models, runs."""

import json
from typing import Any

from starlette.responses import Response

from stockpicker_dagster.console.views import comparisons, executions, holdings, models, ranking, runs, stock, today
from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.web import Asked, Page, day_from, live, page, to
from stockpicker_dagster.evaluation import comparison
from stockpicker_dagster.research.backtest.significance.verdict import STRONG, WEAK
from stockpicker_dagster.tear_sheet.page import as_html
from stockpicker_dagster.tear_sheet.plots import BLUE, GREY, ORANGE, PURPLE, SKY, VERMILLION

ROWS_A_PAGE = 100
PALETTE = (BLUE, VERMILLION, PURPLE, ORANGE, SKY, GREY)


def show_today(asked: Asked) -> Response:
    """Each strategy: last run, age of its data, verdict, what waits, whether anything is wrong."""
    return page(asked, "today.html", "Today", here="/", today=today.today(asked.desk))


def show_ranking(asked: Asked) -> Response:
    """Every stock of one session, searched and sorted."""
    name = asked.path.get("strategy")
    if name is None:
        return _choose(asked, "/ranking", "Ranking")
    found = ranking.ranking(asked.desk, name, day_from(asked.query.get("session")))
    search, sort = asked.query.get("search", ""), asked.query.get("sort", "rank")
    descending = asked.query.get("order", "") == "down"
    rows = found.part(search, sort, descending)
    first = min(_whole(asked.query.get("from"), 0), max(0, rows.height - 1))
    return page(
        asked,
        "ranking_rows.html" if asked.request.headers.get("hx-target") == "ranking" else "ranking.html",
        f"Ranking of {name}",
        here="/ranking",
        strategies=sorted(asked.desk.forms()),
        strategy=name,
        found=found,
        rows=rows.slice(first, ROWS_A_PAGE).to_dicts(),
        total=rows.height,
        first=first,
        step=ROWS_A_PAGE,
        search=search,
        sort=sort,
        descending=descending,
    )


def download_ranking(asked: Asked) -> Response:
    """The ranking as CSV, as it is searched and sorted."""
    name = asked.path["strategy"]
    found = ranking.ranking(asked.desk, name, day_from(asked.query.get("session")))
    rows = found.part(
        asked.query.get("search", ""), asked.query.get("sort", "rank"), asked.query.get("order") == "down"
    )
    flat = rows.select("rank", "symbol", "ticker", "score", "change", "sector", "model_id").to_dicts()
    return _attachment(_csv(flat), "text/csv; charset=utf-8", f"{name}_{found.session}_ranking.csv")


def show_stock(asked: Asked) -> Response:
    """One stock: price, scores, exposures, and why it has its rank."""
    everything = asked.query.get("history") == "all"
    session = day_from(asked.query.get("session"))
    found = stock.stock(asked.desk, asked.path["strategy"], asked.path["symbol"], session, everything)
    return page(
        asked,
        "stock.html",
        f"{found.ticker} in {found.strategy}",
        here="/ranking",
        found=found,
        everything=everything,
        holders=holdings.holders(asked.desk, found.symbol),
        plots=json.dumps(_plots_of_stock(found)),
    )


def show_backtest(asked: Asked) -> Response:
    """The tear sheet; it is being made where it is asked for first."""
    name = asked.path.get("strategy")
    if name is None:
        return _choose(asked, "/backtest", "Back-test")
    gathered = asked.services.tear_sheets.get(name)
    shared = {"here": "/backtest", "strategy": name, "strategies": sorted(asked.desk.forms())}
    shared |= {"choices": asked.services.comparisons.comparable(), "names": [name]}
    if gathered is None:
        return page(asked, "backtest_waiting.html", f"Back-test of {name}", **shared)
    verdict = gathered.sheet.judgement.verdict
    return page(
        asked,
        "backtest.html",
        f"Back-test of {name}",
        sheet=gathered.sheet,
        sections=gathered.sections,
        words=verdict.words if verdict else "no verdict",
        reason=verdict.reason if verdict else gathered.sheet.judgement.no_verdict,
        weak=WEAK,
        strong=STRONG,
        **shared,
    )


def show_comparison(asked: Asked) -> Response:
    """Strategies side by side on the sessions that all of them have."""
    names = comparisons.chosen_names(asked.request.query_params.getlist("strategy"))
    context: dict[str, Any] = {"names": names, "choices": asked.services.comparisons.comparable()}
    found = asked.services.comparisons.get(names) if names else None
    if found is not None:
        context |= {
            "names": list(found.wealth),
            "rows": comparison.rows(found.comparison),
            "correlations": comparison.correlation_texts(found.comparison),
            "overfitting": comparison.overfitting_sentence(found.comparison),
            "plots": json.dumps([_plot_of_wealth(found)]),
        }
    return page(asked, "compare.html", "Strategies side by side", here="/backtest", found=found, **context)


def plots_of_backtest(asked: Asked) -> Response:
    """The tear sheet's plots as data, for the page's own script."""
    gathered = asked.services.tear_sheets.get(asked.path["strategy"])
    if gathered is None:
        raise NotFound("the tear sheet is still being made; load the page again in a moment")
    return Response(gathered.plots, media_type="application/json")


def download_tear_sheet(asked: Asked) -> Response:
    """The tear sheet as one file that needs nothing beside itself."""
    gathered = asked.services.tear_sheets.get(asked.path["strategy"])
    if gathered is None:
        raise NotFound("the tear sheet is still being made; try again in a moment")
    name = f"{gathered.sheet.strategy}_tearsheet.html"
    return _attachment(as_html(gathered.sheet), "text/html; charset=utf-8", name)


def show_executions(asked: Asked) -> Response:
    """What was sent, newest first."""
    return page(asked, "executions.html", "Executions", here="/executions", lines=executions.executions(asked.desk))


def show_execution(asked: Asked) -> Response:
    """One execution as far as it has come; the page asks again while it is under way."""
    found = executions.execution(asked.desk, asked.path["proposal"])
    if found is None:
        raise NotFound(f"proposal {asked.path['proposal']} was never executed")
    status = live(asked, "execution", over=not found.under_way)
    template = "execution_progress.html" if status else "execution.html"
    title = f"Execution of {found.line.proposal}"
    return page(asked, template, title, here="/executions", status=status or 200, found=found)


def show_holdings(asked: Asked) -> Response:
    """What every account holds."""
    return page(asked, "holdings.html", "Holdings", here="/held", held=holdings.holdings(asked.desk))


def show_why_held(asked: Asked) -> Response:
    """Why an account holds a stock: fills, orders, decisions, prediction, model, data and runs."""
    account, symbol, everything = asked.path["account"], asked.path["symbol"], asked.query.get("history") == "all"
    found = holdings.why(asked.desk, account, symbol, everything=everything)
    title = f"Why {account} holds {symbol}" if found.held.quantity else f"What {account} traded in {symbol}"
    return page(asked, "why_held.html", title, here="/held", found=found, everything=everything)


def show_models(asked: Asked) -> Response:
    """The models of one strategy."""
    name = asked.path.get("strategy")
    if name is None:
        return _choose(asked, "/models", "Models")
    return page(
        asked,
        "models.html",
        f"Models of {name}",
        here="/models",
        strategy=name,
        strategies=sorted(asked.desk.forms()),
        lines=models.models(asked.desk, name),
    )


def show_runs(asked: Asked) -> Response:
    """Dagster's newest runs, and those that were started here."""
    return page(
        asked, "runs.html", "Runs", here="/runs", lines=runs.runs(asked.desk), started=asked.services.starts.all()
    )


def _choose(asked: Asked, address: str, title: str) -> Response:
    """Straight to the one strategy that has something to show, or a list to choose from."""
    forms = sorted(asked.desk.forms())
    served = [name for name in forms if asked.desk.days(f"{name}/predictions")]
    if len(served) == 1:
        return to(f"{address}/{served[0]}")
    return page(asked, "choose.html", title, here=address, address=address, strategies=forms, served=set(served))


def _plot_of_wealth(found: comparisons.SideBySide) -> dict[str, Any]:
    days = [str(day) for day in found.sessions]
    dashes = ("solid", "dash", "dot", "dashdot")
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": days,
            "y": values,
            "name": name,
            "line": {"color": PALETTE[place % len(PALETTE)], "dash": dashes[place % len(dashes)]},
        }
        for place, (name, values) in enumerate(found.wealth.items())
    ]
    layout = {
        "height": 340,
        "margin": {"l": 56, "r": 12, "t": 28, "b": 32},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "yaxis": {"title": {"text": "wealth"}},
    }
    return {"name": "wealth", "data": lines, "layout": layout}


def _plots_of_stock(found: stock.Stock) -> list[dict[str, Any]]:
    days = [str(day) for day in found.history["date"]]
    rows = found.history

    def line(values: list[float | None], name: str, **more: Any) -> dict[str, Any]:
        return {"type": "scatter", "mode": "lines", "x": days, "y": values, "name": name, **more}

    layout = {"height": 260, "margin": {"l": 56, "r": 12, "t": 28, "b": 32}, "showlegend": True}
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    top = found.contributions[:20][::-1]
    return [
        {
            "name": "price",
            "data": [
                line(rows["close"].to_list(), "close, as traded", line={"color": GREY, "width": 1, "dash": "dot"}),
                line(rows["adjusted"].to_list(), "adjusted for splits and dividends", line={"color": BLUE}),
            ],
            "layout": {**layout, "legend": legend, "yaxis": {"title": {"text": "currency"}}},
        },
        {
            "name": "rank",
            "data": [line(rows["rank"].to_list(), "rank", line={"color": BLUE})],
            "layout": {**layout, "showlegend": False, "yaxis": {"title": {"text": "rank"}, "autorange": "reversed"}},
        },
        {
            "name": "score",
            "data": [line(rows["score"].to_list(), "score", line={"color": BLUE})],
            "layout": {**layout, "showlegend": False, "yaxis": {"title": {"text": "score"}, "zeroline": True}},
        },
        {
            "name": "contributions",
            "data": [
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": [each.feature for each in top],
                    "x": [each.adds for each in top],
                    "marker": {"color": BLUE},
                }
            ],
            "layout": {
                **layout,
                "height": 60 + 22 * len(top),
                "margin": {"l": 150, "r": 12, "t": 10, "b": 40},
                "showlegend": False,
                "xaxis": {"title": {"text": "what it adds to the score"}},
                "yaxis": {"automargin": True},
            },
        },
    ]


def _csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    import polars as pl

    safe = [
        {
            name: f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value
            for name, value in row.items()
        }
        for row in rows
    ]
    return pl.DataFrame(safe, infer_schema_length=None).write_csv()


def _attachment(content: str, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _whole(text: str | None, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise NotFound(f"{text[:40]!r} is no place in a list; it is a whole number from 0")
    return int(text)


PAGES = (
    Page("/", show_today),
    Page("/ranking", show_ranking),
    # Before the page itself, whose address would take the ending for a part of the name.
    Page("/ranking/{strategy}.csv", download_ranking),
    Page("/ranking/{strategy}", show_ranking),
    # Classes of shares are written with a stroke by some.
    Page("/ranking/{strategy}/{symbol:path}", show_stock),
    Page("/backtest", show_backtest),
    Page("/backtest/{strategy}", show_backtest),
    Page("/backtest/{strategy}/plots.json", plots_of_backtest, as_json=True),
    Page("/backtest/{strategy}/tearsheet.html", download_tear_sheet),
    Page("/compare", show_comparison),
    Page("/executions", show_executions),
    Page("/executions/{proposal}", show_execution),
    Page("/held", show_holdings),
    Page("/held/{account}/{symbol:path}", show_why_held),
    Page("/models", show_models),
    Page("/models/{strategy}", show_models),
    Page("/runs", show_runs),
)
