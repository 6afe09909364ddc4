"""A real `tinyfat up` in a process of its own, for stories and faults: started, killed, asked by its command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib

from tests.machine_speed import patient

UP_SECONDS_MAX = 60.0
COMMAND_SECONDS_MAX = 120.0
OWNER = "owner@example.org"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Look until it holds; AssertionError names `what` did not come true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patient(seconds)
    turn = asyncio.Event()
    while not await condition():
        assert loop.time() < deadline, f"not within {seconds} s: {what}"
        loop.call_later(0.02, turn.set)
        await turn.wait()
        turn.clear()


class CommandError(AssertionError):
    def __init__(self, arguments: Sequence[str], code: int, out: str, err: str) -> None:
        super().__init__(f"tinyfat {' '.join(arguments)}: exit {code}\n{out}\n{err}")
        self.code, self.out, self.err = code, out, err


def surroundings() -> dict[str, str]:
    """The environment without a setting or a key of whoever runs the tests; the cache alone is theirs."""
    ours = {"FIREWORKS_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"} | {
        name for name in os.environ if name.startswith("TINYFAT_") and name != "TINYFAT_CACHE"
    }
    return {name: value for name, value in os.environ.items() if name not in ours}


class TinyFat:
    """One home. `start` and `kill` may be called again and again: home and ports stay."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.smtp_port, self.http_port, self.relay_port = free_port(), free_port(), free_port()
        self.environment = surroundings() | {
            "TINYFAT_HOME": str(home),
            "TINYFAT_PROCESS_SHARED": "true",  # agents of many owners; what is refused without it has a test of its own
            "TINYFAT_MAIL_QUICK_ANSWERS": "0",  # the senders are programs: tests/flows/test_loop_watch has the breaker
            "TINYFAT_SMTP_LISTEN": f"127.0.0.1:{self.smtp_port}",
            "TINYFAT_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "TINYFAT_RELAY_LISTEN": f"127.0.0.1:{self.relay_port}",
            "NO_COLOR": "1",
            "TINYFAT_MODEL_URL": "http://127.0.0.1:9/v1",  # nobody is there: echo asks no model
            **settings,
        }
        self.process: asyncio.subprocess.Process | None = None
        self.log = home.with_name(home.name + ".log")

    async def __aenter__(self) -> TinyFat:
        try:
            await self.start()
        except BaseException:
            if self.process is not None:
                await self.stop()  # one that does not answer is still there
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing stays behind, whatever the test did to it."""
        if self.process is None or self.process.returncode is not None:
            await self.start()  # a killed one left boxes and a database: an orderly start and stop ends them
        await self.stop()

    async def start(self, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tinyfat",
                "up",
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=self.home.parent,
            )
        if wait:
            await self.ready()

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.process is not None
            assert self.process.returncode is None, f"tinyfat up ended:\n{self.log.read_text()[-3000:]}"
            return await _status(self.http_port, "/readyz") == 200 and await self._greets()

        await until(answers, UP_SECONDS_MAX, f"tinyfat up answers; its log: {self.log}")

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.smtp_port)
        except OSError:
            return False
        greeting = await reader.readline()
        writer.close()
        return greeting.startswith(b"220")

    async def kill(self) -> None:
        """SIGKILL to the control plane alone: the boxes and the database live on, as after a crash."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self, seconds: float = 60.0) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(patient(seconds)):
            return await self.process.wait()

    async def command(self, *arguments: str, seconds: float = COMMAND_SECONDS_MAX) -> str:
        """Raises CommandError unless it exits with 0."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tinyfat", *arguments, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=self.home.parent,
        )  # fmt: skip
        async with asyncio.timeout(patient(seconds)):
            out, err = await process.communicate()
        if process.returncode != 0:
            raise CommandError(arguments, process.returncode or 0, out.decode(), err.decode())
        return out.decode()

    async def json(self, *arguments: str, seconds: float = COMMAND_SECONDS_MAX) -> Any:
        return json.loads(await self.command(*arguments, "--json", seconds=seconds))

    async def make_agent(self, name: str, owner: str = OWNER, runtime: str = "echo") -> Any:
        return await self.json("agent", "create", name, "--owner", owner, "--runtime", runtime, "--wait")

    async def send(self, message: EmailMessage | bytes, mail_from: str = OWNER, to: str | Sequence[str] = "") -> str:
        """By SMTP; the server's last line. Raises aiosmtplib's errors for a refusal."""
        raw = message if isinstance(message, bytes) else message.as_bytes()
        recipients = [to] if isinstance(to, str) and to else list(to) or [str(message["To"])]  # type: ignore[index,call-overload]
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=self.smtp_port, start_tls=False) as smtp:
            _, response = await smtp.sendmail(mail_from, recipients, raw)
        return response

    async def mail(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.json("mail", "list", name)
        return found

    def turns_log(self) -> list[dict[str, Any]]:
        """What every echo runtime of this home did, as its process wrote it down itself."""
        lines = [
            line for file in self.home.glob("machines/*/state/turns.log") for line in file.read_text().splitlines()
        ]
        return [json.loads(line) for line in lines if line.strip()]


def letter(
    text: str, *, to: str = "ada@tinyfat.localhost", sender: str = OWNER, subject: str = "Hello", message_id: str = "",
    in_reply_to: str = "", references: str = "",
) -> EmailMessage:  # fmt: skip
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, to, subject
    if message_id:
        mail["Message-ID"] = message_id
    if in_reply_to:
        mail["In-Reply-To"] = in_reply_to
    if references or in_reply_to:
        mail["References"] = references or in_reply_to
    mail.set_content(text)
    return mail


async def _status(port: int, path: str) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        return int(line.split()[1]) if line else 0
    except (OSError, IndexError, ValueError):
        return 0
