"""The claims can be broken: each kind of damage done to good evidence is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.claims import DOMAIN, Evidence, judge
from tests.faults.sender import Conversation
from tests.mailbox import Received
from tests.running import OWNER, letter
from tinyfat.domain.mail.threads import reply_message_id

MAILS = ("<1@x>", "<2@x>", "<3@x>")


def reply(number: int, message_id: str = "") -> Received:
    text = f"mail {number} of talk"
    mail = letter(text, message_id=message_id or reply_message_id(f"t{number}", DOMAIN), in_reply_to=MAILS[number - 1])
    return Received(float(number), "", [OWNER], mail.as_bytes())


def rows(number: int) -> list[dict[str, Any]]:
    turn = f"t{number}"
    both = {"turn_id": turn, "thread": "h", "reason": ""}
    return [
        both | {"direction": "in", "message_id": MAILS[number - 1], "state": "answered"},
        both | {"direction": "out", "message_id": reply_message_id(turn, DOMAIN), "state": "sent"},
    ]


def ran(number: int) -> list[dict[str, Any]]:
    return [{"turn": f"t{number}", "session": "email:h", "event": event} for event in ("received", "answered")]


GOOD = Evidence(
    conversations=[Conversation("talk", "ada", list(MAILS))],
    replies=[reply(number) for number in (1, 2, 3)],
    ledger=[row for number in (1, 2, 3) for row in rows(number)],
    turns=[line for number in (1, 2, 3) for line in ran(number)],
)


def without_row(evidence: Evidence, message_id: str) -> Evidence:
    return replace(evidence, ledger=[row for row in evidence.ledger if row["message_id"] != message_id])


def in_state(evidence: Evidence, message_id: str, state: str) -> Evidence:
    return replace(
        evidence,
        ledger=[row | {"state": state} if row["message_id"] == message_id else row for row in evidence.ledger],
    )


DAMAGE: dict[str, tuple[Callable[[Evidence], Evidence], str]] = {
    "a reply is missing": (lambda e: replace(e, replies=e.replies[:2]), "LOST"),
    "a mail is missing in the ledger": (lambda e: without_row(e, MAILS[1]), "LOST"),
    "a second reply": (lambda e: replace(e, replies=[*e.replies, reply(2, "<other@x>")]), "ANSWERED TWICE"),
    "the same reply again": (lambda e: replace(e, replies=[*e.replies, e.replies[1]]), "sent again"),
    "another mail under its Message-ID": (
        lambda e: replace(e, replies=[*e.replies, replace(e.replies[1], raw=e.replies[1].raw + b"!")], repeats_max=1),
        "another mail",
    ),
    "replies change places": (lambda e: replace(e, replies=[e.replies[1], e.replies[0], e.replies[2]]), "ORDER"),
    "the runtime took another order": (lambda e: replace(e, turns=ran(2) + ran(1) + ran(3)), "ORDER"),
    "the ledger took another order": (lambda e: replace(e, ledger=rows(2) + rows(1) + rows(3)), "ORDER"),
    "a turn ran twice": (lambda e: replace(e, turns=[*e.turns, *ran(2)]), "RAN TWICE"),
    "a turn never ran": (lambda e: replace(e, turns=ran(1) + ran(3)), "never received"),
    "a turn of nobody": (
        lambda e: replace(e, turns=[*e.turns, *[line | {"turn": "t9"} for line in ran(1)]]),
        "no mail",
    ),
    "a mail still runs": (lambda e: in_state(e, MAILS[2], "running"), "not answered"),
    "bad news without reason": (lambda e: in_state(e, MAILS[2], "failed"), "not answered"),
    "a reply is still queued": (lambda e: in_state(e, reply_message_id("t3", DOMAIN), "queued"), "did not leave"),
    "a row twice": (lambda e: replace(e, ledger=[*e.ledger, *rows(3)]), "there twice"),
    "a reply to nobody": (
        lambda e: replace(e, conversations=[Conversation("talk", "ada", list(MAILS[:2]))]),
        "nothing that was sent",
    ),
    "two threads": (
        lambda e: replace(e, ledger=[*e.ledger[:4], *[row | {"thread": "other"} for row in e.ledger[4:]]]),
        "several threads",
    ),
}


def test_good_evidence_has_no_complaint() -> None:
    verdict = judge(GOOD)
    assert (verdict.complaints, verdict.mails, verdict.repeats) == ([], 3, 0)


def test_a_probe_is_no_turn_of_a_mail() -> None:
    probe = [line | {"turn": "p", "session": "probe:p"} for line in ran(1)]
    assert judge(replace(GOOD, turns=[*probe, *GOOD.turns])).complaints == []


def test_bad_news_is_fine_where_the_box_is_out_of_reach() -> None:
    assert judge(replace(in_state(GOOD, MAILS[2], "failed"), bad_news_for=frozenset({"ada"}))).complaints == []


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found(what: str) -> None:
    damage, words = DAMAGE[what]
    found = judge(damage(GOOD)).complaints
    assert any(words in line for line in found), found
