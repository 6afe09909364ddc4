"""winmail.dat, as Outlook packs it: built here, byte by byte, after MS-OXTNEF."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.test_mail_shapes import FILE, MIXED, TEXT, files, made, parts
from tinyfat.domain.mail.compressed_rtf import RTF_BYTES_MAX, decompressed_rtf
from tinyfat.domain.mail.message import Mail
from tinyfat.domain.mail.rtf_text import rtf_text
from tinyfat.domain.mail.tnef import ATTRIBUTES_MAX, FILES_MAX, NESTING_MAX, read_tnef

HEAD = b"\x78\x9f\x3e\x22\x01\x00"
MESSAGE_GUID = bytes.fromhex("0703020000000000c000000000000046")


def attribute(name: int, data: bytes, level: int = 1) -> bytes:
    return struct.pack("<BHHI", level, name, 6, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def variable(name: int, kind: int, data: bytes) -> bytes:
    return struct.pack("<HHII", kind, name, 1, len(data)) + data + b"\0" * (-len(data) % 4)


def text(name: int, value: str) -> bytes:
    return variable(name, 0x1F, f"{value}\0".encode("utf-16-le"))


def properties(*ones: bytes) -> bytes:
    return struct.pack("<I", len(ones)) + b"".join(ones)


def message(*ones: bytes, kind: str = "IPM.Note") -> bytes:
    return (
        HEAD
        + attribute(0x9007, struct.pack("<II", 1252, 0))
        + attribute(0x8008, f"{kind}\0".encode())
        + attribute(0x9003, properties(*ones))
    )


def file(name: str, content: bytes, *ones: bytes) -> bytes:
    return (
        attribute(0x9002, b"\1\0" + b"\xff" * 12, 2)
        + attribute(0x8010, name.encode("ascii", "replace")[:8] + b"~1.DAT\0", 2)
        + attribute(0x800F, content, 2)
        + attribute(0x9005, properties(text(0x3707, name), *ones), 2)
    )


NUMBER = struct.pack("<HHI", 3, 0x0026, 1) + struct.pack("<HHHH", 2, 0x0E69, 1, 0)
NAMED = struct.pack("<HH", 0x1F, 0x8001) + b"g" * 16 + struct.pack("<II", 1, 6) + "abc".encode("utf-16-le") + b"\0\0"
NAMED += struct.pack("<II", 1, 4) + "x\0".encode("utf-16-le")
NUMBERED = struct.pack("<HH", 3, 0x8002) + b"g" * 16 + struct.pack("<III", 0, 33, 7)
SEVERAL = struct.pack("<HHI", 0x1003, 0x6000, 2) + struct.pack("<II", 1, 2)


def mail(packed: bytes, *others: str, kind: str = "application/ms-tnef; name=winmail.dat") -> Mail:
    coded = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n{base64.encodebytes(packed).decode()}"
    return made(MIXED, body=parts(*others, coded))


@pytest.mark.parametrize("kind", ["application/ms-tnef", "application/vnd.ms-tnef", "a/b", "application/octet-stream"])
def test_its_files_are_the_mails(kind: str) -> None:
    content = b"\0\1\2\0\0\0"
    packed = message(NUMBER, NAMED, NUMBERED, SEVERAL, text(0x0037, "Hi"), text(0x1000, "the text again"))
    packed += file("Bericht über März.pdf", content, text(0x370E, "application/pdf")) + file("b.txt", b"x")
    found = mail(packed, TEXT, FILE, kind=f"{kind}; name=winmail.dat")
    if kind == "a/b":
        assert [name for name, _ in files(found)] == ["t.csv", "winmail.dat"]
        return
    assert found.text == "the text"
    assert files(found) == [("t.csv", b"a,b"), ("Bericht über März.pdf", content), ("b.txt", b"x")]
    assert found.attachments[1].media_type == "application/pdf"


LATIN_9 = struct.pack("<HHI", 3, 0x3FDE, 28605)
RTF = rb"{\rtf1\ansi What is the time in Bern? Gr\'fc\u223?e}"


@pytest.mark.parametrize(
    "body",
    [
        [text(0x1000, "What is the time in Bern? Grüße")],
        [variable(0x1000, 0x1E, "What is the time in Bern? Grüße\0".encode("cp1252"))],
        [variable(0x1013, 0x102, b"<p>What is the time in Bern? <b>Gr&uuml;&szlig;e</b></p>")],
        [LATIN_9, variable(0x1013, 0x102, "<p>What is the time in Bern? Grüße".encode("iso8859-15"))],
        [variable(0x1009, 0x102, struct.pack("<II4sI", 90, 90, b"MELA", 0) + RTF)],
    ],
    ids=["unicode", "code page", "html", "html of another code page", "rtf"],
)
def test_its_text_is_read_where_there_is_no_other(body: list[bytes]) -> None:
    packed = message(*body)
    assert mail(packed).text == "What is the time in Bern? Grüße"
    assert mail(packed, TEXT).text == "the text"
    assert mail(packed, "Content-Type: text/plain\r\n\r\n \r\n").text == "What is the time in Bern? Grüße"
    root = made("Content-Type: application/ms-tnef", "Content-Transfer-Encoding: binary", body=packed)
    assert (root.text, files(root)) == ("What is the time in Bern? Grüße", [])


def test_a_mail_attached_to_it_is_its_text_and_its_files() -> None:
    inner = message(text(0x0037, "Lunch"), text(0x1000, "At noon?")) + file("menu.txt", b"soup")
    holder = attribute(0x9002, b"\1\0", 2) + attribute(
        0x9005, properties(text(0x3001, "Lunch"), variable(0x3701, 0x0D, MESSAGE_GUID + inner)), 2
    )
    found = mail(message() + holder, TEXT)
    assert files(found) == [("Lunch.txt", b"At noon?"), ("menu.txt", b"soup")]
    deep = inner
    for _ in range(NESTING_MAX + 2):
        deep = (
            message()
            + attribute(0x9002, b"\1\0", 2)
            + attribute(0x9005, properties(variable(0x3701, 0x0D, MESSAGE_GUID + deep)), 2)
        )
    assert len(files(mail(deep, TEXT))) == 1, "what lies too deep is a file, whole"


def test_one_that_is_cut_is_kept_beside_what_was_found() -> None:
    packed = message() + file("a.txt", b"one") + file("b.txt", b"two" * 100)[:-60]
    found = mail(packed, TEXT)
    assert [name for name, _ in files(found)] == ["a.txt", "b.txt~1.DAT", "winmail.dat"]
    assert files(found)[-1][1] == packed
    assert [name for name, _ in files(mail(b"\x78\x9f\x3e\x23 something else", TEXT))] == ["winmail.dat"]
    assert files(mail(message(), TEXT)) == []


@pytest.mark.parametrize(
    ("kind", "automatic"),
    [
        ("IPM.Note", False),
        ("IPM.Microsoft Mail.Note", False),
        ("IPM.Schedule.Meeting.Request", False),
        ("IPM.Schedule.Meeting.Resp.Pos", True),
        ("IPM.Microsoft Schedule.MtgRespN", True),
        ("IPM.Note.Rules.OofTemplate.Microsoft", True),
        ("REPORT.IPM.Note.IPNRN", True),
        ("IPM.Microsoft Mail.Read Receipt", True),
    ],
)
def test_its_class_tells_an_automatic_mail(kind: str, automatic: bool) -> None:
    assert bool(mail(message(kind=kind), TEXT).automatic) is automatic


def test_every_bound_leaves_the_rest_whole() -> None:
    many = read_tnef(message() + file("a.txt", b"x") * (FILES_MAX + 1))
    assert many is not None and (len(many.files), many.whole) == (FILES_MAX, False)
    endless = read_tnef(HEAD + attribute(0x8020, b"") * (ATTRIBUTES_MAX + 1))
    assert endless is not None and not endless.whole
    claims = read_tnef(HEAD + attribute(0x9003, struct.pack("<I", 2**32 - 1)))
    assert claims is not None and not claims.whole


@given(st.binary(max_size=300), st.integers(0, 2_000), st.integers(0, 255))
def test_nothing_makes_it_fail(noise: bytes, at: int, byte: int) -> None:
    packed = bytearray(message(NUMBER, NAMED, SEVERAL, text(0x1000, "x")) + file("a", b"b"))
    packed[at % len(packed)] = byte
    for one in (HEAD + noise, bytes(packed), bytes(packed) + noise):
        read_tnef(one)


class TestRtf:
    PACKED = bytes.fromhex(  # MS-OXRTFCP 4.1.1
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )

    def test_the_specifications_example(self) -> None:
        assert decompressed_rtf(self.PACKED) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
        assert rtf_text(decompressed_rtf(self.PACKED)).strip() == "hello world"

    def test_a_reference_into_itself(self) -> None:
        packed = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")  # MS-OXRTFCP 4.1.2
        assert decompressed_rtf(packed) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"

    @given(st.binary(max_size=400))
    def test_nothing_makes_it_fail(self, noise: bytes) -> None:
        assert len(decompressed_rtf(struct.pack("<II4sI", 9, 2**32 - 1, b"LZFu", 0) + noise)) <= RTF_BYTES_MAX
        rtf_text(noise)
        rtf_text(b"{\\rtf1 " + noise)

    @pytest.mark.parametrize(
        ("rtf", "shown"),
        [
            (rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}{\colortbl;\red0;}Hello\par world}", "Hello\nworld"),
            (rb"{\rtf1\ansicpg1251 \'cf\'f0\'e8\'e2\'e5\'f2}", "Привет"),
            (rb"{\rtf1{\fonttbl{\f1\fcharset204 Arial;}}\f1 \'cf\'f0}", "Пр"),
            (rb"{\rtf1\uc1 \u1055?\u1088?}", "Пр"),
            (rb"{\rtf1 a{\*\generator x;}{\pict 0102}b\{c\}\~d}", "ab{c}\xa0d"),
            (
                rb"{\rtf1\fromhtml1 {\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 Hello{\*\htmltag7 }\htmlrtf\par}\htmlrtf0}",
                "Hello",
            ),
        ],
    )
    def test_what_a_person_reads(self, rtf: bytes, shown: str) -> None:
        assert rtf_text(rtf).strip() == shown
