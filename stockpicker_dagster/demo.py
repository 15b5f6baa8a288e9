"""The strategies that `stockpicker demo` runs: the quickstart on invented prices, or the same one on Yahoo's.

The second is written beside the first when it is first asked for, so that who never asks for it has no strategy that
needs a network. Running strategies is the matter of `runs`.
"""

import secrets

import yaml

from stockpicker_dagster import runs
from stockpicker_dagster.strategy_form import StrategyForm

QUICKSTART = "quickstart"
ON_YAHOO = "quickstart_yahoo"

_HEAD = """\
# The quickstart strategy on today's S&P 100, with prices from Yahoo. Made by `stockpicker demo --source yahoo`; it is
# yours to change. Without this folder it is no longer run, and the next demo makes it again.
"""


def demo_strategy(source: str) -> str:
    """The name of the demo's strategy on `simulated` or `yahoo`, which is there when this returns.

    Raises `YahooUnavailable`, before anything is written, if Yahoo cannot be reached.
    """
    if source == "simulated":
        return QUICKSTART
    from stockpicker_dagster.market.sources.yahoo_download import YahooUnavailable, check_reachable

    try:
        check_reachable()
    except YahooUnavailable as error:
        raise YahooUnavailable(
            f"{error}, so this demo cannot run and nothing was stored; the one on a simulated market needs no network: "
            "stockpicker demo"
        ) from error
    _write_strategy_on_yahoo()
    return ON_YAHOO


def _write_strategy_on_yahoo() -> None:
    """Writes the strategy, whole or not at all, unless it is there."""
    path = runs.STRATEGIES / ON_YAHOO / "defs.yaml"
    if path.exists():
        return
    document = yaml.safe_load((runs.STRATEGIES / QUICKSTART / "defs.yaml").read_text())
    attributes = document["attributes"] | {
        "description": "The quickstart on today's S&P 100, with prices from Yahoo.",
        "universe": {"name": "sp100"},
        "prices": {"source": "yahoo", "start": document["attributes"]["prices"]["start"]},
        # Its own: an account belongs to the strategy whose positions are open in it.
        "trading": {"account": "paper_yahoo"},
    }
    StrategyForm.model_validate(attributes)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{secrets.token_hex(4)}")
    temporary.write_text(
        _HEAD + yaml.safe_dump({**document, "attributes": attributes}, sort_keys=False, width=118, allow_unicode=True)
    )
    temporary.replace(path)
