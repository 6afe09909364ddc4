"""Files inside a text, as mail had them before MIME: uuencode (POSIX), also its base64 form, and yEnc."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from tinyfat.domain.mail.headers import decode_base64

FILES_MAX = 50  # of one text; what is more stays in it, encoded

_BEGIN = re.compile(
    rb"^(?:begin(?P<b64>-base64)? [0-7]{3,6}|=ybegin(?: [a-z]+=\d+)*) (?:name=)?(?P<name>\S[^\r\n]{0,250})\r?$",
    re.MULTILINE,
)
_END = re.compile(rb"^(?:end|====|=yend[^\r\n]*)[ \t]*\r?$", re.M)
_UU_LINE = re.compile(rb"[\x20-\x60]{1,90}")
_YENC_ESCAPE = re.compile(rb"=(.)", re.S)
_YENC_SHIFT = bytes((byte - 42) % 256 for byte in range(256))
_YENC_ESCAPED = bytes((byte - 64) % 256 for byte in range(256))


@dataclass(frozen=True, slots=True)
class EncodedFile:
    name: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class EncodedFiles:
    rest: bytes  # the text without them
    files: tuple[EncodedFile, ...]


def encoded_files(text: bytes) -> EncodedFiles:
    """Those that begin, end and decode; all else stays text. Takes time in proportion to the text."""
    rest: list[bytes] = []
    files: list[EncodedFile] = []
    position = 0
    while len(files) < FILES_MAX:
        begin = _BEGIN.search(text, position)
        end = _END.search(text, begin.end()) if begin else None
        if begin is None or end is None:
            break
        content = _decoded(begin, text[begin.end() : end.start()])
        rest.append(text[position : begin.start()] if content is not None else text[position : end.end()])
        if content is not None:
            files.append(EncodedFile(begin["name"].strip().strip(b'"'), content))
        position = end.end()
    return EncodedFiles(b"".join([*rest, text[position:]]), tuple(files))


def _decoded(begin: re.Match[bytes], body: bytes) -> bytes | None:
    lines = [line.rstrip(b"\r") for line in body.split(b"\n") if line.strip(b"\r")]
    if begin[0].startswith(b"=ybegin"):
        kept = b"".join(line for line in lines if not line.startswith((b"=ypart", b"=ybegin")))
        plain = _YENC_ESCAPE.split(kept)
        pieces = [piece.translate(_YENC_ESCAPED if n % 2 else _YENC_SHIFT) for n, piece in enumerate(plain)]
        return b"".join(p.translate(_YENC_SHIFT) if n % 2 else p for n, p in enumerate(pieces))
    if begin["b64"]:
        return decode_base64(b"".join(lines))
    out = bytearray()
    for line in lines:
        if not _UU_LINE.fullmatch(line):
            return None
        try:
            out += binascii.a2b_uu(line)
        except binascii.Error:  # bits beyond its count, which some encoders leave there
            out += _leniently(line)
    return bytes(out)


def _leniently(line: bytes) -> bytes:
    """Six bits a character, and as many bytes as the first one says."""
    bits = 0
    for character in line[1:]:
        bits = bits << 6 | (character - 32) & 63
    count = len(line[1:]) * 6 // 8
    return (bits >> (len(line[1:]) * 6 - count * 8)).to_bytes(count, "big")[: (line[0] - 32) & 63]
