"""What the flows ask of our own Postgres: agents, machines, mail, turns.

    LedgerError
    ├── StoreUnavailable   the database does not answer: wait and ask again
    ├── SchemaTooNew       a newer TinyFat has been here
    ├── NotFound           no such agent, message or machine
    └── Conflict           it is there already, or in a state that forbids this
        └── OthersThere    agents of other owners are on machines of that kind

The ledger has no memory twin: that a mail is accepted once and a turn answered once is held by its constraints and
transactions, and a twin of those would be a second database (docs/decisions/0003-ledger-is-postgres.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tinyfat.domain.agents import ANYWHERE, Agent, AgentState, Place, RuntimeKind
from tinyfat.domain.link import LogLine, Status
from tinyfat.domain.machines import Machine
from tinyfat.domain.mail.message import Mail
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.turns import Turn, TurnResult, TurnState
from tinyfat.ports.mail import Envelope


class LedgerError(Exception):
    """The ledger could not do this."""


class NotStorable(ValueError):
    """A text that no table can hold."""


class StoreUnavailable(LedgerError):
    """The database does not answer."""


class SchemaTooNew(LedgerError):
    """The database was migrated by a newer TinyFat."""


class NotFound(LedgerError):
    """There is no such thing."""


class Conflict(LedgerError):
    """What is there already forbids this."""


class OthersThere(Conflict):
    """Agents of other owners are on machines of this kind, and it was to be one owner's alone."""

    def __init__(self, owners: Sequence[str]) -> None:
        super().__init__(f"Agents of {', '.join(owners)} are on machines of that kind.")
        self.owners = tuple(owners)


@dataclass(frozen=True, slots=True)
class Step:
    """A flow's progress, as people see it."""

    flow: str
    name: str
    started_at: datetime
    ended_at: datetime | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OperatorMail:
    """A mail to one of the operator's own mailboxes."""

    id: str
    mailbox: str  # postmaster, abuse, ...
    recipient: str
    sender: str
    subject: str
    message_id: str
    client_ip: str
    size: int  # bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the mail ledger. `at`: accepted (in) or written (out)."""

    id: str
    agent_id: str
    direction: str  # "in" or "out"
    message_id: str  # as in the header, angle brackets included
    in_reply_to: str
    thread: str
    sender: str
    recipient: str
    subject: str
    state: MessageState
    reason: str
    size: int  # bytes
    at: datetime
    turn_id: str | None = None
    delivered_at: datetime | None = None
    attempts: int = 0
    response: str = ""  # the smarthost's last word
    authentication: str = ""
    body_gone_at: datetime | None = None  # deleted by its age


@dataclass(frozen=True, slots=True)
class Incoming:
    """One mail for one agent, read, its sender proved or not: what `accept` decides on and commits."""

    agent: Agent
    tag: str
    recipient: str  # the address it was sent to, as the peer wrote it
    mail: Mail
    envelope: Envelope
    raw: bytes
    question: str  # the turn's text
    proved: bool  # an aligned pass, or a trusted network
    authentication: str
    allowed: bool  # on the allow-list
    named: bool  # the owner, or on the list by the address itself
    to_return_path: bool  # it came to an address that only our envelopes have
    from_own_agent: bool  # of this TinyFat
    from_itself: bool  # the very agent it is for
    bounced_message: str  # id of our message this is a bounce of; "" otherwise


@dataclass(frozen=True, slots=True)
class Accepted:
    message_id: str  # the row's id
    agent_id: str
    state: MessageState
    duplicate: bool
    start_turn: str = ""  # the turn to start now: it is the first of its thread


@dataclass(frozen=True, slots=True)
class TurnRow:
    id: str
    agent_id: str
    thread_id: str | None
    message_row: str | None  # the incoming message; None for a probe
    state: TurnState
    session: str
    question: str
    deadline_at: datetime | None
    attempt: int
    seconds_left: float  # until the deadline, by the database's clock
    result_at: datetime | None = None
    result: TurnResult | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A reply to record: made from the turn alone, so that making it twice makes the same mail."""

    turn_id: str
    agent_id: str
    thread_id: str
    message_id: str
    in_reply_to: str
    sender: str
    recipient: str
    subject: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class ToDeliver:
    id: str  # the message row's
    agent_name: str
    recipient: str
    raw: bytes
    attempts: int
    first_at: datetime  # when it was written: 5 days from then it expires


class Agents(Protocol):
    async def create(
        self,
        name: str,
        owner: str,
        runtime: RuntimeKind,
        machine_kind: str,
        place: Place = ANYWHERE,
        kept_seconds: float = 0.0,
    ) -> Agent:
        """With its budget, in one commit. Raises Conflict where the name is taken, or is kept for another owner whose
        agent had it until less than `kept_seconds` ago."""

    async def find(self, name: str) -> Agent: ...
    async def get(self, agent_id: str) -> Agent: ...
    async def addressee(self, name: str) -> tuple[Agent, list[str]]: ...
    async def all(self) -> list[Agent]: ...
    async def become(
        self, agent_id: str, state: AgentState, reason: str = "", only_from: AgentState | None = None
    ) -> None: ...
    async def senders(self, agent_id: str) -> list[str]: ...
    async def allow(self, agent_id: str, pattern: str) -> None: ...
    async def deny(self, agent_id: str, pattern: str) -> bool: ...
    async def placed(self, agent_id: str, image: str, size: str) -> None: ...
    async def steps_again(self, agent_id: str, flow: str) -> None: ...
    async def steps(self, agent_id: str) -> list[Step]: ...
    async def step_begun(self, agent_id: str, flow: str, name: str) -> None: ...
    async def step_says(self, agent_id: str, flow: str, name: str, detail: str) -> None:
        """What a step that is under way waits for, in words for people."""

    async def step_ended(self, agent_id: str, flow: str, name: str, detail: str = "") -> None: ...
    async def unbegun(self, flow: str, state: AgentState, seconds: float) -> list[str]:
        """Ids of agents in this state for longer than that, of whose flow no step has begun."""

    async def unended(self, seconds: float) -> list[str]:
        """Ids of agents whose end was tried and failed, with the last step over for longer than that."""


class KeysEnd(Protocol):
    async def forget(self, agent_id: str) -> None:
        """An agent's end: its keys of the relay open nothing more, and its owner's own are deleted. Safe to repeat."""


class MachineRecords(Protocol):
    async def create(self, machine_id: str, agent_id: str, kind: str, host: str, token_hash: bytes) -> None: ...
    async def get(self, machine_id: str) -> Machine | None: ...
    async def of_agent(self, agent_id: str) -> Machine | None: ...
    async def all_of_agent(self, agent_id: str) -> list[Machine]: ...
    async def wanted(self, host: str) -> list[Machine]: ...
    async def by_token(self, token_hash: bytes) -> Machine | None: ...
    async def unwanted(self, machine_id: str) -> None: ...
    async def forget(self, machine_id: str) -> None: ...
    async def heard(self, machine_id: str, status: Status) -> None: ...
    async def word(self, machine_id: str, seconds: float) -> None: ...
    async def add_log(self, agent_id: str, lines: Sequence[LogLine]) -> None: ...
    async def log(self, agent_id: str, after: int, limit: int) -> list[tuple[int, LogLine]]: ...


class Turns(Protocol):
    async def probe(self, turn_id: str, agent_id: str, question: str) -> None: ...
    async def offer(self, turn_id: str, deadline_seconds: float) -> None: ...
    async def open_for(self, machine_id: str) -> list[str]: ...
    async def unreceived(self, machine_ids: Sequence[str]) -> list[tuple[str, str]]: ...
    async def for_box(self, turn_id: str, machine_id: str) -> Turn | None: ...
    async def received(self, turn_id: str, machine_id: str) -> None: ...
    async def expected(self, turn_ids: Sequence[str], machine_id: str) -> set[str]: ...
    async def answered(self, turn_id: str, machine_id: str, result: TurnResult) -> None: ...
    async def give_up(self, turn_id: str, result: TurnResult) -> None: ...
    async def load(self, turn_id: str) -> TurnRow: ...
    async def wait_for_result(self, turn_id: str) -> TurnRow: ...
    async def finish_probe(self, turn_id: str) -> None: ...
    async def startable(self, limit: int) -> list[tuple[str, int]]: ...
    async def retry_as(self, turn_id: str, attempt: int) -> None: ...


class MailLedger(Protocol):
    async def accept(self, incoming: Sequence[Incoming]) -> list[Accepted]: ...
    async def list(
        self, agent_id: str = "", limit: int = 1000, states: Sequence[str] = (), before: str = ""
    ) -> tuple[list[Message], bool]: ...
    async def show(self, row_id: str) -> tuple[Message, bytes]: ...
    async def release(self, row_id: str) -> Accepted: ...
    async def incoming_of(self, turn_id: str) -> tuple[Message, bytes]: ...
    async def record_reply(self, reply: Outgoing, state: TurnState) -> str: ...
    async def next_turn(self, thread_id: str) -> str: ...
    async def counts(self) -> dict[str, int]: ...


class Deliveries(Protocol):
    async def claim(self, row_id: str, lease_seconds: float) -> ToDeliver | None: ...
    async def due(self, limit: int) -> list[str]: ...
    async def delivered(self, row_id: str, response: str) -> str | None: ...
    async def deferred(self, row_id: str, response: str, again_seconds: float) -> None: ...
    async def undeliverable(self, row_id: str, state: MessageState, response: str) -> str | None: ...
    async def retry_now(self) -> None: ...
