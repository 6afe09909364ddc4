"""One WebSocket to an OpenClaw gateway: the handshake, and requests with one or more responses.

The shapes are OpenClaw's documented wire protocol, version 4 (its docs/gateway/protocol). A client without a device
key is let in on direct loopback only, which is why the box stands beside its gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from tinyfat.box.runtime import RuntimeUnavailable

WIRE_PROTOCOL = 4
DIAL_SECONDS_MAX = 15.0
CALL_SECONDS_MAX = 60.0  # for a plain request; OpenClaw blocks its own loop for seconds on a first turn
FRAME_BYTES_MAX = 64 * 1024 * 1024
RESPONSES_UNREAD_MAX = 16  # to one request; `agent` sends two
# What the gateway takes by default where its hello names no limits (docs/gateway/protocol/handshake).
PAYLOAD_BYTES_MAX = 25 * 1024 * 1024
ATTACHMENT_BYTES_MAX = 19_464_192
IMAGE_BYTES_MAX = 6 * 1024 * 1024


class GatewayRefused(Exception):
    """The gateway answered a request with an error."""

    def __init__(self, method: str, code: str, message: str, payload: dict[str, Any]) -> None:
        super().__init__(f"{method}: {code}: {message}")
        self.code = code
        self.message = message
        self.payload = payload


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request to the gateway may hold, in bytes."""

    payload: int = PAYLOAD_BYTES_MAX
    attachment: int = ATTACHMENT_BYTES_MAX  # each, decoded
    image: int = IMAGE_BYTES_MAX


class GatewayConnection:
    """Open it with `dial`. Requests may run side by side."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Queue[dict[str, Any] | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.limits = Limits()
        self.lost = False

    @classmethod
    async def dial(cls, url: str, token: str, *, seconds_max: float = DIAL_SECONDS_MAX) -> GatewayConnection:
        """Raises RuntimeUnavailable where the gateway is away, still starting, or does not let us in."""
        try:
            async with asyncio.timeout(seconds_max):
                # The gateway blocks its loop for many seconds at times: a patient keep-alive.
                socket = await connect(url, max_size=FRAME_BYTES_MAX, ping_timeout=90, proxy=None, compression=None)
                connection = cls(socket)
                try:
                    await connection._handshake(token)
                except BaseException:
                    await connection.close()
                    raise
                return connection
        except GatewayRefused as refused:
            raise RuntimeUnavailable(f"the runtime's gateway refused the box: {refused}") from refused
        except (OSError, TimeoutError, ValueError, websockets.WebSocketException) as error:
            raise RuntimeUnavailable(f"no connection to the runtime's gateway: {type(error).__name__}") from error

    async def close(self) -> None:
        self._mark_lost()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._socket.close()

    async def call(self, method: str, params: dict[str, Any], seconds_max: float = CALL_SECONDS_MAX) -> dict[str, Any]:
        """One request, one response. Raises GatewayRefused, RuntimeUnavailable."""
        try:
            async with asyncio.timeout(seconds_max):
                async with contextlib.aclosing(self.responses(method, params)) as responses:
                    return await anext(responses)
        except TimeoutError as error:
            raise RuntimeUnavailable(f"the runtime's gateway did not answer {method} in {seconds_max:g} s") from error

    async def responses(self, method: str, params: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """One request, every response to it as it comes. Raises GatewayRefused; RuntimeUnavailable when lost.

        It does not end by itself: the caller knows which response is the last, and bounds the wait.
        """
        request_id = str(next(self._ids))
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._waiting[request_id] = queue
        try:
            if self.lost:
                raise RuntimeUnavailable("the connection to the runtime's gateway was lost")
            frame = {"type": "req", "id": request_id, "method": method, "params": params}
            await self._socket.send(json.dumps(frame))
            while True:
                response = await queue.get()
                if response is None:
                    raise RuntimeUnavailable(f"the connection to the runtime's gateway was lost during {method}")
                yield _payload(method, response)
        except websockets.ConnectionClosed as error:
            raise RuntimeUnavailable("the connection to the runtime's gateway was lost") from error
        finally:
            self._waiting.pop(request_id, None)

    async def _handshake(self, token: str) -> None:
        challenge = json.loads(await self._socket.recv())
        if challenge.get("event") != "connect.challenge":
            raise ValueError("the gateway sent no challenge")
        self._reader = asyncio.create_task(self._read())
        hello = await self.call(
            "connect",
            {
                "minProtocol": WIRE_PROTOCOL,
                "maxProtocol": WIRE_PROTOCOL,
                "client": {"id": "gateway-client", "version": "1", "platform": sys.platform, "mode": "backend"},
                "role": "operator",
                # admin: chat.send takes suppressCommandInterpretation from an administrator only.
                "scopes": ["operator.admin", "operator.read", "operator.write"],
                "caps": [],
                "auth": {"token": token},
            },
        )
        self.limits = _limits(hello.get("policy"))

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                frame = json.loads(message)
                if isinstance(frame, dict) and frame.get("type") == "res":
                    queue = self._waiting.get(str(frame.get("id")))
                    if queue is None:
                        continue
                    if queue.qsize() >= RESPONSES_UNREAD_MAX:
                        raise ValueError("the gateway floods a request with responses")
                    queue.put_nowait(frame)
        except (websockets.WebSocketException, ValueError, OSError):
            pass  # whoever waits is told below
        finally:
            self._mark_lost()

    def _mark_lost(self) -> None:
        self.lost = True
        for queue in self._waiting.values():
            queue.put_nowait(None)


def _payload(method: str, response: dict[str, Any]) -> dict[str, Any]:
    payload = response.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    if response.get("ok") is True:
        return payload
    error = response.get("error")
    error = error if isinstance(error, dict) else {}
    raise GatewayRefused(method, str(error.get("code", "")), str(error.get("message", ""))[:2000], payload)


def _limits(policy: Any) -> Limits:
    policy = policy if isinstance(policy, dict) else {}
    attachments = policy.get("attachments")
    attachments = attachments if isinstance(attachments, dict) else {}

    def number(value: Any, otherwise: int) -> int:
        return value if isinstance(value, int) and value > 0 else otherwise

    return Limits(
        number(policy.get("maxPayload"), PAYLOAD_BYTES_MAX),
        number(attachments.get("maxBytes"), ATTACHMENT_BYTES_MAX),
        number(attachments.get("maxImageBytes"), IMAGE_BYTES_MAX),
    )
