"""An agent's end: its keys forgotten, its machine, name and address removed, each seen to be gone; its mail stays in
the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.engine.steps import Steps
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.progress import Part, Progress
from tinyfat.flows.watch import MachineRuns
from tinyfat.ports.ledger import Agents, KeysEnd

FLOW = "retire"


class Retire:
    def __init__(
        self, agents: Agents, keys: KeysEnd, kinds: MachineKinds, machine_runs: MachineRuns, addressing: Addressing
    ) -> None:
        self._agents = agents
        self._keys = keys
        self._kinds = kinds
        self._machine_runs = machine_runs
        self._addressing = addressing
        self._progress = Progress(agents, FLOW)

    async def run(self, steps: Steps, agent_id: str) -> None:
        agent = await steps.again("agent", lambda: self._agents.get(agent_id))
        await steps.run("begin", lambda: self._begin(agent_id))
        complaints = [
            await self._progress.part(steps, agent_id, name, part) for name, part in self._parts(agent)
        ]  # each is tried, whatever became of the one before: what costs money goes first
        complaint = " And: ".join(filter(None, complaints))
        # With a complaint it is still DESTROYING: no mail is taken, and `agent destroy` may be said again.
        state = AgentState.DESTROYING if complaint else AgentState.DESTROYED
        await steps.run("done", lambda: self._agents.become(agent_id, state, complaint))

    async def _begin(self, agent_id: str) -> None:
        """Its keys go first: from here on it spends nothing, however long its machine takes to end."""
        await self._keys.forget(agent_id)
        await self._agents.steps_again(agent_id, FLOW)

    def _parts(self, agent: Agent) -> Sequence[tuple[str, Part]]:
        if not self._kinds.is_server(agent.machine_kind):
            return (("end the machine", self._end),)
        return (
            ("end the machine", self._end),
            ("name out of the DNS", self._unpoint),
            ("let the address go", self._release),
        )

    async def _end(self, agent: Agent) -> str:
        await self._machine_runs.end(agent)
        return ""

    async def _unpoint(self, agent: Agent) -> str:
        await self._addressing.unpoint(agent)
        return ""

    async def _release(self, agent: Agent) -> str:
        await self._addressing.release_all(agent)
        return ""
