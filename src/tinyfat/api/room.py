"""The operator's API on room: the disks, and what takes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends

from tinyfat.api.keys import require_operator
from tinyfat.api.operator import Here

router = APIRouter(prefix="/api", dependencies=[Depends(require_operator)])


@router.get("/disks")
async def disks(world: Here) -> list[dict[str, Any]]:
    """As of the last look, seconds ago at most."""
    return [disk.shown() for disk in world.room.disks.seen]


@router.get("/disk")
async def disk(world: Here) -> dict[str, Any]:
    return {
        "disks": [disk.shown() for disk in world.room.disks.seen],
        "taken": [asdict(taken) for taken in await world.room.taken()],
    }
