"""The parts of a MIME message (RFC 2046), found in one pass over its bytes.

Every bound ends in a part that still holds the bytes: what is not taken apart is kept whole.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from tinyfat.domain.mail.encoded_files import encoded_files
from tinyfat.domain.mail.headers import Headers, decode_base64, decode_words, parse_parameters, read_headers

PARTS_MAX = 500
NESTING_MAX = 50
BOUNDARY_BYTES_MAX = 200  # RFC 2046 5.1.1 allows 70
BOUNDARY_GUESS_BYTES = 65_536  # of a body whose boundary is not given, in which its first delimiter is looked for
BOUNDARY_GUESSES_MAX = 20
DELIMITER_LINES_MAX = 200_000  # lines that begin with "--": past these the last part runs to the end

_NAME = r"[a-z0-9!#$&^_.+-]{1,100}"
_BOUNDARY_LINE = re.compile(rb"^--([\x21-\x7e]{2,70}?)[ \t]*\r?$", re.MULTILINE)
_FIRST_DELIMITER = re.compile(rb"\s{0,100}--([\x21-\x7e]{2,70})[ \t]*\r?\n(?=content-|\r?\n)", re.IGNORECASE)
_REPEATED_NAME = re.compile(r"(?:content-type\s*:\s*)+", re.IGNORECASE)
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")


@dataclass(frozen=True, slots=True)
class Part:
    headers: Headers
    media_type: str  # e.g. "text/plain"; always of the form type/subtype
    parameters: dict[str, str]  # of the Content-Type
    disposition: str  # "attachment", "inline" or ""
    disposition_parameters: dict[str, str]
    body: bytes  # still encoded; b"" where there are children
    children: tuple[Part, ...]
    opaque: bool = False  # a multipart nested too deep to be taken apart
    preamble: bytes = b""  # what stands before the first part (RFC 2046 5.1.1), of the root alone
    is_text: bool = False  # to be read in place, whatever name it has (parts_as_meant)

    def content(self) -> bytes:
        """The body with its Content-Transfer-Encoding undone (RFC 2045 6)."""
        encoding = transfer_encoding(self.headers)
        if encoding == "base64":
            return decode_base64(self.body)
        if encoding == "uuencode":
            return next((one.content for one in encoded_files(self.body).files), self.body)
        return binascii.a2b_qp(self.body) if encoding == "quoted-printable" else self.body

    def leaves(self) -> Iterator[Part]:
        """This part and all below it that have no children, in order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


_COMMENT = re.compile(r"\([^()]*\)")
_ENCODINGS = {
    **dict.fromkeys(("b64", "b"), "base64"),
    **dict.fromkeys(("qp", "q"), "quoted-printable"),
    **dict.fromkeys(("uue", "xuue"), "uuencode"),
}
_NAMED = {
    "base64": "base64",
    "quotedprintable": "quoted-printable",
    "quoteprintable": "quoted-printable",
    "uuencode": "uuencode",
}


def transfer_encoding(headers: Headers) -> str:
    """ "base64", "quoted-printable", "uuencode", or "" for all that changes nothing (RFC 2045 6).

    Comments, parameters, quotes, separators and the near spellings of real senders are seen through; of several fields
    the first that says something counts.
    """
    return next((found for value in headers.all("content-transfer-encoding") if (found := _encoding(value))), "")


def _encoding(value: str) -> str:
    plain = decode_words(_COMMENT.sub(" ", value[:200])).lower()
    folded = re.sub(r"[^a-z0-9]+", "", plain)
    for name, encoding in _NAMED.items():
        if name in folded:
            return encoding
    word = re.split(r"[;,\s]", plain.replace('"', " ").replace("'", " ").strip(), maxsplit=1)[0]
    return _ENCODINGS.get(re.sub(r"[^a-z0-9]+", "", word), "")


@dataclass(frozen=True, slots=True)
class Structure:
    root: Part
    defects: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    headers: Headers
    media_type: str
    parameters: dict[str, str]
    start: int
    end: int
    depth: int
    opaque: bool = False
    preamble_end: int = 0
    shadowed: int | None = None  # the depth of an outer multipart that has the same boundary
    children: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Walk:
    """The state of the one pass: which multiparts are open, outermost first, and which leaf is being read."""

    raw: bytes
    defects: set[str]
    open: list[_Node] = field(default_factory=list)
    depth_of: dict[bytes, int] = field(default_factory=dict)  # delimiter, e.g. b"--xyz" -> index in `open`
    current: _Node | None = None
    count: int = 0
    closed: dict[bytes, _Node] = field(default_factory=dict)  # by their delimiter: some senders close too early


def read_structure(raw: bytes) -> Structure:
    walk = _Walk(raw, set())
    root = _begin(walk, 0, "text/plain")
    if (whole := _unwrapped(root, raw)) is not None:
        raw = whole
        walk = _Walk(raw, {"multipart-encoded"})
        root = _begin(walk, 0, "text/plain")
    position = root.start
    for _ in range(DELIMITER_LINES_MAX):
        line_start = _next_dashes(raw, position) if walk.open or walk.closed else -1
        if line_start < 0:
            break
        position, line = _line_at(raw, line_start)
        depth, closing = _which(walk, line)
        if depth is None:
            depth = _reopen(walk, line)
        if depth is None:
            continue
        if not closing and walk.count >= PARTS_MAX:
            walk.defects.add("parts-too-many")
            break
        position = _at_delimiter(walk, line_start, position, depth, closing)
    else:
        walk.defects.add("delimiters-too-many")
    if walk.open:
        walk.defects.add("boundary-unclosed")
    part = _part(root, raw, walk.defects)
    return Structure(part, tuple(sorted(walk.defects)))


def _unwrapped(root: _Node, raw: bytes) -> bytes | None:
    """A multipart that is encoded as a whole, which RFC 2045 6.4 forbids, with that undone; None for all others."""
    encoding = transfer_encoding(root.headers)
    if encoding not in ("base64", "quoted-printable") or not root.media_type.startswith("multipart/"):
        return None
    _, parameters = parse_parameters(root.headers.first("content-type"))
    boundary = b"--" + parameters.get("boundary", "").encode("utf-8", "replace")
    if len(boundary) < 3 or raw.find(boundary, root.start) >= 0:
        return None
    body = raw[root.start :]
    decoded = decode_base64(body) if encoding == "base64" else binascii.a2b_qp(body)
    return raw[: root.start] + decoded if boundary in decoded else None


def _next_dashes(raw: bytes, position: int) -> int:
    """The next line that begins with "--", from `position` (the start of a line) on; -1 where there is none."""
    if raw.startswith(b"--", position):
        return position
    found = raw.find(b"\n--", position)
    return found + 1 if found >= 0 else -1


def _line_at(raw: bytes, start: int) -> tuple[int, bytes]:
    """Where the next line starts, and this line's text; b"" where it is too long to be a delimiter."""
    newline = raw.find(b"\n", start)
    end = newline + 1 if newline >= 0 else len(raw)
    return end, raw[start:end].rstrip(b" \t\r\n") if end - start <= BOUNDARY_BYTES_MAX + 100 else b""


def _which(walk: _Walk, line: bytes) -> tuple[int | None, bool]:
    """The open multipart this line delimits, innermost meaning first, and whether it closes it."""
    depth = walk.depth_of.get(line)
    if depth is None and line.endswith(b"--"):
        return walk.depth_of.get(line[:-2]), True
    return depth, False


def _reopen(walk: _Walk, line: bytes) -> int | None:
    """Parts may follow the delimiter that should have been the last: the multipart goes on, and nothing is lost."""
    node = walk.closed.get(line) if walk.current is None else None
    if node is None or node.depth > len(walk.open):
        return None
    if node.depth and walk.open[node.depth - 1].children[-1] is not node:
        return None
    walk.defects.add("boundary-closed-early")
    _close_to(walk, node.depth, node.end)
    _open(walk, node)
    return node.depth


def _open(walk: _Walk, node: _Node) -> None:
    node.shadowed = walk.depth_of.get(_delimiter(node))
    walk.depth_of[_delimiter(node)] = len(walk.open)
    walk.open.append(node)


def _at_delimiter(walk: _Walk, line_start: int, line_end: int, depth: int, closing: bool) -> int:
    """Close what this line closes, begin the part it begins. Returns the start of the line where reading goes on."""
    _end_current(walk, line_start)
    _close_to(walk, depth if closing else depth + 1, line_start)
    if closing:
        return line_end
    if not walk.open[-1].children:
        walk.open[-1].preamble_end = _before_line(walk.raw, line_start)
    digest = walk.open[-1].media_type == "multipart/digest"
    return _begin(walk, line_end, "message/rfc822" if digest else "text/plain").start


def _end_current(walk: _Walk, line_start: int) -> None:
    """The line end before a delimiter belongs to the delimiter (RFC 2046 5.1.1)."""
    if walk.current is not None:
        walk.current.end = max(walk.current.start, _before_line(walk.raw, line_start))
        walk.current = None


def _before_line(raw: bytes, line_start: int) -> int:
    end = line_start - 1 if line_start and raw[line_start - 1 : line_start] == b"\n" else line_start
    return end - 1 if raw[end - 1 : end] == b"\r" else end


def _close_to(walk: _Walk, depth: int, line_start: int) -> None:
    for node in reversed(walk.open[depth:]):
        node.end = max(node.start, _before_line(walk.raw, line_start))
        if node.shadowed is None:
            del walk.depth_of[_delimiter(node)]
        else:
            walk.depth_of[_delimiter(node)] = node.shadowed
        walk.closed[_delimiter(node)] = node
    del walk.open[depth:]


def _begin(walk: _Walk, start: int, default_type: str) -> _Node:
    """Read a part's headers; a multipart is opened, any other part becomes the current leaf."""
    block = read_headers(walk.raw, start, lambda line: _is_open_delimiter(walk, line))
    walk.defects.update(block.defects)
    value = _REPEATED_NAME.sub("", block.headers.first("content-type"))
    value = decode_words(value) if value.startswith("=?") else value
    media_type, parameters = parse_parameters(value) if value else (default_type, {})
    given = bool(_MEDIA_TYPE.fullmatch(media_type))
    if not given:
        walk.defects.add("content-type-broken")
        media_type = _meant_type(media_type, parameters, block.headers)
    if not walk.count:
        media_type, parameters = _root_type(walk, block.body_start, media_type, parameters, bool(value) and given)
    node = _Node(block.headers, media_type, parameters, block.body_start, len(walk.raw), len(walk.open))
    walk.count += 1
    if walk.open:
        walk.open[-1].children.append(node)
    if media_type.startswith("multipart/") and _can_open(walk, node):
        _open(walk, node)
    else:
        walk.current = node
    return node


def _meant_type(text: str, parameters: dict[str, str], headers: Headers) -> str:
    """What stands where a media type should: `multipart/*`, `text`, `"text/html"`, `image/*`, nonsense."""
    words = _COMMENT.sub(" ", text).replace(" /", "/").replace("/ ", "/").split()
    first = words[0].strip("\"'<>[](),:") if words else ""
    if _MEDIA_TYPE.fullmatch(first):
        return first
    kind = first.partition("/")[0]
    if kind == "multipart":
        return "multipart/mixed"
    if kind == "html":
        return "text/html"
    named = "name" in parameters or "filename" in parse_parameters(headers.first("content-disposition"))[1]
    if named or kind in ("application", "image", "audio", "video", "font", "model"):
        return "application/octet-stream"
    return "text/plain"


def _root_type(
    walk: _Walk, start: int, media_type: str, parameters: dict[str, str], given: bool
) -> tuple[str, dict[str, str]]:
    """The message's own type: a multipart too where its boundary stands in it under another type, or where no type that
    can be read says otherwise and its first line and its last are a delimiter."""
    if media_type.startswith("multipart/"):
        return media_type, _with_boundary(walk.raw, start, parameters, walk.defects)
    boundary = parameters.get("boundary", "").encode("utf-8", "replace")
    if boundary and walk.raw.find(b"--" + boundary, start) >= 0:
        walk.defects.add("content-type-broken")
        return "multipart/mixed", parameters
    match = None if given else _FIRST_DELIMITER.match(walk.raw, start)
    if match and walk.raw[-2 * BOUNDARY_BYTES_MAX :].rstrip().endswith(b"\n--" + match[1] + b"--"):
        walk.defects.add("content-type-broken")
        return "multipart/mixed", {"boundary": match[1].decode("ascii")}
    return media_type, parameters


def _with_boundary(raw: bytes, start: int, parameters: dict[str, str], defects: set[str]) -> dict[str, str]:
    """The message's own where none is given, or one that never comes: that of the first line that is closed later."""
    given = parameters.get("boundary", "").rstrip().encode("utf-8", "replace")
    if given and raw.find(b"--" + given, start) >= 0:
        return parameters
    for match in islice(_BOUNDARY_LINE.finditer(raw, start, start + BOUNDARY_GUESS_BYTES), BOUNDARY_GUESSES_MAX):
        if raw.find(b"\n--" + match[1] + b"--", match.end()) >= 0:
            defects.add("boundary-missing")
            return {**parameters, "boundary": match[1].decode("ascii")}
    return parameters


def _can_open(walk: _Walk, node: _Node) -> bool:
    boundary = _delimiter(node)[2:]
    if not boundary or len(boundary) > BOUNDARY_BYTES_MAX:
        walk.defects.add("boundary-missing")
        return False
    if _delimiter(node) in walk.depth_of:
        walk.defects.add("boundary-reused")  # its delimiters are the inner one's until that is closed
    if len(walk.open) >= NESTING_MAX:
        walk.defects.add("nested-too-deep")
        node.opaque = True
        return False
    return True


def _delimiter(node: _Node) -> bytes:
    return b"--" + node.parameters.get("boundary", "").rstrip().encode("utf-8", "replace")


def _is_open_delimiter(walk: _Walk, line: bytes) -> bool:
    return _which(walk, line[: BOUNDARY_BYTES_MAX + 100].rstrip(b" \t\r\n"))[0] is not None


def _part(node: _Node, raw: bytes, defects: set[str]) -> Part:
    media_type, parameters = node.media_type, node.parameters
    if media_type.startswith("multipart/") and not node.children and not node.opaque:
        # No delimiter was ever seen: whatever this is, it reads best as text.
        defects.add("multipart-without-parts")
        media_type, parameters = "text/plain", {}
    disposition, disposition_parameters = parse_parameters(node.headers.first("content-disposition"))
    return Part(
        node.headers,
        media_type,
        parameters,
        disposition if disposition in ("attachment", "inline", "") else "attachment",  # RFC 2183 2.8
        disposition_parameters,
        b"" if node.children else raw[node.start : node.end],
        tuple(_part(child, raw, defects) for child in node.children),
        node.opaque,
        raw[node.start : node.preamble_end] if node.depth == 0 and node.children else b"",
    )
