"""A mail arrives: read it, prove its sender, judge it, commit it, and only then say yes to the peer."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.addresses import (
    AddressRefused,
    Recipient,
    bounce_of,
    is_bounce_form,
    operator_mailbox,
    parse_recipient,
    sender_allowed,
)
from tinyfat.domain.mail.judgement import came_back
from tinyfat.domain.mail.message import Mail
from tinyfat.engine.mail_reading import MailReading
from tinyfat.ports.ledger import Agents, Incoming, MailLedger, NotFound
from tinyfat.ports.mail import (
    Authentication,
    Envelope,
    OperatorMailbox,
    RecipientAway,
    SenderAuthentication,
    UnknownRecipient,
)
from tinyfat.recipes.turn_text import turn_text

_NOT_ADDRESSED = "DKIM alone, and no signed To or Cc names this agent"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
StartTurn = Callable[[str, int], Awaitable[None]]


class MailIntake:
    """Implements ports/mail Intake."""

    def __init__(
        self,
        domain: str,
        trusted: Sequence[Network],
        agents: Agents,
        ledger: MailLedger,
        authentication: SenderAuthentication,
        start_turn: StartTurn,
        bounce_secret: bytes,
        room: Callable[[int], None] = lambda size: None,
        mails: MailReading | None = None,
        operator: OperatorMailbox | None = None,
    ) -> None:
        """`room`: raises NoRoom where a mail of so many bytes cannot be taken, whoever it is from. `operator`: without
        one, nobody reads postmaster@."""
        self._domain = domain
        self._trusted = tuple(trusted)
        self._agents = agents
        self._ledger = ledger
        self._authentication = authentication
        self._start_turn = start_turn
        self._bounce_secret = bounce_secret
        self._room = room
        self._mails = mails or MailReading()
        self._operator = operator

    def room(self, size: int) -> None:
        self._room(size)

    async def recipient(self, address: str) -> None:
        if not self._operators(address):
            await self._agent_of(address)

    async def accept(self, envelope: Envelope, recipients: Sequence[str], raw: bytes) -> str:
        self._room(len(raw))
        mail = await self._mails.read(raw, envelope.client_ip)
        kept = ""
        for address in recipients:
            if self._operator is not None and (mailbox := self._operators(address)):
                kept = await self._operator.keep(mailbox, address, envelope, mail, raw)
        recipients = [address for address in recipients if not self._operators(address)]
        if not recipients:
            return kept
        proof = await self._prove(envelope, mail, raw)
        incoming = [await self._incoming(envelope, address, mail, raw, proof) for address in recipients]
        unique = {one.agent.id: one for one in reversed(incoming)}  # one mail for one agent, however often it is named
        accepted = await self._ledger.accept(list(unique.values()))
        for one in accepted:
            if one.start_turn:
                await self._start_turn(one.start_turn, 1)
        return accepted[0].message_id

    def _operators(self, address: str) -> str:
        """The operator's mailbox that an address names, or ""."""
        return operator_mailbox(address, self._domain) if self._operator is not None else ""

    async def _agent_of(self, address: str) -> tuple[Agent, list[str], Recipient]:
        """The agent, who may write to it, and the address in its parts. Raises UnknownRecipient, RecipientAway."""
        try:
            recipient = parse_recipient(address)
            if recipient.domain != self._domain:
                raise UnknownRecipient(_not_taken(address, Failure(FailureId.NOT_OUR_DOMAIN, {"domain": self._domain})))
            agent, patterns = await self._agents.addressee(recipient.name)
        except AddressRefused:
            raise UnknownRecipient(_not_taken(address, Failure(FailureId.ADDRESS_MALFORMED))) from None
        except NotFound:
            raise UnknownRecipient(_not_taken(address, Failure(FailureId.NO_SUCH_AGENT))) from None
        if agent.state is AgentState.DESTROYING:
            raise UnknownRecipient(_not_taken(address, Failure(FailureId.AGENT_GONE)))
        if agent.state is AgentState.FAILED:
            raise RecipientAway(_not_taken(address, Failure(FailureId.AGENT_NOT_MADE)))
        return agent, patterns, recipient

    def _names(self, address: str, agent: Agent) -> bool:
        name = address.removesuffix(f"@{self._domain}").partition("+")[0]
        return address.endswith(f"@{self._domain}") and name == agent.name

    async def _is_own_agent(self, address: str) -> bool:
        if not address.endswith(f"@{self._domain}"):
            return False
        try:
            await self._agent_of(address)
        except UnknownRecipient:
            return False
        except RecipientAway:
            pass
        return True

    async def _prove(self, envelope: Envelope, mail: Mail, raw: bytes) -> Authentication:
        if self._is_trusted(envelope.client_ip):
            return Authentication(True, f"trusted network ({envelope.client_ip})")
        if not mail.from_address:
            return Authentication(False, "the From header does not name exactly one address")
        return await self._authentication.check(raw, envelope, mail.from_address)

    def _is_trusted(self, client_ip: str) -> bool:
        try:
            address = ipaddress.ip_address(client_ip)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._trusted)

    async def _incoming(
        self, envelope: Envelope, address: str, mail: Mail, raw: bytes, proof: Authentication
    ) -> Incoming:
        agent, patterns, recipient = await self._agent_of(address)
        # A signature alone does not say whom its signer wrote to: anybody could pass the mail on (RFC 6376 8.6).
        addressed = proof.recipients is None or any(self._names(one, agent) for one in proof.recipients)
        local = address.strip("<> ").rpartition("@")[0]
        sealed, to_return_path = bounce_of(local, self._bounce_secret) or "", is_bounce_form(local)
        return Incoming(
            agent=agent,
            tag="" if to_return_path else recipient.tag,
            recipient=address,
            mail=mail,
            envelope=envelope,
            raw=raw,
            question=turn_text(mail, f"{agent.name}@{self._domain}"),
            proved=proof.passed and addressed,
            authentication=proof.detail if addressed else f"{proof.detail} ({_NOT_ADDRESSED})",
            allowed=bool(mail.from_address) and sender_allowed(patterns, mail.from_address),
            from_own_agent=await self._is_own_agent(mail.from_address),
            from_itself=self._names(mail.from_address, agent),
            named=mail.from_address in patterns,
            to_return_path=to_return_path,
            bounced_message=sealed if came_back(mail, envelope.mail_from) else "",
        )


def _not_taken(address: str, why: Failure) -> str:
    """The reply to RCPT TO, which the sender's mail system quotes in its bounce."""
    return f"<{address}>: {why.text()}"
