"""The one connection of a box: outbound, to the control plane, dialled again for ever."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from tinyfat.box.logbook import Logbook
from tinyfat.box.outbox import Outbox
from tinyfat.box.pace import Pace, backoff
from tinyfat.domain.link import (
    CLOSE_NOT_WANTED,
    CLOSE_SUPERSEDED,
    CLOSE_TOKEN_REFUSED,
    FRAME_BYTES_MAX,
    Frame,
    FrameRefused,
    Hello,
    IdentitySerial,
    MoveOrder,
    Piece,
    Pieced,
    RuntimeSpec,
    Status,
    TurnOffer,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.link_json import encode, read_frame
from tinyfat.domain.link_pieces import joined
from tinyfat.domain.turns import Turn

OFFER_BYTES_MAX = 128 * 1024 * 1024  # of the pieces of one turn: a 50 MB mail, with room
CLOSE_SECONDS = 2.0
_HTTP_TOKEN_REFUSED = (401, 403)  # how a server refuses before there is a WebSocket to close


class NotWanted(Exception):
    """The control plane wants this machine's end."""


class TokenRefused(Exception):
    """The control plane does not know this machine's token."""


class Superseded(Exception):
    """Another box dialled with this machine's token."""


class LinkOwner(Protocol):
    """Whom the link tells. None of these may wait."""

    def hello(self) -> Hello: ...

    def status(self) -> Status: ...

    def welcome(self, spec: RuntimeSpec) -> None: ...

    def offered(self, turn: Turn) -> None: ...

    def settled(self, turn_id: str) -> None: ...

    def identity_is(self, serial: int) -> None: ...

    def move(self, order: MoveOrder) -> None: ...


class Link:
    def __init__(
        self,
        url: str,
        token: str,
        owner: LinkOwner,
        outbox: Outbox,
        logbook: Logbook,
        pace: Pace,
        random: Callable[[], float],  # 0 to 1: so that a fleet does not dial at the same moment
        tls: ssl.SSLContext,  # for wss
    ) -> None:
        self._url = url
        self._token = token
        self._owner = owner
        self._outbox = outbox
        self._logbook = logbook
        self._pace = pace
        self._random = random
        self._tls = tls
        self._welcomed = False
        self._protocol = 1  # of the control plane
        self._arriving = bytearray()  # the pieces of one turn
        self._arriving_of = ""

    async def run(self) -> None:
        """For ever. Raises NotWanted."""
        attempt = 0
        said = ""
        loop = asyncio.get_running_loop()
        while True:
            self._welcomed = False
            refused = False
            began = loop.time()
            try:
                await self._once()
                words = "the control plane closed the connection"
            except (TokenRefused, Superseded) as error:
                refused, words = True, str(error)
            except (OSError, TimeoutError, WebSocketException, FrameRefused) as error:
                words = f"the control plane at {self._url} cannot be reached: {_in_words(error)}"
            if self._welcomed and loop.time() - began > self._pace.dial_pause_max:
                attempt, said = 0, ""  # it was well for a while; one that only ever says hello is not
            if words != said:  # once, not every five seconds while it is away
                self._logbook.box(f"{words}; dialling again")
                said = words
            await asyncio.sleep(self._pause(attempt, refused))
            attempt += 1

    def _pause(self, attempt: int, refused: bool) -> float:
        if refused:
            return self._pace.token_refused_pause
        return backoff(attempt, self._pace.dial_pause_first, self._pace.dial_pause_max) * (0.5 + self._random() / 2)

    async def _once(self) -> None:
        socket = await self._dial()
        try:
            await self._talk(socket)
        finally:
            await socket.close()
            match socket.close_code:
                case code if code == CLOSE_NOT_WANTED:
                    raise NotWanted
                case code if code == CLOSE_TOKEN_REFUSED:
                    raise TokenRefused(self._refused_words())
                case code if code == CLOSE_SUPERSEDED:
                    raise Superseded("another box uses this machine's token, and its line took this one's place")

    async def _dial(self) -> ClientConnection:
        try:
            return await connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                ssl=self._tls if self._url.startswith("wss:") else None,
                user_agent_header="tinyfat-box",
                compression=None,  # costs every box memory and time for what is short or compressed already
                proxy=None if _is_loopback(self._url) else True,
                max_size=FRAME_BYTES_MAX,
                open_timeout=self._pace.dial_timeout,
                ping_interval=self._pace.ping_interval,
                ping_timeout=self._pace.ping_timeout,
                close_timeout=CLOSE_SECONDS,
            )
        except InvalidStatus as error:
            if error.response.status_code in _HTTP_TOKEN_REFUSED:
                raise TokenRefused(self._refused_words()) from error
            raise

    def _refused_words(self) -> str:
        return (
            f"the control plane at {self._url} refuses this machine's token (trying again every "
            f"{self._pace.token_refused_pause:.0f} s): if the agent still exists, start its machine again"
        )

    async def _talk(self, socket: ClientConnection) -> None:
        self._arriving, self._arriving_of = bytearray(), ""
        await socket.send(encode(self._owner.hello()))
        async with asyncio.timeout(self._pace.welcome_timeout):
            while not self._welcomed:
                self._take(read_frame(await socket.recv()))
        self._outbox.begin_again(self._owner.status(), self._protocol)
        sender = asyncio.create_task(self._send(socket))
        try:
            async for message in socket:
                self._take(read_frame(message))
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _take(self, frame: Frame | None) -> None:
        match frame:
            case Welcome(spec, protocol):
                self._protocol = protocol
                if not self._welcomed:
                    self._logbook.box("connected to the control plane")
                self._welcomed = True
                self._owner.welcome(spec)
            case TurnOffer(turn):
                self._owner.offered(turn)
            case Piece(turn_id, content):
                self._keep(turn_id, content)
            case Pieced():
                whole, self._arriving = joined(frame, bytes(self._arriving)), bytearray()
                if isinstance(whole, TurnOffer):
                    self._owner.offered(whole.turn)
            case TurnSettled(turn_id):
                self._owner.settled(turn_id)
            case IdentitySerial(serial):
                self._owner.identity_is(serial)
            case MoveOrder():
                self._owner.move(frame)
            case _:
                pass  # a newer control plane may say more than we know

    def _keep(self, turn_id: str, content: bytes) -> None:
        if turn_id != self._arriving_of:
            self._arriving_of, self._arriving = turn_id, bytearray()
        self._arriving += content
        if len(self._arriving) > OFFER_BYTES_MAX:
            raise FrameRefused(f"a turn of over {OFFER_BYTES_MAX} bytes")

    async def _send(self, socket: ClientConnection) -> None:
        """Until the connection ends. A failure of ours ends the connection too: it must not go unnoticed."""
        try:
            while True:
                await self._outbox.something.wait()
                for frame in self._outbox.frames():
                    await socket.send(frame)
        except ConnectionClosed:
            pass  # the receiver says so
        except Exception as error:
            self._logbook.box(f"sending to the control plane failed: {type(error).__name__}: {error}")
            await socket.close()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_words(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case InvalidURI():
            return "that is no WebSocket address (ws:// or wss://); the machine's driver wrote it into box.json"
        case FrameRefused():
            return f"it speaks another protocol ({error})"
        case _:
            return str(error) or type(error).__name__
