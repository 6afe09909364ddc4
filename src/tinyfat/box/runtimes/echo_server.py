"""`python -m tinyfat.box.runtimes.echo_server`: a small real runtime that speaks OpenClaw's gateway protocol.

WebSocket: connect (token), agent, chat.send, agent.wait, chat.history, chat.abort, artifacts.download; HTTP on the
same port: /healthz, /readyz, /startupz. What it does with a question is in echo_script. The token is in the
environment variable ECHO_GATEWAY_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import http
import json
import mimetypes
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tinyfat.box.runtimes.echo_runs import OLD_KEY, EchoRuns, KeyIsOld, Question, Run
from tinyfat.box.runtimes.echo_script import DRAIN_SECONDS_MAX, TOKEN_VARIABLE
from tinyfat.box.runtimes.echo_store import EchoSession, Row

WIRE_PROTOCOL = 4
PAYLOAD_BYTES_MAX = 25 * 1024 * 1024
ATTACHMENT_BYTES_MAX = 20 * 1024 * 1024
IMAGE_BYTES_MAX = 6 * 1024 * 1024
HANDSHAKE_SECONDS_MAX = 10.0
HISTORY_ROWS_DEFAULT = 200
WAIT_MS_DEFAULT = 30_000
CLOSE_SECONDS_MAX = 1.0

_MEDIA_LINE = re.compile(r"^MEDIA:(\S+)$", re.MULTILINE)

Reply = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: str, message: str, payload: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.payload = payload


class EchoServer:
    def __init__(self, runs: EchoRuns, token: str) -> None:
        self._runs = runs
        self._token = token
        self.draining = False

    def probe(self, _: ServerConnection, request: Request) -> Response | None:
        """None lets the WebSocket handshake go on."""
        path = request.path.partition("?")[0]
        if path in ("/healthz", "/startupz"):
            return _http(http.HTTPStatus.OK, {"ok": True})
        if path == "/readyz":
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if self.draining else http.HTTPStatus.OK
            return _http(status, {"ready": not self.draining})
        if "upgrade" not in request.headers.get("Connection", "").lower():
            return _http(http.HTTPStatus.NOT_FOUND, {"ok": False})
        return None

    async def serve(self, socket: ServerConnection) -> None:
        requests: set[asyncio.Task[None]] = set()
        try:
            if not await self._handshake(socket):
                return
            async for message in socket:
                task = asyncio.create_task(self._request(socket, json.loads(message)))
                requests.add(task)
                task.add_done_callback(requests.discard)
        except (ConnectionClosed, TimeoutError, ValueError, KeyError, TypeError):
            pass  # gone, or speaking something else: the connection ends, the turns go on
        finally:
            for task in requests:
                task.cancel()

    async def _handshake(self, socket: ServerConnection) -> bool:
        challenge = {"nonce": str(uuid.uuid4()), "ts": int(time.time() * 1000)}
        await socket.send(json.dumps({"type": "event", "event": "connect.challenge", "payload": challenge}))
        async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
            frame = json.loads(await socket.recv())
        params = frame["params"]
        known = hmac.compare_digest(str(params["auth"]["token"]).encode(), self._token.encode())
        if frame["method"] != "connect" or not known or params["maxProtocol"] < WIRE_PROTOCOL:
            await _respond(socket, frame["id"], Refused("INVALID_REQUEST", "unauthorized"))
            await socket.close(1008, "unauthorized")
            return False
        await _respond(socket, frame["id"], _hello(params))
        return True

    async def _request(self, socket: ServerConnection, frame: dict[str, Any]) -> None:
        request_id = frame["id"]

        async def reply(payload: dict[str, Any]) -> None:
            await _respond(socket, request_id, payload)

        with contextlib.suppress(ConnectionClosed):
            try:
                await self._do(str(frame["method"]), frame.get("params") or {}, reply)
            except Refused as refused:
                await _respond(socket, request_id, refused)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                await _respond(socket, request_id, Refused("INVALID_REQUEST", f"{type(error).__name__}: {error}"))

    async def _do(self, method: str, params: dict[str, Any], reply: Reply) -> None:
        match method:
            case "agent":
                await self._agent(params, reply)
            case "chat.send":
                await self._chat_send(params, reply)
            case "agent.wait":
                await reply(await self._agent_wait(str(params["runId"]), params.get("timeoutMs", WAIT_MS_DEFAULT)))
            case "chat.history":
                limit = int(params.get("limit", HISTORY_ROWS_DEFAULT))
                await reply(self._history(str(params["sessionKey"]), limit))
            case "chat.abort":
                stopped = self._runs.abort(str(params["sessionKey"]))
                await reply({"ok": True, "aborted": bool(stopped), "runIds": stopped})
            case "artifacts.download":
                await reply(self._artifact(str(params["sessionKey"]), str(params["artifactId"])))
            case "sessions.resolve":
                name = self._runs.session_of(str(params["sessionId"]))
                await reply({"ok": True, "key": f"agent:main:{name}".lower()} if name else {"ok": False})
            case "health":
                await reply({"ok": True})
            case _:
                raise Refused("INVALID_REQUEST", f"unknown method: {method}")

    async def _agent(self, params: dict[str, Any], reply: Reply) -> None:
        question = self._question(params, "agent")
        known = self._runs.find(question.key)
        try:
            run = self._runs.ask(question)
        except KeyIsOld:
            await reply(_accepted(question))
            result = {"payloads": [{"text": OLD_KEY, "isError": True, "mediaUrl": None}]}
            await reply({"runId": question.key, "status": "error", "summary": "failed", "result": result})
            return
        if not (known and known.done.done()):
            await reply(_accepted(question))
        row = await asyncio.shield(run.done)
        if row["error"]:
            payload = {"runId": run.run_id, "status": "error", "summary": row["text"]}
            raise Refused("UNAVAILABLE", row["text"], payload)
        await reply(_result(run, row))

    async def _chat_send(self, params: dict[str, Any], reply: Reply) -> None:
        question = self._question(params, "chat.send")
        known = self._runs.find(question.key)
        try:
            self._runs.ask(question)
        except KeyIsOld:
            known = None
        status = "started" if known is None else "ok" if known.done.done() else "in_flight"
        await reply({"runId": question.key, "status": status})

    def _question(self, params: dict[str, Any], through: str) -> Question:
        if self.draining:
            raise Refused("UNAVAILABLE", "the gateway is draining")
        text = params["message"]
        if not isinstance(text, str) or not text:
            raise Refused("INVALID_REQUEST", "message is missing")
        if "\0" in text:
            raise Refused("INVALID_REQUEST", "message must not contain null bytes")
        attachments = params.get("attachments") or []
        return Question(str(params["idempotencyKey"]), str(params["sessionKey"]), text, through, attachments)

    async def _agent_wait(self, run_id: str, timeout_ms: float) -> dict[str, Any]:
        run = self._runs.find(run_id)
        if run is None:  # OpenClaw too waits for what it does not know
            await asyncio.sleep(timeout_ms / 1000)
            return {"runId": run_id, "status": "timeout"}
        await asyncio.wait((run.done,), timeout=timeout_ms / 1000)
        if not run.done.done():
            return {"runId": run_id, "status": "timeout"}
        row = run.done.result()
        ended = {"runId": run_id, "endedAt": _ms(run.ended_at)}
        if row["error"]:
            return {**ended, "status": "error", "error": row["text"]}
        return {**ended, "status": "ok", "terminalReply": {"disposition": "visible", "text": row["text"]}}

    def _history(self, name: str, limit: int) -> dict[str, Any]:
        session = self._runs.session(name)
        rows = [_history_row(row) for row in session.rows if "role" in row] if session else []
        active = [run.run_id for run in self._runs.active(session)] if session else []
        running = bool(active or (session and session.unanswered()))
        history: dict[str, Any] = {
            "sessionKey": name,
            "messages": rows[-limit:],
            "pendingInputs": {"items": [], "total": 0},
            "hasMore": len(rows) > limit,
            "totalMessages": len(rows),
            "sessionInfo": {
                "key": f"agent:main:{name}",
                "hasActiveRun": bool(active),
                "activeRunIds": active,
                "status": "running" if running else "done",
            },
        }
        if active:
            history["inFlightRun"] = {"runId": active[0], "text": ""}
        return history

    def _artifact(self, session: str, artifact_id: str) -> dict[str, Any]:
        found = self._runs.artifact(session, artifact_id)
        if found is None:
            raise Refused("INVALID_REQUEST", "artifact not found")
        name, content = found
        about = {
            "id": artifact_id,
            "title": name,
            "mimeType": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "sizeBytes": len(content),
        }
        return {"artifact": about, "encoding": "base64", "data": base64.b64encode(content).decode("ascii")}


def _hello(params: dict[str, Any]) -> dict[str, Any]:
    attachments = {"maxBytes": ATTACHMENT_BYTES_MAX, "maxImageBytes": IMAGE_BYTES_MAX}
    return {
        "type": "hello-ok",
        "protocol": WIRE_PROTOCOL,
        "server": {"version": "echo", "connId": str(uuid.uuid4())},
        "features": {"methods": ["agent", "agent.wait", "chat.send", "chat.history"], "events": []},
        "snapshot": {},
        "auth": {"role": "operator", "scopes": params.get("scopes", [])},
        "policy": {"maxPayload": PAYLOAD_BYTES_MAX, "attachments": attachments},
    }


def _accepted(question: Question) -> dict[str, Any]:
    return {
        "runId": question.key,
        "sessionKey": f"agent:main:{question.session}",
        "agentId": "main",
        "status": "accepted",
        "acceptedAt": _ms(time.time()),
    }


def _result(run: Run, row: Row) -> dict[str, Any]:
    urls = _MEDIA_LINE.findall(row["text"])
    payload: dict[str, Any] = {"text": _without_media(row["text"]), "mediaUrl": urls[0] if urls else None}
    if urls:
        payload["mediaUrls"] = urls
    result = {"payloads": [payload], "meta": {"agentMeta": {"usage": _usage(run.session, row)}}}
    return {"runId": run.run_id, "status": "ok", "summary": "completed", "result": result}


def _history_row(row: Row) -> dict[str, Any]:
    at = _ms(row["at"])
    meta: dict[str, Any] = {"recordTimestampMs": at}
    match row["role"]:
        case "user":
            key = f"{row['key']}:user"
            return {"role": "user", "content": row["text"], "timestamp": at, "idempotencyKey": key, "__openclaw": meta}
        case "system":
            provenance = {"kind": "internal_system", "sourceTool": "main_session_restart_recovery"}
            key = f"{row['key']}:user"
            return {
                "role": "user",
                "content": row["text"],
                "timestamp": at,
                "idempotencyKey": key,
                "provenance": provenance,
                "__openclaw": meta,
            }
        case _:
            return {
                "role": "assistant",
                "content": _content(row),
                "timestamp": at,
                "usage": _usage(None, row),
                "stopReason": "error" if row["error"] else "stop",
                "__openclaw": {**meta, "runId": row["run_id"]},
            }


def _content(row: Row) -> list[dict[str, Any]]:
    artifacts = row.get("artifacts", {})
    text = _without_media(row["text"]) if artifacts else row["text"]
    held = [{"type": "attachment", "attachment": {"artifactId": key, "label": name}} for key, name in artifacts.items()]
    return [{"type": "text", "text": text}, *held]


def _usage(session: EchoSession | None, row: Row) -> dict[str, Any]:
    """Words for tokens."""
    words = len(row["text"].split())
    question = session.question(row["answers"]) if session else None
    read = len(str(question["text"]).split()) if question else 0
    return {"input": read, "output": words, "cacheRead": 0, "cacheWrite": 0, "total": read + words}


def _without_media(text: str) -> str:
    return _MEDIA_LINE.sub("", text).strip()


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


async def _respond(socket: ServerConnection, request_id: str, answer: dict[str, Any] | Refused) -> None:
    frame: dict[str, Any] = {"type": "res", "id": request_id}
    if isinstance(answer, Refused):
        frame |= {"ok": False, "error": {"code": answer.code, "message": str(answer)}}
        if answer.payload is not None:
            frame["payload"] = answer.payload
    else:
        frame |= {"ok": True, "payload": answer}
    await socket.send(json.dumps(frame))


def _http(status: http.HTTPStatus, body: dict[str, Any]) -> Response:
    content = json.dumps(body).encode("ascii")
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, content)


async def run(state: Path, workspace: Path, port: int, token: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runs = EchoRuns(state, workspace)
    server = EchoServer(runs, token)
    async with serve(
        server.serve,
        "127.0.0.1",
        port,
        process_request=server.probe,
        max_size=PAYLOAD_BYTES_MAX,
        compression=None,
        close_timeout=CLOSE_SECONDS_MAX,
    ):
        print(f"echo listens on 127.0.0.1:{port}", flush=True)
        runs.resume()
        await stop.wait()
        server.draining = True
        await runs.drain(DRAIN_SECONDS_MAX)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        print(f"{TOKEN_VARIABLE} is not set", file=sys.stderr)
        return 2
    asyncio.run(run(options.state, options.workspace, options.port, token))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
