"""Stored days beside the file that a form names: figures of what it covers, and a sentence where it does not."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from pydantic import ValidationError

from stockpicker_dagster.evaluation.against_reference import against_reference
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.strategy_form import ReferenceForm

SESSIONS = trading_calendar("XNYS").sessions(date(2023, 1, 3), date(2023, 6, 30))
RNG = np.random.default_rng(5)
MARKET, SIZE = 0.01 * RNG.normal(size=(2, len(SESSIONS)))
NET = 0.0004 + 0.3 * MARKET - 0.2 * SIZE + 0.003 * RNG.normal(size=len(SESSIONS))
DAYS = pl.DataFrame({"date": SESSIONS, "net_return": NET})


def reference(folder: Path, rows: int = len(SESSIONS), **columns: object) -> ReferenceForm:
    path = folder / "factors.csv"
    table = pl.DataFrame({"date": SESSIONS, "Mkt_RF": MARKET, "SMB": SIZE, "rf": np.full(len(SESSIONS), 1e-4)})
    table.head(rows).write_csv(path)
    return ReferenceForm(file=path, **columns)


def test_the_factor_model_is_that_of_least_squares(tmp_path: Path) -> None:
    form = reference(tmp_path, benchmark="mkt_rf", factors=["mkt_rf", "SMB"], risk_free="rf")
    found = against_reference(form, DAYS).figures
    assert found is not None
    assert found.factors is not None
    assert found.benchmark is not None
    fitted = sm.OLS(NET - 1e-4, sm.add_constant(np.column_stack([MARKET, SIZE]))).fit()
    assert list(found.factors.betas.values()) == pytest.approx(fitted.params[1:])
    assert found.factors.alpha == pytest.approx(252 * fitted.params[0])
    assert found.benchmark.beta == pytest.approx(np.polyfit(MARKET, NET, 1)[0])


def test_a_file_that_ends_early_gives_figures_of_what_it_covers(tmp_path: Path) -> None:
    found = against_reference(reference(tmp_path, 100, benchmark="mkt_rf"), DAYS).figures
    assert found is not None
    assert (found.first, found.last, found.sessions) == (SESSIONS[0], SESSIONS[99], 100)


def test_what_the_file_lacks_is_said_in_a_sentence(tmp_path: Path) -> None:
    assert (
        "is unknown; the file has: mkt_rf, smb, rf"
        in against_reference(reference(tmp_path, benchmark="spx"), DAYS).no_figures
    )
    assert (
        "covers 20 of the back-test's" in against_reference(reference(tmp_path, 20, benchmark="smb"), DAYS).no_figures
    )
    gone = ReferenceForm(file=tmp_path / "none.csv", benchmark="smb")
    assert "does not exist" in against_reference(gone, DAYS).no_figures


def test_a_reference_to_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="name a benchmark, factors or both"):
        ReferenceForm(file=Path("factors.csv"))
    with pytest.raises(ValidationError, match="belongs to factors"):
        ReferenceForm(file=Path("factors.csv"), benchmark="mkt", risk_free="rf")
