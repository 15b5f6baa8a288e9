"""Strategies: a form that makes and edits them, shows the file it writes, and starts and follows a run."""

from starlette.responses import RedirectResponse, Response

from stockpicker_dagster.console.strategy_desk import draft, stored_texts, write
from stockpicker_dagster.console.views.desk import NotFound
from stockpicker_dagster.console.web import Asked, Page, live, page, to
from stockpicker_dagster.research.algorithms import algorithm, known_algorithms
from stockpicker_dagster.strategy_form import check_name
from stockpicker_dagster.strategy_form.web import Mistakes, web_fields

_NEW = {
    "owner": "research",
    "universe.name": "simulated",
    "prices.source": "simulated",
    "features.set": "factors",
    "periods.train_years": "2",
    "periods.validation_years": "1",
    "periods.retrain": "quarterly",
    "algorithm.name": "linear",
}
"""What a new strategy's form begins with: a strategy that runs anywhere, on the simulated market."""


def show_strategies(asked: Asked) -> Response:
    """Every strategy, and what is wrong with those that cannot be read."""
    return page(
        asked,
        "strategies.html",
        "Strategies",
        here="/strategies",
        forms=asked.desk.forms(),
        mistakes=asked.desk.mistakes(),
    )


def show_new(asked: Asked) -> Response:
    """An empty form."""
    return _form(asked, "", dict(_NEW), new=True)


def show_strategy(asked: Asked) -> Response:
    """A strategy's form, its file, and its latest run."""
    name = asked.path["strategy"]
    texts, _ = stored_texts(asked.desk, name)
    return _form(asked, name, texts, new=False)


def do_create(asked: Asked) -> Response:
    """Shows what would be written, or writes a new strategy."""
    return _save(asked, asked.fields.get("name", "").strip(), new=True)


def do_edit(asked: Asked) -> Response:
    """Shows what would be written, or writes the strategy anew."""
    return _save(asked, asked.path["strategy"], new=False)


def do_run(asked: Asked) -> Response:
    """Starts the strategy's run; its page follows the progress."""
    name = asked.path["strategy"]
    asked.desk.form(name)
    asked.services.starts.start(name, asked.who.person.name, asked.desk.now())
    return RedirectResponse(f"/strategies/{name}/progress", 303)


def show_progress(asked: Asked) -> Response:
    """What the strategy's latest run prints; asked again by the page while it runs."""
    name = asked.path["strategy"]
    check_name(name, "a strategy")
    start = asked.services.starts.latest(name)
    if start is None:
        raise NotFound(f"{name!r} was not started from here yet")
    status = live(asked, "progress", over=not start.under_way)
    template = "progress_text.html" if status else "progress.html"
    shown = {"start": start, "text": start.text()}
    return page(asked, template, f"Run of {name}", here="/strategies", status=status or 200, **shown)


def _save(asked: Asked, name: str, *, new: bool) -> Response:
    texts = {field.path: asked.fields.get(field.path, "") for field in web_fields()}
    try:
        made = draft(asked.desk, name, texts, new=new)
    except Mistakes as error:
        return _form(asked, name, texts, new=new, mistakes=error.by_place, status=400)
    if asked.fields.get("step") != "write":
        return _form(asked, name, texts, new=new, preview=made.yaml)
    write(asked.desk, made, asked.who.person.name)
    if asked.fields.get("run") == "yes":
        asked.services.starts.start(name, asked.who.person.name, asked.desk.now())
        return to(f"/strategies/{name}/progress")
    return to(f"/strategies/{name}")


def _form(
    asked: Asked,
    name: str,
    texts: dict[str, str],
    *,
    new: bool,
    mistakes: dict[str, str] | None = None,
    preview: str = "",
    status: int = 200,
) -> Response:
    fields = web_fields()
    known = {field.path for field in fields} | {"name"}
    sections: dict[str, list[object]] = {}
    for field in fields:
        sections.setdefault(field.section, []).append(field)
    return page(
        asked,
        "strategy_form.html",
        "New strategy" if new else f"Strategy {name}",
        here="/strategies",
        status=status,
        name=name,
        new=new,
        sections=sections,
        texts=texts,
        mistakes=mistakes or {},
        elsewhere=[f"{place}: {said}" for place, said in (mistakes or {}).items() if place not in known],
        preview=preview,
        latest=None if new else asked.services.starts.latest(name),
        algorithms={each: algorithm(each).hyperparameters for each in known_algorithms()},
    )


PAGES = (
    Page("/strategies", show_strategies),
    Page("/strategies/new", show_new, role="researcher"),
    Page("/strategies/new", do_create, role="researcher", method="POST"),
    Page("/strategies/{strategy}", show_strategy),
    Page("/strategies/{strategy}", do_edit, role="researcher", method="POST"),
    Page("/strategies/{strategy}/run", do_run, role="researcher", method="POST"),
    Page("/strategies/{strategy}/progress", show_progress),
)
