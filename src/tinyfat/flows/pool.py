"""The warm pool: machines that run and wait for an agent. A claim is one statement of the ledger; here the pool is
filled in the background, and what is too old or too many is ended. What was claimed never comes back."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tinyfat.domain.machines import Machine, PoolState
from tinyfat.engine.steps import FlowStatus, Steps
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.first_words import FirstWords
from tinyfat.flows.orders import Orders
from tinyfat.flows.progress import StillThere
from tinyfat.flows.provision import ENROLLED_SECONDS_MAX
from tinyfat.flows.server_making import ServerMaking
from tinyfat.flows.watch import MachineRuns
from tinyfat.ports.ledger import MachineRecords
from tinyfat.ports.machines import MachinesError
from tinyfat.ports.server_ledger import Alarm, AlarmKind, Alarms, NewServer, ServerRecords, Wish

FLOW = "pool"  # a machine is made for it
END_FLOW = "pool_end"
BOOTING_MAX = 2  # at once in one location: a provider that fails is not asked for ever more
PAUSE_SECONDS = 300.0  # after one that could not be made
SILENT_SECONDS_MAX = 300.0  # a machine that waits and is not heard of for so long is no good
WHOSE = "the warm pool"
SCOPE = "pool"
_MACHINE = " machine"  # what an alarm's subject has after its scope

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolTerms:
    kind: str
    runtime: str
    wanted: tuple[tuple[str, int], ...]  # (location, how many wait there)


class Pool:
    def __init__(
        self,
        terms: PoolTerms | None,
        records: MachineRecords,
        servers: ServerRecords,
        orders: Orders,
        making: ServerMaking,
        machine_runs: MachineRuns,
        addressing: Addressing,
        words: FirstWords,
        alarms: Alarms,
        flows: FlowStatus,
        clock: Callable[[], datetime],
    ) -> None:
        """`terms` None: nothing waits."""
        self._terms = terms
        self._records = records
        self._servers = servers
        self._orders = orders
        self._making = making
        self._machine_runs = machine_runs
        self._addressing = addressing
        self._words = words
        self._alarms = alarms
        self._flows = flows
        self._clock = clock

    async def sweep(self) -> None:
        """Order what is missing, end what is no good or too many. Any number of processes may do so at once."""
        for kind in self._making.kinds.server_kinds:
            waiting = await self._servers.waiting(kind)
            for machine in waiting:
                await self._look_after(machine)
        await self._end_alarms()
        if self._terms is not None:
            for location, wanted in self._terms.wanted:
                await self._fill(self._terms, location, wanted)

    async def _end_alarms(self) -> None:
        """Where no machine is wanted any more, that none could be made is no matter."""
        wanted = {_scope(location) for location, count in (self._terms.wanted if self._terms else ()) if count}
        for alarm in await self._alarms.open(SCOPE):
            scope = alarm.subject.removesuffix(_MACHINE)
            if scope not in wanted:
                await self._alarms.now(scope, [])

    async def _look_after(self, machine: Machine) -> None:
        if machine.pool is PoolState.READY and self._no_good(machine):
            if not await self._servers.pool_becomes(machine.id, PoolState.ENDING):
                return  # claimed in this very moment
            log.info("the machine %s of the warm pool ends: %s", machine.id, machine.link_detail or "not wanted")
            machine = await self._records.get(machine.id) or machine
        if machine.pool is PoolState.ENDING:
            await self._flows.start(END_FLOW, f"{END_FLOW}:{machine.id}:{self._clock():%Y%m%d%H%M}", machine.id)
        elif machine.pool is PoolState.BOOTING:  # a crash between its row and its flow
            await self._flows.start(FLOW, f"{FLOW}:{machine.id}", machine.id)

    def _no_good(self, machine: Machine) -> bool:
        terms = self._terms
        if terms is None or (machine.kind, machine.runtime) != (terms.kind, terms.runtime):
            return True
        wanted = dict(terms.wanted)
        silent = machine.seen_at is None or self._clock() - machine.seen_at > timedelta(seconds=SILENT_SECONDS_MAX)
        return silent or machine.location not in wanted or machine.image != self._orders.terms.image

    async def _fill(self, terms: PoolTerms, location: str, wanted: int) -> None:
        scope = _scope(location)
        for alarm in await self._alarms.open(scope):
            if alarm.seen_at and self._clock() - alarm.seen_at < timedelta(seconds=PAUSE_SECONDS):
                return
        wish = Wish(terms.kind, terms.runtime, location)

        def new() -> NewServer:
            return self._orders.new_for_pool(str(uuid.uuid4()), terms.kind, terms.runtime, location)

        for machine in await self._servers.fill_pool(wish, wanted, BOOTING_MAX, new):
            await self._flows.start(FLOW, f"{FLOW}:{machine.id}", machine.id)
        await self._trim(wish, wanted)

    async def _trim(self, wish: Wish, wanted: int) -> None:
        ready = [
            machine
            for machine in await self._servers.waiting(wish.kind)
            if machine.pool is PoolState.READY and machine.location == wish.location
        ]
        for machine in ready[: max(0, len(ready) - wanted)]:
            await self._servers.pool_becomes(machine.id, PoolState.ENDING)

    async def run(self, steps: Steps, machine_id: str) -> None:
        """A machine for the pool."""
        complaint = await steps.run("make", lambda: self._make(machine_id))
        await steps.run("tell", lambda: self._tell(machine_id, complaint))
        if complaint:
            await self.end(steps, machine_id)

    async def _make(self, machine_id: str) -> str:
        machine = await self._records.get(machine_id)
        if machine is None or machine.pool is not PoolState.BOOTING:
            return ""
        wanted = self._orders.new_for_pool(machine.id, machine.kind, machine.runtime, machine.location)

        async def still_wanted() -> bool:
            now = await self._records.get(machine_id)
            return now is not None and now.wanted

        try:
            await self._making.make(wanted, "")
            complaint = await self._words.first_word(machine_id, WHOSE, ENROLLED_SECONDS_MAX, still_wanted)
            return complaint or await self._words.ready(machine_id, WHOSE)
        except (MachinesError, StillThere) as error:
            return str(error)

    async def _tell(self, machine_id: str, complaint: str) -> None:
        machine = await self._records.get(machine_id)
        if machine is None:
            return
        scope = _scope(machine.location)
        alarm = Alarm(AlarmKind.POOL, f"{scope}{_MACHINE}", f"No machine could be made to wait there: {complaint}")
        await self._alarms.now(scope, [alarm] if complaint else [])
        await self._servers.pool_becomes(machine_id, PoolState.ENDING if complaint else PoolState.READY)

    async def end(self, steps: Steps, machine_id: str) -> None:
        """It goes, its address with it, and is forgotten once both are seen to be gone. What does not go stays ENDING:
        the next sweep tries again."""
        if complaint := await steps.run("end", lambda: self._end(machine_id)):
            log.error("a machine of the warm pool could not be ended: %s", complaint)

    async def _end(self, machine_id: str) -> str:
        machine = await self._records.get(machine_id)
        if machine is None or machine.agent_id:
            return ""
        try:
            await self._machine_runs.stop_and_delete(machine, WHOSE)
            await self._addressing.release(machine.kind, machine.address_id)
            await self._records.forget(machine_id)
        except (MachinesError, StillThere) as error:
            return str(error)
        return ""


def _scope(location: str) -> str:
    return f"{SCOPE} {location or 'anywhere'}"
