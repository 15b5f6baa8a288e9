"""Waiting for many things with one thread: each waits as a generator that yields for how many seconds.

`wait_for_all` drives any number of them, so that a hundred jobs need no thread of their own and an interruption reaches
every one of them; `awaited` drives one from a coroutine. What is waited for, such as the end of a job, is the caller's.
"""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Generator, Mapping
from typing import TypeVar

from stockpicker_dagster.errors import StockPickerError

T = TypeVar("T")
Waiting = Generator[float, None, T]
"""Something that takes a while: it yields seconds to wait before it is looked at again, and returns what came of it."""


def pause(seconds: float) -> None:
    """Waits so long."""
    time.sleep(seconds)


def clock() -> float:
    """Seconds on a clock that only runs forward."""
    return time.monotonic()


def wait_for(work: Waiting[T]) -> T:
    """What comes of `work`, waited for in this thread."""
    return wait_for_all({"": work})[""]


def wait_for_all(works: Mapping[str, Waiting[T]], at_once: int = 1) -> dict[str, T]:
    """What comes of all `works`, up to `at_once` of them at a time, in the order given.

    If one raises a `StockPickerError`, those that have begun are waited for, no further one is begun, and the first
    error is raised. Anything else, such as a cancelled run, is raised inside every one that has begun, so that each
    can stop what it started, and then here.
    """
    waiting, done, failure = deque(works.items()), dict[str, T](), list[StockPickerError]()
    due: list[tuple[float, int, str, Waiting[T]]] = []
    turn = 0
    try:
        while due or (waiting and not failure):
            while waiting and len(due) < at_once and not failure:
                name, work = waiting.popleft()
                heapq.heappush(due, (clock(), turn := turn + 1, name, work))
            moment, _, name, work = due[0]
            if (early := moment - clock()) > 0:
                pause(early)
            try:
                wait = next(work)
            except StopIteration as ended:
                done[name] = ended.value
            except StockPickerError as error:
                failure.append(error)
            else:
                heapq.heapreplace(due, (clock() + wait, turn := turn + 1, name, work))
                continue
            heapq.heappop(due)
    except BaseException as error:
        for _, _, _, work in due:
            _interrupt(work, error)
        raise
    if failure:
        raise failure[0]
    return {name: done[name] for name in works}


async def awaited(work: Waiting[T]) -> T:
    """What comes of `work`, waited for without holding up the event loop; a cancelled task stops what it started."""
    while True:
        step = asyncio.ensure_future(asyncio.to_thread(_step, work))
        try:
            wait, ended, value = await asyncio.shield(step)
            if ended:
                return value  # type: ignore[return-value]
            await asyncio.sleep(wait)
        except BaseException as error:
            # A look that is under way is not interrupted in its middle: what it started would not be known.
            await asyncio.wait([step])
            await asyncio.to_thread(_interrupt, work, error)
            raise


def _step(work: Waiting[T]) -> tuple[float, bool, T | None]:
    try:
        return next(work), False, None
    except StopIteration as ended:
        return 0.0, True, ended.value


def _interrupt(work: Waiting[T], error: BaseException) -> None:
    """Raises `error` inside `work`, where it waits; what it raises in turn is the same, or is of no more use."""
    try:
        work.throw(error)
    except BaseException:  # noqa: S110 - the first error is the one that is raised
        pass
    finally:
        work.close()
