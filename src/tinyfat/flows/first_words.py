"""Waiting for what a machine says: its box, its runtime, the agent itself. Nothing is ready before it answered."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

from tinyfat.domain.agents import Agent
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import Machine
from tinyfat.domain.turns import TurnOutcome, result_words
from tinyfat.flows.watch import until
from tinyfat.ports.ledger import MachineRecords, Turns

READY_SECONDS_MAX = 25 * 60.0  # a first installation of the runtime included
PROBE_SECONDS_MAX = 300.0
REASON_CHARS_MAX = 300  # of what a runtime says; its log has the rest
PROBE_QUESTION = "From: TinyFat\nSubject: Are you there?\n\nPlease answer with one short sentence."

# What a box says of its next try is not so once its machine is ended.
_AGAIN = re.compile(r"; (?:tried|started) again in [0-9.]+ s$|; [^;]*, so it is tried only every [0-9]+ s$")

StillWanted = Callable[[], Awaitable[bool]]


class FirstWords:
    def __init__(self, records: MachineRecords, turns: Turns) -> None:
        self._records = records
        self._turns = turns

    async def first_word(self, machine_id: str, whose: str, seconds: float, still_wanted: StillWanted) -> str:
        """A complaint, or "". Nobody waits on for what is no longer wanted."""
        wanted = True

        async def seen() -> bool:
            nonlocal wanted
            machine = await self._records.get(machine_id)
            if machine is not None and machine.seen_at is not None and machine.knows_itself:
                return True
            wanted = await still_wanted()
            return not wanted

        heard = await until(seen, seconds, partial(self._records.word, machine_id))
        if not wanted:
            return f"{whose} was destroyed while it was being made."
        if heard:
            return ""
        return f"The box of {whose} did not call home within {seconds:.0f} s. `tinyfat doctor` may know why."

    async def ready(self, machine_id: str, whose: str) -> str:
        """A complaint, or ""."""
        last: Machine | None = None

        async def decided() -> bool:
            nonlocal last
            last = await self._records.get(machine_id)
            return last is not None and last.link_state in (RuntimeState.READY, RuntimeState.CRASH_LOOP)

        await until(decided, READY_SECONDS_MAX, partial(self._records.word, machine_id))
        if last is not None and last.link_state == RuntimeState.READY:
            return ""
        said = _AGAIN.sub("", (last.link_detail if last else "").split("\n")[0])
        words = " ".join(said.split())[:REASON_CHARS_MAX].rstrip(".")
        return (
            f"The runtime of {whose} did not come up: {words or 'no reason given'}. "
            f"`tinyfat agent logs {whose}` has all of it; `tinyfat agent retry {whose}` tries again."
        )

    async def question(self, agent: Agent, occasion: str) -> str:
        """Asked of the machine that is the agent's current one. A complaint, or ""."""
        turn_id = str(uuid.uuid5(uuid.UUID(agent.id), occasion))
        await self._turns.probe(turn_id, agent.id, PROBE_QUESTION)
        await self._turns.offer(turn_id, PROBE_SECONDS_MAX)
        row = await self._turns.wait_for_result(turn_id)
        await self._turns.finish_probe(turn_id)
        if row.result is None:
            return f"{agent.name} did not answer a first question within {PROBE_SECONDS_MAX:.0f} s."
        if row.result.outcome is not TurnOutcome.ANSWERED:
            return f"{agent.name} could not answer a first question: {result_words(row.result)}"
        return ""
