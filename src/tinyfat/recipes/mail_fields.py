"""Header fields as they are sent: ASCII, folded, nothing in them but what was meant (RFC 5322 2.2.3, RFC 2047)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote

from tinyfat.domain.mail.charsets import one_line

LINE_CHARS = 76  # where we fold; RFC 5322 2.1.1 asks for 78 and allows 998
_WORD_CHARS = 72  # RFC 2047 2 allows 75
_WORD_WRAPPING = len("=?utf-8?b??=")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_TOKEN_VALUE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+")


def text_field(name: str, value: str) -> str:
    """An unstructured field, such as a Subject. Leading ASCII words stay readable: some programs look for "Re:"."""
    words = one_line(value).split(" ")
    plain = next((count for count, word in enumerate(words) if not _plain(word)), len(words))
    # The first encoded word stands on the first line: some readers lose the blank before a folded one.
    room = LINE_CHARS - len(" ".join([f"{name}:", *words[:plain]])) - 1
    return folded(name, [*words[:plain], *encoded_words(" ".join(words[plain:]), room)])


def mailbox_field(name: str, display: str, address: str) -> str:
    """`Name: "Display" <address>`. The address must be of the form domain.mail.addresses.plain_address gives."""
    shown = one_line(display, 200)
    if not shown:
        return folded(name, [address])
    if not _plain(shown):
        words = encoded_words(shown)
    elif _ATOMS.fullmatch(shown):
        words = shown.split(" ")
    else:
        escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
        words = [f'"{escaped}"']
    return folded(name, [*words, f"<{address}>"])


def folded(name: str, words: Iterable[str]) -> str:
    """The words after the name, a new line begun where one would pass LINE_CHARS. Without a last line end."""
    lines, line = [], f"{name}:"
    for word in words:
        # A first line is never left empty: some servers take that for a broken header.
        if len(line) + 1 + len(word) > LINE_CHARS and line != f"{name}:":
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\r\n".join([*lines, line])


def encoded_words(text: str, first_chars: int = _WORD_CHARS) -> list[str]:
    """RFC 2047: as many encoded words as it takes, each whole in itself, the first in `first_chars` if that can be."""
    words, chunk = list[bytes](), b""
    room = _bytes_in(first_chars) if first_chars >= _WORD_CHARS // 2 else _bytes_in(_WORD_CHARS)
    for character in text:
        encoded = character.encode("utf-8", "replace")
        if len(chunk) + len(encoded) > room:
            words.append(chunk)
            chunk, room = b"", _bytes_in(_WORD_CHARS)
        chunk += encoded
    return [f"=?utf-8?b?{base64.b64encode(one).decode('ascii')}?=" for one in [*words, chunk] if one]


def _bytes_in(chars: int) -> int:
    """How many bytes an encoded word of this length carries in base64."""
    return (min(chars, _WORD_CHARS) - _WORD_WRAPPING) // 4 * 3


def filename_parameter(name: str, value: str) -> str:
    """`filename="a.pdf"`, or RFC 2231's `filename*=utf-8''...` where it is not plain ASCII."""
    if _plain(value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{escaped}"'
    return f"{name}*=utf-8''{quote(value, safe='')}"


def media_type_or_octets(media_type: str) -> str:
    """The type if a part with base64 may carry it (RFC 2046 5: neither multipart/* nor message/*), else octets."""
    main, _, sub = media_type.lower().partition("/")
    fit = _TOKEN_VALUE.fullmatch(main) and _TOKEN_VALUE.fullmatch(sub) and len(media_type) <= 100
    return f"{main}/{sub}" if fit and main not in ("multipart", "message") else "application/octet-stream"


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and "=?" not in text and max(map(len, text.split(" "))) < 900
