"""Tables of members as others publish them: a fund's holdings, a web page, a CSV of an index."""

from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.member_tables import read_members

HOLDINGS = """\ufeffiShares Invented 3000 ETF
Fund Holdings as of,"May 21, 2025"
Inception Date,"May 22, 2000"
Shares Outstanding,"50,000,000.00"
Stock,"-"
Bond,"-"
\xa0
Ticker,Name,Sector,Asset Class,Market Value,Exchange,Currency
"AAA","ALPHA, INC","Information Technology","Equity","1,000.00","NASDAQ","USD"
"BRKB","BERKSHIRE HATHAWAY INC CLASS B","Financials","Equity","1,000.00","New York Stock Exchange Inc.","USD"
"BF.B","BROWN FORMAN CORP CLASS B","Consumer Staples","Equity","1,000.00","New York Stock Exchange Inc.","USD"
"MOGA","MOOG INC CLASS A","Industrials","Equity","1,000.00","New York Stock Exchange Inc.","USD"
"UAA","UNDER ARMOUR INC CLASS A","-","Equity","1,000.00","New York Stock Exchange Inc.","USD"
"-","INVENTED HOLDING Prvt","Health Care","Equity","1,000.00","NASDAQ","USD"
"P5N994","Invented Escrow","Energy","Equity","1,000.00","Non-Nms Quotation Service (Nnqs)","USD"
"INH","INVENTED CVR","Health Care","Equity","1,000.00","NO MARKET (E.G. UNLISTED)","USD"
"XTSLA","BLK CSH FND TREASURY SL AGENCY","Cash and/or Derivatives","Money Market","1,000.00","-","USD"
"USD","USD CASH","Cash and/or Derivatives","Cash","1,000.00","-","USD"
"RTYM5","RUSSELL 2000 EMINI JUN 25","Cash and/or Derivatives","Futures","1,000.00","Index And Options Market","USD"
\xa0
"The content contained herein is owned by its publisher, and more words, with commas"
"""

PAGE = """<!DOCTYPE html><html><body>
<table><tr><th>Index</th><th>Value</th></tr><tr><td>x</td><td>1</td></tr></table>
<table class="wikitable"><tbody>
<tr><th>Symbol</th><th>Security</th><th>GICS Sector</th><th>GICS Sub-Industry</th></tr>
<tr><td><a href="#">BRK.B</a></td><td>Berkshire</td><td>Financials</td><td>Multi-Sector Holdings</td></tr>
<tr><td>AAA\n</td><td>Alpha</td><td>Energy</td><td>Drilling</td></tr>
</tbody></table></body></html>
"""


def test_a_funds_list_of_holdings_is_read_as_published() -> None:
    table = read_members(HOLDINGS.encode(), "IWV_holdings.csv")
    assert table.rows["symbol"].to_list() == ["AAA", "BRK-B", "BF-B", "MOG-A", "UAA"]
    assert table.rows["name"][0] == "ALPHA, INC"
    assert table.rows["sector"].to_list()[-2:] == ["Industrials", None]
    assert table.left_out == 6


def test_the_table_of_a_web_page_is_the_one_with_tickers() -> None:
    table = read_members(PAGE.encode(), "page")
    assert table.rows.select("symbol", "sector", "industries").rows() == [
        ("BRK-B", "Financials", ["Multi-Sector Holdings"]),
        ("AAA", "Energy", ["Drilling"]),
    ]


def test_a_page_and_a_csv_of_one_list_give_the_same_members() -> None:
    csv = b"Symbol,Security,GICS Sector,GICS Sub-Industry,CIK\nBRK.B,Berkshire,Financials,Multi-Sector Holdings,1\n"
    csv += b"AAA,Alpha,Energy,Drilling,2\n"
    assert read_members(csv, "csv").rows.equals(read_members(PAGE.encode(), "page").rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>Sorry, try later</body></html>", "a page without a table"),
        (b"\xff\xfe\x00 nonsense", "cannot be read as a table"),
        (b'{"error": 429}', "no column symbol or ticker"),
        (b"", "cannot be read as a table"),
        (b"PAR1 but cut off", "cannot be read as a table"),
    ],
)
def test_an_answer_that_is_no_list_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"the list .*{message}|the list is {message}"):
        read_members(content, "the list")


@pytest.mark.real_data
def test_the_russell_3000_list_keeps_its_share_classes_and_drops_what_is_unlisted(real_data: Path) -> None:
    table = read_members((real_data / "universes" / "russell3000_2025-05-21.csv").read_bytes(), "list")
    symbols = set(table.rows["symbol"])
    assert {"BRK-B", "BF-A", "BF-B", "MOG-A", "HEI", "HEI-A", "LEN", "LEN-B", "MA", "UAA", "UA"} <= symbols
    assert not {"P5N994", "WLLBW", "INH", "ADRO", "-"} & symbols
    assert (table.rows.height, table.left_out) == (2643, 10)
    assert not table.rows.select(pl.col("symbol").is_duplicated().any()).item()
