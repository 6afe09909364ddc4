"""In front of every route: who asks, how much it may send and for how long, before a byte of a body is read.

Deny by default: what no group names is the operator's, and needs the token. A body is read here, whole, with its bound
by name, and handed on in one piece; only what may be gigabytes is read by its route, under a deadline for each piece.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyfat.engine.reading import Held, Reading, TooMuchBeingRead

SMALL_BODY_BYTES_MAX = 64 * 1024  # of the operator's API: the largest is an owner's key
STANDIN_BODY_BYTES_MAX = 256 * 1024  # of a model's stand-in: it reads JSON on the loop that everything shares
BODY_SECONDS_MAX = 15.0  # for all of a small body
MAIL_SECONDS_MAX = 60.0  # for all of a mail's
PIECE_SECONDS_MAX = 60.0  # for the next piece of a state that streams
AT_ONCE_MAX = 256  # requests of one group
RETRY_SECONDS = "10"
LINGER_SECONDS = 2.0  # a refused body is thrown away for so long, so that its sender can read why
LINGER_BYTES_MAX = 64 * 1024 * 1024

OPERATOR_WORDS = "This needs the operator's token: run the command on the host, with its TINYFAT_HOME."

Headers: TypeAlias = Mapping[str, str]
Refusal: TypeAlias = tuple[int, str]
Judge: TypeAlias = Callable[[Headers], Refusal | None]


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that share their bounds."""

    name: str
    body_max: int = SMALL_BODY_BYTES_MAX  # bytes; 0: the route reads it itself, and bounds it
    seconds: float = BODY_SECONDS_MAX
    at_once: int = AT_ONCE_MAX
    judge: Judge | None = None  # by the headers alone; None: for everybody


def operator_group(token: str) -> Group:
    wanted = f"Bearer {token}".encode()

    def judge(headers: Headers) -> Refusal | None:
        given = headers.get("authorization", "").encode("utf-8", "replace")
        return None if token and hmac.compare_digest(given, wanted) else (401, OPERATOR_WORDS)

    return Group("operator", judge=judge)


class Gate:
    """ASGI middleware. `groups`: by the path's beginning, the first that fits counts; the last is for all others."""

    def __init__(self, app: ASGIApp, groups: Sequence[tuple[str, Group]], reading: Reading) -> None:
        self._app = app
        self._groups = groups
        self._reading = reading
        self._at_once: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # a WebSocket: its route judges its token, and no body comes before
            return
        group = next(group for path, group in self._groups if _under(path, scope["path"]))
        headers = _once(scope)
        length = headers.get("content-length", "")
        refusal = group.judge(headers) if group.judge else None
        if refusal is None and self._at_once[group.name] >= group.at_once:
            refusal = (503, "Too many requests of this kind at once; try again in a moment.")
        if refusal is None and group.body_max and length.isdigit() and int(length[:20]) > group.body_max:
            refusal = _too_large(group)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        self._at_once[group.name] += 1
        try:
            with self._reading.hold(whose=group.name) as held:
                await self._serve(group, held, headers, scope, receive, send)
        finally:
            self._at_once[group.name] -= 1

    async def _serve(
        self, group: Group, held: Held, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if not _has_body(headers):
            await self._app(scope, receive, send)
            return
        if not group.body_max:
            await self._app(scope, _timed(receive), send)
            return
        try:
            async with asyncio.timeout(group.seconds):
                body = await _read(receive, group.body_max, held)
        except _Refused as refused:
            await _refuse(_too_large(group) if refused.too_large else None, scope, receive, send)
        except TooMuchBeingRead:
            await _refuse((503, "Too much is being read here just now; try again."), scope, receive, send)
        except TimeoutError:
            await _refuse(
                (408, f"The body did not arrive within {group.seconds:g} s."), scope, receive, send, linger=False
            )
        else:
            await self._app(scope, _replay(body, receive), send)


class _Refused(Exception):
    def __init__(self, too_large: bool) -> None:
        self.too_large = too_large  # else its sender went away


def _under(prefix: str, path: str) -> bool:
    if prefix == "/":
        return path == "/"
    return path.startswith(prefix) and (not prefix or path == prefix or path[len(prefix)] == "/")


def _once(scope: Scope) -> dict[str, str]:
    """A header that is there twice says nothing: whoever reads it next might read the other one."""
    headers: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1")
        headers[name] = "" if name in headers else value.decode("latin-1")
    return headers


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _read(receive: Receive, body_max: int, held: Held) -> bytes:
    """Raises _Refused and TooMuchBeingRead."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Refused(too_large=False)
        piece = message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) + len(piece) > body_max:
            raise _Refused(too_large=True)
        held.more(len(piece))
        body += piece
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    read = False

    async def replayed() -> Message:
        nonlocal read
        if read:
            return await receive()  # that its client goes away
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _timed(receive: Receive) -> Receive:
    """Whoever sends no next piece in time has gone away."""
    ended = False

    async def timed() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(PIECE_SECONDS_MAX):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        ended = not message.get("more_body", False)
        return message

    return timed


def _too_large(group: Group) -> Refusal:
    return 413, f"The body is over {group.body_max} bytes."


async def _refuse(refusal: Refusal | None, scope: Scope, receive: Receive, send: Send, linger: bool = True) -> None:
    """The answer at once, and the connection's end once its sender has had the time to read it."""
    if refusal is None:
        return
    status, words = refusal
    body = json.dumps({"error": words}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", RETRY_SECONDS.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if linger and _has_body(_once(scope)):
        await _throw_away(receive, LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _throw_away(receive: Receive, seconds: float) -> None:
    thrown = 0
    try:
        async with asyncio.timeout(seconds):
            while thrown < LINGER_BYTES_MAX:
                message = await receive()
                thrown += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        pass
