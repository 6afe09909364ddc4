"""A pass goes over everything, each kind in bounded batches."""

from __future__ import annotations

from tinyfat.flows.retention import BATCHES_MAX, Retention
from tinyfat.ports.room import Kept


class _Rows:
    def __init__(self, **batches: int) -> None:
        self.left = {Kept(name): count for name, count in batches.items()}
        self.asked: list[tuple[Kept, int]] = []

    async def delete(self, kept: Kept, days: int) -> bool:
        self.asked.append((kept, days))
        self.left[kept] = self.left.get(kept, 0) - 1
        return self.left[kept] > 0


class _Flows:
    def __init__(self) -> None:
        self.asked: list[int] = []

    async def forget_finished(self, days: int) -> bool:
        self.asked.append(days)
        return len(self.asked) < 3


async def test_each_kind_until_nothing_is_left_and_what_is_for_ever_not_at_all() -> None:
    rows, flows = _Rows(logs=4), _Flows()
    await Retention(rows, flows, {Kept.BODIES: 365, Kept.LOGS: 30, Kept.AUDIT: 0}, 7).run()
    assert rows.asked == [(Kept.BODIES, 365), *[(Kept.LOGS, 30)] * 4]
    assert flows.asked == [7, 7, 7]


async def test_more_than_a_pass_does_waits_for_the_next_and_holds_up_nobody() -> None:
    rows = _Rows(quarantine=10 * BATCHES_MAX)
    await Retention(rows, _Flows(), {Kept.QUARANTINE: 30, Kept.LOGS: 30}, 7).run()
    assert rows.asked.count((Kept.QUARANTINE, 30)) == BATCHES_MAX
    assert rows.asked[-1] == (Kept.LOGS, 30)
