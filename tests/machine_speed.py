"""How quick this machine is, so that a test's patience and budgets are the machine's and not the author's.

A deadline only bounds how long a test that will fail goes on; a test that passes never waits for it. So it may be
generous, and a machine of a third of the speed gets three times as long.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUICK_SECONDS = 0.009  # `_fixed_work` on the machine the deadlines were written on
BUSY_FACTOR = 3.0  # one worker a core, and the programs that the tests start beside them
ROUNDS = 3


def _fixed_work() -> int:
    """Of the kind that reading mail is: text is split, joined, counted."""
    words = 0
    for number in range(2_500):
        line = f"{number} the quick brown fox jumps over the lazy dog " * 4
        words += len({word.strip().lower() for word in line.split(" ")})
    return words


def reference_seconds() -> float:
    """What the fixed work costs this machine now."""
    return min(cpu_seconds(_fixed_work) for _ in range(ROUNDS))


def cpu_seconds(work: Callable[[], object]) -> float:
    """The processor time of this process that `work` took, however busy the machine is."""
    before = time.process_time()
    work()
    return time.process_time() - before


@functools.cache
def slowness() -> float:
    """1.0 on the quick machine, 3.0 on one that takes three times as long. TINYFAT_TEST_SLOWNESS sets it by hand."""
    if given := os.environ.get("TINYFAT_TEST_SLOWNESS"):
        return float(given)
    return max(1.0, reference_seconds() / QUICK_SECONDS)


def patient(seconds: float) -> float:
    """A deadline in seconds for this machine."""
    return seconds * slowness() * BUSY_FACTOR


@contextmanager
def at_most(times: float, reference: float | None = None) -> Iterator[None]:
    """Fails if what is done within costs more processor time than so often the fixed work: `reference` seconds, or
    what it costs now."""
    reference = reference or reference_seconds()
    before = time.process_time()
    yield
    times_taken = (time.process_time() - before) / reference
    assert times_taken < times


def times_reference(work: Callable[[], object]) -> float:
    """What `work` costs in units of fixed work measured beside it: the same number on a quick and on a slow machine."""
    reference = reference_seconds()
    return cpu_seconds(work) / reference
