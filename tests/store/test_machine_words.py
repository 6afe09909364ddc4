"""Whoever waits for a machine's word is woken by it, and by nothing else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.machine_speed import patient
from tests.running import until
from tests.store.test_enrolments import machine
from tinyfat.domain.link import RuntimeState, Status
from tinyfat.flows.watch import until as looked_for
from tinyfat.store.database import Database
from tinyfat.store.enrolments import EnrolmentStore
from tinyfat.store.machines import MachineStore
from tinyfat.store.signals import Signals

SECONDS = patient(30.0)  # none of these tests takes a second, unless nobody is woken


@asynccontextmanager
async def store(database: Database) -> AsyncIterator[MachineStore]:
    signals, listening = Signals(database.url), asyncio.Event()
    made = MachineStore(database, signals)
    signals.on("unused", lambda _: None, listening.set)
    running = asyncio.create_task(signals.run())
    await listening.wait()
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def woken(waits: asyncio.Task[None]) -> None:
    async def done() -> bool:
        return waits.done()

    await until(done, SECONDS / 2, "a word of the machine wakes whoever waits for it")


async def test_a_word_of_the_machine_wakes_and_the_same_word_again_does_not(database: Database) -> None:
    one, other = await machine(database), await machine(database)
    async with store(database) as machines:
        waits = asyncio.create_task(machines.word(one, SECONDS))
        await asyncio.sleep(0)
        await machines.heard(other, Status(RuntimeState.STARTING))
        await machines.heard(one, Status(RuntimeState.STARTING))
        await woken(waits)
        again = asyncio.create_task(machines.word(one, SECONDS))
        await asyncio.sleep(0)
        await machines.heard(one, Status(RuntimeState.STARTING, memory_bytes=7))  # a heartbeat
        await machines.heard(other, Status(RuntimeState.READY))
        watched = asyncio.create_task(machines.word(other, SECONDS))
        await asyncio.sleep(0)
        await machines.heard(other, Status(RuntimeState.STOPPED))
        await woken(watched)  # signals come in their order: what the heartbeat might have sent has come, too
        assert not again.done()
        await machines.heard(one, Status(RuntimeState.READY))
        await woken(again)
    known = await machines.get(one)
    assert known is not None and known.link_state == RuntimeState.READY and known.seen_at is not None


async def test_an_identity_that_was_fetched_wakes_too(database: Database) -> None:
    machine_id = await machine(database)
    async with store(database) as machines:
        waits = asyncio.create_task(machines.word(machine_id, SECONDS))
        await asyncio.sleep(0)
        await EnrolmentStore(database).fetched(machine_id, 3)
        await woken(waits)


async def test_who_looks_for_something_looks_again_at_each_word(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the pause between two looks is."""
    monkeypatch.setattr("tinyfat.flows.watch.LOOK_SECONDS_FIRST", SECONDS)
    machine_id = await machine(database)
    async with store(database) as machines:

        async def ready() -> bool:
            known = await machines.get(machine_id)
            return known is not None and known.link_state == RuntimeState.READY

        async def word(seconds: float) -> None:
            waits = asyncio.create_task(machines.word(machine_id, seconds))
            await asyncio.sleep(0)
            await machines.heard(machine_id, Status(RuntimeState.READY))
            await waits

        assert await asyncio.wait_for(looked_for(ready, SECONDS, word), SECONDS / 2)


async def test_nobody_waits_for_ever(database: Database) -> None:
    async with store(database) as machines:
        await machines.word(str(uuid.uuid4()), 0.01)
