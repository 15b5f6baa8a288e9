"""The ranking of one session: every stock from most undervalued to most overvalued, and how each place changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl

from stockpicker_dagster.console.views.desk import Desk, NotFound
from stockpicker_dagster.console.views.remembered import fingerprint
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster.market.universes.membership import Universe
from stockpicker_dagster.strategy_form import StrategyForm

SORTS = ("rank", "symbol", "score", "change", "sector")
Sort = Literal["rank", "symbol", "score", "change", "sector"]


@dataclass(frozen=True)
class Ranking:
    """The ranked stocks of one session, known after its close."""

    strategy: str
    session: date
    sessions: Sequence[date]
    """Every session that has a ranking, ascending."""
    rows: pl.DataFrame
    """`rank`, `symbol`, `ticker`, `score`, `change` (places gained since the session before; null for a newcomer),
    `sector` (null where the universe says none), `reasons` (a list of `feature`, `value`), `model_id`; best first."""

    @property
    def before(self) -> date | None:
        """The session before this one, among those with a ranking."""
        place = self.sessions.index(self.session)
        return self.sessions[place - 1] if place else None

    @property
    def after(self) -> date | None:
        """The session after this one, among those with a ranking."""
        place = self.sessions.index(self.session)
        return self.sessions[place + 1] if place + 1 < len(self.sessions) else None

    def part(self, search: str = "", sort: str = "rank", descending: bool = False) -> pl.DataFrame:
        """The rows whose symbol, ticker or sector holds `search`, sorted; unknown sorts raise `NotFound`."""
        if sort not in SORTS:
            raise NotFound(f"the ranking is not sorted by {sort!r}; allowed: {', '.join(SORTS)}")
        rows = self.rows
        if wanted := search.strip().lower():
            named = pl.concat_str(["symbol", "ticker", pl.col("sector").fill_null("")], separator="\n")
            rows = rows.filter(named.str.to_lowercase().str.contains(wanted, literal=True))
        return rows.sort([sort, "rank"], descending=[descending, False], nulls_last=True)


def ranking(desk: Desk, name: str, session: date | None = None, *, reasons: bool = True) -> Ranking:
    """The ranking of `session`, by default of the last one that has any. Raises `NotFound`.

    Without `reasons` that column is null everywhere: to read it takes ten times as long as to read all others.
    """
    form, table = desk.form(name), f"{name}/predictions"
    sessions = desk.served(name)
    if not sessions:
        raise NotFound(f"{name!r} has ranked nothing yet; `stockpicker run {name}` makes its first ranking")
    wanted = session or sessions[-1]
    if wanted not in sessions:
        raise NotFound(f"{name!r} has no ranking of {wanted}; it has {sessions[0]} to {sessions[-1]}")
    place = sessions.index(wanted)
    days = sessions[max(0, place - 1) : place + 1]
    key = ("ranking", name, wanted, reasons)
    rows = desk.remembered.answer(key, fingerprint(desk.lake, table), lambda: _rows(desk, name, form, days, reasons))
    return Ranking(name, wanted, sessions, rows)


def _rows(desk: Desk, name: str, form: StrategyForm, days: Sequence[date], reasons: bool) -> pl.DataFrame:
    why = pl.col("contributions") if reasons else pl.lit(None).alias("contributions")
    columns = ("symbol", "date", "score", "rank", "model_id")
    stored = desk.lake.scan(f"{name}/predictions", days).select(*columns, why).collect()
    ranked = stored.filter(pl.col("date") == days[-1])
    earlier = stored.filter(pl.col("date") != days[-1]).select("symbol", pl.col("rank").alias("was"))
    identities = identities_in_force(desk.lake, form.prices.key)
    tickers = {symbol: identities.latest_ticker(symbol, days[-1]) for symbol in ranked["symbol"]}
    sectors = _sectors(desk, form, days[-1])
    return (
        ranked.join(earlier, on="symbol", how="left")
        .with_columns(
            (pl.col("was") - pl.col("rank")).alias("change"),
            pl.col("symbol").replace_strict(tickers, return_dtype=pl.String).alias("ticker"),
            pl.col("symbol").replace_strict(sectors, default=None, return_dtype=pl.String).alias("sector"),
            pl.col("contributions").alias("reasons"),
        )
        .select("rank", "symbol", "ticker", "score", "change", "sector", "reasons", "model_id")
        .sort("rank")
    )


def _sectors(desk: Desk, form: StrategyForm, session: date) -> Mapping[str, str | None]:
    """What the universe says of sectors on the day; nothing where its list cannot be read just now."""
    if not form.universe.says_sectors:
        return {}
    try:
        found = _universe(desk, form, session).sectors_on([session])
    except StockPickerError:
        return {}
    return dict(found.select("symbol", "sector").iter_rows())


def _universe(desk: Desk, form: StrategyForm, session: date) -> Universe:
    """The universe on the day; one that is read from a list is read again only when the list has changed."""
    said = form.universe

    def build() -> Universe:
        return said.build(form.prices.build(), (session, session), desk.lake, form.calendar)

    if said.top is not None or not (said.files or said.listed):
        return build()
    files = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in said.files if file.is_file())
    tables = [f"{form.prices.key}/prices.identities", *([f"universes/{said.listed}/members"] if said.listed else [])]
    key = ("universe", said.model_dump_json(), form.prices.key)
    return desk.remembered.answer(key, (files, fingerprint(desk.lake, *tables)), build)
