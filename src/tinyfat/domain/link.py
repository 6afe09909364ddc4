"""The frames between a box and the control plane: JSON text messages over one WebSocket.

The box dials `GET <link_url>` with `Authorization: Bearer <machine token>`. Then:

    box  -> hello         who I am, in what state, which turns I still hold
    ctrl -> welcome       what to run (RuntimeSpec)
    box  -> status        at once on a change, else every HEARTBEAT_SECONDS
    ctrl -> turn          an offer; may come twice, is done once
    box  -> turn_received the box has it, on its disk: no need to offer it again
    box  -> turn_result   until it is settled, again after every reconnect
    ctrl -> turn_settled  committed (or no longer wanted): the box may forget it
    both -> piece         a part of a long text and of files, of the `pieced` that follows
    both -> pieced        a turn or turn_result whose text and files went ahead in pieces (domain/link_pieces)
    box  -> log           lines of the runtime's and the box's own output
    ctrl -> move          this machine's part in moving its agent's state to another machine
    ctrl -> identity      the serial of the machine's identity; the box has a newer one fetched (domain/enrolment)

Every frame is `{"type": ..., ...}`, its type first, so that its size is judged before it is parsed (domain/link_json);
a frame of an unknown type is ignored, so that either side may be newer. Pieces are sent only to a side that said
protocol 2 or newer (box: hello, control plane: welcome); to an older one all goes in one frame.

The control plane refuses a token it does not know with HTTP 403 (the box tries again, slowly). It closes with
CLOSE_NOT_WANTED where the machine's end was asked for (the box stops its runtime and exits), with CLOSE_SUPERSEDED
where another link of the same token has come, and with CLOSE_PROTOCOL for what is no frame of this protocol.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from tinyfat.domain.turns import Turn, TurnResult

PROTOCOL = 2
PROTOCOL_PIECES = 2  # from here on long frames go in pieces
HEARTBEAT_SECONDS = 10.0
FRAME_BYTES_MAX = 256 * 1024  # of any frame: the worst JSON of this size is parsed in about 20 ms
LOG_LINES_MAX = 200  # in one frame
LOG_LINE_CHARS_MAX = 4000
STATE_PATH = "/box/state"  # where a state that moves is sent and fetched, at the link's host
STATE_BYTES_MAX = 8 * 1024**3  # packed
CLOSE_PROTOCOL = 1002  # RFC 6455 section 7.4.1
CLOSE_TOKEN_REFUSED = 4401
CLOSE_SUPERSEDED = 4409
CLOSE_NOT_WANTED = 4410

ID_CHARS_MAX = 200  # of a turn's id or a session's name
ANSWER_CHARS_MAX = 1_000_000  # of an answer's text; what is longer is cut
WORDS_CHARS_MAX = 4000  # of a failure, a detail
ATTACHMENTS_MAX = 200  # in one turn or answer
FILENAME_CHARS_MAX = 255
TURNS_HELD_MAX = 1000  # by one box
USAGE_ITEMS_MAX = 100  # in one object of an answer's usage
USAGE_DEPTH_MAX = 3
USAGE_BYTES_MAX = 16 * 1024  # of it as JSON; a box leaves out what is longer
PIECE_BYTES_MAX = 96 * 1024  # of one piece, decoded
ANSWER_FILES_BYTES_MAX = 32 * 1024 * 1024  # of all files of one answer


class FrameRefused(ValueError):
    """The other side sent a frame that is not of this protocol."""


class FrameTooLong(FrameRefused):
    """A frame over its type's bound; it was not parsed."""

    def __init__(self, kind: str, length: int) -> None:
        super().__init__(f"a frame {kind!r} of {length} characters is over its bound")
        self.kind = kind


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
    build: str = ""  # of the box's code (box/build)


@dataclass(frozen=True, slots=True)
class Welcome:
    spec: RuntimeSpec
    protocol: int = 1  # of the control plane


@dataclass(frozen=True, slots=True)
class Status:
    state: RuntimeState
    detail: str = ""  # for a person, e.g. "installing openclaw 2026.9.6: 41 s"
    version: str = ""  # of the runtime
    memory_bytes: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class IdentitySerial:
    """After each welcome, and when it has grown."""

    serial: int


class MovePart(StrEnum):
    """What a box has to do while its agent's state goes to another machine."""

    NONE = "none"  # it runs, as ever
    HAND_OVER = "hand-over"  # finish the turns under way, stop the runtime, send its state
    WAIT = "wait"  # it was sent: nothing may change here now
    TAKE = "take"  # fetch the state, run on it


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """After each welcome of a server, and when it changes. The state goes over HTTP (box/moving)."""

    move_id: str
    part: MovePart
    sha256: str = ""  # of what is to be taken, hex
    bytes: int = 0


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
class Piece:
    turn_id: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Pieced:
    """The text, then the files in order, came in pieces before it."""

    head: TurnOffer | TurnAnswer  # its text and the contents of its files are empty
    text_bytes: int  # of UTF-8
    file_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    at: float  # Unix time, seconds
    source: str  # "box" or "runtime"
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    lines: tuple[LogLine, ...] = field(default=())


Frame: TypeAlias = (
    Hello
    | Welcome
    | IdentitySerial
    | MoveOrder
    | Status
    | TurnOffer
    | TurnReceived
    | TurnAnswer
    | TurnSettled
    | Piece
    | Pieced
    | Log
)


def content_digest(sha256: str) -> str:
    """RFC 9530 section 2, from the hex digits."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:"
