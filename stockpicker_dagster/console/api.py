"""The pages' actions as JSON, for scripts with a personal token: the same views, the same checks, the same roles.

Figures that do not exist are null, exact decimals are texts, moments are ISO 8601 in UTC. `/api/openapi.json` describes
every address; a test holds the answers against it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
from starlette.responses import JSONResponse, Response

from stockpicker_dagster.console.pages import deciding
from stockpicker_dagster.console.strategy_desk import draft, write
from stockpicker_dagster.console.views import (
    comparisons,
    executions,
    holdings,
    models,
    proposals,
    ranking,
    runs,
    stock,
    today,
)
from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.web import Asked, Page, day_from
from stockpicker_dagster.evaluation import comparison


def show_today(asked: Asked) -> Response:
    """Each strategy: age of its data, verdict, what waits, what is wrong; and the halts in force."""
    return _answer(today.today(asked.desk))


def show_strategies(asked: Asked) -> Response:
    """Every strategy's form."""
    return _answer({name: form.model_dump(mode="json", exclude_none=True) for name, form in asked.desk.forms().items()})


def show_strategy(asked: Asked) -> Response:
    """One strategy's form."""
    return _answer(asked.desk.form(asked.path["strategy"]).model_dump(mode="json", exclude_none=True))


def do_write(asked: Asked) -> Response:
    """Creates or edits a strategy from fields named by their place, such as `universe.name`."""
    name = asked.path["strategy"]
    made = draft(asked.desk, name, asked.fields, new=not asked.desk.file_of(name).is_file())
    write(asked.desk, made, asked.who.person.name)
    return _answer({"strategy": name, "yaml": made.yaml})


def do_run(asked: Asked) -> Response:
    """Starts a run of the strategy up to the last completed session."""
    name = asked.path["strategy"]
    asked.desk.form(name)
    start = asked.services.starts.start(name, asked.who.person.name, asked.desk.now())
    return _answer({"strategy": name, "started_at": start.started_at}, 202)


def show_progress(asked: Asked) -> Response:
    """What the strategy's latest run has printed."""
    name = asked.path["strategy"]
    asked.desk.form(name)
    start = asked.services.starts.latest(name)
    if start is None:
        raise NotFound(f"{name!r} was not started from here yet")
    return _answer({"strategy": name, "under_way": start.under_way, "status": start.status, "text": start.text()})


def show_ranking(asked: Asked) -> Response:
    """Every stock of one session, from most undervalued to most overvalued."""
    found = ranking.ranking(asked.desk, asked.path["strategy"], day_from(asked.query.get("session")))
    rows = found.part(
        asked.query.get("search", ""), asked.query.get("sort", "rank"), asked.query.get("order") == "down"
    )
    head = json.dumps({"strategy": found.strategy, "session": str(found.session)})
    # Put together as text: thousands of rows are not taken apart into objects to be written again.
    return Response(f'{head[:-1]}, "rows": {rows.write_json()}}}', media_type="application/json")


def show_stock(asked: Asked) -> Response:
    """One stock: price, scores, exposures, contributions."""
    path = asked.path
    everything = asked.query.get("history") == "all"
    return _answer(
        stock.stock(asked.desk, path["strategy"], path["symbol"], day_from(asked.query.get("session")), everything)
    )


def show_backtest(asked: Asked) -> Response:
    """The verdict and every figure of the tear sheet; 202 while it is being made."""
    gathered = asked.services.tear_sheets.get(asked.path["strategy"])
    if gathered is None:
        return _answer({"state": "being made"}, 202)
    sheet = gathered.sheet
    return _answer(
        {
            "strategy": sheet.strategy,
            "first": sheet.days["date"][0],
            "last": sheet.days["date"][-1],
            "verdict": sheet.judgement.verdict,
            "no_verdict": sheet.judgement.no_verdict,
            "caveats": sheet.caveats,
            "figures": [
                {"section": section.title, "name": row.name, "shown": row.shown, "definition": row.definition}
                for section in gathered.sections
                for row in section.rows
            ],
        }
    )


def show_comparison(asked: Asked) -> Response:
    """Strategies side by side on the sessions that all have; `strategies` names them with commas between."""
    names = comparisons.chosen_names([asked.query.get("strategies", "")])
    found = asked.services.comparisons.get(names)
    if found is None:
        return _answer({"state": "being made"}, 202)
    compared = found.comparison
    return _answer(
        {
            "first": compared.first,
            "last": compared.last,
            "sessions": compared.sessions,
            "strategies": list(found.wealth),
            "figures": [{"name": row.label, "shown": row.shown} for row in comparison.rows(compared)],
            "correlations": compared.correlations.tolist(),
            "overfitting": compared.overfitting,
            "caveats": compared.caveats,
        }
    )


def show_proposals(asked: Asked) -> Response:
    """The newest proposals."""
    return _answer({"proposals": proposals.proposals(asked.desk)})


def show_proposal(asked: Asked) -> Response:
    """One proposal with everything a decision rests on."""
    found = proposals.proposal(asked.desk, asked.path["proposal"])
    shown = {
        name: getattr(found, name)
        for name in (
            *("id", "state", "orders", "before", "after", "turnover", "commission", "half_spread", "limits", "changes"),
            *("compared_with", "decisions", "approvals", "approvals_needed", "halted", "outcome"),
        )
    }
    document = found.document
    named = ("account", "broker", "mode", "strategy", "author", "session", "trade_session", "equity", "cash")
    return _answer(
        shown
        | {name: getattr(document, name) for name in (*named, "model_id", "data_version", "expires_at")}
        | {"digest": found.stored.digest}
    )


def do_decide(asked: Asked) -> Response:
    """Approves or denies; never in live mode."""
    return _answer({"outcome": deciding.take_decision(asked, asked.path["proposal"])})


def show_executions(asked: Asked) -> Response:
    """The newest executions."""
    return _answer({"executions": executions.executions(asked.desk)})


def show_execution(asked: Asked) -> Response:
    """One execution as far as it has come."""
    found = executions.execution(asked.desk, asked.path["proposal"])
    if found is None:
        raise NotFound(f"proposal {asked.path['proposal']} was never executed")
    return _answer(found)


def show_holdings(asked: Asked) -> Response:
    """What every account holds: signed shares."""
    return _answer({"accounts": holdings.holdings(asked.desk)})


def show_why_held(asked: Asked) -> Response:
    """Why an account holds a stock: fills, orders, decisions, prediction, model, data and runs."""
    path, everything = asked.path, asked.query.get("history") == "all"
    return _answer(holdings.why(asked.desk, path["account"], path["symbol"], everything=everything))


def show_models(asked: Asked) -> Response:
    """The models of a strategy, newest period first."""
    return _answer({"models": models.models(asked.desk, asked.path["strategy"])})


def show_runs(asked: Asked) -> Response:
    """Dagster's newest runs."""
    return _answer({"runs": runs.runs(asked.desk)})


def do_halt(asked: Asked) -> Response:
    """Halts one account, or all where none is named, and cancels their working orders."""
    return _answer({"cancelled": deciding.halt(asked)})


def do_resume(asked: Asked) -> Response:
    """Lifts the halts of one account, or of all."""
    return _answer({"lifted": deciding.resume(asked)})


def show_document(asked: Asked) -> Response:
    """The OpenAPI document of this interface."""
    return _answer(openapi())


def plain(value: object) -> Any:
    """`value` as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, pl.DataFrame):
        # By Polars itself, many times quicker than value by value: no figure for NaN there either.
        return json.loads(value.write_json())
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, Path) else plain(asdict(value))  # type: ignore[call-overload]


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document, made from the table of addresses."""
    paths: dict[str, Any] = {}
    for each in PAGES:
        summary = (each.handler.__doc__ or "").strip().partition("\n")[0]
        operation: dict[str, Any] = {
            "operationId": each.handler.__name__,
            "summary": summary,
            "description": f"Needs the role {each.role}, or one that includes it.",
            "parameters": [*_in_path(each.path), *_in_query(each)],
            "responses": _responses(each),
        }
        if each.method == "POST":
            operation["requestBody"] = {
                "required": each.handler in _BODIES and bool(_BODIES[each.handler][1]),
                "content": {"application/json": {"schema": _body_schema(each)}},
            }
        paths.setdefault(each.path, {})[each.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "StockPicker", "version": "1", "description": __doc__},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                    "additionalProperties": False,
                }
            },
        },
        "security": [{"token": []}],
    }


def _answer(content: object, status: int = 200) -> Response:
    return JSONResponse(plain(content), status)


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "pattern": r"^[^/]+$"},
        }
        for name in names
    ]


def _in_query(each: Page) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in _QUERIES.get(each.handler, {}).items()
    ]


def _responses(each: Page) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    said = {
        "400": "The request cannot be; the sentence says what is allowed.",
        "401": "No token, or one that is not valid.",
        "403": "Not allowed: the role, the rules of trading or the door forbid it.",
        "404": "There is no such thing.",
        "409": "Not possible as things stand.",
        "413": "Too large.",
    }
    done = {"202": "Under way."} if each.handler is do_run else {"200": "What was asked for."}
    if each.handler in (show_backtest, show_comparison):
        done["202"] = "Being made; ask again."
    answers: dict[str, Any] = {
        status: {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
        for status, text in done.items()
    }
    answers |= {status: {"description": text, "content": error} for status, text in said.items()}
    return answers


def _body_schema(each: Page) -> dict[str, Any]:
    properties, required = _BODIES.get(each.handler, ({}, []))
    if each.handler is do_write:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        "properties": {name: {"type": "string", **schema} for name, schema in properties.items()},
        "required": required,
        "additionalProperties": {"type": "string"},
    }


_SESSION = {"session": {"type": "string", "format": "date"}}
_QUERIES: dict[Any, dict[str, Any]] = {
    show_ranking: {
        **_SESSION,
        "search": {"type": "string"},
        "sort": {"enum": list(ranking.SORTS)},
        "order": {"enum": ["up", "down"]},
    },
    show_comparison: {"strategies": {"type": "string"}},
    show_stock: {**_SESSION, "history": {"enum": ["year", "all"]}},
    show_why_held: {"history": {"enum": ["all"]}},
}
_BODIES: dict[Any, tuple[dict[str, Any], list[str]]] = {
    do_decide: ({"decision": {"enum": ["approve", "deny"]}, "reason": {}}, ["decision"]),
    do_halt: ({"account": {}, "reason": {"minLength": 1}}, ["reason"]),
    do_resume: ({"account": {}}, []),
}

PAGES = tuple(
    Page(path, handler, role=role, method=method, as_json=True)  # type: ignore[arg-type]
    for path, handler, role, method in (
        ("/api/today", show_today, "viewer", "GET"),
        ("/api/strategies", show_strategies, "viewer", "GET"),
        ("/api/strategies/{strategy}", show_strategy, "viewer", "GET"),
        ("/api/strategies/{strategy}", do_write, "researcher", "POST"),
        ("/api/strategies/{strategy}/run", do_run, "researcher", "POST"),
        ("/api/strategies/{strategy}/progress", show_progress, "viewer", "GET"),
        ("/api/strategies/{strategy}/ranking", show_ranking, "viewer", "GET"),
        ("/api/strategies/{strategy}/stocks/{symbol}", show_stock, "viewer", "GET"),
        ("/api/strategies/{strategy}/backtest", show_backtest, "viewer", "GET"),
        ("/api/strategies/{strategy}/models", show_models, "viewer", "GET"),
        ("/api/comparison", show_comparison, "viewer", "GET"),
        ("/api/proposals", show_proposals, "viewer", "GET"),
        ("/api/proposals/{proposal}", show_proposal, "viewer", "GET"),
        ("/api/proposals/{proposal}/decide", do_decide, "approver", "POST"),
        ("/api/executions", show_executions, "viewer", "GET"),
        ("/api/executions/{proposal}", show_execution, "viewer", "GET"),
        ("/api/held", show_holdings, "viewer", "GET"),
        ("/api/held/{account}/{symbol}", show_why_held, "viewer", "GET"),
        ("/api/runs", show_runs, "viewer", "GET"),
        ("/api/halt", do_halt, "researcher", "POST"),
        ("/api/resume", do_resume, "approver", "POST"),
        ("/api/openapi.json", show_document, "viewer", "GET"),
    )
)
