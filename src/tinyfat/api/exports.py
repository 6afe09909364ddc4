"""The operator's API on an agent's state as a file: asked for, looked at, fetched, ended. cli/agent_export calls it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse, Response

from tinyfat.api.keys import require_operator
from tinyfat.api.operator import Here
from tinyfat.domain.link import content_digest
from tinyfat.ports.server_ledger import StateMove

router = APIRouter(prefix="/api/agents/{name}/exports", dependencies=[Depends(require_operator)])


@router.post("", status_code=202)
async def begin(name: str, world: Here) -> dict[str, Any]:
    """`GET` tells how far it is."""
    return _shown(await world.fleet.exports.begin(await world.agents.find(name.lower())))


@router.get("/{export_id}")
async def look(name: str, export_id: str, world: Here) -> dict[str, Any]:
    return _shown(await world.fleet.exports.look(await world.agents.find(name.lower()), export_id))


@router.get("/{export_id}/file")
async def fetch(name: str, export_id: str, world: Here) -> Response:
    agent = await world.agents.find(name.lower())
    file = await world.fleet.exports.file(agent, export_id)
    move = await world.fleet.exports.look(agent, export_id)
    return FileResponse(file, media_type="application/gzip", headers={"Content-Digest": content_digest(move.sha256)})


@router.delete("/{export_id}")
async def end(name: str, export_id: str, world: Here) -> dict[str, Any]:
    """Fetched, or no longer wanted."""
    agent = await world.agents.find(name.lower())
    await world.fleet.exports.end(agent, export_id)
    return _shown(await world.fleet.exports.look(agent, export_id))


def _shown(move: StateMove) -> dict[str, Any]:
    return {"id": move.id, "phase": move.phase, "detail": move.detail, "sha256": move.sha256, "bytes": move.bytes}
