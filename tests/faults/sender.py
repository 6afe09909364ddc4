"""Sending mail servers: each keeps a mail until it was answered 250, and offers it again with the same Message-ID."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.machine_speed import patient
from tests.running import OWNER, letter

STEP_SECONDS_MAX = 30.0  # one answer of the receiving server
DELIVERY_SECONDS_MAX = 180.0  # one mail, all attempts; a real server would go on for days
PAUSE_SECONDS = (0.05, 0.4)  # between two attempts; a real server waits for minutes
LOST_ANSWERS = 0.05  # so many connections break between the final dot and the answer


class Deferred(Exception):
    """Not answered 250: the mail stays with its sender."""


class Refused(AssertionError):
    """A 5xx for a mail that should have been taken."""


@dataclass(slots=True)
class Conversation:
    """Mails of one thread, in the order in which they were accepted: the next leaves when the last was answered 250."""

    name: str
    agent: str
    accepted: list[str] = field(default_factory=list)  # Message-IDs, as in the header


@dataclass(slots=True)
class Figures:
    attempts: int = 0
    deferred: int = 0  # attempts that were not answered 250
    answers_lost: int = 0  # of those: the connection broke after the final dot


class Sender:
    """What stays the same over a scenario: where to send, how often an answer gets lost, what was accepted."""

    def __init__(self, seed: int, ports: Callable[[], Sequence[int]], *, slow: float, pace: float, talk: int) -> None:
        """`ports`: the receiving servers, like MX hosts of the same preference. `slow`: the share of mails whose turn
        takes 0.3 s. `pace`: seconds between two mails of a conversation, on average. `talk`: mails of a conversation;
        then another one begins."""
        self._seed = seed
        self._ports = ports
        self._slow = slow
        self._pace = pace
        self._talk = talk
        self.conversations: list[Conversation] = []
        self.figures = Figures()
        self._round = 0

    @property
    def accepted(self) -> int:
        return sum(len(conversation.accepted) for conversation in self.conversations)

    @asynccontextmanager
    async def writing(self, agents: Sequence[str]) -> AsyncIterator[None]:
        """One correspondent for each name (a name may stand there twice) until the block ends; then each finishes the
        mail it is at. Whatever went wrong with one of them is raised at the end."""
        self._round += 1
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number, agent in enumerate(agents):
                group.create_task(self._correspondent(agent, number, stop))
            try:
                yield
            finally:
                stop.set()

    def begin(self, agent: str, name: str) -> Conversation:
        """`name`: another one each time."""
        conversation = Conversation(name, agent)
        self.conversations.append(conversation)
        return conversation

    async def write(self, conversation: Conversation, chance: random.Random) -> None:
        """The next mail of this conversation, until it is accepted."""
        number = len(conversation.accepted) + 1
        message_id = f"<{number}.{conversation.name}@example.org>"
        text = f"mail {number} of {conversation.name}\n"
        if chance.random() < self._slow:
            text += "echo: sleep 0.3\n"
        mail = letter(
            text,
            to=f"{conversation.agent}@tinyfat.localhost",
            subject=conversation.name,
            message_id=message_id,
            in_reply_to=conversation.accepted[0] if conversation.accepted else "",
        )
        await self._deliver(mail.as_bytes(), conversation.agent, chance)
        conversation.accepted.append(message_id)

    async def _correspondent(self, agent: str, number: int, stop: asyncio.Event) -> None:
        chance = random.Random(f"{self._seed} {agent} {number}")
        part = 0
        while not stop.is_set():
            part += 1
            conversation = self.begin(agent, f"{agent}-{self._round}-{number}-{part}")
            while not stop.is_set() and len(conversation.accepted) < self._talk:
                await self.write(conversation, chance)
                await _wait(stop, chance.uniform(0.2, 1.8) * self._pace)

    async def _deliver(self, raw: bytes, agent: str, chance: random.Random) -> None:
        async with asyncio.timeout(patient(DELIVERY_SECONDS_MAX)):
            while True:
                self.figures.attempts += 1
                port = chance.choice(list(self._ports()))
                lose = chance.random() < LOST_ANSWERS
                try:
                    await _transaction(port, f"{agent}@tinyfat.localhost", raw, lose)
                    return
                except AnswerLost:
                    self.figures.answers_lost += 1
                except (Deferred, OSError, TimeoutError):
                    pass
                self.figures.deferred += 1
                await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))


class AnswerLost(Deferred):
    """The mail was given away whole, and what became of it is not known."""


async def _transaction(port: int, recipient: str, raw: bytes, lose: bool) -> None:
    """One mail by SMTP (RFC 5321). Returns at 250. Raises Deferred, AnswerLost, OSError, TimeoutError; Refused at 5xx.

    `lose`: hang up after the final dot, without waiting for its answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await _expect(reader, b"220")
        for command, code in (("EHLO mx.example.org", b"250"), (f"MAIL FROM:<{OWNER}>", b"250")):
            await _say(reader, writer, command.encode(), code)
        await _say(reader, writer, f"RCPT TO:<{recipient}>".encode(), b"250")
        await _say(reader, writer, b"DATA", b"354")
        body = re.sub(rb"\r?\n", b"\r\n", raw)
        writer.write(re.sub(rb"(?m)^\.", b"..", body) + b"\r\n.\r\n")
        await writer.drain()
        if lose:
            raise AnswerLost
        try:
            await _expect(reader, b"250")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise AnswerLost from error
    finally:
        writer.transport.abort() if lose else writer.close()


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes, code: bytes) -> None:
    writer.write(line + b"\r\n")
    await _expect(reader, code)


async def _expect(reader: asyncio.StreamReader, code: bytes) -> None:
    async with asyncio.timeout(patient(STEP_SECONDS_MAX)):
        line = await reader.readline()
        while line[3:4] == b"-":
            line = await reader.readline()
    if line.startswith(code):
        return
    if line.startswith(b"5"):
        raise Refused(line.decode(errors="replace"))
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the server hung up")
    raise Deferred(line.decode(errors="replace"))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(patient(seconds)):
            await event.wait()
    except TimeoutError:
        pass
