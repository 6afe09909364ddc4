"""What Outlook packs into winmail.dat (MS-OXTNEF): the text and the files of a mail, read in one pass.

The one library for it, tnefparse, takes quadratic time, cuts zeros off the ends of files, and stops at what is broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tinyfat.domain.mail.charsets import decode
from tinyfat.domain.mail.compressed_rtf import decompressed_rtf

FILES_MAX = 200
ATTRIBUTES_MAX = 10_000
PROPERTIES_MAX = 10_000  # of one block
NESTING_MAX = 3  # mails attached to one another
NAME_CHARS_MAX = 300

_SIGNATURE = b"\x78\x9f\x3e\x22"
_HEAD_BYTES, _CHECKSUM_BYTES = 9, 2
_GUID_BYTES = 16

_BODY, _MESSAGE_CLASS, _MAPI, _CODE_PAGE, _ORIGINAL_CLASS = 0x800C, 0x8008, 0x9003, 0x9007, 0x9008
_RENDERING, _TITLE, _DATA, _ATTACHMENT = 0x9002, 0x8010, 0x800F, 0x9005

_P_BODY, _P_HTML, _P_RTF, _P_CODE_PAGE, _P_SUBJECT, _P_CLASS = 0x1000, 0x1013, 0x1009, 0x3FDE, 0x0037, 0x001A
_P_DATA, _P_NAME, _P_LONG_NAME, _P_DISPLAY_NAME, _P_TYPE = 0x3701, 0x3704, 0x3707, 0x3001, 0x370E

_STRING8, _UNICODE, _OBJECT, _BINARY = 0x1E, 0x1F, 0x0D, 0x102
_FIXED = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 2, 0x14: 8, 0x40: 8, 0x48: 16}
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class TnefFile:
    name: str  # "" where it has none
    media_type: str
    content: bytes


@dataclass(slots=True)
class Tnef:
    message_class: str = ""  # e.g. "IPM.Note", lower case
    subject: str = ""
    text: str = ""
    html: str = ""
    rtf: bytes = b""  # unpacked
    files: list[TnefFile] = field(default_factory=list)
    whole: bool = True  # False: it was cut, or something in it could not be read


@dataclass(slots=True)
class _Attached:
    name: str = ""
    short_name: str = ""
    media_type: str = ""
    content: bytes = b""
    mail: bytes = b""  # one that is attached, packed in the same way


class _Cut(Exception):
    """There is less than is announced."""


def read_tnef(data: bytes, depth: int = 0) -> Tnef | None:
    """None where it is something else. Never raises."""
    if not data.startswith(_SIGNATURE):
        return None
    found, attached, code_page = Tnef(), list[_Attached](), ""
    try:
        for name, value in _attributes(data):
            if name == _RENDERING:
                attached.append(_Attached())
            elif name == _CODE_PAGE:
                code_page = _code_page(value)
            elif name in (_TITLE, _DATA, _ATTACHMENT) and attached:
                _add_to_file(attached[-1], name, value, code_page)
            else:
                _add_to_message(found, name, value, code_page)
    except (_Cut, RecursionError):
        found.whole = False
    _add_files(found, attached, depth)
    return found


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """MS-OXTNEF 2.1.3: level, id, type, length, data, checksum; the checksum is not looked at."""
    position = len(_SIGNATURE) + 2
    for _ in range(ATTRIBUTES_MAX):
        if len(data) - position < _HEAD_BYTES:
            return
        name, length = _number(data, position + 1, 2), _number(data, position + 5, 4)
        start = position + _HEAD_BYTES
        if start + length > len(data):
            raise _Cut
        yield name, data[start : start + length]
        position = start + length + _CHECKSUM_BYTES
    raise _Cut


def _properties(data: bytes, code_page: str) -> Iterator[tuple[int, bytes | str]]:
    """MS-OXTNEF 2.1.3.4: each id with its first value."""
    position = 4
    for _ in range(min(_number(data, 0, 4), PROPERTIES_MAX)):
        kind, name = _number(data, position, 2), _number(data, position + 2, 2)
        position += 4
        if name >= 0x8000:  # a named one: its set, and its number or name
            named = _number(data, position + _GUID_BYTES, 4)
            length = _number(data, position + _GUID_BYTES + 4, 4)
            position += _GUID_BYTES + 8 + (_padded(length) if named else 0)
        several, kind = kind & 0x1000, kind & 0xEFFF
        if kind in _FIXED:
            count = _number(data, position, 4) if several else 1
            position += 4 if several else 0
            yield name, data[position : position + _FIXED[kind]]
            position += _padded(count * _FIXED[kind])
        elif kind in (_STRING8, _UNICODE, _OBJECT, _BINARY):
            count, position = _number(data, position, 4), position + 4
            for number in range(min(count, PROPERTIES_MAX)):
                length, position = _number(data, position, 4), position + 4
                if position + length > len(data):
                    raise _Cut
                if number == 0:
                    yield name, _value(data[position : position + length], kind, code_page)
                position += _padded(length)
        elif kind > 1:
            raise _Cut


def _value(data: bytes, kind: int, code_page: str) -> bytes | str:
    if kind == _UNICODE:
        return data.decode("utf-16-le", "replace").rstrip("\0")
    return decode(data.rstrip(b"\0"), code_page) if kind == _STRING8 else data


def _add_to_message(found: Tnef, name: int, value: bytes, code_page: str) -> None:
    if name == _BODY:
        found.text = found.text or decode(value.rstrip(b"\0"), code_page)
    elif name in (_MESSAGE_CLASS, _ORIGINAL_CLASS):
        found.message_class = found.message_class or _text(value, code_page).lower()
    elif name == _MAPI:
        html, its_code_page = b"", code_page
        for one, content in _properties(value, code_page):
            if one == _P_BODY:
                found.text = _text(content, code_page) or found.text
            elif one == _P_HTML and isinstance(content, bytes):
                html = content
            elif one == _P_HTML:
                found.html = _text(content, code_page)
            elif one == _P_CODE_PAGE and isinstance(content, bytes):
                its_code_page = _code_page(content)
            elif one == _P_RTF and isinstance(content, bytes):
                found.rtf = decompressed_rtf(content)
            elif one == _P_SUBJECT:
                found.subject = _text(content, code_page)[:NAME_CHARS_MAX]
            elif one == _P_CLASS:
                found.message_class = _text(content, code_page).lower()
        found.html = found.html or decode(html.rstrip(b"\0"), its_code_page)


def _add_to_file(one: _Attached, name: int, value: bytes, code_page: str) -> None:
    if name == _TITLE:
        one.short_name = one.short_name or _text(value, code_page)
    elif name == _DATA:
        one.content = value
    else:
        for prop, content in _properties(value, code_page):
            if prop == _P_LONG_NAME:
                one.name = _text(content, code_page)
            elif prop in (_P_NAME, _P_DISPLAY_NAME):
                one.short_name = one.short_name or _text(content, code_page)
            elif prop == _P_TYPE:
                one.media_type = _text(content, code_page).lower()
            elif prop == _P_DATA and isinstance(content, bytes) and len(content) > len(one.content):
                inner = content[_GUID_BYTES:]
                one.mail = inner if inner.startswith(_SIGNATURE) else b""
                one.content = content


def _add_files(found: Tnef, attached: list[_Attached], depth: int) -> None:
    for one in attached:
        name = (one.name or one.short_name)[:NAME_CHARS_MAX]
        inner = read_tnef(one.mail, depth + 1) if one.mail and depth < NESTING_MAX else None
        if inner is None:
            kind = one.media_type if _MEDIA_TYPE.fullmatch(one.media_type) else "application/octet-stream"
            found.files.append(TnefFile(name, kind, one.content))
            continue
        title = inner.subject or name or "message"
        for content, ending, kind in (
            (inner.text.encode("utf-8", "replace"), "txt", "text/plain"),
            (inner.html.encode("utf-8", "replace"), "html", "text/html"),
            (inner.rtf, "rtf", "application/rtf"),
        ):
            if content.strip():
                found.files.append(TnefFile(f"{title}.{ending}", kind, content))
                break
        found.files += inner.files
        found.whole = found.whole and inner.whole
    if len(found.files) > FILES_MAX:
        del found.files[FILES_MAX:]
        found.whole = False


def _text(value: bytes | str, code_page: str) -> str:
    return value if isinstance(value, str) else decode(value.rstrip(b"\0"), code_page)


def _code_page(value: bytes) -> str:
    number = _number(value, 0, 4)
    if 28591 <= number <= 28605:
        return f"iso-8859-{number - 28590}"
    return {65001: "utf-8", 20127: "us-ascii", 50220: "iso-2022-jp", 20866: "koi8-r"}.get(number, f"cp{number}")


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _number(data: bytes, position: int, size: int) -> int:
    """Raises _Cut."""
    if position + size > len(data):
        raise _Cut
    return int.from_bytes(data[position : position + size], "little")
