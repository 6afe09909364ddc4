"""A chain from mail to mail, and ours: TinyFat with the echo runtime."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import TinyFat

from bench.sink import Reply, Sink

NO_CAP = "1000000000"


@dataclass(frozen=True, slots=True)
class Chain:
    """Mail goes in at `port` of loopback, the echo runtime answers, the reply arrives at the sink."""

    name: str
    port: int
    turns_logs: Path  # a folder under which the runtime's turns.log is
    names_turns: bool  # the reply's Message-ID names the turn; else the question's Message-ID is the turn's id

    def turn_id(self, question_id: str, reply: Reply) -> str:
        return reply.message_id.removeprefix("<turn.").partition("@")[0] if self.names_turns else question_id

    def moments(self) -> dict[tuple[str, str], float]:
        """(turn id, "received" or "answered") -> Unix seconds, as the runtime wrote it down."""
        lines = [line for file in self.turns_logs.rglob("turns.log") for line in file.read_text().splitlines()]
        notes: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return {(note["turn"], note["event"]): note["at"] for note in notes}


@asynccontextmanager
async def ours(folder: Path, sink: Sink) -> AsyncIterator[Chain]:
    async with TinyFat(
        folder / "turns",
        TINYFAT_SMARTHOST=f"127.0.0.1:{sink.port}",
        TINYFAT_MAIL_RATE_SENDER=NO_CAP,
        TINYFAT_MAIL_RATE_THREAD=NO_CAP,
    ) as tinyfat:
        await tinyfat.make_agent("ada")
        yield Chain("ours", tinyfat.smtp_port, tinyfat.home / "machines", names_turns=True)
