"""Where approved orders go, and the limits on them."""

from pydantic import Field, field_validator

from stockpicker_dagster.strategy_form.base import Form, check_name


class LimitsForm(Form):
    """Risk limits of the strategy; they may tighten the account's, never loosen them."""

    gross: float | None = Field(None, gt=0, le=10, description="Largest gross exposure, as a multiple of equity.")
    net: float | None = Field(None, ge=0, le=10, description="Largest absolute net exposure, as a multiple of equity.")
    position: float | None = Field(None, gt=0, le=1, description="Largest absolute weight of one position.")
    order_notional: float | None = Field(None, gt=0, description="Largest single order, in currency.")
    turnover: float | None = Field(
        None, gt=0, le=10, description="Largest amount traded at once, as a multiple of equity."
    )
    orders: int | None = Field(None, ge=1, description="Most orders in one proposal.")
    price_age_days: int | None = Field(
        None, ge=0, description="Most calendar days from the prices to the session traded in."
    )
    collar: float | None = Field(
        None, gt=0, le=1, description="Largest move of a price away from its reference, as a fraction."
    )
    buying_power: float | None = Field(
        None, gt=0, le=10, description="Largest gross value with a reserve on new shorts, as a multiple of equity."
    )
    volume_share: float | None = Field(
        None, gt=0, le=1, description="Largest opening, as a fraction of the name's mean daily volume."
    )
    daily_loss: float | None = Field(
        None, gt=0, le=1, description="Loss within a session after which nothing more is opened, as a fraction."
    )
    orders_per_minute: int | None = Field(None, ge=1, description="Most orders sent within a minute.")
    restricted: tuple[str, ...] | None = Field(None, description="Symbols in which nothing may be opened.")


class TradingForm(Form):
    """Where approved orders go."""

    account: str = Field("paper", description="The trading account; a paper account is made on first use.")
    limits: LimitsForm = Field(default_factory=LimitsForm, description="Limits tighter than the account's.")

    @field_validator("account")
    @classmethod
    def _name_fits(cls, value: str) -> str:
        check_name(value, "an account")
        return value
