"""Bytes to text, whatever the charset says. Nothing here raises, and nothing is asked of an unknown codec."""

from __future__ import annotations

import re
import unicodedata
from encodings.aliases import aliases

# Charsets mail is written in. Python knows codecs that are none (zip, idna, punycode: slow or worse); they are unknown
# here, and so are names it has never seen: it would keep each one for ever.
_CODECS = re.compile(
    r"ascii|utf_(?:7|8|8_sig|16|16_le|16_be|32|32_le|32_be)|latin_1|iso8859_\d+|cp\d+|koi8_[rut]|mac_\w+|tis_620|hp_roman8"
    r"|gb2312|gbk|gb18030|hz|big5|big5hkscs|shift_jis\w*|euc_\w+|iso2022_\w+|johab|ptcp154|kz1048"
)
_BY_NAME = {name: codec for name, codec in aliases.items() if _CODECS.fullmatch(codec)}
_BY_NAME |= {codec: codec for codec in list(_BY_NAME.values())}
_BY_NAME |= {"iso_8859_8_i": "iso8859_8", "x_sjis": "shift_jis", "windows_874": "cp874", "unicode_1_1_utf_7": "utf_7"}
# What senders mean by a label, where that is more than it says (WHATWG Encoding 4.2).
_MEANT = {
    "ascii": "cp1252",
    "latin_1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "tis_620": "cp874",
}

# C0 but tab and newline; DEL; C1. They drive terminals and databases mad and mean nothing in a mail.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BLANKS = re.compile(r"[\s\u2028\u2029]+")


def known_charset(name: str) -> str | None:
    """The codec for a charset's name, or None."""
    return _BY_NAME.get(re.sub(r"[^a-z0-9]+", "_", name[:60].lower()).strip("_"))


def decode(content: bytes, charset: str = "") -> str:
    """Text from bytes: UTF-8 where it is that and nothing else is claimed, else the charset, else a good guess."""
    codec = known_charset(charset)
    if codec in (None, "ascii", "latin_1", "utf_8", "utf_8_sig"):
        # Mislabelled UTF-8 is far more common than Latin-1 that happens to be valid UTF-8.
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return content.decode("utf-8" if codec in ("utf_8", "utf_8_sig") else "cp1252", "replace")
    assert codec is not None
    meant = _MEANT.get(codec, codec)
    try:
        return without_surrogates(content.decode(meant, "replace"))
    except (UnicodeError, LookupError, ValueError):
        return content.decode("cp1252", "replace")


def without_surrogates(text: str) -> str:
    """Text that can be encoded: a lone surrogate (UTF-7 can carry one) becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def clean_text(text: str) -> str:
    """Text with newlines as \\n and no other control characters than the tab."""
    lines = without_surrogates(text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", lines)


def one_line(text: str, chars_max: int = 1000) -> str:
    """One line, no control or direction characters, single spaces, cut at `chars_max`: safe in any header."""
    spaced = _CONTROLS.sub(" ", without_surrogates(text[: chars_max * 4]))
    visible = "".join(c for c in spaced if c.isascii() or unicodedata.category(c) not in _UNSEEN or c in _JOINERS)
    # Blanks last: what stood unseen between two of them is gone only now.
    return _BLANKS.sub(" ", visible).strip()[:chars_max].rstrip()


_UNSEEN = frozenset(("Cc", "Cf", "Cs"))
_JOINERS = frozenset("\u200c\u200d")  # many scripts and emoji need them
