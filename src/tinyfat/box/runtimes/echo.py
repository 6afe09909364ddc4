"""The echo runtime, from the box's side: a real process, spoken to as OpenClaw is, for tests and benches."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import tinyfat
from tinyfat.box.runtime import Command, Places, Progress, RuntimeUnavailable
from tinyfat.box.runtimes.echo_script import DRAIN_SECONDS_MAX, MODEL_KEY_VARIABLE, MODEL_VARIABLE, TOKEN_VARIABLE
from tinyfat.box.runtimes.gateway import GatewayClient
from tinyfat.box.runtimes.loopback import free_port, http_get
from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.turns import Turn, TurnResult

STOP_SECONDS = DRAIN_SECONDS_MAX + 5.0


class EchoRuntime:
    version = tinyfat.__version__
    turns_at_once = 32

    def __init__(self, spec: RuntimeSpec, places: Places) -> None:
        self._agent_name = spec.agent_name
        self._model = spec.model
        self._places = places
        self._url = ""
        self._client: GatewayClient | None = None

    async def install(self, progress: Progress) -> None:
        """Nothing: it comes with the box."""

    def command(self) -> Command:
        port = free_port()
        token = secrets.token_hex(32)
        self._url = f"ws://127.0.0.1:{port}"
        self._client = GatewayClient(self._url, token, self._places.workspace)
        argv = (
            sys.executable,
            "-m",
            "tinyfat.box.runtimes.echo_server",
            "--state",
            str(self._places.state),
            "--workspace",
            str(self._places.workspace),
            "--port",
            str(port),
        )
        environment = {
            "HOME": str(self._places.state),
            "PATH": os.defpath,
            "PYTHONPATH": str(Path(tinyfat.__file__).resolve().parent.parent),
            "PYTHONUNBUFFERED": "1",
            TOKEN_VARIABLE: token,
            MODEL_VARIABLE: json.dumps({"api": self._model.api, "url": self._model.url, "model": self._model.model}),
            MODEL_KEY_VARIABLE: self._model.key,
        }
        return Command(argv, environment, self._places.workspace, STOP_SECONDS)

    def renamed(self, agent_name: str) -> None:
        self._agent_name = agent_name

    async def live(self) -> bool:
        return await self._probe("/healthz")

    async def ready(self) -> bool:
        return await self._probe("/readyz")

    async def answer(self, turn: Turn, asked_before: bool) -> TurnResult:
        if self._client is None:
            raise RuntimeUnavailable("the echo runtime was never started")
        return await self._client.answer(turn, asked_before, f"You are {self._agent_name}.")

    async def session_of(self, said: str, running: Sequence[str]) -> str:
        return await self._client.session_of(said, running) if self._client else ""

    async def _probe(self, path: str) -> bool:
        try:
            status, _ = await http_get(self._url, path)
        except (OSError, ValueError):
            return False
        return status == 200
