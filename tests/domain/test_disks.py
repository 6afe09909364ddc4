"""When a disk is low, full, and well again."""

from __future__ import annotations

import pytest

from tinyfat.domain.disks import DiskBounds, DiskState

BOUNDS = DiskBounds(floor=1000, alarm=5000)


@pytest.mark.parametrize(
    ("free", "before", "now"),
    [
        (6000, "ok", "ok"),
        (5000, "ok", "ok"),
        (4999, "ok", "low"),
        (5100, "low", "low"),
        (5500, "low", "ok"),
        (1000, "low", "low"),
        (999, "ok", "full"),
        (1100, "full", "full"),
        (1250, "full", "low"),
        (5200, "full", "low"),
        (9000, "full", "ok"),
        (0, "ok", "full"),
    ],
)
def test_a_bound_is_left_only_some_way_past_it(free: int, before: str, now: str) -> None:
    assert BOUNDS.state(free, DiskState(before)) == now


def test_a_disk_at_its_bound_does_not_change_its_mind_with_every_mail() -> None:
    state, changes = DiskState.OK, 0
    for number in range(1000):
        new = BOUNDS.state(995 + number % 10, state)
        changes += new is not state
        state = new
    assert changes == 1 and state is DiskState.FULL


def test_the_floor_is_left_free_by_the_mail_itself() -> None:
    assert BOUNDS.takes(3000, 1000) and not BOUNDS.takes(2999, 1000)


def test_without_bounds_nothing_is_low() -> None:
    assert DiskBounds(0, 0).state(0, DiskState.OK) is DiskState.OK
