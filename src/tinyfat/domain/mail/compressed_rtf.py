"""RTF as Outlook packs it (MS-OXRTFCP)."""

from __future__ import annotations

RTF_BYTES_MAX = 4_000_000  # unpacked; what is more is cut

_HEAD_BYTES = 16
_WINDOW = 4_096
_BEGINNING = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor MS "
    b"Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20"
    b"\\b\\i\\u\\tab\\tx"
)


def decompressed_rtf(data: bytes) -> bytes:
    """b"" where it is none; what can be read of one that is cut."""
    kind, size = data[8:12], int.from_bytes(data[4:8], "little")
    if kind == b"MELA":  # not compressed
        return data[_HEAD_BYTES : _HEAD_BYTES + min(size, RTF_BYTES_MAX)]
    if kind != b"LZFu":
        return b""
    # Everything so far, behind what every text begins with: a reference counts from there, in a ring of 4,096 bytes.
    out = bytearray(_BEGINNING)
    end = len(_BEGINNING) + min(size, RTF_BYTES_MAX)
    position = _HEAD_BYTES
    while position < len(data) and len(out) < end:
        flags, position = data[position], position + 1
        for bit in range(8):
            if position >= len(data) or len(out) >= end:
                break
            if not flags >> bit & 1:
                out.append(data[position])
                position += 1
                continue
            reference, position = int.from_bytes(data[position : position + 2], "big"), position + 2
            back = (len(out) - (reference >> 4)) % _WINDOW
            if back == 0:  # the end
                return bytes(out[len(_BEGINNING) : end])
            start = len(out) - back
            for offset in range((reference & 15) + 2):
                out.append(out[start + offset] if start + offset >= 0 else 0x20)
    return bytes(out[len(_BEGINNING) : end])
