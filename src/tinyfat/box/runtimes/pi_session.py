"""One pi session on disk: the file pi writes, and our record of which turn began where.

pi appends JSON lines to the session file (its docs/session-format.md, version 3). Before a turn is put, our record
gets a line with the turn's id and the file's size. So after any break the turn's own lines are found again: with an
answer they are the answer; without one they are cut off, and the question is put once more, never twice over.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tinyfat.box.runtimes.gateway_history import usage_of

RECORDS_READ_MAX = 10_000  # turns of one session; older ones are settled long since
LINE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What pi wrote at the end of a turn."""

    text: str
    failed: bool
    detail: str
    received_at: float  # Unix seconds
    answered_at: float
    usage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Session:
    folder: Path
    key: str  # e.g. "email:<thread id>"

    @property
    def name(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()[:32]

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.turns"

    @contextlib.contextmanager
    def try_lock(self) -> Iterator[int | None]:
        """A descriptor that holds the session while anyone keeps it open; None where another one has it.

        The pi process inherits it: a pi that outlives a killed box goes on holding its session.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def earlier(self, turn_id: str) -> Answer | None:
        """What this turn left behind, if it was ever put and answered. The caller holds the lock."""
        starts = self._starts()
        for index in range(len(starts) - 1, -1, -1):
            if starts[index][0] == turn_id:
                end = starts[index + 1][1] if index + 1 < len(starts) else None
                return read_answer(self._entries(starts[index][1], end))
        return None

    def begin(self, turn_id: str) -> None:
        """Cut off what an unfinished attempt at this turn left, and record where the turn begins."""
        starts = self._starts()
        if starts and starts[-1][0] == turn_id:
            self._truncate(starts[-1][1])
            return
        size = self.file.stat().st_size if self.file.exists() else 0
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"turn": turn_id, "at": size}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _starts(self) -> list[tuple[str, int]]:
        """Of each turn, in order: its id, and the session file's size when it was put."""
        if not self.record.exists():
            return []
        found: list[tuple[str, int]] = []
        for line in self.record.read_text("utf-8", "replace").splitlines()[-RECORDS_READ_MAX:]:
            entry = _object(line)
            if isinstance(entry.get("at"), int):
                found.append((str(entry.get("turn")), entry["at"]))
        return found

    def _truncate(self, size: int) -> None:
        if size == 0:
            self.file.unlink(missing_ok=True)
        elif self.file.exists() and self.file.stat().st_size > size:
            os.truncate(self.file, size)

    def _entries(self, start: int, end: int | None) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(start)
            content = file.read(LINE_BYTES_MAX if end is None else min(end - start, LINE_BYTES_MAX))
        return [_object(line) for line in content.decode("utf-8", "replace").split("\n") if line]


def read_answer(entries: Sequence[dict[str, Any]]) -> Answer | None:
    """The last message of the model, where the turn came to an end. Pure."""
    written = [entry for entry in entries if isinstance(entry.get("message"), dict)]
    questions = [entry for entry in written if entry["message"].get("role") == "user"]
    replies = [entry["message"] for entry in written if entry["message"].get("role") == "assistant"]
    if not questions or written[-1]["message"].get("role") != "assistant":
        return None
    last = written[-1]["message"]
    reason = last.get("stopReason")
    if reason not in ("stop", "length", "error"):
        return None  # it was about to use a tool, or was broken off
    return Answer(
        text_of(last.get("content")),
        reason == "error",
        str(last.get("errorMessage", "")),
        _written_at(questions[0]),
        _written_at(written[-1]),
        _sum([usage_of(reply.get("usage")) for reply in replies]),
    )


def text_of(content: Any) -> str:
    """The text blocks of a message."""
    if isinstance(content, str):
        return content.strip()
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    return "\n".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text").strip()


def _sum(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for name, count in usage.items():
            total[name] = total.get(name, 0) + count
    return total


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _written_at(entry: dict[str, Any]) -> float:
    """When pi wrote the line; its message's own stamp is of when the model was asked."""
    try:
        return datetime.fromisoformat(str(entry.get("timestamp"))).timestamp()
    except ValueError:
        return 0.0
