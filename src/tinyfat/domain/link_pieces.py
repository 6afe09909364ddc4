"""A long turn or answer on the link: its text and its files go ahead in pieces, so that every frame stays short.

    piece, piece, ... -> pieced        the text as UTF-8, then each file, cut anywhere; `pieced` says how long each was

A side keeps the pieces of one turn at a time: a piece of another turn begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tinyfat.domain.link import ANSWER_CHARS_MAX, PIECE_BYTES_MAX, FrameRefused, Piece, Pieced, TurnAnswer, TurnOffer
from tinyfat.domain.turns import Attachment, Turn, TurnResult

INLINE_CHARS_MAX = 8_000  # of a text that goes in its frame: under 100 kB of escapes
INLINE_FILES_BYTES_MAX = 64 * 1024


def fits_a_frame(frame: TurnOffer | TurnAnswer) -> bool:
    """Short enough to go whole."""
    body = _of(frame)
    return len(body.text) <= INLINE_CHARS_MAX and _file_bytes(body) <= INLINE_FILES_BYTES_MAX


def headed(frame: TurnOffer | TurnAnswer) -> tuple[Pieced, tuple[bytes, ...]]:
    """What is sent last, and the contents whose pieces are sent before it."""
    body = _of(frame)
    # The text is cut here as its reader would cut it. Half a surrogate pair has no UTF-8.
    text = (body.text[:ANSWER_CHARS_MAX] if isinstance(body, TurnResult) else body.text).encode("utf-8", "replace")
    files = tuple(attachment.content for attachment in body.attachments)
    return Pieced(_with(frame, "", [b""] * len(files)), len(text), tuple(map(len, files))), (text, *files)


def pieces(turn_id: str, content: bytes) -> Iterator[Piece]:
    for start in range(0, len(content), PIECE_BYTES_MAX):
        yield Piece(turn_id, content[start : start + PIECE_BYTES_MAX])


def joined(pieced: Pieced, blob: bytes) -> TurnOffer | TurnAnswer:
    """What its sender had. Raises FrameRefused where the lengths do not fit what came."""
    files = _of(pieced.head).attachments
    if len(files) != len(pieced.file_bytes) or pieced.text_bytes + sum(pieced.file_bytes) != len(blob):
        raise FrameRefused("the pieces are not what their head says")
    text = blob[: pieced.text_bytes].decode("utf-8", "replace").replace("\0", "\ufffd")  # Postgres takes no NUL
    contents, start = [], pieced.text_bytes
    for size in pieced.file_bytes:
        contents.append(blob[start : start + size])
        start += size
    return _with(pieced.head, text[:ANSWER_CHARS_MAX] if isinstance(pieced.head, TurnAnswer) else text, contents)


def id_of(frame: TurnOffer | TurnAnswer) -> str:
    return frame.turn.id if isinstance(frame, TurnOffer) else frame.turn_id


def _of(frame: TurnOffer | TurnAnswer) -> Turn | TurnResult:
    return frame.turn if isinstance(frame, TurnOffer) else frame.result


def _file_bytes(body: Turn | TurnResult) -> int:
    return sum(len(attachment.content) for attachment in body.attachments)


def _with(frame: TurnOffer | TurnAnswer, text: str, contents: list[bytes]) -> TurnOffer | TurnAnswer:
    files: tuple[Attachment, ...] = tuple(
        replace(attachment, content=content)
        for attachment, content in zip(_of(frame).attachments, contents, strict=True)
    )
    if isinstance(frame, TurnOffer):
        return replace(frame, turn=replace(frame.turn, text=text, attachments=files))
    return replace(frame, result=replace(frame.result, text=text, attachments=files))
