"""An agent's state as a file for its operator: its box hands it over as it would for another machine, and goes on.

The runtime is stopped while its folder is packed and sent; mail that comes meanwhile waits in the box. The file lies
here until the operator has it, an hour at most. All that is remembered is the row of the move: a restart changes
nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.machines import Machine
from tinyfat.ports.ledger import Conflict, MachineRecords, NotFound
from tinyfat.ports.server_ledger import MoveFiles, MovePhase, StateMove, StateMoves

SILENT_SECONDS_MAX = 60.0  # a box that is not heard of for so long hands nothing over
HAND_OVER_SECONDS_MAX = 30 * 60.0  # turns under way end, the runtime stops, gigabytes go up
KEPT_SECONDS_MAX = 3600.0  # then nobody comes for it any more
_OVER = (MovePhase.RESTORED, MovePhase.FETCHED, MovePhase.FAILED)


class Exports:
    def __init__(
        self, records: MachineRecords, moves: StateMoves, files: MoveFiles, clock: Callable[[], datetime]
    ) -> None:
        """`clock`: the ledger's time."""
        self._records = records
        self._moves = moves
        self._files = files
        self._clock = clock

    async def begin(self, agent: Agent) -> StateMove:
        """The one that is under way already, where there is one. Raises Conflict."""
        machine = await self._machine(agent)
        for known in await self._moves.exports():
            if known.from_machine == machine.id and known.phase is MovePhase.ASKED:
                return known
        export_id = str(uuid.uuid4())
        await self._moves.ask(export_id, agent.id, machine.id, "")
        return await self.look(agent, export_id)

    async def _machine(self, agent: Agent) -> Machine:
        """Raises Conflict."""
        machines = await self._records.all_of_agent(agent.id)
        if agent.state is not AgentState.READY or agent.moving or len(machines) != 1:
            state = "between two machines" if len(machines) > 1 or agent.moving else agent.state
            raise Conflict(f"{agent.name} is {state}: its state cannot be exported now.")
        if self._silent(machines[0], machines[0].seen_at):
            raise Conflict(
                f"The box of {agent.name} is not heard of, and nobody else can hand its state over. "
                f"`tinyfat agent show {agent.name}` tells since when."
            )
        return machines[0]

    def _silent(self, machine: Machine | None, since: datetime | None) -> bool:
        """`since`: the latest moment that counts for it besides its last word."""
        heard = [at for at in (machine.seen_at if machine else None, since) if at is not None]
        return not heard or self._clock() - max(heard) > timedelta(seconds=SILENT_SECONDS_MAX)

    async def look(self, agent: Agent, export_id: str) -> StateMove:
        """Raises NotFound."""
        move = await self._moves.get(export_id)
        if move is None or move.to_machine or move.agent_id != agent.id:
            raise NotFound(f"There is no export {export_id} of {agent.name}.")
        return move

    async def file(self, agent: Agent, export_id: str) -> Path:
        """Raises NotFound, Conflict where it is not here yet, or no longer."""
        move = await self.look(agent, export_id)
        file = self._files.file(move.id)
        if move.phase is not MovePhase.KEPT or not file.exists():
            raise Conflict(f"The state of {agent.name} is not here: {move.detail or move.phase}.")
        return file

    async def end(self, agent: Agent, export_id: str) -> None:
        """The operator has it, or wants it no more: nothing of it stays here, and the runtime goes on. Raises
        NotFound."""
        move = await self.look(agent, export_id)
        await self._moves.fetched(move.id)
        await self._files.remove(move.id)

    async def sweep(self) -> None:
        """End what will not come to its end by itself, and remove what nobody needs here."""
        for move in await self._moves.exports():
            if complaint := await self._complaint(move):
                await self._moves.failed(move.id, complaint)
        for move_id in await self._files.ids():
            known = await self._moves.get(move_id)
            if known is None or known.phase in _OVER:
                await self._files.remove(move_id)

    async def _complaint(self, move: StateMove) -> str:
        if move.phase is MovePhase.KEPT:
            kept_at = move.kept_at or move.asked_at
            late = self._clock() - kept_at > timedelta(seconds=KEPT_SECONDS_MAX)
            return f"nobody fetched it within {KEPT_SECONDS_MAX / 60:.0f} min" if late else ""
        machine = await self._records.get(move.from_machine)
        if machine is None:
            return "its machine is gone"
        if self._silent(machine, move.asked_at):
            return f"no word of its box for {SILENT_SECONDS_MAX:.0f} s"
        latest = await self._moves.latest_of(move.from_machine)
        if latest is not None and latest.id != move.id:
            return "its machine is being replaced"
        late = self._clock() - move.asked_at > timedelta(seconds=HAND_OVER_SECONDS_MAX)
        return f"its box did not hand it over within {HAND_OVER_SECONDS_MAX / 60:.0f} min" if late else ""
