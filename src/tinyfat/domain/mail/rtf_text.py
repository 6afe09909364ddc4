"""The words of an RTF text (RTF 1.9.1), in one pass.

striprtf, the library for it, takes cubic time on a line made to hurt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tinyfat.domain.mail.charsets import decode

RTF_BYTES_READ_MAX = 1_000_000  # what is more is pictures
DEPTH_MAX = 1_000

_TOKEN = re.compile(r"\\([a-z]{1,32})(-?\d{1,9})? ?|\\'([0-9a-f]{2})|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.I | re.S)
_LINES = ("par", "line", "row", "sect", "page")
_NAMED = {"tab": "\t", "cell": "\t", "nestcell": "\t", "emspace": " ", "enspace": " ", "emdash": "—", "endash": "–"}
_QUOTES = {"bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”"}
_CHARACTERS = dict.fromkeys(_LINES, "\n") | _NAMED | _QUOTES
_SYMBOLS = {"~": "\u00a0", "_": "-", "\n": "\n", "\r": "\n", "\\": "\\", "{": "{", "}": "}"}
_UNSHOWN = frozenset(
    ("colortbl", "stylesheet", "info", "pict", "object", "fldinst", "themedata", "colorschememapping", "listtable")
) | {
    "listoverridetable",
    "rsidtbl",
    "generator",
    "header",
    "footer",
    "xmlnstbl",
    "latentstyles",
    "datastore",
    "filetbl",
}
_CHARSETS = {128: 932, 129: 949, 130: 1361, 134: 936, 136: 950, 161: 1253, 162: 1254, 163: 1258, 177: 1255, 178: 1256}
_CHARSETS |= {186: 1257, 204: 1251, 222: 874, 238: 1250}


@dataclass(frozen=True, slots=True)
class _Group:
    shown: bool = True
    fonts: bool = False  # it is the table of fonts
    font: int = 0
    skip: int = 1  # how many characters stand for one of \u


class _Reader:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.octets = bytearray()
        self.group = _Group()
        self.stack: list[_Group] = []
        self.code_page = "windows-1252"
        self.code_pages: dict[int, str] = {}  # by font
        self.left = 0  # to be skipped, after \u
        self.for_html = False  # \htmlrtf: what HTML that was made RTF has beside its own words

    def end_octets(self) -> None:
        if self.octets:
            self.out.append(decode(bytes(self.octets), self.code_pages.get(self.group.font, self.code_page)))
            self.octets.clear()

    def put(self, text: str) -> None:
        self.end_octets()
        if self.group.shown and not self.for_html:
            self.out.append(text)

    def text(self, text: str) -> None:
        skipped, self.left = min(self.left, len(text)), max(0, self.left - len(text))
        if rest := text[skipped:]:
            self.put(rest)

    def octet(self, digits: str) -> None:
        if self.left:
            self.left -= 1
        elif self.group.shown and not self.for_html:
            self.octets.append(int(digits, 16))

    def brace(self, which: str) -> None:
        self.end_octets()
        self.left = 0
        if which == "{" and len(self.stack) < DEPTH_MAX:
            self.stack.append(self.group)
        elif which == "}" and self.stack:
            self.group = self.stack.pop()

    def word(self, word: str, number: int | None) -> None:
        if word == "u" and number is not None:
            self.put(chr(number % 0x10000) if not 0xD800 <= number % 0x10000 < 0xE000 else "\ufffd")
            self.left = self.group.skip
        elif word in _CHARACTERS:
            self.put(_CHARACTERS[word])
        elif word in _UNSHOWN:
            self.end_octets()
            self.group = replace(self.group, shown=False)
        elif word == "fonttbl":
            self.group = replace(self.group, shown=False, fonts=True)
        elif word == "f" and number is not None:
            self.end_octets()
            self.group = replace(self.group, font=number)
        elif word == "fcharset" and self.group.fonts and number in _CHARSETS and len(self.code_pages) < DEPTH_MAX:
            self.code_pages[self.group.font] = f"cp{_CHARSETS[number]}"
        elif word == "ansicpg" and number:
            self.code_page = f"cp{number}"
        elif word == "uc" and number is not None:
            self.group = replace(self.group, skip=min(max(number, 0), 10))
        elif word == "htmlrtf":
            self.end_octets()
            self.for_html = number != 0

    def symbol(self, character: str) -> None:
        if character == "*":
            self.group = replace(self.group, shown=False)
        elif character in _SYMBOLS:
            self.put(_SYMBOLS[character])


def rtf_text(rtf: bytes) -> str:
    """What a person reads of it; pictures and fields' instructions left out. Never raises."""
    reader = _Reader()
    for word, number, octet, symbol, brace, text in _TOKEN.findall(rtf[:RTF_BYTES_READ_MAX].decode("latin-1")):
        if text:
            reader.text(text)
        elif octet:
            reader.octet(octet)
        elif word:
            reader.word(word.lower(), int(number) if number else None)
        elif brace:
            reader.brace(brace)
        elif symbol:
            reader.symbol(symbol)
    reader.end_octets()
    return "".join(reader.out)
