"""What the two ends of enrolment ask of our side: who a machine's key belongs to, and who that machine is to be.

Errors are those of ports/ledger.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from tinyfat.domain.enrolment import Identity, Outcome


class EnrolOutcome(StrEnum):
    ENROLLED = "enrolled"
    REFUSED = "refused"  # no such machine, another token, or one whose time is over
    TAKEN = "taken"  # the token was used already, with another key


class Enrolments(Protocol):
    async def enrol(self, machine_id: str, token_hash: bytes, key_hash: bytes) -> EnrolOutcome:
        """The key becomes the machine's, once; the same key again is enrolled again, whenever that is."""

    async def by_key(self, key_hash: bytes) -> str | None:
        """The id of the machine that is still wanted and has this key."""

    async def fetched(self, machine_id: str, serial: int) -> None:
        """It has been sent this identity."""

    async def became(self, machine_id: str, outcome: Outcome) -> None:
        """What it says became of an identity."""

    async def doubted(self, machine_id: str, words: str) -> None:
        """For the operator, beside the machine's state: somebody else wanted to be it."""


class Identities(Protocol):
    async def of(self, machine_id: str) -> Identity:
        """Who it is to be now. Raises NotFound where it is no machine that is wanted."""
