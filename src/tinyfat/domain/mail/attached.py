"""Attachments with names that are safe to write down anywhere. Nothing is ever unpacked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from tinyfat.domain.mail.body_text import is_body
from tinyfat.domain.mail.charsets import decode, is_utf8
from tinyfat.domain.mail.headers import display_text
from tinyfat.domain.mail.mime import Part
from tinyfat.domain.mail.parts_as_meant import OTHER_VERSIONS, is_named
from tinyfat.domain.turns import Attachment

FILENAME_BYTES_MAX = 150  # in UTF-8; file systems take 255, and a copy's number and folder need room
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE | re.DOTALL)
_EXTENDED_VALUE = re.compile(r"([A-Za-z][\w.-]{1,40})'[\w-]{0,20}'(.+)", re.DOTALL)
_EXTENSIONS = {
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "application/json": ".json",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "text/plain": ".txt",
    "text/html": ".html",
    "text/csv": ".csv",
    "text/calendar": ".ics",
    "text/vcard": ".vcf",
    "message/rfc822": ".eml",
    "message/partial": ".eml",
    "message/delivery-status": ".txt",
    "text/rfc822-headers": ".txt",
    "application/ms-tnef": ".tnef",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "video/mp4": ".mp4",
}


def attachments_of(root: Part) -> tuple[Attachment, ...]:
    """Every leaf that is not read in place, inline images included. A part too deep to open is one, as it came."""
    parts = [part for part in root.leaves() if not is_body(part) and not _is_other_version(part)]
    names = unique_names(_name(part, number) for number, part in enumerate(parts, 1))
    return tuple(
        Attachment(name, "application/octet-stream" if part.opaque else part.media_type, part.content())
        for name, part in zip(names, parts, strict=True)
    )


def _is_other_version(part: Part) -> bool:
    """Of a text we have. What is attached, or has a file's name, is a file of somebody's, whatever its type."""
    return part.media_type in OTHER_VERSIONS and not is_named(part)


def _name(part: Part, number: int) -> str:
    given = part.disposition_parameters.get("filename") or part.parameters.get("name") or ""
    name = safe_filename(display_text(_unescaped(given), 1000))
    return name or f"attachment-{number}{_EXTENSIONS.get(part.media_type, '.bin')}"


def _unescaped(name: str) -> str:
    """RFC 2231 and URLs' escapes where none belong: `UTF-8''%e2%82%ac.txt`, `%E2%82%AC.txt`."""
    marked = _EXTENDED_VALUE.fullmatch(name)
    text = marked[2] if marked else name
    if "%" not in text:
        return name
    octets = unquote_to_bytes(text)
    if marked:
        return decode(octets, marked[1])
    return octets.decode("utf-8") if not octets.isascii() and is_utf8(octets) and name.isascii() else name


def safe_filename(text: str) -> str:
    """A file's name and nothing else: no folder, no control or direction characters, no device, not hidden.

    "" where nothing is left.
    """
    base = re.split(r"[/\\]", text)[-1]
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", base)).strip(" .")
    if _DEVICES.fullmatch(name):
        name = f"_{name}"
    return _shortened(name)


def _shortened(name: str, room: int = FILENAME_BYTES_MAX) -> str:
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    kept = stem.encode("utf-8", "replace")[: room - len((dot + extension).encode("utf-8", "replace"))]
    return kept.decode("utf-8", "ignore").rstrip(" .") + dot + extension if stem else name


def unique_names(names: Iterable[str]) -> list[str]:
    """The same names, later copies numbered: "a.txt", "a (2).txt". Case does not tell two apart."""
    seen: set[str] = set()
    copies: dict[str, int] = {}
    out = []
    for name in names:
        candidate, folded = name, name.casefold()
        while candidate.casefold() in seen:
            copies[folded] = copies.get(folded, 1) + 1
            stem, dot, extension = name.rpartition(".")
            stem, dot, extension = (stem, dot, extension) if dot else (name, "", "")
            candidate = f"{stem} ({copies[folded]}){dot}{extension}"
        seen.add(candidate.casefold())
        out.append(candidate)
    return out
