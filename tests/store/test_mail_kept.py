"""What was accepted is in the ledger, each mail once; what was kept from an answer can be let out, once."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.running import OWNER, letter
from tests.store.mails import LOOPBACK, Mails
from tinyfat.domain.mail.addresses import bounce_address
from tinyfat.ports.ledger import Conflict
from tinyfat.ports.mail import Envelope
from tinyfat.store.database import Database

CASES = Path(__file__).parents[1] / "domain" / "mail_cases"
ID = "<fixed@example.org>"


@pytest.fixture
async def mails(database: Database) -> Mails:
    mails = Mails(database)
    await mails.agents.allow((await mails.agent("ada")).id, "you@example.org")
    return mails


def worded(text: str, **fields: str) -> EmailMessage:
    mail = letter(text, message_id=ID)
    for name, value in fields.items():
        mail[name] = value
    return mail


async def take_raw(mails: Mails, raw: bytes, to: str = "ada@tinyfat.localhost", mail_from: str = OWNER) -> str:
    return await mails.intake.accept(Envelope(LOOPBACK, "peer.example.org", mail_from), [to], raw)


async def state(mails: Mails, row: str) -> tuple[str, str]:
    message, _ = await mails.ledger.show(row)
    return message.state, message.reason


async def test_a_copy_is_the_same_mail_by_whichever_way_it_comes(mails: Mails) -> None:
    raw = worded("Hello there.").as_bytes()
    first = await take_raw(mails, raw)
    assert await take_raw(mails, b"Received: from a by b\r\nX-Spam: no\r\n" + raw) == first
    assert await take_raw(mails, raw.replace(b"\r\n", b"\n").replace(b"Hello there.", b"Hello there.  ")) == first
    assert len(mails.started) == 1
    assert await mails.one("select count(*) from messages") == 1


async def test_another_mail_of_the_same_id_is_kept_with_a_reason_and_can_be_let_out(mails: Mails) -> None:
    first = await take_raw(mails, (CASES / "same-message-id-1.eml").read_bytes())
    second = await take_raw(mails, (CASES / "same-message-id-2.eml").read_bytes())
    assert second != first
    held, reason = await state(mails, second)
    assert (held, "Message-ID" in reason, len(mails.started)) == ("held", True, 1)
    assert await take_raw(mails, (CASES / "same-message-id-2.eml").read_bytes()) == second
    assert (await mails.ledger.release(second)).message_id == second
    assert (await state(mails, second))[0] == "queued"
    assert await mails.one("select count(*) from turns") == 2
    with pytest.raises(Conflict):
        await mails.ledger.release(second)


async def test_a_lists_copy_does_not_stand_in_the_mails_way(mails: Mails) -> None:
    listed = await take_raw(mails, b"List-Id: <boats.example.org>\r\n" + worded("Hello.").as_bytes())
    direct = await take_raw(mails, worded("Hello.").as_bytes())
    assert [(await state(mails, row))[0] for row in (listed, direct)] == ["ignored", "queued"]


async def test_a_mail_from_before_its_content_was_noted_is_the_same(mails: Mails) -> None:
    first = await take_raw(mails, worded("One.").as_bytes())
    await mails.rows("update messages set content = ''")
    assert await take_raw(mails, worded("Two.").as_bytes()) == first


@pytest.mark.parametrize(
    ("name", "sender"), [("auto-precedence-autoreply-dash", OWNER), ("role-noreply-suffix", "pat-noreply@example.org")]
)
async def test_what_was_ignored_can_be_let_out_once(mails: Mails, name: str, sender: str) -> None:
    await mails.agents.allow((await mails.agents.find("ada")).id, "@example.org")
    row = await take_raw(mails, (CASES / f"{name}.eml").read_bytes(), mail_from=sender)
    ignored, reason = await state(mails, row)
    assert (ignored, reason.startswith("automatic: ")) == ("ignored", True)
    await mails.ledger.release(row)
    assert await mails.one("select count(*) from turns where message_row = %s", row) == 1
    with pytest.raises(Conflict):
        await mails.ledger.release(row)


@pytest.mark.parametrize("name", ["role-human-ownerx", "role-human-request"])
async def test_people_whose_names_look_like_roles_are_answered(mails: Mails, name: str) -> None:
    await mails.agents.allow((await mails.agents.find("ada")).id, "@example.org")
    assert (await state(mails, await take_raw(mails, (CASES / f"{name}.eml").read_bytes())))[0] == "queued"


async def test_a_role_that_owns_the_agent_or_is_allowed_by_name_is_answered(mails: Mails) -> None:
    await mails.agent("bea", "postmaster@example.net")
    mail = letter("Hello.", sender="postmaster@example.net", message_id="<p@example.net>")
    assert (await state(mails, await take_raw(mails, mail.as_bytes(), "bea@tinyfat.localhost")))[0] == "queued"
    agent = await mails.agents.find("ada")
    await mails.agents.allow(agent.id, "@example.net")
    assert (await state(mails, await take_raw(mails, mail.as_bytes())))[0] == "ignored"
    await mails.agents.allow(agent.id, "postmaster@example.net")
    again = letter("Hello again.", sender="postmaster@example.net", message_id="<q@example.net>")
    assert (await state(mails, await take_raw(mails, again.as_bytes())))[0] == "queued"


@pytest.mark.parametrize("value", ["a@x.org, b@x.org", "Team: a@x.org;", "=?utf-8?q?A_=3Ca=40x.org=3E?="])
async def test_a_doubtful_from_is_quarantined_with_its_reason_and_can_be_let_out(mails: Mails, value: str) -> None:
    row = await take_raw(mails, f"From: {value}\r\nMessage-ID: {ID}\r\n\r\nHi.\r\n".encode())
    held, reason = await state(mails, row)
    assert (held, "a@x.org" in reason) == ("quarantined", True)
    await mails.ledger.release(row)
    assert (await state(mails, row))[0] == "queued"


@pytest.mark.parametrize("value", ["nobody", "", "Pat you@example.org", "Pat <mailto:you@example.org>", "<<a@x.org>>"])
async def test_what_names_nobody_can_be_let_out_too(mails: Mails, value: str) -> None:
    row = await take_raw(mails, f"From: {value}\r\nMessage-ID: {ID}\r\n\r\nHi.\r\n".encode())
    held, reason = await state(mails, row)
    assert (held, "an answer would go to " in reason) == ("quarantined", True)
    await mails.ledger.release(row)
    assert (await state(mails, row))[0] == "queued"


class TestReturnPath:
    @pytest.fixture
    async def reply(self, mails: Mails) -> str:
        """A reply of ada's that was sent: its row."""
        await take_raw(mails, worded("Hello.").as_bytes())
        return str(
            await mails.one(
                "insert into messages (agent_id, thread_id, direction, message_id, sender, recipient, state, size) "
                "select agent_id, thread_id, 'out', '<turn.7@tinyfat.localhost>', 'ada', %s, 'sent', 1 "
                "from messages returning id::text",
                OWNER,
            )
        )

    def address(self, reply: str) -> str:
        return bounce_address("ada", "tinyfat.localhost", reply, b"secret")

    @pytest.mark.parametrize("name", ["dsn-as-mixed-from-mailer", "dsn-no-status-part", "dsn-unfolded-diagnostic"])
    async def test_a_bounce_marks_the_reply(self, mails: Mails, reply: str, name: str) -> None:
        row = await take_raw(mails, (CASES / f"{name}.eml").read_bytes(), self.address(reply), mail_from="")
        assert (await state(mails, row))[0] == "bounce"
        assert (await state(mails, reply))[0] == "bounced"

    async def test_a_delay_does_not(self, mails: Mails, reply: str) -> None:
        raw = (CASES / "dsn-unfolded-diagnostic.eml").read_bytes()
        delayed = raw.replace(b"Action: failed", b"Action: delayed").replace(b"5.1.1", b"4.4.1")
        row = await take_raw(mails, delayed, self.address(reply), mail_from="")
        assert ((await state(mails, row))[0], (await state(mails, reply))[0]) == ("bounce", "sent")

    @pytest.mark.parametrize("path", [OWNER, ""])
    async def test_an_absence_note_is_neither_a_bounce_nor_answered(self, mails: Mails, reply: str, path: str) -> None:
        raw = (CASES / "vacation-to-bounce-address.eml").read_bytes()
        row = await take_raw(mails, raw, self.address(reply), mail_from=path)
        assert ((await state(mails, row))[0], (await state(mails, reply))[0]) == ("ignored", "sent")

    @pytest.mark.parametrize("field", ["Precedence: bulk", "Auto-Submitted: auto-generated", "X-Mailer: my own script"])
    async def test_an_absence_note_that_does_not_say_so_is_known_by_its_sender(
        self, mails: Mails, reply: str, field: str
    ) -> None:
        raw = f"From: {OWNER}\r\nSubject: I am away\r\nMessage-ID: <a@x>\r\n{field}\r\n\r\nBack on Monday.\r\n".encode()
        row = await take_raw(mails, raw, self.address(reply), mail_from="")
        assert ((await state(mails, row))[0], (await state(mails, reply))[0]) == ("ignored", "sent")
        bounced = raw.replace(OWNER.encode(), b"system@mx.example.net").replace(b"<a@x>", b"<b@x>")
        row = await take_raw(mails, bounced, self.address(reply), mail_from="")
        assert ((await state(mails, row))[0], (await state(mails, reply))[0]) == ("bounce", "bounced")

    async def test_what_was_taken_for_a_bounce_can_be_let_out(self, mails: Mails, reply: str) -> None:
        raw = (CASES / "dsn-no-status-part.eml").read_bytes()
        row = await take_raw(mails, raw, self.address(reply), mail_from="")
        await mails.ledger.release(row)
        assert (await state(mails, row))[0] == "queued"

    async def test_nobody_writes_to_a_return_path_whoever_sealed_it(self, mails: Mails, reply: str) -> None:
        for number, address in enumerate((self.address(reply), "ada+bounce.aaaa.01234567@tinyfat.localhost")):
            mail = letter("A person's words.", message_id=f"<{number}@x>")
            assert (await state(mails, await take_raw(mails, mail.as_bytes(), address)))[0] == "ignored"
