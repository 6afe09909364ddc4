"""How far a flow of an agent's has come, printed while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, TypeAlias

from rich.status import Status
from rich.text import Text

from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.output import console, errors, one_line

LOOK_SECONDS = 0.2

Shown: TypeAlias = dict[str, Any]


def followed(
    client: Client, name: str, seconds_max: float, decided: Callable[[Shown], bool], not_yet: str, quiet: bool,
    flow: str = "",
) -> Shown:  # fmt: skip
    """The agent once it is decided, its steps printed as they end: those of `flow` alone where one is named. Raises
    CommandFailed, which begins with `not_yet`, after `seconds_max`, and whatever `decided` raises."""
    said: set[str] = set()
    deadline = time.monotonic() + seconds_max
    try:
        with _spinner(quiet) as status:
            while True:
                agent: Shown = client.get("agents", name)
                agent["steps"] = [step for step in agent["steps"] if flow in ("", step["flow"])]
                if not quiet:
                    _report(agent, said, status)
                if decided(agent):
                    return agent
                if time.monotonic() >= deadline:
                    break
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        errors.print(f"It goes on without you: `tinyfat agent show {name}` tells how far it is.")
        raise
    spent = f"{seconds_max / 60:.0f} min" if seconds_max >= 120 else f"{seconds_max:.0f} s"
    raise CommandFailed(f"{not_yet} after {spent}; `tinyfat agent show {name}` tells how far it is.")


def is_over(agent: Shown, name: str) -> bool:
    """Whether the step of this name is over."""
    return any(step["name"] == name and step["ended_at"] for step in agent["steps"])


def complaints(agent: Shown) -> str:
    return "; ".join(step["detail"] for step in agent["steps"] if step["detail"])


def seconds(step: dict[str, Any]) -> float:
    return (datetime.fromisoformat(step["ended_at"]) - datetime.fromisoformat(step["started_at"])).total_seconds()


def _spinner(quiet: bool) -> AbstractContextManager[Status | None]:
    return console.status("", spinner="dots") if not quiet and console.is_terminal else nullcontext()


def _report(agent: Shown, said: set[str], status: Status | None) -> None:
    for step in agent["steps"]:
        if step["ended_at"] and f"✓ {step['name']}" not in said:
            said.add(f"✓ {step['name']}")
            console.print(f"  {'✗' if step['detail'] else '✓'} {step['name']}  {seconds(step):.1f} s")
        elif not step["ended_at"]:
            machine = agent["machine"] or {}
            detail = machine.get("complaint") or machine.get("detail", "")
            words = f"{step['name']}: {detail}" if detail else step["name"]
            if status is not None:
                status.update(Text(one_line(words)))  # a string would be read as markup
            elif step["name"] not in said:  # on a pipe one line a step: what changes meanwhile is for a terminal
                said.add(step["name"])
                console.print(f"  … {one_line(step['name'])}")
