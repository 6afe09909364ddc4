"""Where boxes call: one WebSocket for each machine. Turns go down, answers, logs and heartbeats come up.

A box is hostile: whatever it says is about its own agent only, by the machine its token opens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect

from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import key_hash
from tinyfat.domain.link import (
    CLOSE_NOT_WANTED,
    CLOSE_TOKEN_REFUSED,
    Frame,
    FrameRefused,
    Hello,
    IdentitySerial,
    Log,
    MoveOrder,
    MovePart,
    RuntimeSpec,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnReceived,
    TurnSettled,
    Welcome,
    decode,
    encode,
)
from tinyfat.domain.machines import Machine
from tinyfat.ports.ledger import Agents, MachineRecords, StoreUnavailable, Turns
from tinyfat.ports.server_ledger import MovePhase, StateMoves

CLOSE_TRY_AGAIN = 1013
DECODE_ON_LOOP_CHARS = 256 * 1024
OUTBOX_FRAMES_MAX = 2000  # offers and receipts on their way to one box

SpecOf = Callable[[Agent | None, Machine], Awaitable[RuntimeSpec]]  # None: it waits in the warm pool

# By phase, and whether it is the machine that hands its state over.
_PARTS = {
    (MovePhase.ASKED, True): MovePart.HAND_OVER,
    (MovePhase.KEPT, True): MovePart.WAIT,
    (MovePhase.RESTORED, True): MovePart.WAIT,
    (MovePhase.KEPT, False): MovePart.TAKE,
}

log = logging.getLogger(__name__)


class BoxLinks:
    """The links this process holds."""

    def __init__(
        self, agents: Agents, records: MachineRecords, turns: Turns, spec: SpecOf, moves: StateMoves | None = None
    ) -> None:
        """`moves` None: no state ever goes from one machine to another here."""
        self._agents = agents
        self._records = records
        self._turns = turns
        self._spec = spec
        self._moves = moves
        self._links: dict[str, _Link] = {}

    async def serve(self, socket: WebSocket) -> None:
        """The whole life of one connection."""
        await socket.accept()
        try:
            token_hash = key_hash(_bearer(socket))
            machine = await self._records.by_token(token_hash)
        except StoreUnavailable:
            await socket.close(CLOSE_TRY_AGAIN, "the database is away")
            return
        if machine is None:
            await socket.close(CLOSE_TOKEN_REFUSED, "this token opens no machine")
        elif not machine.wanted:
            await socket.close(CLOSE_NOT_WANTED, "this machine is no longer wanted")
        else:
            await self._serve_machine(socket, machine, token_hash)

    async def _serve_machine(self, socket: WebSocket, machine: Machine, token_hash: bytes) -> None:
        link = _Link(socket, machine, token_hash)
        if older := self._links.get(machine.id):
            older.close()
        self._links[machine.id] = link
        writer = asyncio.create_task(link.write(self._turns, self._welcomes), name=f"link {machine.id}")
        try:
            for frame in await self._welcomes(link):
                link.send(frame)
            for turn_id in await self._turns.open_for(machine.id):
                link.offer(turn_id)
            await self._read(link)
        except (WebSocketDisconnect, FrameRefused, StoreUnavailable, RuntimeError) as error:
            # RuntimeError: starlette's word for a socket that closed under us. The box dials again.
            log.info("the link of machine %s ended: %s", machine.id, error or type(error).__name__)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)  # how it ended, the reader has heard too
            if self._links.get(machine.id) is link:
                del self._links[machine.id]
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(CLOSE_TRY_AGAIN)

    def offered(self, payload: str) -> None:
        """A signal: "<machine id> <turn id>"."""
        machine_id, _, turn_id = payload.partition(" ")
        if link := self._links.get(machine_id):
            link.offer(turn_id)

    def respecify(self, machine_id: str) -> None:
        """A signal: this machine's box, or with "" every box, is told anew what it runs and which identity it is to
        have. The same again changes nothing there."""
        links = [self._links[machine_id]] if machine_id in self._links else []
        for link in links if machine_id else self._links.values():
            link.respecify()

    async def _welcomes(self, link: _Link) -> Sequence[Frame]:
        """What it is to run and to be, as that is now: it may have been given to an agent since it dialled."""
        machine = await self._records.by_token(link.token_hash)
        if machine is None:
            return ()  # its end is under way
        link.machine = machine
        agent = await self._agents.get(machine.agent_id) if machine.agent_id else None
        frames: list[Frame] = [Welcome(await self._spec(agent, machine)), IdentitySerial(machine.identity_serial)]
        return frames if self._moves is None else [*frames, await self._part_in_move(machine.id)]

    async def _part_in_move(self, machine_id: str) -> MoveOrder:
        assert self._moves is not None
        move = await self._moves.latest_of(machine_id)
        if move is None:
            return MoveOrder(machine_id, MovePart.NONE)
        # Of an export it has done its part once the state is here.
        parts = _PARTS if move.to_machine else {(MovePhase.ASKED, True): MovePart.HAND_OVER}
        part = parts.get((move.phase, machine_id == move.from_machine), MovePart.NONE)
        return MoveOrder(move.id, part, move.sha256, move.bytes)

    async def unwanted(self, machine_id: str) -> None:
        """Tell its box, if it is on the line here, that its time is over."""
        if link := self._links.get(machine_id):
            with suppress(RuntimeError, WebSocketDisconnect):
                await link.socket.close(CLOSE_NOT_WANTED, "this machine is no longer wanted")

    async def sweep(self) -> None:
        """Offer again what no box has confirmed."""
        if self._links:
            for machine_id, turn_id in await self._turns.unreceived(list(self._links)):
                self.offered(f"{machine_id} {turn_id}")

    async def _read(self, link: _Link) -> None:
        while True:
            text = await link.socket.receive_text()
            # A large one, with attachments, is decoded in a thread: one box must not keep the others waiting.
            frame = decode(text) if len(text) < DECODE_ON_LOOP_CHARS else await asyncio.to_thread(decode, text)
            await self._handle(link, frame)

    async def _handle(self, link: _Link, frame: Frame | None) -> None:
        machine = link.machine
        match frame:
            case TurnAnswer(turn_id, result):
                await self._turns.answered(turn_id, machine.id, result)
                link.send(TurnSettled(turn_id))
            case TurnReceived(turn_id):
                await self._turns.received(turn_id, machine.id)
            case Status():
                await self._records.heard(machine.id, frame)
            case Log(lines):
                await self._records.add_log(machine.agent_id, lines)
            case Hello(_, version, held):
                log.info("machine %s is on the line: box %s, %d turns held", machine.id, version, len(held))
            case _:
                pass  # a newer box's frame


class _Respecify:
    """In a link's queue: what its box is to run and to be is looked up when its time comes."""


class _Link:
    def __init__(self, socket: WebSocket, machine: Machine, token_hash: bytes) -> None:
        self.socket = socket
        self.machine = machine  # as it was last looked up
        self.token_hash = token_hash
        # An offer is queued as the turn's id alone: its attachments are loaded when its time comes.
        self._outbox: asyncio.Queue[Frame | str | _Respecify] = asyncio.Queue(OUTBOX_FRAMES_MAX)
        self._closing = False

    def send(self, frame: Frame) -> None:
        self._put(frame)

    def offer(self, turn_id: str) -> None:
        self._put(turn_id)

    def respecify(self) -> None:
        self._put(_Respecify())

    def close(self) -> None:
        """A newer connection of the same machine took over."""
        self._closing = True
        self._put(TurnSettled(""))  # wakes the writer

    def _put(self, item: Frame | str | _Respecify) -> None:
        # Full: the box does not read. Offers come again by the sweep, receipts when the answer is sent again.
        with suppress(asyncio.QueueFull):
            self._outbox.put_nowait(item)

    async def write(self, turns: Turns, welcomes: Callable[[_Link], Awaitable[Sequence[Frame]]]) -> None:
        while not self._closing:
            item = await self._outbox.get()
            if isinstance(item, _Respecify):
                with suppress(StoreUnavailable):  # an outage is followed by a word to every box
                    for frame in await welcomes(self):
                        await self.socket.send_text(encode(frame))
                continue
            if isinstance(item, str):
                try:
                    turn = await turns.for_box(item, self.machine.id)
                except StoreUnavailable:
                    continue  # the sweep offers it again
                if turn is None:
                    continue
                item = TurnOffer(turn)
            await self.socket.send_text(encode(item))


def _bearer(socket: WebSocket) -> str:
    return socket.headers.get("authorization", "").removeprefix("Bearer ")
