"""Flows that a crash left unbegun, and ends that failed: begun by whichever control plane looks next.

An agent's row and its flow are two commits. Whoever dies between them leaves an agent that is being made, or destroyed,
by nobody; what costs money would then go on until somebody says so again.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyfat.domain.agents import AgentState
from tinyfat.engine.steps import FlowStatus
from tinyfat.flows import provision, retire
from tinyfat.ports.ledger import Agents

UNBEGUN_SECONDS = 30.0  # a flow that is begun as it should be has its first step within it
END_AGAIN_SECONDS = 600.0  # after an end that failed


class Begun:
    def __init__(self, agents: Agents, engine: FlowStatus, clock: Callable[[], float]) -> None:
        """`clock`: seconds, the same for every process."""
        self._agents = agents
        self._engine = engine
        self._clock = clock

    async def sweep(self) -> None:
        """Of several processes that look at once one begins a flow: its id is the same for all."""
        for agent_id in await self._agents.unbegun(provision.FLOW, AgentState.CREATING, UNBEGUN_SECONDS):
            agent = await self._agents.get(agent_id)
            await self._engine.start(provision.FLOW, provision.flow_id(agent), agent_id)
        unended = await self._agents.unended(END_AGAIN_SECONDS)
        unended += await self._agents.unbegun(retire.FLOW, AgentState.DESTROYING, UNBEGUN_SECONDS)
        period = int(self._clock() // END_AGAIN_SECONDS)
        for agent_id in unended:
            await self._engine.start(retire.FLOW, f"{retire.FLOW}:{agent_id}:again {period}", agent_id)
