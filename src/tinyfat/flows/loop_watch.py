"""The owner is told, once, that a conversation of their agent is held because it looks like a loop.

The hold is in the ledger before anybody is told; the notice's Message-ID comes from the sender and the day, so that a
crash in between costs time, and a second process or a second held mail writes no second notice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.flows.owner_mail import OwnerMail
from tinyfat.ports.ledger import Agents

AT_ONCE_MAX = 100
ID_DIGITS_SHOWN = 12

log = logging.getLogger(__name__)


class Held(Protocol):
    @property
    def message_id(self) -> str: ...
    @property
    def agent_id(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def occasion(self) -> str: ...


class Loops(Protocol):
    async def untold(self, limit: int) -> Sequence[Held]: ...


class LoopWatch:
    def __init__(self, loops: Loops, agents: Agents, mail: OwnerMail) -> None:
        self._loops = loops
        self._agents = agents
        self._mail = mail

    async def tell_owners(self) -> int:
        """Returns how many notices were written. One that cannot be does not hold up the others."""
        told = 0
        for held in await self._loops.untold(AT_ONCE_MAX):
            agent = await self._agents.get(held.agent_id)
            fields = {"sender": held.sender, "message": held.message_id[:ID_DIGITS_SHOWN]}
            failure = Failure(FailureId.LOOP_HELD, fields)
            text = f"{failure.words(agent.name)}\n\n{failure.help(agent.name)}"
            try:
                await self._mail.write(agent, held.occasion, held.at, failure.subject(agent.name), text)
                told += 1
            except ValueError as error:
                log.error("the notice of a loop of %s cannot be written: %s", agent.name, error)
        return told
