"""The owner is told that their agent is there, and how to use it: one mail, however often this runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tinyfat.domain.agents import Agent
from tinyfat.domain.ssh_keys import fingerprint
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.delivery import Delivery
from tinyfat.ports.server_ledger import AgentKeys
from tinyfat.ports.usage import Notice
from tinyfat.recipes.notice_mail import notice_mail
from tinyfat.recipes.welcome_mail import WelcomeFacts, welcome_subject, welcome_text


class Notices(Protocol):
    async def record(self, agent_id: str, notice: Notice) -> str: ...


class Welcome:
    def __init__(
        self,
        domain: str,
        keys: AgentKeys,
        notices: Notices,
        delivery: Delivery,
        addressing: Addressing,
        host_key: Callable[[str], str],
    ) -> None:
        """`host_key`: the public line of an agent's server, by the agent's id."""
        self._domain = domain
        self._keys = keys
        self._notices = notices
        self._delivery = delivery
        self._addressing = addressing
        self._host_key = host_key

    async def write(self, agent: Agent) -> str:
        """That the smarthost is away is no failure of the agent: the mail waits in the ledger as every other does."""
        await self._delivery.attempt(await self._notices.record(agent.id, await self._notice(agent)))
        return ""

    async def _notice(self, agent: Agent) -> Notice:
        sender = f"{agent.name}@{self._domain}"
        message_id = f"<welcome.{agent.id}@{self._domain}>"
        subject = welcome_subject(agent.name)
        facts = WelcomeFacts(
            agent.name,
            sender,
            agent.owner,
            await self._addressing.reached_at(agent),
            fingerprint(self._host_key(agent.id)),
            len(await self._keys.list(agent.id)),
        )
        # Dated by the agent's making: written again after a crash, it is the same mail.
        raw = notice_mail(sender, agent.owner, message_id, agent.created_at, subject, welcome_text(facts))
        return Notice(message_id, sender, agent.owner, subject, raw)
