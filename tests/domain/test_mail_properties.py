"""Whatever the bytes, `read_mail` gives a Mail that is safe to store, to show and to answer."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.mail_corpus import corpus
from tinyfat.domain.mail.addresses import plain_address
from tinyfat.domain.mail.body_text import TEXT_BYTES_MAX
from tinyfat.domain.mail.charsets import decode, one_line
from tinyfat.domain.mail.headers import decode_words, parse_parameters
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.mail.message_ids import message_ids

REAL = [mail.raw for mail in corpus() if mail.name.startswith(("mutations-", "structures-", "reports-"))]
SMALL = [raw for raw in REAL if len(raw) < 5_000]

# The alphabet of mail: far likelier to find a corner than bytes at random.
TOKENS = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"=",
        b'"',
        b"<",
        b">",
        b"(",
        b")",
        b"@",
        b"\\",
        b"--",
        b"--x",
        b"--x--",
        b"From",
        b"To",
        b"Subject",
        b"Message-ID",
        b"References",
        b"Content-Type",
        b"multipart/mixed; boundary=x",
        b"multipart/report; boundary=x",
        b"text/html",
        b"text/plain",
        b"Content-Transfer-Encoding",
        b"base64",
        b"quoted-printable",
        b"charset=",
        b"utf-7",
        b"iso-2022-jp",
        b"=?utf-8?q?",
        b"?=",
        b"=?utf-8?b?",
        b"name*0*=",
        b"%FF",
        b"\x00",
        b"\xff",
        b"a@b.c",
        b"message/rfc822",
        b"message/delivery-status",
        b"<p>",
        b"<table>",
        b"format=flowed",
        b"begin 644 x\n#0V%T\n`\nend\n",
        b"=ybegin size=1 name=x\n",
        b"\n=yend",
        b"application/pkcs7-mime",
        b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80",
        b"message/external-body; url=",
        b"multipart/*",
        b"multipart/alternative; boundary=x",
        b"<style>.x{display:none}",
        b"<div class=x style='color:#fff;font:0/0 a'>",
        b"text/calendar; method=REPLY",
        b"Subject: Automatic reply: ",
        b"\xef\xbb\xbf",
        b"\x1b$B",
        b"shift_jis",
        b"euc-jp",
    ]
)
MAILISH = st.lists(st.one_of(TOKENS, st.binary(max_size=8)), max_size=60).map(b"".join)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(1, 8))):
        position = draw(st.integers(0, len(raw)))
        length = draw(st.integers(0, 30))
        raw[position : position + length] = draw(st.one_of(TOKENS, st.binary(max_size=20)))
    return bytes(raw)


def is_one_line(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def check(mail: Mail) -> None:
    assert "unreadable" not in mail.defects
    assert message_ids(mail.message_id) == [mail.message_id]
    for one in (mail.in_reply_to, *mail.references):
        assert one == "" or message_ids(one) == [one]
    assert mail.from_address == "" or plain_address(mail.from_address) == mail.from_address
    for text in (mail.from_name, mail.subject, mail.date, mail.automatic, *(one.name for one in mail.to)):
        assert is_one_line(text)
    mail.text.encode("utf-8")
    assert len(mail.text.encode()) < TEXT_BYTES_MAX + 200
    assert not set(mail.text) & set(map(chr, [*range(9), *range(11, 32), 127]))
    names = [one.filename for one in mail.attachments]
    assert len({name.casefold() for name in names}) == len(names) <= 500
    for name in names:
        assert name
        assert is_one_line(name)
        assert not set(name) & set('/\\<>:"|?*')
        assert name.strip(" .") == name


@given(st.binary(max_size=2_000))
@example(b"")
@example(b"Message-ID: <[a@b]>\r\n\r\n")
def test_random_bytes(raw: bytes) -> None:
    check(read_mail(raw))


@given(MAILISH)
@settings(max_examples=300)
def test_bytes_that_look_like_mail(raw: bytes) -> None:
    check(read_mail(raw))


@given(mutated())
@settings(max_examples=300)
def test_real_mail_gone_wrong(raw: bytes) -> None:
    check(read_mail(raw))


@given(MAILISH)
def test_reading_is_a_function(raw: bytes) -> None:
    assert read_mail(raw) == read_mail(raw)


@given(st.text(max_size=300))
@example("0 \u200e 0")
def test_header_decoders_take_any_text(text: str) -> None:
    one_line(decode_words(text)).encode("utf-8")
    main, parameters = parse_parameters(text)
    assert isinstance(main, str)
    assert all(isinstance(value, str) for value in parameters.values())
    assert one_line(one_line(text)) == one_line(text)


@given(st.binary(max_size=200), st.text(max_size=30))
def test_any_charset_decodes_to_text(content: bytes, charset: str) -> None:
    decode(content, charset).encode("utf-8")
