"""A runtime with its process and the model stand-in, for stories without a box."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from tests.machine_speed import patient
from tests.running import free_port, until
from tinyfat.box.runtime import Places, Runtime
from tinyfat.box.runtimes.install import shared_default
from tinyfat.domain.link import ModelAccess
from tinyfat.domain.turns import Attachment, Turn
from tinyfat.standins.model import model_app
from tinyfat.standins.model_reading import Api, read_request

READY_SECONDS_MAX = 60.0
EXIT_SECONDS_MAX = 60.0
KEY = "sk-of-the-story"


class Model:
    """The stand-in, in a thread of its own."""

    def __init__(self, api: Api = Api.OPENAI) -> None:
        self.api = api
        self.port = free_port()
        self.bodies: list[Mapping[str, Any]] = []
        self.sessions: list[str] = []  # what each request said of its session
        self._app = model_app(self._seen)
        config = uvicorn.Config(
            self._heard, host="127.0.0.1", port=self.port, log_level="warning", lifespan="off", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Model:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()

    @property
    def access(self) -> ModelAccess:
        path = "/v1" if self.api is Api.OPENAI else ""
        return ModelAccess(self.api.value, f"http://127.0.0.1:{self.port}{path}", KEY, "main")

    def asked(self, words: str) -> int:
        """How often the model was asked with these words in the last mail."""
        return sum(words in read_request(body, self.api).mails[-1].body for body in self.bodies)

    async def _heard(self, scope: Any, receive: Any, send: Any) -> None:
        self.sessions.append(dict(scope["headers"]).get(b"x-session-affinity", b"").decode())
        await self._app(scope, receive, send)

    def _seen(self, _: Api, body: Mapping[str, Any]) -> None:
        self.bodies.append(body)


@contextlib.contextmanager
def places_in(folder: Path) -> Iterator[Places]:
    places = Places(folder / "state", folder / "workspace", shared_default(os.environ))
    places.workspace.mkdir(parents=True)
    yield places


class Running:
    """What the box does, without its patience: start, kill, start again."""

    def __init__(self, runtime: Runtime, log: Path) -> None:
        self.runtime = runtime
        self.log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = self.runtime.command()
        assert command is not None
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.environment),
                cwd=command.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await until(self._ready, READY_SECONDS_MAX, "the runtime is ready")

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        return await self._end(signal.SIGTERM)

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()[-3000:]
        return await self.runtime.ready()

    async def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            os.killpg(self.process.pid, number)
        async with asyncio.timeout(patient(EXIT_SECONDS_MAX)):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(runtime: Runtime, log: Path) -> AsyncIterator[Running]:
    run = Running(runtime, log)
    try:
        await run.start()
        yield run
    finally:
        await run.kill()


def mail(turn_id: str, body: str, *attachments: Attachment, session: str = "boat", seconds: float = 60.0) -> Turn:
    """A turn as the flow writes it (recipes/turn_text)."""
    header = "From: Eva Meier <eva@example.org>\nTo: ada@tinyfat.localhost\nSubject: Boat\nDate: Mon, 23 Nov 2026"
    named = ", ".join(f"{one.filename} ({one.media_type})" for one in attachments)
    header += f"\nAttachments: {named}" if named else ""
    return Turn(turn_id, f"email:{session}", f"{header}\n\n{body}", seconds, attachments)
