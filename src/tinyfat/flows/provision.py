"""An agent comes to be: a machine for it, the box's first word, the runtime ready, a real question answered.

Where the machine is a server of its own, there is more to it: an address that outlives it, a name that leads there, and
a mail that tells the owner how to use it. A machine of the warm pool has all but the agent's identity.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.enrolment import ENROLMENT_SECONDS_MAX
from tinyfat.engine.steps import Steps
from tinyfat.flows.first_words import FirstWords
from tinyfat.flows.orders import Orders, machine_id_of
from tinyfat.flows.progress import Part, Progress, StillThere
from tinyfat.flows.server_making import ServerMaking
from tinyfat.flows.watch import MachineRuns, until
from tinyfat.flows.welcome import Welcome
from tinyfat.ports.dns import DnsError
from tinyfat.ports.ledger import Agents, MachineRecords, Turns
from tinyfat.ports.machines import MachinesError, MachinesUnreachable
from tinyfat.ports.requests import RequestsShort

FLOW = "provision"
ORDER_SECONDS_MAX = 120.0  # a provider that does not answer is asked again for so long
HEARTBEAT_SECONDS_MAX = 60.0
PROBE = "probe"
ENROLLED_SECONDS_MAX = ENROLMENT_SECONDS_MAX + 60.0  # a server boots, fetches the box and enrols before it speaks


class Provision:
    def __init__(
        self,
        agents: Agents,
        making: ServerMaking,
        records: MachineRecords,
        turns: Turns,
        orders: Orders,
        machine_runs: MachineRuns,
        welcome: Welcome,
        host: str,
    ) -> None:
        self._agents = agents
        self._making = making
        self._kinds = making.kinds
        self._records = records
        self._orders = orders
        self._machine_runs = machine_runs
        self._welcome = welcome
        self._host = host
        self._words = FirstWords(records, turns)
        self._progress = Progress(agents, FLOW)

    async def run(self, steps: Steps, agent_id: str) -> None:
        agent = await steps.again("agent", lambda: self._agents.get(agent_id))
        for name, part in self._parts(agent):
            if complaint := await self._progress.part(steps, agent_id, name, _while_creating(part)):
                await steps.run("undo", lambda complaint=complaint: self._undo(agent_id, complaint))  # type: ignore[misc]
                return
        await steps.run("done", lambda: self._agents.become(agent_id, AgentState.READY, "", AgentState.CREATING))

    def _parts(self, agent: Agent) -> Sequence[tuple[str, Part]]:
        """Always the same for the same agent: a flow that goes on after a crash meets the parts it remembers."""
        answers: Sequence[tuple[str, Part]] = (
            ("runtime ready", self._ready),
            ("a real question answered", lambda agent: self._words.question(agent, PROBE + _attempt(agent))),
        )
        if not self._kinds.is_server(agent.machine_kind):
            return (
                ("order a machine", self._cleared(self._order)),
                ("first word of the box", self._heartbeat),
                *answers,
            )
        return (
            ("look in the warm pool", self._cleared(self._making.claim)),
            ("order a machine", self._making.order),
            ("name in the DNS", self._making.point),
            ("first word of the box", self._enrolled),
            *answers,
            ("welcome mail", self._welcome.write),
        )

    def _cleared(self, part: Part) -> Part:
        """Of an earlier making that failed, a machine may be left that did not end."""

        async def after_the_end(agent: Agent) -> str:
            left = await self._records.of_agent(agent.id)
            if left is not None and not left.wanted:
                await self._machine_runs.end(agent)
            return await part(agent)

        return after_the_end

    async def _order(self, agent: Agent) -> str:
        order = self._orders.of(agent)
        await self._records.create(
            order.id, agent.id, agent.machine_kind, self._host, self._orders.token_hash(order.id)
        )
        unreachable = ""

        async def ordered() -> bool:
            nonlocal unreachable
            try:
                await self._kinds.of(agent.machine_kind).start(order)
            except RequestsShort:
                raise
            except MachinesUnreachable as error:
                unreachable = str(error)
                return False
            return True

        return "" if await until(ordered, ORDER_SECONDS_MAX) else unreachable

    async def _heartbeat(self, agent: Agent) -> str:
        return await self._first_word(agent, HEARTBEAT_SECONDS_MAX)

    async def _enrolled(self, agent: Agent) -> str:
        return await self._first_word(agent, ENROLLED_SECONDS_MAX)

    async def _first_word(self, agent: Agent, seconds: float) -> str:
        async def still_wanted() -> bool:
            return (await self._agents.get(agent.id)).state is AgentState.CREATING

        return await self._words.first_word(await self._machine(agent), agent.name, seconds, still_wanted)

    async def _ready(self, agent: Agent) -> str:
        return await self._words.ready(await self._machine(agent), agent.name)

    async def _machine(self, agent: Agent) -> str:
        """The machine's id. Destroyed meanwhile, it has none; the one it would have had says nothing."""
        machine = await self._records.of_agent(agent.id)
        return machine.id if machine else machine_id_of(agent.id)

    async def _undo(self, agent_id: str, complaint: str) -> None:
        """Nothing half made stays behind; the agent's row does, with the reason."""
        agent = await self._agents.get(agent_id)
        parts: list[Callable[[], Awaitable[None]]] = [lambda: self._machine_runs.end(agent)]
        if self._kinds.is_server(agent.machine_kind):
            parts += [lambda: self._end_unknown(agent), *self._making.unmaking(agent)]
        for part in parts:  # each is tried, whatever became of the one before
            try:
                await part()
            except (StillThere, MachinesError, DnsError) as still_there:
                complaint = f"{complaint} And: {still_there}"
        await self._agents.become(agent_id, AgentState.FAILED, complaint, AgentState.CREATING)

    async def _end_unknown(self, agent: Agent) -> None:
        """Destroyed while its server was ordered, the row may be gone already: by its id it is found all the same."""
        if await self._records.get(machine_id_of(agent.id)) is None:
            await self._machine_runs.delete(agent.machine_kind, machine_id_of(agent.id), agent.name)


def flow_id(agent: Agent) -> str:
    """Of the making that is under way: each time an agent that failed is made anew, it has another."""
    return f"{FLOW}:{agent.id}{_attempt(agent)}"


def _attempt(agent: Agent) -> str:
    """Empty for the first making of an agent."""
    return "" if agent.state_since == agent.created_at else f":{agent.state_since.isoformat()}"


def _while_creating(part: Part) -> Part:
    async def guarded(agent: Agent) -> str:
        if agent.state is not AgentState.CREATING:
            return f"{agent.name} was destroyed while it was being made."
        return await part(agent)

    return guarded
