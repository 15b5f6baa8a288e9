"""What the back-test's returns are held against: a benchmark or known factors, from the user's own file.

No stored day depends on it, so it belongs to no definition and may change at any time. Reading the file is
`market.reference_returns`.
"""

from pathlib import Path

from pydantic import Field

from stockpicker_dagster.strategy_form.base import Form, Misfit, under_home


class ReferenceForm(Form):
    """Returns that the back-test is held against, from a file of one row a session and one column each."""

    file: Path = Field(
        description="A CSV file with a column `date` (2024-03-08 or 20240308) and daily returns as fractions, 0.01 for "
        "one per cent, such as French's factors; a relative path starts at the state folder."
    )
    benchmark: str | None = Field(None, description="The column of one benchmark: beta, alpha, tracking error.")
    factors: list[str] = Field(
        default_factory=list, max_length=20, description="Columns of factors that are regressed on together."
    )
    risk_free: str | None = Field(
        None,
        description="The column that is subtracted from the book's return before the regression on factors; only for a "
        "book without shorts, because a long-short book finances itself.",
    )

    @property
    def path(self) -> Path:
        """Where the file is."""
        return under_home(self.file)

    @property
    def columns(self) -> list[str]:
        """Every column that is asked for, once each, as `read_reference_returns` names them."""
        return list(
            dict.fromkeys(name.strip().casefold() for name in (self.benchmark, *self.factors, self.risk_free) if name)
        )

    def _agree(self) -> None:
        if self.benchmark is None and not self.factors:
            raise Misfit(f"a reference to {self.file} of no column; name a benchmark, factors or both", "file")
        if self.risk_free is not None and not self.factors:
            raise Misfit(
                f"risk_free {self.risk_free!r} belongs to factors, which are not given; leave it out", "risk_free"
            )
