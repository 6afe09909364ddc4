"""Where an agent's state passes on its way from one machine to the next: box/moving has the requests.

A box may send only what it was asked for, and fetch only what is meant for it. The bytes are never looked into here:
their owner could write anything into them, and only their own next machine unpacks them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections import Counter
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.requests import ClientDisconnect

from tinyfat.domain.enrolment import key_hash
from tinyfat.domain.link import STATE_BYTES_MAX, STATE_PATH, content_digest
from tinyfat.domain.machines import Machine
from tinyfat.ports.ledger import MachineRecords
from tinyfat.ports.server_ledger import MoveFiles, MovePhase, StateMove, StateMoves

WRITE_BYTES = 1024 * 1024  # gathered before a thread is asked to write them
SPARE_BYTES = 2 * 1024**3  # of our own disk, that stay free
WORDS_BYTES_MAX = 8192
UPLOADS_MAX = 2  # of one move at once: what broke off may still be waited for when it is sent again

log = logging.getLogger(__name__)
router = APIRouter()


class Refused(Exception):
    """The answer to a box that asks for what is not its."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def serve_states(app: FastAPI, records: MachineRecords, moves: StateMoves, files: MoveFiles) -> None:
    app.state.state_moves, app.state.move_files, app.state.machine_records = moves, files, records
    app.state.state_uploads, app.state.state_finishing = Counter[str](), asyncio.Lock()
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)


@router.put(STATE_PATH + "/{move_id}")
async def hand_over(request: Request, move_id: str) -> Response:
    machine, move = await _move(request, move_id)
    moves: StateMoves = request.app.state.state_moves
    files: MoveFiles = request.app.state.move_files
    if machine.id != move.from_machine or move.phase not in (MovePhase.ASKED, MovePhase.KEPT):
        raise Refused(409, "nobody asked this machine for its state")
    if move.phase is MovePhase.KEPT:
        return Response(status_code=204)  # the answer was lost
    length = request.headers.get("content-length", "")
    if not length.isdigit() or not 0 < int(length) <= STATE_BYTES_MAX:
        raise Refused(413, f"a state has a Content-Length of 1 to {STATE_BYTES_MAX} bytes")
    if files.room() - int(length) < SPARE_BYTES:
        raise Refused(507, "the control plane has no room for it on its disk")
    draft = files.file(move.id).with_suffix(f".{secrets.token_hex(8)}.part")  # each upload has its own
    under_way: Counter[str] = request.app.state.state_uploads
    if under_way[move.id] >= UPLOADS_MAX:
        raise Refused(503, "it is being sent already")
    under_way[move.id] += 1
    try:
        digest = await _receive(request, draft, int(length))
        if request.headers.get("content-digest", "") != content_digest(digest):
            raise Refused(400, "what came is not what its Content-Digest says")
        async with request.app.state.state_finishing:
            await _keep(moves, files, move.id, draft, digest)
    finally:
        draft.unlink(missing_ok=True)
        under_way[move.id] -= 1
        if not under_way[move.id]:
            del under_way[move.id]
    log.info("the state of machine %s is here: %s bytes", machine.id, int(length))
    return Response(status_code=204)


async def _keep(moves: StateMoves, files: MoveFiles, move_id: str, draft: Path, digest: str) -> None:
    """The first that is complete: its digest is what the next machine asks for."""
    move = await moves.get(move_id)
    if move is not None and move.phase is MovePhase.ASKED:
        size = draft.stat().st_size
        await asyncio.to_thread(draft.replace, files.file(move_id))
        await moves.kept(move_id, digest, size)


@router.get(STATE_PATH + "/{move_id}")
async def take(request: Request, move_id: str) -> Response:
    machine, move = await _move(request, move_id)
    files: MoveFiles = request.app.state.move_files
    file = files.file(move.id)
    if machine.id != move.to_machine or move.phase is not MovePhase.KEPT or not file.exists():
        raise Refused(409, "there is no state here for this machine")
    return FileResponse(file, media_type="application/gzip", headers={"Content-Digest": content_digest(move.sha256)})


@router.post(STATE_PATH + "/{move_id}/restored")
async def restored(request: Request, move_id: str) -> Response:
    machine, move = await _move(request, move_id)
    if machine.id != move.to_machine:
        raise Refused(409, "this machine takes no state")
    moves: StateMoves = request.app.state.state_moves
    await moves.restored(move.id)
    return Response(status_code=204)


@router.post(STATE_PATH + "/{move_id}/failed")
async def failed(request: Request, move_id: str) -> Response:
    """From either of the two, while it has its part to do."""
    machine, move = await _move(request, move_id)
    part_of = {MovePhase.ASKED: move.from_machine, MovePhase.KEPT: move.to_machine}
    if part_of.get(move.phase) != machine.id:
        raise Refused(409, "this machine has no part in it now")
    moves: StateMoves = request.app.state.state_moves
    await moves.failed(move.id, await _words(request))
    return Response(status_code=204)


async def _move(request: Request, move_id: str) -> tuple[Machine, StateMove]:
    """Raises Refused."""
    records: MachineRecords = request.app.state.machine_records
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    machine = await records.by_token(key_hash(token.strip())) if kind.lower() == "bearer" else None
    if machine is None or not machine.wanted:
        raise Refused(401, "this token opens no machine")
    moves: StateMoves = request.app.state.state_moves
    move = await moves.get(move_id)
    if move is None or machine.id not in (move.from_machine, move.to_machine):
        raise Refused(404, "there is no such move of this machine's")
    return machine, move


async def _receive(request: Request, draft: Path, length: int) -> str:
    """Its SHA-256. Raises Refused where it is longer or shorter than it said."""
    digest, gathered, size = hashlib.sha256(), bytearray(), 0
    with await asyncio.to_thread(draft.open, "wb") as file:

        def write(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        try:
            async for piece in request.stream():
                gathered += piece
                size += len(piece)
                if size > length:
                    raise Refused(413, "it is longer than it said")
                if len(gathered) >= WRITE_BYTES:
                    await asyncio.to_thread(write, bytes(gathered))
                    gathered.clear()
        except ClientDisconnect:
            raise Refused(400, "it broke off") from None
        await asyncio.to_thread(write, bytes(gathered))
    if size != length:
        raise Refused(400, "it is shorter than it said")
    return digest.hexdigest()


async def _words(request: Request) -> str:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > WORDS_BYTES_MAX:
            raise Refused(413, "too many words")
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no reason given"


async def _refused(request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, Refused) else 500
    return JSONResponse({"error": str(error)}, status)
