"""Where a server comes before its box does: the box itself, enrolment, its identity. domain/enrolment has the messages.

Whoever can reach us can ask; what is asked is small, read once and looked at, and nothing tells a guess from an expired
token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse

from tinyfat.api.gate import Gate, Group, Headers, Refusal
from tinyfat.domain.enrolment import (
    ARCHIVE_PATH,
    ENROL_PATH,
    IDENTITY_PATH,
    REQUEST_BYTES_MAX,
    Enrolment,
    EnrolmentRefused,
    key_hash,
    read_enrolment,
    read_outcome,
    write_identity,
)
from tinyfat.domain.link import STATE_PATH
from tinyfat.engine.reading import Reading
from tinyfat.ports.enrolments import Enrolments, EnrolOutcome, Identities
from tinyfat.ports.ledger import NotFound, StoreUnavailable

REFUSED_WORDS = (
    "this token opens no machine, or its ten minutes are over: the operator makes the machine anew with "
    "`tinyfat agent replace`"
)
TAKEN_WORDS = "this machine has enrolled already, with another key: one of the two is not the machine that we ordered"

log = logging.getLogger(__name__)
router = APIRouter()


class Links(Protocol):
    async def serve(self, socket: WebSocket) -> None:
        """The whole life of one connection."""


def make_box_app(
    links: Links, enrolments: Enrolments, identities: Identities, archives: dict[str, bytes],
    reading: Reading, more: Sequence[tuple[str, Group]] = (),
) -> FastAPI:  # fmt: skip
    """What is served where boxes call from elsewhere, over TLS, and nothing else. `archives`: by SHA-256. `more`: the
    bounds of what is mounted beside it."""
    app = FastAPI(title="TinyFat for boxes", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.enrolments, app.state.identities, app.state.archives = enrolments, identities, archives
    app.include_router(router)
    app.add_exception_handler(StoreUnavailable, _away)

    @app.websocket("/box/link")
    async def box_link(socket: WebSocket) -> None:
        await links.serve(socket)

    app.add_middleware(Gate, groups=[*more, *_GROUPS], reading=reading)
    return app


def _with_key(headers: Headers) -> Refusal | None:
    """Its route looks the key up; who shows none is not read."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    return None if kind.lower() == "bearer" and key.strip() else (401, "this needs a machine's key")


_GROUPS = (
    (ENROL_PATH, Group("enrolments", REQUEST_BYTES_MAX)),
    (IDENTITY_PATH, Group("identities", REQUEST_BYTES_MAX, judge=_with_key)),
    (STATE_PATH, Group("states", 0, judge=_with_key)),  # its route reads it piece by piece
    ("", Group("boxes", REQUEST_BYTES_MAX)),
)


@router.post(ENROL_PATH)
async def enrol(request: Request) -> JSONResponse:
    try:
        asked = read_enrolment(await _body(request))
    except EnrolmentRefused as error:
        return _answer(400, f"This is no enrolment: {error}.")
    enrolments: Enrolments = request.app.state.enrolments
    outcome = await enrolments.enrol(asked.machine_id, key_hash(asked.token), bytes.fromhex(asked.key_hash))
    match outcome:
        case EnrolOutcome.ENROLLED:
            log.info("machine %s has enrolled", asked.machine_id)
            return JSONResponse({"enrolled": True})
        case EnrolOutcome.TAKEN:
            await _doubt(enrolments, asked, request)
            return _answer(409, TAKEN_WORDS)
        case EnrolOutcome.REFUSED:
            log.warning("an enrolment was refused, of machine %r from %s", asked.machine_id, _peer(request))
            return _answer(403, REFUSED_WORDS)


@router.get(IDENTITY_PATH)
async def identity(request: Request) -> Response:
    enrolments: Enrolments = request.app.state.enrolments
    machine_id = await _machine(request)
    if machine_id is None:
        return _answer(401, "this key is no machine's")
    identities: Identities = request.app.state.identities
    try:
        now = await identities.of(machine_id)
    except NotFound as error:
        return _answer(404, str(error))
    await enrolments.fetched(machine_id, now.serial)
    return Response(write_identity(now), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.post(IDENTITY_PATH)
async def became(request: Request) -> JSONResponse:
    enrolments: Enrolments = request.app.state.enrolments
    machine_id = await _machine(request)
    if machine_id is None:
        return _answer(401, "this key is no machine's")
    try:
        outcome = read_outcome(await _body(request))
    except EnrolmentRefused as error:
        return _answer(400, f"This is no outcome: {error}.")
    if outcome.complaint:
        log.warning("machine %s could not become what it is to be: %s", machine_id, outcome.complaint)
    await enrolments.became(machine_id, outcome)
    return JSONResponse({"heard": True})


@router.get(ARCHIVE_PATH + "/{sha256}")
async def archive(request: Request, sha256: str) -> Response:
    data: bytes | None = request.app.state.archives.get(sha256)
    if data is None:
        return _answer(404, "there is no such box here; the machine was ordered by another version of TinyFat")
    return Response(data, media_type="application/gzip")


async def _machine(request: Request) -> str | None:
    """Whose key the request shows."""
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    enrolments: Enrolments = request.app.state.enrolments
    return await enrolments.by_key(key_hash(key.strip())) if kind.lower() == "bearer" else None


async def _doubt(enrolments: Enrolments, asked: Enrolment, request: Request) -> None:
    words = f"somebody at {_peer(request)} tried to enrol as this machine with another key, and was refused"
    log.warning("machine %s: %s", asked.machine_id, words)
    await enrolments.doubted(asked.machine_id, words)


async def _body(request: Request) -> bytes:
    """Raises EnrolmentRefused where it is too large; then the rest is not read."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > REQUEST_BYTES_MAX:
            raise EnrolmentRefused(f"it is over {REQUEST_BYTES_MAX} bytes")
    return body


def _peer(request: Request) -> str:
    return request.client.host if request.client else "an unknown address"


async def _away(request: Request, error: Exception) -> JSONResponse:
    return _answer(503, "the database is away; try again in a moment")


def _answer(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)
