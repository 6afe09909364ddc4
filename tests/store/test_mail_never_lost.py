"""Whatever comes, in any order: what was accepted is in the ledger with its bytes, and what was kept can be let out."""

from __future__ import annotations

import random

import pytest

from tests.running import OWNER
from tests.store.mails import ELSEWHERE, LOOPBACK, Mails
from tinyfat.domain.mail.addresses import bounce_address
from tinyfat.domain.mail.message import read_mail
from tinyfat.domain.mail.same_content import content_digest
from tinyfat.ports.mail import Envelope
from tinyfat.store.database import Database

MAILS = 80
KEPT = ("quarantined", "held", "ignored", "bounce")
SENDERS = (
    *(
        f"From: {OWNER}",
        f"From: Pat <{OWNER}>",
        "From: s@strange.example",
        "From: no-reply@example.org",
        "From: nobody",
    ),
    *("From: a@x.org, b@x.org", "From: Pat p@x.org", "X-None: x", "From: <>", "From: mailer-daemon@mx.example.net"),
    *(
        "From: ada@tinyfat.localhost",
        "From: bea@tinyfat.localhost",
        "From: Team: a@x.org;",
        f"From: {OWNER}\r\nFrom: c@x.org",
    ),
    "From: üser@example.org",
)
MARKS = (
    *("X-None: 1", "X-None: 2", "X-None: 3", "Auto-Submitted: auto-replied", "List-Id: <boats.example.org>"),
    *("Precedence: bulk", "X-Failed-Recipients: a@b.c", "Subject: Automatic reply: x", "Reply-To: r@x.org"),
    "Content-Type: multipart/report; report-type=delivery-status; boundary=r",
)
IDS = (*(f"Message-ID: <{n}@example.org>" for n in range(12)), "X-No-Id: 1", "Message-ID: nonsense")
PARENTS = (
    "X-No-Parent: 1",
    *(f"In-Reply-To: <{n}@example.org>" for n in range(6)),
    "References: <9@x> <3@example.org>",
)
REPORT = (
    "--r\r\n\r\nSorry.\r\n--r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n"
    "Final-Recipient: rfc822; a@b.c\r\nAction: failed\r\nStatus: 5.1.1\r\n--r--\r\n"
)
BODIES = ("One.\r\n", "Two.\r\n", "", REPORT, "\0\xff\x00", "begin 644 x\r\n#0V%T\r\n`\r\nend\r\n")


def made(dice: random.Random) -> bytes:
    lines = [
        dice.choice(SENDERS),
        dice.choice(MARKS),
        dice.choice(IDS),
        dice.choice(PARENTS),
        "To: ada@tinyfat.localhost",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + dice.choice(BODIES)).encode()


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_accepted_is_lost_and_all_that_is_kept_can_be_let_out(database: Database, seed: int) -> None:
    dice = random.Random(seed)
    mails = Mails(database)
    await mails.agent("ada")
    await mails.agent("bea")
    sealed = bounce_address("ada", "tinyfat.localhost", "00000000-0000-4000-8000-000000000000", b"secret")
    accepted: dict[str, set[tuple[str, str]]] = {}
    for _ in range(MAILS):
        raw = made(dice)
        to = dice.choice(["ada@tinyfat.localhost"] * 4 + ["ada+boats@tinyfat.localhost", sealed])
        envelope = Envelope(
            dice.choice((LOOPBACK, ELSEWHERE)), "peer.example.org", dice.choice((OWNER, "", "x@y.example"))
        )
        row = await mails.intake.accept(envelope, [to], raw)
        mail, (message, body) = read_mail(raw), await mails.ledger.show(row)
        accepted.setdefault(row, set()).add((mail.message_id, content_digest(mail)))
        assert message.state in ("queued", *KEPT)
        assert bool(message.reason) is (message.state != "queued")
        assert content_digest(read_mail(body)) == content_digest(mail), "what is kept is what was taken"
        if message.state in KEPT and dice.random() < 0.3:
            await mails.ledger.release(row)
    assert all(len(what) == 1 for what in accepted.values()), "two mails, and one row"
    assert await mails.one("select count(*) from messages where direction = 'in'") == len(accepted)
    for row in accepted:
        if (await mails.ledger.show(row))[0].state in KEPT:
            await mails.ledger.release(row)
    assert await mails.one("select count(*) from turns") == len(accepted), "each has the one turn it was let out to"
    assert await mails.one("select count(*) from messages where turn_id is null and direction = 'in'") == 0
