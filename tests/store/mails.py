"""Mail taken in by the real intake, on a database, from whomever a test says."""

from __future__ import annotations

import ipaddress
from email.message import EmailMessage
from typing import Any

from tests.running import OWNER, letter
from tinyfat.domain.agents import Agent, RuntimeKind
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.flows.intake import MailIntake
from tinyfat.ports.mail import Authentication, Envelope
from tinyfat.store.agents import AgentStore
from tinyfat.store.database import Database
from tinyfat.store.mail import MailStore
from tinyfat.store.quotas import Quotas

LOOPBACK = "127.0.0.1"
ELSEWHERE = "192.0.2.1"


class _Unproved:
    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        return Authentication(False, "spf=none dkim=none")


class Mails:
    """From LOOPBACK a sender is proved, from ELSEWHERE not."""

    def __init__(self, database: Database, quotas: Quotas | None = None) -> None:
        self.database = database
        self.agents = AgentStore(database)
        self.ledger = MailStore(database, RateCaps(1000, 1000), quotas)
        self.started: list[str] = []
        trusted = [ipaddress.ip_network("127.0.0.0/8")]
        self.intake = MailIntake(
            "tinyfat.localhost", trusted, self.agents, self.ledger, _Unproved(), self._start, b"secret"
        )

    async def _start(self, turn_id: str, attempt: int) -> None:
        self.started.append(turn_id)

    async def agent(self, name: str, owner: str = OWNER) -> Agent:
        return await self.agents.create(name, owner, RuntimeKind.ECHO, "process")

    async def take(self, mail: EmailMessage, *names: str, client: str = LOOPBACK, mail_from: str = OWNER) -> str:
        """The row's id, of the first agent's."""
        addresses = [f"{name}@tinyfat.localhost" for name in names or ("ada",)]
        return await self.intake.accept(Envelope(client, "peer.example.org", mail_from), addresses, mail.as_bytes())

    async def stranger(self, number: int, *names: str, text: str = "Hello", sender: str = "") -> str:
        sender = sender or f"stranger{number}@example.net"
        mail = letter(text, sender=sender, message_id=f"<{number}@example.net>")
        return await self.take(mail, *names, client=ELSEWHERE, mail_from=sender)

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def one(self, query: str, *values: Any) -> Any:
        return (await self.rows(query, *values))[0][0]
