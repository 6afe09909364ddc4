"""A gateway whose every answer the test decides, in the shapes that OpenClaw 2026.9.6 was seen to send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve

TOKEN = "a-token"

Handler = Callable[["Request"], Awaitable[None]]


class Request:
    def __init__(self, socket: ServerConnection, frame: dict[str, Any]) -> None:
        self.socket = socket
        self.id = frame["id"]
        self.method: str = frame["method"]
        self.params: dict[str, Any] = frame["params"]

    async def reply(self, **payload: Any) -> None:
        await self._send(ok=True, payload=payload)

    async def refuse(self, code: str, message: str, **payload: Any) -> None:
        await self._send(ok=False, payload=payload, error={"code": code, "message": message})

    async def hang_up(self) -> None:
        self.socket.transport.abort()

    async def _send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps({"type": "res", "id": self.id, **frame}))


class ScriptedGateway:
    """`handlers[method]` answers; `requests` holds all that came, `connects` how often someone dialled."""

    def __init__(self, handlers: dict[str, Handler], policy: dict[str, Any] | None = None) -> None:
        self.handlers = handlers
        self.requests: list[Request] = []
        self.connects = 0
        self.refuse_connect: tuple[str, str] | None = None
        self._policy = policy
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server | None = None

    async def __aenter__(self) -> ScriptedGateway:
        self._server = await serve(self._connection, "127.0.0.1", 0, max_size=64 * 2**20, compression=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    def asked(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    async def _connection(self, socket: ServerConnection) -> None:
        self.connects += 1
        await socket.send(json.dumps({"type": "event", "event": "connect.challenge", "payload": {"nonce": "n"}}))
        async for message in socket:
            request = Request(socket, json.loads(message))
            if request.method == "connect":
                await self._connect(request)
                continue
            self.requests.append(request)
            await socket.send(json.dumps({"type": "event", "event": "tick", "payload": {}}))
            task = asyncio.ensure_future(self.handlers[request.method](request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, request: Request) -> None:
        if self.refuse_connect is not None:
            await request.refuse(*self.refuse_connect)
        elif request.params["auth"]["token"] != TOKEN:
            await request.refuse("UNAUTHORIZED", "wrong token")
        else:
            assert (request.params["minProtocol"], request.params["role"]) == (4, "operator")
            await request.reply(type="hello-ok", protocol=4, policy=self._policy or {})


def question(key: str, text: str = "hi", at: int = 1000) -> dict[str, Any]:
    return {"role": "user", "content": text, "timestamp": at, "idempotencyKey": f"{key}:user"}


def said(text: str, stop_reason: str = "stop", at: int = 2000, **more: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stopReason": stop_reason,
        "timestamp": at - 500,
        "usage": {"input": 10, "output": 3, "totalTokens": 13, "cacheRead": 0, "cacheWrite": 0, "cost": {"total": 0}},
        "__openclaw": {"runId": "r", "recordTimestampMs": at},
        **more,
    }


def resumed() -> dict[str, Any]:
    return {
        **question("d8d27efd", "[System] Your previous turn was interrupted by a gateway restart"),
        "provenance": {"kind": "internal_system", "sourceTool": "main_session_restart_recovery"},
    }


def history(*rows: dict[str, Any], status: str = "done", active: bool = False, pending: Any = ()) -> dict[str, Any]:
    return {
        "messages": list(rows),
        "pendingInputs": {"items": list(pending), "total": len(list(pending))},
        "sessionInfo": {"status": status, "hasActiveRun": active},
    }
