"""The hostile corpus through a running TinyFat, from the owner and from strangers: none crashes it, none is lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from tests.machine_speed import patient
from tests.mail_corpus import corpus
from tests.running import OWNER, TinyFat, letter, until
from tests.stories.test_http import signed
from tests.stories.town import House, Operator, PostOffice, new_id
from tinyfat.domain.mail.states import MessageState

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
QUINN = "quinn@tinyfat.localhost"
STRANGER = "stranger@elsewhere.example"
SECRET = "a secret of the corpus"
SENDERS_AT_ONCE = 8
SHOWN_EVERY = 4
SETTLED = {
    MessageState.ANSWERED, MessageState.FAILED, MessageState.QUARANTINED, MessageState.IGNORED, MessageState.HELD,
    MessageState.BOUNCE,
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def quinn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with (
        PostOffice() as office,
        TinyFat(
            tmp_path_factory.mktemp("corpus") / "home",
            TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}",
            TINYFAT_INBOUND_SECRET=SECRET,
            TINYFAT_MAIL_TRUST="127.0.0.0/8, ::1/128, 198.51.100.0/24",
            TINYFAT_TURN_DEADLINE="60",
            TINYFAT_QUARANTINE_SENDER_BYTES=str(200 * 1024**2),  # a stranger's whole corpus is 64 MB in 374 mails
            TINYFAT_QUARANTINE_SENDER_MAILS="1000",
        ) as tinyfat,
        Operator(tinyfat) as operator,
    ):
        await operator.make_agent("quinn")
        yield House(tinyfat, office, operator)


class Peer:
    """Speaks SMTP as carelessly as the corpus is: the bytes go out as they are, only dots are doubled."""

    def __init__(self, house: House, sender: str) -> None:
        self.house, self.sender = house, sender

    async def send(self, raw: bytes) -> str:
        """The answer to DATA; what SMTP does not take is handed in by HTTP, which takes any bytes."""
        said = await self._by_smtp(raw)
        return said if said.startswith("250") else await self._by_http(raw)

    async def _by_smtp(self, raw: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.house.tinyfat.smtp_port)
        try:
            await reader.readline()
            for line in ("EHLO peer.example", f"MAIL FROM:<{self.sender}>", f"RCPT TO:<{QUINN}>", "DATA"):
                writer.write(line.encode() + b"\r\n")
                while (answer := await reader.readline())[3:4] == b"-":
                    pass
                assert answer[:1] in (b"2", b"3"), answer
            stuffed = re.sub(rb"(?m)^\.", b"..", raw)
            writer.write(stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n"))
            async with asyncio.timeout(patient(60)):
                return (await reader.readline()).decode()
        finally:
            writer.close()

    async def _by_http(self, raw: bytes) -> str:
        url = f"http://127.0.0.1:{self.house.tinyfat.http_port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=patient(60.0)) as client:
            headers = signed(raw, secret=SECRET, to=QUINN, mail_from=self.sender)
            answer = await client.post("/mail/inbound", content=raw, headers=headers)
        assert answer.status_code == 202, answer.text
        return f"250 kept as {answer.json()['kept']}"


async def send_all(house: House, sender: str, whole: bool) -> list[str]:
    """The ledger's row of each message."""
    peer, kept, slots = Peer(house, sender), [], asyncio.Semaphore(SENDERS_AT_ONCE)

    async def one(name: str, raw: bytes) -> None:
        async with slots:
            said = await peer.send(raw)
        match = re.search(r"kept as (\S+)", said)
        assert match, f"{name}: {said}"
        kept.append(match[1])

    async with asyncio.TaskGroup() as group:
        for number, mail in enumerate(corpus(sender, QUINN)):
            if whole or number % 3 == (sender == STRANGER):
                group.create_task(one(mail.name, mail.raw))
    return kept


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_the_corpus_is_taken_in_answered_once_and_shown(quinn: House, whole: bool) -> None:
    """A third from the owner and another from a stranger, or all from both."""
    for sender in (OWNER, STRANGER):
        await _is_taken_in_and_ends_in_named_states(quinn, sender, whole)
    await _each_answered_message_has_one_reply_and_it_left(quinn)
    await _can_be_shown(quinn)
    await _is_as_well_as_before(quinn)


async def _is_taken_in_and_ends_in_named_states(quinn: House, sender: str, whole: bool) -> None:
    before = {m["id"] for m in await quinn.operator.mail("quinn")}
    began = time.monotonic()
    kept = await send_all(quinn, sender, whole)
    assert len(kept) >= (450 if whole else 150)

    async def settled() -> bool:
        counts = (await quinn.operator.ask("GET", "status"))["mail"]
        return not any(counts.get(f"in {state}") for state in ("queued", "running"))

    await until(settled, 120.0, "every message is settled")
    rows = [m for m in await quinn.operator.mail("quinn") if m["id"] not in before]
    coming = [m for m in rows if m["direction"] == "in"]
    # Some name the same Message-ID, and are the same mail by that; every answer names its row, and every row an answer.
    assert {m["id"] for m in coming} == set(kept) - before
    states = Counter(MessageState(m["state"]) for m in coming)
    assert set(states) <= SETTLED, states
    assert states[MessageState.FAILED] == 0, [m["subject"] for m in coming if m["state"] == "failed"]
    if sender == STRANGER:
        assert states[MessageState.ANSWERED] == 0 and states[MessageState.QUARANTINED] > len(coming) / 2, states
    else:
        assert states[MessageState.ANSWERED] > len(coming) / 2, states
    print(f"{len(kept)} messages from {sender} in {time.monotonic() - began:.1f} s: {dict(states)}")


async def _each_answered_message_has_one_reply_and_it_left(quinn: House) -> None:
    async def gone() -> bool:
        counts = (await quinn.operator.ask("GET", "status"))["mail"]
        return not any(counts.get(f"out {state}") for state in ("queued", "deferred"))

    await until(gone, 60.0, "every reply left")
    rows = await quinn.operator.mail("quinn")
    answered = [m["turn_id"] for m in rows if m["direction"] == "in" and m["state"] == "answered"]
    sent = [m["turn_id"] for m in rows if m["direction"] == "out"]
    assert {m["state"] for m in rows if m["direction"] == "out"} == {"sent"}
    assert sorted(sent) == sorted(answered) and len(set(sent)) == len(sent)
    copies = [one for one, times in Counter(one.message_id for one in quinn.office.received).items() if times > 1]
    assert not copies, [(m["id"], m["attempts"], m["response"]) for m in rows if m["message_id"] in copies]
    assert len(quinn.office.received) == len(sent)
    assert len({one.message_id for one in quinn.office.received}) == len(sent)
    assert {tuple(one.rcpt_to) for one in quinn.office.received} == {(OWNER,)}


async def _can_be_shown(quinn: House) -> None:
    for row in (await quinn.operator.mail("quinn"))[::SHOWN_EVERY]:
        await quinn.operator.ask("GET", f"mail/{row['id']}")
    listed = await quinn.tinyfat.command("mail", "list", "quinn")
    assert all(c.isprintable() or c == "\n" for c in listed)


async def _is_as_well_as_before(quinn: House) -> None:
    message_id = new_id()
    await quinn.tinyfat.send(letter("Still there?", to=QUINN, message_id=message_id))
    await quinn.office.reply_to(message_id)
    assert quinn.tinyfat.process is not None and quinn.tinyfat.process.returncode is None
    log = quinn.tinyfat.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
