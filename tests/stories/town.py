"""What the stories share: a post office between several TinyFats, and the operator's API, quicker than a command."""

from __future__ import annotations

import asyncio
import email
import email.policy
import uuid
from dataclasses import dataclass
from typing import Any

import aiosmtplib
import httpx2
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.machine_speed import patient
from tests.mailbox import Mailbox, Received
from tests.running import OWNER, TinyFat, until
from tinyfat.cli.home import Home

REPLY_SECONDS = 30.0
LISTED_MAX = 10_000  # as many as a list of mails gives
MARKS = ("Auto-Submitted", "X-TinyFat-Loop", "X-Auto-Response-Suppress")


def new_id() -> str:
    return f"<{uuid.uuid4().hex}@example.org>"


class PostOffice(Mailbox):
    """A smarthost that keeps a copy of everything. Mail for a domain in `routes` goes on to that port of loopback,
    its marks of an automatic mail taken off: as the worst relay would."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: dict[str, int] = {}
        self.new_ids = False  # the relay gives each mail a Message-ID of its own, too

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        port = self.routes.get(envelope.rcpt_tos[0].rpartition("@")[2])
        if port is None or not answer.startswith("250"):
            return answer
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.SMTP)
        for mark in MARKS:
            del message[mark]
        if self.new_ids:
            message.replace_header("Message-ID", new_id())
        sender = str(message["From"].addresses[0].addr_spec)
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as onward:
            await onward.sendmail(sender, envelope.rcpt_tos, message.as_bytes())
        return answer

    def replies_to(self, message_id: str) -> list[Received]:
        return [one for one in self.received if one.in_reply_to == message_id]

    async def reply_to(self, message_id: str, seconds: float = REPLY_SECONDS) -> Received:
        """The reply to this mail; the test waits for it."""
        try:
            async with asyncio.timeout(patient(seconds)), self._arrived:
                await self._arrived.wait_for(lambda: self.replies_to(message_id))
        except TimeoutError:
            raise AssertionError(f"no reply to {message_id} within {seconds} s") from None
        return self.replies_to(message_id)[0]


class Operator:
    """The API of a running TinyFat, asked as its command line asks it."""

    def __init__(self, tinyfat: TinyFat) -> None:
        token = Home(tinyfat.home).operator_token()
        self._http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{tinyfat.http_port}/api/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=patient(30.0),
            trust_env=False,
        )

    async def __aenter__(self) -> Operator:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        response = await self._http.request(method, path, **more)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    async def make_agent(self, name: str, owner: str = OWNER) -> Any:
        await self.ask("POST", "agents", json={"name": name, "owner": owner, "runtime": "echo"})

        async def ready() -> bool:
            agent = await self.ask("GET", f"agents/{name}")
            assert agent["state"] in ("creating", "ready"), agent
            return bool(agent["state"] == "ready")

        await until(ready, 60.0, f"{name} is ready")
        return await self.ask("GET", f"agents/{name}")

    async def mail(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.ask("GET", f"agents/{name}/mail", params={"limit": LISTED_MAX})
        return found

    async def incoming(self, name: str, message_id: str) -> dict[str, Any]:
        """The one row of this mail in the agent's ledger."""
        (row,) = [m for m in await self.mail(name) if m["direction"] == "in" and m["message_id"] == message_id]
        return row

    async def outgoing(self, name: str, in_reply_to: str) -> dict[str, Any]:
        (row,) = [m for m in await self.mail(name) if m["direction"] == "out" and m["in_reply_to"] == in_reply_to]
        return row

    async def becomes(self, row_id: str, *states: str, seconds: float = REPLY_SECONDS) -> dict[str, Any]:
        """Wait until a message is in one of these states."""
        shown: dict[str, Any] = {}

        async def there() -> bool:
            shown.update(await self.ask("GET", f"mail/{row_id}"))
            return shown["state"] in states

        try:
            await until(there, seconds, f"message {row_id} is {' or '.join(states)}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {shown['state']}: {shown['reason']}") from None
        return shown


@dataclass(frozen=True)
class House:
    """A running TinyFat, where its mail goes, and its operator."""

    tinyfat: TinyFat
    office: PostOffice
    operator: Operator
    domain: str = "tinyfat.localhost"

    def turns_of(self, session: str) -> list[str]:
        """The ids of the turns an echo runtime of this home began in a session."""
        return [t["turn"] for t in self.tinyfat.turns_log() if t["session"] == session and t["event"] == "received"]
