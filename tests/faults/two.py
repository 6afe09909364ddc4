"""Two control planes on one database: one dies for good, and the other finishes what it had begun."""

from __future__ import annotations

import asyncio

from tests.faults.claims import Verdict
from tests.faults.rig import Rig
from tests.running import until
from tinyfat.engine.durable import HEARTBEAT_SECONDS, STALE_SECONDS
from tinyfat.flows.delivery import AT_ONCE_MAX
from tinyfat.store.embedded import EmbeddedPostgres

TURN_DEADLINE_SECONDS = 12  # a turn whose box cannot be reached becomes bad news after so long
BEFORE_SECONDS = 6.0
AFTER_SECONDS = 3.0  # mail for the dead one's agent goes on for so long
TAKEN_OVER_SECONDS = STALE_SECONDS + 2 * HEARTBEAT_SECONDS


async def two(rig: Rig, count: int) -> Verdict:
    """`ada`'s box calls the first control plane, `bob`'s the second, which is killed `count` times, and each time left
    dead until the first has taken over its flows; that one is killed too in the middle of the taking over.

    Mail for ada is answered, whoever had accepted it. Mail for bob is answered while his control plane lives; after
    that his box is out of reach, and each gets bad news at its deadline, once.
    """
    postgres = EmbeddedPostgres(rig.folder / "database")
    (rig.folder / "database").mkdir()
    await postgres.start()
    try:
        return await _two(rig, postgres.url, count)
    finally:
        await rig.__aexit__()  # the control planes end before their database
        await postgres.stop()


async def _two(rig: Rig, url: str, count: int) -> Verdict:
    settings = {"TINYFAT_DATABASE_URL": url, "TINYFAT_TURN_DEADLINE": str(TURN_DEADLINE_SECONDS)}
    living = await rig.up("living", ["ada"], **settings)
    dying = await rig.up("dying", ["bob"], **settings)
    for _ in range(count):
        async with rig.load(["ada", "ada", "bob", "bob"]):
            await asyncio.sleep(BEFORE_SECONDS)
            rig.senders_know.remove(dying)
            await dying.kill()
            rig.faults += 1
            await asyncio.sleep(AFTER_SECONDS)
        rig.say("the second one is dead; its flows are taken over, bob's turns run into their deadline")
        await asyncio.sleep(TAKEN_OVER_SECONDS - AFTER_SECONDS)
        await living.kill()  # in the middle of the others' flows: now they must be its own
        rig.faults += 1
        await living.start()
        await rig.settled(living, ["ada", "bob"])
        await dying.start()
        rig.senders_know.append(dying)
        await _bob_is_back(rig)
    await rig.collect(living, ["ada", "bob"])
    return rig.verdict(repeats_max=AT_ONCE_MAX * count * 2, bad_news_for=["bob"])


async def _bob_is_back(rig: Rig) -> None:
    """The dead one came back: its agent answers again."""
    conversation = rig.sender.begin("bob", f"bob-back-{rig.faults}")
    await rig.sender.write(conversation, rig.chance)

    async def answered() -> bool:
        return any(one.in_reply_to == conversation.accepted[-1] for one in rig.smarthost.received)

    await until(answered, TURN_DEADLINE_SECONDS * 2, "bob answers again")
    (reply,) = [one for one in rig.smarthost.received if one.in_reply_to == conversation.accepted[-1]]
    assert conversation.name in reply.text, f"bob is back, and still: {reply.text}"
