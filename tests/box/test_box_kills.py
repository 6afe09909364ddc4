"""The box and its runtime killed at random moments while turns arrive: none lost, none run or answered twice, in order.

TINYFAT_BOX_KILLS and TINYFAT_SEED make it longer and repeatable.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter

from tests.box.boxes import Box
from tests.box.plane import Plane, ran, turn
from tests.machine_speed import patient
from tinyfat.domain.turns import TurnOutcome

KILLS = int(os.environ.get("TINYFAT_BOX_KILLS", "8"))
SEED = int(os.environ.get("TINYFAT_SEED", "0")) or random.randrange(1, 10**6)
SESSIONS = 4


async def offer_what_is_open(plane: Plane, offered: list[str]) -> None:
    for one in offered:
        if not plane.results(one):
            session = f"s{int(one[1:]) % SESSIONS}"
            await plane.offer(turn(one, f"echo: sleep {(int(one[1:]) % 3) / 20}\nhello", session, 120.0))


async def arrivals(plane: Plane, chance: random.Random, offered: list[str], done: asyncio.Event) -> None:
    """A turn every now and then, of one session or another; every one is offered again until its result is here."""
    while not done.is_set():
        offered.append(f"t{len(offered)}")
        await offer_what_is_open(plane, offered)
        await asyncio.sleep(chance.uniform(0.02, 0.15))
    async with asyncio.timeout(patient(60)):
        while not all(plane.results(one) for one in offered):
            await offer_what_is_open(plane, offered)
            await asyncio.sleep(0.5)


async def kill_something(box: Box, chance: random.Random) -> None:
    match chance.choice(["box", "runtime", "both"]):
        case "box":
            await box.kill()
            await box.start()
        case "runtime":
            if pid := box.runtime_pid():
                os.kill(pid, signal.SIGKILL)
        case "both":
            pid = box.runtime_pid()
            await box.kill()
            if pid in [one.pid for one in box.running()]:
                os.kill(pid, signal.SIGKILL)
            await box.start()


async def test_killed_at_random(box: Box, plane: Plane) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    offered: list[str] = []
    done = asyncio.Event()
    await box.start()
    await plane.connected()
    arriving = asyncio.create_task(arrivals(plane, chance, offered, done))
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.05, 0.8))
        await kill_something(box, chance)
    done.set()
    await arriving
    assert {one: plane.results(one)[0].outcome for one in offered} == dict.fromkeys(offered, TurnOutcome.ANSWERED)
    assert {one: len({result.text for result in plane.results(one)}) for one in offered} == dict.fromkeys(offered, 1)
    received = ran(box.folder)
    assert Counter(received) == Counter(offered)
    for number in range(SESSIONS):
        assert in_session(received, number) == in_session(offered, number)
        assert in_session(ran(box.folder, "answered"), number) == in_session(offered, number)


def in_session(turn_ids: list[str], number: int) -> list[str]:
    return [one for one in turn_ids if int(one[1:]) % SESSIONS == number]
