"""The owner is told that their agent is there, and how to use it: one mail, however often this runs."""

from __future__ import annotations

from collections.abc import Callable

from tinyfat.domain.agents import Agent
from tinyfat.domain.ssh_keys import fingerprint
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.owner_mail import OwnerMail
from tinyfat.ports.server_ledger import AgentKeys
from tinyfat.recipes.welcome_mail import WelcomeFacts, welcome_subject, welcome_text


class Welcome:
    def __init__(
        self, mail: OwnerMail, keys: AgentKeys, addressing: Addressing, host_key: Callable[[str], str]
    ) -> None:
        """`host_key`: the public line of an agent's server, by the agent's id."""
        self._mail = mail
        self._keys = keys
        self._addressing = addressing
        self._host_key = host_key

    async def write(self, agent: Agent) -> str:
        host, name = await self._addressing.reached_at(agent), self._addressing.name(agent)
        facts = WelcomeFacts(
            agent.name,
            self._mail.sender(agent),
            agent.owner,
            host,
            fingerprint(self._host_key(agent.id)),
            len(await self._keys.list(agent.id)),
            name if host == name else "",
        )
        subject = welcome_subject(agent.name)
        await self._mail.write(agent, "welcome", agent.created_at, subject, welcome_text(facts))
        return ""
