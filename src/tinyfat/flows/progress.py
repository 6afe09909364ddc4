"""A flow's parts, with their times in the ledger, for people to watch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial

from tinyfat.domain.agents import Agent
from tinyfat.engine.steps import Steps
from tinyfat.ports.dns import DnsError
from tinyfat.ports.ledger import Agents
from tinyfat.ports.machines import MachinesError

Part = Callable[[Agent], Awaitable[str]]  # gives back "" or its complaint


_SAYS: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar("says", default=None)


async def say(words: str) -> None:
    """What the part that is under way waits for, to whoever watches it."""
    if (says := _SAYS.get()) is not None:
        await says(words)


class StillThere(Exception):
    """Something was told to end and is still there."""


class Progress:
    def __init__(self, agents: Agents, flow: str) -> None:
        self._agents = agents
        self._flow = flow

    async def part(self, steps: Steps, agent_id: str, name: str, part: Part) -> str:
        """Its complaint, or "": a failure is a result that is remembered, not an error to be tried again."""
        return await steps.run(name, partial(self._watched, agent_id, name, part))

    async def _watched(self, agent_id: str, name: str, part: Part) -> str:
        await self._agents.step_begun(agent_id, self._flow, name)
        token = _SAYS.set(partial(self._agents.step_says, agent_id, self._flow, name))
        try:
            complaint = await part(await self._agents.get(agent_id))
        except (MachinesError, DnsError, StillThere) as error:
            complaint = str(error)
        finally:
            _SAYS.reset(token)
        await self._agents.step_ended(agent_id, self._flow, name, complaint)
        return complaint
