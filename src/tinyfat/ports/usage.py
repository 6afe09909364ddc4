"""What the relay asks of our Postgres: may this call be made, and what became of it.

Every method that changes money is one atomic statement. `reserve` checks key, kill switch and caps and holds the money
in the same statement: nothing can come in between. A hold ends exactly once: settled, released, or swept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from tinyfat.domain.usage import Caps, Price, Refusal, Usage


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the relay asks for before a call."""

    call_id: str  # a UUID; the same twice is one hold
    key_hash: bytes
    amount: int  # nano-dollars: the most this call can cost, from the request's own bound on tokens
    surface: str  # "chat", "responses", "embeddings", "messages"
    alias: str  # what the agent asked for, e.g. "main"
    vendor: str
    model: str  # the vendor's id
    price: Price  # kept with the hold: a price that changes meanwhile does not change this call
    turn: str = ""  # as the box says; "" where it does not
    conversation: str = ""
    table_vendor: str = ""  # whom the operator's table names first for this alias: the owner's key there goes before
    owner_vendor: str | None = None  # whose key of the owner's `amount` is reckoned by, "": none. None: no matter
    least: int | None = None  # nano-dollars: where the caps leave less than `amount`, but this, what they leave is held
    quiet: bool = False  # a refusal by a cap is no news: it is asked again, with another amount


@dataclass(frozen=True, slots=True)
class Held:
    call_id: str
    agent_id: str
    byok_vendor: str  # "" for a managed agent: whose key the call is made with
    amount: int = field(default=0, compare=False)  # nano-dollars that are held: fewer than asked for near a cap


@dataclass(frozen=True, slots=True)
class Refused:
    refusal: Refusal
    agent_id: str = ""
    words: str = ""  # for the owner: which cap, how much, what to do
    byok_vendor: str = ""  # as in Held


@dataclass(frozen=True, slots=True)
class Settlement:
    call_id: str
    usage: Usage
    latency_ms: int
    outcome: str  # "ok", "cut" (the stream broke), "vanished" (the client went away)
    vendor: str = ""  # where another of the alias's list answered than the reserved one
    model: str = ""
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Spend:
    """An agent's money this month, nano-dollars."""

    spent: int
    reserved: int
    calls: int
    caps: Caps


class UsageLedger(Protocol):
    async def commit(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement], releases: Sequence[str]
    ) -> list[Held | Refused]:
        """All of it in one commit: first what ended, then what wants to begin. What ended is on disk when it returns.

        A settlement: one row in the ledger, the hold gone, the sums moved; a hold that is gone: nothing. A release, by
        the call's id: it was never made, or the vendor refused it, and nothing is owed. Reservations in order, each
        judged as if alone after those before it; a verdict for each. Raises StoreUnavailable.
        """

    async def sweep(self, older_than_seconds: float) -> int:
        """Holds whose relay is dead: settled at the whole amount held, marked `swept`. Returns how many."""

    async def spend(self, agent_id: str) -> Spend: ...


class UsageBy(StrEnum):
    """What an agent's calls are summed by."""

    DAY = "day"
    MODEL = "model"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class UsageLine:
    """The calls of one day, model or turn. Money in nano-dollars."""

    of: str  # "2026-11-23", "fireworks/accounts/...", the turn's id ("": none was named)
    calls: int
    input: int  # tokens
    cached: int
    output: int
    paid_by_us: int
    paid_by_owner: int  # with the owner's own key
    estimated: int  # calls whose tokens the vendor did not report, or that were swept
    last_at: datetime


@dataclass(frozen=True, slots=True)
class AgentMonth:
    """One agent's calls in one calendar month (UTC). Money in nano-dollars."""

    agent_id: str
    agent_name: str
    calls: int
    paid_by_us: int
    paid_by_owner: int


class UsageReports(Protocol):
    async def of_agent(self, agent_id: str, by: UsageBy, since: date, limit: int) -> list[UsageLine]:
        """From that day on, the newest first."""

    async def month(self, first: date) -> list[AgentMonth]:
        """Of the month that begins on this day: every agent that called or is not destroyed; the dearest first."""


@dataclass(frozen=True, slots=True)
class Alert:
    """The owner is to be told, once a month each kind of a cap. Nano-dollars, but for "turn-calls": there the cap is
    calls."""

    id: str
    agent_id: str
    agent_name: str
    owner: str
    kind: str  # "50", "80", "100" (per cent of the month), "day", "turn-money", "turn-calls"
    spent: int  # this month, when it happened
    reserved: int
    cap: int
    amount: int  # the most the refused call could have cost; 0: none was refused
    at: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """A mail to an owner that answers none: made from the alert alone, so that making it twice makes the same."""

    message_id: str
    sender: str
    recipient: str
    subject: str
    raw: bytes


class UsageAlerts(Protocol):
    async def open(self, limit: int) -> list[Alert]:
        """Not yet written, oldest first."""

    async def record(self, alert: Alert, notice: Notice) -> str:
        """Queue the mail and close the alert, in one commit. Twice: once. Returns the message row's id."""
