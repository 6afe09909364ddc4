"""Real peers: mail sent by swaks and through a real Postfix, the reply received by it and read by another library."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mailparser
import psutil
import pytest
import pytest_asyncio
from bench.postfix import Postfix

from tests.certificates import Certificate, certificate
from tests.machine_speed import patient
from tests.running import OWNER, TinyFat, until
from tests.stories.town import Operator, new_id
from tinyfat.store.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]
if os.geteuid() != 0:
    pytestmark.append(pytest.mark.skip(reason="Postfix starts as root only; this is an ordinary user"))
elif not (shutil.which("swaks") and Path("/usr/lib/postfix/sbin/master").exists()):
    pytestmark.append(pytest.mark.skip(reason="swaks or Postfix is not installed: make story-mail installs them"))

ADA = "ada@tinyfat.localhost"
NOBODY = 65534  # the user the owner's mailbox belongs to
SECONDS = 30.0
SECRET_TEXT = "My boat is called Heron."


@dataclass(frozen=True)
class Peers:
    """A TinyFat, its agent ada, and the owner's mail system: Postfix, whose Maildir holds what the owner receives."""

    tinyfat: TinyFat
    operator: Operator
    postfix: Postfix
    database: EmbeddedPostgres
    maildir: Path

    async def received(self, in_reply_to: str) -> list[Any]:
        """The owner's mails that answer this one, read by mail-parser."""
        files = sorted(self.maildir.glob("new/*"), key=lambda file: file.stat().st_mtime_ns)
        mails = [mailparser.parse_from_bytes(file.read_bytes()) for file in files]
        return [mail for mail in mails if header(mail, "In-Reply-To") == in_reply_to]

    async def reply_to(self, message_id: str) -> Any:
        async def came() -> bool:
            return bool(await self.received(message_id))

        await until(came, SECONDS, f"a reply to {message_id} in the Maildir; {self.postfix.log}")
        return (await self.received(message_id))[0]

    async def queued(self) -> list[str]:
        """What Postfix keeps: one line for each mail and recipient, the reason with it."""
        return (await run("postqueue", "-c", str(self.postfix.configuration), "-j")).splitlines()

    async def kept_for(self, reason: str) -> None:
        async def kept() -> bool:
            return any(reason in line for line in await self.queued())

        await until(kept, SECONDS, f"Postfix keeps it, saying {reason!r}")

    async def delivered_all(self) -> None:
        async def empty() -> bool:
            return not await self.queued()

        await until(empty, SECONDS, "Postfix's queue is empty")


def header(mail: Any, name: str) -> str:
    return " ".join(str(mail.headers.get(name, "")).split())


async def run(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(patient(SECONDS)):
        out, _ = await process.communicate()
    assert process.returncode == 0, f"{' '.join(argv)}: exit {process.returncode}\n{out.decode(errors='replace')}"
    return out.decode(errors="replace")


async def swaks(port: int, message_id: str, *more: str, body: str = "Hello.", sender: str = OWNER) -> str:
    """Its transcript."""
    return await run(
        "swaks", "--server", f"127.0.0.1:{port}", "--from", sender, "--to", ADA, "--body", body,
        "--header", f"Message-Id: {message_id}", "--helo", "laptop.example.org", *more,
    )  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peers() -> AsyncIterator[Peers]:
    folder = Path(tempfile.mkdtemp(prefix="tinyfat-peers-", dir="/tmp"))  # Postfix's own users must get into it
    folder.chmod(0o755)
    try:
        async with _together(folder) as peers:
            yield peers
        assert _left_behind(folder) == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _together(folder: Path) -> AsyncIterator[Peers]:
    made = certificate(folder)
    database = EmbeddedPostgres(_made(folder / "database"))
    mailboxes = _made(folder / "mailboxes")
    os.chown(mailboxes, NOBODY, NOBODY)
    tinyfat = TinyFat(
        folder / "home",
        TINYFAT_DATABASE_URL=database.url,
        TINYFAT_SMTP_CERTIFICATE=str(made.certificate),
        TINYFAT_SMTP_CERTIFICATE_KEY=str(made.key),
    )
    postfix = Postfix(folder / "postfix", _main(mailboxes, tinyfat.smtp_port, made), _VIRTUAL)
    tinyfat.environment["TINYFAT_SMARTHOST"] = f"127.0.0.1:{postfix.port}"
    await database.start()
    try:
        async with postfix, tinyfat, Operator(tinyfat) as operator:
            await operator.make_agent("ada")
            yield Peers(tinyfat, operator, postfix, database, mailboxes / "owner")
    finally:
        await database.stop()


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o755)
    return folder


_VIRTUAL = "virtual unix - n n - - virtual\n"


def _main(mailboxes: Path, smtp_port: int, made: Certificate) -> dict[str, str]:
    """The owner's mail system: it relays to TinyFat by TLS, comes again within a second, keeps the owner's mail."""
    onward = f"smtp:[127.0.0.1]:{smtp_port}"
    return {
        # What goes to far.example is taken, refused on its way by somebody who is not its mail system, and sent back.
        "transport_maps": f"inline:{{{{tinyfat.localhost={onward}}}, {{far.example={onward}}}}}",
        "virtual_mailbox_domains": "example.org",
        "virtual_mailbox_maps": "inline:{owner@example.org=owner/}",
        "virtual_mailbox_base": str(mailboxes),
        "virtual_uid_maps": f"static:{NOBODY}",
        "virtual_gid_maps": f"static:{NOBODY}",
        "virtual_minimum_uid": "1",
        "queue_run_delay": "1s",
        "minimal_backoff_time": "1s",
        "maximal_backoff_time": "1s",
        "transport_retry_time": "1s",
        "smtp_tls_security_level": "encrypt",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(made.certificate),
        "smtpd_tls_key_file": str(made.key),
        "smtp_tls_loglevel": "1",
        "smtpd_tls_loglevel": "1",
    }


def _left_behind(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()) or str(folder) in process.cwd():
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


async def test_swaks_says_hello(peers: Peers) -> None:
    message_id = new_id()
    said = await swaks(peers.tinyfat.smtp_port, message_id, body=SECRET_TEXT)
    assert "250 2.0.0 Ok: kept as" in said
    reply = await peers.reply_to(message_id)
    assert SECRET_TEXT in reply.text_plain[0] and SECRET_TEXT in reply.text_html[0]
    assert reply.from_ == [("ada", ADA)] and reply.to == [("", OWNER)]
    assert header(reply, "References") == message_id and not reply.has_defects


async def test_swaks_by_starttls(peers: Peers) -> None:
    message_id = new_id()
    said = await swaks(peers.tinyfat.smtp_port, message_id, "--tls")
    assert "TLS started with cipher" in said and "250 2.0.0 Ok: kept as" in said
    await peers.reply_to(message_id)


async def test_swaks_with_a_file_and_a_file_comes_back(peers: Peers, tmp_path: Path) -> None:
    message_id = new_id()
    file = tmp_path / "table.csv"
    file.write_bytes(b"a,b\r\n1,2\r\n")
    await swaks(peers.tinyfat.smtp_port, message_id, "--attach", f"@{file}", body="echo: attach report.pdf 5000")
    reply = await peers.reply_to(message_id)
    assert "table.csv (10 bytes)" in reply.text_plain[0]
    (attachment,) = reply.attachments
    assert attachment["filename"] == "report.pdf" and attachment["mail_content_type"] == "application/pdf"


async def test_swaks_hears_550(peers: Peers) -> None:
    with pytest.raises(AssertionError, match=r"550 5\.1\.1"):
        await swaks(peers.tinyfat.smtp_port, new_id(), "--to", "nobody@tinyfat.localhost")


async def test_a_conversation_through_postfix_both_ways(peers: Peers) -> None:
    first = new_id()
    await swaks(peers.postfix.port, first, body=SECRET_TEXT)
    one = await peers.reply_to(first)
    assert header(one, "Auto-Submitted") == "auto-replied"
    assert header(one, "Return-Path").startswith("<ada+bounce.")
    second = new_id()
    await swaks(
        peers.postfix.port, second, "--header", f"In-Reply-To: {header(one, 'Message-ID')}",
        "--header", f"References: {first} {header(one, 'Message-ID')}", "--header", "Subject: Another thing",
        body="What is its name?",
    )  # fmt: skip
    two = await peers.reply_to(second)
    assert "Heron" in two.text_plain[0] and two.subject == "Re: Another thing"
    assert header(two, "References").split() == [first, header(one, "Message-ID"), second]
    log = peers.postfix.log.read_text()
    assert "TLS connection established to 127.0.0.1" in log, "Postfix to TinyFat"
    assert "TLS connection established from" in log, "TinyFat to Postfix"


async def test_what_postfix_refuses_and_what_it_sends_back_later_is_known_of_the_very_mail(peers: Peers) -> None:
    for sender, state, words in (
        ("nobody@example.org", "refused", "User unknown"),
        ("gone@far.example", "bounced", "gone@far.example failed 5.1.1"),
    ):
        await peers.operator.ask("POST", "agents/ada/senders", json={"pattern": sender})
        message_id = new_id()
        await swaks(peers.tinyfat.smtp_port, message_id, sender=sender)
        await peers.operator.becomes((await peers.operator.incoming("ada", message_id))["id"], "answered")
        row = await peers.operator.becomes((await peers.operator.outgoing("ada", message_id))["id"], state)
        assert words in row["reason"], row["reason"]
    newest = [m for m in await peers.operator.mail("ada") if m["direction"] == "in"][-1]
    assert newest["state"] == "bounce" and newest["turn_id"] is None


async def test_postfix_keeps_a_mail_while_tinyfat_is_down_and_it_is_answered_once(peers: Peers) -> None:
    message_id = new_id()
    await peers.tinyfat.stop()
    await swaks(peers.postfix.port, message_id, body=f"While you were away {uuid.uuid4()}")
    await peers.kept_for("Connection refused")
    await peers.tinyfat.start()
    await peers.reply_to(message_id)
    await peers.delivered_all()
    await _answered_once(peers, message_id)


async def test_postfix_keeps_a_mail_while_the_database_is_away_and_it_is_answered_once(peers: Peers) -> None:
    message_id = new_id()
    await peers.database.stop()
    await swaks(peers.postfix.port, message_id, body="While your memory was away")
    await peers.kept_for("451")
    await peers.database.start()
    await peers.reply_to(message_id)
    await peers.delivered_all()
    await _answered_once(peers, message_id)


async def test_while_postfix_is_down_our_replies_wait_and_leave_once(peers: Peers) -> None:
    """The smarthost is stopped: what it does not take waits in our ledger, and leaves after a restart."""
    message_id = new_id()
    stop = ("postfix", "-c", str(peers.postfix.configuration), "stop")
    start = ("postfix", "-c", str(peers.postfix.configuration), "start")
    await run(*stop)
    try:
        await swaks(peers.tinyfat.smtp_port, message_id)
        row = await peers.operator.incoming("ada", message_id)
        await peers.operator.becomes(row["id"], "answered")
        await peers.operator.becomes((await peers.operator.outgoing("ada", message_id))["id"], "deferred")
    finally:
        await run(*start)
    await peers.tinyfat.stop()
    await peers.tinyfat.start()
    await peers.reply_to(message_id)
    await _answered_once(peers, message_id)


async def _answered_once(peers: Peers, message_id: str) -> None:
    """A later mail's reply has come, and this one still has one."""
    after = new_id()
    await swaks(peers.postfix.port, after)
    await peers.reply_to(after)
    assert len(await peers.received(message_id)) == 1
    rows = [m for m in await peers.operator.mail("ada") if m["message_id"] == message_id]
    assert [m["state"] for m in rows] == ["answered"]
