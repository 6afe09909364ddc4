"""A little of everything in one run: the control plane killed three times, the box, the runtime and the database once.

`make faults` and `make faults-long` do it at length (python -m tests.faults).
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.rig import Machine, Rig
from tests.faults.scenarios import break_database, kill_box, kill_runtime
from tinyfat.flows.delivery import AT_ONCE_MAX

pytestmark = [pytest.mark.story, pytest.mark.slow]

CONTROL_KILLS = 3


async def test_nothing_is_lost_or_answered_twice_whatever_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(1, 10**6)
    print(f"seed {seed}")
    async with Rig("quick", tmp_path, seed, slow=0.5, pace=0.4) as rig:
        agents = ["ada", "bob"]
        plane = await rig.up("home", agents)
        async with rig.load(agents * 2):
            await kill_runtime(rig, Machine(plane, "ada"))
            await kill_box(rig, Machine(plane, "bob"))
            await break_database(rig, plane, rig.chance.randrange(4))
            for _ in range(CONTROL_KILLS):
                await rig.pause(0.2, 1.0)
                await plane.kill()
                await plane.start()
        await rig.collect(plane, agents)
    verdict = rig.verdict(repeats_max=AT_ONCE_MAX * (CONTROL_KILLS + 1))
    assert verdict.complaints == []
    assert verdict.mails > 10
