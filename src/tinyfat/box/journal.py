"""The turns this box holds, on disk (SQLite, synchronous FULL): what it was told twice it does once.

    received  the box has it
    asked     the runtime is about to be asked, or was: how that ended is not known
    answered  the result is here, and is sent until it is settled
    settled   the control plane has it; only the id is kept, for a while

A settled id that is offered once more was once put to the runtime, so it comes back as asked.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tinyfat.domain.link import TURNS_HELD_MAX, TurnOffer
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.turns import Turn

SETTLED_KEPT_MAX = 10_000

_TABLE = """
CREATE TABLE IF NOT EXISTS turns (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  deadline_at REAL NOT NULL,   -- Unix time, seconds
  offer TEXT NOT NULL,         -- the frame
  result TEXT NOT NULL         -- the frame, once answered
) STRICT
"""
_INDEX = "CREATE INDEX IF NOT EXISTS unsettled ON turns (position) WHERE state <> 'settled'"


class TurnPhase(StrEnum):
    RECEIVED = "received"
    ASKED = "asked"
    ANSWERED = "answered"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class HeldTurn:
    turn: Turn
    deadline_at: float  # Unix time, seconds
    asked: bool


class Journal:
    """Every method is one short transaction, done when it returns. Raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_TABLE)
        self._db.execute(_INDEX)
        self._db.execute(
            "DELETE FROM turns WHERE state = 'settled' AND position <= (SELECT max(position) FROM turns) - ?",
            (SETTLED_KEPT_MAX,),
        )
        self._held = {str(row[0]) for row in self._db.execute("SELECT id FROM turns WHERE state <> 'settled'")}

    def close(self) -> None:
        self._db.close()

    @property
    def full(self) -> bool:
        return len(self._held) >= TURNS_HELD_MAX

    def held(self) -> tuple[str, ...]:
        """Ids of the turns that are not settled, in order of their offer."""
        rows = self._db.execute("SELECT id FROM turns WHERE state <> 'settled' ORDER BY position")
        return tuple(str(row[0]) for row in rows)

    def phase(self, turn_id: str) -> TurnPhase | None:
        """None: never heard of it."""
        row = self._db.execute("SELECT state FROM turns WHERE id = ?", (turn_id,)).fetchone()
        return TurnPhase(row[0]) if row else None

    def take(self, turn: Turn, deadline_at: float, asked: bool) -> None:
        """A new turn, or a settled one that is offered again. `asked`: it is put to the runtime right now."""
        phase = TurnPhase.ASKED if asked else TurnPhase.RECEIVED
        self._db.execute(
            "INSERT OR REPLACE INTO turns (id, state, deadline_at, offer, result) VALUES (?, ?, ?, ?, '')",
            (turn.id, phase.value, deadline_at, encode(TurnOffer(turn))),
        )
        self._held.add(turn.id)

    def mark_asked(self, turn_id: str) -> None:
        self._db.execute("UPDATE turns SET state = 'asked' WHERE id = ? AND state = 'received'", (turn_id,))

    def answer(self, turn_id: str, result: str) -> None:
        """`result`: the frame to send. The first one stands."""
        self._db.execute(
            "UPDATE turns SET state = 'answered', offer = '', result = ? WHERE id = ? "
            "AND state IN ('received', 'asked')",
            (result, turn_id),
        )

    def result(self, turn_id: str) -> str | None:
        """The frame to send; None unless it is answered and not settled."""
        row = self._db.execute("SELECT result FROM turns WHERE id = ? AND state = 'answered'", (turn_id,)).fetchone()
        return str(row[0]) if row else None

    def settle(self, turn_id: str) -> None:
        self._db.execute(
            "UPDATE turns SET state = 'settled', offer = '', result = '' WHERE id = ? AND state <> 'settled'",
            (turn_id,),
        )
        self._held.discard(turn_id)

    def answered(self) -> tuple[str, ...]:
        rows = self._db.execute("SELECT id FROM turns WHERE state = 'answered' ORDER BY position")
        return tuple(str(row[0]) for row in rows)

    def unfinished(self) -> list[HeldTurn]:
        """Neither answered nor settled, in order of their offer: what a box takes up again when it starts."""
        rows = self._db.execute(
            "SELECT offer, deadline_at, state FROM turns WHERE state IN ('received', 'asked') ORDER BY position"
        )
        held = []
        for offer, deadline_at, state in rows:
            frame = decode(offer)
            if isinstance(frame, TurnOffer):
                held.append(HeldTurn(frame.turn, float(deadline_at), state == TurnPhase.ASKED))
        return held
