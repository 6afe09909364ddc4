"""What a gateway's `chat.history` says about one turn. Pure.

A turn is put under an idempotency key: the turn's id, or `<id>/2`, `<id>/3` where an earlier attempt left a trace but
no answer (an old key put again after a restart gives an error and a junk row). OpenClaw 2026.9.6 writes the question
as a user row with `idempotencyKey` = `<key>:user`; what follows up to the next question of somebody else is the
answer. A turn interrupted by a kill is taken up again by the gateway itself, one session after another: until then
the session says `status: running` though no run is active.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

ATTEMPTS_MAX = 5
_USAGE = {"input": "input", "output": "output", "cacheRead": "cacheRead", "cacheWrite": "cacheWrite"}


class Seen(StrEnum):
    NOTHING = "nothing"  # never put, or put and forgotten without a trace
    RUNNING = "running"  # or waiting to be taken up again
    ANSWERED = "answered"
    FAILED = "failed"
    ABANDONED = "abandoned"  # put, and ended without an answer


@dataclass(frozen=True, slots=True)
class Reading:
    seen: Seen
    attempts: int = 0  # keys of this turn that left a trace
    text: str = ""  # the answer, or the error
    artifacts: tuple[str, ...] = ()  # ids of files kept by the gateway itself
    received_at: float = 0.0  # Unix seconds
    answered_at: float = 0.0
    usage: dict[str, Any] = field(default_factory=dict)


def attempt_key(turn_id: str, attempts_before: int) -> str:
    return turn_id if attempts_before == 0 else f"{turn_id}/{attempts_before + 1}"


def read_history(history: Mapping[str, Any], turn_id: str) -> Reading:
    """What became of the turn's latest attempt."""
    rows = [row for row in _list(history.get("messages")) if isinstance(row, dict)]
    pending = _pending(history)
    attempts = 0
    start: int | None = None
    for number in range(ATTEMPTS_MAX):
        key = attempt_key(turn_id, number)
        at = _question(rows, key)
        if at is not None or key in pending:
            attempts, start = number + 1, at
    if attempts == 0:
        return Reading(Seen.NOTHING)
    if start is None:
        waiting = pending[attempt_key(turn_id, attempts - 1)] == "queued"
        return Reading(Seen.RUNNING if waiting else Seen.ABANDONED, attempts)
    answer, closed = _segment(rows, start)
    if not closed and _busy(history):
        return Reading(Seen.RUNNING, attempts, received_at=_seconds(rows[start].get("timestamp")))
    return _judge(rows[start], answer, attempts)


def _judge(question: Mapping[str, Any], answer: Sequence[Mapping[str, Any]], attempts: int) -> Reading:
    received_at = _seconds(question.get("timestamp"))
    for row in reversed(answer):
        text, artifacts = _content(row)
        if not text and not artifacts:
            continue
        failed = row.get("stopReason") == "error"
        if not failed and row.get("stopReason") not in ("stop", "length", None):
            continue  # a remark before a tool call: not the answer
        meta = row.get("__openclaw")
        recorded = meta.get("recordTimestampMs") if isinstance(meta, dict) else None
        return Reading(
            Seen.FAILED if failed else Seen.ANSWERED,
            attempts,
            text,
            artifacts,
            received_at,
            _seconds(recorded or row.get("timestamp")),
            usage_of(row.get("usage")),
        )
    return Reading(Seen.ABANDONED, attempts, received_at=received_at)


def usage_of(usage: Any) -> dict[str, Any]:
    """Tokens by kind, as the runtime counts them; empty where it does not say."""
    if not isinstance(usage, dict):
        return {}
    counted = {ours: usage[theirs] for ours, theirs in _USAGE.items() if isinstance(usage.get(theirs), int)}
    total = usage.get("total", usage.get("totalTokens"))
    return {**counted, "total": total} if isinstance(total, int) else counted


def _question(rows: Sequence[Mapping[str, Any]], key: str) -> int | None:
    for index, row in enumerate(rows):
        if row.get("role") == "user" and row.get("idempotencyKey") == f"{key}:user":
            return index
    return None


def _segment(rows: Sequence[Mapping[str, Any]], start: int) -> tuple[list[Mapping[str, Any]], bool]:
    """The assistant's rows after a question, and whether a later question closes them off."""
    answer: list[Mapping[str, Any]] = []
    for row in rows[start + 1 :]:
        if row.get("role") == "assistant":
            answer.append(row)
        elif row.get("role") == "user" and not _internal(row):
            return answer, True
    return answer, False


def _internal(row: Mapping[str, Any]) -> bool:
    provenance = row.get("provenance")
    return isinstance(provenance, dict) and provenance.get("kind") == "internal_system"


def _busy(history: Mapping[str, Any]) -> bool:
    info = history.get("sessionInfo")
    info = info if isinstance(info, dict) else {}
    return bool(info.get("hasActiveRun")) or info.get("status") == "running"


def _pending(history: Mapping[str, Any]) -> dict[str, str]:
    page = history.get("pendingInputs")
    items = _list(page.get("items")) if isinstance(page, dict) else []
    return {str(item.get("runId")): str(item.get("state")) for item in items if isinstance(item, dict)}


def _content(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    content = row.get("content")
    if isinstance(content, str):
        return content.strip(), ()
    texts: list[str] = []
    artifacts: list[str] = []
    for block in _list(content):
        if not isinstance(block, dict):
            continue
        if block.get("type") == "text":
            texts.append(str(block.get("text", "")))
        held = block.get("attachment") if isinstance(block.get("attachment"), dict) else block
        artifact = held.get("artifactId") if isinstance(held, dict) else None
        if isinstance(artifact, str):
            artifacts.append(artifact)
    return "\n".join(texts).strip(), tuple(artifacts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _seconds(milliseconds: Any) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) else 0.0
