"""Invented companies for the tests of fundamentals, with everything that makes real ones hard; no test lives here."""

from datetime import date

from stockpicker_dagster_tests.market.fundamentals.sec_server import Company, Figure, Report

SALES, CONTRACTS = "us-gaap:SalesRevenueNet", "us-gaap:RevenueFromContractWithCustomerExcludingAssessedTax"
INCOME, ASSETS, EQUITY = "us-gaap:NetIncomeLoss", "us-gaap:Assets", "us-gaap:StockholdersEquity"
COUNT = "dei:EntityCommonStockSharesOutstanding"


def flow(concept: str, start: str, end: str, value: float, unit: str = "USD") -> Figure:
    return Figure(concept, date.fromisoformat(end), value, date.fromisoformat(start), unit)


def balance(concept: str, end: str, value: float, unit: str = "USD") -> Figure:
    return Figure(concept, date.fromisoformat(end), value, None, unit)


def shares(day: str, count: float) -> Figure:
    return balance(COUNT, day, count, "shares")


def report(accession: str, form: str, filed: str, accepted: str, *figures: Figure) -> Report:
    return Report(accession, form, date.fromisoformat(filed), accepted, figures)


ACME = Company(
    1001,
    ("ACME",),
    (
        report(
            "0000001001-19-000001",
            "10-K",
            "2019-02-21",
            "2019-02-21T21:05:00.000Z",
            flow(SALES, "2018-01-01", "2018-12-31", 800.0),
            flow(INCOME, "2018-01-01", "2018-12-31", 40.0),
            balance(ASSETS, "2018-12-31", 1000.0),
            balance(EQUITY, "2018-12-31", 500.0),
            shares("2019-02-15", 100.0),
        ),
        report(
            "0000001001-19-000002",
            "10-Q",
            "2019-05-08",
            "2019-05-08T11:00:00.000Z",
            flow(CONTRACTS, "2019-01-01", "2019-03-31", 210.0),
            flow(CONTRACTS, "2018-01-01", "2018-03-31", 190.0),
            flow(INCOME, "2019-01-01", "2019-03-31", 12.0),
            flow(INCOME, "2018-01-01", "2018-03-31", 8.0),
            balance(ASSETS, "2019-03-31", 1040.0),
            balance(ASSETS, "2018-12-31", 1000.0),
            balance(EQUITY, "2019-03-31", 512.0),
            shares("2019-05-01", 101.0),
        ),
        report(
            "0000001001-19-000003",
            "8-K",
            "2019-06-03",
            "2019-06-03T12:00:00.000Z",
            flow(INCOME, "2018-01-01", "2018-12-31", 99.0),
        ),
        report(
            "0000001001-20-000001",
            "10-K",
            "2020-04-14",
            "",
            flow(CONTRACTS, "2019-01-01", "2019-12-31", 900.0),
            flow(CONTRACTS, "2018-01-01", "2018-12-31", 780.0),
            flow(INCOME, "2019-01-01", "2019-12-31", 60.0),
            flow(INCOME, "2018-01-01", "2018-12-31", 35.0),
            balance(ASSETS, "2019-12-31", 1200.0),
            balance(ASSETS, "2018-12-31", 990.0),
            balance(EQUITY, "2019-12-31", 560.0),
            shares("2020-04-01", 210.0),
        ),
        report(
            "0000001001-20-000002",
            "10-K/A",
            "2020-05-04",
            "2020-05-01T21:50:00.000Z",
            flow(INCOME, "2019-01-01", "2019-12-31", 20.0),
            balance(ASSETS, "2019-12-31", 1150.0),
        ),
    ),
)
"""Revenue changes its tag with 2019; the first 10-K is accepted after the close, the 10-Q in the morning, the second
10-K comes late and without a time; it restates 2018, and an amendment, accepted on the Friday evening before its filing
date, restates 2019. The 8-K's figure is of no regular report."""

TURN = Company(
    1002,
    ("TURN", "TURN-B"),
    (
        report(
            "0000001002-18-000001",
            "10-K",
            "2018-09-04",
            "2018-09-04T12:00:00.000Z",
            flow(INCOME, "2017-07-01", "2018-06-30", 100.0),
            balance(ASSETS, "2018-06-30", 2000.0),
            shares("2018-08-20", 50.0),
        ),
        report(
            "0000001002-18-000002",
            "10-Q",
            "2018-11-06",
            "2018-11-06T12:00:00.000Z",
            flow(INCOME, "2018-07-01", "2018-09-30", 30.0),
            flow(INCOME, "2017-07-01", "2017-09-30", 22.0),
            balance(ASSETS, "2018-09-30", 2030.0),
        ),
        report(
            "0000001002-19-000001",
            "10-KT",
            "2019-03-05",
            "2019-03-05T12:00:00.000Z",
            flow(INCOME, "2018-07-01", "2018-12-31", 70.0),
            flow(INCOME, "2017-07-01", "2017-12-31", 45.0),
            balance(ASSETS, "2018-12-31", 2070.0),
        ),
        report(
            "0000001002-20-000001",
            "10-K",
            "2020-03-03",
            "2020-03-03T12:00:00.000Z",
            flow(INCOME, "2019-01-01", "2019-12-31", 160.0),
            balance(ASSETS, "2019-12-31", 2200.0),
        ),
    ),
)
"""Moves the end of its fiscal year from June to December, reporting the six months between by themselves; it has two
classes of shares."""

ABROAD = Company(
    1003,
    ("ABRD",),
    (
        report(
            "0000001003-19-000001",
            "20-F",
            "2019-04-10",
            "2019-04-10T12:00:00.000Z",
            flow(INCOME, "2018-01-01", "2018-12-31", 7.0, "EUR"),
            balance(ASSETS, "2018-12-31", 90.0, "EUR"),
            shares("2018-12-31", 10.0),
        ),
    ),
)
"""Reports in euro."""

TRUST = Company(1004, ("TRST",), (report("0000001004-19-000001", "10-K", "2019-03-01", "2019-03-01T12:00:00.000Z"),))
"""Reports no figures in XBRL."""

ALL = [ACME, TURN, ABROAD, TRUST]
