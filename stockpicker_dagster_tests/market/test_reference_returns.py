from datetime import date
from pathlib import Path

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.reference_returns import aligned, read_reference_returns

DAYS = [date(2024, 3, 7), date(2024, 3, 8)]


def written(folder: Path, text: str) -> Path:
    path = folder / "returns.csv"
    path.write_text(text)
    return path


def test_both_spellings_of_a_date_and_any_case_of_a_header_are_read(tmp_path: Path) -> None:
    returns = read_reference_returns(written(tmp_path, "Date,MKT\n20240308,0.01\n2024-03-07, -0.02\n"))
    assert returns.rows() == [(DAYS[0], -0.02), (DAYS[1], 0.01)]


def test_a_session_that_the_file_lacks_is_named_and_never_taken_for_zero(tmp_path: Path) -> None:
    returns = read_reference_returns(written(tmp_path, "date,mkt\n2024-03-07,0.01\n2024-03-08,\n"))
    assert aligned(returns, ["mkt"], DAYS[:1])["mkt"].tolist() == [0.01]
    with pytest.raises(InvalidInput, match="lack 1 of 2 sessions, the first being 2024-03-08"):
        aligned(returns, ["mkt"], DAYS)


def test_an_unknown_benchmark_is_refused_with_those_known(tmp_path: Path) -> None:
    returns = read_reference_returns(written(tmp_path, "date,mkt,smb\n2024-03-07,0.01,0.0\n"))
    with pytest.raises(InvalidInput, match="'spx' is unknown; the file has: mkt, smb"):
        aligned(returns, ["spx"], DAYS[:1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mkt\n0.1\n", "needs a column date"),
        ("date\n2024-03-07\n", "one of returns"),
        ("date,mkt\n7 March,0.1\n", "'7 March' is no day"),
        ("date,mkt\n2024-03-07,much\n", "mkt 'much' is no number"),
        ("date,mkt\n2024-03-07,0.1\n2024-03-07,0.1\n", "2024-03-07 more than once"),
        ("date,mkt\n2024-03-07,1.25\n", "give fractions"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_reference_returns(written(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        read_reference_returns(tmp_path / "none.csv")
