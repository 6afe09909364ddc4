"""The text inside an opaque S/MIME signature (RFC 8551 3.5.2). It is read, not verified: it proves nobody.

No library we have opens one without verifying it, and BER of unknown length, which mail programs write, is beyond those
that read DER: hence this reader of four nested elements.
"""

from __future__ import annotations

from dataclasses import dataclass

ELEMENTS_MAX = 100_000  # a part of 25 MB in chunks of 1,000 bytes has a quarter
DEPTH_MAX = 20

_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2
# Enveloped, and enveloped with a proof (RFC 5083).
_ENVELOPED = (bytes.fromhex("2a864886f70d010703"), bytes.fromhex("2a864886f70d0109100117"))
_DATA = bytes.fromhex("2a864886f70d010701")
_SEQUENCE, _OID, _OCTETS, _EXPLICIT = 0x30, 0x06, 0x04, 0xA0


class _NotThis(ValueError):
    """These bytes are something else."""


@dataclass(frozen=True, slots=True)
class _Element:
    tag: int
    start: int
    end: int
    after: int


@dataclass(slots=True)
class _Reader:
    data: bytes
    left: int = ELEMENTS_MAX

    def element(self, position: int, limit: int, depth: int) -> _Element:
        """The element at `position` (X.690 8.1). Raises _NotThis."""
        self.left -= 1
        if self.left < 0 or depth > DEPTH_MAX or position + 2 > limit:
            raise _NotThis
        tag, length, start = self.data[position], self.data[position + 1], position + 2
        if tag & 0x1F == 0x1F:
            raise _NotThis
        if length == 0x80:  # of unknown length: until two zeros
            inner = start
            while self.data[inner : inner + 2] != b"\0\0":
                inner = self.element(inner, limit, depth + 1).after
            return _Element(tag, start, inner, inner + 2)
        if length > 0x80:
            count = length & 0x7F
            length = int.from_bytes(self.data[start : start + count], "big")
            start += count
        if start + length > limit:
            raise _NotThis
        return _Element(tag, start, start + length, start + length)

    def child(self, parent: _Element, number: int, tag: int, depth: int) -> _Element:
        position, found = parent.start, parent
        for _ in range(number + 1):
            found = self.element(position, parent.end, depth)
            position = found.after
        if found.tag != tag:
            raise _NotThis
        return found

    def octets(self, element: _Element, depth: int) -> bytes:
        if element.tag & 0x20 == 0:
            return self.data[element.start : element.end]
        pieces, position = [], element.start
        while position < element.end:
            inner = self.element(position, element.end, depth)
            pieces.append(self.octets(inner, depth + 1))
            position = inner.after
        return b"".join(pieces)


def is_enveloped(der: bytes) -> bool:
    """Is it encrypted (RFC 5652 6, RFC 5083)?"""
    try:
        reader = _Reader(der)
        return reader.octets(reader.child(reader.element(0, len(der), 0), 0, _OID, 1), 1) in _ENVELOPED
    except (_NotThis, IndexError):
        return False


def signed_content(der: bytes) -> bytes | None:
    """What a PKCS #7 signed-data holds (RFC 5652 5.1); None where it is none, or holds nothing."""
    try:
        reader = _Reader(der)
        info = reader.element(0, len(der), 0)
        if reader.octets(reader.child(info, 0, _OID, 1), 1) != _SIGNED_DATA:
            return None
        signed = reader.child(reader.child(info, 1, _EXPLICIT, 1), 0, _SEQUENCE, 2)
        inside = reader.child(signed, 2, _SEQUENCE, 3)
        if reader.octets(reader.child(inside, 0, _OID, 4), 4) != _DATA:
            return None
        content = reader.element(reader.child(inside, 1, _EXPLICIT, 4).start, inside.end, 5)
        return reader.octets(content, 6) if content.tag & 0x1F == _OCTETS else None
    except (_NotThis, IndexError):
        return None
