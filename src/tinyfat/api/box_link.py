"""Where boxes call: one WebSocket for each machine. Turns go down, answers, logs and heartbeats come up.

A box is hostile: whatever it says is about its own agent only, by the machine its token opens. Of one machine one link
is read; how much of it, `link_pace` says.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from tinyfat.api.link_pace import LinkPace
from tinyfat.api.link_spool import Spool
from tinyfat.box.build import BUILD
from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import key_hash
from tinyfat.domain.link import (
    CLOSE_NOT_WANTED,
    CLOSE_PROTOCOL,
    CLOSE_SUPERSEDED,
    PROTOCOL,
    PROTOCOL_PIECES,
    Frame,
    FrameRefused,
    FrameTooLong,
    Hello,
    IdentitySerial,
    Log,
    MoveOrder,
    MovePart,
    Piece,
    Pieced,
    RuntimeSpec,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnReceived,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.link_json import encode, read_frame
from tinyfat.domain.link_pieces import fits_a_frame, headed, joined
from tinyfat.domain.machines import Machine
from tinyfat.domain.turns import Turn
from tinyfat.ports.ledger import Agents, MachineRecords, StoreUnavailable, Turns
from tinyfat.ports.server_ledger import MovePhase, StateMoves

CLOSE_TRY_AGAIN = 1013
HELLO_SECONDS_MAX = 20.0  # from the WebSocket to the box's first word
SEND_SECONDS_MAX = 60.0  # for one frame, until the box has read it or the network holds it
OUTBOX_FRAMES_MAX = 2000  # offers and receipts on their way to one box
ANSWERS_AT_ONCE = 2  # of all boxes, read from the disk and committed; each is up to 36 MB of memory
OLD_BOX_FILES_BYTES_MAX = 8 * 1024 * 1024  # of a turn for a box of protocol 1: in one frame, made on the loop

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
        self,
        agents: Agents,
        records: MachineRecords,
        turns: Turns,
        spec: SpecOf,
        moves: StateMoves | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`moves` None: no state ever goes from one machine to another here."""
        self._agents = agents
        self._records = records
        self._turns = turns
        self._spec = spec
        self._moves = moves
        self._links: dict[str, _Link] = {}
        self._pace = LinkPace(now)
        self._committing = asyncio.Semaphore(ANSWERS_AT_ONCE)

    async def serve(self, socket: WebSocket) -> None:
        """The whole life of one connection. Whose token we do not know never gets a WebSocket: it hears 403."""
        try:
            token_hash = key_hash(_bearer(socket))
            machine = await self._records.by_token(token_hash)
        except StoreUnavailable:
            await _refuse(socket, CLOSE_TRY_AGAIN, "the database is away")
            return
        if machine is None:
            await socket.close()
        elif not machine.wanted:
            await _refuse(socket, CLOSE_NOT_WANTED, "this machine is no longer wanted")
        elif machine.id in self._links and not self._pace.may_take_over(machine.id):
            await _refuse(socket, CLOSE_TRY_AGAIN, "other boxes of this machine dialled just now")
        else:
            await socket.accept()
            await self._serve_machine(socket, machine, token_hash)

    async def _serve_machine(self, socket: WebSocket, machine: Machine, token_hash: bytes) -> None:
        link = _Link(socket, machine, token_hash)
        if older := self._links.get(machine.id):
            older.supersede()
        self._links[machine.id] = link
        writer: asyncio.Task[None] | None = None
        code = CLOSE_TRY_AGAIN
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                await self._greet(link)
            writer = asyncio.create_task(link.write(self._turns, self._welcomes), name=f"link {machine.id}")
            await self._read(link)
        except (WebSocketDisconnect, FrameRefused, StoreUnavailable, RuntimeError, OSError) as error:
            # RuntimeError: starlette's word for a socket that closed under us. OSError: a full disk of ours, or a box
            # that is too slow. The box dials again.
            log.info("the link of machine %s ended: %r", machine.id, error)
            code = CLOSE_PROTOCOL if isinstance(error, FrameRefused) else CLOSE_TRY_AGAIN
        finally:
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)  # how it ended, the reader has heard too
            link.spool.close()
            if self._links.get(machine.id) is link:
                del self._links[machine.id]
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(CLOSE_SUPERSEDED if link.superseded.done() else code)

    async def _greet(self, link: _Link) -> None:
        """Its hello, then what it is to run, what it may forget, and the turns that are its."""
        frame = await self._next(link)
        if not isinstance(frame, Hello):
            raise FrameRefused("its first word is no hello")
        link.protocol = frame.protocol
        link.version = f"{frame.box_version} ({frame.build})" if frame.build else frame.box_version
        link.is_outdated = frame.build != BUILD
        machine_id = link.machine.id
        log.info(
            "machine %s is on the line: box %r, %d turns held", machine_id, frame.box_version, len(frame.turns_held)
        )
        for welcome in await self._welcomes(link):
            link.send(welcome)
        if frame.turns_held:
            expected = await self._turns.expected(frame.turns_held, machine_id)
            for turn_id in frame.turns_held:
                if turn_id not in expected:
                    link.send(TurnSettled(turn_id))
        for turn_id in await self._turns.open_for(machine_id):
            link.offer(turn_id)

    def version_of(self, machine_id: str) -> tuple[str, bool]:
        """Of its box, and whether that is other code than ours; ("", False) where it is not on the line here."""
        link = self._links.get(machine_id)
        return (link.version, link.is_outdated) if link else ("", False)

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
        frames: list[Frame] = [
            Welcome(await self._spec(agent, machine), PROTOCOL),
            IdentitySerial(machine.identity_serial),
        ]
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
        while not link.superseded.done():
            await self._handle(link, await self._next(link))

    async def _next(self, link: _Link) -> Frame | None:
        """The next frame. None: a newer box's, or one that was left out. Raises FrameRefused, WebSocketDisconnect."""
        text = await link.receive()
        await self._pace.admit(link.machine.id, len(text), text.startswith('{"type": "piece"'))
        if link.superseded.done():
            raise WebSocketDisconnect(CLOSE_SUPERSEDED)
        try:
            return read_frame(text)
        except FrameTooLong as error:
            if error.kind != "log":
                raise
            log.info("machine %s: %s; it was left out", link.machine.id, error)  # earlier boxes send longer ones
            return None

    async def _handle(self, link: _Link, frame: Frame | None) -> None:
        machine = link.machine
        match frame:
            case TurnAnswer(turn_id):
                await self._answered(link, frame)
            case Piece(turn_id):
                await self._keep_piece(link, frame)
            case Pieced(TurnAnswer(turn_id)):
                async with self._committing:
                    blob = await link.spool.taken(_ours(turn_id))
                    await self._joined(link, frame, blob)
            case TurnReceived(turn_id):
                await self._turns.received(_ours(turn_id), machine.id)
            case Status():
                await self._records.heard(machine.id, frame)
            case Log(lines):
                await self._records.add_log(machine.agent_id, lines)
            case _:
                pass  # a newer box's frame

    async def _keep_piece(self, link: _Link, piece: Piece) -> None:
        """Of a turn that nobody waits for nothing is kept."""
        turn_id = _ours(piece.turn_id)
        if turn_id != link.arriving:
            link.arriving = turn_id
            link.wanted = bool(await self._turns.expected([turn_id], link.machine.id))
        if link.wanted:
            await link.spool.add(piece)

    async def _joined(self, link: _Link, pieced: Pieced, blob: bytes) -> None:
        assert isinstance(pieced.head, TurnAnswer)
        turn_id, wanted = pieced.head.turn_id, link.wanted and link.arriving == pieced.head.turn_id
        link.arriving, link.wanted = "", False
        if not wanted:
            link.send(TurnSettled(turn_id))  # it is settled already, or given up
            return
        whole = joined(pieced, blob)
        assert isinstance(whole, TurnAnswer)
        await self._answered(link, whole)

    async def _answered(self, link: _Link, answer: TurnAnswer) -> None:
        await self._turns.answered(_ours(answer.turn_id), link.machine.id, answer.result)
        link.send(TurnSettled(answer.turn_id))


def box_of(links: BoxLinks, machine_id: str) -> dict[str, Any]:
    """The version of its box, and whether that is other code than ours; empty where it is not on the line here."""
    version, outdated = links.version_of(machine_id)
    return {"box": version, "box_outdated": outdated}


class _Respecify:
    """In a link's queue: what its box is to run and to be is looked up when its time comes."""


class _Link:
    def __init__(self, socket: WebSocket, machine: Machine, token_hash: bytes) -> None:
        self.socket = socket
        self.machine = machine  # as it was last looked up
        self.token_hash = token_hash
        # An offer is queued as the turn's id alone: its attachments are loaded when its time comes.
        self._outbox: asyncio.Queue[Frame | str | _Respecify] = asyncio.Queue(OUTBOX_FRAMES_MAX)
        self.protocol = 1  # of the box
        self.version = ""  # of the box
        self.is_outdated = False  # its code is not what this control plane ships
        self.superseded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.spool = Spool()  # of the answer whose pieces are arriving
        self.arriving = ""  # that answer's turn
        self.wanted = False  # is it waited for?

    def send(self, frame: Frame) -> None:
        self._put(frame)

    def offer(self, turn_id: str) -> None:
        self._put(turn_id)

    def respecify(self) -> None:
        self._put(_Respecify())

    def supersede(self) -> None:
        """A newer connection of the same machine took over: this one is not read any more."""
        if not self.superseded.done():
            self.superseded.set_result(None)

    async def receive(self) -> str:
        """The next message. Raises WebSocketDisconnect, also once a newer link is there, and FrameRefused."""
        receiving = asyncio.ensure_future(self.socket.receive())
        try:
            await asyncio.wait((receiving, self.superseded), return_when=asyncio.FIRST_COMPLETED)
            if self.superseded.done():
                raise WebSocketDisconnect(CLOSE_SUPERSEDED)
            message = receiving.result()
        finally:
            receiving.cancel()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text = message.get("text")
        if not isinstance(text, str):
            raise FrameRefused("it sent bytes where text goes")
        return text

    def _put(self, item: Frame | str | _Respecify) -> None:
        # Full: the box does not read. Offers come again by the sweep, receipts when the answer is sent again.
        with suppress(asyncio.QueueFull):
            self._outbox.put_nowait(item)

    async def write(self, turns: Turns, welcomes: Callable[[_Link], Awaitable[Sequence[Frame]]]) -> None:
        try:
            while not self.superseded.done():
                item = await self._outbox.get()
                if isinstance(item, _Respecify):
                    with suppress(StoreUnavailable):  # an outage is followed by a word to every box
                        for frame in await welcomes(self):
                            await self._say(frame)
                elif isinstance(item, str):
                    with suppress(StoreUnavailable):  # the sweep offers it again
                        if turn := await turns.for_box(item, self.machine.id):
                            await self._offer(turn)
                else:
                    await self._say(item)
        except TimeoutError:  # it does not read: whoever reads this link shall end it
            log.info("machine %s does not read its link", self.machine.id)
            self.supersede()

    async def _say(self, frame: Frame) -> None:
        async with asyncio.timeout(SEND_SECONDS_MAX):
            await self.socket.send_text(encode(frame))

    async def _offer(self, turn: Turn) -> None:
        offer = TurnOffer(turn)
        if fits_a_frame(offer):
            await self._say(offer)
            return
        if self.protocol < PROTOCOL_PIECES:
            await self._say(TurnOffer(_for_an_old_box(turn)))
            return
        head, contents = headed(offer)
        spool = Spool()
        try:
            await spool.write(contents)
            del offer, turn, contents  # a box that reads slowly must not hold a mail's files in memory
            async for piece in spool.pieces(_id_of(head)):
                await self._say(piece)
        finally:
            spool.close()
        await self._say(head)


def _id_of(head: Pieced) -> str:
    assert isinstance(head.head, TurnOffer)
    return head.head.turn.id


def _for_an_old_box(turn: Turn) -> Turn:
    if sum(len(attachment.content) for attachment in turn.attachments) <= OLD_BOX_FILES_BYTES_MAX:
        return turn
    words = "(The files of this mail are left out: the program on this machine is of an earlier version.)"
    return replace(turn, text=f"{turn.text}\n\n{words}", attachments=())


def _ours(turn_id: str) -> str:
    """Raises FrameRefused for what is no id of a turn of ours, as we write them."""
    with suppress(ValueError):
        if str(uuid.UUID(turn_id)) == turn_id:
            return turn_id
    raise FrameRefused("that is no id of a turn")


async def _refuse(socket: WebSocket, code: int, words: str) -> None:
    await socket.accept()
    await socket.close(code, words)


def _bearer(socket: WebSocket) -> str:
    return socket.headers.get("authorization", "").removeprefix("Bearer ")
