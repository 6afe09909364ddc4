"""Every message of the corpus, read, judged, shown to a model and answered."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes

import pytest

from tests.domain.test_mail_properties import check
from tests.machine_speed import at_most, reference_seconds
from tests.mail_corpus import RECIPIENT, SENDER, corpus
from tinyfat.domain.mail.judgement import Facts, RateCaps, judge
from tinyfat.domain.mail.message import Mail, read_mail
from tinyfat.domain.mail.states import MessageState
from tinyfat.domain.mail.threads import reply_message_id
from tinyfat.recipes.reply_mail import ReplyOrder, compose_reply
from tinyfat.recipes.turn_text import turn_text

MOMENT = 1000.0  # times the fixed work of tests/machine_speed, for one message; the slowest takes 60
FACTS = Facts(
    null_return_path=False,
    proved=True,
    allowed=True,
    from_own_agent=False,
    is_bounce=False,
    turns_in_thread=0,
    turns_of_sender=0,
)


def test_it_is_large_distinct_and_always_the_same() -> None:
    first = {mail.name: hash(mail.raw) for mail in corpus()}
    assert len(first) == sum(1 for _ in corpus()) >= 300
    assert len(set(first.values())) == len(first)
    assert first == {mail.name: hash(mail.raw) for mail in corpus()}


def test_every_message_is_read_shown_and_answered_in_moments() -> None:
    at = datetime(2026, 11, 3, tzinfo=UTC)
    states: set[MessageState] = set()
    reference = reference_seconds()
    for hostile in corpus():
        with at_most(MOMENT, reference):
            mail = read_mail(hostile.raw)
            check(mail)
            states.add(judge(mail, FACTS, RateCaps()).state)
            shown = turn_text(mail, RECIPIENT)
            order = ReplyOrder(
                mail, "Ada", RECIPIENT, reply_message_id(hostile.name, "t.org"), at, "Yes.", recipient=SENDER
            )
            reply = compose_reply(order)
        check_turn_text(mail, shown, hostile.name)
        check_reply(reply, hostile.name)
    assert states == {MessageState.QUEUED, MessageState.IGNORED, MessageState.QUARANTINED}


def check_turn_text(mail: Mail, shown: str, name: str) -> None:
    head, gap, body = shown.partition("\n\n")
    expected = ["From", "To", "Subject", "Date"] + (["Attachments"] if mail.attachments else [])
    assert [line.partition(":")[0] for line in head.split("\n")] == expected, name
    assert gap, name
    assert body == mail.text, name


def check_reply(reply: bytes, name: str) -> None:
    assert reply.isascii(), name
    assert reply.count(b"\n") == reply.count(b"\r\n") == reply.count(b"\r"), name
    assert max(map(len, reply.split(b"\r\n"))) <= 998, name
    message = message_from_bytes(reply)
    once = {
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "auto-submitted",
        "x-tinyfat-loop",
        "mime-version",
        "content-type",
    }
    fields = [field.lower() for field in message.keys()]  # noqa: SIM118  # a message is no dict: repeated keys
    assert len(fields) == len(set(fields)), name
    assert once <= set(fields) <= once | {"in-reply-to", "references", "x-auto-response-suppress"}, name
    assert message["to"].rstrip(">").endswith(SENDER), name
    assert not message.defects, name


@pytest.mark.parametrize("kind", ["smuggling", "injections", "bombs"])
def test_nothing_of_these_kinds_is_lost(kind: str) -> None:
    for hostile in corpus():
        if hostile.name.startswith(kind):
            mail = read_mail(hostile.raw)
            assert mail.text or mail.attachments, hostile.name
            if kind == "bombs":
                assert sum(len(one.content) for one in mail.attachments) <= len(hostile.raw), hostile.name
