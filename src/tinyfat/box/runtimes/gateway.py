"""Turns through an OpenClaw gateway: ask, wait, and find the answer again after anything broke.

A turn without attachments goes by `agent`, which returns the result. One with attachments goes by `chat.send`, which
takes any type of file and saves it for the agent; its answer is read from `chat.history`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyfat.box.runtime import RuntimeUnavailable
from tinyfat.box.runtimes import media
from tinyfat.box.runtimes.answers import DETAIL_CHARS_MAX, NOTHING_SAID, SILENT, Said, answer_of
from tinyfat.box.runtimes.gateway_connection import CALL_SECONDS_MAX, GatewayConnection, GatewayRefused, Limits
from tinyfat.box.runtimes.gateway_history import ATTEMPTS_MAX, Reading, Seen, attempt_key, read_history, usage_of
from tinyfat.box.runtimes.gateway_sessions import GatewaySessions
from tinyfat.box.runtimes.loopback import http_get
from tinyfat.box.runtimes.model_failure import failure_of
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.reply_markers import without_markers
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

TURN_SECONDS_MAX = 24 * 3600.0
HISTORY_POLL_SECONDS = 0.5
HISTORY_ROWS_MAX = 200
HISTORY_CHARS_MAX = 500_000  # of one row: the most that OpenClaw takes
WAIT_SECONDS = 30.0  # one agent.wait; asked again until the turn's deadline
ABORT_SECONDS_MAX = 5.0
REQUEST_BYTES_RESERVED = 64 * 1024  # for the frame around the text and the files


class GatewayClient:
    """One gateway; one connection, shared by concurrent turns and dialled again when it was lost."""

    def __init__(
        self,
        url: str,
        token: str,
        workspace: Path,
        *,
        clock: Callable[[], float] = time.time,
        poll_seconds: float = HISTORY_POLL_SECONDS,
    ) -> None:
        """`url` is the gateway's, e.g. ws://127.0.0.1:18789; `clock` gives Unix seconds."""
        self._url = url
        self._token = token
        self._workspace = workspace
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._connection: GatewayConnection | None = None
        self._dialling = asyncio.Lock()
        self._sessions = GatewaySessions()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def session_of(self, said: str, running: Sequence[str]) -> str:
        """box.runtime.Runtime.session_of"""
        if self._connection is None or self._connection.lost:
            return ""
        try:
            return await self._sessions.find(self._connection, said, running)
        except (TimeoutError, GatewayRefused, RuntimeUnavailable):
            return ""

    async def answer(self, turn: Turn, asked_before: bool, extra_system_prompt: str) -> TurnResult:
        """Ask and wait, `turn.deadline_seconds` at most. Raises RuntimeUnavailable: ask again with `asked_before`.

        With `asked_before` the session's history is looked through first: an answer that is there is taken, a turn
        that still runs is waited for, and only one that left no answer is asked (again).
        """
        seconds = min(turn.deadline_seconds, TURN_SECONDS_MAX)
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connected()
                reading = await self._settled(connection, turn) if asked_before else Reading(Seen.NOTHING)
                if reading.seen in (Seen.ANSWERED, Seen.FAILED):
                    return await self._from_history(connection, turn, reading)
                if reading.attempts >= ATTEMPTS_MAX:
                    return self._failed(NOTHING_SAID, f"{ATTEMPTS_MAX} attempts ended without an answer", 0.0)
                asking = _Asking(turn, attempt_key(turn.id, reading.attempts), seconds, extra_system_prompt)
                return await self._ask(connection, asking)
        except TimeoutError as error:
            await self._abort(turn)
            raise RuntimeUnavailable(f"no answer within {seconds:g} s") from error
        except GatewayRefused as refused:
            return self._refused(refused, self._clock())

    async def _connected(self) -> GatewayConnection:
        async with self._dialling:
            if self._connection is not None and self._connection.lost:
                await self.close()
            if self._connection is None:
                self._connection = await GatewayConnection.dial(self._url, self._token)
            return self._connection

    async def _settled(self, connection: GatewayConnection, turn: Turn) -> Reading:
        """Read the history until the turn no longer runs; the caller bounds the wait."""
        while True:
            reading = read_history(await self._history(connection, turn), turn.id)
            if reading.seen is not Seen.RUNNING:
                return reading
            await asyncio.sleep(self._poll_seconds)

    async def _history(self, connection: GatewayConnection, turn: Turn) -> dict[str, Any]:
        params = {"sessionKey": turn.session, "limit": HISTORY_ROWS_MAX, "maxChars": HISTORY_CHARS_MAX}
        return await connection.call("chat.history", params)

    async def _ask(self, connection: GatewayConnection, asking: _Asking) -> TurnResult:
        if asking.turn.attachments:
            return await self._ask_with_files(connection, asking)
        params = {
            "message": _text(asking.turn.text),
            "sessionKey": asking.turn.session,
            "idempotencyKey": asking.key,
            "deliver": False,
            "timeout": math.ceil(asking.seconds),
            "extraSystemPrompt": asking.extra_system_prompt,
        }
        received_at = 0.0
        async with contextlib.aclosing(connection.responses("agent", params)) as responses:
            try:
                async for payload in responses:
                    if payload.get("status") in ("accepted", "in_flight"):
                        received_at = received_at or self._clock()
                        continue
                    return await self._from_result(payload, received_at or self._clock())
            except GatewayRefused as refused:
                return self._refused(refused, received_at or self._clock())
        raise RuntimeUnavailable("the runtime's gateway ended the turn without a result")

    async def _ask_with_files(self, connection: GatewayConnection, asking: _Asking) -> TurnResult:
        turn = asking.turn
        sent, kept = split_files(turn.attachments, connection.limits, len(turn.text.encode()))
        saved = await asyncio.to_thread(media.save_inbox, self._workspace, turn.id, kept)
        params = {
            "message": _text(turn.text + _naming(saved)),
            "sessionKey": turn.session,
            "idempotencyKey": asking.key,
            "timeoutMs": math.ceil(asking.seconds * 1000),
            "queueMode": "followup",  # the default would push it into a turn that is running
            "suppressCommandInterpretation": True,  # a mail is never a command to the gateway
            "attachments": [_attachment(attachment) for attachment in sent],
        }
        await connection.call("chat.send", params)
        received_at = self._clock()
        await self._wait(connection, asking.key)
        reading = await self._settled(connection, turn)
        if reading.seen in (Seen.ANSWERED, Seen.FAILED):
            return await self._from_history(connection, turn, reading, received_at)
        return self._failed(NOTHING_SAID, f"run {asking.key}: no answer in its history", received_at)

    async def _wait(self, connection: GatewayConnection, run_id: str) -> None:
        """Until the run ended, well or not; the caller bounds the wait."""
        params = {"runId": run_id, "timeoutMs": math.ceil(WAIT_SECONDS * 1000)}
        while True:
            snapshot = await connection.call("agent.wait", params, WAIT_SECONDS + CALL_SECONDS_MAX)
            if snapshot.get("status") not in ("timeout", "pending") or snapshot.get("endedAt"):
                return

    async def _from_result(self, payload: dict[str, Any], received_at: float) -> TurnResult:
        """The final response to `agent`."""
        result = payload.get("result")
        result = result if isinstance(result, dict) else {}
        parts = [part for part in _list(result.get("payloads")) if isinstance(part, dict)]
        text = "\n\n".join(str(part["text"]).strip() for part in parts if part.get("text"))
        if payload.get("status") != "ok" or any(part.get("isError") for part in parts):
            return self._model_failed(text or str(payload.get("summary", "")), received_at)
        text, paths = media.split_media_lines(text)
        named = [str(url) for part in parts for url in _list(part.get("mediaUrls"))]
        collected = await asyncio.to_thread(media.collect, self._workspace, [*named, *paths])
        meta = result.get("meta")
        agent_meta = meta.get("agentMeta") if isinstance(meta, dict) else None
        usage = usage_of(agent_meta.get("usage")) if isinstance(agent_meta, dict) else {}
        answered = self._answered(text, collected, received_at, self._clock(), usage)
        if _stayed_silent(meta, answered):
            return replace(answered, outcome=TurnOutcome.SILENT, failure=SILENT)
        return answered

    async def _from_history(
        self, connection: GatewayConnection, turn: Turn, reading: Reading, received_at: float = 0.0
    ) -> TurnResult:
        received_at = received_at or reading.received_at
        if reading.seen is Seen.FAILED:
            return self._model_failed(reading.text, received_at)
        text, paths = media.split_media_lines(reading.text)
        collected = await asyncio.to_thread(media.collect, self._workspace, paths)
        fetched = await self._fetch(connection, turn.session, reading.artifacts)
        files = media.Collected(collected.attachments + fetched.attachments, {**collected.refused, **fetched.refused})
        return self._answered(text, files, received_at, reading.answered_at or self._clock(), reading.usage)

    async def _fetch(self, connection: GatewayConnection, session: str, artifacts: Sequence[str]) -> media.Collected:
        """Files that the gateway took out of the answer and keeps itself."""
        attachments: list[Attachment] = []
        refused: dict[str, str] = {}
        left = media.BYTES_MAX
        for artifact_id in artifacts[: media.FILES_MAX]:
            try:
                found = await connection.call("artifacts.download", {"sessionKey": session, "artifactId": artifact_id})
                content = await self._content(found, left)
            except (GatewayRefused, OSError, ValueError) as error:
                refused[artifact_id] = str(error) if isinstance(error, media.FileRefused) else "it cannot be fetched"
                continue
            left -= len(content)
            about = found.get("artifact")
            about = about if isinstance(about, dict) else {}
            name = media.safe_filename(str(about.get("title") or "attachment"))
            attachments.append(Attachment(name, str(about.get("mimeType") or "application/octet-stream"), content))
        too_many = f"it is one of more than {media.FILES_MAX} files"
        refused |= dict.fromkeys(artifacts[media.FILES_MAX :], too_many)
        return media.Collected(tuple(attachments), refused)

    async def _content(self, found: dict[str, Any], bytes_max: int) -> bytes:
        if isinstance(found.get("data"), str):
            content = base64.b64decode(found["data"], validate=True)
        else:
            status, content = await http_get(self._url, str(found.get("url", "")), bytes_max=bytes_max + 1)
            if status != 200:
                raise ValueError(f"the gateway answered {status}")
        if len(content) > bytes_max:
            raise media.FileRefused(f"with it the files are over {media.BYTES_MAX // 2**20} MB")
        return content

    async def _abort(self, turn: Turn) -> None:
        """Nobody waits for this turn any more: stop it from spending. Best effort."""
        connection = self._connection
        if connection is None or connection.lost:
            return
        with contextlib.suppress(GatewayRefused, RuntimeUnavailable):
            await connection.call("chat.abort", {"sessionKey": turn.session}, ABORT_SECONDS_MAX)

    def _refused(self, refused: GatewayRefused, received_at: float) -> TurnResult:
        """A run that failed comes as a refusal with a runId; without one the gateway itself could not take it."""
        if refused.payload.get("runId"):
            return self._model_failed(refused.message, received_at)
        if refused.code == "INVALID_REQUEST":
            return self._failed(Failure(FailureId.MESSAGE_REFUSED), str(refused), received_at)
        raise RuntimeUnavailable(str(refused)) from refused

    def _answered(
        self, text: str, files: media.Collected, received_at: float, answered_at: float, usage: dict[str, Any]
    ) -> TurnResult:
        return answer_of(Said(text, files, received_at, answered_at, usage))

    def _model_failed(self, detail: str, received_at: float) -> TurnResult:
        now = self._clock()
        return self._failed(failure_of(detail, now), detail, received_at, now)

    def _failed(self, failure: Failure, detail: str, received_at: float, now: float | None = None) -> TurnResult:
        return TurnResult(
            TurnOutcome.FAILED,
            failure=failure,
            detail=detail[:DETAIL_CHARS_MAX],
            received_at=received_at,
            answered_at=self._clock() if now is None else now,
        )


@dataclass(frozen=True, slots=True)
class _Asking:
    turn: Turn
    key: str
    seconds: float
    extra_system_prompt: str


def split_files(
    attachments: Sequence[Attachment], limits: Limits, text_bytes: int
) -> tuple[list[Attachment], list[Attachment]]:
    """Those that one request can carry, in order, and those to be saved in the workspace instead."""
    left = limits.payload - REQUEST_BYTES_RESERVED - 2 * text_bytes
    sent: list[Attachment] = []
    kept: list[Attachment] = []
    for attachment in attachments:
        size_max = limits.image if _is_image(attachment) else limits.attachment
        cost = 4 * math.ceil(len(attachment.content) / 3) + len(json.dumps(attachment.filename)) + 200
        if attachment.content and len(attachment.content) <= size_max and cost <= left:
            left -= cost
            sent.append(attachment)
        else:
            kept.append(attachment)
    return sent, kept


def _is_image(attachment: Attachment) -> bool:
    return attachment.media_type.startswith("image/")


def _attachment(attachment: Attachment) -> dict[str, str]:
    return {
        "type": "image" if _is_image(attachment) else "file",
        "mimeType": attachment.media_type,
        "fileName": media.safe_filename(attachment.filename),
        "content": base64.b64encode(attachment.content).decode("ascii"),
    }


def _naming(saved: Sequence[str]) -> str:
    return "".join(f"\n\n[Attached file saved in the workspace: {path}]" for path in saved)


def _text(text: str) -> str:
    """OpenClaw refuses null bytes and an empty message."""
    return text.replace("\x00", "") or "(empty message)"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _stayed_silent(meta: Any, result: TurnResult) -> bool:
    """OpenClaw takes a marker of silence off itself, and says so beside its empty answer."""
    if not isinstance(meta, dict) or result.failure != NOTHING_SAID:
        return False
    raw = meta.get("finalAssistantRawText")
    silent = isinstance(raw, str) and without_markers(raw) == ("", True)
    return silent or meta.get("terminalReplyKind") == "silent-empty"
