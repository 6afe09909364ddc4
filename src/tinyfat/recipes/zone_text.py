"""Values of records as zone files and vendors write them (RFC 1035 section 5). Pure.

Our own way (domain/names): names in them are absolute and end with a dot, addresses are in their shortest form, a TXT's
text is whole and unquoted.
"""

from __future__ import annotations

import ipaddress
import re

from tinyfat.domain.names import RecordSet, RecordType

STRING_BYTES_MAX = 255  # of one string of a TXT (RFC 1035 section 3.3)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(\d{3}|.)", re.DOTALL)


def canonical(kind: RecordType, value: str) -> str:
    """One value, as we write it. Raises ValueError where it is none of this kind."""
    match kind:
        case RecordType.A:
            return str(ipaddress.IPv4Address(value))
        case RecordType.AAAA:
            return str(ipaddress.IPv6Address(value))
        case RecordType.CNAME | RecordType.NS:
            return absolute(value)
        case RecordType.MX:
            preference, exchange = value.split()
            return f"{int(preference)} {absolute(exchange)}"
        case RecordType.TXT | RecordType.SOA:
            return value


def canonical_set(records: RecordSet) -> RecordSet:
    """Raises ValueError."""
    values = tuple(sorted({canonical(records.kind, value) for value in records.values}))
    return RecordSet(plain(records.name), records.kind, values, records.ttl)


def absolute(name: str) -> str:
    return plain(name) + "."


def plain(name: str) -> str:
    """Lower case, without the dot at its end."""
    return name.strip().lower().removesuffix(".")


def quoted(text: str) -> str:
    """A TXT's text as its strings: "..." "..."."""
    data = text.encode("utf-8", "surrogateescape")
    strings = [data[n : n + STRING_BYTES_MAX] for n in range(0, len(data), STRING_BYTES_MAX)] or [b""]
    return " ".join(f'"{_escaped(string)}"' for string in strings)


def unquoted(written: str) -> str:
    """The reverse. Text without quotes, as vendors give it back for what was entered so, is taken as it is."""
    if not written.startswith('"'):
        return written
    strings = [inner or bare for inner, bare in _STRING.findall(written)]
    return b"".join(_plain_bytes(string) for string in strings).decode("utf-8", "surrogateescape")


def _escaped(data: bytes) -> str:
    return "".join(_escaped_byte(byte) for byte in data)


def _escaped_byte(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{chr(byte)}"
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03d}"


def _plain_bytes(string: str) -> bytes:
    def plain_byte(match: re.Match[bytes]) -> bytes:
        escaped = match[1]
        return bytes([int(escaped) & 255]) if escaped.isdigit() and len(escaped) == 3 else escaped

    return _ESCAPE.sub(plain_byte, string.encode("utf-8", "surrogateescape"))
