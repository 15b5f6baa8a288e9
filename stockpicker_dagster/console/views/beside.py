"""Work that takes seconds, done beside the pages: whoever asks first is told that it is being made.

Made once for every state of what it is made from, and remembered until that changes.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Beside(Generic[Made]):
    """What is under way and what is made, by name; of each name the newest, of all names the last `most` asked for."""

    def __init__(self, worker: ThreadPoolExecutor, most: int = 32) -> None:
        self._worker = worker
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[Hashable, Future[Made]]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: Hashable, state: Hashable, make: Callable[[], Made]) -> Made | None:
        """What `make` returns for this state of its sources; None while it is being made. Raises what `make` raised."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept[0] != state:
                if kept is not None:
                    # Nobody will ask for it any more.
                    kept[1].cancel()
                kept = state, self._worker.submit(make)
                self._kept[name] = kept
            self._kept.move_to_end(name)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)[1][1].cancel()
        future = kept[1]
        return future.result() if future.done() else None


def one_worker() -> ThreadPoolExecutor:
    """One at a time: what is made beside the pages uses every core by itself."""
    return ThreadPoolExecutor(1, "beside")
