"""Mail that must not be answered, or not for ever: automatic mail, agents that write to each other, floods."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
import pytest_asyncio

from tests.running import OWNER, letter, until
from tests.stories.conftest import SENDER_CAP, THREAD_CAP
from tests.stories.town import House, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
GIL = "gil@tinyfat.localhost"
EXCHANGES_MAX = 3


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def gil(house: House) -> None:
    await house.operator.make_agent("gil")
    await house.operator.ask("POST", "agents/gil/senders", json={"pattern": "@example.org"})
    await house.operator.ask("POST", "agents/gil/senders", json={"pattern": "@tinyfat.localhost"})


AUTOMATIC = {
    "auto-generated": {"Auto-Submitted": "auto-generated"},
    "auto-replied, with a parameter": {"Auto-Submitted": "Auto-Replied; owner-email=x@example.org"},
    "bulk": {"Precedence": "bulk"},
    "junk": {"Precedence": "junk"},
    "list precedence": {"Precedence": "List"},
    "a list": {"List-Id": "<boats.example.org>"},
    "a list to leave": {"List-Unsubscribe": "<mailto:leave@example.org>"},
    "another responder's": {"X-MDAutoResponder": "yes"},
    "a responder's": {"X-Autoreply": "yes"},
    "ours": {"X-TinyFat-Loop": "ada@tinyfat.localhost"},
}


def from_owner(message_id: str, **more: str) -> EmailMessage:
    return letter("Hello.", to=GIL, message_id=message_id, **more)


async def is_ignored(house: House, message_id: str) -> None:
    row = await house.operator.incoming("gil", message_id)
    assert (row["state"], row["turn_id"]) == ("ignored", None), row
    assert row["reason"].startswith("automatic")


@pytest.mark.parametrize("fields", AUTOMATIC.values(), ids=AUTOMATIC.keys())
async def test_automatic_mail_is_kept_and_not_answered(house: House, fields: dict[str, str]) -> None:
    message_id = new_id()
    mail = from_owner(message_id)
    for name, value in fields.items():
        mail[name] = value
    await house.tinyfat.send(mail)
    await is_ignored(house, message_id)


async def test_a_null_return_path_is_not_answered(house: House) -> None:
    message_id = new_id()
    await house.tinyfat.send(from_owner(message_id), mail_from="")
    await is_ignored(house, message_id)


async def test_a_report_is_not_answered(house: House) -> None:
    message_id = new_id()
    mail = from_owner(message_id)
    mail.make_mixed()
    mail.replace_header("Content-Type", 'multipart/report; report-type=disposition-notification; boundary="b"')
    await house.tinyfat.send(mail)
    await is_ignored(house, message_id)


async def test_what_went_in_circles_is_not_answered(house: House) -> None:
    message_id = new_id()
    raw = b"".join(b"Received: from a by b; Tue, 03 Nov 2026 10:00:00 +0000\r\n" for _ in range(30))
    await house.tinyfat.send(raw + from_owner(message_id).as_bytes(), to=GIL)
    await is_ignored(house, message_id)


@pytest.mark.parametrize("sender", ["mailer-daemon@example.org", "no-reply@example.org", "pat-noreply@example.org"])
async def test_a_roles_address_is_not_answered(house: House, sender: str) -> None:
    message_id = new_id()
    await house.tinyfat.send(from_owner(message_id, sender=sender), mail_from=sender)
    await is_ignored(house, message_id)


@pytest.mark.parametrize("sender", [GIL, "gil+tag@tinyfat.localhost", "Gil@TinyFat.localhost"])
async def test_an_agents_own_address_is_not_answered(house: House, sender: str) -> None:
    message_id = new_id()
    await house.tinyfat.send(from_owner(message_id, sender=sender), mail_from=sender)
    await is_ignored(house, message_id)


async def test_what_says_it_is_not_automatic_is_answered(house: House) -> None:
    message_id = new_id()
    mail = from_owner(message_id)
    mail["Auto-Submitted"] = "no"
    mail["Precedence"] = "first-class"
    mail["X-Auto-Response-Suppress"] = "All"
    await house.tinyfat.send(mail)
    await house.office.reply_to(message_id)


async def befriend(house: House, name: str, friend: str) -> None:
    await house.operator.make_agent(name)
    await house.operator.ask("POST", f"agents/{name}/senders", json={"pattern": friend})


async def quiet(*rows_of: tuple[House, str]) -> None:
    """Nothing is under way in these agents' ledgers, and no reply on its way."""

    async def settled() -> bool:
        states = {m["state"] for house, name in rows_of for m in await house.operator.mail(name)}
        return not states & {"queued", "running", "deferred"}

    await until(settled, 60.0, "the agents fall silent")


async def replies_of(house: House, name: str) -> int:
    return sum(1 for m in await house.operator.mail(name) if m["direction"] == "out")


async def test_agents_of_two_tinyfats_fall_silent_though_a_relay_takes_their_marks_off(
    house: House, hasty: House
) -> None:
    """The owner asks one to answer the other."""
    await befriend(house, "hugo", "ida@hasty.localhost")
    await befriend(hasty, "ida", "hugo@tinyfat.localhost")
    house.office.routes = {house.domain: house.tinyfat.smtp_port, hasty.domain: hasty.tinyfat.smtp_port}
    message_id = new_id()
    mail = letter("Tell Ida about the boat.", to="hugo@tinyfat.localhost", message_id=message_id)
    mail["Reply-To"] = "ida@hasty.localhost"
    try:
        await house.tinyfat.send(mail)
        await house.office.reply_to(message_id)
        await quiet((house, "hugo"), (hasty, "ida"))
    finally:
        house.office.routes = {}
    assert await replies_of(house, "hugo") <= EXCHANGES_MAX + 1  # one of them to the owner's own mail
    assert await replies_of(hasty, "ida") <= EXCHANGES_MAX
    # Nothing is left hanging, and the owner's own next mail is answered.
    after = new_id()
    await house.tinyfat.send(letter("Are you well?", to="hugo@tinyfat.localhost", message_id=after))
    await house.office.reply_to(after)


async def test_two_agents_of_one_tinyfat_fall_silent_though_the_relay_changes_even_message_ids(house: House) -> None:
    await befriend(house, "jan", "kai@tinyfat.localhost")
    await befriend(house, "kai", "jan@tinyfat.localhost")
    house.office.routes, house.office.new_ids = {house.domain: house.tinyfat.smtp_port}, True
    message_id = new_id()
    mail = letter("Tell Kai about the boat.", to="jan@tinyfat.localhost", message_id=message_id)
    mail["Reply-To"] = "kai@tinyfat.localhost"
    try:
        await house.tinyfat.send(mail)
        await house.office.reply_to(message_id)
        await quiet((house, "jan"), (house, "kai"))
    finally:
        house.office.routes, house.office.new_ids = {}, False
    assert await replies_of(house, "jan") <= EXCHANGES_MAX + 1
    assert 1 <= await replies_of(house, "kai") <= EXCHANGES_MAX


async def test_over_the_threads_cap_a_mail_is_held_and_can_be_released(hasty: House) -> None:
    await hasty.operator.make_agent("lea")
    first, ids = new_id(), []
    for number in range(THREAD_CAP + 1):
        ids.append(first if number == 0 else new_id())
        mail = letter("On and on.", to="lea@hasty.localhost", message_id=ids[-1], references=first if number else "")
        await hasty.tinyfat.send(mail)
    for message_id in ids[:THREAD_CAP]:
        await hasty.office.reply_to(message_id)
    row = await hasty.operator.incoming("lea", ids[-1])
    assert row["state"] == "held" and "rate cap" in row["reason"] and "thread" in row["reason"]
    await hasty.operator.ask("POST", f"mail/{row['id']}/release")
    await hasty.office.reply_to(ids[-1])


async def test_over_the_senders_cap_a_mail_is_held_and_others_are_answered(hasty: House) -> None:
    await hasty.operator.make_agent("mia")
    await hasty.operator.ask("POST", "agents/mia/senders", json={"pattern": "friend@example.org"})
    ids = [new_id() for _ in range(SENDER_CAP + 1)]
    for message_id in ids:
        await hasty.tinyfat.send(letter("Each about something else.", to="mia@hasty.localhost", message_id=message_id))
    row = await hasty.operator.incoming("mia", ids[-1])
    assert row["state"] == "held" and "sender" in row["reason"]
    friends = new_id()
    mail = letter("And I?", to="mia@hasty.localhost", sender="friend@example.org", message_id=friends)
    await hasty.tinyfat.send(mail, mail_from="friend@example.org")
    await hasty.office.reply_to(friends)
    assert (await hasty.office.reply_to(ids[0])).rcpt_to == [OWNER]
