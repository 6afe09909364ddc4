"""Ids of calls (RFC 9562, 5.7)."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from tinyfat.relay.call_ids import RANDOM_BYTES, CallIds


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES), st.integers(0, 2**48 - 1))
def test_an_id_is_a_uuid_of_version_7_that_begins_with_its_time(random: bytes, milliseconds: int) -> None:
    found = uuid.UUID(CallIds(random, lambda: (milliseconds + 0.5) / 1000)())
    assert found.version == 7 and found.variant == uuid.RFC_4122
    assert found.int >> 80 == milliseconds


def test_no_two_are_the_same_though_the_clock_stands_or_goes_back() -> None:
    times = iter([5.0] * 1000 + [4.0] * 1000 + [5.0] * 1000)
    ids = CallIds(b"\xff" * RANDOM_BYTES, lambda: next(times))
    assert len({ids() for _ in range(3000)}) == 3000


def test_later_ones_are_greater() -> None:
    times = iter(range(100))
    ids = CallIds(bytes(RANDOM_BYTES), lambda: next(times))
    found = [ids() for _ in range(100)]
    assert found == sorted(found)
