"""What is computed from prices, and how it is made comparable across the stocks of one date."""

from typing import Literal

from pydantic import Field, PrivateAttr, field_validator

from stockpicker_dagster.compute import Place
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features.declaration import FeatureSet, feature_set
from stockpicker_dagster.strategy_form.base import Form, Misfit
from stockpicker_dagster.strategy_form.feature_module import FeatureModule, feature_module


class FeaturesForm(Form):
    """What is computed from prices."""

    set: str = Field(
        "factors",
        description="A feature set by name: `alpha158`, qlib's; `factors`, the academic price-and-volume factors; "
        "`multi_factor`, with figures of companies.",
    )
    module: str | None = Field(
        None,
        description="In the place of a set: a Python module of one's own, which lies in `features/` of the state "
        "folder or can be imported. It is code: its author is trusted.",
    )
    names: list[str] | None = Field(
        None, description="Only these features of the set; all of them by default.", min_length=1
    )
    fundamentals: Literal["edgar"] | None = Field(
        None,
        description="For a set that needs figures of companies, such as `multi_factor`: `edgar`, what they reported to "
        "the SEC of the United States.",
    )
    compute: Place = Field(
        "local",
        description="Where features and scaling are computed: `local`, in this process; `spark`, on a cluster; or "
        "`processing`, in jobs of SageMaker's (not on AWS: of this machine). It changes nothing of them. A set that "
        "several strategies share runs on Spark, or else in jobs, if one of them asks for it.",
    )

    # Kept from when the form was validated: what is computed and what it is stored as are of one version of the module.
    _own: FeatureModule | None = PrivateAttr(None)

    @property
    def name(self) -> str:
        """The name of the set, which is that of the module where there is one."""
        return self.module or self.set

    @property
    def code(self) -> str | None:
        """A digest of the module's sources; None for a set that ships."""
        return self._own.code if self._own else None

    @property
    def own_modules(self) -> tuple[str, ...]:
        """The name under which the module was imported, which other machines do not know; none for a set that ships."""
        return (self._own.module,) if self._own else ()

    def declared(self) -> FeatureSet:
        """The whole set, as it is declared."""
        return self._own.features if self._own else feature_set(self.set)

    def _agree(self) -> None:
        if self.module is not None and "set" in self.model_fields_set:
            raise Misfit(f"features are a set or a module, and set {self.set!r} and module {self.module!r} were given")
        try:
            self._own = feature_module(self.module) if self.module else None
            declared = self.declared()
        except InvalidInput as error:
            raise Misfit(str(error), "module" if self.module else "set") from error
        try:
            declared.select(self.names or [])
        except InvalidInput as error:
            raise Misfit(str(error), "names") from error
        if declared.fundamentals and self.fundamentals is None:
            raise Misfit(
                f"set {self.set!r} needs figures of companies, and fundamentals is missing; add `fundamentals: edgar`",
                "set",
            )
        if not declared.fundamentals and self.fundamentals is not None:
            raise Misfit(
                f"fundamentals {self.fundamentals!r} is of no use to set {self.name!r}, which is made of prices alone; "
                "leave it out",
                "fundamentals",
            )


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
    neutralize: list[Literal["sector", "size", "beta"]] | None = Field(
        None,
        description="Per date, before scaling: what is taken out of every feature by regression. `sector`: that of the "
        "universe's list; `size`: ln of mean dollar volume over 63 sessions, as prices do not tell market values; "
        "`beta`: of 252 daily returns on the mean of the day's members.",
        min_length=1,
    )

    @field_validator("neutralize")
    @classmethod
    def _each_once(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"neutralize {value} names one thing twice; name each once")
        return value

    @property
    def quantiles(self) -> tuple[float, float] | None:
        """Both quantiles at which tails are clipped."""
        return None if self.winsorize is None else (self.winsorize, 1 - self.winsorize)

    @property
    def by_sector(self) -> bool:
        """Whether features say nothing about sectors."""
        return "sector" in (self.neutralize or ())

    @property
    def by_numbers(self) -> tuple[str, ...]:
        """Of `size` and `beta`, what features say nothing about; either is computed from prices."""
        return tuple(name for name in ("size", "beta") if name in (self.neutralize or ()))
