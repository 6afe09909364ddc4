"""Bytes to text, whatever the charset says. Nothing here raises, and nothing is asked of an unknown codec."""

from __future__ import annotations

import codecs
import re
import unicodedata

from tinyfat.domain.mail.charset_labels import codec_of
from tinyfat.domain.mail.japanese import decode_japanese

# What is UTF-8 in truth under a label of these is told from the bytes: no text in them happens to be valid UTF-8.
_SINGLE_BYTE = re.compile(r"ascii|cp1252|cp125\d|cp8\d\d|cp437|iso8859_\d+|koi8_[rut]|mac_\w+|hp_roman8|ptcp154|kz1048")
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_JAPANESE_ESCAPE = re.compile(rb"\x1b\$[@B]|\x1b\(J")
_KOREAN_ESCAPE = b"\x1b$)C"

GUESS_BYTES = 65_536  # of a text, by which its charset is guessed

# C0 but tab and newline; DEL; C1. They drive terminals and databases mad and mean nothing in a mail.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BLANKS = re.compile(r"[\s\u2028\u2029]+")
# Tags that no program shows (Unicode 23.9): text for models that people do not see. Behind a black flag they draw one.
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]{1,10}\U000e007f)|[\U000e0000-\U000e007f]+")
_VISIBLE = re.compile(
    "[^\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]"
)


def known_charset(name: str) -> str | None:
    """The codec for a charset's name, or None."""
    return codec_of(name)


def decode(content: bytes, charset: str = "", guess: bool = False) -> str:
    """Text from bytes, as senders mean it: UTF-8 where it plainly is that, else the charset, else windows-1252.

    One bad byte costs one character, and never the charset. `guess`: of bytes that no usable charset is given for, as
    browsers guess of a page; not for fields whose structure others read too.
    """
    if (marked := _by_order_mark(content)) is not None:
        return marked
    codec = known_charset(charset)
    if codec in (None, "ascii", "utf_8", "cp1252", "cp932", "euc_jp", "cp949") and b"\x1b" in content:
        if _JAPANESE_ESCAPE.search(content):
            codec = "iso2022_jp"
        elif _KOREAN_ESCAPE in content:
            codec = "iso2022_kr"
    if codec in (None, "utf_8") or (codec and _SINGLE_BYTE.fullmatch(codec)):
        return _utf8_or(content, codec, guess)
    assert codec is not None
    return _decoded(content, codec)


def _by_order_mark(content: bytes) -> str | None:
    """A mark of UTF-16 says more than any label (WHATWG Encoding 6.1)."""
    if len(content) < 4 or len(content) % 2 or not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    if content.startswith(codecs.BOM_UTF32_LE):
        return None
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError:
        return None


def _utf8_or(content: bytes, codec: str | None, guess: bool) -> str:
    """UTF-8 where most of what is not ASCII is valid UTF-8, else the single-byte `codec`.

    Mislabelled UTF-8 is far more common than a text of another charset that happens to be valid UTF-8.
    """
    if content.isascii():
        return content.decode("ascii")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    rest, sequences = _UTF8_SEQUENCE.subn(b"", content)
    if sequences >= len(_NOT_ASCII.findall(rest)):
        return content.decode("utf-8", "replace")
    if codec not in (None, "ascii", "utf_8"):
        return content.decode(codec, "replace")
    return _decoded(content, (_guessed(content[:GUESS_BYTES]) if guess else None) or "cp1252")


def _guessed(content: bytes) -> str | None:
    try:  # here, so that nobody has it in memory before such a mail comes
        from chardetng_py import detect  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:  # no wheel for this machine's Python: nothing is guessed
        return None
    return codec_of(str(detect(content)))


def _decoded(content: bytes, codec: str) -> str:
    try:
        if codec not in _UNICODE and _is_wide_utf8(content):
            return content.decode("utf-8-sig")
        if codec in ("iso2022_jp", "euc_jp", "cp932"):
            return decode_japanese(content, codec).translate(_NO_CHARACTERS)
        text = without_surrogates(content.decode(codec, "replace"))
        if "\ufffd" in text and (second := _SECOND.get(codec)):
            other = content.decode(second, "replace")
            text = other if other.count("\ufffd") < text.count("\ufffd") else text
        if "\ufffd" in text and is_utf8(content):
            return content.decode("utf-8-sig")
        return text
    except (UnicodeError, LookupError, ValueError):
        return content.decode("cp1252", "replace")


_UNICODE = ("utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be")
_NO_CHARACTERS = dict.fromkeys((*range(0xF8F0, 0xF8F4),), "\ufffd")  # Python's cp932, of bytes that are none of it


def _is_wide_utf8(content: bytes) -> bool:
    """UTF-8 of scripts that take three bytes a character: no text of two bytes a character happens to be that."""
    if not _WIDE.search(content) or _NARROW.search(content):
        return False
    return is_utf8(content)


_WIDE = re.compile(rb"[\xe0-\xef][\x80-\xbf]{2}[\x00-\x7f]*[\xe0-\xef][\x80-\xbf]{2}")
_NARROW = re.compile(rb"[\xc2-\xdf][\x80-\xbf](?![\x80-\xbf])")
_SECOND = {"big5hkscs": "cp950"}


def is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def without_surrogates(text: str) -> str:
    """Text that can be encoded: a lone surrogate (UTF-7 can carry one) becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def clean_text(text: str) -> str:
    """Text with newlines as \\n and no other control characters than the tab, nor tags that nobody sees."""
    lines = without_surrogates(text)
    if "\r" in lines:
        lines = lines.replace("\r\n", "\n").replace("\r", "\n")
    return _without_tags(_CONTROLS.sub("", lines))


def _without_tags(text: str) -> str:
    return text if text.isascii() else _TAGS.sub(lambda match: match[1] or "", text)


def is_blank(text: str) -> bool:
    """Is nothing of it seen? Preview fillers and the like count as blank."""
    return _VISIBLE.search(text) is None


def one_line(text: str, chars_max: int = 1000) -> str:
    """One line, no control or direction characters, single spaces, cut at `chars_max`: safe in any header."""
    spaced = _CONTROLS.sub(" ", without_surrogates(text[: chars_max * 4]))
    visible = spaced if spaced.isascii() else "".join(filter(_is_seen, spaced))
    # Blanks last: what stood unseen between two of them is gone only now.
    return _BLANKS.sub(" ", visible).strip()[:chars_max].rstrip()


def _is_seen(char: str) -> bool:
    return char.isascii() or unicodedata.category(char) not in _UNSEEN or char in _JOINERS


_UNSEEN = frozenset(("Cc", "Cf", "Cs"))
_JOINERS = frozenset("\u200c\u200d")  # many scripts and emoji need them
