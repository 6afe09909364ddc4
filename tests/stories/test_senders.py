"""Who is answered: the owner, whom the owner allows, and of them only who is proved. The rest is kept and shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiosmtplib
import pytest
import pytest_asyncio

from tests.dns_server import Zone, dns_server
from tests.rsa_keys import rsa_key
from tests.running import OWNER, TinyFat, letter
from tests.stories.town import House, Operator, PostOffice, new_id
from tinyfat.drivers.mail.dkim_signing import DkimSigner

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
KEY = rsa_key(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def emil(house: House) -> None:
    await house.operator.make_agent("emil")


async def write(house: House, sender: str, name: str = "emil", **more: str) -> str:
    message_id = new_id()
    to = f"{name}@{house.domain}"
    await house.tinyfat.send(
        letter("Hello.", to=to, sender=sender, message_id=message_id, **more), mail_from=sender, to=to
    )
    return message_id


async def state_of(house: House, message_id: str, name: str = "emil") -> str:
    return str((await house.operator.incoming(name, message_id))["state"])


async def test_a_strangers_mail_is_kept_shown_and_answered_by_nobody(house: House) -> None:
    message_id = await write(house, "stranger@elsewhere.example")
    row = await house.operator.incoming("emil", message_id)
    assert row["state"] == "quarantined" and "allow-list" in row["reason"] and row["turn_id"] is None
    shown = await house.operator.ask("GET", f"mail/{row['id']}")
    assert shown["text"].strip() == "Hello." and message_id in shown["raw"]


async def test_released_it_is_answered_once_and_the_sender_is_no_friend_for_that(house: House) -> None:
    message_id = await write(house, "stranger@elsewhere.example")
    row = await house.operator.incoming("emil", message_id)
    assert (await house.operator.ask("POST", f"mail/{row['id']}/release"))["state"] in ("queued", "running", "answered")
    reply = await house.office.reply_to(message_id)
    assert reply.rcpt_to == ["stranger@elsewhere.example"]
    again = await house.tinyfat.command("mail", "show", row["id"])
    assert "answered" in again
    with pytest.raises(AssertionError, match="409"):
        await house.operator.ask("POST", f"mail/{row['id']}/release")
    assert await state_of(house, await write(house, "stranger@elsewhere.example")) == "quarantined"
    assert len(house.office.replies_to(message_id)) == 1


async def test_a_released_mail_that_comes_again_from_a_friend_by_now_is_the_same_mail(house: House) -> None:
    sender = "late.friend@elsewhere.example"
    message_id = await write(house, sender)
    row = await house.operator.incoming("emil", message_id)
    await house.operator.ask("POST", f"mail/{row['id']}/release")
    await house.office.reply_to(message_id)
    await house.operator.ask("POST", "agents/emil/senders", json={"pattern": sender})
    mail = letter("Hello.", to="emil@tinyfat.localhost", sender=sender, message_id=message_id)
    assert row["id"] in await house.tinyfat.send(mail, mail_from=sender)
    after = await write(house, sender)
    await house.office.reply_to(after)
    assert len(house.office.replies_to(message_id)) == 1


@pytest.mark.parametrize(
    ("pattern", "sender", "answered"),
    [
        ("friend@far.example", "friend@far.example", True),
        ("Friend2@Far.Example", "friend2@far.example", True),
        ("friend3@far.example", "friend4@far.example", False),
        ("@whole.example", "anybody@whole.example", True),
        ("@whole2.example", "anybody@sub.whole2.example", False),
        ("@whole3.example", "anybody@notwhole3.example", False),
    ],
)
async def test_allowed_by_address_or_by_domain(house: House, pattern: str, sender: str, answered: bool) -> None:
    assert await state_of(house, await write(house, sender)) == "quarantined"
    await house.operator.ask("POST", "agents/emil/senders", json={"pattern": pattern})
    message_id = await write(house, sender)
    if answered:
        await house.office.reply_to(message_id)
    else:
        assert await state_of(house, message_id) == "quarantined"
    await house.operator.ask("DELETE", f"agents/emil/senders/{pattern}")
    assert await state_of(house, await write(house, sender)) == "quarantined"


async def test_a_strangers_copy_of_a_message_id_does_not_shadow_the_owners(house: House) -> None:
    message_id = new_id()
    mail = letter(
        "Forged first.", to="emil@tinyfat.localhost", sender="stranger@elsewhere.example", message_id=message_id
    )
    await house.tinyfat.send(mail, mail_from="stranger@elsewhere.example")
    await house.tinyfat.send(letter("The true one.", to="emil@tinyfat.localhost", message_id=message_id))
    assert "The true one." in (await house.office.reply_to(message_id)).text


async def test_a_stranger_who_knows_a_message_id_does_not_get_into_the_conversation(house: House) -> None:
    first = await write(house, OWNER)
    reply = await house.office.reply_to(first)
    intruding = await write(house, "stranger@elsewhere.example", in_reply_to=reply.message_id)
    assert await state_of(house, intruding) == "quarantined"
    assert len(house.turns_of(f"email:{(await house.operator.incoming('emil', first))['thread']}")) == 1


async def test_reply_to_is_followed_only_to_somebody_who_may_write_here(house: House) -> None:
    for address, followed in (("friend@near.example", True), ("thief@elsewhere.example", False)):
        if followed:
            await house.operator.ask("POST", "agents/emil/senders", json={"pattern": address})
        message_id = new_id()
        mail = letter("Answer there.", to="emil@tinyfat.localhost", message_id=message_id)
        mail["Reply-To"] = address
        await house.tinyfat.send(mail)
        reply = await house.office.reply_to(message_id)
        assert reply.rcpt_to == [address if followed else OWNER]


# Where no network is trusted: SPF, DKIM and DMARC decide, asked of a real DNS server.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def wary(office: PostOffice, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[House, Zone]]:
    with dns_server(Zone()) as zone:
        zone.txt("example.org", b"v=spf1 ip4:127.0.0.1 -all")
        zone.txt("signs.example", b"v=spf1 -all")
        zone.txt("s1._domainkey.signs.example", KEY.record())
        zone.txt("closed.example", b"v=spf1 -all")
        zone.txt("_dmarc.closed.example", b"v=DMARC1; p=reject")
        tinyfat = TinyFat(
            tmp_path_factory.mktemp("wary") / "home",
            TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}",
            TINYFAT_MAIL_TRUST="none",
            TINYFAT_NAMESERVERS=zone.address,
        )
        async with tinyfat, Operator(tinyfat) as operator:
            await operator.make_agent("fred")
            await operator.ask("POST", "agents/fred/senders", json={"pattern": "@signs.example"})
            await operator.ask("POST", "agents/fred/senders", json={"pattern": "@closed.example"})
            yield House(tinyfat, office, operator), zone


async def test_spf_proves_the_owner(wary: tuple[House, Zone]) -> None:
    house, _ = wary
    message_id = await write(house, OWNER, "fred")
    await house.office.reply_to(message_id)
    assert "spf=pass" in (await house.operator.incoming("fred", message_id))["authentication"]


@pytest.mark.parametrize("sender", ["me@closed.example", "me@signs.example", "me@no-such-domain.example"])
async def test_whom_nothing_proves_goes_to_quarantine_allowed_or_not(wary: tuple[House, Zone], sender: str) -> None:
    house, _ = wary
    message_id = await write(house, sender, "fred")
    row = await house.operator.incoming("fred", message_id)
    assert row["state"] == "quarantined" and "proves" in row["reason"]


async def test_a_pass_for_another_domain_proves_nothing(wary: tuple[House, Zone]) -> None:
    """The envelope's domain passes SPF, the From header names another: not aligned."""
    house, _ = wary
    message_id = new_id()
    mail = letter("It is me.", to="fred@tinyfat.localhost", sender="me@closed.example", message_id=message_id)
    await house.tinyfat.send(mail, mail_from=OWNER)
    assert await state_of(house, message_id, "fred") == "quarantined"


async def test_a_dkim_signature_proves_its_domain_and_a_changed_text_breaks_it(wary: tuple[House, Zone]) -> None:
    house, _ = wary
    for changed in (False, True):
        message_id = new_id()
        mail = letter("Pay 10.", to="fred@tinyfat.localhost", sender="me@signs.example", message_id=message_id)
        raw = DkimSigner(KEY.private_pem, "s1", "signs.example").sign(mail.as_bytes().replace(b"\n", b"\r\n"))
        raw = raw.replace(b"Pay 10.", b"Pay 99.") if changed else raw
        await house.tinyfat.send(raw, mail_from="me@signs.example", to="fred@tinyfat.localhost")
        row = await house.operator.incoming("fred", message_id)
        if changed:
            assert row["state"] == "quarantined" and "dkim=fail" in row["authentication"]
        else:
            assert "dkim=pass" in row["authentication"]
            await house.office.reply_to(message_id)


async def test_while_dns_is_away_the_peer_keeps_the_mail(wary: tuple[House, Zone]) -> None:
    house, zone = wary
    zone.txt("away.example", b"v=spf1 ip4:127.0.0.1 -all")
    zone.failing.add("away.example")
    with pytest.raises(aiosmtplib.SMTPDataError) as later:
        await write(house, "me@away.example", "fred")
    assert later.value.code == 451
    zone.failing.clear()
    await house.operator.ask("POST", "agents/fred/senders", json={"pattern": "me@away.example"})
    await house.office.reply_to(await write(house, "me@away.example", "fred"))
