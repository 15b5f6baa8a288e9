"""What is computed from prices, and how it is made comparable across the stocks of one date."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from stockpicker_dagster.research.features.declaration import feature_set
from stockpicker_dagster.strategy_form.base import Form


class FeaturesForm(Form):
    """What is computed from prices."""

    set: str = Field(
        "factors", description="A feature set by name; `factors` are the academic price-and-volume factors."
    )
    names: list[str] | None = Field(
        None, description="Only these features of the set; all of them by default.", min_length=1
    )

    @field_validator("set")
    @classmethod
    def _set_is_known(cls, value: str) -> str:
        feature_set(value)
        return value

    @field_validator("names")
    @classmethod
    def _names_are_known(cls, value: list[str] | None, others: ValidationInfo) -> list[str] | None:
        if value is not None and "set" in others.data:
            feature_set(others.data["set"]).select(value)
        return value


class ScalingForm(Form):
    """How features are made comparable across the stocks of one date."""

    method: Literal["standard", "minmax", "rank", "robust"] = Field(
        "standard", description="The scaler, fitted on each date alone."
    )
    imputation: Literal["median", "neutral"] = Field(
        "median", description="What a missing value becomes: the date's median, or the scaler's neutral value."
    )
    winsorize: float | None = Field(
        None, gt=0, lt=0.5, description="Per date: quantile at which both tails are clipped first."
    )

    @property
    def quantiles(self) -> tuple[float, float] | None:
        """Both quantiles at which tails are clipped."""
        return None if self.winsorize is None else (self.winsorize, 1 - self.winsorize)
