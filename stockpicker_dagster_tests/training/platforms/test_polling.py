"""Many things waited for by one thread: in turn, a few at a time, and every one of them hears of an interruption."""

import asyncio

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import polling
from stockpicker_dagster.training.platforms.polling import Waiting, awaited, wait_for, wait_for_all


class _Time:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.pauses = 0.0, 0
        monkeypatch.setattr(polling, "clock", lambda: self.now)
        monkeypatch.setattr(polling, "pause", self.pause)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> _Time:
    return _Time(monkeypatch)


def _takes(looks: int, seconds: float, said: list[str], name: str = "", fails: bool = False) -> Waiting[str]:
    try:
        said.append(f"{name} begins")
        for _ in range(looks):
            yield seconds
        if fails:
            raise InvalidInput(f"{name} fails")
        return name
    except BaseException as error:
        said.append(f"{name} hears {type(error).__name__}")
        raise


def test_a_hundred_are_waited_for_in_the_time_of_one(time: _Time) -> None:
    works = {str(number): _takes(10, 60, [], str(number)) for number in range(100)}
    assert wait_for_all(works, at_once=100) == {str(number): str(number) for number in range(100)}
    assert time.now == 600


def test_no_more_than_asked_for_are_begun_at_a_time(time: _Time) -> None:
    said: list[str] = []
    wait_for_all({name: _takes(1, 10, said, name) for name in "abcd"}, at_once=2)
    assert time.now == 20
    assert wait_for(_takes(3, 5, said, "one")) == "one"
    assert time.now == 35


def test_after_a_failure_what_runs_is_waited_for_and_nothing_more_is_begun(time: _Time) -> None:
    said: list[str] = []
    works = {"a": _takes(1, 1, said, "a", fails=True), "b": _takes(5, 10, said, "b"), "c": _takes(1, 1, said, "c")}
    with pytest.raises(InvalidInput, match="a fails"):
        wait_for_all(works, at_once=2)
    assert said == ["a begins", "b begins", "a hears InvalidInput"]
    assert time.now >= 50


def test_an_interruption_is_heard_by_all_that_run(time: _Time, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(polling, "pause", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wait_for_all({name: _takes(3, 60, said, name) for name in "abc"}, at_once=2)
    assert said == ["a begins", "b begins", "a hears KeyboardInterrupt", "b hears KeyboardInterrupt"]


def test_coroutines_wait_side_by_side_and_a_cancelled_one_stops_what_it_started() -> None:
    said: list[str] = []

    async def main() -> list[str]:
        lasting = asyncio.create_task(awaited(_takes(1000, 30, said, "lasting")))
        done = await asyncio.gather(*(awaited(_takes(3, 0.001, said, name)) for name in "ab"))
        lasting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lasting
        return list(done)

    assert asyncio.run(main()) == ["a", "b"]
    assert "lasting hears CancelledError" in said
