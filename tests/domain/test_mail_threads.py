from __future__ import annotations

from dataclasses import replace

import pytest

from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.mail.message_ids import message_ids
from tinyfat.domain.mail.threads import (
    REFERENCES_CHARS_MAX,
    REFERENCES_MAX,
    in_reply_to_for_reply,
    references_for_reply,
    reply_message_id,
    session_key,
    thread_candidates,
)


def mail(in_reply_to: str = "", references: tuple[str, ...] = ()) -> Mail:
    return replace(
        read_mail(b"From: a@b.c\r\nMessage-ID: <me@x>\r\n\r\n"), in_reply_to=in_reply_to, references=references
    )


def test_the_replys_id_is_always_the_same_and_always_an_id() -> None:
    assert reply_message_id("0a1b-2c", "t.org") == reply_message_id("0a1b-2c", "t.org") == "<turn.0a1b-2c@t.org>"
    for odd in ("", "a b", "<x>", "ü", "a" * 100, "a\r\nb"):
        made = reply_message_id(odd, "t.org")
        assert message_ids(made) == [made]
    assert reply_message_id("a b", "t.org") != reply_message_id("a c", "t.org")


def test_references_are_the_parents_and_the_parent() -> None:
    assert references_for_reply(mail()) == ("<me@x>",)
    assert references_for_reply(mail("<p@x>")) == ("<p@x>", "<me@x>")
    assert references_for_reply(mail("<p@x>", ("<r@x>", "<p@x>"))) == ("<r@x>", "<p@x>", "<me@x>")
    assert references_for_reply(mail("", ("<r@x>", "<me@x>"))) == ("<r@x>", "<me@x>")


def test_long_chains_keep_their_first_and_their_newest() -> None:
    many = tuple(f"<{n}@x>" for n in range(900))
    made = references_for_reply(mail("", many))
    assert len(made) == REFERENCES_MAX
    assert (made[0], made[-1], made[-2]) == ("<0@x>", "<me@x>", "<899@x>")
    long = tuple(f"<{n}{'a' * 500}@x>" for n in range(100))
    made = references_for_reply(mail("", long))
    assert (made[0], made[-1]) == (long[0], "<me@x>")
    assert sum(map(len, made)) <= REFERENCES_CHARS_MAX


def test_an_id_we_made_up_is_not_sent() -> None:
    without = read_mail(b"From: a@b.c\r\nReferences: <r@x>\r\n\r\nhi")
    assert references_for_reply(without) == ("<r@x>",)
    assert in_reply_to_for_reply(without) == ""
    assert in_reply_to_for_reply(mail()) == "<me@x>"


def test_candidates_are_the_parent_first_then_the_nearest() -> None:
    assert thread_candidates(mail("<p@x>", ("<1@x>", "<2@x>", "<p@x>"))) == ("<p@x>", "<2@x>", "<1@x>")
    assert thread_candidates(mail()) == ()


def test_sessions() -> None:
    assert session_key("42") == "email:42"


OURS = "<turn.00000000-0000-4000-8000-000000000001@t.org>"


@pytest.mark.parametrize(
    "fields",
    [
        "In-Reply-To: =?utf-8?q?=3Cturn=2E00000000-0000-4000-8000-000000000001=40t=2Eorg=3E?=",
        "References: =?ascii?Q?=3Cturn=2E00000000-0000-4000?=\r\n =?ascii?Q?-8000-000000000001=40t=2Eorg=3E?=",
        f"In-Reply-To: <x@y>\r\nIn-Reply-To: {OURS}",
        f"References: <x@y>\r\nReferences: {OURS}",
        f"In-Reply-To: <x@y> {OURS}",
        f"In-Reply-To: Your message of Monday {OURS} (about boats)",
        f"References: <a@b>;{OURS}",
    ],
)
def test_a_parent_is_found_however_it_is_written(fields: str) -> None:
    mail = read_mail(f"From: you@example.org\r\nMessage-ID: <1@x>\r\n{fields}\r\n\r\nx".encode())
    assert OURS in thread_candidates(mail)
    assert OURS in references_for_reply(mail)


def test_an_id_in_encoded_words_is_the_id() -> None:
    assert read_mail(b"Message-ID: =?utf-8?q?=3Ca=40b=3E?=\r\n\r\nx").message_id == "<a@b>"
