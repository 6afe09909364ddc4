"""Two control planes on one database: one dies, or stands still, and the other finishes what it had begun."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.claims import Verdict
from tests.faults.rig import Rig
from tests.running import TinyFat, until
from tinyfat.engine.durable import HEARTBEAT_SECONDS, STALE_SECONDS
from tinyfat.flows.delivery import AT_ONCE_MAX
from tinyfat.store.embedded import EmbeddedPostgres

TURN_DEADLINE_SECONDS = 12  # a turn whose box cannot be reached becomes bad news after so long
BEFORE_SECONDS = 6.0
AFTER_SECONDS = 3.0  # mail for the dead one's agent goes on for so long
TAKEN_OVER_SECONDS = STALE_SECONDS + 2 * HEARTBEAT_SECONDS
AGENTS = ["ada", "bob"]


async def two(rig: Rig, count: int) -> Verdict:
    """Two control planes on one database; the second is killed and left dead until the first took over its flows.

    `ada`'s box calls the first, `bob`'s the second. Mail for ada is answered, whoever had accepted it. Mail for bob is
    answered while his control plane lives; after that his box is out of reach, and each gets bad news at its deadline,
    once. The first is killed too in the middle of the taking over. Then the second comes back.
    """
    async with _pair(rig) as (living, other):
        for _ in range(count):
            async with rig.load(AGENTS * 2):
                await asyncio.sleep(BEFORE_SECONDS)
                rig.senders_know.remove(other)
                await other.kill()
                rig.faults += 1
                await asyncio.sleep(AFTER_SECONDS)
            rig.say("the second is dead: its flows are taken over, bob's turns run into their deadline")
            await asyncio.sleep(TAKEN_OVER_SECONDS - AFTER_SECONDS)
            await living.kill()  # in the middle of the other's flows: now they must be its own
            rig.faults += 1
            await living.start()
            await rig.settled(living, AGENTS)
            await other.start()
            rig.senders_know.append(other)
            await _bob_is_back(rig)
        await rig.collect(living, AGENTS)
    return rig.verdict(repeats_max=AT_ONCE_MAX * count * 2, bad_news_for=["bob"])


async def frozen(rig: Rig, count: int) -> Verdict:
    """The second of two control planes stands still for longer than the dead are mourned, and then goes on.

    As a machine does that was suspended: it believes its flows and leases are still its own.
    """
    async with _pair(rig) as (living, other):
        for _ in range(count):
            async with rig.load(AGENTS * 2):
                await asyncio.sleep(BEFORE_SECONDS)
                rig.senders_know.remove(other)
                _signal(other, signal.SIGSTOP)
                rig.faults += 1
                try:
                    await asyncio.sleep(AFTER_SECONDS)
                    rig.say("the second stands still: its flows are taken over")
                    await asyncio.sleep(TAKEN_OVER_SECONDS)
                finally:
                    _signal(other, signal.SIGCONT)
                rig.senders_know.append(other)
            await _bob_is_back(rig)
        await rig.collect(living, AGENTS)
    return rig.verdict(repeats_max=AT_ONCE_MAX * count * 2, bad_news_for=["bob"])


@asynccontextmanager
async def _pair(rig: Rig) -> AsyncIterator[tuple[TinyFat, TinyFat]]:
    """Both end, in order, before their database does."""
    home = rig.folder / "database"
    home.mkdir()
    postgres = EmbeddedPostgres(home)
    await postgres.start()
    try:
        async with rig.ending_here():
            settings = {"TINYFAT_DATABASE_URL": postgres.url, "TINYFAT_TURN_DEADLINE": str(TURN_DEADLINE_SECONDS)}
            yield await rig.up("living", ["ada"], **settings), await rig.up("other", ["bob"], **settings)
    finally:
        await postgres.stop()


def _signal(plane: TinyFat, number: signal.Signals) -> None:
    assert plane.process is not None
    plane.process.send_signal(number)


async def _bob_is_back(rig: Rig) -> None:
    """His control plane goes on: he answers again."""
    conversation = rig.sender.begin("bob", f"bob-back-{rig.faults}")
    await rig.sender.write(conversation, rig.chance)

    async def answered() -> bool:
        return conversation.accepted[-1] in rig.smarthost.answered

    await until(answered, TURN_DEADLINE_SECONDS * 2, "bob answers again")
    (reply, *_) = [one for one in rig.smarthost.received if one.in_reply_to == conversation.accepted[-1]]
    assert conversation.name in reply.text, f"bob is back, and still: {reply.text}"
