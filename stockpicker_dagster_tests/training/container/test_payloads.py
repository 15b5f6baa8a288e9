"""Requests of a served model: rows are read exactly or refused by line and column, scores written exactly."""

import io

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.training.container import payloads
from stockpicker_dagster.training.container.payloads import Refused, read_rows, write_scores

FEATURES = ("one", "two")
PARQUET = "application/x-parquet"


def _parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


TABLE = pl.DataFrame({"two": [2.0, 4.0], "symbol": ["NA", "TRUE"], "one": [1.0, 3.0], "other": ["x", "y"]})


@pytest.mark.parametrize(
    ("kind", "body", "keys"),
    [
        ("text/csv", b"1,2\n3,4\n", []),
        ("text/csv; charset=utf-8", b"1,2\r\n3,4", []),
        ("text/csv", TABLE.write_csv().encode(), ["symbol"]),
        (PARQUET, _parquet(TABLE), ["symbol"]),
        ("application/vnd.apache.parquet", _parquet(TABLE.select("one", "two")), []),
    ],
)
def test_rows_are_the_features_in_the_models_order(kind: str, body: bytes, keys: list[str]) -> None:
    rows = read_rows(kind, body, FEATURES)
    np.testing.assert_array_equal(rows.values, np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert rows.keys.columns == keys
    if keys:
        assert rows.keys["symbol"].to_list() == ["NA", "TRUE"]


def test_scores_are_written_exactly_and_one_a_line() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    scores = np.concatenate([np.random.default_rng(1).normal(size=996), [1e-300, 1e22, -0.0, 1 / 3]])
    body = "\n".join(",".join(map(repr, map(float, row))) for row in values).encode()
    rows = read_rows("text/csv", body, FEATURES)
    np.testing.assert_array_equal(rows.values, values)
    kind, written = write_scores(rows, scores, "")
    assert kind == "text/csv"
    assert [float(line) for line in written.decode().splitlines()] == scores.tolist()
    kind, written = write_scores(rows, scores, f"image/png, {PARQUET};q=0.5")
    assert kind == PARQUET
    assert pl.read_parquet(io.BytesIO(written))["score"].to_list() == scores.tolist()


def test_names_come_back_where_names_were_given() -> None:
    rows = read_rows("text/csv", b'symbol,date,one,two\n"A,B",2023-01-03,1,2\n', FEATURES)
    assert write_scores(rows, np.array([0.5]), "*/*")[1] == b'symbol,date,score\n"A,B",2023-01-03,0.5\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "said"),
    [
        ("application/json", b"[1, 2]", 415, "content type 'application/json' is not read; allowed: text/csv"),
        ("", b"1,2", 415, "content type '' is not read"),
        ("text/csv", b" \n", 400, "the body is empty"),
        ("text/csv", b"one,two\n", 400, "the body has no row"),
        ("text/csv", b"1,2,3\n", 400, "has 3 values, the model 2 features; give one, two, in that order"),
        ("text/csv", b"1,2\n3\n", 400, "row 2: the feature two is None"),
        ("text/csv", b"1,2\n3,4,5\n", 400, "cannot be read as CSV"),
        ("text/csv", b"1,2\n3,big\n", 400, "row 2: the feature two is 'big'"),
        ("text/csv", b"one,two\n1,2\n3,\n", 400, "row 3: the feature two is None"),
        ("text/csv", b"1,nan\n", 400, "row 1: the feature two is 'nan'"),
        ("text/csv", b"1,1e39\n", 400, "row 1: the feature two is '1e39'"),
        ("text/csv", b"one,one\n1,2\n", 400, "names a column twice"),
        ("text/csv", b"one,three\n1,2\n", 400, "lacks the features two; the model was trained on one, two"),
        ("text/csv", b"\xff\xfe\x00", 400, "cannot be read as CSV|has 1 values"),
        (PARQUET, b"PAR1nothingPAR1", 400, "cannot be read as Parquet"),
        (PARQUET, _parquet(TABLE)[:-20] + b"PAR1", 400, "cannot be read as Parquet"),
        (PARQUET, _parquet(TABLE.drop("two")), 400, "lacks the features two"),
        (PARQUET, _parquet(TABLE.with_columns(two=pl.lit([1.0]))), 400, "feature two has the type List"),
        (PARQUET, _parquet(TABLE.with_columns(two=pl.lit(float("inf")))), 400, "row 1: the feature two is inf"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_by_line_and_column(kind: str, body: bytes, status: int, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        read_rows(kind, body, FEATURES)
    assert refused.value.status == status


def test_a_few_bytes_that_say_they_are_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MOST_VALUES", 2_000_000)
    bomb = _parquet(pl.DataFrame({name: pl.repeat(1.0, 2_000_000, eager=True) for name in FEATURES}))
    assert len(bomb) < 200_000
    with pytest.raises(Refused, match="has 2000000 rows; allowed at once: 1000000") as refused:
        read_rows(PARQUET, bomb, FEATURES)
    assert refused.value.status == 413


def test_an_answer_that_cannot_be_written_is_refused() -> None:
    rows = read_rows("text/csv", b"1,2\n", FEATURES)
    with pytest.raises(Refused, match=r"Accept 'application/json' can be written; allowed: text/csv") as refused:
        write_scores(rows, np.array([1.0]), "application/json")
    assert refused.value.status == 406
