"""The sections: whatever cannot be shown is told, and later days move nothing that was drawn before."""

import polars as pl

from stockpicker_dagster.evaluation.judgement import Judgement
from stockpicker_dagster.tear_sheet.sections import sections
from stockpicker_dagster_tests.tear_sheet.invented import SESSIONS, invented_days, invented_sheet

NO_VERDICT = Judgement(None, "30 sessions are too few to be judged; 42 are needed")


def _told(**changes: object) -> str:
    return " ".join(sentence for section in sections(invented_sheet(**changes)) for sentence in section.missing)


def test_later_days_change_no_line_that_was_drawn_before() -> None:
    days = invented_days()
    early, late = (
        {plot.name: plot for section in sections(invented_sheet(part)) for plot in section.plots}
        for part in (days.head(560), days)
    )
    for name in ("equity_net", "equity_gross", "drawdown", "rolling_sharpe", "exposures", "costs"):
        for before, after in zip(early[name].data, late[name].data, strict=True):
            assert before["y"] == after["y"][:560], name


def test_a_short_back_test_says_what_it_is_too_short_for() -> None:
    told = _told(days=invented_days(), judgement=NO_VERDICT, signal=None)
    assert "30 sessions are too few to be judged" in told
    assert "no return that followed a score is known" in told
    short = invented_sheet(invented_days(sessions=SESSIONS[:60]))
    assert "60 sessions are fewer than two quarters" in " ".join(sections(short)[0].missing)


def test_a_book_that_never_traded_has_a_page_and_nothing_to_compare() -> None:
    never = invented_days().with_columns(
        pl.lit(0.0).alias(name)
        for name in ("net_return", "gross_return", "commission", "spread", "borrow", "turnover", "gross_exposure")
    )
    judgement = Judgement(None, "the book never traded, so that there is nothing to judge")
    shown = sections(invented_sheet(invented_days(), judgement=judgement, days=never))
    told = " ".join(sentence for section in shown for sentence in section.missing)
    assert "never traded" in told
    assert "No costs" in told


def test_a_daily_book_has_no_spread_over_offsets_and_says_so() -> None:
    days = invented_days().with_columns(
        pl.col("offset_net_returns", "offset_gross_returns").list.gather([4]), pl.lit("x").alias("_")
    )
    told = " ".join(
        s for section in sections(invented_sheet(days.drop("_"), rebalance="daily")) for s in section.missing
    )
    assert "decided every day has only one" in told
