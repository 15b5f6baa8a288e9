"""How far the attempts at one piece of work have come, kept beside what jobs write on a platform.

Names of jobs are used once, and work that is done again and again, such as the same day computed anew, uses up one each
time. Without a memory every start would ask the platform about all of them, one after the other.
"""

import logging
from dataclasses import dataclass

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.platforms import Platform, PlatformFailure

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """The memory of the work whose first attempt is named `work`; those before `last` have ended and are of no use."""

    platform: Platform
    work: str

    @property
    def _location(self) -> str:
        return f"{self.platform.output}/attempts/{self.work}"

    def last(self) -> int:
        """The last attempt that was begun, as far as is known; 1 where nothing is."""
        try:
            return max(1, int(self.platform.fetch(self._location)))
        except PlatformFailure:
            return 1  # nothing is kept
        except (StockPickerError, ValueError) as error:
            # Then they are asked about one by one.
            _log.warning("how often %s was tried cannot be read: %s", self.work, error)
            return 1

    def keep(self, attempt: int) -> None:
        """Remembers an attempt that was begun."""
        try:
            self.platform.store(self._location, f"{attempt}".encode())
        except StockPickerError as error:
            _log.warning("how often %s was tried cannot be kept: %s", self.work, error)
