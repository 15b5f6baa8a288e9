"""What a user's YAML turns into: the strategy component, and the assets, checks, jobs and schedules that it makes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpicker_dagster.components.strategy import StockPickerStrategy

__all__ = ["StockPickerStrategy"]


def __getattr__(name: str) -> Any:
    """Loads the component only when asked for, so that the form can be used without Dagster."""
    if name in __all__:
        from stockpicker_dagster.components.strategy import StockPickerStrategy

        return StockPickerStrategy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """`dg` finds the component among these names."""
    return [*globals(), *__all__]
