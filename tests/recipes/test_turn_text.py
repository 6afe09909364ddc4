from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.mail.mailboxes import Mailbox
from tinyfat.domain.mail.message import read_mail
from tinyfat.domain.turns import Attachment
from tinyfat.recipes.turn_text import size_words, turn_text

MAIL = read_mail(
    b"From: Maria <maria@example.org>\r\nTo: ada@t.org\r\nSubject: Hi\r\nDate: Tue, 3 Nov 2026\r\n\r\nHello\n\n> old\n"
)


def test_as_the_model_reads_it() -> None:
    attachments = (Attachment("a.pdf", "application/pdf", b"x" * 12_345), Attachment("b.txt", "text/plain", b"x"))
    assert turn_text(replace(MAIL, attachments=attachments), "ada@t.org") == (
        "From: Maria <maria@example.org>\n"
        "To: ada@t.org\n"
        "Subject: Hi\n"
        "Date: Tue, 3 Nov 2026\n"
        "Attachments: a.pdf (application/pdf, 12 kB), b.txt (text/plain, 1 bytes)\n"
        "\n"
        "Hello\n\n> old"
    )


def test_what_is_missing_is_said() -> None:
    assert turn_text(read_mail(b""), "ada@t.org") == "From: (unknown)\nTo: ada@t.org\nSubject:\nDate:\n\n"


def test_long_lists_are_cut() -> None:
    people = tuple(Mailbox("", f"p{n}@x.org") for n in range(100))
    files = tuple(Attachment(f"{n}.txt", "text/plain", b"") for n in range(100))
    shown = turn_text(replace(MAIL, to=people, attachments=files), "ada@t.org")
    assert "p19@x.org and 80 more\n" in shown
    assert "49.txt (text/plain, 0 bytes) and 50 more\n" in shown


def test_sizes() -> None:
    assert [size_words(n) for n in (0, 999, 1_000, 999_499, 999_500, 12_345_678)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "999 kB",
        "1.0 MB",
        "12.3 MB",
    ]


HOSTILE = st.text(
    st.one_of(st.sampled_from("\r\n\v\f\x00\x1c\x1e\x85\u2028\u2029\u202e<>:,"), st.characters()), max_size=50
)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_value_can_add_a_line(name: str, address: str, subject: str, date: str, filename: str) -> None:
    mail = replace(
        MAIL,
        from_name=name,
        from_address=address,
        subject=subject,
        date=date,
        to=(Mailbox(name, address),),
        attachments=(Attachment(filename, subject, b""),),
    )
    head, _, body = turn_text(mail, "ada@t.org").partition("\n\n")
    assert [line.partition(":")[0] for line in head.splitlines()] == ["From", "To", "Subject", "Date", "Attachments"]
    assert body == MAIL.text


@given(HOSTILE)
def test_a_name_cannot_pass_for_an_address(name: str) -> None:
    line = turn_text(replace(MAIL, from_name=name), "ada@t.org").split("\n")[0]
    assert line.removeprefix("From: ").endswith("<maria@example.org>" if "<" in line else "maria@example.org")
    assert line.count("<") <= 1
