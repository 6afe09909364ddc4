"""An agent gets another machine: the same name, the same address, the same memory.

The new one is made beside the old one, with a passing address. Then turns wait, the old box hands its state over, the
new one takes it, the address moves, and a real question is answered there. Only then the old one ends. Until turns go
on, whatever fails is undone, and the old machine goes on as if nothing had been.

Without state, because the old machine is dead: turns wait from the beginning, nothing is asked of the old box, and what
it had received and not answered is asked of the new one. The owner is told that the memory starts anew.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import Machine, MachineState
from tinyfat.engine.steps import Steps
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.first_words import FirstWords
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.orders import Orders, machine_id_of
from tinyfat.flows.owner_mail import OwnerMail
from tinyfat.flows.progress import Part, Progress, StillThere
from tinyfat.flows.provision import ENROLLED_SECONDS_MAX
from tinyfat.flows.server_making import ServerMaking
from tinyfat.flows.watch import MachineRuns, until
from tinyfat.ports.dns import DnsError
from tinyfat.ports.ledger import Agents, MachineRecords
from tinyfat.ports.machines import MachinesError
from tinyfat.ports.server_ledger import MoveFiles, MovePhase, ServerRecords, StateMoves
from tinyfat.recipes.fresh_memory_mail import fresh_memory_subject, fresh_memory_text

FLOW = "replace"
HAND_OVER_SECONDS_MAX = 30 * 60.0  # turns under way end, the runtime stops, gigabytes go up
TAKE_SECONDS_MAX = 30 * 60.0
SILENT_SECONDS_MAX = 180.0  # a box that is to hand its state over and is not heard of for so long is dead to us
HEARD_SECONDS = 30.0  # heard of that lately, it speaks

Attempt = Callable[[Agent, int], Awaitable[str]]  # a part, of which generation


@dataclass(frozen=True, slots=True)
class Replacement:
    """What one run of the flow is about."""

    agent_id: str
    generation: int  # the new machine's
    without_state: bool = False

    @property
    def subject(self) -> str:
        """ "ID:2", or "ID:2:without-state"."""
        return f"{self.agent_id}:{self.generation}{':without-state' if self.without_state else ''}"


def replacement_of(subject: str) -> Replacement:
    agent_id, generation, *how = subject.split(":")
    return Replacement(agent_id, int(generation), bool(how))


class Replace:
    def __init__(
        self,
        agents: Agents,
        kinds: MachineKinds,
        records: MachineRecords,
        servers: ServerRecords,
        moves: StateMoves,
        files: MoveFiles,
        orders: Orders,
        making: ServerMaking,
        addressing: Addressing,
        machine_runs: MachineRuns,
        words: FirstWords,
        owner_mail: OwnerMail,
        clock: Callable[[], datetime],
    ) -> None:
        """`clock`: the ledger's time, by which boxes are heard of."""
        self._agents = agents
        self._kinds = kinds
        self._records = records
        self._servers = servers
        self._moves = moves
        self._files = files
        self._orders = orders
        self._making = making
        self._addressing = addressing
        self._machine_runs = machine_runs
        self._words = words
        self._owner_mail = owner_mail
        self._clock = clock
        self._progress = Progress(agents, FLOW)

    async def run(self, steps: Steps, subject: str) -> None:
        """`subject`: of a Replacement."""
        wanted = replacement_of(subject)
        agent_id, generation = wanted.agent_id, wanted.generation
        await steps.run("begin", lambda: self._agents.steps_again(agent_id, FLOW))
        for name, part in self._fresh_parts() if wanted.without_state else self._parts():
            guarded = _while_ready(partial(_of, part, generation))
            if complaint := await self._progress.part(steps, agent_id, name, guarded):
                await steps.run("undo", partial(self._undo, agent_id, generation, complaint))
                return
        for name, part in self._fresh_endings() if wanted.without_state else self._endings():
            await self._progress.part(steps, agent_id, name, partial(_of, part, generation))

    def _parts(self) -> Sequence[tuple[str, Attempt]]:
        """Each is given the agent, and may run twice."""
        return (
            ("order another machine", self._order_beside),
            ("first word of its box", self._first_word),
            ("its runtime ready", self._ready),
            ("the state handed over", self._hand_over),
            ("the state taken in", self._take),
            ("the address moved", self._attach),
            ("the new one runs", self._switch),
            ("a real question answered", self._question),
        )

    def _fresh_parts(self) -> Sequence[tuple[str, Attempt]]:
        """Without state."""
        return (
            ("turns wait", self._hold),
            ("order another machine", self._order),
            ("first word of its box", self._first_word),
            ("its runtime ready", self._ready),
            ("the address moved", self._attach),
            ("the new one runs", self._switch),
            ("a real question answered", self._question),
        )

    def _endings(self) -> Sequence[tuple[str, Attempt]]:
        """From here on there is no way back, and the agent answers: what fails is told, and tried again by the
        reconciliation."""
        return (("turns go on", self._go_on), ("the old machine ended", self._end_old))

    def _fresh_endings(self) -> Sequence[tuple[str, Attempt]]:
        return (("turns go on", self._go_on), ("its owner told", self._tell), ("the old machine ended", self._end_old))

    async def _order_beside(self, agent: Agent, generation: int) -> str:
        """Nothing is ordered for a state that nobody will hand over."""
        old = await self._old(agent, generation)

        async def speaks() -> bool:
            machine = await self._records.get(old.id) if old else None
            return machine is None or self._silence(machine) < timedelta(seconds=HEARD_SECONDS)

        if old is not None and not await until(speaks, SILENT_SECONDS_MAX):
            return self._not_taken(agent, "its box is not heard of")
        return await self._order(agent, generation)

    def _silence(self, machine: Machine) -> timedelta:
        return self._clock() - machine.seen_at if machine.seen_at else timedelta.max

    def _not_taken(self, agent: Agent, why: str) -> str:
        return (
            f"The state of {agent.name} could not be taken along: {why}. If its machine is dead, "
            f"`tinyfat agent replace {agent.name} --without-state` makes another, whose memory starts anew."
        )

    async def _hold(self, agent: Agent, generation: int) -> str:
        await self._servers.hold_turns(agent.id)
        return ""

    async def _order(self, agent: Agent, generation: int) -> str:
        old = await self._old(agent, generation)
        if old is None:
            return f"{agent.name} has no machine to replace."
        wanted = self._orders.new_server(agent, generation, passing_address_of(agent.id, generation), current=False)
        # Beside the old one: an address may not go elsewhere.
        await self._making.make(dataclasses.replace(wanted, location=old.location), agent.name)
        return ""

    async def _first_word(self, agent: Agent, generation: int) -> str:
        async def still_wanted() -> bool:
            return (await self._agents.get(agent.id)).state is AgentState.READY

        new = machine_id_of(agent.id, generation)
        return await self._words.first_word(new, agent.name, ENROLLED_SECONDS_MAX, still_wanted)

    async def _ready(self, agent: Agent, generation: int) -> str:
        return await self._words.ready(machine_id_of(agent.id, generation), agent.name)

    async def _hand_over(self, agent: Agent, generation: int) -> str:
        old = await self._old(agent, generation)
        if old is None:
            return f"{agent.name} has no machine whose state could be taken along."
        await self._hold(agent, generation)
        move_id = move_id_of(agent.id, generation)
        await self._moves.ask(move_id, agent.id, old.id, machine_id_of(agent.id, generation))
        phase, why = await self._phase(move_id, (MovePhase.KEPT, MovePhase.RESTORED), old.id, HAND_OVER_SECONDS_MAX)
        if phase is None:
            return self._not_taken(agent, "no word of its box")
        return f"The state of {agent.name} could not be taken along: {why}." if phase is MovePhase.FAILED else ""

    async def _take(self, agent: Agent, generation: int) -> str:
        move_id, new = move_id_of(agent.id, generation), machine_id_of(agent.id, generation)
        phase, why = await self._phase(move_id, (MovePhase.RESTORED,), new, TAKE_SECONDS_MAX)
        if phase is None:
            why = "no word of its new machine's box"
        return "" if phase is MovePhase.RESTORED else f"The state of {agent.name} could not be taken along: {why}."

    async def _phase(
        self, move_id: str, wanted: Sequence[MovePhase], machine_id: str, seconds: float
    ) -> tuple[MovePhase | None, str]:
        """A phase that is wanted, or FAILED and why (either box may have said so), or None. `machine_id`: whose box has
        its part to do; it is waited for while it is heard of."""
        last: MovePhase | None = None
        detail = ""
        began = self._clock()

        async def decided() -> bool:
            nonlocal last, detail
            move = await self._moves.get(move_id)
            last, detail = (move.phase, move.detail) if move else (None, "")
            return last in wanted or last is MovePhase.FAILED or await self._fell_silent(machine_id, began)

        await until(decided, seconds)
        if last is MovePhase.FAILED:
            return last, detail.rstrip(".") or "no reason given"
        return (last, "") if last in wanted else (None, "")

    async def _fell_silent(self, machine_id: str, since: datetime) -> bool:
        machine = await self._records.get(machine_id)
        silence = min(self._silence(machine) if machine else timedelta.max, self._clock() - since)
        return silence > timedelta(seconds=SILENT_SECONDS_MAX)

    async def _attach(self, agent: Agent, generation: int) -> str:
        return await self._attached(agent, machine_id_of(agent.id, generation))

    async def _attached(self, agent: Agent, machine_id: str) -> str:
        if complaint := await self._addressing.attach(agent, machine_id):
            return complaint
        own = await self._addressing.of(agent)
        machine = await self._records.get(machine_id)
        if own is not None and machine is not None:
            await self._servers.placed(machine_id, own.ipv4, own.ipv6, machine.location)
        return ""

    async def _switch(self, agent: Agent, generation: int) -> str:
        new = machine_id_of(agent.id, generation)
        await self._servers.switch(agent.id, new)
        return await self._words.ready(new, agent.name) or await self._addressing.point(agent)

    async def _question(self, agent: Agent, generation: int) -> str:
        return await self._words.question(agent, f"probe of machine {generation}")

    async def _go_on(self, agent: Agent, generation: int) -> str:
        await self._servers.go_on(agent.id)
        return ""

    async def _tell(self, agent: Agent, generation: int) -> str:
        machine = await self._records.get(machine_id_of(agent.id, generation))
        if machine is not None and machine.created_at is not None:
            address = self._owner_mail.sender(agent)
            subject, text = fresh_memory_subject(agent.name), fresh_memory_text(agent.name, address)
            await self._owner_mail.write(agent, f"fresh-memory-{generation}", machine.created_at, subject, text)
        return ""

    async def _end_old(self, agent: Agent, generation: int) -> str:
        new = machine_id_of(agent.id, generation)
        await self._servers.addressed(new, agent.address_id)
        for machine in await self._records.all_of_agent(agent.id):
            if machine.id != new:
                await self._machine_runs.end_machine(machine, agent.name)
        await self._addressing.release(agent.machine_kind, passing_address_of(agent.id, generation))
        await self._files.remove(move_id_of(agent.id, generation))
        return ""

    async def _old(self, agent: Agent, generation: int) -> Machine | None:
        new = machine_id_of(agent.id, generation)
        machines = await self._records.all_of_agent(agent.id)
        return next((machine for machine in machines if machine.id != new and machine.wanted), None)

    async def _undo(self, agent_id: str, generation: int, complaint: str) -> None:
        """The old machine has its address, its runtime and its turns again; of the new one nothing is left."""
        agent = await self._agents.get(agent_id)
        if agent.state is AgentState.READY:
            back: Sequence[Callable[[], Awaitable[None]]] = (
                lambda: self._back_to_old(agent, generation, complaint),
                lambda: self._end_new(agent, generation),
            )
        else:
            back = (lambda: self._end_new(agent, generation),)
        for part in back:
            try:
                await part()
            except (StillThere, MachinesError, DnsError) as error:
                complaint = f"{complaint} And: {error}"
        reason = f"The machine was not replaced: {complaint}"
        await self._agents.become(agent_id, AgentState.READY, reason, AgentState.READY)

    async def _back_to_old(self, agent: Agent, generation: int, complaint: str) -> None:
        old = await self._old(agent, generation)
        if old is None:
            return
        # Switched back first: no turn may reach a machine that ends. Its box dials out: it needs no address to go on.
        await self._servers.switch(agent.id, old.id)
        await self._moves.failed(move_id_of(agent.id, generation), complaint)
        await self._servers.go_on(agent.id)
        seen = await self._machine_runs.seen(old.kind, old.id)
        if seen.state is MachineState.GONE:
            return  # it died meanwhile, or before: the address waits for the next one
        if seen.state is MachineState.STOPPED:
            await self._making.start(old.id, agent.name, agent.id)
        if words := await self._attached(agent, old.id):
            raise StillThere(words)

    async def _end_new(self, agent: Agent, generation: int) -> None:
        new = machine_id_of(agent.id, generation)
        machine = await self._records.get(new)
        if machine is not None and machine.current and agent.state is AgentState.READY:
            return  # the agent has no other one
        with suppress(ValueError):
            await self._files.remove(move_id_of(agent.id, generation))
        if machine is None:
            await self._machine_runs.delete(agent.machine_kind, new, agent.name)
        else:
            await self._machine_runs.end_machine(machine, agent.name)
        await self._addressing.release(agent.machine_kind, passing_address_of(agent.id, generation))


def passing_address_of(agent_id: str, generation: int) -> str:
    return str(uuid.uuid5(uuid.UUID(agent_id), f"address {generation}"))


def move_id_of(agent_id: str, generation: int) -> str:
    return str(uuid.uuid5(uuid.UUID(agent_id), f"move {generation}"))


def _of(part: Attempt, generation: int, agent: Agent) -> Awaitable[str]:
    return part(agent, generation)


def _while_ready(part: Part) -> Part:
    async def guarded(agent: Agent) -> str:
        if agent.state is not AgentState.READY:
            return f"{agent.name} was destroyed meanwhile."
        return await part(agent)

    return guarded
