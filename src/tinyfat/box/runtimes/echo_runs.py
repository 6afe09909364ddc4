"""The echo runtime's turns: one at a time in a session, taken up again after a kill, never run twice."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyfat.box.runtimes.echo_model import ask_model, session_id
from tinyfat.box.runtimes.echo_script import Script, body_of, compose, read_script
from tinyfat.box.runtimes.echo_store import EchoSession, EchoStore, Row

CRASH_EXIT = 1
# OpenClaw 2026.9.6 writes a longer one to the same effect.
RESUME_NOTE = "[System] Your previous turn was interrupted by a gateway restart. Continue from the existing transcript."
MODEL_REFUSED = "the model refused this turn, as the mail asked for (echo: fail)"
OLD_KEY = "⚠️ Agent run failed (model: echo/echo)."


@dataclass(slots=True)
class Run:
    """One answering of one question; `done` holds its assistant row."""

    key: str  # the turn's id
    run_id: str  # the same, but after a restart
    session: EchoSession
    done: asyncio.Future[Row]
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    key: str
    session: str
    text: str
    through: str  # "agent" or "chat.send"
    attachments: list[dict[str, Any]] = field(default_factory=list)  # as chat.send has them


class KeyIsOld(Exception):
    """A key from before the last start: OpenClaw 2026.9.6 answers it with an error and an extra row."""


class EchoRuns:
    def __init__(self, state: Path, workspace: Path) -> None:
        self._store = EchoStore(state)
        self._workspace = workspace
        self._inbound = state / "media" / "inbound"
        self._log = state / "turns.log"
        self._runs: dict[str, Run] = {}  # of this start, by run id
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Take up again what a kill interrupted, as OpenClaw does: under a new run id, after a note."""
        self._complete_log()
        for session in self._store.sessions.values():
            for row in session.unanswered():
                run_id = str(uuid.uuid4())
                session.append({"role": "system", "text": RESUME_NOTE, "key": run_id, "at": time.time()})
                self._note(row["key"], session.name, "resumed")
                self._start(row, session, run_id)

    def session(self, name: str) -> EchoSession | None:
        return self._store.sessions.get(name)

    def active(self, session: EchoSession) -> list[Run]:
        return [run for run in self._runs.values() if run.session is session and not run.done.done()]

    def session_of(self, identity: str) -> str:
        """The session of this id (echo_model); empty where there is none."""
        return next((name for name in self._store.sessions if session_id(name) == identity), "")

    def find(self, run_id: str) -> Run | None:
        return self._runs.get(run_id)

    def ask(self, question: Question) -> Run:
        """The run of this key, begun now if it is new. Raises KeyIsOld."""
        if question.key in self._runs:
            return self._runs[question.key]
        session = self._store.session(question.session)
        if session.question(question.key):
            session.append(
                {
                    "role": "assistant",
                    "answers": "",
                    "run_id": question.key,
                    "text": OLD_KEY,
                    "error": True,
                    "at": time.time(),
                }
            )
            raise KeyIsOld
        row = {
            "role": "user",
            "key": question.key,
            "text": question.text,
            "through": question.through,
            "files": self._save(question.attachments),
            "at": time.time(),
        }
        session.append(row)
        self._note(question.key, session.name, "received")
        return self._start(row, session, question.key)

    def abort(self, session_name: str) -> list[str]:
        """End what runs in this session, unanswered."""
        session = self._store.session(session_name)
        aborted = self.active(session)
        for run in aborted:
            self._finish(run, {"text": "This turn was stopped.", "error": True, "artifacts": {}})
        return [run.run_id for run in aborted]

    async def drain(self, seconds: float) -> None:
        """Until nothing runs any more, `seconds` at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def artifact(self, session_name: str, artifact_id: str) -> tuple[str, bytes] | None:
        session = self.session(session_name)
        for row in session.rows if session else []:
            name = row.get("artifacts", {}).get(artifact_id)
            if name:
                return name, (self._workspace / "out" / name).read_bytes()
        return None

    def _start(self, row: Row, session: EchoSession, run_id: str) -> Run:
        run = Run(row["key"], run_id, session, asyncio.get_running_loop().create_future())
        self._runs[run_id] = run
        task = asyncio.create_task(self._answer(row, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def _answer(self, row: Row, run: Run) -> None:
        async with self._locks.setdefault(run.session.name, asyncio.Lock()):
            script = read_script(row["text"])
            self._maybe_crash(script, run)
            if script.sleep_seconds:
                await asyncio.wait((run.done,), timeout=script.sleep_seconds)
            if script.hang:
                await asyncio.wait((run.done,))
            if run.done.done():
                return  # stopped meanwhile
            if script.fail:
                self._finish(run, {"text": MODEL_REFUSED, "error": True, "artifacts": {}})
                return
            if script.model_calls:
                script = await _asked_model(row["text"], run.session.name, script)
            self._write_files(script)
            files = [(file["name"], file["size"]) for file in row["files"]]
            text = compose(row["text"], run.session.earlier(run.key), files, script)
            # OpenClaw keeps the files of a chat.send itself and takes their lines out of the text.
            keeps = row["through"] == "chat.send"
            artifacts = {f"artifact_managed_media_{uuid.uuid4()}": name for name, _ in script.attach} if keeps else {}
            self._finish(run, {"text": text, "error": False, "artifacts": artifacts})

    def _finish(self, run: Run, answer: Row) -> None:
        row = {"role": "assistant", "answers": run.key, "run_id": run.run_id, **answer, "at": time.time()}
        run.session.append(row)
        self._note(run.key, run.session.name, "answered")
        run.ended_at = row["at"]
        if not run.done.done():
            run.done.set_result(row)

    def _maybe_crash(self, script: Script, run: Run) -> None:
        if script.crash_always or (script.crash and not run.session.crashed(run.key)):
            run.session.append({"crashed": run.key})
            os._exit(CRASH_EXIT)

    def _write_files(self, script: Script) -> None:
        out = self._workspace / "out"
        for name, size in script.attach:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes((f"{name} ".encode() * (size // (len(name) + 1) + 1))[:size])

    def _save(self, attachments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        saved = []
        for attachment in attachments:
            content = base64.b64decode(str(attachment["content"]), validate=True)
            self._inbound.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._inbound / str(uuid.uuid4())).write_bytes(content)
            saved.append({"name": str(attachment["fileName"]), "size": len(content)})
        return saved

    def _complete_log(self) -> None:
        """A kill between a row and its line in turns.log must not make a test count wrong."""
        lines = self._log.read_text("utf-8").splitlines() if self._log.exists() else []
        noted = {(entry["turn"], entry["event"]) for entry in map(json.loads, lines)}
        for session in self._store.sessions.values():
            for row in session.rows:
                turn_id, event = _event(row)
                if turn_id and (turn_id, event) not in noted:
                    self._note(turn_id, session.name, event, row["at"])

    def _note(self, turn_id: str, session: str, event: str, at: float | None = None) -> None:
        """turns.log: what tests count."""
        line = json.dumps({"turn": turn_id, "session": session, "event": event, "at": at or time.time()})
        with self._log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


async def _asked_model(text: str, session: str, script: Script) -> Script:
    """What the model says is the answer; that it cannot be asked, too, in words."""
    said = ""
    for _ in range(script.model_calls):
        try:
            said = await ask_model(body_of(text), session)
        except (OSError, ValueError) as error:
            said = f"The model could not be asked: {error}"
    return replace(script, say=said)


def _event(row: Row) -> tuple[str, str]:
    """What turns.log says of a row; ("", "") where it says nothing."""
    match row.get("role"):
        case "user":
            return row["key"], "received"
        case "assistant":
            return row["answers"], "answered"
        case _:
            return "", ""
