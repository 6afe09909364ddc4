"""`tinyfat demo`: the whole product once, on this machine, in a folder that is gone afterwards.

It starts a real `tinyfat up`, makes the agent `ada`, writes to her by SMTP, and receives her replies by SMTP as the
smarthost: what a mail provider would do. What it says of usual times was seen on two quiet cores.
"""

from __future__ import annotations

import email
import email.policy
import os
import queue
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from rich.rule import Rule
from rich.text import Text

from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.home import Home
from tinyfat.cli.output import console, one_line
from tinyfat.settings import Settings, load_settings

OWNER = "you@example.org"
UP_SECONDS_MAX = 120.0
MAKE_SECONDS_MAX = 30 * 60.0
REPLY_SECONDS_MAX = 300.0
STOP_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1
FILE_SHOWN_CHARS = 1000
_DONE = Text("✓", "green")
SUBJECT = "My boat"
FIRST = (
    "Hello Ada, my boat is called Heron and lies in Kiel. A berth costs 45 euros a night.\n\nWhat is 7 * 45?\n\nRobin\n"
)
SECOND = "Hello Ada,\n\nwhat is my boat called, and where does it lie?\n\nRobin\n"
FILE = "boat.txt"
THIRD = f"Hello Ada,\n\nplease write what you know about my boat into a file, {FILE}, and attach it.\n\nRobin\n"
NEXT = (
    (".venv/bin/tinyfat up", "stays up; then, in another terminal:"),
    (".venv/bin/tinyfat agent create ada --owner you@example.org --wait", "an agent of your own"),
    (".venv/bin/tinyfat doctor", "what works on this machine, and what a real domain needs"),
)


class Mailbox:
    """The owner's mail provider: takes the replies that TinyFat sends."""

    def __init__(self) -> None:
        self.arrived: queue.Queue[tuple[float, bytes]] = queue.Queue()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.arrived.put((time.time(), envelope.content))
        return "250 2.0.0 Ok: in the mailbox"


def demo() -> None:
    """An agent answers three mails of one thread, here and now: a sum, what it was told, a file."""
    began = time.monotonic()
    mailbox = Mailbox()
    provider = Controller(mailbox, hostname="127.0.0.1", port=_free_port())
    provider.start()
    folder = Path(tempfile.mkdtemp(prefix="tinyfat-demo-"))
    settings = _settings(folder, provider.port)
    try:
        with _tinyfat_up(settings, folder):
            client = _client_when_up(settings)
            _say_model(client)
            _make_agent(client)
            first = _exchange(client, settings, mailbox, SUBJECT, FIRST, None)
            second = _exchange(client, settings, mailbox, f"Re: {SUBJECT}", SECOND, first)
            third = _exchange(client, settings, mailbox, f"Re: {SUBJECT}", THIRD, second)
            _check(client, first, second, third)
    except KeyboardInterrupt:
        console.print("Stopped. Nothing runs on, and nothing of the demo is left.")
        raise
    finally:
        provider.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(Rule())
    console.print(_DONE, f"ada answered three mails: a sum, what she was told, a file. {_since(began)} in all.")
    console.print("\nNext:")
    for command, what in NEXT:
        console.print(f"  {command}", style="bold")
        console.print(f"      {what}")
    console.print("README.md says how to write to ada from your mail program.")


def _settings(folder: Path, smarthost_port: int) -> Settings:
    """The user's own model and cache; everything else is the demo's."""
    own = {
        "TINYFAT_HOME": str(folder / "home"),
        "TINYFAT_DOMAIN": "tinyfat.localhost",
        "TINYFAT_SMTP_LISTEN": f"127.0.0.1:{_free_port()}",
        "TINYFAT_HTTP_LISTEN": f"127.0.0.1:{_free_port()}",
        "TINYFAT_RELAY_LISTEN": f"127.0.0.1:{_free_port()}",
        "TINYFAT_SMARTHOST": f"127.0.0.1:{smarthost_port}",
        "TINYFAT_MAIL_TRUST": "127.0.0.0/8",
    }
    for name in (
        "TINYFAT_DATABASE_URL",
        "TINYFAT_DKIM_KEY",
        "TINYFAT_SMTP_CERTIFICATE",
        "TINYFAT_SMTP_CERTIFICATE_KEY",
    ):
        os.environ.pop(name, None)
    os.environ.update(own)
    return load_settings()


@contextmanager
def _tinyfat_up(settings: Settings, folder: Path) -> Iterator[None]:
    log = folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tinyfat", "up"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    except Exception:
        console.print(Text("The demo failed.", "red"), "What TinyFat wrote:")
        console.print(log.read_text(errors="replace")[-4000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        with _waiting("stopping: the agent's machine ends, and is seen to end (about 2 s)"):
            process.wait(STOP_SECONDS_MAX)


def _client_when_up(settings: Settings) -> Client:
    with _waiting("starting TinyFat: Postgres, the engine, SMTP and HTTP (about 5 s)"):
        home = Home(settings.home)
        _until(lambda: home.running() is not None, UP_SECONDS_MAX, "TinyFat did not start.")
    console.print(_DONE, f"TinyFat is up: SMTP on {settings.smtp_listen}, HTTP on {settings.http_listen}")
    return Client(settings)


def _say_model(client: Client) -> None:
    model = client.get("status")["model"]
    console.print(f"  model: {model['model']} ({model['source']})")
    if "stand-in" in model["source"]:
        console.print(
            "  No key is set, so the model is a stand-in of ours: it knows only what the conversation says.\n"
            "  OpenClaw, the mail and the memory are real. For a real model, set FIREWORKS_API_KEY,\n"
            "  ANTHROPIC_API_KEY or OPENAI_API_KEY."
        )


def _make_agent(client: Client) -> None:
    began = time.monotonic()
    client.post("agents", body={"name": "ada", "owner": OWNER, "runtime": "openclaw", "machine": "process"})
    with _waiting("making the agent ada") as say:
        console.print("  OpenClaw starts: the first time 15-60 s, and before that some minutes to fetch 650 MB, once")

        def made() -> bool:
            agent = client.get("agents", "ada")
            if agent["state"] == "failed":
                raise CommandFailed(agent["reason"])
            step = next((s["name"] for s in agent["steps"] if not s["ended_at"]), "")
            detail = (agent["machine"] or {}).get("detail", "")
            if step:
                say(f"making the agent ada: {step}", detail)
            return bool(agent["state"] == "ready")

        _until(made, MAKE_SECONDS_MAX, "ada did not become ready.")
    for step in client.get("agents", "ada")["steps"]:
        console.print(f"  ✓ {step['name']}  {_between(step['started_at'], step['ended_at']):.1f} s")
    console.print(_DONE, f"ada@tinyfat.localhost is ready: {_since(began)}. OpenClaw runs in a process of its own.")


def _exchange(
    client: Client, settings: Settings, mailbox: Mailbox, subject: str, text: str, answers: EmailMessage | None
) -> EmailMessage:
    """Write to ada, wait for the reply, print both and the times. Gives back the reply."""
    mail = _mail(subject, text, answers)
    _print_mail(f"mail to ada, by SMTP to {settings.smtp_listen}", mail)
    with smtplib.SMTP(settings.smtp_listen.host, settings.smtp_listen.port, timeout=30) as smtp:
        smtp.send_message(mail)
    sent_at = time.time()
    with _waiting("waiting for ada's reply (about a second with the stand-in)"):
        try:
            arrived_at, raw = mailbox.arrived.get(timeout=REPLY_SECONDS_MAX)
        except queue.Empty:
            raise CommandFailed(f"No reply came within {REPLY_SECONDS_MAX:.0f} s.") from None
    reply = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(reply, EmailMessage)
    _print_mail("reply of ada, by SMTP to the owner's mailbox", reply)
    _print_times(client, str(mail["Message-ID"]), sent_at, arrived_at)
    return reply


def _mail(subject: str, text: str, answers: EmailMessage | None) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = f"Robin <{OWNER}>", "ada@tinyfat.localhost", subject
    mail["Date"] = datetime.now().astimezone()
    mail["Message-ID"] = make_msgid(domain="example.org")
    if answers is not None:
        mail["In-Reply-To"] = mail["References"] = str(answers["Message-ID"])
    mail.set_content(text)
    return mail


def _print_mail(title: str, mail: EmailMessage) -> None:
    console.print(Rule(title, align="left"))
    for name in ("From", "To", "Subject", "Message-ID", "In-Reply-To"):
        if mail[name]:
            console.print(one_line(f"{name}: {mail[name]}"))
    console.print()
    console.print(_body(mail).rstrip())
    for file in mail.iter_attachments():
        console.print(f"\nattached: {one_line(str(file.get_filename()))}", style="bold")
        console.print(_text_of(file)[:FILE_SHOWN_CHARS].rstrip())


def _print_times(client: Client, message_id: str, sent_at: float, arrived_at: float) -> None:
    messages = client.get("agents", "ada", "mail")
    row = next(m for m in messages if m["message_id"] == message_id)
    turn = client.get("mail", row["id"])["turn"]
    to_runtime, thinking = turn["asked_at"] - sent_at, turn["answered_at"] - turn["asked_at"]
    home = arrived_at - turn["answered_at"]
    console.print(
        f"  sent to OpenClaw {max(0.0, to_runtime) * 1000:.0f} ms · OpenClaw and its model {thinking:.1f} s · "
        f"answer to mailbox {home * 1000:.0f} ms · in all {arrived_at - sent_at:.1f} s",
        style="dim",
    )


def _text_of(file: Any) -> str:
    content = file.get_content()
    return content if isinstance(content, str) else "(no text)"


def _check(client: Client, first: EmailMessage, second: EmailMessage, third: EmailMessage) -> None:
    """The demo promises a sum, memory and a file: look whether they were there."""
    messages = client.get("agents", "ada", "mail")
    if len({m["thread"] for m in messages}) != 1 or len(messages) != 6:
        raise CommandFailed("The three mails and their replies are not one conversation in the ledger.")
    if "315" not in _body(first):
        raise CommandFailed("The first reply has no sum.")
    if "heron" not in _body(second).lower():
        raise CommandFailed("The second reply does not know what the first mail said.")
    files = [_text_of(file) for file in third.iter_attachments()]
    if not any("heron" in text.lower() for text in files):
        raise CommandFailed("The third reply has no file that says what the first mail said.")


def _body(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    return str(body.get_content()) if body else ""


@contextmanager
def _waiting(words: str) -> Iterator[Any]:
    """Say what is waited for: a spinner on a terminal, elsewhere one line a step, without what changes meanwhile."""
    if console.is_terminal:
        with console.status(words) as status:
            yield lambda text, detail="": status.update(Text(one_line(f"{text} ({detail})" if detail else text)))
    else:
        console.print(f"  … {words}")
        said = {words}

        def say(text: str, detail: str = "") -> None:
            if text not in said:
                said.add(text)
                console.print(f"  … {one_line(text)}")

        yield say


def _until(condition: Any, seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandFailed(complaint)
        time.sleep(LOOK_SECONDS)


def _between(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
