"""Looking again: nothing here believes a provider's word, only what it sees afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from tinyfat.domain.agents import Agent
from tinyfat.domain.machines import Machine, MachineOrder, MachineSeen, MachineState
from tinyfat.domain.repeated import Repeated
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.progress import StillThere, say
from tinyfat.ports.dns import DnsUnreachable
from tinyfat.ports.ledger import MachineRecords
from tinyfat.ports.machines import MachinesError, MachinesUnreachable
from tinyfat.ports.requests import RequestsShort, ending

LOOK_SECONDS_FIRST = 0.02
LOOK_SECONDS_MAX = 0.5
GONE_SECONDS_MAX = 120.0
SHORT_SECONDS_FIRST = 1.0
SHORT_LOOK_SECONDS = 30.0  # so long at most between two questions whether a request may be made again
SHORT_SECONDS_MAX = 2 * 3600.0  # a provider's limit is whole again within one

log = logging.getLogger(__name__)


async def until(
    condition: Callable[[], Awaitable[bool]], seconds: float, wait: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> bool:
    """Look until it holds; False when `seconds` have passed, and one look was begun after them: however long a look
    took, what it asked for is looked at again. `wait`: for so many seconds, or for a word that it may. While a
    provider's limit of requests is used up nothing is looked at, and that time does not count."""
    loop = asyncio.get_running_loop()
    began, waited = loop.time(), 0.0
    pause = LOOK_SECONDS_FIRST
    while True:
        looked_at = loop.time()
        try:
            if await condition():
                return True
        except RequestsShort as error:
            short = await short_of_requests(error, waited)
            await asyncio.sleep(short)
            waited += short
            continue
        if looked_at - waited >= began + seconds:
            return False
        await wait(pause)
        pause = min(pause * 1.5, LOOK_SECONDS_MAX)


async def short_of_requests(error: RequestsShort, waited: float) -> float:
    """How long to wait before the next look; whoever watches the step is told why. Raises the error where that took
    SHORT_SECONDS_MAX already."""
    if waited > SHORT_SECONDS_MAX:
        raise error
    await say(str(error))
    return min(max(error.seconds, SHORT_SECONDS_FIRST, waited / 4), SHORT_LOOK_SECONDS)  # the longer, the slower


@contextmanager
def looked_again() -> Iterator[None]:
    """An answer that says nothing is no failure: `until` looks again. That nothing was asked is its own to handle."""
    try:
        yield
    except RequestsShort:
        raise
    except (MachinesUnreachable, DnsUnreachable):
        pass


class MachineRuns:
    """Ends machines, and keeps those running that should be."""

    def __init__(
        self, kinds: MachineKinds, records: MachineRecords, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kinds = kinds
        self._records = records
        self._repeated = Repeated(clock)
        self._ordered: set[str] = set()  # by this process

    async def end(self, agent: Agent) -> None:
        """Stop, see that it stopped, delete, see that it is gone: each machine it has. Raises StillThere."""
        for machine in await self._records.all_of_agent(agent.id):
            await self.end_machine(machine, agent.name)

    async def end_machine(self, machine: Machine, whose: str) -> None:
        """Raises StillThere."""
        await self.stop_and_delete(machine, whose)
        await self._records.forget(machine.id)

    async def stop_and_delete(self, machine: Machine, whose: str) -> None:
        """Raises StillThere."""
        await self._records.unwanted(machine.id)
        try:
            with ending():
                await self.stop(machine)
        except StillThere:
            if not self._kinds.is_server(machine.kind):
                raise
            log.warning("the server %s of %s does not stop; it is deleted as it runs", machine.id, whose)
        await self.delete(machine.kind, machine.id, whose)

    async def stop(self, machine: Machine) -> None:
        """Raises StillThere."""
        if not await until(lambda: self._stopped(machine), GONE_SECONDS_MAX):
            seen = await self.seen(machine.kind, machine.id)
            raise StillThere(f"The machine {machine.id} was told to stop and runs on: {_words(seen)}.")

    async def delete(self, kind: str, machine_id: str, whose: str) -> None:
        """Raises StillThere."""
        with ending():
            gone = await until(lambda: self._deleted(kind, machine_id), GONE_SECONDS_MAX)
        if not gone:
            seen = await self.seen(kind, machine_id)
            raise StillThere(
                f"The machine {machine_id} of {whose} is still there after it was deleted: {_words(seen)}."
            )

    # Asked again at each look: a driver may turn from asking to forcing, and a provider may have lost the first word.

    async def _stopped(self, machine: Machine) -> bool:
        if (await self._looked(machine.kind, machine.id)).state in (MachineState.STOPPED, MachineState.GONE):
            return True
        with looked_again():
            await self._kinds.of(machine.kind).stop(machine.id)
        return False

    async def _deleted(self, kind: str, machine_id: str) -> bool:
        with looked_again():
            await self._kinds.of(kind).delete(machine_id)
        return (await self._looked(kind, machine_id)).state is MachineState.GONE

    async def seen(self, kind: str, machine_id: str) -> MachineSeen:
        """A provider that does not answer, or may not be asked now, says nothing about the machine."""
        try:
            return await self._looked(kind, machine_id)
        except RequestsShort as error:
            return MachineSeen(MachineState.UNKNOWN, str(error))

    async def _looked(self, kind: str, machine_id: str) -> MachineSeen:
        """Raises RequestsShort, which is `until`'s to handle."""
        try:
            return await self._kinds.of(kind).look(machine_id)
        except RequestsShort:
            raise
        except MachinesUnreachable as error:
            return MachineSeen(MachineState.UNKNOWN, str(error))

    async def revive(
        self, host: str, agent_to_run: Callable[[str], Awaitable[Agent | None]], order: Callable[[Agent], MachineOrder]
    ) -> None:
        """Start again what should run on this host and does not.

        Each machine is ordered once by each process, though it runs: a control plane that was killed may have come back
        at another address, and only an order tells the box.
        """
        wanted = await self._records.wanted(host)
        self._repeated.only([machine.id for machine in wanted])
        for machine in wanted:
            try:
                seen = await self._kinds.of(machine.kind).look(machine.id)
                if seen.state is MachineState.RUNNING and machine.id in self._ordered:
                    if times := self._repeated.ended(machine.id):
                        log.warning("machine %s runs; it had failed to start %d times", machine.id, times)
                    continue
                if agent := await agent_to_run(machine.agent_id):
                    await self._kinds.of(machine.kind).start(order(agent))
                    self._ordered.add(machine.id)
            except (MachinesError, OSError) as error:  # a full disk is no reason to leave the others down
                if times := self._repeated.failed(machine.id, str(error)):
                    log.error("machine %s could not be started again (%d times by now): %s", machine.id, times, error)


def _words(seen: MachineSeen) -> str:
    return seen.detail.rstrip(".") or seen.state
