"""A failure that lasts is told less and less often, and its changes at once."""

from __future__ import annotations

from itertools import pairwise

from tinyfat.domain.repeated import PAUSE_SECONDS_MAX, Repeated


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_day_of_one_failure_a_second_is_a_few_lines() -> None:
    clock = _Clock()
    repeated, told = Repeated(clock), []
    for second in range(24 * 3600):
        clock.now = float(second)
        if times := repeated.failed("m", f"no space left for process {second}"):
            told.append((second, times))
    assert told[:4] == [(0, 1), (10, 11), (30, 31), (70, 71)]
    assert len(told) < 40
    assert max(later[0] - earlier[0] for earlier, later in pairwise(told)) <= PAUSE_SECONDS_MAX


def test_another_failure_is_told_at_once_and_another_subject_is_another() -> None:
    repeated = Repeated(_Clock())
    assert repeated.failed("m", "no space") == 1
    assert repeated.failed("m", "no space") == 0
    assert repeated.failed("m", "no memory") == 3
    assert repeated.failed("n", "no memory") == 1


def test_what_ended_begins_anew() -> None:
    repeated = Repeated(_Clock())
    repeated.failed("m", "x")
    repeated.failed("m", "x")
    assert repeated.ended("m") == 2 and repeated.ended("m") == 0
    assert repeated.failed("m", "x") == 1


def test_who_is_gone_is_forgotten() -> None:
    repeated = Repeated(_Clock())
    repeated.failed("m", "x")
    repeated.failed("n", "x")
    repeated.only(["n"])
    assert repeated.ended("m") == 0 and repeated.ended("n") == 1
