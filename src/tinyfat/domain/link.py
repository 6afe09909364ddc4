"""The frames between a box and the control plane: JSON text messages over one WebSocket.

The box dials `GET <link_url>` with `Authorization: Bearer <machine token>`. Then:

    box  -> hello         who I am, in what state, which turns I still hold
    ctrl -> welcome       what to run (RuntimeSpec)
    box  -> status        at once on a change, else every HEARTBEAT_SECONDS
    ctrl -> turn          an offer; may come twice, is done once
    box  -> turn_received the runtime has it
    box  -> turn_result   until it is settled, again after every reconnect
    ctrl -> turn_settled  committed (or no longer wanted): the box may forget it
    box  -> log           lines of the runtime's and the box's own output

Every frame is `{"type": ..., ...}`; a frame of an unknown type is ignored, so that either side may be newer.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

PROTOCOL = 1
HEARTBEAT_SECONDS = 10.0
FRAME_BYTES_MAX = 96 * 1024 * 1024  # a 50 MB mail's attachments, in base64, with room
LOG_LINES_MAX = 200  # in one frame
LOG_LINE_CHARS_MAX = 4000


class FrameRefused(ValueError):
    """The other side sent a frame that is not of this protocol."""


class RuntimeState(StrEnum):
    INSTALLING = "installing"
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    CRASH_LOOP = "crash-loop"  # the breaker is open: it is tried again only after a long pause
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """Where the runtime finds its model. The key goes into the runtime's environment, never into its arguments."""

    api: str  # "openai-completions" or "anthropic-messages"
    url: str  # base URL, e.g. https://api.fireworks.ai/inference/v1
    key: str
    model: str  # the vendor's model id

    def __repr__(self) -> str:
        return f"ModelAccess(api={self.api!r}, url={self.url!r}, key=***, model={self.model!r})"


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What a box should run."""

    kind: str  # agents.RuntimeKind
    agent_name: str
    model: ModelAccess
    memory_bytes_max: int  # of the runtime's process tree; over it, it is restarted


@dataclass(frozen=True, slots=True)
class Hello:
    protocol: int
    box_version: str
    turns_held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    spec: RuntimeSpec


@dataclass(frozen=True, slots=True)
class Status:
    state: RuntimeState
    detail: str = ""  # for a person, e.g. "installing openclaw 2026.9.6: 41 s"
    version: str = ""  # of the runtime
    memory_bytes: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class TurnOffer:
    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnReceived:
    turn_id: str


@dataclass(frozen=True, slots=True)
class TurnAnswer:
    turn_id: str
    result: TurnResult


@dataclass(frozen=True, slots=True)
class TurnSettled:
    turn_id: str


@dataclass(frozen=True, slots=True)
class LogLine:
    at: float  # Unix time, seconds
    source: str  # "box" or "runtime"
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    lines: tuple[LogLine, ...] = field(default=())


Frame: TypeAlias = Hello | Welcome | Status | TurnOffer | TurnReceived | TurnAnswer | TurnSettled | Log

_TYPES: dict[type, str] = {
    Hello: "hello",
    Welcome: "welcome",
    Status: "status",
    TurnOffer: "turn",
    TurnReceived: "turn_received",
    TurnAnswer: "turn_result",
    TurnSettled: "turn_settled",
    Log: "log",
}


def encode(frame: Frame) -> str:
    body = asdict(frame)
    for holder in ("turn", "result"):
        if holder in body:
            for attachment in body[holder]["attachments"]:
                attachment["content"] = base64.b64encode(attachment["content"]).decode("ascii")
    return json.dumps({"type": _TYPES[type(frame)], **body}, ensure_ascii=False)


def decode(text: str | bytes) -> Frame | None:
    """The frame, or None for a type this side does not know. The other side is hostile: FrameRefused for nonsense."""
    try:
        body = json.loads(text)
        return _decode(body["type"], body)
    except FrameRefused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise FrameRefused(f"not a frame: {type(error).__name__}") from error


def _decode(kind: str, body: dict[str, Any]) -> Frame | None:
    match kind:
        case "hello":
            return Hello(
                int(body["protocol"]), str(body["box_version"]), tuple(map(str, body.get("turns_held", ())))
            )
        case "welcome":
            spec = body["spec"]
            return Welcome(
                RuntimeSpec(
                    str(spec["kind"]),
                    str(spec["agent_name"]),
                    ModelAccess(**{name: str(spec["model"][name]) for name in ("api", "url", "key", "model")}),
                    int(spec["memory_bytes_max"]),
                )
            )
        case "status":
            return Status(
                RuntimeState(body["state"]),
                str(body.get("detail", ""))[:LOG_LINE_CHARS_MAX],
                str(body.get("version", ""))[:100],
                int(body.get("memory_bytes", 0)),
                int(body.get("restarts", 0)),
            )
        case "turn":
            turn = body["turn"]
            return TurnOffer(
                Turn(
                    str(turn["id"]),
                    str(turn["session"]),
                    str(turn["text"]),
                    float(turn["deadline_seconds"]),
                    _attachments(turn),
                )
            )
        case "turn_received":
            return TurnReceived(str(body["turn_id"]))
        case "turn_result":
            return TurnAnswer(str(body["turn_id"]), _result(body["result"]))
        case "turn_settled":
            return TurnSettled(str(body["turn_id"]))
        case "log":
            lines = body["lines"][:LOG_LINES_MAX]
            return Log(
                tuple(
                    LogLine(float(line["at"]), str(line["source"])[:20], str(line["text"])[:LOG_LINE_CHARS_MAX])
                    for line in lines
                )
            )
        case _:
            return None


def _result(body: dict[str, Any]) -> TurnResult:
    usage = body.get("usage") or {}
    if not isinstance(usage, dict):
        raise FrameRefused("usage is not an object")
    return TurnResult(
        TurnOutcome(body["outcome"]),
        str(body.get("text", "")),
        _attachments(body),
        str(body.get("failure", "")),
        str(body.get("detail", "")),
        float(body.get("received_at", 0)),
        float(body.get("answered_at", 0)),
        usage,
    )


def _attachments(body: dict[str, Any]) -> tuple[Attachment, ...]:
    return tuple(
        Attachment(str(a["filename"]), str(a["media_type"]), base64.b64decode(a["content"], validate=True))
        for a in body.get("attachments", ())
    )
