"""A person at the prices: what is decided is tried first, recorded for good, and shows in every day made afterwards."""

import io
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from click.testing import CliRunner, Result

from stockpicker_dagster import runs
from stockpicker_dagster.cli import main
from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.decision_records import DecisionsOutstanding
from stockpicker_dagster.market.quality import EXTREME, SessionRefused
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.price_desk import check_file
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form import COMPONENT_TYPE, StrategyForm

DAYS = trading_calendar("XNYS").sessions(date(2018, 1, 2), date(2018, 1, 19))
JUMP, PAID = DAYS[6], DAYS[8]
SYMBOLS = [f"S{number:02d}" for number in range(25)]
STRATEGY = {
    "owner": "research",
    "universe": {"symbols": SYMBOLS},
    "prices": {"source": "files", "name": "mine", "path": "p.csv", "basis": "as_traded", "start": "2018-01-02"},
    "periods": {"train_years": 1, "validation_years": 1, "retrain": "quarterly"},
}
WHY = ("--reason", "the exchange's own notice")


def market_rows() -> pl.DataFrame:
    """Twenty-five stocks; S00 becomes 150 times dearer on `JUMP` without a split, stays so, and pays on `PAID`."""
    rows = []
    for number, symbol in enumerate(SYMBOLS):
        for at, day in enumerate(DAYS):
            close = 10.0 + number + 0.01 * (at * (number + 3) % 17)
            close = round(close * 150, 2) if symbol == "S00" and day >= JUMP else round(close, 2)
            dividend = 30.0 if symbol == "S00" and day == PAID else 0.0
            rows.append((symbol, day, close, close, close, close, 1000.0 + at, dividend, 1.0))
    columns = ["symbol", "date", "open", "high", "low", "close", "volume", "dividend", "split_ratio"]
    return pl.DataFrame(rows, schema=columns, orient="row")


Collect = Callable[[date, date], dg.ExecuteInProcessResult]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setattr(runs, "STRATEGIES", tmp_path / "strategies")
    folder = tmp_path / "strategies" / "picker"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": STRATEGY}))
    enter(tmp_path / "home", monkeypatch)
    return tmp_path / "home"


def enter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    monkeypatch.setenv("STOCKPICKER_HOME", str(home))
    market_rows().write_csv(home / "p.csv")


@pytest.fixture
def collect() -> Collect:
    form = StrategyForm.model_validate(STRATEGY)
    job = bind(market_definitions({"picker": form})).resolve_implicit_global_asset_job_def()

    def run(first: date, last: date) -> dg.ExecuteInProcessResult:
        try:
            return job.execute_in_process(
                instance=dg.DagsterInstance.ephemeral(),
                asset_selection=[dg.AssetKey(["mine", "prices"])],
                tags={
                    "dagster/asset_partition_range_start": str(first),
                    "dagster/asset_partition_range_end": str(last),
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        except Exception as error:
            raise runs._own_error(error) or error from error

    return run


def stockpicker(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: str) -> str:
    result = stockpicker(*arguments)
    assert result.exit_code == 1
    [message] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return message


def stored(lake: Lake) -> dict[str, bytes]:
    """Every stored day's rows and note, bit by bit."""
    found = {}
    for table in ("mine/prices", "mine/quarantine", "mine/delistings"):
        for day, note in lake.notes(table).items():
            buffer = io.BytesIO()
            lake.read(table, [day]).write_ipc(buffer)
            found[f"{table} {day} {note}"] = buffer.getvalue()
    return found


def test_an_accepted_row_reaches_every_later_day_and_daily_runs_equal_a_backfill(
    home: Path, tmp_path: Path, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Deployment().lake
    collect(DAYS[0], DAYS[-2])
    undecided = stored(lake)
    assert len(stockpicker("data", "quarantine", "mine").stdout.splitlines()) == len(DAYS[6:-1])
    said = stockpicker("data", "accept", "mine", "S00", str(JUMP), *WHY).stdout
    assert "decision 1: accept S00 2018-01-10 [rejected as hundredfold_jump" in said
    assert f"stockpicker run picker --from {JUMP}" in said
    assert stored(lake) == undecided
    doctor = stockpicker("doctor")
    assert doctor.exit_code == 1
    assert (
        "FAIL picker: 6 days (2018-01-10 to 2018-01-18) were stored before a decision about their prices"
        in doctor.stdout
    )
    with pytest.raises(DecisionsOutstanding, match=f"--from {JUMP}"):
        collect(DAYS[-1], DAYS[-1])

    collect(JUMP, DAYS[-2])
    collect(DAYS[-1], DAYS[-1])
    s00 = lake.read("mine/prices", DAYS).filter(pl.col("symbol") == "S00")
    assert s00["date"].to_list() == DAYS
    assert s00.filter(pl.col("date") == PAID)["adjustment"].item() == pytest.approx(
        1 / (1 - 30.0 / s00.filter(pl.col("date") == DAYS[7])["close"].item())
    )
    assert lake.read("mine/quarantine", DAYS).is_empty()

    # Elsewhere, with the same decision on record, one backfill of everything, and days one by one.
    decided = (home / "lake" / "mine" / "decisions" / "000001.json").read_bytes()
    for name, spans in {
        "range": [(DAYS[0], DAYS[-1])],
        # The day before the jump, the jump, and the day after; then the rest, the dividend among them, and the last.
        "daily": [(DAYS[0], DAYS[4]), *((day, day) for day in DAYS[5:8]), (DAYS[8], DAYS[-2]), (DAYS[-1], DAYS[-1])],
    }.items():
        enter(tmp_path / name, monkeypatch)
        folder = tmp_path / name / "lake" / "mine" / "decisions"
        folder.mkdir(parents=True)
        (folder / "000001.json").write_bytes(decided)
        for first, last in spans:
            collect(first, last)
        assert stored(Deployment().lake) == stored(lake)

    monkeypatch.setenv("STOCKPICKER_HOME", str(home))
    assert "decision 2: take_back of 1" in stockpicker("data", "take-back", "mine", "1", *WHY).stdout
    collect(JUMP, DAYS[-1])
    assert stored(lake).items() >= undecided.items()
    assert "2 decisions, 0 in force" in stockpicker("data", "corrections", "mine").stderr


def test_a_corrected_row_takes_its_figures_and_a_later_revision_of_it_is_a_restatement_still(
    home: Path, collect: Collect
) -> None:
    collect(DAYS[0], DAYS[5])
    words = [f"{name}=11.17" for name in ("open", "high", "low", "close")]
    assert "close 11.12 -> 11.17" in stockpicker("data", "correct", "mine", "S01", str(DAYS[3]), *words, *WHY).stdout
    collect(DAYS[3], DAYS[5])
    lake = Deployment().lake

    def close_of(symbol: str) -> float:
        return lake.read("mine/prices", [DAYS[3]]).filter(pl.col("symbol") == symbol)["close"].item()

    assert close_of("S01") == 11.17
    assert lake.read("mine/quarantine", DAYS[:6]).is_empty()
    before = stored(lake)
    changed = pl.col("symbol").is_in(["S01", "S02"]) & (pl.col("date") == DAYS[3])
    figures = [
        pl.when(changed).then(pl.col(name) * 1.1).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    ]
    market_rows().with_columns(figures).write_csv(home / "p.csv")
    collect(DAYS[3], DAYS[5])
    assert close_of("S01") == 11.17
    assert {key: value for key, value in stored(lake).items() if "prices" in key} == {
        key: value for key, value in before.items() if "prices" in key
    }


def test_a_restatement_that_is_accepted_takes_the_place_of_the_stored_row(home: Path, collect: Collect) -> None:
    collect(DAYS[0], DAYS[5])
    changed = (pl.col("symbol") == "S02") & (pl.col("date") == DAYS[3])
    figures = [pl.when(changed).then(12.5).otherwise(name).alias(name) for name in ("open", "high", "low", "close")]
    market_rows().with_columns(figures).write_csv(home / "p.csv")
    collect(DAYS[2], DAYS[5])
    lake = Deployment().lake
    assert lake.read("mine/quarantine", [DAYS[3]])["reason"].to_list() == ["restated"]
    stockpicker("data", "accept", "mine", "S02", str(DAYS[3]), *WHY)
    collect(DAYS[3], DAYS[5])
    assert lake.read("mine/prices", [DAYS[3]]).filter(pl.col("symbol") == "S02")["close"].item() == 12.5
    assert lake.read("mine/quarantine", [DAYS[3]]).is_empty()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("correct", "mine", "S01", str(DAYS[3]), "close=-1"), "would still be rejected as non_positive_price"),
        (("correct", "mine", "S01", str(DAYS[3]), "volume=1003"), "change nothing"),
        (("correct", "mine", "NONE", str(DAYS[3]), "close=1"), "has no row of NONE"),
        (("accept", "mine", "S01", str(DAYS[3])), "no row of S01 on 2018-01-05 was rejected"),
        (("take-back", "mine", "1"), "decision 1 is not in force; in force: none"),
        (("accept", "yours", "S01", str(DAYS[3])), "price source 'yours' is unknown; known: mine"),
        (("accept-day", "mine", "2018-01-06"), "2018-01-06 is no session of the exchange of 'mine'"),
        (("accept-day", "mine", str(DAYS[3]), "2999-01-04"), "2999-01-04 cannot be let through before its rows"),
    ],
)
def test_a_decision_that_would_have_no_effect_is_refused_and_not_recorded(
    home: Path, collect: Collect, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused("data", *arguments, *WHY)
    assert stockpicker("data", "corrections", "mine").stdout == ""


def test_a_decision_is_compared_with_those_before_it_and_not_with_days_that_they_left_outdated(
    home: Path, collect: Collect
) -> None:
    collect(DAYS[0], DAYS[5])
    row = ("correct", "mine", "S01", str(DAYS[3]))
    first = Deployment().lake.read("mine/prices", [DAYS[3]]).filter(pl.col("symbol") == "S01")["close"].item()
    stockpicker("data", *row, "close=12.5", *WHY)
    # Nothing was made again yet: 12.5 is what counts, and what is stored is a change.
    assert "change nothing" in refused("data", *row, "close=12.5", *WHY)
    assert "close 12.5 -> " in stockpicker("data", *row, f"close={first}", *WHY).stdout
    stockpicker("data", *row, "close=12.5", *WHY)
    collect(DAYS[3], DAYS[5])
    assert Deployment().lake.read("mine/prices", [DAYS[3]]).filter(pl.col("symbol") == "S01")["close"].item() == 12.5
    stockpicker("data", "take-back", "mine", "3", *WHY)
    stockpicker("data", *row, "close=12.5", *WHY)


def test_a_partial_session_is_not_stored_until_it_is_whole_or_let_through(home: Path, collect: Collect) -> None:
    half = market_rows().filter((pl.col("date") != DAYS[8]) | pl.col("symbol").is_in(SYMBOLS[1:13]))
    half.write_csv(home / "p.csv")
    collect(DAYS[0], DAYS[7])
    with pytest.raises(SessionRefused, match="2018-01-12: it has 12 rows where 25 are usual"):
        collect(DAYS[8], DAYS[8])
    lake = Deployment().lake
    assert lake.days("mine/prices") == DAYS[:8]
    # Whole the next time, it is no restatement of a half that was stored.
    market_rows().write_csv(home / "p.csv")
    collect(DAYS[8], DAYS[8])
    assert lake.read("mine/prices", [DAYS[8]]).height == 24

    market_rows().filter((pl.col("date") != DAYS[9]) | pl.col("symbol").is_in(SYMBOLS[1:13])).write_csv(home / "p.csv")
    assert "decision 1: accept_day 2018-01-16" in stockpicker("data", "accept-day", "mine", str(DAYS[9]), *WHY).stdout
    collect(DAYS[9], DAYS[9])
    assert lake.read("mine/prices", [DAYS[9]]).height == 12


def test_a_refused_session_fails_its_check_in_dagster(home: Path) -> None:
    stale = market_rows().with_columns(
        pl.when(pl.col("date") == DAYS[8]).then(pl.col("close").shift(1)).otherwise("close").alias("close")
    )
    stale.with_columns(open="close", high="close", low="close").write_csv(home / "p.csv")
    form = StrategyForm.model_validate(STRATEGY)
    job = bind(market_definitions({"picker": form})).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=dg.DagsterInstance.ephemeral(),
        asset_selection=[dg.AssetKey(["mine", "prices"])],
        tags={"dagster/asset_partition_range_start": str(DAYS[0]), "dagster/asset_partition_range_end": str(DAYS[8])},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    assert not result.success
    [check] = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.blocking) == ("whole_sessions", False, True)
    assert "of its closes are those of the session before" in str(check.metadata["first"].value)
    assert Deployment().lake.days("mine/prices") == []


def test_a_stored_source_is_reported_and_its_span_can_be_chosen(home: Path, collect: Collect, tmp_path: Path) -> None:
    collect(DAYS[0], DAYS[-1])
    page = tmp_path / "page.html"
    said = stockpicker("data", "report", "mine", "--html", str(page), "--from", str(DAYS[5])).stdout
    assert f"prices of mine, {DAYS[5]} to {DAYS[-1]}" in said
    assert "6  hundredfold_jump" in said
    assert "hundredfold_jump" in page.read_text()
    assert "stored: 2018-01-02 to 2018-01-19" in refused("data", "report", "mine", "--from", "2020-01-02")


def test_a_file_is_checked_without_a_strategy_and_nothing_is_stored(home: Path, tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.csv"
    said = stockpicker(
        "data", "check", str(home / "p.csv"), "--basis", "as_traded", "--quarantine", str(rejected)
    ).stdout
    assert f"rows in {25 * len(DAYS)} = stored {25 * len(DAYS) - 7} + quarantined 7" in said
    assert pl.read_csv(rejected).height == 7
    assert not (home / "lake" / "p").exists()


def test_a_file_of_another_exchange_is_checked_by_its_calendar_and_currency(home: Path) -> None:
    holiday = date(2018, 1, 15)  # in New York
    rows = market_rows().filter(pl.col("date") == DAYS[3]).with_columns(date=holiday, currency=pl.lit("GBp"))
    rows.write_csv(home / "london.csv")
    command = ["data", "check", str(home / "london.csv"), "--basis", "as_traded"]
    counted = f"{rows.height} = stored {rows.height} + quarantined 0"
    assert counted in stockpicker(*command, "--calendar", "XLON", "--currency", "GBp").stdout
    assert f"{rows.height}  wrong_currency" in stockpicker(*command, "--calendar", "XLON").stdout
    assert f"{rows.height}  not_a_session" in stockpicker(*command, "--currency", "GBp").stdout


def test_a_file_with_a_changed_ticker_is_checked_as_the_one_security_that_it_is(home: Path) -> None:
    renamed = pl.when(pl.col("symbol") == "S01", pl.col("date") >= DAYS[8]).then(pl.lit("NEW"))
    market_rows().with_columns(symbol=renamed.otherwise("symbol")).write_csv(home / "p.csv")
    (home / "changes.csv").write_text(f"old,new,date\nS01,NEW,{DAYS[8]}\n")
    plain, _ = check_file(home / "p.csv", "as_traded")
    told, _ = check_file(home / "p.csv", "as_traded", symbol_changes=home / "changes.csv")
    assert (plain.symbols, told.symbols) == (26, 25)
    said = stockpicker(
        "data", "check", str(home / "p.csv"), "--basis", "as_traded", "--symbol-changes", str(home / "changes.csv")
    )
    assert "25 symbols" in said.stdout


@pytest.mark.real_data
def test_the_whole_real_market_is_checked_in_one_command_and_what_is_accepted_makes_the_published_market(
    real_data: Path, tmp_path: Path
) -> None:
    path = real_data / "prices" / "us_all_2015_2017.parquet"
    page = tmp_path / "page.html"
    said = stockpicker("data", "check", str(path), "--basis", "as_traded", "--html", str(page)).stdout
    [(came, kept, rejected)] = re.findall(r"rows in ([\d,]+) = stored ([\d,]+) \+ quarantined ([\d,]+)", said)
    came, kept, rejected = (int(count.replace(",", "")) for count in (came, kept, rejected))
    assert came == kept + rejected == pl.scan_parquet(path).select(pl.len()).collect().item()
    assert rejected < 0.005 * came
    # A ticker that another company took up counts as two securities, so there may be more than 7,072.
    [symbols] = re.findall(r"([\d,]+) symbols", said)
    assert 7072 <= int(symbols.replace(",", "")) < 7100
    # The one session of the file that lacks a sixth of its stocks.
    assert "sessions that cannot be right as a whole: 1\n  2016-09-01" in said
    assert "<script" not in page.read_text()

    rows = FilesSource("us_all", path, "as_traded", date(2015, 3, 20)).everything().prices.sort("symbol", "date")
    # The weights, a month's mean dollar volume, are known before the return that they weigh.
    dollar_volume = (pl.col("close") * pl.col("volume")).rolling_mean(21, min_samples=1)
    rows = rows.with_columns(
        ours=pl.col("close") * pl.col("adjustment") / pl.col("close").shift(1).over("symbol") - 1,
        gap=pl.col("date") - pl.col("date").shift(1).over("symbol"),
        weight=dollar_volume.shift(1).over("symbol"),
    )
    usual = (pl.col("gap") <= timedelta(days=5)) & (pl.col("ours").abs() <= EXTREME)
    ours = rows.filter(usual).group_by("date").agg((pl.col("ours") * pl.col("weight")).sum() / pl.col("weight").sum())
    published = pl.read_csv(real_data / "factors" / "french_daily_1990_2024.csv", try_parse_dates=True)
    both = ours.join(published.select("date", published=pl.col("mkt_rf") + pl.col("rf")), on="date")
    assert both.height > 500
    assert both.select(pl.corr("ours", "published")).item() >= 0.975
