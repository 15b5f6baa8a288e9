"""What is made beside the pages is made once for a state of its sources, and its mistakes reach whoever asks."""

import threading

import pytest

from stockpicker_dagster.console.views.beside import Beside, one_worker


def _wait(beside: Beside[int], name: str, state: int, make) -> int:
    while (made := beside.get(name, state, make)) is None:
        threading.Event().wait(0.005)
    return made


def test_it_is_made_once_for_a_state_and_again_for_another() -> None:
    beside: Beside[int] = Beside(one_worker())
    calls: list[int] = []

    def make() -> int:
        calls.append(1)
        return len(calls)

    assert [_wait(beside, "a", 1, make) for _ in range(3)] == [1, 1, 1]
    assert _wait(beside, "a", 2, make) == 2
    assert _wait(beside, "b", 2, make) == 3


def test_nobody_waits_while_it_is_made() -> None:
    beside: Beside[int] = Beside(one_worker())
    go = threading.Event()

    def make() -> int:
        go.wait(10)
        return 7

    assert beside.get("a", 1, make) is None
    go.set()
    assert _wait(beside, "a", 1, make) == 7


def test_what_making_raises_reaches_whoever_asks() -> None:
    def fail() -> int:
        raise ValueError("as it should")

    beside: Beside[int] = Beside(one_worker())
    with pytest.raises(ValueError, match="as it should"):
        _wait(beside, "a", 1, fail)


def test_only_the_last_ones_asked_for_are_kept() -> None:
    beside: Beside[int] = Beside(one_worker(), most=2)
    calls: list[str] = []

    def make(name: str):
        def made() -> int:
            calls.append(name)
            return 1

        return made

    for name in ("a", "b", "c", "b", "a"):
        _wait(beside, name, 1, make(name))
    assert calls == ["a", "b", "c", "a"]
