"""An agent's end: its machine stopped, seen to be stopped, deleted, seen to be gone; its mail stays in the ledger."""

from __future__ import annotations

from tinyfat.domain.agents import AgentState
from tinyfat.engine.steps import Steps
from tinyfat.flows.watch import MachineRuns, StillThere
from tinyfat.ports.ledger import Agents
from tinyfat.ports.machines import MachinesError

FLOW = "retire"


class Retire:
    def __init__(self, agents: Agents, machine_runs: MachineRuns) -> None:
        self._agents = agents
        self._machine_runs = machine_runs

    async def run(self, steps: Steps, agent_id: str) -> None:
        complaint = await steps.run("end the machine", lambda: self._end(agent_id))
        # With a complaint it is still DESTROYING: no mail is taken, and `agent destroy` may be said again.
        state = AgentState.DESTROYING if complaint else AgentState.DESTROYED
        await steps.run("done", lambda: self._agents.become(agent_id, state, complaint))

    async def _end(self, agent_id: str) -> str:
        try:
            await self._machine_runs.end(await self._agents.get(agent_id))
        except (StillThere, MachinesError) as error:
            return str(error)
        return ""
