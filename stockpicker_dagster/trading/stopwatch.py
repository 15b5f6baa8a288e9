"""How much time has passed, by whichever of the machine's clocks says most.

A stopped process, a suspended machine and a clock that is set do not stop the same clocks: whoever asks whether a
moment ago is still a moment ago has to look at all of them.
"""

import time
from collections.abc import Callable


def _clocks() -> tuple[Callable[[], float], ...]:
    since_boot = getattr(time, "CLOCK_BOOTTIME", None)
    boot = () if since_boot is None else (lambda: time.clock_gettime(since_boot),)
    return (time.monotonic, time.time, *boot)


CLOCKS = _clocks()
"""Seconds; the first does not run while the machine is suspended, the second can be set."""


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._began = tuple(clock() for clock in CLOCKS)

    def seconds(self) -> float:
        """What has passed since; a clock that was set back is not believed."""
        return max(clock() - began for clock, began in zip(CLOCKS, self._began, strict=True))
