"""Looking again: nothing here believes a provider's word, only what it sees afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tinyfat.domain.agents import Agent
from tinyfat.domain.machines import MachineOrder, MachineState
from tinyfat.ports.ledger import MachineRecords
from tinyfat.ports.machines import Machines, MachinesError

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

    async def end(self, agent: Agent) -> None:
        """Stop, see that it stopped, delete, see that it is gone. Raises StillThere."""
        machine = await self._records.of_agent(agent.id)
        if machine is None:
            return
        await self._records.unwanted(machine.id)
        await self.stop(machine.id)
        if not await until(lambda: self._deleted(machine.id), GONE_SECONDS_MAX):
            raise StillThere(f"The machine {machine.id} of {agent.name} is still there after it was deleted.")
        await self._records.forget(machine.id)

    async def stop(self, machine_id: str) -> None:
        """Ask again at each look: a driver may turn from asking to forcing."""

        async def stopped() -> bool:
            if await self._is(machine_id, MachineState.STOPPED, MachineState.GONE):
                return True
            await self._machines.stop(machine_id)
            return False

        if not await until(stopped, GONE_SECONDS_MAX):
            seen = await self._machines.look(machine_id)
            raise StillThere(f"The machine {machine_id} was told to stop and runs on: {seen.detail}")

    async def _deleted(self, machine_id: str) -> bool:
        await self._machines.delete(machine_id)
        return await self._is(machine_id, MachineState.GONE)

    async def revive(
        self, host: str, agent_to_run: Callable[[str], Awaitable[Agent | None]], order: Callable[[Agent], MachineOrder]
    ) -> None:
        """Start again what should run on this host and does not."""
        for machine in await self._records.wanted(host):
            try:
                if await self._is(machine.id, MachineState.RUNNING):
                    continue
                if agent := await agent_to_run(machine.agent_id):
                    await self._machines.start(order(agent))
            except MachinesError as error:
                log.error("machine %s could not be started again: %s", machine.id, error)

    async def _is(self, machine_id: str, *states: MachineState) -> bool:
        return (await self._machines.look(machine_id)).state in states
