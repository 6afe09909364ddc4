"""Small mails after public bug reports of helpdesks and mail libraries, each with how it is to be read."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tinyfat.domain.mail.automatic import role_reason
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.mail.same_content import content_digest
from tinyfat.domain.mail.threads import thread_candidates
from tinyfat.recipes.reply_mail import reply_subject

FOLDER = Path(__file__).parent / "mail_cases"


@cache
def case(name: str) -> Mail:
    return read_mail((FOLDER / f"{name}.eml").read_bytes())


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("auto-*.eml")))
def test_automatic_mail(name: str) -> None:
    assert bool(case(name).automatic) is (name != "auto-x-auto-response-suppress-all-human")


def test_an_invitations_answer_is_automatic() -> None:
    assert case("invite-response-accepted").automatic


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("role-*.eml")))
def test_roles(name: str) -> None:
    assert bool(role_reason(case(name).from_address)) is ("human" not in name)
    assert case(name).automatic == ""


TEXTS = {
    "alternative-stub-plain": "Your booking 4711 was moved to Friday at 14:30. Platform 9, seat 61.\n\n"
    "[Confirm](https://example.org/confirm?t=1)",
    "boundary-reused-attachment": "Please read the table that is attached.",
    "bom-before-headers": "What is the time?",
    "content-type-multipart-star": "What is two plus two?",
    "cte-base64-semicolon": "What is the time in Bern?",
    "cte-with-comment": "Coded question with a comment.",
    "header-bad-line-base64-body": "What is the time in Bern?",
    "html-hidden-class": "Hello, what time is it?",
    "html-images-only": "[Offer: two for one until Sunday]",
    "html-meta-charset": "Привет, как дела?",
    "iso2022jp-no-charset": "会議は三時です",
    "koi8-u": "Привіт, яка сьогодні погода? Ґрунт їжа.",
    "shiftjis-windows31j": "手順①②③ ㈱山田 髙橋 ～",
    "smime-opaque-signed": "Opaque signed question: how many moons has Mars?",
    "text-root-with-name": "What is the weather in Bern tomorrow?",
    "utf8-labelled-latin1-one-bad-byte": "Привет, как дела? \ufffd",
    "uuencode-inline": "See the file:",
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_read(name: str) -> None:
    mail = case(name)
    assert mail.text == TEXTS[name]
    assert mail.subject in ("A question", "Signed question")
    assert (mail.from_address, mail.automatic) == ("you@example.org", "")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("boundary-reused-attachment", [("table.csv", b"a,b\r\n1,2\r\n")]),
        ("content-type-multipart-star", [("a.png", b"\x89PNG\r\n\x1a\n")]),
        ("uuencode-inline", [("q.txt", b"Cat")]),
        ("smime-opaque-signed", []),
        ("text-root-with-name", []),
        ("alternative-stub-plain", []),
    ],
)
def test_no_file_is_lost(name: str, files: list[tuple[str, bytes]]) -> None:
    assert [(one.filename, one.content) for one in case(name).attachments] == files


def test_the_broken_line_is_noted() -> None:
    assert case("header-bad-line-base64-body").defects == ("headers-broken",)


def test_where_an_external_part_lies_is_said() -> None:
    mail = case("external-body")
    assert mail.text.startswith("Here is the file:")
    assert "https://example.org/big.iso" in mail.text


def test_utf8_without_a_label_is_read_though_the_text_is_cut() -> None:
    head = (FOLDER / "iso2022jp-no-charset.eml").read_bytes().partition(b"\r\n\r\n")[0]
    mail = read_mail(head + b"\r\n\r\nx" + ("Ж" * 70 + "\r\n").encode() * 6_000)
    assert len(mail.text) > 90_000
    assert set(mail.text[: mail.text.rindex("Ж")]) == set("xЖ\n")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("from-name-is-address-domain", "you@example.org via Forms"),
        ("from-trailing-dot-domain", "Pat"),
        ("from-unquoted-comma", "Smith, Pat"),
    ],
)
def test_a_from_is_read_as_it_is_meant(name: str, shown: str) -> None:
    assert (case(name).from_address, case(name).from_name) == ("you@example.org", shown)


def test_reply_prefixes_are_folded() -> None:
    assert reply_subject(case("subject-italian-reply").subject) == "Re: preventivo"


def test_a_thread_index_alone_names_no_conversation() -> None:
    mail = case("thread-index-only")
    assert (mail.in_reply_to, mail.references, thread_candidates(mail)) == ("", (), ())


def test_two_mails_of_one_id_are_told_apart() -> None:
    first, second = case("same-message-id-1"), case("same-message-id-2")
    assert first.message_id == second.message_id
    assert content_digest(first) != content_digest(second)
