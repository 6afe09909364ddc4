"""A mail of our own to an agent's owner: once for each occasion, however often this runs."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from tinyfat.domain.agents import Agent
from tinyfat.flows.delivery import Delivery
from tinyfat.ports.usage import Notice
from tinyfat.recipes.notice_mail import notice_mail


class Notices(Protocol):
    async def record(self, agent_id: str, notice: Notice) -> str: ...


class OwnerMail:
    def __init__(self, domain: str, notices: Notices, delivery: Delivery) -> None:
        self._domain = domain
        self._notices = notices
        self._delivery = delivery

    def sender(self, agent: Agent) -> str:
        return f"{agent.name}@{self._domain}"

    async def write(self, agent: Agent, occasion: str, at: datetime, subject: str, text: str) -> None:
        """`occasion` and `at` are the same when it is written again after a crash: so it is the same mail. That the
        smarthost is away is no failure of the agent: the mail waits in the ledger as every other does."""
        sender = self.sender(agent)
        message_id = f"<{occasion}.{agent.id}@{self._domain}>"
        raw = notice_mail(sender, agent.owner, message_id, at, subject, text)
        notice = Notice(message_id, sender, agent.owner, subject, raw)
        await self._delivery.attempt(await self._notices.record(agent.id, notice))
