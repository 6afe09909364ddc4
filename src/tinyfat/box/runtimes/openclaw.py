"""The runtime `openclaw`: OpenClaw's gateway as a process beside the box, asked over its WebSocket."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyfat.box.runtime import Command, Places, Progress, RuntimeUnavailable
from tinyfat.box.runtimes import install, openclaw_config
from tinyfat.box.runtimes.gateway import GatewayClient
from tinyfat.box.runtimes.loopback import free_port, http_get
from tinyfat.box.runtimes.prompt import agents_file, mail_prompt
from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.turns import Turn, TurnResult

# SIGTERM drains: a turn that runs is answered first. OpenClaw takes 315 s at most; a box that is stopped waits less,
# since a turn that is cut off is taken up again by the next start.
STOP_SECONDS = 20.0
EXIT_CONFIGURATION = 78  # EX_CONFIG: starting again with the same configuration is pointless
PROBE_SECONDS_MAX = 5.0
PASSED_ON = (
    *("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)


class OpenClawRuntime:
    turns_at_once = 4

    def __init__(self, spec: RuntimeSpec, places: Places) -> None:
        self._spec = spec
        self._places = places
        self._package = install.package("openclaw")
        self.version = self._package.version
        self._url = ""
        self._client: GatewayClient | None = None

    async def install(self, progress: Progress) -> None:
        await install.install(self._package, self._places.shared, progress)

    def command(self) -> Command:
        port = free_port()
        token = secrets.token_hex(32)
        state = self._places.state
        configuration = openclaw_config.configuration(self._spec.model, state, self._places.workspace, port)
        _prepare(state, self._places.workspace, self._spec.agent_name, configuration)
        self._url = f"ws://127.0.0.1:{port}"
        self._client = GatewayClient(self._url, token, self._places.workspace)
        environment = openclaw_config.environment(
            self._spec.model,
            state,
            token=token,
            path=f"{install.node().parent}{os.pathsep}{os.defpath}",
            compile_cache=self._package.compile_cache(self._places.shared, state),
            passed_on={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        )
        argv = (
            str(install.node()),
            "--import",
            (Path(__file__).parent / "compile_cache.mjs").as_uri(),
            str(self._package.root(self._places.shared) / "openclaw.mjs"),
            *("gateway", "run", "--port", str(port)),
        )
        return Command(argv, environment, state, STOP_SECONDS, frozenset({EXIT_CONFIGURATION}))

    def renamed(self, agent_name: str) -> None:
        """AGENTS.md too, unless the agent or its owner made it their own."""
        agents = self._places.workspace / "AGENTS.md"
        with suppress(OSError):
            if not agents.is_symlink() and agents.read_text("utf-8") == agents_file(self._spec.agent_name):
                agents.write_text(agents_file(agent_name), "utf-8")
        self._spec = replace(self._spec, agent_name=agent_name)

    async def live(self) -> bool:
        return await self._probe("/healthz")

    async def ready(self) -> bool:
        return await self._probe("/readyz")

    async def answer(self, turn: Turn, asked_before: bool) -> TurnResult:
        if self._client is None:
            raise RuntimeUnavailable("openclaw was not started yet")
        return await self._client.answer(turn, asked_before, mail_prompt(self._spec.agent_name))

    async def session_of(self, said: str, running: Sequence[str]) -> str:
        return await self._client.session_of(said, running) if self._client else ""

    async def _probe(self, path: str) -> bool:
        try:
            status, _ = await http_get(self._url, path, seconds_max=PROBE_SECONDS_MAX)
        except (OSError, ValueError):
            return False
        return status == 200


def _prepare(state: Path, workspace: Path, agent_name: str, configuration: dict[str, Any]) -> None:
    """The folders, the configuration (mode 600, replaced as a whole), AGENTS.md where there is none yet."""
    for folder in (state, state / "home", state / "tmp", state / "log", workspace / "out"):
        folder.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    new = state / "openclaw.json.new"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(configuration, file, indent=1)
    new.replace(state / "openclaw.json")
    agents = workspace / "AGENTS.md"
    if not agents.exists() and not agents.is_symlink():
        agents.write_text(agents_file(agent_name), "utf-8")
