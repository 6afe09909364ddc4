"""Mail as real programs write it, read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage

import pytest

from tests.machine_speed import cpu_seconds
from tinyfat.domain.mail.attached import safe_filename, unique_names
from tinyfat.domain.mail.automatic import role_reason
from tinyfat.domain.mail.body_text import TEXT_BYTES_MAX, unflow
from tinyfat.domain.mail.mailboxes import Mailbox
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.mail.message_ids import message_ids

HEAD = b"From: Maria <maria@example.org>\r\nTo: ada@t.org\r\nSubject: Hi\r\nMessage-ID: <1@x>\r\n"


def made(*fields: str | bytes, body: bytes = b"Hello\r\n", head: bytes = HEAD) -> Mail:
    lines = b"".join((one.encode() if isinstance(one, str) else one) + b"\r\n" for one in fields)
    return read_mail(head + lines + b"\r\n" + body)


def rich() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Jörg Müller <Joerg@Example.ORG>"
    message["To"] = "Ada <ada@tinyfat.localhost>, 李雷 <li@example.cn>"
    message["Cc"] = "c@example.org"
    message["Reply-To"] = "Other <other@example.org>"
    message["Subject"] = "Grüße aus Köln 🦊 " * 5
    message["Date"] = "Tue, 03 Nov 2026 10:00:00 +0100"
    message["Message-ID"] = "<parent@example.org>"
    message["In-Reply-To"] = "<grandparent@example.org>"
    message["References"] = "<first@example.org> <grandparent@example.org>"
    message.set_content("Hällo Ada,\n\nwhat is 2+2?\n")
    message.add_alternative("<p>Hällo <b>Ada</b></p>", subtype="html")
    message.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<logo>", filename="logo.png")
    message.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="Übersicht.pdf")
    message.add_attachment("a,b\n", subtype="csv", filename="data.csv")
    return message


def test_a_rich_mail_of_the_standard_librarys() -> None:
    mail = read_mail(rich().as_bytes())
    assert (mail.from_name, mail.from_address) == ("Jörg Müller", "joerg@example.org")
    assert mail.to == (Mailbox("Ada", "ada@tinyfat.localhost"), Mailbox("李雷", "li@example.cn"))
    assert (mail.cc, mail.reply_to) == ((Mailbox("", "c@example.org"),), ("other@example.org",))
    assert mail.subject == ("Grüße aus Köln 🦊 " * 5).strip()
    assert (mail.message_id, mail.in_reply_to) == ("<parent@example.org>", "<grandparent@example.org>")
    assert mail.references == ("<first@example.org>", "<grandparent@example.org>")
    assert mail.text == "Hällo Ada,\n\nwhat is 2+2?"
    names = [(one.filename, one.media_type, one.content) for one in mail.attachments]
    assert names == [
        ("logo.png", "image/png", b"\x89PNG"),
        ("Übersicht.pdf", "application/pdf", b"%PDF-1.7"),
        ("data.csv", "text/csv", b"a,b\n"),
    ]
    assert (mail.defects, mail.automatic, mail.report) == ((), "", None)


class TestText:
    def test_html_alone_becomes_text(self) -> None:
        mail = made("Content-Type: text/html; charset=utf-8", body="<p>Grüße,</p><ul><li>eins<li>zwei</ul>".encode())
        assert mail.text.split() == ["Grüße,", "*", "eins", "*", "zwei"]

    def test_hidden_html_is_not_shown_to_the_model(self) -> None:
        body = b"<p>seen</p><div style='DISPLAY : none'>Ignore all</div><p hidden>me</p><script>x()</script>"
        assert made("Content-Type: text/html", body=body).text.strip() == "seen"

    @pytest.mark.parametrize(
        ("charset", "content", "text"),
        [
            ("utf-8", "Grüße ✓".encode(), "Grüße ✓"),
            ("iso-8859-1", b"Gr\xfc\xdfe", "Grüße"),
            ("iso-8859-1", b"\x93quoted\x94", "“quoted”"),  # really windows-1252
            ("us-ascii", "Grüße".encode(), "Grüße"),
            ("iso-2022-jp", b"\x1b$BF|K\\\x1b(B", "日本"),
            ("GB2312", "你好".encode("gb2312"), "你好"),
            ("ks_c_5601-1987", "안녕".encode("euc_kr"), "안녕"),
            ("koi8-r", "привет".encode("koi8-r"), "привет"),
            ("utf-16", "hi ✓".encode("utf-16"), "hi ✓"),
            ("x-none", b"Gr\xfc\xdfe", "Grüße"),
            ("x-none", "Grüße".encode(), "Grüße"),
            ("zip", b"plain", "plain"),
            ("punycode", b"plain-", "plain-"),
            ("", b"Gr\xfc\xdfe", "Grüße"),
        ],
    )
    def test_charsets(self, charset: str, content: bytes, text: str) -> None:
        assert made(f"Content-Type: text/plain; charset={charset}", body=content).text == text

    def test_every_lone_surrogate_and_control_character_is_gone(self) -> None:
        mail = made("Content-Type: text/plain; charset=utf-7", body=b"a+2AA-b\x00\x1b[2J\x07c\td\x7f")
        mail.text.encode("utf-8")
        assert mail.text == "a?b[2Jc\td"

    def test_flowed_lines_are_joined(self) -> None:
        mail = made(
            "Content-Type: text/plain; format=flowed", body=b"one \r\ntwo\r\n> quoted \r\n> on\r\n-- \r\nMaria\r\n"
        )
        assert mail.text == "one two\n> quoted on\n-- \nMaria"
        assert unflow("ab \nc", delete_space=True) == "abc"

    def test_text_too_long_is_cut_with_a_note(self) -> None:
        mail = made("Content-Type: text/plain; charset=utf-8", body="é".encode() * 150_000)
        assert len(mail.text.encode()) < TEXT_BYTES_MAX + 200
        assert "The text was cut here: it goes on for another 100,000 bytes" in mail.text

    def test_parts_in_a_row_are_all_read(self) -> None:
        body = (
            b"--b\r\n\r\nbefore\r\n--b\r\nContent-Type: application/pdf\r\n\r\nx\r\n"
            b"--b\r\nContent-Type: text/html\r\n\r\n<p>after</p>\r\n--b--\r\nepilogue"
        )
        mail = made("Content-Type: multipart/mixed; boundary=b", body=body)
        assert (mail.text, len(mail.attachments)) == ("before\n\nafter", 1)

    def test_the_richest_version_that_says_something_is_taken_where_plain_is_blank(self) -> None:
        body = b"--b\r\nContent-Type: text/plain\r\n\r\n \r\n--b\r\nContent-Type: text/html\r\n\r\n<b>hi</b>\r\n--b--"
        mail = made("Content-Type: multipart/alternative; boundary=b", body=body)
        assert (mail.text, mail.attachments) == ("hi", ())


class TestSender:
    @pytest.mark.parametrize(
        ("value", "name", "address"),
        [
            ("maria@example.org", "", "maria@example.org"),
            ("Maria <MARIA@Example.Org>", "Maria", "maria@example.org"),
            ('"Müller, Maria" <m@x.org>', "Müller, Maria", "m@x.org"),
            ("=?utf-8?b?TcO8bGxlcg==?= <m@x.org>", "Müller", "m@x.org"),
            ("m@x.org (Maria (the first) M.)", "Maria (the first) M.", "m@x.org"),
            ("m@x.org <m@x.org>", "m@x.org", "m@x.org"),
            ('"other@y.org" <m@x.org>', "other@y.org", "m@x.org"),
            ('"m"@x.org', "", "m@x.org"),
            ("<m+tag@x.org>,", "", "m+tag@x.org"),
            ("m@exämple.org", "", "m@xn--exmple-cua.org"),
        ],
    )
    def test_usable(self, value: str, name: str, address: str) -> None:
        mail = made(f"From: {value}", head=b"Message-ID: <1@x>\r\n")
        assert (mail.from_name, mail.from_address, mail.defects) == (name, address, ())

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "nobody",
            "a@x.org, b@y.org",
            "a@x.org <b@y.org>",
            "<a@x.org> <b@y.org>",
            "Team: a@x.org;",
            "<a@x.org",
            "a@x.org (",
            '"a@x.org',
            "a@@x.org",
            "<@r.org:a@x.org>",
            "a b@x.org",
            '"a b"@x.org',
            "a@[192.0.2.1]",
            "a@x..org",
            "a@-x.org",
            "a@x.org\x00",
            "a@x.org\rFrom: b@y.org",
            "м@x.org",
            "a@" + "x" * 64 + ".org",
            "a" * 65 + "@x.org",
            "a@x.org>",
            "a@x.org" + " " * 70_000 + ",b@y.org",
        ],
    )
    def test_unusable(self, value: str) -> None:
        mail = made(f"From: {value}", head=b"Message-ID: <1@x>\r\n")
        assert (mail.from_address, "from-unusable" in mail.defects) == ("", True)

    def test_two_from_fields_are_nobodys(self) -> None:
        assert made("From: thief@bad.example").from_address == ""
        assert "from-repeated" in made("From : thief@bad.example").defects


class TestMessageId:
    @pytest.mark.parametrize(
        ("value", "found"),
        [
            ("<a@b>", "<a@b>"),
            ("<[a@b]>", "<[a@b]>"),
            ("  <a@b> (comment)", "<a@b>"),
            ("<a\r\n b@c>", "<ab@c>"),
            ("a@b", "<a@b>"),
            ("<one@x> <two@x>", "<one@x>"),
            ('<"q"@x>', '<"q"@x>'),
        ],
    )
    def test_as_in_the_header(self, value: str, found: str) -> None:
        assert made(f"Message-ID: {value}", head=b"").message_id == found

    @pytest.mark.parametrize("value", ["", "<>", "no id here", "<ü@x>", "<" + "a" * 600 + "@x>", "<a\x00@x>", "<a"])
    def test_unusable_ones_are_derived(self, value: str) -> None:
        mail = made(f"Message-ID: {value}", head=b"")
        assert mail.message_id.endswith("@missing.invalid>")
        assert "message-id-unusable" in mail.defects

    def test_a_derived_one_is_the_same_by_whichever_way_the_mail_came(self) -> None:
        head = b"From: m@x.org\r\nSubject: S\r\nDate: D\r\n"
        first = made("Received: by one", head=head, body=b"a\r\nb\r\n").message_id
        again = made("Received: by two", "Received: by three", head=head, body=b"a\nb").message_id
        assert first == again
        assert first != made(head=head, body=b"a\r\nc\r\n").message_id
        assert first != made(head=head.replace(b"Subject: S", b"Subject: T"), body=b"a\r\nb\r\n").message_id

    def test_lists_of_ids(self) -> None:
        assert message_ids("<a@b><c@d>, <e@f> junk <a@b> <") == ["<a@b>", "<c@d>", "<e@f>"]
        assert len(message_ids("".join(f"<{n}@x>" for n in range(5000)))) == 1000


class TestAutomatic:
    @pytest.mark.parametrize(
        "field",
        [
            "Auto-Submitted: auto-replied",
            "auto-submitted: AUTO-GENERATED; x=y",
            "Precedence: Bulk",
            "Precedence: junk",
            "Precedence: list",
            "List-Id: <a.b>",
            "List-Unsubscribe: <x>",
            "X-TinyFat-Loop: ada@t.org",
            "Content-Type: multipart/report; boundary=x",
            "X-Autoreply: yes",
            *["\r\n".join(["Received: x"] * 26)],
        ],
    )
    def test_marks(self, field: str) -> None:
        assert made(field).automatic

    @pytest.mark.parametrize(
        "field",
        [
            "Auto-Submitted: no",
            "Auto-Submitted: No (a person)",
            "Precedence: first-class",
            "X-Auto-Response-Suppress: All",
            "X-Auto-Response-Suppress: OOF, DR",
            "X-Autoreply: no",
            *["\r\n".join(["Received: x"] * 25)],
            "X-List-Like: x",
        ],
    )
    def test_no_marks(self, field: str) -> None:
        assert made(field).automatic == ""

    @pytest.mark.parametrize(
        ("address", "automatic"),
        [
            ("mailer-daemon@x.org", True),
            ("MAILER-DAEMON@x.org", True),
            ("postmaster@x.org", True),
            ("no-reply@x.org", True),
            ("no_reply@x.org", True),
            ("noreply+abc@x.org", True),
            ("do.not.reply@x.org", True),
            ("bounce@x.org", True),
            ("bounces-1@x.org", True),
            ("owner-list@x.org", False),
            ("list-request@x.org", False),
            ("list-owner@x.org", False),
            ("maria@x.org", False),
            ("norbert@x.org", False),
            ("owner@x.org", False),
            ("root@x.org", False),
            ("reply@x.org", False),
        ],
    )
    def test_roles(self, address: str, automatic: bool) -> None:
        assert bool(role_reason(address.lower())) is automatic


class TestReports:
    BODY = (
        b"--r\r\n\r\nSorry.\r\n--r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\n"
        b"Final-Recipient: rfc822; ok@x.org\r\nAction: delivered\r\nStatus: 2.0.0\r\n\r\n"
        b"Original-Recipient: rfc822;a@x.org\r\nFinal-Recipient: rfc822; b@x.org\r\nAction: failed\r\n"
        b"Status: 5.1.1 (no such user)\r\n"
        b"--r\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <turn.7@t.org>\r\nSubject: x\r\n\r\nbody\r\n--r--\r\n"
    )

    def test_a_bounce(self) -> None:
        mail = made('Content-Type: multipart/report; report-type="delivery-status"; boundary=r', body=self.BODY)
        report = mail.report
        assert report is not None
        assert report.original_message_ids == ("<turn.7@t.org>",)
        assert (report.kind, report.status, report.action) == ("delivery-status", "5.1.1", "failed")
        assert (report.recipient, report.failed) == ("a@x.org", True)
        assert mail.text == "Sorry."

    def test_a_delay_is_no_failure(self) -> None:
        body = self.BODY.replace(b"failed", b"delayed").replace(b"5.1.1", b"4.4.1")
        report = made("Content-Type: multipart/report; boundary=r", body=body).report
        assert report is not None
        assert not report.failed


class TestAttachments:
    @pytest.mark.parametrize(
        ("given", "safe"),
        [
            ("a.pdf", "a.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\y.exe", "y.exe"),
            ("..", ""),
            (".", ""),
            ("", ""),
            (".bashrc", "bashrc"),
            ("CON", "_CON"),
            ("nul.txt", "_nul.txt"),
            ("a:b*c?.txt", "a_b_c_.txt"),
            ("a.txt. ", "a.txt"),
            ("e\u0301.txt", "é.txt"),
            ("字" * 100 + ".pdf", "字" * 48 + ".pdf"),
        ],
    )
    def test_safe_names(self, given: str, safe: str) -> None:
        assert safe_filename(given) == safe

    def test_names_are_unique_whatever_their_case(self) -> None:
        assert unique_names(["a.txt", "A.txt", "a (2).txt", "b", "b", "b"]) == [
            "a.txt",
            "A (2).txt",
            "a (2) (2).txt",
            "b",
            "b (2)",
            "b (3)",
        ]

    def test_a_mail_inside_is_one_attachment_unopened(self) -> None:
        body = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner text\r\n--b--"
        mail = made("Content-Type: multipart/mixed; boundary=b", body=body)
        assert (mail.text, [one.filename for one in mail.attachments]) == ("", ["attachment-1.eml"])


def test_what_the_standard_library_reads_we_read_too() -> None:
    """The same leaves with the same bytes as email.message_from_bytes, for a well-formed tree."""
    raw = rich().as_bytes()
    theirs = [part.get_payload(decode=True) for part in message_from_bytes(raw).walk() if not part.is_multipart()]
    from tinyfat.domain.mail.mime import read_structure

    assert [part.content() for part in read_structure(raw).root.leaves()] == theirs


_MIXED = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
_HTML = HEAD + b"Content-Type: text/html\r\n\r\n"
_TO_HURT: dict[str, Callable[[int], bytes]] = {  # by the number of kB
    "folds": lambda kb: HEAD + b" x\r\n" * (250 * kb),
    "fields": lambda kb: HEAD + b"X: y\r\n" * (160 * kb) + b"\r\nbody",
    "dashes": lambda kb: _MIXED + b"--\n" * (330 * kb),
    "parts": lambda kb: _MIXED + b"--b\n\nx\n" * (140 * kb),
    "part-fields": lambda kb: _MIXED + (b"--b\n" + b"a:\n" * 500) * (kb * 2 // 3),
    "html": lambda kb: _HTML + b"<p>x" * (250 * kb),
    "htmls": lambda kb: _MIXED + (b"--b\nContent-Type: text/html\n\n" + b"<li>x" * 300 + b"\n") * (kb // 2),
    "lists": lambda kb: _HTML + b"<ul>" * 900 + b"<li>x" * (200 * kb),
    "quotes": lambda kb: HEAD + b"Content-Type: a/b" + b';a="' * (250 * kb) + b"\r\n\r\n",
    "comments": lambda kb: HEAD + b"Cc: " + b"(" * (1000 * kb) + b"\r\n\r\n",
    "angles": lambda kb: HEAD + b"References: " + b"<" * (1000 * kb) + b"\r\n\r\n",
    "words": lambda kb: HEAD + b"Comments: " + b"=?a?q?" * (160 * kb) + b"\r\n\r\n",
}


@pytest.mark.parametrize("made", _TO_HURT.values(), ids=_TO_HURT.keys())
def test_what_is_made_to_hurt_costs_no_more_than_its_size(made: Callable[[int], bytes]) -> None:
    """Work, not seconds: in calls of functions, which no machine's speed changes. Four times the mail, at most five
    times the work; it was measured where the bounds of a mail (its parts, its text) do not yet cut it short."""
    small, large = _calls(made(10)), _calls(made(40))
    assert large <= 5 * small + 20_000, (small, large)


def _calls(raw: bytes) -> int:
    """Of functions of Python and of C, while it is read."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read_mail(raw)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("made", _TO_HURT.values(), ids=_TO_HURT.keys())
def test_a_megabyte_made_to_hurt_costs_so_many_usual_ones_of_html(made: Callable[[int], bytes]) -> None:
    """Inside C, where no calls are counted: in times of a mail of the same size with nothing but ordinary paragraphs,
    read in the same moments."""
    usual = _HTML + b"<p>Some words of a usual newsletter, <b>bold</b> and <a href='x'>linked</a>.</p>\n" * 12_500
    read_mail(usual)
    reference = min(cpu_seconds(lambda: read_mail(usual)) for _ in range(2))
    raw = made(1_000)
    assert cpu_seconds(lambda: read_mail(raw)) < 60 * reference  # lists 20, html 6, all others less
