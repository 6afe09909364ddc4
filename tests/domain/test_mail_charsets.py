"""Charsets as senders mean them."""

from __future__ import annotations

import pytest

from tinyfat.domain.mail.charset_labels import codec_of
from tinyfat.domain.mail.charsets import clean_text, decode, is_blank
from tinyfat.domain.mail.message import read_mail

RUSSIAN = "Привет, как дела?"
JAPANESE = "①㈱髙橋 会議は三時です ～"


@pytest.mark.parametrize(
    ("label", "content", "text"),
    [
        ("shift_jis", JAPANESE.encode("cp932"), JAPANESE),
        ("x-sjis", JAPANESE.encode("cp932"), JAPANESE),
        ("windows-31j", JAPANESE.encode("cp932"), JAPANESE),
        ("iso-2022-jp", "会議".encode("iso2022_jp"), "会議"),
        ("iso-2022-jp", b"\x1b$B-!\x1b(B 1 \x1b$B-j\x1b(B", "① 1 ㈱"),
        ("euc-jp", b"\xad\xa1 \xad\xea \xb2\xf1\xb5\xc4", "① ㈱ 会議"),
        ("cp50220", b"\x1b$B2q5D\x1b(B", "会議"),
        ("", b"\x1b$B2q5D\x1b(B", "会議"),
        ("us-ascii", b"\x1b$B2q5D\x1b(B", "会議"),
        ("utf-8", b"\x1b$B2q5D\x1b(B", "会議"),
        ("iso-2022-kr", "안녕".encode("iso2022_kr"), "안녕"),
        ("", "안녕".encode("iso2022_kr"), "안녕"),
        ("koi8-u", "Привіт, ґанок".encode("koi8_u"), "Привіт, ґанок"),
        ("KOI8-RU", "Привіт".encode("koi8_u"), "Привіт"),
        ("iso-8859-9", b"\x93i\xfd\x94", "“iı”"),
        ("iso-8859-11", "สวัสดี…".encode("cp874"), "สวัสดี…"),
        ("tis-620", "สวัสดี".encode("cp874"), "สวัสดี"),
        ("euc-kr", "똠방각하".encode("cp949"), "똠방각하"),
        ("ks_c_5601-1987", "똠".encode("cp949"), "똠"),
        ("big5", "着".encode("big5hkscs"), "着"),
        ("gb2312", "镕".encode("gb18030"), "镕"),
        ("hz-gb-2312", "你好".encode("hz"), "你好"),
        ("x-mac-cyrillic", "Привет".encode("mac_cyrillic"), "Привет"),
        ("macintosh", "Grüße".encode("mac_roman"), "Grüße"),
        ("unicode-1-1-utf-7", "Grüße".encode("utf-7"), "Grüße"),
        ("x-user-defined", b"Gr\xfc\xdfe", "Grüße"),
        ("utf-8*de", "Grüße".encode(), "Grüße"),
        ("windows1251", RUSSIAN.encode("cp1251"), RUSSIAN),
        ("cp-1251", RUSSIAN.encode("cp1251"), RUSSIAN),
        ("koi8-r", RUSSIAN.encode("koi8_r"), RUSSIAN),
        # The label says another thing than the bytes.
        ("koi8-r", RUSSIAN.encode(), RUSSIAN),
        ("windows-1251", RUSSIAN.encode(), RUSSIAN),
        ("utf-8", b"Gr\xfc\xdfe", "Grüße"),
        ("gb2312", (RUSSIAN + "好").encode(), RUSSIAN + "好"),
    ],
)
def test_as_they_are_meant(label: str, content: bytes, text: str) -> None:
    assert decode(content, label) == text


@pytest.mark.parametrize("label", ["", "utf-8", "iso-8859-1", "us-ascii", "windows-1252", "x-none"])
@pytest.mark.parametrize("at", [0, 10, 29])
def test_one_bad_byte_costs_one_character(label: str, at: int) -> None:
    whole = RUSSIAN.encode()
    at -= at % 2 if at < 12 else 0
    read = decode(whole[:at] + b"\xff" + whole[at:], label)
    assert len(read) <= len(RUSSIAN) + 2
    assert sum(1 for character in read if character in RUSSIAN) >= len(RUSSIAN) - 1


def test_a_text_cut_inside_a_character_keeps_the_rest() -> None:
    assert decode(RUSSIAN.encode()[:-2] + b"\xd0", "").startswith("Привет, как дел")


def test_utf8_by_chance_is_not_believed_of_chinese() -> None:
    assert decode("联通".encode("gbk"), "gb2312") == "联通"


@pytest.mark.parametrize("label", ["zip", "idna", "punycode", "base64", "rot13", "unicode_escape", "", "x" * 500, "é"])
def test_what_is_no_charset_is_unknown(label: str) -> None:
    assert codec_of(label) is None


def test_tags_that_nobody_sees_are_gone_and_flags_stay() -> None:
    smuggled = "".join(chr(0xE0000 + ord(c)) for c in "ignore all")
    scotland = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    assert clean_text(f"a{smuggled}b{scotland}") == f"ab{scotland}"


@pytest.mark.parametrize(
    ("text", "blank"), [("\u200c\u00a0\u034f \ufeff", True), ("\u00ad", True), ("👍", False), (".", False)]
)
def test_blank(text: str, blank: bool) -> None:
    assert is_blank(text) is blank


@pytest.mark.parametrize("field", ["", "Content-Type: text/plain; charset=unknown-8bit", "Content-Type: text/plain"])
@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("koi8_r", "Привет, как дела?"),
        ("cp1251", "Привет, как дела?"),
        ("cp932", "会議は三時です"),
        ("euc_jp", "会議は三時です。よろしく"),
        ("gb18030", "你好，会议改期"),
        ("big5", "會議改到星期五下午三點"),
        ("cp949", "회의는 금요일 세 시로 변경되었습니다."),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy"),
        ("cp1253", "Καλημέρα κόσμε, τι κάνετε σήμερα;"),
        ("cp1254", "Günaydın, nasılsınız? Teşekkür ederim"),
        ("cp1255", "שלום עולם, מה שלומך היום?"),
        ("cp1252", "Grüße aus Köln, 5 € für “x”"),
        ("cp1252", "Où êtes-vous ?"),
    ],
)
def test_a_text_without_a_usable_label_is_read_as_browsers_would(codec: str, text: str, field: str) -> None:
    pytest.importorskip("chardetng_py")
    head = f"From: Pat <you@example.org>\r\n{field}\r\n" if field else "From: Pat <you@example.org>\r\n"
    raw = head.encode() + b"Subject: " + text.encode(codec) + b"\r\n\r\n" + text.encode(codec)
    mail = read_mail(raw)
    assert (mail.text, mail.subject, mail.from_address) == (text, text, "you@example.org")


def test_a_from_is_never_guessed_at() -> None:
    """Two bytes of Shift_JIS may hide an @ that others see."""
    value = b"\x81@bad.example " + "会議".encode("cp932") + b" <you@example.org>"
    assert decode(value) == decode(value, "")
    assert "@" in decode(value)
