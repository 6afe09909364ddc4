from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tinyfat.domain.mail.judgement import OWN_AGENT_TURNS_MAX, Facts, RateCaps, judge
from tinyfat.domain.mail.message import read_mail
from tinyfat.domain.mail.states import MessageState

MAIL = read_mail(b"From: maria@example.org\r\nMessage-ID: <1@x>\r\n\r\nhi")
FACTS = Facts(
    null_return_path=False,
    proved=True,
    allowed=True,
    from_own_agent=False,
    is_bounce=False,
    turns_in_thread=0,
    turns_of_sender=0,
)
CAPS = RateCaps(turns_in_thread_max=5, turns_of_sender_max=10)


def state(automatic: str = "", from_address: str = "maria@example.org", **facts: Any) -> MessageState:
    mail = replace(MAIL, automatic=automatic, from_address=from_address)
    judgement = judge(mail, replace(FACTS, **facts), CAPS)
    assert (judgement.reason == "") == (judgement.state is MessageState.QUEUED)
    return judgement.state


def test_an_owners_mail_is_queued() -> None:
    assert state() is MessageState.QUEUED


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        (MessageState.QUARANTINED, {"proved": False}),
        (MessageState.QUARANTINED, {"allowed": False}),
        (MessageState.QUARANTINED, {"from_address": ""}),
        (MessageState.IGNORED, {"automatic": "Precedence: bulk"}),
        (MessageState.IGNORED, {"null_return_path": True}),
        (MessageState.IGNORED, {"from_itself": True}),
        (MessageState.HELD, {"turns_in_thread": 5}),
        (MessageState.HELD, {"turns_of_sender": 10}),
        (MessageState.QUEUED, {"turns_in_thread": 4, "turns_of_sender": 9}),
        (MessageState.BOUNCE, {"is_bounce": True}),
        # Which rule comes first.
        (MessageState.BOUNCE, {"is_bounce": True, "null_return_path": True, "automatic": "x", "proved": False}),
        (MessageState.IGNORED, {"automatic": "x", "proved": False, "allowed": False}),
        (MessageState.IGNORED, {"from_itself": True, "proved": False}),
        (MessageState.QUARANTINED, {"allowed": False, "turns_in_thread": 99}),
        (MessageState.QUARANTINED, {"proved": False, "from_own_agent": True, "turns_of_sender": 99}),
        (MessageState.IGNORED, {"from_own_agent": True, "turns_of_sender": 99, "turns_in_thread": 99}),
    ],
)
def test_rules(expected: MessageState, facts: dict[str, Any]) -> None:
    assert state(**facts) is expected


def test_two_agents_without_marks_stop_within_three_exchanges() -> None:
    answered = {"ada": 0, "bob": 0}
    writer, reader, mails = "ada", "bob", 0
    while state(from_own_agent=True, turns_of_sender=answered[reader]) is MessageState.QUEUED:
        answered[reader] += 1
        mails += 1
        writer, reader = reader, writer
        assert mails < 100
    assert answered == {"ada": OWN_AGENT_TURNS_MAX, "bob": OWN_AGENT_TURNS_MAX} == {"ada": 3, "bob": 3}
