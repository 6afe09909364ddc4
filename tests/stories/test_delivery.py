"""Replies on their way out: bounces tied to them, refusals shown."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.mailbox import Received
from tests.running import letter
from tests.stories.town import House, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
OTTO = "otto@tinyfat.localhost"


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def otto(house: House) -> None:
    await house.operator.make_agent("otto")


async def replied(house: House) -> Received:
    message_id = new_id()
    await house.tinyfat.send(letter("Hello.", to=OTTO, message_id=message_id))
    reply = await house.office.reply_to(message_id)
    await house.operator.becomes((await house.operator.outgoing("otto", message_id))["id"], "sent")
    return reply


def report(reply: Received, *, to: str, action: str = "failed", status: str = "5.1.1") -> bytes:
    """As a Postfix writes one (RFC 3464)."""
    lines = f"""From: MAILER-DAEMON@mx.example.org (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {to}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Message-Id: {new_id()}
Content-Type: multipart/report; report-type=delivery-status; boundary="R"

--R
Content-Description: Notification

I'm sorry to have to inform you that your message could not be delivered.

--R
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Arrival-Date: Tue, 3 Nov 2026 10:00:00 +0000 (UTC)

Final-Recipient: rfc822; owner@example.org
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 5.1.1 <owner@example.org>: no such user

--R
Content-Type: text/rfc822-headers

From: otto <{OTTO}>
Message-ID: {reply.message_id}

--R--
"""
    return lines.replace("\n", "\r\n").encode()


async def outgoing(house: House, reply: Received) -> dict[str, object]:
    return await house.operator.outgoing("otto", reply.in_reply_to)


async def newest_in(house: House) -> dict[str, object]:
    return [m for m in await house.operator.mail("otto") if m["direction"] == "in"][-1]


async def test_a_report_to_the_bounce_address_is_tied_to_its_mail(house: House) -> None:
    reply = await replied(house)
    await house.tinyfat.send(report(reply, to=reply.mail_from), mail_from="", to=reply.mail_from)
    sent = await outgoing(house, reply)
    assert sent["state"] == "bounced" and "owner@example.org" in str(sent["reason"]) and "5.1.1" in str(sent["reason"])
    assert (await newest_in(house))["state"] == "bounce" and (await newest_in(house))["turn_id"] is None


async def test_a_report_to_the_agent_itself_is_tied_by_the_message_id_it_names(house: House) -> None:
    reply = await replied(house)
    await house.tinyfat.send(report(reply, to=OTTO), mail_from="", to=OTTO)
    assert (await outgoing(house, reply))["state"] == "bounced"
    assert (await newest_in(house))["state"] == "bounce"


async def test_a_bounce_in_plain_words_is_tied_by_its_address(house: House) -> None:
    """As qmail and old Exims write them: no multipart/report."""
    reply = await replied(house)
    mail = letter(
        "Hi. This is the qmail-send program. I wasn't able to deliver it.\n<owner@example.org>: no mailbox here",
        to=reply.mail_from, sender="MAILER-DAEMON@mx.example.org", subject="failure notice", message_id=new_id(),
    )  # fmt: skip
    await house.tinyfat.send(mail, mail_from="", to=reply.mail_from)
    assert (await outgoing(house, reply))["state"] == "bounced"


async def test_a_delay_is_kept_and_the_mail_still_counts_as_sent(house: House) -> None:
    reply = await replied(house)
    raw = report(reply, to=reply.mail_from, action="delayed", status="4.4.1")
    await house.tinyfat.send(raw, mail_from="", to=reply.mail_from)
    assert (await outgoing(house, reply))["state"] == "sent"
    row = await newest_in(house)
    assert row["state"] == "bounce" and "delayed" in str(row["reason"])


@pytest.mark.parametrize("mail_from", ["", "owner@example.org"])
async def test_a_holiday_note_to_the_bounce_address_is_no_bounce(house: House, mail_from: str) -> None:
    """RFC 3834 4: automatic answers go to the return path; the mail had arrived."""
    reply = await replied(house)
    note = letter("I am away until Monday.", to=reply.mail_from, subject="Away", message_id=new_id())
    note["In-Reply-To"] = reply.message_id
    note["Auto-Submitted"] = "auto-replied (vacation)"
    await house.tinyfat.send(note, mail_from=mail_from, to=reply.mail_from)
    assert (await outgoing(house, reply))["state"] == "sent"
    assert (await newest_in(house))["state"] == "ignored"


async def test_a_bounce_address_somebody_made_up_ties_nothing(house: House) -> None:
    reply = await replied(house)
    local, _, domain = reply.mail_from.rpartition("@")
    forged = f"{local[:-1]}{'0' if local[-1] != '0' else '1'}@{domain}"
    mail = letter("It came back.", to=forged, sender="MAILER-DAEMON@mx.example.org", message_id=new_id())
    await house.tinyfat.send(mail, mail_from="", to=forged)
    assert (await outgoing(house, reply))["state"] == "sent"
    assert (await newest_in(house))["state"] == "ignored"


async def test_a_5xx_of_the_smarthost_is_shown_and_not_tried_again(house: House) -> None:
    message_id = new_id()
    house.office.answers.append("550 5.7.1 We do not want your mail")
    await house.tinyfat.send(letter("Hello.", to=OTTO, message_id=message_id))

    incoming = await house.operator.incoming("otto", message_id)
    await house.operator.becomes(incoming["id"], "answered")
    sent = await house.operator.becomes((await house.operator.outgoing("otto", message_id))["id"], "refused")
    assert "We do not want your mail" in sent["reason"] and sent["attempts"] == 1
    listed = await house.tinyfat.command("mail", "list", "otto")
    assert "refused" in listed
    assert not house.office.replies_to(message_id)


async def test_a_4xx_of_the_smarthost_is_shown_and_kept_for_later(house: House) -> None:
    """That it goes out later is shown in test_restarts and tests/flows: the first pause is 15 s."""
    message_id = new_id()
    house.office.answers.append("451 4.7.1 Greylisted, come again")
    await house.tinyfat.send(letter("Hello.", to=OTTO, message_id=message_id))
    await house.operator.becomes((await house.operator.incoming("otto", message_id))["id"], "answered")
    kept = await house.operator.becomes((await house.operator.outgoing("otto", message_id))["id"], "deferred")
    assert "Greylisted" in kept["reason"] and kept["attempts"] == 1
