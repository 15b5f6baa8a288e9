"""What a job on a platform writes to its log, passed on to Dagster's, not more of it than Dagster should keep."""

import dagster as dg

_MOST_LINES = 200


class JobLog:
    """Takes a job's lines one by one; each that is passed on is an event that Dagster keeps for ever."""

    def __init__(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, name: str, most: int = _MOST_LINES):
        self._context, self._name, self._most = context, name, most
        self._heard = 0

    def __call__(self, line: str) -> None:
        self._heard += 1
        if self._heard <= self._most and line.strip():
            self._context.log.info("%s: %s", self._name, line.rstrip())
        if self._heard == self._most:
            self._context.log.info("%s: what it writes further on is in the job's own log alone", self._name)
