"""The link's frames as JSON text: written, and read from a side that is hostile. What they mean: domain/link."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import asdict
from typing import Any

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure, read_failure
from tinyfat.domain.link import (
    ANSWER_CHARS_MAX,
    ATTACHMENTS_MAX,
    FILENAME_CHARS_MAX,
    FRAME_BYTES_MAX,
    ID_CHARS_MAX,
    LOG_LINE_CHARS_MAX,
    LOG_LINES_MAX,
    TURNS_HELD_MAX,
    USAGE_DEPTH_MAX,
    USAGE_ITEMS_MAX,
    WORDS_CHARS_MAX,
    Frame,
    FrameRefused,
    FrameTooLong,
    Hello,
    IdentitySerial,
    Log,
    LogLine,
    ModelAccess,
    MoveOrder,
    MovePart,
    Piece,
    Pieced,
    RuntimeSpec,
    RuntimeState,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnReceived,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

_UNFIT = re.compile("[\\x00\\ud800-\\udfff]")  # Postgres takes no NUL, UTF-8 no half of a surrogate pair
_COUNT_MAX = 2**53  # exact in every JSON reader, and fits a bigint
_MOMENT_MAX = 253_402_300_800.0  # Unix time of the year 10000: the end of what datetime can say
_SECONDS_MAX = 10_000_000.0  # of a deadline: about four months


# Of one frame as it arrives. What is not listed is of a newer side, and small.
_KIB = 1024
_BYTES_MAX = {
    "hello": FRAME_BYTES_MAX,  # TURNS_HELD_MAX ids
    "welcome": 64 * _KIB,
    "status": 64 * _KIB,
    "identity": 4 * _KIB,
    "move": 4 * _KIB,
    "turn": FRAME_BYTES_MAX,
    "turn_received": 4 * _KIB,
    "turn_result": FRAME_BYTES_MAX,
    "turn_settled": 4 * _KIB,
    "piece": 136 * _KIB,  # PIECE_BYTES_MAX in base64
    "pieced": FRAME_BYTES_MAX,
    "log": 128 * _KIB,
}
_UNKNOWN_BYTES_MAX = 16 * _KIB
_TYPE_FIRST = re.compile(r'\{"type": ?"([a-z_]{1,32})"')

_TYPES: dict[type, str] = {
    Hello: "hello",
    Welcome: "welcome",
    Status: "status",
    IdentitySerial: "identity",
    MoveOrder: "move",
    TurnOffer: "turn",
    TurnReceived: "turn_received",
    TurnAnswer: "turn_result",
    TurnSettled: "turn_settled",
    Piece: "piece",
    Pieced: "pieced",
    Log: "log",
}


def encode(frame: Frame) -> str:
    """ASCII only: half a surrogate pair in somebody's text still makes a text message (RFC 6455 8.1)."""
    return json.dumps(_body(frame), ensure_ascii=True)


def _body(frame: Frame) -> dict[str, Any]:
    kind = {"type": _TYPES[type(frame)]}
    if isinstance(frame, Pieced):
        return {**kind, "head": _body(frame.head), "text_bytes": frame.text_bytes, "file_bytes": list(frame.file_bytes)}
    body = asdict(frame)
    if isinstance(frame, TurnAnswer):
        body["result"] |= _failure_fields(frame.result)
    if isinstance(frame, Piece):
        body["content"] = _base64(frame.content)
    for holder in ("turn", "result"):
        if holder in body:
            for attachment in body[holder]["attachments"]:
                attachment["content"] = _base64(attachment["content"])
    return {**kind, **body}


def read_frame(text: str | bytes) -> Frame | None:
    """As `decode`, of what a stranger sent: its length is judged by its type before it is parsed. Raises FrameRefused,
    FrameTooLong."""
    start = text[:64] if isinstance(text, str) else text[:64].decode("ascii", "replace")
    named = _TYPE_FIRST.match(start)
    if named is None:
        raise FrameRefused("a frame does not begin with its type")
    if len(text) > _BYTES_MAX.get(named[1], _UNKNOWN_BYTES_MAX):
        raise FrameTooLong(named[1], len(text))
    return decode(text)


def _failure_fields(result: TurnResult) -> dict[str, Any]:
    """A side that is older than a failure's id, or than `silent`, reads a failure as it always did."""
    silent = result.outcome is TurnOutcome.SILENT
    written = result.failure.written() if result.failure else ""
    return {"outcome": TurnOutcome.FAILED if silent else result.outcome, "failure": written}


def decode(text: str | bytes) -> Frame | None:
    """The frame, or None for a type this side does not know. The other side is hostile: FrameRefused for nonsense.

    What comes out fits a database: no NUL, no half surrogate, no NaN or infinity, every number within its range.
    """
    try:
        body = json.loads(text, parse_constant=_no_constant)
        return _decode(body["type"], body)
    except FrameRefused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise FrameRefused(f"not a frame: {type(error).__name__}") from error


def _decode(kind: object, body: dict[str, Any]) -> Frame | None:
    match kind:
        case "hello":
            held = body.get("turns_held", [])[:TURNS_HELD_MAX]
            build = _text(body.get("build", ""), 100)
            return Hello(_count(body["protocol"]), _text(body["box_version"], 100), tuple(map(_id, held)), build)
        case "welcome":
            return Welcome(_spec(body["spec"]), _count(body.get("protocol", 1)))
        case "status":
            return Status(
                RuntimeState(body["state"]),
                _text(body.get("detail", ""), WORDS_CHARS_MAX),
                _text(body.get("version", ""), 100),
                _count(body.get("memory_bytes", 0)),
                _count(body.get("restarts", 0)),
            )
        case "identity":
            return IdentitySerial(_count(body["serial"]))
        case "move":
            part = MovePart(body["part"])
            return MoveOrder(
                _id(body["move_id"]), part, _text(body.get("sha256", ""), 64), _count(body.get("bytes", 0))
            )
        case "turn":
            return TurnOffer(_turn(body["turn"]))
        case "turn_received":
            return TurnReceived(_id(body["turn_id"]))
        case "turn_result":
            return TurnAnswer(_id(body["turn_id"]), _result(body["result"]))
        case "turn_settled":
            return TurnSettled(_id(body["turn_id"]))
        case "piece":
            return Piece(_id(body["turn_id"]), _content(body["content"]))
        case "pieced":
            return _pieced(body)
        case "log":
            return Log(tuple(_log_line(line) for line in body["lines"][:LOG_LINES_MAX]))
        case _:
            return None


def _pieced(body: dict[str, Any]) -> Pieced:
    head, sizes = body["head"], body["file_bytes"]
    frame = _decode(head["type"], head) if head["type"] in ("turn", "turn_result") else None
    if not isinstance(frame, TurnOffer | TurnAnswer) or not isinstance(sizes, list) or len(sizes) > ATTACHMENTS_MAX:
        raise FrameRefused("what came in pieces is neither a turn nor its result")
    return Pieced(frame, _count(body["text_bytes"]), tuple(map(_count, sizes)))


def _spec(body: dict[str, Any]) -> RuntimeSpec:
    model = {name: _text(body["model"][name], WORDS_CHARS_MAX) for name in ("api", "url", "key", "model")}
    return RuntimeSpec(
        _text(body["kind"], 100), _text(body["agent_name"], 100), ModelAccess(**model), _count(body["memory_bytes_max"])
    )


def _turn(body: dict[str, Any]) -> Turn:
    return Turn(
        _id(body["id"]),
        _id(body["session"]),
        _text(body["text"]),
        _number(body["deadline_seconds"], _SECONDS_MAX),
        _attachments(body),
    )


def _result(body: dict[str, Any]) -> TurnResult:
    usage = _plain(body.get("usage") or {}, USAGE_DEPTH_MAX)
    if not isinstance(usage, dict):
        raise FrameRefused("usage is not an object")
    outcome = TurnOutcome(body["outcome"])
    written = _text(body.get("failure", ""), WORDS_CHARS_MAX)
    failure = None if outcome is TurnOutcome.ANSWERED else read_failure(written) or Failure(FailureId.TURN_FAILED)
    if failure is not None:
        outcome = TurnOutcome.SILENT if failure.id is FailureId.SILENT else TurnOutcome.FAILED
    # A box older than the list of failures sends its own words: they are for the operator alone.
    old_words = "" if failure is None or written.startswith("{") else written
    return TurnResult(
        outcome,
        _text(body.get("text", ""), ANSWER_CHARS_MAX),
        _attachments(body),
        failure,
        _text(body.get("detail", ""), WORDS_CHARS_MAX) or old_words,
        _number(body.get("received_at", 0), _MOMENT_MAX),
        _number(body.get("answered_at", 0), _MOMENT_MAX),
        usage,
    )


def _log_line(body: dict[str, Any]) -> LogLine:
    return LogLine(_number(body["at"], _MOMENT_MAX), _text(body["source"], 20), _text(body["text"], LOG_LINE_CHARS_MAX))


def _attachments(body: dict[str, Any]) -> tuple[Attachment, ...]:
    listed = body.get("attachments", [])
    if not isinstance(listed, list) or len(listed) > ATTACHMENTS_MAX:
        raise FrameRefused(f"attachments are not a list of at most {ATTACHMENTS_MAX}")
    return tuple(
        Attachment(
            _text(item["filename"], FILENAME_CHARS_MAX),
            _text(item["media_type"], FILENAME_CHARS_MAX),
            _content(item["content"]),
        )
        for item in listed
    )


def _content(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _text(value: object, chars_max: int | None = None) -> str:
    if not isinstance(value, str):
        raise FrameRefused("a text is not a string")
    return _UNFIT.sub("\ufffd", value[:chars_max])


def _id(value: object) -> str:
    text = _text(value)
    if not 0 < len(text) <= ID_CHARS_MAX:
        raise FrameRefused(f"an id has 1 to {ID_CHARS_MAX} characters, not {len(text)}")
    return text


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _COUNT_MAX:
        raise FrameRefused("a count is not a whole number in its range")
    return value


def _number(value: object, largest: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= largest:  # type: ignore[operator]
        raise FrameRefused("a number is not in its range")
    return float(value)  # type: ignore[arg-type]


def _plain(value: object, depth: int) -> object:
    """Tokens and costs, as the runtime reports them: small, and fit for any JSON reader; the rest becomes None."""
    match value:
        case bool() | None:
            return value
        case int():
            return value if abs(value) <= _COUNT_MAX else None
        case float():
            return value if math.isfinite(value) else None
        case str():
            return _text(value, FILENAME_CHARS_MAX)
        case dict() if depth:
            first = list(value.items())[:USAGE_ITEMS_MAX]
            return {_text(key, FILENAME_CHARS_MAX): _plain(item, depth - 1) for key, item in first}
        case list() if depth:
            return [_plain(item, depth - 1) for item in value[:USAGE_ITEMS_MAX]]
        case _:
            return None


def _no_constant(name: str) -> None:
    raise FrameRefused(f"{name} is no number of JSON (RFC 8259 section 6)")
