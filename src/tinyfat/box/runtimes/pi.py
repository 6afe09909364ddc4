"""The runtime `pi`: one process for one turn, nothing in between. A session is a file (pi_session).

The mail goes in by standard input, so that no text of it stands in a process list. pi's own output is not read: the
session file says what it answered, also when the box that asked was killed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tinyfat.box.runtime import Places, Progress, RuntimeUnavailable
from tinyfat.box.runtimes import install, media
from tinyfat.box.runtimes.answers import DETAIL_CHARS_MAX, Said, answer_of
from tinyfat.box.runtimes.gateway import TURN_SECONDS_MAX
from tinyfat.box.runtimes.model_failure import failure_of
from tinyfat.box.runtimes.openclaw import PASSED_ON
from tinyfat.box.runtimes.pi_session import Answer, Session
from tinyfat.box.runtimes.prompt import mail_prompt
from tinyfat.domain.failures import Failure
from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

PROVIDER = "host"
MODEL_KEY_VARIABLE = "TINYFAT_MODEL_KEY"
SESSION_VARIABLE = "TINYFAT_SESSION"
LOCK_POLL_SECONDS = 0.1
KILL_SECONDS_MAX = 10.0
ERROR_BYTES_MAX = 4000
INLINE_BYTES_MAX = 100_000  # a text file that is read out to the model as a whole
CONTEXT_TOKENS = 128_000
ANSWER_TOKENS_MAX = 8192


class PiRuntime:
    turns_at_once = 2

    def __init__(self, spec: RuntimeSpec, places: Places, clock: Callable[[], float] = time.time) -> None:
        self._spec = spec
        self._places = places
        self._clock = clock
        self._package = install.package("pi")
        self.version = self._package.version

    async def install(self, progress: Progress) -> None:
        await install.install(self._package, self._places.shared, progress)

    def command(self) -> None:
        """Nothing runs between turns."""

    def renamed(self, agent_name: str) -> None:
        self._spec = replace(self._spec, agent_name=agent_name)

    async def live(self) -> bool:
        return await self.ready()

    async def ready(self) -> bool:
        return self._program().is_file()

    async def answer(self, turn: Turn, asked_before: bool) -> TurnResult:
        """`asked_before` changes nothing: the session's record says whether the turn was put."""
        seconds = min(turn.deadline_seconds, TURN_SECONDS_MAX)
        session = Session(self._places.state / "sessions", turn.session)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with session.try_lock() as descriptor:
                        if descriptor is not None:
                            return await self._answer(turn, session, descriptor)
                    await asyncio.sleep(LOCK_POLL_SECONDS)
        except TimeoutError as error:
            raise RuntimeUnavailable(f"no answer within {seconds:g} s") from error
        except OSError as error:
            raise RuntimeUnavailable(f"pi could not be run: {error}") from error

    async def session_of(self, said: str, running: Sequence[str]) -> str:
        folder = self._places.state / "sessions"
        return next((session for session in running if Session(folder, session).name == said), "")

    async def _answer(self, turn: Turn, session: Session, lock: int) -> TurnResult:
        answer = await asyncio.to_thread(session.earlier, turn.id)
        if answer is None:
            await asyncio.to_thread(session.begin, turn.id)
            error = await self._run(turn, session, lock)
            answer = await asyncio.to_thread(session.earlier, turn.id)
            if answer is None:
                raise RuntimeUnavailable(f"pi ended without an answer: {error}")
        return await self._result(answer)

    async def _run(self, turn: Turn, session: Session, lock: int) -> str:
        """One turn of pi; what it wrote to standard error."""
        workspace = self._places.workspace
        await asyncio.to_thread(self._prepare)
        saved = await asyncio.to_thread(media.save_inbox, workspace, turn.id, turn.attachments)
        inline = [path for path, attachment in zip(saved, turn.attachments, strict=True) if _readable(attachment)]
        text = turn.text + "".join(
            f"\n\n[Attached file saved in the workspace: {path}]" for path in saved if path not in inline
        )
        errors = self._places.state / "log" / f"pi-{session.name}.log"
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *self._argv(session, inline),
                cwd=workspace,
                env=self._environment(session),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(lock,),
            )
        try:
            await process.communicate(text.replace("\x00", "").encode("utf-8", "replace"))
        except BaseException:
            await _kill(process)
            raise
        return await asyncio.to_thread(_tail, errors, process.returncode)

    async def _result(self, answer: Answer) -> TurnResult:
        if answer.failed:
            return self._failed(answer, failure_of(answer.detail, self._clock()), answer.detail)
        text, paths = media.split_media_lines(answer.text)
        collected = await asyncio.to_thread(media.collect, self._places.workspace, paths)
        return answer_of(Said(text, collected, answer.received_at, answer.answered_at, answer.usage))

    def _failed(self, answer: Answer, failure: Failure, detail: str) -> TurnResult:
        return TurnResult(
            TurnOutcome.FAILED,
            failure=failure,
            detail=detail[:DETAIL_CHARS_MAX],
            received_at=answer.received_at,
            answered_at=answer.answered_at or self._clock(),
        )

    def _program(self) -> Path:
        return self._package.root(self._places.shared) / "dist" / "bundle" / "cli.js"

    def _argv(self, session: Session, inline: Sequence[str]) -> list[str]:
        heap_mb = max(self._spec.memory_bytes_max // 2**20 // 2, 128) if self._spec.memory_bytes_max else 512
        argv = [str(install.node()), f"--max-old-space-size={heap_mb}", str(self._program())]
        argv += ["--print", "--mode", "json", "--session", str(session.file)]
        argv += ["--model", f"{PROVIDER}/{self._spec.model.model}", "--system-prompt", str(self._prompt_file())]
        # Nothing of the host's or of an untrusted folder is taken up.
        argv += ["--offline", "--no-approve", "--no-context-files", "--no-extensions", "--no-prompt-templates"]
        notes = self._places.workspace / "AGENTS.md"
        if notes.is_file():
            argv += ["--append-system-prompt", str(notes)]
        return [*argv, *(f"@{path}" for path in inline)]

    def _environment(self, session: Session) -> dict[str, str]:
        state = self._places.state
        return {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "HOME": str(state / "home"),
            "PATH": f"{install.node().parent}{os.pathsep}{os.defpath}",
            "TMPDIR": str(state / "tmp"),
            "PI_CODING_AGENT_DIR": str(state / "pi"),
            "PI_OFFLINE": "1",
            "PI_TELEMETRY": "0",
            MODEL_KEY_VARIABLE: self._spec.model.key,
            SESSION_VARIABLE: session.name,
            "NODE_COMPILE_CACHE": str(self._package.compile_cache(self._places.shared, self._places.state)),
        }

    def _prompt_file(self) -> Path:
        return self._places.state / "prompt.md"

    def _prepare(self) -> None:
        state = self._places.state
        for folder in (
            state,
            state / "home",
            state / "tmp",
            state / "log",
            state / "pi",
            self._places.workspace / "out",
        ):
            folder.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        _replace(self._prompt_file(), mail_prompt(self._spec.agent_name))
        _replace(state / "pi" / "models.json", json.dumps(models_file(self._spec), indent=1))


def models_file(spec: RuntimeSpec) -> dict[str, object]:
    """pi's models.json; it names the key's variable and holds no key. Pure."""
    model = {
        "id": spec.model.model,
        "input": ["text", "image"],
        "contextWindow": CONTEXT_TOKENS,
        "maxTokens": ANSWER_TOKENS_MAX,
    }
    provider = {
        "baseUrl": spec.model.url,
        "api": spec.model.api,
        "apiKey": f"${MODEL_KEY_VARIABLE}",
        "headers": {"x-session-affinity": f"${SESSION_VARIABLE}"},  # so the box can tell whose call it is
        "models": [model],
    }
    return {"providers": {PROVIDER: provider}}


def _readable(attachment: Attachment) -> bool:
    """What pi can show the model itself; any other file is only named."""
    if attachment.media_type in ("image/png", "image/jpeg", "image/gif", "image/webp"):
        return True
    return attachment.media_type.startswith("text/") and 0 < len(attachment.content) <= INLINE_BYTES_MAX


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    new.write_text(text, "utf-8")
    new.replace(path)


def _tail(path: Path, code: int | None) -> str:
    content = path.read_bytes()[-ERROR_BYTES_MAX:].decode("utf-8", "replace").strip()
    return f"exit {code}: {content}"


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS_MAX):
            await process.wait()
