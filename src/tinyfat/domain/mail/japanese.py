"""Japanese text as mail programs write it: JIS X 0208 with the vendors' rows 13 and 89 to 92, as windows-31j has them.

Python's iso2022_jp and euc_jp know the standard alone, and stumble over "①" and "㈱". Where they do, the same two bytes
are read as windows-31j, whose codec (cp932) has them.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(rb"\x1b(\$[@B]|\$\([@BD]|\([BJIH]|&@)")
_EUC = re.compile(rb"(?:[\xa1-\xfe][\xa1-\xfe])+|(?:\x8e[\xa1-\xdf])+")


def decode_japanese(content: bytes, codec: str) -> str:
    """`codec`: "iso2022_jp", "euc_jp" or "cp932". What is unreadable becomes U+FFFD, a character each."""
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        pass
    if codec == "iso2022_jp":
        return _from_escapes(content)
    if codec == "euc_jp":
        return _EUC.sub(lambda match: _as_windows(match[0]), content).decode("cp932", "replace")
    return content.decode(codec, "replace")


def _from_escapes(content: bytes) -> str:
    """RFC 1468, with half-width katakana (ESC ( I) and eight-bit bytes let through as windows-31j."""
    pieces = _ESCAPES.split(content)
    out = [pieces[0].decode("cp932", "replace")]
    for escape, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if escape.startswith(b"$"):
            # A line end ends the two-byte mode (RFC 1468), though some forget the escape.
            wide, newline, plain = piece.partition(b"\n")
            out.append(_as_windows(bytes(byte | 0x80 for byte in wide.rstrip(b"\r"))).decode("cp932", "replace"))
            out.append((newline + plain).decode("cp932", "replace"))
        elif escape == b"(I":
            out.append(bytes(byte | 0x80 for byte in piece).decode("cp932", "replace"))
        else:
            out.append(piece.decode("cp932", "replace"))
    return "".join(out)


def _as_windows(pairs: bytes) -> bytes:
    """EUC-JP's two bytes (JIS X 0208 plus 0x80) as windows-31j's; one that is left over stays."""
    out = bytearray()
    if pairs[:1] == b"\x8e":
        return pairs.replace(b"\x8e", b"")
    for first, second in zip(pairs[::2], pairs[1::2], strict=False):
        row, cell = first - 0xA0, second - 0xA0
        if not (1 <= row <= 94 and 1 <= cell <= 94):
            out += b"?"
            continue
        out.append((row - 1) // 2 + (0x81 if row <= 62 else 0xC1))
        if row % 2:
            out.append(cell + (0x3F if cell <= 63 else 0x40))
        else:
            out.append(cell + 0x9E)
    return bytes(out)
