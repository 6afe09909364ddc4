"""The reception: what `api/box_enrol` and `api/box_link` are to agents' machines, for one machine that an image is made
or tried with. All it knows is in memory; its secrets are of this run alone."""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from tinyfat.api.box_enrol import make_box_app
from tinyfat.api.gate import STANDIN_BODY_BYTES_MAX, Group
from tinyfat.domain.enrolment import KEY_BYTES, RUNTIME_PATH, Identity, Outcome, key_hash
from tinyfat.domain.link import (
    CLOSE_TOKEN_REFUSED,
    Frame,
    FrameRefused,
    IdentitySerial,
    Log,
    ModelAccess,
    RuntimeSpec,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.link_json import encode, read_frame
from tinyfat.domain.machines import MachineOrder, ServerOrder
from tinyfat.domain.turns import Turn, TurnResult
from tinyfat.engine.reading import Reading
from tinyfat.image_wiring import ReceptionTerms
from tinyfat.ports.enrolments import EnrolOutcome
from tinyfat.ports.ledger import NotFound
from tinyfat.standins.model import MODEL, model_app

LINES_KEPT = 20
ANSWER_SECONDS_MAX = 280.0  # the box gives up before whoever asked
_MODEL_PATH = "/model"


class ImageReception:
    """Implements ports/image_reception Reception, and ports/enrolments Enrolments and Identities."""

    def __init__(self, terms: ReceptionTerms) -> None:
        self._terms = terms
        self._forget()

    def _forget(self) -> None:
        self._machine_id, self._runtime, self._runtime_sha256, self._serial, self._sealed = "", "", "", 1, False
        self._enrolment_token, self._link_token, self._model_key = (secrets.token_hex(KEY_BYTES) for _ in range(3))
        self._key: bytes | None = None
        self._turn: Turn | None = None
        self._socket: WebSocket | None = None
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.status: Status | None = None
        self.result: TurnResult | None = None

    # Of the port Reception.

    def expect(
        self, machine_id: str, runtime: str, image: str, runtime_sha256: str = "", makes: str = ""
    ) -> MachineOrder:
        self._forget()
        self._machine_id, self._runtime, self._runtime_sha256 = machine_id, runtime, runtime_sha256
        terms = self._terms
        server = ServerOrder(
            hostname=self._hostname,
            control_url=terms.control_url,
            control_ca=terms.authority_pem,
            enrolment_token=self._enrolment_token,
            box_sha256=terms.box.sha256,
            ssh_ca=terms.ssh_ca,
            ssh_networks=(),  # nobody has business on it
            image=image,
            size=terms.elsewhere.size,
            locations=terms.elsewhere.locations,
            makes=makes or image,
        )
        return MachineOrder(machine_id, "", runtime, terms.link_url, self._link_token, server)

    @property
    def last_lines(self) -> str:
        return "\n".join(self._lines)

    async def ask(self, turn_id: str, text: str) -> None:
        self._turn, self.result = Turn(turn_id, f"probe:{turn_id}", text, ANSWER_SECONDS_MAX), None
        await self._send(TurnOffer(self._turn))

    async def seal(self) -> None:
        self._sealed = True
        self._serial += 1
        await self._send(IdentitySerial(self._serial))

    # Of the ports of enrolment.

    async def enrol(self, machine_id: str, token_hash: bytes, key_hash_: bytes) -> EnrolOutcome:
        if machine_id != self._machine_id or not hmac.compare_digest(token_hash, key_hash(self._enrolment_token)):
            return EnrolOutcome.REFUSED
        if self._key is not None and self._key != key_hash_:
            return EnrolOutcome.TAKEN
        self._key = key_hash_
        return EnrolOutcome.ENROLLED

    async def by_key(self, key_hash_: bytes) -> str | None:
        known = self._key is not None and hmac.compare_digest(self._key, key_hash_)
        return self._machine_id if known else None

    async def fetched(self, machine_id: str, serial: int) -> None: ...

    async def became(self, machine_id: str, outcome: Outcome) -> None:
        if outcome.complaint:
            self._lines.append(outcome.complaint)

    async def doubted(self, machine_id: str, words: str) -> None:
        self._lines.append(words)

    async def of(self, machine_id: str) -> Identity:
        if machine_id != self._machine_id:
            raise NotFound(f"The machine {machine_id} is not awaited.")
        return Identity(
            serial=self._serial,
            machine_id=machine_id,
            agent_name="",
            runtime=self._runtime,
            hostname=self._hostname,
            link_url=self._terms.link_url,
            link_token=self._link_token,
            ssh_host_key=self._terms.ssh_host_key,
            ssh_ca=self._terms.ssh_ca,
            ssh_networks=(),
            runtime_sha256=self._runtime_sha256,
            sealed=self._sealed,
        )

    @property
    def _hostname(self) -> str:
        return f"m-{self._machine_id[:8]}.image.{self._terms.domain}"

    # The link.

    async def serve(self, socket: WebSocket) -> None:
        await socket.accept()
        token = socket.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(token.encode(), self._link_token.encode()):
            await socket.close(CLOSE_TOKEN_REFUSED, "this token opens no machine")
            return
        self._socket = socket
        try:
            await self._send(Welcome(self._spec()))
            await self._send(IdentitySerial(self._serial))
            if self._turn is not None and self.result is None:
                await self._send(TurnOffer(self._turn))
            while True:
                await self._heard(read_frame(await socket.receive_text()))
        except (WebSocketDisconnect, FrameRefused, RuntimeError):  # starlette's word for a socket that closed under us
            return
        finally:
            if self._socket is socket:
                self._socket = None

    async def _heard(self, frame: Frame | None) -> None:
        match frame:
            case Status():
                self.status = frame
            case Log(lines):
                self._lines.extend(line.text for line in lines)
            case TurnAnswer(turn_id, result):
                if self._turn is not None and turn_id == self._turn.id:
                    self.result = result
                await self._send(TurnSettled(turn_id))

    async def _send(self, frame: Frame) -> None:
        """Where the box is not on the line, it is told when it is."""
        if self._socket is not None:
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.send_text(encode(frame))

    def _spec(self) -> RuntimeSpec:
        """Our stand-in for a model: it is the image that is tried, not a vendor."""
        url = f"{self._terms.control_url}{_MODEL_PATH}/v1"
        model = ModelAccess("openai-completions", url, self._model_key, MODEL)
        return RuntimeSpec(self._runtime, "", model, self._terms.runtime_memory)

    def model_key_is(self, authorization: str) -> bool:
        return hmac.compare_digest(authorization.encode(), f"Bearer {self._model_key}".encode())


def reception_app(reception: ImageReception, terms: ReceptionTerms) -> FastAPI:
    """The box's archive, enrolment, identity and link; node and the runtime where the terms have them; a model."""
    model = (_MODEL_PATH, Group("standin", STANDIN_BODY_BYTES_MAX))
    archives = {terms.box.sha256: terms.box.data}
    app = make_box_app(reception, reception, reception, archives, Reading(), [model])

    @app.get(RUNTIME_PATH + "/{sha256}")
    async def runtime(request: Request, sha256: str) -> Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if await reception.by_key(key_hash(key)) is None:
            return JSONResponse({"error": "this key is no machine's"}, 401)
        file: Path | None = terms.elsewhere.runtimes.get(sha256)
        if file is None:
            return JSONResponse({"error": "there is no such archive here"}, 404)
        return FileResponse(file, media_type="application/gzip")

    app.mount(_MODEL_PATH, _OfOurs(reception, model_app()))
    return app


class _OfOurs:
    """An ASGI app for the machine that is awaited, and for nobody else."""

    def __init__(self, reception: ImageReception, app: ASGIApp) -> None:
        self._reception, self._app = reception, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._reception.model_key_is(Request(scope).headers.get("authorization", "")):
            await JSONResponse({"error": "this key is no machine's"}, 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)
