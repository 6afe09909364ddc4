"""An agent comes to be: a machine for it, the box's first word, the runtime ready, a real question answered."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import MachineOrder
from tinyfat.domain.turns import TurnOutcome
from tinyfat.engine.steps import Steps
from tinyfat.flows.watch import MachineRuns, StillThere, until
from tinyfat.ports.ledger import Agents, MachineRecords, Turns
from tinyfat.ports.machines import Machines, MachinesError, MachinesUnreachable

FLOW = "provision"
ORDER_SECONDS_MAX = 120.0  # a provider that does not answer is asked again for so long
HEARTBEAT_SECONDS_MAX = 60.0
READY_SECONDS_MAX = 25 * 60.0  # a first installation of the runtime included
PROBE_SECONDS_MAX = 300.0
PROBE_QUESTION = "From: TinyFat\nSubject: Are you there?\n\nPlease answer with one short sentence."


class Provision:
    def __init__(
        self,
        agents: Agents,
        machines: Machines,
        records: MachineRecords,
        turns: Turns,
        orders: Orders,
        machine_runs: MachineRuns,
        host: str,
    ) -> None:
        self._agents = agents
        self._machines = machines
        self._records = records
        self._turns = turns
        self._orders = orders
        self._machine_runs = machine_runs
        self._host = host

    async def run(self, steps: Steps, agent_id: str) -> None:
        parts: Sequence[tuple[str, Callable[[Agent], Awaitable[str]]]] = (
            ("order a machine", self._order),
            ("first word of the box", self._heartbeat),
            ("runtime ready", self._ready),
            ("a real question answered", self._question),
        )
        for name, part in parts:
            if complaint := await steps.run(name, partial(self._watched, agent_id, name, part)):
                await steps.run("undo", partial(self._undo, agent_id, complaint))
                return
        await steps.run("done", partial(self._agents.become, agent_id, AgentState.READY, "", AgentState.CREATING))

    async def _watched(self, agent_id: str, name: str, part: Callable[[Agent], Awaitable[str]]) -> str:
        """A part with its times in the ledger. It gives back "" or its complaint: a failure is a result that is
        remembered, not an error to be tried again."""
        await self._agents.step_begun(agent_id, FLOW, name)
        agent = await self._agents.get(agent_id)
        if agent.state is not AgentState.CREATING:
            complaint = f"{agent.name} was destroyed while it was being made."
        else:
            try:
                complaint = await part(agent)
            except MachinesError as error:
                complaint = str(error)
        await self._agents.step_ended(agent_id, FLOW, name, complaint)
        return complaint

    async def _order(self, agent: Agent) -> str:
        order = self._orders.of(agent)
        await self._records.create(
            order.id, agent.id, agent.machine_kind, self._host, self._orders.token_hash(order.id)
        )
        unreachable = ""

        async def ordered() -> bool:
            nonlocal unreachable
            try:
                await self._machines.start(order)
            except MachinesUnreachable as error:
                unreachable = str(error)
                return False
            return True

        return "" if await until(ordered, ORDER_SECONDS_MAX) else unreachable

    async def _heartbeat(self, agent: Agent) -> str:
        async def seen() -> bool:
            machine = await self._records.of_agent(agent.id)
            return machine is not None and machine.seen_at is not None

        if await until(seen, HEARTBEAT_SECONDS_MAX):
            return ""
        seconds = f"{HEARTBEAT_SECONDS_MAX:.0f} s"
        return f"The box of {agent.name} did not call home within {seconds}. `tinyfat doctor` may know why."

    async def _ready(self, agent: Agent) -> str:
        last = ""

        async def decided() -> bool:
            nonlocal last
            machine = await self._records.of_agent(agent.id)
            last = machine.link_detail if machine else ""
            return machine is not None and machine.link_state in (RuntimeState.READY, RuntimeState.CRASH_LOOP)

        ended = await until(decided, READY_SECONDS_MAX)
        machine = await self._records.of_agent(agent.id)
        if ended and machine is not None and machine.link_state == RuntimeState.READY:
            return ""
        return f"The runtime {agent.runtime} of {agent.name} did not come up: {last or 'no reason given'}"

    async def _question(self, agent: Agent) -> str:
        """Ready means it answered."""
        turn_id = str(uuid.uuid5(uuid.UUID(agent.id), "probe"))
        await self._turns.probe(turn_id, agent.id, PROBE_QUESTION)
        await self._turns.offer(turn_id, PROBE_SECONDS_MAX)
        row = await self._turns.wait_for_result(turn_id)
        await self._turns.finish_probe(turn_id)
        if row.result is None:
            return f"{agent.name} did not answer a first question within {PROBE_SECONDS_MAX:.0f} s."
        if row.result.outcome is not TurnOutcome.ANSWERED:
            return f"{agent.name} could not answer a first question: {row.result.detail or row.result.failure}"
        return ""

    async def _undo(self, agent_id: str, complaint: str) -> None:
        """Nothing half made stays behind; the agent's row does, with the reason."""
        try:
            await self._machine_runs.end(await self._agents.get(agent_id))
        except StillThere as still_there:
            complaint = f"{complaint} And: {still_there}"
        await self._agents.become(agent_id, AgentState.FAILED, complaint, AgentState.CREATING)


class Orders:
    """What a machine is made from: always the same for the same agent, so that ordering twice is ordering once."""

    def __init__(self, secret: bytes, link_url: str) -> None:
        self._secret = secret
        self._link_url = link_url

    def of(self, agent: Agent) -> MachineOrder:
        machine_id = str(uuid.uuid5(uuid.UUID(agent.id), "machine"))
        return MachineOrder(machine_id, agent.name, agent.runtime, self._link_url, self._token(machine_id))

    def token_hash(self, machine_id: str) -> bytes:
        return hash_token(self._token(machine_id))

    def _token(self, machine_id: str) -> str:
        return hmac.new(self._secret, b"machine " + machine_id.encode(), hashlib.sha256).hexdigest()


def hash_token(token: str) -> bytes:
    """How a machine's token is kept: it is 256 random-looking bits, so one round suffices."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
