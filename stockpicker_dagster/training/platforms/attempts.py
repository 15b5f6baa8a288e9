"""From a piece of work to its outcome: one job is started, found again, followed, tried again, and collected.

Nothing is remembered here: a job's name says what it does, so that a step which was killed and starts again follows
the job that it began instead of paying for a second one. Jobs that failed or were stopped are tried again under
another name.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.platforms import Answer, Jobs, PlatformFailure, polling
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.errors import already_exists, is_denied, is_missing, is_passing, refusals
from stockpicker_dagster.training.platforms.jobs import ENDED, JobKind
from stockpicker_dagster.training.platforms.polling import Waiting

_log = logging.getLogger(__name__)
_ATTEMPTS = 99
_LOST = 2
"""So often a job is started again that failed for no fault of its own."""
_LOOKS = 5
"""So often a job that was just created is looked for."""
_OUTAGE_SECONDS = 600.0
"""So long a job is left running that cannot be looked at, because the service does not answer."""

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Work(Generic[T]):
    """What is to be done by one job, under whichever attempt's name, the first being 1."""

    kind: JobKind
    name: Callable[[int], str]
    request: Callable[[int], dict[str, Any]]
    """The arguments of its creation; called only when there is no such job."""
    collect: Callable[[Answer], T]
    """What a completed job left. Raises `PlatformFailure` where that cannot be used: then it is done again."""
    max_seconds: float | None = None
    """So long one attempt may take, where the service itself sets no limit; it is then stopped."""
    more_time: str = "allow more"
    """What a person can do about a job that needs more time."""
    memory: Memory | None = None
    """How far earlier attempts have come; None: they are asked about one by one, and there may be 99 of them."""


def outcome(
    platform: Jobs, work: Work[T], heard: Callable[[str], None] = lambda line: None, say: Say = _log.info
) -> Waiting[tuple[T, Answer]]:
    """What `work` leaves, and the described job that did it; `heard` is given every line of the job's log.

    A job that runs already is followed, and one that is completed is collected. Whatever interrupts the wait, such as a
    cancelled run, stops the job. Raises `PlatformFailure`, in the container's words, if the job fails.
    """
    kind, lost, attempt = work.kind, 0, 0
    for _ in range(_ATTEMPTS):
        attempt += 1
        if attempt == 2 and work.memory is not None:
            attempt = max(attempt, work.memory.last())
        name = work.name(attempt)
        described, own = yield from _find_or_start(platform, work, attempt, say)
        try:
            # Whatever interrupts this, too, must not leave the job running.
            if attempt > 1 and own and work.memory is not None:
                work.memory.keep(attempt)
            described = yield from _follow(platform, work, name, described, heard)
        except BaseException:
            stop(platform, kind, name)
            raise
        status = described[kind.status_key]
        reason = ": ".join(filter(None, (described.get("FailureReason"), described.get("ExitMessage"))))
        if status == "Completed":
            try:
                return work.collect(described), described
            except PlatformFailure as error:
                lost += own
                if lost > _LOST:
                    raise
                say(f"what job {name} left cannot be used ({error}); it is done again")
                continue
        if described.get("SecondaryStatus") == "MaxRuntimeExceeded" and own:
            raise PlatformFailure(f"the {kind.name} {name} was ended after the most it may take; {work.more_time}")
        if status == "Stopped" and own:
            lost += 1
            if lost > _LOST:
                raise PlatformFailure(
                    f"the {kind.name} {name} was stopped, as were those before it; somebody stops them"
                )
        if status == "Failed" and own:
            lost += 1
            # Only what the platform did is worth a second try at once: an error of the container comes back.
            if not reason.startswith(("InternalServerError", "CapacityError")) or lost > _LOST:
                raise PlatformFailure(f"the {kind.name} {name} failed: {reason or 'no reason was given'}")
        say(f"job {name} ended as {status}{': ' if reason else ''}{reason}; another is started")
    raise PlatformFailure(
        f"{_ATTEMPTS} attempts at {work.name(1)} failed; remove what is left of them and run it again"
    )


def stop(platform: Jobs, kind: JobKind, name: str) -> None:
    """Asks a job to stop, a few times if it has to be; one that cannot be stopped is warned of."""
    for look in range(1, _LOOKS + 1):
        try:
            kind.stop(platform, name)
            return
        except (ClientError, BotoCoreError) as error:
            # The tag that the right rests on is not seen everywhere at once.
            if look == _LOOKS or not (is_denied(error) or is_passing(error)):
                _log.warning("the job %s could not be stopped: %s", name, error)
                return
        polling.pause(platform.poll_seconds / 5)


def _find_or_start(platform: Jobs, work: Work[T], attempt: int, say: Say) -> Waiting[tuple[Answer, bool]]:
    """The job of that attempt as described, and whether it was started or has yet to end while we look."""
    kind, name = work.kind, work.name(attempt)
    described = yield from _described(platform, kind, name)
    if described is not None:
        runs = described[kind.status_key] not in ENDED
        if runs:
            say(f"job {name} is running already and is followed")
        return described, runs
    request = work.request(attempt)
    try:
        with refusals(platform, f"the {kind.name} job {name} was to be started"):
            try:
                kind.create(platform, request)
            except (ClientError, BotoCoreError) as error:
                # Another step was quicker by a moment, or an answer was lost: if there is a job, it is followed.
                if not already_exists(error) and not is_passing(error):
                    raise
                described = yield from _described(platform, kind, name)
                if described is None and not already_exists(error):
                    raise
        for _ in range(_LOOKS):
            described = described or (yield from _described(platform, kind, name))
            if described is not None:
                return described, True
            # What was just created is not seen everywhere at once.
            yield platform.poll_seconds
        raise PlatformFailure(f"the job {name} is there and cannot be described; run it again")
    except BaseException as error:
        # It may run although nobody was told so; what was refused does not.
        refused = error.__cause__.__cause__ if isinstance(error, PlatformFailure) and error.__cause__ else error
        if not isinstance(refused, ClientError) or is_passing(refused):
            stop(platform, kind, name)
        raise


def _described(platform: Jobs, kind: JobKind, name: str) -> Waiting[Answer | None]:
    """The job as it is now, None if there is none; a service that does not answer is asked again for a while."""
    until, wait = polling.clock() + _OUTAGE_SECONDS, platform.poll_seconds
    while True:
        with refusals(platform, f"the {kind.name} job {name} was looked at"):
            try:
                return kind.describe(platform, name)
            except (ClientError, BotoCoreError) as error:
                if is_missing(error):
                    return None
                if not is_passing(error) or polling.clock() > until:
                    raise
        yield wait
        wait = min(platform.longest_poll_seconds, wait * 2)


def _follow(
    platform: Jobs, work: Work[T], name: str, described: Answer, heard: Callable[[str], None]
) -> Waiting[Answer]:
    """Waits for the end of a job, passing on its log; the job as described at last."""
    kind, began = work.kind, polling.clock()
    position: str | None = None
    wait = platform.poll_seconds
    while True:
        ended = described[kind.status_key] in ENDED
        lines: list[str] = []
        try:
            lines, position = platform.read_log(name, position, kind.name)
        except StockPickerError as error:
            # The job goes on without its log being read.
            _log.warning("%s", error)
        for line in lines:
            heard(line)
        if ended and not lines:
            return described
        if not ended:
            if work.max_seconds is not None and polling.clock() - began > work.max_seconds:
                raise PlatformFailure(
                    f"the {kind.name} {name} has not ended after {work.max_seconds:g} s, and is stopped; "
                    f"{work.more_time}"
                )
            yield wait
            wait = min(platform.longest_poll_seconds, wait * 1.2)
            again = yield from _described(platform, kind, name)
            if again is None:
                raise PlatformFailure(f"the {kind.name} job {name} was there and is no longer; run it again")
            described = again
