"""What is kept, and what of it may go when it is old."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Kept(StrEnum):
    """What goes by its age. The order is that of one pass."""

    BODIES = "bodies"  # of conversations' mails: bytes and texts; the rows stay
    QUARANTINE = "quarantine"  # mail that nobody answers, whole
    ATTACHMENTS = "attachments"  # of answers: they are in the replies by then
    LOGS = "logs"
    CALLS = "calls"  # as single rows: whole months become sums
    ENDED = "ended"  # agents that were destroyed: all but a row with their names
    AUDIT = "audit"  # operators' sessions, alarms that are over, moves of state, revoked keys


class OldRows(Protocol):
    async def delete(self, kept: Kept, days: int) -> bool:
        """A bounded number of what is older, in one commit; whether there may be more. False, too, where another
        process is at it. Nothing that is under way is touched."""
