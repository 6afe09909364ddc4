"""Header fields of a hostile message: reading them in linear time, and the encodings inside them.

A deliberately small twin of the standard library's compat32 policy: that library's newer one raises on
`Message-ID: <[a@b]>` and on unknown charsets, and its parsers take quadratic time on lines made to hurt.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tinyfat.domain.mail.charsets import decode, known_charset, one_line

HEADERS_MAX = 1_000
HEADER_LINES_MAX = 4_000  # continuation lines included
HEADER_VALUE_BYTES_MAX = 65_536
CUT_MARK = b" \0"  # ends a value that was cut, so that nobody takes it for the whole
PARAMETERS_MAX = 100
PARAMETER_TEXT_CHARS_MAX = 8_192

BROKEN_LINES_MAX = 5  # of one block, that are skipped
BROKEN_LINES_AHEAD_MAX = 2  # more of them in a row are a text
LOOK_AHEAD_BYTES = 20_000  # behind a broken line, for the fields and the empty line that say it is one
BASE64_CHUNKS_MAX = 1_000  # that were encoded one by one

_NAME = re.compile(rb"([\x21-\x39\x3b-\x7e]{1,1000})[ \t]*:")
_EMPTY_LINES = re.compile(rb"(?:\r?\n){1,20}")
_KNOWN = re.compile(
    rb"(?:x-|content-|resent-|list-|arc-|dkim-).+|from|to|cc|bcc|subject|date|sender|reply-to|message-id|in-reply-to"
    rb"|references|mime-version|received|return-path|delivered-to|authentication-results|auto-submitted|importance"
)
# A question mark that nobody encoded is let through; "=?" begins the next one, so that a search never goes back far.
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?((?:[^?=]|=(?!\?(?!=))|\?(?!=))*)\?=")
_PARAMETER = re.compile(r'(?:;|(?<=")[ \t])\s*([^=;\s"]{1,80})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_EARLY_PARAMETER = re.compile(r"(^|[,\s])\s{0,9}[A-Za-z][\w*-]{0,60}\s{0,9}=")
_EXTENDED = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")


@dataclass(frozen=True, slots=True)
class Headers:
    """The fields in order: names in lower case, values unfolded bytes."""

    fields: tuple[tuple[str, bytes], ...] = ()

    def all(self, name: str) -> list[str]:
        """Every value of this field, 8-bit characters decoded, RFC 2047 untouched."""
        return [decode(value).strip() for one, value in self.fields if one == name]

    def first(self, name: str) -> str:
        """The first value of this field, or ""."""
        return next((decode(value).strip() for one, value in self.fields if one == name), "")

    def first_in(self, name: str, charset: str) -> str:
        """As `first`, of a field that is only shown: 8-bit characters, which no charset is given for, read in that of
        the body."""
        value = next((value for one, value in self.fields if one == name), b"")
        compatible = not (known_charset(charset) or "utf_").startswith(("utf_", "iso2022", "hz"))
        return decode(value, charset if compatible and not value.isascii() else "", guess=True).strip()

    def names(self) -> Iterator[str]:
        return (name for name, _ in self.fields)


@dataclass(frozen=True, slots=True)
class HeaderBlock:
    headers: Headers
    body_start: int  # offset in the raw message
    defects: tuple[str, ...]


def _not_a_boundary(line: bytes) -> bool:
    return False


def read_headers(raw: bytes, start: int = 0, is_boundary: Callable[[bytes], bool] = _not_a_boundary) -> HeaderBlock:
    """Read fields from `start` to the empty line, to a line that is no field, or to a MIME boundary.

    A line that is no field is skipped where known fields and an empty line follow: there the header goes on. A lone CR
    is no line end (RFC 5322 2.3): what dkimpy calls one header field is one here too.
    """
    fields: list[tuple[str, list[bytes]]] = []
    defects: set[str] = set()
    position, kept, skipping = _first_line(raw) if start == 0 else start, 0, False
    broken_lines_left = BROKEN_LINES_MAX
    for _ in range(HEADER_LINES_MAX):
        if position >= len(raw):
            break
        newline = raw.find(b"\n", position)
        line_end = len(raw) if newline < 0 else newline
        line = raw[position : min(line_end, position + HEADER_VALUE_BYTES_MAX)].removesuffix(b"\r")
        after = line_end + 1 if newline >= 0 else line_end
        if not line:
            return _block(fields, after, defects)
        if line[:1] in b" \t":
            kept = kept if skipping else _continue(fields, line, kept, defects)
        elif line.startswith(b"--") and is_boundary(line):
            return _block(fields, position, defects | {"headers-unterminated"})
        elif match := _NAME.match(line):
            if len(fields) == HEADERS_MAX:
                break
            skipping = False
            cut = line_end - position > HEADER_VALUE_BYTES_MAX
            fields.append((match[1].decode("ascii").lower(), [line[match.end() :] + (CUT_MARK if cut else b"")]))
            kept = HEADER_VALUE_BYTES_MAX + 1 if cut else len(line)
            defects |= {"header-cut"} if cut else set()
        elif not (line.startswith((b"From ", b">From ")) and position == start):  # an mbox's first line
            defects.add("headers-broken")
            goes_on = (fields or start == 0) and _header_goes_on(raw[after : after + LOOK_AHEAD_BYTES])
            if not broken_lines_left or not goes_on:
                return _block(fields, position, defects)
            broken_lines_left, skipping = broken_lines_left - 1, True
        position = after
    else:
        defects.add("headers-too-many")
    if len(fields) == HEADERS_MAX:
        defects.add("headers-too-many")
    return _block(fields, _after_headers(raw, position) if start == 0 else position, defects)


def _first_line(raw: bytes) -> int:
    """Past a byte order mark, and past empty lines that a field follows."""
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    match = _EMPTY_LINES.match(raw, start)
    return match.end() if match and _NAME.match(raw, match.end()) else start


def _header_goes_on(ahead: bytes) -> bool:
    """Do fields follow, one of them known, and then an empty line?"""
    known, broken = False, 0
    for line in ahead.split(b"\n")[:-1]:
        line = line.removesuffix(b"\r")
        if not line:
            return known
        match = _NAME.match(line)
        if match is None and line[:1] not in b" \t":
            broken += 1
            if broken > BROKEN_LINES_AHEAD_MAX:
                return False
        known = known or bool(match and _KNOWN.match(match[1].lower()))
    return False


def _continue(fields: list[tuple[str, list[bytes]]], line: bytes, kept: int, defects: set[str]) -> int:
    if not fields:
        defects.add("headers-broken")
    elif kept + len(line) <= HEADER_VALUE_BYTES_MAX:
        fields[-1][1].append(line)
    elif kept <= HEADER_VALUE_BYTES_MAX:
        fields[-1][1].append(CUT_MARK)
        defects.add("header-cut")
        return HEADER_VALUE_BYTES_MAX + 1
    return kept + len(line)


def _after_headers(raw: bytes, position: int) -> int:
    """Past the empty line that ends a header block we stopped reading. Only the message's own: it is searched once."""
    ends = [found + len(gap) for gap in (b"\n\r\n", b"\n\n") if (found := raw.find(gap, max(0, position - 1))) >= 0]
    return min(ends, default=len(raw))


def _block(fields: list[tuple[str, list[bytes]]], body_start: int, defects: set[str]) -> HeaderBlock:
    joined = tuple((name, b"".join(chunks).strip()) for name, chunks in fields)
    return HeaderBlock(Headers(joined), body_start, tuple(sorted(defects)))


def decode_words(text: str) -> str:
    """RFC 2047: encoded words decoded, blanks between two dropped, neighbours of one charset decoded together."""
    out: list[str] = []
    pending, charset, end = b"", "", 0
    for match in _ENCODED_WORD.finditer(text):
        gap = text[end : match.start()]
        same = match[1].lower() == charset and not gap.strip()
        if pending and not same:
            out.append(decode(pending, charset))
            pending = b""
        if not charset or gap.strip():  # the text before the first word, or between two that are not neighbours
            out.append(gap)
        charset = match[1].lower()
        pending += _word_bytes(match[2], match[3])
        end = match.end()
    if pending:
        out.append(decode(pending, charset))
    return "".join([*out, text[end:]])


def _word_bytes(encoding: str, text: str) -> bytes:
    content = text.encode("utf-8", "replace")
    if encoding in "bB":
        return decode_base64(content)
    return binascii.a2b_qp(content, header=True)


def decode_base64(content: bytes) -> bytes:
    """What can be read of it: foreign characters skipped, padding mended, a last stray character dropped.

    What was encoded in chunks is decoded in chunks. Plain lines behind the padding (a list's footer) stay as they are,
    and so does what is none from the beginning.
    """
    if _PLAIN_START.match(content):
        return content
    end = _PADDED_LINE.search(content)
    if end and _FOREIGN.search(content, end.end()) and not _PADDED_LINE.search(content, end.end()):
        return decode_base64(content[: end.end()]) + b"\n" + content[end.end() :]
    letters = content.translate(_STANDARD, _NOT_BASE64).rstrip(b"=")
    chunks = letters.split(b"=", BASE64_CHUNKS_MAX)
    if len(chunks) > BASE64_CHUNKS_MAX:
        chunks = [letters.replace(b"=", b"")]
    return b"".join(_decode_chunk(chunk) for chunk in chunks if chunk)


def _decode_chunk(letters: bytes) -> bytes:
    usable = letters[: len(letters) - (len(letters) % 4 == 1)]
    try:
        return base64.b64decode(usable + b"=" * (-len(usable) % 4))
    except (binascii.Error, ValueError):
        return b""


_PADDED_LINE = re.compile(rb"[A-Za-z0-9+/]={1,2}[ \t]*\r?\n")
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/=\s]")
_PLAIN_START = re.compile(
    rb"\s{0,100}[^\s=]{1,100}[ \t]+[^\s=]{1,100}[ \t]+[^\s=]"
)  # words: no encoder puts blanks in a line
_STANDARD = bytes.maketrans(b"-_", b"+/")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="))


def parse_parameters(value: str) -> tuple[str, dict[str, str]]:
    """`text/plain; charset="x"` as ("text/plain", {"charset": "x"}), RFC 2231's continuations and charsets included.

    Forgotten semicolons, single quotes and a second equals sign are seen through.
    """
    text = value[:PARAMETER_TEXT_CHARS_MAX]
    main, semicolon, rest = text.partition(";")
    if equals := _EARLY_PARAMETER.search(main):  # the semicolon was forgotten, or is a comma
        main, semicolon, rest = main[: equals.start()], ";", f"{main[equals.end(1) :]}{semicolon}{rest}"
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for count, match in enumerate(_PARAMETER.finditer(semicolon + rest)):
        if count == PARAMETERS_MAX:
            break
        name = _EXTENDED.fullmatch(match[1].lower())
        content = _unquoted(match[2])
        if name is None or not (name[2] or name[3]):
            plain.setdefault(match[1].lower(), content)
        else:
            pieces.setdefault(name[1], {}).setdefault(int(name[2] or 0), (bool(name[3]), content))
    extended = {name: _joined(parts) for name, parts in pieces.items()}
    return main.strip().lower(), plain | {name: text for name, text in extended.items() if text}


def _unquoted(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        return re.sub(r"\\(.)", r"\1", stripped[1:-1])
    bare = re.sub(r"\s\([^()]*\)$", "", stripped)
    if len(bare) > 1 and bare[0] == bare[-1] == "'":
        bare = bare[1:-1]
    return (bare if bare.startswith("=?") else bare.removeprefix("=")).strip('"')


def _joined(parts: dict[int, tuple[bool, str]]) -> str:
    """RFC 2231 3 and 4: the pieces in order, percent-decoded where they are marked, in the first piece's charset."""
    content, charset = b"", ""
    for number in sorted(parts):
        encoded, text = parts[number]
        if encoded and number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        content += unquote_to_bytes(text) if encoded else text.encode("utf-8", "replace")
    return decode(content, charset)


def display_text(value: str, chars_max: int = 1000) -> str:
    """A header's value as people read it: RFC 2047 decoded, one line, no control characters."""
    return one_line(decode_words(value[:HEADER_VALUE_BYTES_MAX]), chars_max)
