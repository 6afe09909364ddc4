"""A turn: one question to a runtime, one answer back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tinyfat.domain.failures import Failure


class TurnState(StrEnum):
    WAITING = "waiting"  # behind an earlier turn of its thread, or not yet offered
    RUNNING = "running"  # offered to the box
    ANSWERED = "answered"
    FAILED = "failed"
    SILENT = "silent"


class TurnOutcome(StrEnum):
    ANSWERED = "answered"
    FAILED = "failed"
    SILENT = "silent"  # the agent chose to say nothing; on the link a failure of that name, which older sides can read


@dataclass(frozen=True, slots=True)
class Attachment:
    filename: str
    media_type: str  # e.g. "application/pdf"
    content: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """What the box carries to its runtime."""

    id: str  # also the idempotency key: what a box was told twice it does once
    session: str  # one conversation = one session of the runtime, e.g. "email:<thread id>"
    text: str
    deadline_seconds: float  # from the offer; past it nobody waits for the answer
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnResult:
    outcome: TurnOutcome
    text: str = ""  # Markdown; empty where it failed
    attachments: tuple[Attachment, ...] = ()
    failure: Failure | None = None  # what the sender is told; None where it answered
    detail: str = ""  # for the operator's eyes alone: it may hold a vendor's or a program's own text
    # Unix times, seconds, by the box's clock.
    received_at: float = 0.0  # the runtime had the question
    answered_at: float = 0.0  # the runtime gave the answer
    usage: dict[str, Any] = field(default_factory=dict)  # tokens, as the runtime reports them


def result_words(result: TurnResult) -> str:
    """Why there is no answer, for the operator; "" where nobody said."""
    return result.detail or (result.failure.words() if result.failure else "")
