"""Conversations: what answers what, whatever a mail program does to the subject; named ones; the same mail twice."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from tests.running import OWNER, letter
from tests.stories.town import House, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
BEA = "bea@tinyfat.localhost"


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def bea(house: House) -> None:
    await house.operator.make_agent("bea")


async def ask(house: House, text: str, *, to: str = BEA, **more: str) -> str:
    """Send it and return its Message-ID."""
    message_id = more.pop("message_id", "") or new_id()
    await house.tinyfat.send(letter(text, to=to, message_id=message_id, **more))
    return message_id


async def test_a_reply_has_all_that_mail_programs_thread_by(house: House) -> None:
    first = await ask(house, "One.", subject="Boats")
    one = await house.office.reply_to(first)
    second = await ask(
        house, "Two.", subject="Re: Boats", in_reply_to=one.message_id, references=f"{first} {one.message_id}"
    )
    two = await house.office.reply_to(second)
    assert str(two.message["References"]).split() == [first, one.message_id, second]
    assert str(two.message["In-Reply-To"]) == second
    assert str(two.message["Subject"]) == "Re: Boats"
    assert two.rcpt_to == [OWNER] and two.mail_from.startswith("bea+bounce.")
    assert str(two.message["From"].addresses[0].addr_spec) == BEA
    assert str(two.message["Auto-Submitted"]) == "auto-replied"
    assert two.message.get_body(("html",)) is not None and "> Two." in two.text


@pytest.mark.parametrize("by", ["in_reply_to", "references", "both", "references, cut to ours"])
async def test_our_own_message_id_is_known_again_under_any_subject(house: House, by: str) -> None:
    first = await ask(house, "My boat is called Heron.", subject="Boats")
    reply = await house.office.reply_to(first)
    message_id = new_id()
    mail = letter("What is its name?", to=BEA, subject="=?utf-8?q?Ganz_etwas_anderes?=", message_id=message_id)
    if by in ("in_reply_to", "both"):
        mail["In-Reply-To"] = reply.message_id
    if by in ("references", "both"):
        mail["References"] = f"{first} {reply.message_id}"
    if by == "references, cut to ours":
        mail["References"] = f"<cut@elsewhere.example> {reply.message_id}"
    await house.tinyfat.send(mail)
    assert "Heron" in (await house.office.reply_to(message_id)).text
    rows = [await house.operator.incoming("bea", one) for one in (first, message_id)]
    assert rows[0]["thread"] == rows[1]["thread"]


async def test_the_same_subject_alone_is_another_conversation(house: House) -> None:
    first = await ask(house, "My boat is called Heron.", subject="Boats again")
    await house.office.reply_to(first)
    other = await ask(house, "What is its name?", subject="Re: Boats again")
    assert "Heron" not in (await house.office.reply_to(other)).text


async def test_an_answer_to_a_mail_that_is_not_answered_yet_joins_it(house: House) -> None:
    """The owner writes a second mail before the reply to the first: one conversation, in order."""
    first = await ask(house, "echo: sleep 0.5\nMy boat is called Heron.")
    second = await ask(house, "And what is its name?", in_reply_to=first)
    assert "Heron" in (await house.office.reply_to(second)).text
    order = [one.in_reply_to for one in house.office.received if one.in_reply_to in (first, second)]
    assert order == [first, second]


async def test_a_named_conversation_goes_on_by_its_name_alone(house: House) -> None:
    first = await ask(house, "My boat is called Heron.", to="bea+boats@tinyfat.localhost")
    reply = await house.office.reply_to(first)
    assert str(reply.message["From"].addresses[0].addr_spec) == "bea+boats@tinyfat.localhost"
    again = await ask(house, "What is its name?", to="BEA+Boats@TinyFat.localhost", subject="Another")
    assert "Heron" in (await house.office.reply_to(again)).text
    elsewhere = await ask(house, "What is its name?", to="bea+cars@tinyfat.localhost")
    assert "Heron" not in (await house.office.reply_to(elsewhere)).text


async def test_the_same_mail_twice_is_one_turn_and_one_reply(house: House) -> None:
    first = await ask(house, "Hello.")
    await house.office.reply_to(first)
    assert await ask(house, "Hello.", message_id=first) == first
    after = await ask(house, "And after that?", in_reply_to=first)
    reply = await house.office.reply_to(after)
    assert "turn 2 of this conversation" in reply.text
    row = await house.operator.incoming("bea", first)  # exactly one
    assert len(house.office.replies_to(first)) == 1
    assert len(house.turns_of(f"email:{row['thread']}")) == 2


async def test_the_same_mail_twice_at_once_is_one_turn_and_one_reply(house: House) -> None:
    first = new_id()
    await asyncio.gather(*(ask(house, "Hello.", message_id=first) for _ in range(8)))
    await house.office.reply_to(first)
    row = await house.operator.incoming("bea", first)
    after = await ask(house, "And after that?", in_reply_to=first)
    await house.office.reply_to(after)
    assert len(house.office.replies_to(first)) == 1
    assert len(house.turns_of(f"email:{row['thread']}")) == 2


async def test_a_mail_without_a_message_id_is_answered_once_however_often_it_comes(house: House) -> None:
    text = f"I have no id: {new_id()}"
    before = len(house.office.received)
    for _ in range(3):
        await house.tinyfat.send(letter(text, to=BEA))
    await house.office.wait_for(before + 1)
    (reply,) = [one for one in house.office.received if text in one.text]
    assert reply.message["In-Reply-To"] is None and "missing.invalid" not in reply.raw.decode()
    (row,) = [m for m in await house.operator.mail("bea") if m["id"] and m["message_id"].endswith("missing.invalid>")]
    assert len(house.turns_of(f"email:{row['thread']}")) == 1


async def test_one_transaction_for_several_agents_is_one_mail_for_each(house: House) -> None:
    await house.operator.make_agent("cora")
    message_id = new_id()
    await house.tinyfat.send(
        letter("To you all.", to=BEA, message_id=message_id),
        to=[BEA, "cora@tinyfat.localhost", "bea+named@tinyfat.localhost"],
    )
    await house.office.reply_to(message_id)
    for name in ("bea", "cora"):
        await house.operator.becomes((await house.operator.incoming(name, message_id))["id"], "answered")
        await house.operator.becomes((await house.operator.outgoing(name, message_id))["id"], "sent")
    senders = sorted(str(one.message["From"].addresses[0].addr_spec) for one in house.office.replies_to(message_id))
    assert senders == [BEA, "cora@tinyfat.localhost"]


async def test_files_go_in_and_files_come_out(house: House) -> None:
    message_id = new_id()
    mail = letter("echo: attach report.pdf 3000\nHere is a table.", to=BEA, message_id=message_id)
    mail.add_attachment(b"a,b\r\n1,2\r\n", maintype="text", subtype="csv", filename="übersicht.csv")
    await house.tinyfat.send(mail)
    reply = await house.office.reply_to(message_id)
    assert "übersicht.csv (10 bytes)" in reply.text
    (file,) = list(reply.message.iter_attachments())
    assert file.get_filename() == "report.pdf" and len(file.get_payload(decode=True)) == 3000  # type: ignore[arg-type]
    shown = await house.operator.ask("GET", f"mail/{(await house.operator.incoming('bea', message_id))['id']}")
    assert [a["filename"] for a in shown["attachments"]] == ["übersicht.csv"]
