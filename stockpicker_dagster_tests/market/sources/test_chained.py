"""Chains of sources: who fills what, seams between sources, events around them, delistings, and sources that are down.

That a chain keeps the promises of every source is tested in `test_conformance`.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.corrections import Decision
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Basis, Fetched, PriceSource
from stockpicker_dagster.market.sources.chained import ChainedSource
from stockpicker_dagster.market.sources.files import FilesSource

NYSE = trading_calendar("XNYS")
DAYS = NYSE.sessions(date(2023, 1, 3), date(2023, 6, 30))
START = DAYS[0]


def rows(
    symbol: str, days: Sequence[date], close: float = 50.0, events: dict[date, tuple[float, float]] | None = None
) -> pl.DataFrame:
    """Rows of a stock whose close stays but for its events: day -> (dividend, split ratio)."""
    found = []
    for day in days:
        dividend, ratio = (events or {}).get(day, (0.0, 1.0))
        close = (close - dividend) / ratio
        found.append((symbol, day, close, close + 1, close - 1, close, 1000.0, dividend, ratio))
    names = ["symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split_ratio"]
    return pl.DataFrame(found, schema=names, orient="row")


def files(folder: Path, name: str, *frames: pl.DataFrame) -> FilesSource:
    path = folder / f"{name}.parquet"
    pl.concat(frames).write_parquet(path)
    return FilesSource(name, path, "as_traded", START)


class Vendor:
    """A source that lists events apart from rows, as vendors do: an event reaches the next row that there is."""

    kind = "vendor"
    basis: Basis = "as_traded"
    caveat: str | None = None

    def __init__(self, name: str, bars: pl.DataFrame, present: Sequence[date], *delistings: tuple[Any, ...]) -> None:
        self.name, self.start = name, START
        splits_before = pl.col("split_ratio").cum_prod().shift(1, fill_value=1.0)
        reach = pl.Series(
            "reach", [min((each for each in present if each >= day), default=None) for day in bars["date"]]
        )
        reached = bars.with_columns(reach).group_by("symbol", "reach", maintain_order=True)
        events = reached.agg((pl.col("dividend") * splits_before).sum(), pl.col("split_ratio").product())
        on_rows = bars.filter(pl.col("date").is_in(present)).drop("dividend", "split_ratio")
        prices = on_rows.join(events, left_on=["symbol", "date"], right_on=["symbol", "reach"]).sort("date", "symbol")
        step = pl.col("split_ratio") / (1 - pl.col("dividend") / pl.col("close").shift(1).over("symbol"))
        self.prices = prices.with_columns(
            adjustment=step.fill_null(1.0), known_at=pl.col("date"), source=pl.lit(name)
        ).select(*PRICES_SCHEMA)
        self.delistings = pl.DataFrame(delistings, schema=DELISTINGS_SCHEMA, orient="row")

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        asked = pl.col("date").is_in(list(sessions))
        if symbols is not None:
            asked = asked & pl.col("symbol").is_in(list(symbols))
        return Fetched(self.prices.filter(asked), self.delistings.filter(asked), pl.DataFrame(schema=QUARANTINE_SCHEMA))

    def available_through(self) -> date | None:
        return DAYS[-1]

    def venue(self) -> Any:
        raise AssertionError("a chain opens its own venue")


def total_return(answer: Fetched, first: date, last: date) -> float:
    """What one unit held from the close of `first` to that of `last` became."""
    held = answer.prices.filter(pl.col("date").is_between(first, last)).sort("date")
    growth = held["adjustment"].slice(1).product() * held["close"][-1] / held["close"][0]
    return float(growth)


def assert_daily_is_the_range(chain: ChainedSource, days: Sequence[date]) -> Fetched:
    together = chain.fetch(None, days)
    daily = [chain.fetch(None, [day]) for day in days]
    for name in ("prices", "delistings", "quarantine"):
        assert_frame_equal(pl.concat([getattr(each, name) for each in daily]), getattr(together, name))
    return together


# Who fills what


def test_the_second_fills_what_the_first_lacks_and_every_row_says_so(tmp_path: Path) -> None:
    first = files(tmp_path, "first", rows("AAA", [*DAYS[:5], *DAYS[7:20]], 50.0))
    second = files(tmp_path, "second", rows("AAA", DAYS[:20], 50.1), rows("BBB", DAYS[:20], 9.0))
    answer = ChainedSource("both", [first, second]).fetch(None, DAYS[:20])
    by_source = {(row["symbol"], row["date"]): (row["source"], row["close"]) for row in answer.prices.to_dicts()}
    assert by_source[("AAA", DAYS[4])] == ("first", 50.0)
    assert by_source[("AAA", DAYS[5])] == by_source[("AAA", DAYS[6])] == ("second", 50.1)
    assert by_source[("AAA", DAYS[7])] == ("first", 50.0)
    assert {source for (symbol, _), (source, _) in by_source.items() if symbol == "BBB"} == {"second"}


def test_a_quarantined_row_is_filled_and_stays_in_quarantine(tmp_path: Path) -> None:
    wrong = rows("AAA", DAYS[:20]).with_columns(low=pl.when(pl.col("date") == DAYS[8]).then(99.0).otherwise("low"))
    chain = ChainedSource("both", [files(tmp_path, "first", wrong), files(tmp_path, "second", rows("AAA", DAYS[:20]))])
    answer = chain.fetch(["AAA"], DAYS[:20])
    assert answer.prices.filter(pl.col("date") == DAYS[8])["source"].to_list() == ["second"]
    assert answer.quarantine.select("date", "reason", "source").rows() == [(DAYS[8], "high_below_low", "first")]


def test_a_file_that_ended_is_gone_on_with_and_the_answer_says_so(tmp_path: Path) -> None:
    first = files(tmp_path, "old", rows("AAA", DAYS[:40]))
    chain = ChainedSource("both", [first, files(tmp_path, "new", rows("AAA", DAYS[30:60]))])
    assert chain.available_through() == DAYS[59]
    answer = chain.fetch(["AAA"], DAYS[35:45])
    assert answer.prices["source"].to_list() == ["old"] * 5 + ["new"] * 5
    assert answer.unanswered == {"old": f"ends on {DAYS[39]}; later rows come from the other sources"}
    with pytest.raises(InvalidInput, match=str(DAYS[60])):
        chain.fetch(["AAA"], [DAYS[60]])


def test_a_source_that_is_down_fails_the_fetch(tmp_path: Path) -> None:
    """Passed over, it would change for good where the day's rows come from."""

    class Down(FilesSource):
        def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
            raise StockPickerError("no answer")

    rows("AAA", DAYS[:20]).write_parquet(tmp_path / "down.parquet")
    down = Down("down", tmp_path / "down.parquet", "as_traded", START)
    up = files(tmp_path, "up", rows("AAA", DAYS[:20]))
    for order in ([down, up], [up, down]):
        with pytest.raises(StockPickerError, match="no answer"):
            ChainedSource("both", order).fetch(["AAA"], DAYS[:5])


def test_a_chain_refuses_mixed_bases_and_equal_names(tmp_path: Path) -> None:
    one = files(tmp_path, "one", rows("AAA", DAYS[:5]))
    restated = FilesSource("restated", one.path, "split_adjusted", START)
    with pytest.raises(InvalidInput, match=r"different bases.*split_adjusted"):
        ChainedSource("both", [one, restated])
    for given in ([one], [one, one]):
        with pytest.raises(InvalidInput, match="two or more"):
            ChainedSource("both", given)


# Seams


def test_an_adjustment_refers_to_the_row_before_whoever_it_came_from(tmp_path: Path) -> None:
    """A dividend of 2 after a close of 50 of the first source, on a row of the second whose own close before was 51."""
    first = files(tmp_path, "first", rows("AAA", DAYS[:8], 50.0))
    second = files(tmp_path, "second", rows("AAA", DAYS[:20], 51.0, {DAYS[8]: (2.0, 1.0)}))
    chain = ChainedSource("both", [first, second])
    answer = assert_daily_is_the_range(chain, DAYS[6:12])
    row = answer.prices.filter(pl.col("date") == DAYS[8]).row(0, named=True)
    assert (row["source"], row["dividend"]) == ("second", 2.0)
    assert row["adjustment"] == pytest.approx(1 / (1 - 2 / 50))


def test_an_event_that_the_second_covers_is_not_booked_again_by_the_first() -> None:
    """The first lists events apart from rows: one that went ex while it had none reaches its next row."""
    events = {DAYS[41]: (0.0, 2.0), DAYS[42]: (1.0, 1.0)}
    truth = rows("AAA", DAYS[:60], 50.0, events)
    first = Vendor("first", truth, [day for day in DAYS[:60] if day not in DAYS[40:44]])
    second = Vendor("second", truth, DAYS[:60])
    assert first.prices.filter(pl.col("date") == DAYS[44])["split_ratio"].to_list() == [2.0]
    chain = ChainedSource("both", [first, second])
    answer = assert_daily_is_the_range(chain, DAYS[38:48])
    assert total_return(answer, DAYS[38], DAYS[47]) == pytest.approx(1.0), "prices fall by what is paid"
    assert answer.prices.filter(pl.col("split_ratio") != 1)["date"].to_list() == [DAYS[41]]
    assert answer.prices.filter(pl.col("dividend") > 0)["date"].to_list() == [DAYS[42]]


def test_an_event_that_no_row_covers_is_booked_once() -> None:
    """Both lack the ex-date: the next row carries it, whoever has it."""
    truth = rows("AAA", DAYS[:60], 50.0, {DAYS[41]: (0.0, 2.0)})
    first = Vendor("first", truth, [day for day in DAYS[:60] if day not in DAYS[40:44]])
    second = Vendor("second", truth, [day for day in DAYS[:60] if day not in (DAYS[40], DAYS[41])])
    answer = assert_daily_is_the_range(ChainedSource("both", [first, second]), DAYS[38:48])
    assert total_return(answer, DAYS[38], DAYS[47]) == pytest.approx(1.0)
    split = answer.prices.filter(pl.col("split_ratio") != 1)
    assert split.select("date", "source").rows() == [(DAYS[42], "second")]


def test_an_event_of_its_own_day_stays_beside_one_in_the_gap() -> None:
    """A second dividend, of another size, on the day on which the first source is back."""
    truth = rows("AAA", DAYS[:60], 50.0, {DAYS[41]: (0.5, 1.0), DAYS[44]: (3.0, 1.0)})
    first = files_like("first", truth.filter(~pl.col("date").is_in(DAYS[40:44])))
    answer = assert_daily_is_the_range(ChainedSource("both", [first, Vendor("second", truth, DAYS[:60])]), DAYS[38:48])
    assert answer.prices.filter(pl.col("dividend") > 0)["dividend"].to_list() == [0.5, 3.0]


def files_like(name: str, truth: pl.DataFrame) -> Vendor:
    """A source that knows only the events of its own rows."""
    return Vendor(name, truth, truth["date"].to_list())


def test_sources_in_different_units_do_not_meet_in_silence(tmp_path: Path) -> None:
    """Pence after pounds would be a hundredfold return: the row that makes it is quarantined."""
    first = files(tmp_path, "pounds", rows("AAA", DAYS[:40], 50.0))
    second = files(tmp_path, "pence", rows("AAA", DAYS[:60], 5_100.0))
    answer = assert_daily_is_the_range(ChainedSource("both", [first, second]), DAYS[38:44])
    assert answer.prices["source"].to_list() == ["pounds"] * 2
    assert set(answer.quarantine.select("reason", "source").rows()) == {("hundredfold_jump", "pence")}


def test_a_row_after_a_long_halt_is_adjusted_to_the_last_row_there_was(tmp_path: Path) -> None:
    present = [*DAYS[:5], *DAYS[110:]]
    first = files(tmp_path, "first", rows("AAA", present[:5], 40.0), rows("ZZZ", DAYS))
    second = files(tmp_path, "second", rows("AAA", present[5:], 40.0, {present[5]: (4.0, 1.0)}))
    answer = assert_daily_is_the_range(ChainedSource("both", [first, second]), DAYS[109:112])
    row = answer.prices.filter((pl.col("symbol") == "AAA") & (pl.col("date") == present[5])).row(0, named=True)
    assert row["adjustment"] == pytest.approx(1 / (1 - 4 / 40))


# Delistings


def test_a_silence_that_the_other_source_breaks_is_no_delisting(tmp_path: Path) -> None:
    first = files(tmp_path, "first", rows("AAA", DAYS[:30]), rows("ZZZ", DAYS[:80]))
    second = files(tmp_path, "second", rows("AAA", DAYS[:50]), rows("ZZZ", DAYS[:80]))
    answer = assert_daily_is_the_range(ChainedSource("both", [first, second]), DAYS[38:62])
    assert answer.delistings.select("symbol", "date", "last_session").rows() == [("AAA", DAYS[59], DAYS[49])]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["silence first", "merger first"])
def test_the_source_that_knows_more_names_the_end(tmp_path: Path, order: tuple[int, int]) -> None:
    merger = ("AAA", DAYS[51], DAYS[49], "cash merger", 0.02, DAYS[51])
    silent = files(tmp_path, "silent", rows("AAA", DAYS[:50]), rows("ZZZ", DAYS[:80]))
    knowing = Vendor("knowing", rows("AAA", DAYS[:50]), DAYS[:50], merger)
    sources: list[PriceSource] = [silent, knowing]
    answer = assert_daily_is_the_range(ChainedSource("both", [sources[place] for place in order]), DAYS[48:64])
    assert answer.delistings.rows() == [merger]


# What else a chain says


def test_disagreements_of_days_that_both_have_are_shown(tmp_path: Path) -> None:
    first = files(tmp_path, "first", rows("AAA", DAYS[:30], 50.0))
    second = files(tmp_path, "second", rows("AAA", DAYS[:30], 50.0, {DAYS[12]: (1.0, 1.0)}))
    answer = ChainedSource("both", [first, second]).fetch(["AAA"], DAYS[10:20])
    assert answer.disagreements is not None
    assert answer.disagreements.is_empty(), "a dividend and its fall in price cancel out"
    missing = rows("AAA", DAYS[:30], 50.0, {DAYS[12]: (1.0, 1.0)}).with_columns(dividend=pl.lit(0.0))
    chain = ChainedSource("both", [first, files(tmp_path, "wrong", missing)])
    shown = chain.fetch(["AAA"], DAYS[10:20]).disagreements
    assert shown is not None
    assert shown.select("symbol", "date", "source").rows() == [("AAA", DAYS[12], "wrong")]
    outside = chain.fetch(["AAA"], DAYS[13:20]).disagreements
    assert outside is not None
    assert outside.is_empty()


def test_a_decision_holds_in_the_chain(tmp_path: Path) -> None:
    wrong = rows("AAA", DAYS[:20]).with_columns(
        open=pl.when(pl.col("date") == DAYS[8]).then(pl.lit(60.0)).otherwise("open")
    )
    chain = ChainedSource("both", [files(tmp_path, "first", wrong), files(tmp_path, "second", wrong)])
    assert chain.fetch(["AAA"], DAYS[8:9]).prices.is_empty()
    decided = chain.corrected([Decision("AAA", DAYS[8], (("open", 60.0),))])
    assert decided.fetch(["AAA"], DAYS[8:9]).prices["open"].to_list() == [60.0]
    assert chain.fetch(["AAA"], DAYS[8:9]).prices.is_empty(), "the chain itself is as it was"


def test_the_caveat_names_the_sources_and_repeats_theirs(tmp_path: Path) -> None:
    one, two = files(tmp_path, "one", rows("AAA", DAYS[:5])), files(tmp_path, "two", rows("AAA", DAYS[:5]))
    caveat = ChainedSource("both", [one, two]).caveat
    assert caveat is not None
    assert "one, then two" in caveat
    assert "two: delisting returns unknown" in caveat
    assert ChainedSource("both", [one, two]).start == START
