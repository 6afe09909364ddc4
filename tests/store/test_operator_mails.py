"""The operator's mailbox: whoever writes to postmaster@ or abuse@ is heard, and fills no disk."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.small_world import mail
from tinyfat.domain.agents import RESERVED_NAMES
from tinyfat.domain.mail.addresses import OPERATOR_MAILBOXES, operator_mailbox
from tinyfat.domain.mail.message import read_mail
from tinyfat.ports.ledger import NotFound
from tinyfat.ports.mail import Envelope, NeverRoom, NoRoom
from tinyfat.store import operator_mails
from tinyfat.store.database import Database
from tinyfat.store.operator_mails import OperatorMailStore

ENVELOPE = Envelope("192.0.2.1", "peer.example", "bounce@peer.example")


async def kept(store: OperatorMailStore, raw: bytes, mailbox: str = "abuse") -> str:
    return await store.keep(mailbox, f"{mailbox}@agents.example", ENVELOPE, read_mail(raw), raw)


@pytest.mark.parametrize(
    ("address", "mailbox"),
    [
        ("postmaster@agents.example", "postmaster"),
        ("PostMaster@Agents.Example", "postmaster"),
        ("Postmaster", "postmaster"),
        ("<abuse@agents.example>", "abuse"),
        ("abuse+4711@agents.example.", "abuse"),
        ("postmaster@elsewhere.example", ""),
        ("abuse", ""),
        ("ada@agents.example", ""),
        ("postmasters@agents.example", ""),
        ("postmaster@sub.agents.example", ""),
        ("", ""),
    ],
)
def test_which_addresses_are_the_operators(address: str, mailbox: str) -> None:
    assert operator_mailbox(address, "agents.example") == mailbox


def test_no_agent_can_have_such_a_name() -> None:
    assert OPERATOR_MAILBOXES <= RESERVED_NAMES


async def test_a_mail_is_kept_once_in_each_mailbox_and_shown_as_it_came(database: Database) -> None:
    store, raw = OperatorMailStore(database), mail("Spam from you.")
    first = await kept(store, raw)
    assert await kept(store, raw) == first != await kept(store, raw, "postmaster")
    assert [one.mailbox for one in await store.list(10)] == ["abuse", "postmaster"]
    assert [one.mailbox for one in await store.list(1)] == ["postmaster"]
    shown, content = await store.get(first[:13])
    assert content == raw and (shown.id, shown.subject, shown.client_ip) == (first, "Boats", "192.0.2.1")
    for nobody in ("", "zzz", "0" * 8):
        with pytest.raises(NotFound):
            await store.get(nobody)


async def test_its_room_is_bounded_by_sender_and_in_all(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OperatorMailStore(database)
    monkeypatch.setattr(operator_mails, "SENDER_MAILS_MAX", 2)
    monkeypatch.setattr(operator_mails, "MAILS_MAX", 3)
    first = mail("1", sender="a@a.example")
    for raw in (first, mail("2", sender="a@a.example")):
        await kept(store, raw)
    with pytest.raises(NoRoom):
        await kept(store, mail("3", sender="a@a.example"))
    await kept(store, mail("4", sender="b@b.example"))
    with pytest.raises(NoRoom):
        await kept(store, mail("5", sender="c@c.example"))
    await kept(store, first)  # it is there already
    monkeypatch.setattr(operator_mails, "MAIL_BYTES_MAX", 100)
    with pytest.raises(NeverRoom):
        await kept(store, mail("x" * 200))


async def test_many_at_once_do_not_pass_the_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OperatorMailStore(database)
    monkeypatch.setattr(operator_mails, "SENDER_MAILS_MAX", 3)
    ended = await asyncio.gather(*(kept(store, mail(str(n))) for n in range(8)), return_exceptions=True)
    assert sum(isinstance(one, NoRoom) for one in ended) == 5 and len(await store.list(10)) == 3
