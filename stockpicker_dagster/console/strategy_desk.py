"""Writing strategies from the console: checked as Dagster will check them, then put in place in one step.

A broken file would keep Dagster from loading any strategy, so that nothing is written that does not load, alone and
beside the others.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stockpicker_dagster.console.views.desk import Desk, NotFound
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.strategy_form import StrategyForm, check_name, load
from stockpicker_dagster.strategy_form.authorship import record_author
from stockpicker_dagster.strategy_form.web import Mistakes, as_yaml, attributes_from, checked, texts_of


@dataclass(frozen=True)
class Draft:
    """A strategy that fits, before it is written."""

    name: str
    attributes: Mapping[str, Any]
    form: StrategyForm

    @property
    def yaml(self) -> str:
        """The file that would be written."""
        return as_yaml(self.attributes)


def draft(desk: Desk, name: str, texts: Mapping[str, str], *, new: bool) -> Draft:
    """What a page's texts make of the strategy `name`. Raises `Mistakes`, or `NotFound` for one that is not there."""
    kept: Mapping[str, Any] = {}
    if new:
        _check_new(desk, name)
    else:
        kept = stored_texts(desk, name)[1]
    attributes = attributes_from(texts, kept)
    form = checked(name, attributes)
    try:
        market_definitions({**desk.forms(), name: form})
    except InvalidInput as error:
        raise Mistakes({"prices": str(error)}) from error
    return Draft(name, attributes, form)


def write(desk: Desk, made: Draft, person: str) -> Path:
    """Puts the draft in place of the strategy's file, whole or not at all, and remembers who wrote it."""
    file = desk.file_of(made.name)
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_text(made.yaml, encoding="utf-8")
        load(fresh)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
        if not file.exists():
            file.parent.rmdir()
    record_author(file, person)
    return file


def stored_texts(desk: Desk, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A stored strategy's fields as texts, and what no page shows. Raises `NotFound`."""
    check_name(name, "a strategy")
    file = desk.file_of(name)
    if not file.is_file():
        raise NotFound(f"there is no strategy {name!r}")
    return texts_of(file)


def _check_new(desk: Desk, name: str) -> None:
    try:
        check_name(name, "a strategy")
    except InvalidInput as error:
        raise Mistakes({"name": str(error)}) from error
    if desk.file_of(name).parent.exists():
        raise Mistakes({"name": f"there is a strategy {name!r} already; edit it, or choose another name"})
