"""A machine: where an agent's box and runtime live. Replaceable; the agent is not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MachineState(StrEnum):
    """What a driver sees when it looks. `UNKNOWN` is never 'gone'."""

    GONE = "gone"
    STOPPED = "stopped"
    RUNNING = "running"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MachineOrder:
    """What a machine is made from. The id is ours and makes every order idempotent."""

    id: str
    agent_name: str
    runtime: str
    link_url: str  # where the box dials, e.g. ws://127.0.0.1:8025/box/link
    link_token: str  # opens this machine's own agent and nothing else


@dataclass(frozen=True, slots=True)
class MachineSeen:
    state: MachineState
    detail: str = ""  # for a person: why it is unknown, which process runs on


@dataclass(frozen=True, slots=True)
class Machine:
    id: str
    agent_id: str
    kind: str
    wanted: bool  # should it be running?
    link_state: str  # the box's last word: see link.RuntimeState
    link_detail: str
    seen_at: datetime | None  # the box's last heartbeat
    version: str = ""  # of the runtime
    memory_bytes: int = 0
    restarts: int = 0
