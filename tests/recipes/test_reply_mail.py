"""Replies, read back by readers that are not their writer: the standard library (both policies) and mail-parser."""

from __future__ import annotations

import email
import email.policy
import re
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

import mailparser
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.machine_speed import at_most
from tests.rsa_keys import rsa_key
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.mail.charsets import clean_text, one_line
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.turns import Attachment
from tinyfat.drivers.mail.dkim_signing import DkimKeyRefused, DkimSigner
from tinyfat.recipes.reply_html import markdown_html
from tinyfat.recipes.reply_mail import ReplyOrder, ReplyRefused, compose_reply, failure_reply, reply_subject

AT = datetime(2026, 11, 3, 12, 0, tzinfo=timezone(timedelta(hours=1)))
MAIL = read_mail(
    "From: Jörg Müller <maria@example.org>\r\nTo: ada@t.org\r\nSubject: AW: Grüße\r\nMessage-ID: <parent@x>\r\n"
    "References: <first@x> <second@x>\r\nDate: Tue, 3 Nov 2026 10:00:00 +0100\r\n\r\n"
    "Hällo\r\n\r\n> old\r\nbye\r\n".encode()
)
ORDER = ReplyOrder(MAIL, "Ada", "ada+work@tinyfat.localhost", "<turn.1@tinyfat.localhost>", AT, "**Hello** Jörg\n\nbye")

NAMES = [
    "Ada",
    "Ada Lovelace",
    "Lovelace, Ada",
    'Ada "The" Countess',
    "Ada\\x",
    "Jörg Müller",
    "李雷",
    "Алиса",
    "مُحَمَّد",
    "עדה",
    "สมชาย",
    "ひらがな カタカナ 漢字",
    "김철수",
    "Ελένη",
    "दीपक",
    "🦊 fox",
    "a@b.c",
    "Ada (agent)",
    "x" * 190,
    "ж" * 190,
    "=?utf-8?q?x?=",
    "a.b",
    "-",
    "Ünï " * 40,
    "e\u0301" * 90,
]


def parsed(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert not [part for part in message.walk() if part.defects]
    return message


def well_formed(raw: bytes) -> None:
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\r\n.\r\n" not in raw


def plain_of(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def test_its_header() -> None:
    raw = compose_reply(ORDER)
    well_formed(raw)
    message = parsed(raw)
    assert dict(message.items()) | {"Content-Type": ""} == {
        "From": "Ada <ada+work@tinyfat.localhost>",
        "To": "Jörg Müller <maria@example.org>",
        "Subject": "Re: Grüße",
        "Date": "Tue, 03 Nov 2026 12:00:00 +0100",
        "Message-ID": "<turn.1@tinyfat.localhost>",
        "In-Reply-To": "<parent@x>",
        "References": "<first@x> <second@x> <parent@x>",
        "Auto-Submitted": "auto-replied",
        "X-Auto-Response-Suppress": "DR, RN, NRN, OOF, AutoReply",
        "X-TinyFat-Loop": "ada+work@tinyfat.localhost",
        "MIME-Version": "1.0",
        "Content-Type": "",
    }


def test_its_texts() -> None:
    message = parsed(compose_reply(ORDER))
    assert message.get_content_type() == "multipart/alternative"
    quote = "On Tue, 3 Nov 2026 10:00:00 +0100, Jörg Müller wrote:\n> Hällo\n>\n> bye\n"
    assert plain_of(message).rstrip("\n") + "\n" == f"**Hello** Jörg\n\nbye\n\n{quote}"
    part = message.get_body(("html",))
    assert part is not None
    html = part.get_content()
    assert "<p><strong>Hello</strong> Jörg</p>" in html
    assert '<blockquote type="cite">Hällo<br>' in html


def test_the_same_order_gives_the_same_bytes() -> None:
    order = replace(ORDER, attachments=(Attachment("a.txt", "text/plain", b"x"),))
    assert compose_reply(order) == compose_reply(replace(order))
    assert compose_reply(order) != compose_reply(replace(order, message_id="<turn.2@tinyfat.localhost>"))


def test_mail_parser_reads_it_too() -> None:
    order = replace(ORDER, attachments=(Attachment("Übersicht.pdf", "application/pdf", b"%PDF"),))
    peer: Any = mailparser.parse_from_bytes(compose_reply(order))
    assert peer.from_ == [("Ada", "ada+work@tinyfat.localhost")]
    assert peer.to == [("Jörg Müller", "maria@example.org")]
    assert peer.subject == "Re: Grüße"
    assert peer.message_id == "<turn.1@tinyfat.localhost>"
    assert peer.text_plain[0].startswith("**Hello** Jörg")
    assert "<strong>Hello</strong>" in peer.text_html[0]
    assert [one["filename"] for one in peer.attachments] == ["Übersicht.pdf"]
    assert not peer.defects


def test_we_know_our_own_and_would_never_answer_it() -> None:
    ours = read_mail(compose_reply(ORDER))
    assert ours.automatic == "Auto-Submitted: auto-replied"
    assert (ours.from_address, ours.in_reply_to) == ("ada+work@tinyfat.localhost", "<parent@x>")
    assert ours.defects == ()


def test_attachments_come_back_as_they_were() -> None:
    given_ = (
        Attachment("a.txt", "text/plain", "gr\u00fc\u00dfe".encode()),
        Attachment("A.txt", "text/plain", b"\xff\xfe"),
        Attachment("../../etc/passwd", "application/x-thing", bytes(range(256)) * 100),
        Attachment("字" * 200 + ".png", "image/png", b""),
        Attachment("mail.eml", "message/rfc822", b"Subject: x\n\ny"),
        Attachment("x\r\nBcc: victim@example.net", "text/plain\r\nBcc: victim@example.net", b"z"),
        Attachment('quote".txt', "multipart/mixed", b"q"),
    )
    raw = compose_reply(replace(ORDER, attachments=given_))
    well_formed(raw)
    message = parsed(raw)
    parts = list(message.iter_attachments())
    assert [part.get_payload(decode=True) for part in parts] == [one.content for one in given_]
    assert [part.get_filename() for part in parts] == [
        "a.txt",
        "A (2).txt",
        "passwd",
        "字" * 48 + ".png",
        "mail.eml",
        "x Bcc_ victim@example.net",
        "quote_.txt",
    ]
    assert [part.get_content_type() for part in parts] == [
        "text/plain",
        "text/plain",
        "application/x-thing",
        "image/png",
        *["application/octet-stream"] * 3,
    ]
    assert message["Bcc"] is None
    assert [one.content for one in read_mail(raw).attachments] == [one.content for one in given_]


@pytest.mark.parametrize(
    ("subject", "reply"),
    [
        ("x", "Re: x"),
        ("Re: x", "Re: x"),
        ("RE: re: AW: Antw: Sv: x", "Re: x"),
        ("Re[2]: Re(3): Re^4: x", "Re: x"),
        ("Re : x", "Re: x"),
        ("回复：x", "Re: x"),
        ("Ответ: x", "Re: x"),
        ("R: R: preventivo", "Re: preventivo"),
        ("RIF: r: x", "Re: x"),
        ("SV: VS: Odp: YNT: RES: Vá: Odg: x", "Re: x"),
        ("Re-2: RE2: Re*3: x", "Re: x"),
        ("Trả lời: x", "Re: x"),
        ("ΑΠ: x", "Re: x"),
        ("תשובה: x", "Re: x"),
        ("رد: x", "Re: x"),
        ("답장: 返信: 回覆: x", "Re: x"),
        ("I: x", "Re: I: x"),
        ("R is a language: why", "Re: R is a language: why"),
        ("Reset: how", "Re: Reset: how"),
        ("Fwd: x", "Re: Fwd: x"),
        ("AW: WG: Re: Fwd: x", "Re: WG: x"),
        ("", "Re: (no subject)"),
        ("Re:", "Re: (no subject)"),
        ("Regarding: x", "Re: Regarding: x"),
        ("x Re: y", "Re: x Re: y"),
        ("Re: " * 40 + "x", "Re: x"),
    ],
)
def test_re_once(subject: str, reply: str) -> None:
    assert reply_subject(subject) == reply
    assert reply_subject(reply) == reply


class TestQuotation:
    def test_is_at_most_ten_lines(self) -> None:
        order = replace(ORDER, mail=replace(MAIL, text="\n".join(f"line {n}" for n in range(50))))
        quoted = [line for line in plain_of(parsed(compose_reply(order))).split("\n") if line.startswith(">")]
        assert quoted == [*(f"> line {n}" for n in range(9)), "> line 9 [...]"]

    def test_is_left_out_where_there_is_nothing_to_quote(self) -> None:
        order = replace(ORDER, mail=replace(MAIL, text="> only\n> quotes\n"))
        assert "wrote:" not in plain_of(parsed(compose_reply(order)))


class TestHtml:
    @pytest.mark.parametrize(
        "markdown",
        [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[x](javascript:alert(1))",
            "![x](http://t.example/x.png)",
            "[x](data:text/html;base64,AAAA)",
            "<javascript:alert(1)>",
            "[x](vbscript:x)",
            "![x](data:image/png;base64,AAAA)",
            "[x](JaVaScRiPt:alert(1))",
            "[x]: javascript:alert(1)\n\n[x]",
            "`<b>`",
            "[x](http://a \"onmouseover='x'\")",
            "[x](./out/x.pdf)",
            "&lt;script&gt;",
            "<!-- x -->",
            "<div>\n\n# x\n\n</div>",
            "[x](&#106;avascript:alert(1))",
            "[x](\tjavascript:alert(1))",
        ],
    )
    def test_nothing_runs_and_nothing_is_fetched(self, markdown: str) -> None:
        html = markdown_html(markdown)
        tags = set(re.findall(r"<([a-z0-9]+)", html))
        assert tags <= {"p", "a", "h1", "code", "br"}
        assert all(
            link.startswith(("http://", "https://", "mailto:")) for link in re.findall(r'(?:href|src)="([^"]*)', html)
        )
        without_values = re.sub(r'"[^"]*"', '""', html)
        assert not re.search(r"<[^>]*\bon[a-z]+=", without_values)

    def test_markdown(self) -> None:
        html = markdown_html(
            "# T\n\n- a\n- b\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n[l](https://a.b) ~~no~~\n\n```\ncode\n```"
        )
        for piece in (
            "<h1>T</h1>",
            "<li>a</li>",
            "<td>2</td>",
            '<a href="https://a.b">l</a>',
            "<s>no</s>",
            "<code>code",
        ):
            assert piece in html

    @pytest.mark.parametrize(
        "text", ["[" * 60_000, "*a " * 20_000, "[a](" * 15_000, "`" * 60_000, "> " * 30_000, "x" * 400_000]
    )
    def test_markdown_made_to_hurt_takes_moments(self, text: str) -> None:
        with at_most(1000):
            compose_reply(replace(ORDER, text=text))


class TestRefusals:
    def test_nobody_to_answer(self) -> None:
        with pytest.raises(ReplyRefused, match="nobody to go to"):
            compose_reply(replace(ORDER, mail=replace(MAIL, from_address="")))

    def test_a_reply_to_is_not_followed_by_itself(self) -> None:
        mail = replace(MAIL, reply_to=("thief@bad.example",))
        assert b"thief" not in compose_reply(replace(ORDER, mail=mail))

    @pytest.mark.parametrize("message_id", ["", "x", "<a b>", "<a>\r\nBcc: x@y.z", "<é@x>"])
    def test_no_message_id(self, message_id: str) -> None:
        with pytest.raises(ReplyRefused, match="Message-ID"):
            compose_reply(replace(ORDER, message_id=message_id))

    def test_an_agents_address_that_is_none(self) -> None:
        with pytest.raises(ReplyRefused, match="From header"):
            compose_reply(replace(ORDER, agent_address="ada@t.org\r\nBcc: x@y.z"))


def test_bad_news_is_plain_and_is_the_turns_one_mail() -> None:
    order = replace(ORDER, text="partial", attachments=(Attachment("a", "b/c", b""),))
    message = parsed(failure_reply(order, Failure(FailureId.MACHINE_UNREACHABLE, {"minutes": "10\r\nBcc: x@y.z"})))
    assert message["Message-ID"] == ORDER.message_id
    text = plain_of(message)
    assert "I could not answer this mail" in text
    assert f"{ORDER.agent_name} could not be reached for 10 Bcc: x@y.z min: its machine does not answer." in text
    assert "partial" not in text
    assert message["Bcc"] is None
    assert not list(message.iter_attachments())


def test_silence_is_told_as_no_failure() -> None:
    text = plain_of(parsed(failure_reply(ORDER, Failure(FailureId.SILENT))))
    assert "has read your mail and decided that it needs no answer" in text and "could not" not in text


TEXT = st.text(st.one_of(st.sampled_from('\r\n\v\x00\x85\u2028.:<>"\\=?_ ,;@-`*#[](!'), st.characters()), max_size=200)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_subjects_of_all_scripts_come_back(name: str) -> None:
    raw = compose_reply(replace(ORDER, agent_name=name, mail=replace(MAIL, subject=name, from_name=name)))
    well_formed(raw)
    message = parsed(raw)
    assert message["From"].addresses[0].addr_spec == "ada+work@tinyfat.localhost"
    # Not its display_name: that policy keeps the blanks between encoded words, which RFC 2047 6.2 drops.
    display, _ = parseaddr(str(email.message_from_bytes(raw)["From"]))
    assert str(make_header(decode_header(display))) == name.strip()
    assert message["Subject"] == reply_subject(name)
    ours = read_mail(raw)
    assert (ours.from_name, ours.to[0].name, ours.subject) == (name.strip(), name.strip(), reply_subject(name))
    peer: Any = mailparser.parse_from_bytes(raw)
    # It does not unfold, and composes characters.
    assert re.sub(r"\r\n ", " ", peer.subject) == unicodedata.normalize("NFC", reply_subject(name))


@given(TEXT, TEXT, TEXT, TEXT)
@example("ada", "TEXT/WATCH-HTML", "a file of that type", "watch.html")
def test_whatever_is_written_nothing_is_added(name: str, subject: str, text: str, filename: str) -> None:
    order = replace(
        ORDER,
        agent_name=name,
        mail=replace(MAIL, subject=subject, from_name=name, date=subject, text=clean_text(text)),
        text=text,
        attachments=(Attachment(filename, subject, text.encode("utf-8", "replace")),),
    )
    raw = compose_reply(order)
    well_formed(raw)
    message = email.message_from_bytes(raw)
    assert list(message.keys()) == list(email.message_from_bytes(compose_reply(ORDER)).keys())
    assert [part.get_content_type() for part in message.walk()][:4] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    assert len(list(message.walk())) == 5
    ours = read_mail(raw)
    assert ours.from_address == "ada+work@tinyfat.localhost"
    assert ours.subject == reply_subject(subject)
    assert ours.from_name == one_line(name, 200)
    assert clean_text(text).strip() in ours.text
    assert [one.content for one in ours.attachments] == [text.encode("utf-8", "replace")]


def answered(mail: Mail, number: int) -> Mail:
    return read_mail(
        compose_reply(
            replace(ORDER, mail=mail, message_id=f"<turn.{number}@t.org>", at=datetime(2026, 11, 3, tzinfo=UTC))
        )
    )


def test_a_thread_of_300_keeps_its_first_id_and_one_re() -> None:
    mail = MAIL
    for number in range(300):
        mail = replace(answered(mail, number), from_address="maria@example.org")
    assert mail.subject == "Re: Grüße"
    assert (mail.references[0], mail.references[-1], len(mail.references)) == ("<first@x>", "<turn.298@t.org>", 200)


class TestDkimSigner:
    async def test_signs_without_touching_the_message(self) -> None:
        raw = compose_reply(ORDER)
        signed = await DkimSigner(rsa_key(1).private_pem, "s1", "tinyfat.localhost").signed(raw)
        assert signed.endswith(raw)
        head = signed.removesuffix(raw)
        assert head.startswith(b"DKIM-Signature: ")
        assert b"d=tinyfat.localhost" in head
        assert b"s=s1" in head
        well_formed(signed)
        assert parsed(signed)["Subject"] == "Re: Grüße"

    @pytest.mark.parametrize(
        "key", [b"", b"x", b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"]
    )
    def test_no_key(self, key: bytes) -> None:
        with pytest.raises(DkimKeyRefused, match="openssl genrsa"):
            DkimSigner(key, "s1", "t.org")

    def test_a_weak_key(self) -> None:
        with pytest.raises(DkimKeyRefused, match="1024 bits"):
            DkimSigner(rsa_key(3, bits=768).private_pem, "s1", "t.org")
