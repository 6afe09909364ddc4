"""What the box has to say next. Bounded: the newest status, ids of turns that are in the journal, the log's ring."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tinyfat.box.journal import Journal
from tinyfat.box.logbook import Logbook
from tinyfat.domain.link import PROTOCOL_PIECES, Log, Status, TurnAnswer, TurnReceived
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.link_pieces import fits_a_frame, headed, pieces


class Outbox:
    def __init__(self, journal: Journal, logbook: Logbook) -> None:
        self._journal = journal
        self._logbook = logbook
        self._status: Status | None = None
        self._receipts: dict[str, None] = {}  # dicts: sets that keep their order
        self._answers: dict[str, None] = {}
        self._unstored: dict[str, str] = {}  # results the journal could not take
        self._protocol = PROTOCOL_PIECES  # of the other side
        self.something = asyncio.Event()
        logbook.on_line = self.something.set

    def status(self, status: Status) -> None:
        self._status = status
        self.something.set()

    def receipt(self, turn_id: str) -> None:
        self._receipts[turn_id] = None
        self.something.set()

    def answer(self, turn_id: str) -> None:
        self._answers[turn_id] = None
        self.something.set()

    def answer_unstored(self, turn_id: str, frame: str) -> None:
        """The journal is on a full disk: the result is kept here instead, until it is settled."""
        self._unstored[turn_id] = frame
        self.answer(turn_id)

    def holds(self, turn_id: str) -> bool:
        """Its result is here and not in the journal."""
        return turn_id in self._unstored

    def forget(self, turn_id: str) -> None:
        self._receipts.pop(turn_id, None)
        self._answers.pop(turn_id, None)
        self._unstored.pop(turn_id, None)

    def begin_again(self, status: Status, protocol: int) -> None:
        """A new connection, to a control plane of this protocol: what the old one carried may not have arrived."""
        self._protocol = protocol
        self._status = status
        self._answers = dict.fromkeys((*self._journal.answered(), *self._unstored))
        self.something.set()

    def frames(self) -> Iterator[str]:
        """What is to be sent now, most urgent first. What is taken counts as sent, but for the log."""
        self.something.clear()
        while True:
            if self._receipts:
                turn_id = next(iter(self._receipts))
                del self._receipts[turn_id]
                yield encode(TurnReceived(turn_id))
            elif self._answers:
                turn_id = next(iter(self._answers))
                del self._answers[turn_id]
                frame = self._unstored.get(turn_id) or self._journal.result(turn_id)
                if frame is not None:
                    yield from self._in_frames(frame)
            elif self._status:
                status, self._status = self._status, None
                yield encode(status)
            elif lines := self._logbook.batch():
                lost = self._logbook.lost
                yield encode(Log(lines))
                self._logbook.sent(lines, lost)  # after the yield: the socket took it
            else:
                return

    def _in_frames(self, result: str) -> Iterator[str]:
        """A long one in pieces, where the other side knows them."""
        frame = decode(result)
        if self._protocol < PROTOCOL_PIECES or not isinstance(frame, TurnAnswer) or fits_a_frame(frame):
            yield result
            return
        head, contents = headed(frame)
        for content in contents:
            for piece in pieces(frame.turn_id, content):
                yield encode(piece)
        yield encode(head)
