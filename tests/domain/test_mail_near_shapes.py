"""Near the mails that bug reports tell of: the same slips in other spellings, types, charsets and names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import pytest

from tests.domain.test_mail_shapes import FILE, MIXED, TEXT, files, made, parts
from tinyfat.domain.mail.body_text import unenriched
from tinyfat.domain.mail.headers import decode_words, parse_parameters
from tinyfat.domain.mail.message import read_mail
from tinyfat.domain.mail.signed_content import is_enveloped
from tinyfat.recipes.reply_mail import reply_subject

BERN = "Grüße aus Bern"
CODED = base64.encodebytes(BERN.encode()).decode()
PLAIN = "Content-Type: text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "value",
    [
        *("base 64", "base64.", "[base64]", "base64/", "x-base-64", "<base64>", "base64encoding", "=base64", "base64:"),
        *("=?utf-8?q?base64?=", "Content-Transfer-Encoding: BASE64", "7bit\r\nContent-Transfer-Encoding: base64"),
    ],
)
def test_base64_by_other_names(value: str) -> None:
    assert made(PLAIN, f"Content-Transfer-Encoding: {value}", body=CODED).text == BERN


@pytest.mark.parametrize("value", ["quoted printable", "Quoted-Printable.", "quote-printable", "x-quoted-printable"])
def test_quoted_printable_by_other_names(value: str) -> None:
    coded = binascii.b2a_qp(BERN.encode())
    assert made(PLAIN, f"Content-Transfer-Encoding: {value}", body=coded).text == BERN


@pytest.mark.parametrize("body", ["Hello Ada, what is the time? It's late.", "Hello Ada what is the time\r\nBye"])
def test_what_only_says_it_is_base64_stays_as_it_is(body: str) -> None:
    assert made(PLAIN, "Content-Transfer-Encoding: base64", body=body).text == body.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("encoding", "code"),
    [("base64", base64.encodebytes), ("quoted-printable", lambda one: binascii.b2a_qp(one.replace(b"\r\n", b"\n")))],
)
def test_a_multipart_encoded_as_a_whole(encoding: str, code: Callable[[bytes], bytes]) -> None:
    field = 'Content-Type: multipart/mixed; boundary="=b"'
    body = parts(TEXT, FILE, boundary="=b", end="--=b--\r\n").encode()
    mail = made(field, f"Content-Transfer-Encoding: {encoding}", body=code(body))
    assert (mail.text, [name for name, _ in files(mail)]) == ("the text", ["t.csv"])
    assert "multipart-encoded" in mail.defects


@pytest.mark.parametrize(
    "value",
    [
        *("multipart/mixed,boundary=bb", "multipart/mixed; boundary='bb'", "multipart/mixed; boundary==bb"),
        *("=?us-ascii?q?multipart/mixed=3B_boundary=3Dbb?=", "mixed; boundary=bb", "multipart-mixed; boundary=bb"),
        *("text/plain; boundary=bb", "application/mixed; boundary=bb", "multipart/mixed; boundary="),
        *(
            '"multipart/mixed"; boundary=bb',
            "Content-Type: multipart/mixed; boundary=bb",
            "multipart/mixed boundary=bb",
        ),
        *("multipart/mixed; Boundary:bb", "multipart/mixed; bounday=bb", "multipart /mixed; boundary=bb"),
    ],
)
def test_multiparts_as_they_are_meant(value: str) -> None:
    mail = made(f"Content-Type: {value}", body=parts(TEXT, FILE, boundary="bb", end="--bb--\r\n"))
    assert (mail.text, files(mail)) == ("the text", [("t.csv", b"a,b")])


def test_a_multipart_that_says_nothing_of_itself() -> None:
    body = parts(TEXT, FILE, boundary="bb", end="--bb--\r\n")
    assert files(made("MIME-Version: 1.0", body=body)) == [("t.csv", b"a,b")]
    assert made(PLAIN, body=body).text.startswith("--bb"), "a text that says it is one"
    assert made(body=f"{body}\r\nmy own words").text.startswith("--bb"), "words behind it would be lost"


@pytest.mark.parametrize(
    "kind",
    [
        *("text/plan", "plain/text", "text/ascii", "text/unknown", "text/markdown", "text/x-plain", "message/plain"),
        *("unknown/unknown", "application/text", "text/plaintext", "application/pgp; format=text", "[text/plain]"),
    ],
)
def test_a_message_of_one_text_is_read_whatever_its_type(kind: str) -> None:
    mail = made(f"Content-Type: {kind}", body=BERN)
    assert (mail.text, files(mail)) == (BERN, [])


@pytest.mark.parametrize(
    "kind", ["text/xhtml", "application/xhtml+xml", "text/x-html", '"text/html"', "text/x-amp-html", "text/plain"]
)
def test_a_message_of_one_html_is_read_whatever_its_type(kind: str) -> None:
    mail = made(f"Content-Type: {kind}", body="<html><p>Gr&uuml;&szlig;e <b>aus</b> Bern</p></html>")
    assert (mail.text, files(mail)) == (BERN, [])


@pytest.mark.parametrize(
    ("kind", "body", "name"),
    [
        ("application/octet-stream", b"\x00\x01binary", "attachment-1.bin"),
        ("application/pdf", b"%PDF-1.7\n\xde\xad\xbe\xef\x00", "attachment-1.pdf"),
        ("text/calendar; method=REQUEST", b"BEGIN:VCALENDAR\r\n", "attachment-1.ics"),
        ("text/csv", b"a,b\r\n", "attachment-1.csv"),
        ("message/rfc822", b"Subject: x\r\n\r\ny", "attachment-1.eml"),
        ("application/json; name=a.json", b"{}", "a.json"),
        ("application/octet-stream", b"   ", "attachment-1.bin"),
    ],
)
def test_a_message_of_one_file_is_a_file(kind: str, body: bytes, name: str) -> None:
    assert files(made(f"Content-Type: {kind}", body=body)) == [(name, body)]


def test_versions_for_other_programs_are_read_where_there_is_no_other() -> None:
    field, amp = "Content-Type: multipart/alternative; boundary=b", "Content-Type: text/x-amp-html\r\n\r\n<p>hi</p>"
    assert made(field, body=parts(amp)).text == "hi"
    mail = made(field, body=parts(TEXT, amp))
    assert (mail.text, files(mail)) == ("the text", [])


def test_named_versions_of_the_text_are_the_text() -> None:
    plain = "Content-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment\r\n\r\nthe text"
    html = "Content-Type: text/html; name=a.html\r\nContent-Disposition: attachment\r\n\r\n<p>the text</p>"
    mail = made("Content-Type: multipart/alternative; boundary=b", body=parts(plain, html))
    assert (mail.text, files(mail)) == ("the text", [])
    named = "Content-Type: text/html; name=a.html\r\n\r\n<p>the text</p>"
    assert made(MIXED, body=parts(named, FILE)).text == "the text"
    attached = made(MIXED, body=parts(plain, FILE))
    assert (attached.text, len(files(attached))) == ("", 2)


def test_enriched_text_loses_its_commands() -> None:
    coded = "<bold>Hello</bold> <<Ada\nwhat is\n\n<color><param>red</param>2+2</color>?"
    assert unenriched(coded) == "Hello <Ada what is\n2+2?"
    for kind in ("enriched", "richtext"):
        assert made(f"Content-Type: text/{kind}", body=coded).text == "Hello <Ada what is\n2+2?"


def test_encrypted_mail_without_its_type_says_so() -> None:
    der = bytes.fromhex("301106092a864886f70d010703a0043002020100")
    assert is_enveloped(der) and not is_enveloped(der.replace(b"\x03\xa0", b"\x02\xa0"))
    coded = base64.encodebytes(der)
    field = "Content-Type: application/pkcs7-mime; name=smime.p7m"
    assert "encrypted" in made(field, "Content-Transfer-Encoding: base64", body=coded).text


@pytest.mark.parametrize("field", ['begin 644 "a b.txt"', "begin 100644 a b.txt", "begin 0644 a b.txt"])
def test_uuencoded_names_and_modes(field: str) -> None:
    assert files(made(body=f"Hello\r\n{field}\r\n#0V%T\r\n`\r\nend\r\n")) == [("a b.txt", b"Cat")]


def test_a_uuencoded_name_in_the_texts_charset() -> None:
    body = b"begin 644 " + "файл.txt".encode("koi8-r") + b"\r\n#0V%T\r\n`\r\nend\r\n"
    assert files(made("Content-Type: text/plain; charset=koi8-r", body=body)) == [("файл.txt", b"Cat")]


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ('3D"koi8-r"', "koi8_r", "Привет"),
        ("charset=windows-1251", "cp1251", "Привет"),
        ("8859-2", "iso8859_2", "žluť"),
        ("iso-8859-2 (central)", "iso8859_2", "žluť"),
        ("utf-16le", "utf_16", BERN),
        ("us-ascii", "utf_16", BERN),
        ("utf-16be", "utf_16", "会議"),
        ("shift_jis", "utf_8", "会議は三時です"),
        ("euc-jp", "utf_8", "会議は三時です"),
        ("shift_jis", "iso2022_jp", "会議は三時です"),
        ("euc-jp", "iso2022_jp", "会議は三時です"),
        ("gb2312", "utf_8", "会议改到星期五"),
        ("big5", "utf_8", "會議改到星期五"),
        ("euc-kr", "utf_8", "회의는 세 시"),
        ("gb2312", "gb18030", "联通 会议镕基"),
        ("euc-kr", "cp949", "회의는 똠방각하"),
    ],
)
def test_labels_that_are_near_or_wrong(label: str, codec: str, text: str) -> None:
    assert made(f"Content-Type: text/plain; charset={label}", body=text.encode(codec)).text == text


@pytest.mark.parametrize("label", ["shift_jis", "euc-jp", "iso-2022-jp"])
@pytest.mark.parametrize("byte", [b"\xfd", b"\xff", b"\xa0"])
def test_one_bad_byte_is_one_character(label: str, byte: bytes) -> None:
    text = made(f"Content-Type: text/plain; charset={label}", body="会議は".encode(label) + b" " + byte + b" x").text
    assert text == "会議は \ufffd x"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"From: you@example.org\rSubject: A question\r\rHello", "Hello"),
        ("\ufeffFrom: you@example.org\r\nSubject: A question\r\n\r\nHello".encode("utf-16-le"), "Hello"),
        ("\ufeffFrom: you@example.org\r\nSubject: A question\r\n\r\nHello".encode("utf-16-be"), "Hello"),
        (b"HTTP/1.1 200 OK\r\nFrom: you@example.org\r\nSubject: A question\r\n\r\nHello", "Hello"),
        (b"MAIL FROM:<x@y>\r\nFrom: you@example.org\r\nSubject: A question\r\n\r\nHello", "Hello"),
    ],
)
def test_lines_and_headers_of_odd_transports(raw: bytes, shown: str) -> None:
    mail = read_mail(raw)
    assert (mail.from_address, mail.subject, mail.text) == ("you@example.org", "A question", shown)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?utf-8?Q?x?y?=", "x?y"),
        ("=?utf-8?Q?really??= ok", "really? ok"),
        ("=?utf-8?B?eA==?= =?utf-8?Q?y?=", "xy"),
        ("=?utf-8?Q?a=3D?=", "a="),
        ("=?utf-8?Q?a=?=", "a"),
    ],
)
def test_encoded_words_with_question_marks(value: str, text: str) -> None:
    assert decode_words(value) == text


def test_encoded_words_that_never_end_take_no_time() -> None:
    for piece in ("=?a?q?", "=?a?q?x", "=?a?q?x?", "=?a?q?=", "?="):
        text = piece * 10_000
        assert len(decode_words(text)) <= len(text)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("attachment filename=x.txt", "x.txt"),
        ("attachment, filename=x.txt", "x.txt"),
        ("filename=x.txt", "x.txt"),
        ("attachment; filename='x.txt'", "x.txt"),
        ("attachment; filename=UTF-8''%e2%82%ac.txt", "€.txt"),
        ('attachment; filename="%E2%82%AC.txt"', "€.txt"),
        ('attachment; filename="100%25.txt"', "100%25.txt"),
        ("attachment; filename=\"it's Pat's.txt\"", "it's Pat's.txt"),
        ("attachment; filename==?utf-8?Q?=E2=82=AC.txt?=", "€.txt"),
    ],
)
def test_names_of_files_as_they_are_meant(value: str, name: str) -> None:
    file = f"Content-Type: application/octet-stream\r\nContent-Disposition: {value}\r\n\r\nq"
    assert files(made(MIXED, body=parts(TEXT, file))) == [(name, b"q")]


def test_a_forgotten_semicolon() -> None:
    assert parse_parameters("text/plain charset=utf-8; x=y") == ("text/plain", {"charset": "utf-8", "x": "y"})
    assert parse_parameters('text/plain; x="a, b=c"') == ("text/plain", {"x": "a, b=c"})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Sales: Pat <you@example.org>", "Sales: Pat"),
        ("Pat; Smith <you@example.org>", "Pat, Smith"),
        ("Pat <you@example.org>;", "Pat"),
        ("Pat @ Work <you@example.org>", "Pat @ Work"),
        ("@pat <you@example.org>", "@pat"),
        ("Pat <you@example.org>, Pat <you@example.org>", "Pat"),
    ],
)
def test_a_from_as_it_is_meant(value: str, name: str) -> None:
    mail = read_mail(f"From: {value}\r\n\r\nx".encode())
    assert (mail.from_address, mail.from_name) == ("you@example.org", name)


@pytest.mark.parametrize(
    ("fields", "answer_to"),
    [
        ("From: Pat p@x.org", "p@x.org"),
        ("From: Pat Smith [p@x.org]", "p@x.org"),
        ("From: Pat <mailto:p@x.org>", "p@x.org"),
        ("From: <<p@x.org>>", "p@x.org"),
        ('From: "Pat <p@x.org>', "p@x.org"),
        ("From: Team: p@x.org;", "p@x.org"),
        ("From: Team: Pat <p@x.org>, q@x.org", "p@x.org"),
        ("From: <p@x.org>: <q@x.org>", "q@x.org"),
        ("From: nobody\r\nSender: p@x.org", "p@x.org"),
        ("From: nobody\r\nReply-To: p@x.org", "p@x.org"),
        ("X-None: x", ""),
    ],
)
def test_a_from_in_doubt_still_says_to_whom_an_answer_would_go(fields: str, answer_to: str) -> None:
    mail = read_mail(f"{fields}\r\n\r\nx".encode())
    assert (mail.from_address, mail.answer_to) == ("", answer_to)


@pytest.mark.parametrize(
    "prefix",
    [
        *("Réf. :", "VÁLASZ:", "На:", "Re 2:", "Atbilde:", "Ang:", "Betr:", "ตอบกลับ:", "ΑΠΑΝΤΗΣΗ:", "پاسخ:", "जवाब:"),
        *("Răspuns:", "回信：", "회신:", "відповідь:", "Re^2:", "Risposta:"),
    ],
)
def test_reply_prefixes_of_other_languages(prefix: str) -> None:
    assert reply_subject(f"{prefix} Re: lunch") == "Re: lunch"
