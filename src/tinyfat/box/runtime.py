"""What the box asks of a runtime. Three keep this promise: openclaw, pi and echo (runtimes/)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.turns import Turn, TurnResult

Progress = Callable[[str], None]  # one line for a person, e.g. "openclaw 2026.9.6: installing, 12 s"


class InstallFailed(Exception):
    """The runtime could not be installed."""


class RuntimeUnavailable(Exception):
    """The runtime cannot take or finish this turn now; the box asks again until the turn's deadline."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a runtime may write. `shared` is for what every agent of this host can use: the installed packages."""

    state: Path  # this agent's own, mode 700
    workspace: Path  # what the agent itself works in
    shared: Path


@dataclass(frozen=True, slots=True)
class Command:
    """A process for the box to run and watch. Secrets are in `environment`, never in `argv`."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]  # the whole of it; the box adds nothing
    folder: Path
    stop_seconds: float  # after SIGTERM, before SIGKILL
    fatal_exits: frozenset[int] = frozenset()  # exit codes after which a restart is pointless (a wrong configuration)


class Runtime(Protocol):
    version: str
    turns_at_once: int  # what it can usefully do side by side

    async def install(self, progress: Progress) -> None:
        """Put it on this host, once, into a versioned folder of `Places.shared`. Raises InstallFailed."""

    def command(self) -> Command | None:
        """The process to keep running; None for a runtime that runs only while it answers.

        Called before every start: it writes the configuration and chooses a free port.
        """

    def renamed(self, agent_name: str) -> None:
        """Its agent has another name now: a machine of the warm pool was claimed. What runs goes on."""

    async def live(self) -> bool:
        """The process answers at all (/healthz)."""

    async def ready(self) -> bool:
        """It can take a turn (/readyz)."""

    async def answer(self, turn: Turn, asked_before: bool) -> TurnResult:
        """Ask, and wait for the answer.

        `asked_before`: this turn was put to the runtime earlier and how that ended is not known (a lost connection, a
        killed box or runtime). The runtime's own history is then looked through first, so that it is asked only once.
        Raises RuntimeUnavailable.
        """

    async def session_of(self, said: str, running: Sequence[str]) -> str:
        """Which of these sessions, whose turns run now, a model call is of that says this in its header
        `x-session-affinity`; empty where that cannot be told. Within a few seconds."""


MakeRuntime = Callable[[RuntimeSpec, Places], Runtime]
