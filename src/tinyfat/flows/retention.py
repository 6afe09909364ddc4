"""What is old goes: in small batches, one process at a time, each batch a commit of its own. So a kill at any moment
leaves a whole ledger, and the next pass goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from tinyfat.ports.room import Kept, OldRows

BATCHES_MAX = 200  # of one kind in one pass; the next pass goes on
FOR_EVER = 0  # days

log = logging.getLogger(__name__)


class FinishedFlows(Protocol):
    async def forget_finished(self, days: int) -> bool:
        """A bounded number of records of flows that ended so long ago; whether there may be more."""


class Retention:
    def __init__(self, rows: OldRows, flows: FinishedFlows, days: Mapping[Kept, int], flow_days: int) -> None:
        """`days`: how long each is kept; FOR_EVER keeps all. What is not named is kept."""
        self._rows = rows
        self._flows = flows
        self._days = {kept: days[kept] for kept in Kept if days.get(kept, FOR_EVER) != FOR_EVER}
        self._flow_days = flow_days

    async def run(self) -> None:
        """One pass over everything."""
        for kept, days in self._days.items():
            for _ in range(BATCHES_MAX):
                if not await self._rows.delete(kept, days):
                    break
            else:
                log.warning("there is more of %s to delete than one pass does; the next goes on", kept)
        for _ in range(BATCHES_MAX):
            if not await self._flows.forget_finished(self._flow_days):
                break
