"""MIME as broken and as old programs write it: read, and nothing lost."""

from __future__ import annotations

import base64
import binascii
import pickle

import pytest

from tinyfat.domain.mail.encoded_files import FILES_MAX, encoded_files
from tinyfat.domain.mail.headers import decode_base64, read_headers
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.mail.mime import transfer_encoding
from tinyfat.domain.mail.signed_content import signed_content

HEAD = b"From: you@example.org\r\nTo: ada@t.org\r\nSubject: A question\r\nMessage-ID: <1@x>\r\n"


def made(*fields: str, body: bytes | str = b"Hello\r\n", head: bytes = HEAD) -> Mail:
    content = body.encode() if isinstance(body, str) else body
    mail = read_mail(head + b"".join(one.encode() + b"\r\n" for one in fields) + b"\r\n" + content)
    assert pickle.loads(pickle.dumps(mail)) == mail  # it goes from process to process
    return mail


def parts(*bodies: str, boundary: str = "b", end: str = "--b--\r\n") -> str:
    return "".join(f"--{boundary}\r\n{one}\r\n" for one in bodies) + end


def files(mail: Mail) -> list[tuple[str, bytes]]:
    return [(one.filename, one.content) for one in mail.attachments]


TEXT = "Content-Type: text/plain\r\n\r\nthe text"
FILE = 'Content-Type: text/csv; name="t.csv"\r\nContent-Disposition: attachment\r\n\r\na,b'
MIXED = "Content-Type: multipart/mixed; boundary=b"


class TestTransferEncodings:
    @pytest.mark.parametrize(
        ("value", "meant"),
        [
            *[(value, "base64") for value in ("base64", "BASE64", "base64;", " base64 ; x=y", "(a) base64 (b)")],
            *[
                (value, "base64")
                for value in ('"base64"', "base-64", "b64", "x-base64", "base64,", "'base64'", "B64 8bit")
            ],
            *[(value, "quoted-printable") for value in ("Quoted-Printable", "quoted-printable;", "quoted_printable")],
            *[(value, "") for value in ("7bit", "8bit", "8-bit", "binary", "", "x-none", "utf-8", "()", ";")],
            ("x-uuencode", "uuencode"),
            ("x-uue", "uuencode"),
        ],
    )
    def test_as_they_are_meant(self, value: str, meant: str) -> None:
        headers = read_headers(f"Content-Transfer-Encoding: {value}\r\n\r\n".encode()).headers
        assert transfer_encoding(headers) == meant

    def test_uuencoded_part(self) -> None:
        coded = b"begin 644 a.bin\r\n" + binascii.b2a_uu(b"Cat").rstrip() + b"\r\n`\r\nend\r\n"
        body = (
            b"--b\r\nContent-Type: a/b; name=a.bin\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n" + coded + b"--b--"
        )
        assert files(made(MIXED, body=body)) == [("a.bin", b"Cat")]

    def test_base64_in_chunks_and_with_a_footer(self) -> None:
        chunks = base64.b64encode(b"one") + b"\r\n" + base64.b64encode(b"seven!!") + b"\r\n" + base64.b64encode(b"x")
        assert decode_base64(chunks) == b"oneseven!!x"
        footed = base64.b64encode(b"the text") + b"\r\n_______\r\nTo leave the list, write to x.\r\n"
        assert decode_base64(footed) == b"the text\n_______\r\nTo leave the list, write to x.\r\n"
        assert decode_base64(b"a=" * 5_000) != b""


class TestContentTypes:
    @pytest.mark.parametrize("kind", ["multipart/*", "multipart", "multipart/", "Multipart/Mixed (x)", "multipart/odd"])
    def test_multiparts_of_no_known_kind_are_mixed(self, kind: str) -> None:
        mail = made(f"Content-Type: {kind}; boundary=b", body=parts(TEXT, FILE))
        assert (mail.text, files(mail)) == ("the text", [("t.csv", b"a,b")])

    @pytest.mark.parametrize(
        "kind", ["text", "text/", "text/*", "plain", "text / plain", "text/plain charset=utf-8", "x", ""]
    )
    def test_texts_of_no_known_kind_are_text(self, kind: str) -> None:
        assert made(f"Content-Type: {kind}", body="Grüße").text == "Grüße"

    @pytest.mark.parametrize("kind", ["image/*", "application", "application/", "nonsense; name=a.bin"])
    def test_files_of_no_known_kind_are_files(self, kind: str) -> None:
        mail = made(MIXED, body=parts(TEXT, f"Content-Type: {kind}\r\n\r\nbytes"))
        assert [one.content for one in mail.attachments] == [b"bytes"]

    @pytest.mark.parametrize(
        "value",
        [
            "text/plain; charset=koi8-r (Russian)",
            "text/plain;charset='koi8-r'",
            'text/plain; charset="koi8-r";',
            'text/plain; format="flowed" charset="koi8-r"',
            "text/plain; charset*=us-ascii'en'koi8-r",
            "text/plain; charset*0=koi8; charset*1=-r",
        ],
    )
    def test_parameters(self, value: str) -> None:
        assert made(f"Content-Type: {value}", body="Привет".encode("koi8-r")).text == "Привет"


class TestBoundaries:
    @pytest.mark.parametrize(
        ("field", "boundary", "end"),
        [
            ('boundary="b  "', "b", "--b--"),
            ("boundary=b", "b  ", "--b--  "),
            ("", "found-it", "--found-it--"),
            ("boundary=other", "found-it", "--found-it--"),
            ("boundary=b", "b", ""),
            ("boundary=b", "b", "--b"),
        ],
    )
    def test_given_badly(self, field: str, boundary: str, end: str) -> None:
        body = parts(TEXT, FILE, boundary=boundary, end=end)
        mail = made(f"Content-Type: multipart/mixed; {field}", body=body)
        assert (mail.text, [name for name, _ in files(mail)]) == ("the text", ["t.csv"])

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_reused_in_each_other(self, depth: int) -> None:
        inner = parts(TEXT)
        for _ in range(depth):
            inner = parts(f"{MIXED}\r\n\r\n{inner}", FILE)
        assert (made(MIXED, body=inner).text, len(made(MIXED, body=inner).attachments)) == ("the text", depth)

    def test_parts_behind_the_last_delimiter_are_still_parts(self) -> None:
        mail = made(MIXED, body=parts(TEXT) + "epilogue\r\n" + parts(FILE))
        assert (mail.text, files(mail), mail.defects) == ("the text", [("t.csv", b"a,b")], ("boundary-closed-early",))

    def test_an_inner_multipart_that_goes_on_too(self) -> None:
        inner = "Content-Type: multipart/related; boundary=i\r\n\r\n--i\r\n\r\nthe text\r\n--i--\r\n\r\n--i\r\n" + FILE
        mail = made(MIXED, body=parts(inner + "\r\n--i--", FILE))
        assert (mail.text, len(files(mail))) == ("the text", 2)

    def test_text_before_the_first_part_counts_where_there_is_no_other(self) -> None:
        assert made(MIXED, body="the text\r\n" + parts(FILE)).text == "the text"
        assert made(MIXED, body="This is MIME\r\n" + parts(TEXT)).text == "the text"


class TestHeaders:
    def test_lines_that_are_none_are_skipped_where_the_header_goes_on(self) -> None:
        head = HEAD + b"X-Spam Report: clean\r\n\tand its second line\r\nno colon\r\n"
        mail = made("Content-Type: text/html", body="<b>hi</b>", head=head)
        assert (mail.text, mail.subject, mail.defects) == ("hi", "A question", ("headers-broken",))

    @pytest.mark.parametrize("body", ["Dear all,\r\nNote: x\r\n\r\nbye", "Dear all,\r\n\r\nbye", "Dear all"])
    def test_a_body_without_an_empty_line_before_it_is_the_body(self, body: str) -> None:
        assert read_mail(HEAD + body.encode()).text == body.replace("\r\n", "\n")

    @pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"\xef\xbb\xbf\r\n"])
    def test_what_stands_before_the_header(self, before: bytes) -> None:
        mail = read_mail(before + HEAD + b"\r\nHello")
        assert (mail.from_address, mail.subject, mail.text) == ("you@example.org", "A question", "Hello")


class TestFilesInText:
    def test_several_and_odd_modes(self) -> None:
        one = "begin 0755 a b.txt\n#0V%T\n`\nend\n"
        two = "begin 600 two.bin\n" + binascii.b2a_uu(b"y" * 45).decode() + " \nend\n"
        mail = made(body=f"Hello\n{one}between\n{two}bye")
        assert files(mail) == [("a b.txt", b"Cat"), ("two.bin", b"y" * 45)]
        assert mail.text.split() == ["Hello", "between", "bye"]

    def test_base64_form_and_yenc(self) -> None:
        coded = base64.b64encode(bytes(range(256))).decode()
        assert encoded_files(f"begin-base64 644 x\n{coded}\n====\n".encode()).files[0].content == bytes(range(256))
        shifted = [(byte + 42) % 256 for byte in range(256)]
        special = (0, 10, 13, ord("="))
        yenc = b"".join(bytes([ord("="), (c + 64) % 256]) if c in special else bytes([c]) for c in shifted)
        found = encoded_files(b"=ybegin line=128 size=256 name=a b.bin\r\n" + yenc + b"\r\n=yend size=256\r\n")
        assert [(one.name, one.content) for one in found.files] == [(b"a b.bin", bytes(range(256)))]

    def test_bits_beyond_a_lines_count_are_no_matter(self) -> None:
        assert encoded_files(b'begin 644 x\n"0V%T\n`\nend\n').files[0].content == b"Ca"
        assert encoded_files(b"begin 644 x\n!0V%_\n`\nend\n").files[0].content == b"C"

    @pytest.mark.parametrize(
        "text",
        [
            "begin 644 x\nnot coded at all, is it\nend\n",
            "begin 644 x\n#0V%T\n",
            "We begin 644 x\nend",
            "begin\nend\n",
            "begin 644\n#0V%T\nend\n",
        ],
    )
    def test_what_only_looks_like_one_stays_text(self, text: str) -> None:
        assert (made(body=text).text, made(body=text).attachments) == (text.strip("\n"), ())

    def test_files_past_the_bound_stay_in_the_text(self) -> None:
        found = encoded_files(b"begin 644 x\n#0V%T\n`\nend\n" * (FILES_MAX + 1))
        assert (len(found.files), found.rest.count(b"begin")) == (FILES_MAX, 1)


class TestAlternatives:
    def both(self, plain: str, html: str) -> str:
        body = parts(f"\r\n{plain}", f"Content-Type: text/html\r\n\r\n{html}")
        return made("Content-Type: multipart/alternative; boundary=b", body=body).text

    def test_plain_where_it_is_a_version_of_the_html(self) -> None:
        assert (
            self.both("Hello Ada, what is 2+2?", "<p>Hello <b>Ada</b>, what is 2+2?</p>") == "Hello Ada, what is 2+2?"
        )

    @pytest.mark.parametrize("plain", ["Please use an HTML program.", "\u200c \u00a0\u034f", "Nur HTML.", "..."])
    def test_html_where_the_plain_is_none(self, plain: str) -> None:
        assert "moved to Friday" in self.both(plain, "<p>Your booking was moved to Friday at 14:30, seat 61.</p>")

    def test_plain_where_the_html_is_blank(self) -> None:
        assert self.both("Hello", "<p>&nbsp;</p>") == "Hello"

    def test_links_that_only_the_html_has(self) -> None:
        text = self.both(
            "Confirm it here, please.", "<p>Confirm it <a href='https://x.org/c?t=1'>here</a>, please.</p>"
        )
        assert text.startswith("Confirm it here, please.")
        assert "here: https://x.org/c?t=1" in text
        assert self.both("See x.org/a", "<p>See <a href='https://x.org/a/'>x.org/a</a></p>") == "See x.org/a"

    def test_chinese_is_compared_by_its_characters(self) -> None:
        assert self.both("会议改到星期五。", "<p>会议改到<b>星期五</b>。</p>") == "会议改到星期五。"


class TestWrapped:
    def test_a_signature_of_unknown_lengths_is_opened(self) -> None:
        def ber(tag: int, *inner: bytes, plain: bool = False) -> bytes:
            content = b"".join(inner)
            return bytes([tag, len(content)]) + content if plain else bytes([tag, 0x80]) + content + b"\0\0"

        data, signed = bytes.fromhex("06092a864886f70d010701"), bytes.fromhex("06092a864886f70d010702")
        chunks = ber(
            0x24, *(ber(0x04, part, plain=True) for part in (b"Content-Type: text/plain\r\n\r\n", b"in ", b"pieces"))
        )
        der = ber(0x30, signed, ber(0xA0, ber(0x30, b"\x02\x01\x01", b"\x31\x00", ber(0x30, data, ber(0xA0, chunks)))))
        assert signed_content(der) == b"Content-Type: text/plain\r\n\r\nin pieces"
        coded = base64.encodebytes(der)
        fields = ("Content-Type: application/x-pkcs7-mime; smime-type=signed-data; name=smime.p7m",)
        assert made(*fields, "Content-Transfer-Encoding: base64", body=coded).text == "in pieces"

    @pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80" * 100, b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x06"])
    def test_what_is_no_signature_stays_a_file(self, der: bytes) -> None:
        assert signed_content(der) is None
        mail = made("Content-Type: application/pkcs7-mime; name=smime.p7m", body=der + b".")
        assert [name for name, _ in files(mail)] == ["smime.p7m"]

    def test_where_a_part_lies_is_said_whatever_its_access(self) -> None:
        field = (
            'Content-Type: message/external-body; access-type=anon-ftp; site="ftp.x.org"; directory="pub"; name="a.ps"'
        )
        text = made(MIXED, body=parts(TEXT, f"{field}\r\n\r\nContent-Type: a/b\r\n")).text
        assert all(word in text for word in ("the text", "ftp.x.org", "pub", "a.ps"))

    def test_what_is_encrypted_says_so(self) -> None:
        sealed = made("Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m")
        assert "encrypted" in sealed.text
        assert [name for name, _ in files(sealed)] == ["smime.p7m"]
        pgp = parts(
            "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", "Content-Type: a/b; name=x.asc\r\n\r\nx"
        )
        mail = made("Content-Type: multipart/encrypted; boundary=b", body=pgp)
        assert ("encrypted" in mail.text, len(mail.attachments)) == (True, 2)

    def test_a_subject_in_the_bodys_charset(self) -> None:
        raw = b"Subject: " + "Привет".encode("koi8-r") + b"\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\nx"
        assert read_mail(raw).subject == "Привет"
        assert read_mail(raw.replace(b"koi8-r", b"utf-16").replace("Привет".encode("koi8-r"), b"Hi")).subject == "Hi"

    def test_the_only_text_is_text_whatever_its_name(self) -> None:
        named = "Content-Type: text/plain; name=body.txt\r\n\r\nthe text"
        assert made(MIXED, body=parts(named, FILE)).text == "the text"
        mail = made(MIXED, body=parts(TEXT, named))
        assert (mail.text, files(mail)) == ("the text", [("body.txt", b"the text")])


class TestFrom:
    @pytest.mark.parametrize(
        ("value", "name", "address"),
        [
            ("you@example.org via Forms <you@example.org>", "you@example.org via Forms", "you@example.org"),
            ("Smith, Pat <p@x.org>", "Smith, Pat", "p@x.org"),
            ("Smith, Pat, Dr. <p@x.org>", "Smith, Pat, Dr.", "p@x.org"),
            ("Pat <p@x.org.>", "Pat", "p@x.org"),
            ("p@x.org.", "", "p@x.org"),
        ],
    )
    def test_as_it_is_meant(self, value: str, name: str, address: str) -> None:
        mail = read_mail(f"From: {value}\r\n\r\nx".encode())
        assert (mail.from_name, mail.from_address, mail.answer_to) == (name, address, "")

    @pytest.mark.parametrize(
        ("fields", "answer_to"),
        [
            ("From: other@y.org via Forms <p@x.org>", "p@x.org"),
            ("From: a@x.org, Pat <p@x.org>", "a@x.org"),
            ("From: a@x.org, b@x.org\r\nSender: b@x.org", "b@x.org"),
            ("From: a@x.org, b@x.org\r\nSender: thief@y.org", "a@x.org"),
            ("From: Team: a@x.org;", "a@x.org"),
            ("From: =?utf-8?q?Pat_=3Cp=40x.org=3E?=", "p@x.org"),
            ("From: p@x.org..", "p@x.org"),
            ("From: nobody", ""),
        ],
    )
    def test_in_doubt_it_is_nobodys_and_says_to_whom_an_answer_would_go(self, fields: str, answer_to: str) -> None:
        mail = read_mail(f"{fields}\r\n\r\nx".encode())
        assert (mail.from_address, mail.answer_to) == ("", answer_to)
