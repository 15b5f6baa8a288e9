from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.fundamentals.edgar import Reported, fetch_facts
from stockpicker_dagster.market.fundamentals.facts import FACTS_SCHEMA, FILERS_SCHEMA
from stockpicker_dagster.market.fundamentals.sec_client import EdgarUnavailable, SecClient
from stockpicker_dagster_tests.market.fundamentals.companies import ACME, ALL, COUNT, INCOME, TURN
from stockpicker_dagster_tests.market.fundamentals.sec_server import BROKEN, Answer, Company, SecServer, serving

CALENDAR = trading_calendar("XNYS")
FIRST = date(2018, 10, 1)
DAYS = CALENDAR.sessions(FIRST, date(2020, 6, 30))
SYMBOLS = ["ACME", "TURN", "TURN-B", "ABRD", "TRST", "NONE"]
CONTACT_TEXT = "Jane Doe jane@example.com"


@pytest.fixture
def sec() -> Iterator[SecServer]:
    with serving(SecServer(list(ALL))) as server:
        yield server


def client(server: SecServer, waits: list[float] | None = None, attempts: int = 4) -> SecClient:
    """A client that only notes how long it would have waited."""
    slept = [] if waits is None else waits
    return SecClient(CONTACT_TEXT, server.url, server.url, 1e6, attempts, 1.0, slept.append)


def fetched(server: SecServer, days: list[date] = DAYS, symbols: list[str] = SYMBOLS, first: date = FIRST) -> Reported:
    return fetch_facts(client(server), symbols, days, first, CALENDAR)


def of_filing(reported: Reported, accession: str) -> pl.DataFrame:
    return reported.facts.filter(pl.col("filing") == accession)


# What is known, and when


def test_a_report_is_known_from_the_session_that_closes_after_its_acceptance(sec: SecServer) -> None:
    facts = fetched(sec).facts
    known = dict(facts.select("filing", "known_at").unique().iter_rows())
    assert known["0000001001-19-000001"] == date(2019, 2, 22)  # accepted after the close of the 21st
    assert known["0000001001-19-000002"] == date(2019, 5, 8)  # accepted before the close
    assert known["0000001001-20-000001"] == date(2020, 4, 15)  # no time is told: the session after the filing
    assert known["0000001001-20-000002"] == date(2020, 5, 4)  # accepted on Friday evening, filed as of Monday
    assert (facts["known_at"] >= facts["filed"]).all()
    assert (facts["date"] >= facts["known_at"]).all()


def test_a_fact_is_the_figure_of_its_report_and_restatements_are_facts_of_their_own(sec: SecServer) -> None:
    facts = fetched(sec).facts
    assert facts.schema == FACTS_SCHEMA
    income = facts.filter((pl.col("concept") == INCOME) & (pl.col("symbol") == "ACME"))
    year_2018 = income.filter(pl.col("end") == date(2018, 12, 31)).select("value", "filing", "form", "date")
    assert year_2018.rows() == [
        (40.0, "0000001001-19-000001", "10-K", date(2019, 2, 22)),
        (35.0, "0000001001-20-000001", "10-K", date(2020, 4, 15)),
    ]
    assert income.filter(pl.col("end") == date(2019, 12, 31))["value"].to_list() == [60.0, 20.0]


def test_the_first_session_also_holds_what_was_known_before_it_and_still_matters(sec: SecServer) -> None:
    facts = fetched(sec, [FIRST]).facts
    assert facts.select("filing", "date", "known_at").unique().rows() == [
        ("0000001002-18-000001", FIRST, date(2018, 9, 4))
    ]
    later = fetched(sec, [DAYS[-1]], first=DAYS[-1]).facts
    assert later["filing"].n_unique() == 9
    assert set(later["date"]) == {DAYS[-1]}
    assert fetched(sec, [date(2023, 1, 3)], first=date(2023, 1, 3)).facts.is_empty()


def test_other_forms_currencies_and_nameless_symbols_are_left_out_by_name(sec: SecServer) -> None:
    reported = fetched(sec)
    assert reported.unknown_symbols == ("NONE",)
    assert reported.without_figures == {"TRST": "reports no figures in XBRL"}
    assert reported.left_out == {"in EUR, not in USD": 2}
    assert of_filing(reported, "0000001001-19-000003").is_empty()
    abroad = reported.facts.filter(pl.col("symbol") == "ABRD")
    assert abroad.select("concept", "value").rows() == [(COUNT, 10.0)]


def test_counts_of_shares_belong_to_the_main_class_and_everything_else_to_all(sec: SecServer) -> None:
    facts = fetched(sec).facts.filter(pl.col("cik") == "0000001002")
    main, other = (facts.filter(pl.col("symbol") == symbol) for symbol in TURN.tickers)
    assert COUNT in main["concept"].to_list()
    assert other.drop("symbol").equals(main.filter(pl.col("concept") != COUNT).drop("symbol"))


def test_each_session_says_whose_facts_its_symbols_were_given(sec: SecServer) -> None:
    filers = fetched(sec, DAYS[:2]).filers
    assert filers.schema == FILERS_SCHEMA
    assert filers.height == 2 * len(SYMBOLS)
    assert dict(filers.filter(pl.col("date") == DAYS[0]).select("symbol", "cik").iter_rows()) == {
        "ABRD": "0000001003",
        "ACME": "0000001001",
        "NONE": None,
        "TRST": "0000001004",
        "TURN": "0000001002",
        "TURN-B": "0000001002",
    }


def test_figures_that_cannot_be_true_are_left_out_and_counted(sec: SecServer) -> None:
    whole = ACME.company_facts()
    assert whole is not None
    [income] = whole["facts"]["us-gaap"]["NetIncomeLoss"]["units"].values()
    first = {key: income[0][key] for key in ("accn", "form", "filed", "fy", "fp")}
    income += [
        {**first, "start": "2019-01-01", "end": "2019-12-31", "val": 1.0},
        {**first, "end": "2018-12-31", "val": 1.0},
        {**first, "start": "2018-01-01", "end": "2018-12-31", "val": 41.0},
        {**first, "start": "2017-01-01", "end": "2017-12-31", "val": None},
    ]
    [counts] = whole["facts"]["dei"]["EntityCommonStockSharesOutstanding"]["units"].values()
    counts[0]["val"] = 0

    def instead(path: str, times: int) -> Answer | None:
        import json

        return (200, json.dumps(whole).encode(), {}) if path.endswith("companyfacts/CIK0000001001.json") else None

    sec.instead = instead
    reported = fetched(sec, symbols=["ACME"])
    assert reported.left_out == {
        "on a day after its report": 1,
        "a period where a moment is meant, or the reverse": 1,
        "contradicts itself within one report": 1,
        "no number": 1,
        "no shares at all": 1,
    }
    concepts = of_filing(reported, "0000001001-19-000001")["concept"].to_list()
    assert INCOME not in concepts
    assert COUNT not in concepts


# Time


def test_a_session_tells_the_same_whatever_is_filed_after_it(sec: SecServer) -> None:
    until = date(2020, 4, 15)
    days = [day for day in DAYS if day <= until]
    then = fetched(sec, days).facts
    sec.companies = [company.through(until) for company in ALL]
    assert fetched(sec, days).facts.equals(then)
    assert then.height > 20


def test_days_one_by_one_equal_a_range(sec: SecServer) -> None:
    whole = fetched(sec)
    eventful = sorted({*whole.facts["date"].to_list(), DAYS[0], DAYS[7], DAYS[-1]})
    single = [fetched(sec, [day]) for day in eventful]
    assert pl.concat(each.facts for each in single).equals(whole.facts)
    assert pl.concat(each.filers for each in single).equals(whole.filers.filter(pl.col("date").is_in(eventful)))


def test_figures_are_asked_for_only_where_a_report_falls_on_the_sessions(sec: SecServer) -> None:
    fetched(sec, [date(2019, 5, 8)])
    asked = [path for path in sec.asked if "companyfacts" in path]
    assert asked == ["/api/xbrl/companyfacts/CIK0000001001.json"]


def test_older_pages_of_a_list_of_filings_are_read_where_they_matter(sec: SecServer) -> None:
    whole = fetched(sec).facts
    sec.page_size = 2
    sec.asked.clear()
    assert fetched(sec).facts.equals(whole)
    sec.asked.clear()
    fetched(sec, [date(2020, 5, 4)], ["ACME"])
    assert [path for path in sec.asked if "-submissions-" in path] == []


# Faults


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_fault_is_tried_again_and_changes_nothing(sec: SecServer, answer: Answer) -> None:
    whole = fetched(sec)
    sec.asked.clear()
    sec.instead = lambda path, times: answer if times <= 2 else None
    again = fetched(sec)
    assert again.facts.equals(whole.facts)
    assert again.filers.equals(whole.filers)
    assert set(sec.asked.values()) == {3}


def test_a_download_that_a_fault_stopped_goes_on_and_asks_for_nothing_twice(sec: SecServer) -> None:
    whole = fetched(sec)
    sec.asked.clear()
    sec.instead = lambda path, times: (503, b"", {}) if "companyfacts/CIK0000001004" in path else None
    with pytest.raises(EdgarUnavailable) as refused:
        fetched(sec)
    text = str(refused.value)
    assert "companyfacts/CIK0000001004.json could not be read in 4 attempts: status 503" in text
    assert "3 of 4 companies were read and are kept, and no session was stored: run again to go on from there" in text
    sec.instead = lambda path, times: None
    before = dict(sec.asked)
    again = fetched(sec)
    assert again.facts.equals(whole.facts)
    asked_again = {path for path, times in sec.asked.items() if times != before.get(path)}
    assert asked_again == {"/api/xbrl/companyfacts/CIK0000001004.json"}
    fetched(sec)
    assert sec.asked["/files/company_tickers.json"] == 2  # a download that is over is asked for afresh


def test_no_network_at_all_is_said_in_a_sentence() -> None:
    with serving(SecServer([])) as gone:
        pass
    with pytest.raises(EdgarUnavailable, match="no answer"):
        fetch_facts(client(gone, attempts=1), ["ACME"], DAYS[:1], FIRST, CALENDAR)


def test_an_answer_of_another_shape_is_refused_not_guessed(sec: SecServer) -> None:
    sec.instead = lambda path, times: (200, b'{"filings": {}}', {}) if "submissions" in path else None
    with pytest.raises(EdgarUnavailable, match="has not the shape that the SEC documents"):
        fetched(sec)


def test_a_filer_that_the_sec_does_not_know_is_named(sec: SecServer) -> None:
    sec.instead = lambda path, times: (404, b"", {}) if "submissions/CIK0000001001" in path else None
    reported = fetched(sec)
    assert reported.without_figures["ACME"] == "the SEC knows no such filer"
    assert "ACME" not in reported.facts["symbol"]


def test_a_report_without_a_figure_that_is_kept_is_named(sec: SecServer) -> None:
    silent = replace(ACME.reports[-1], figures=())
    sec.companies = [Company(1001, ("ACME",), (*ACME.reports[:-1], silent))]
    assert fetched(sec, symbols=["ACME"]).without_figures == {
        "ACME": "none of the figures kept in 0000001001-20-000002"
    }
