"""The echo runtime's memory: one JSON-lines file a session, each row on the disk before anything follows from it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class EchoSession:
    """The rows of one session, oldest first.

    `{"role": "user", "key": ..., "text": ...}` is a question, `{"role": "assistant", "answers": <key>, ...}` its
    answer, `{"role": "system", ...}` a restart's note, `{"crashed": <key>}` a crash that was asked for.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self._path = path

    @classmethod
    def load(cls, path: Path) -> EchoSession | None:
        """None where the first row never reached the disk. A row cut short by a kill is dropped."""
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            os.truncate(path, len(whole) + 1 if whole else 0)
        rows = [json.loads(line) for line in whole.split(b"\n") if line]
        if not rows:
            path.unlink()  # begun anew with its first question
            return None
        session = cls(path, rows[0]["session"])
        session.rows = rows[1:]
        return session

    def append(self, row: Row) -> None:
        line = json.dumps(row) + "\n"
        if not self.rows and not self._path.exists():
            line = json.dumps({"session": self.name}) + "\n" + line
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, line.encode("utf-8"))
            os.fsync(fd)
        finally:
            os.close(fd)
        self.rows.append(row)

    def questions(self) -> list[Row]:
        return [row for row in self.rows if row.get("role") == "user"]

    def question(self, key: str) -> Row | None:
        return next((row for row in self.questions() if row["key"] == key), None)

    def answered(self, key: str) -> bool:
        return any(row.get("answers") == key for row in self.rows)

    def crashed(self, key: str) -> bool:
        return any(row.get("crashed") == key for row in self.rows)

    def earlier(self, key: str) -> list[str]:
        """The texts of the questions before this one."""
        texts = []
        for row in self.questions():
            if row["key"] == key:
                break
            texts.append(str(row["text"]))
        return texts

    def unanswered(self) -> list[Row]:
        return [row for row in self.questions() if not self.answered(row["key"])]


class EchoStore:
    def __init__(self, state: Path) -> None:
        self._folder = state / "sessions"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sessions: dict[str, EchoSession] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            session = EchoSession.load(path)
            if session is not None:
                self.sessions[session.name] = session

    def session(self, name: str) -> EchoSession:
        if name not in self.sessions:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            self.sessions[name] = EchoSession(self._folder / f"{digest}.jsonl", name)
        return self.sessions[name]
