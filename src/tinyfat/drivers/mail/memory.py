"""A smarthost that is a list, for tests: it answers what it was told to, and keeps what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyfat.ports.mail import Delivered, DeliveryDeferred, DeliveryRefused

TAKEN = "250 2.0.0 Ok: kept"


@dataclass(frozen=True, slots=True)
class Sent:
    envelope_from: str
    recipient: str
    raw: bytes


@dataclass(slots=True)
class MemoryMailOut:
    """Implements ports/mail MailOut. `answers`: one for each coming attempt, such as "451 4.3.0 Later"; then TAKEN.

    An answer that does not begin with a code, such as "connection refused", is no answer at all.
    """

    answers: list[str] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    attempts: int = 0

    def answer_next(self, answers: Sequence[str]) -> None:
        self.answers.extend(answers)

    async def trial(self) -> None:
        if self.answers and not self.answers[0].startswith("2"):
            raise DeliveryDeferred(self.answers.pop(0))

    async def send(self, envelope_from: str, recipient: str, raw: bytes) -> Delivered:
        self.attempts += 1
        answer = self.answers.pop(0) if self.answers else TAKEN
        if answer.startswith("5"):
            raise DeliveryRefused(f"memory: {answer}")
        if not answer.startswith("2"):
            raise DeliveryDeferred(f"memory: {answer}")
        self.sent.append(Sent(envelope_from, recipient, raw))
        return Delivered(answer)
