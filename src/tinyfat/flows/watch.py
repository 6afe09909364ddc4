"""Looking again: nothing here believes a provider's word, only what it sees afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tinyfat.domain.agents import Agent
from tinyfat.domain.machines import MachineOrder, MachineSeen, MachineState
from tinyfat.ports.ledger import MachineRecords
from tinyfat.ports.machines import Machines, MachinesError, MachinesUnreachable

LOOK_SECONDS_FIRST = 0.02
LOOK_SECONDS_MAX = 0.5
GONE_SECONDS_MAX = 120.0

log = logging.getLogger(__name__)


class StillThere(Exception):
    """A machine was told to end and runs on."""


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Look until it holds; False when `seconds` have passed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = LOOK_SECONDS_FIRST
    while not await condition():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LOOK_SECONDS_MAX)
    return True


class MachineRuns:
    """Ends machines, and keeps those running that should be."""

    def __init__(self, machines: Machines, records: MachineRecords) -> None:
        self._machines = machines
        self._records = records
        self._ordered: set[str] = set()  # by this process

    async def end(self, agent: Agent) -> None:
        """Stop, see that it stopped, delete, see that it is gone. Raises StillThere."""
        machine = await self._records.of_agent(agent.id)
        if machine is None:
            return
        await self._records.unwanted(machine.id)
        await self.stop(machine.id)
        if not await until(lambda: self._deleted(machine.id), GONE_SECONDS_MAX):
            seen = await self._seen(machine.id)
            raise StillThere(
                f"The machine {machine.id} of {agent.name} is still there after it was deleted: {_words(seen)}."
            )
        await self._records.forget(machine.id)

    async def stop(self, machine_id: str) -> None:
        """Raises StillThere."""
        if not await until(lambda: self._stopped(machine_id), GONE_SECONDS_MAX):
            seen = await self._seen(machine_id)
            raise StillThere(f"The machine {machine_id} was told to stop and runs on: {_words(seen)}.")

    # Asked again at each look: a driver may turn from asking to forcing, and a provider may have lost the first word.

    async def _stopped(self, machine_id: str) -> bool:
        if (await self._seen(machine_id)).state in (MachineState.STOPPED, MachineState.GONE):
            return True
        with suppress(MachinesUnreachable):
            await self._machines.stop(machine_id)
        return False

    async def _deleted(self, machine_id: str) -> bool:
        with suppress(MachinesUnreachable):
            await self._machines.delete(machine_id)
        return (await self._seen(machine_id)).state is MachineState.GONE

    async def _seen(self, machine_id: str) -> MachineSeen:
        """A provider that does not answer says nothing about the machine."""
        try:
            return await self._machines.look(machine_id)
        except MachinesUnreachable as error:
            return MachineSeen(MachineState.UNKNOWN, str(error))

    async def revive(
        self, host: str, agent_to_run: Callable[[str], Awaitable[Agent | None]], order: Callable[[Agent], MachineOrder]
    ) -> None:
        """Start again what should run on this host and does not.

        Each machine is ordered once by each process, though it runs: a control plane that was killed may have come back
        at another address, and only an order tells the box.
        """
        for machine in await self._records.wanted(host):
            try:
                seen = await self._machines.look(machine.id)
                if seen.state is MachineState.RUNNING and machine.id in self._ordered:
                    continue
                if agent := await agent_to_run(machine.agent_id):
                    await self._machines.start(order(agent))
                    self._ordered.add(machine.id)
            except MachinesError as error:
                log.error("machine %s could not be started again: %s", machine.id, error)


def _words(seen: MachineSeen) -> str:
    return seen.detail.rstrip(".") or seen.state
