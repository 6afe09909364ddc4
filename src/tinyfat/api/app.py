"""The HTTP surface of the control plane, put together."""

from __future__ import annotations

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from tinyfat import __version__
from tinyfat.api import exports, inbound, money, operator, room, servers
from tinyfat.api.box_link import BoxLinks
from tinyfat.api.first_page import FIRST_PAGE, PAGE, PAGE_HEADERS
from tinyfat.api.gate import MAIL_SECONDS_MAX, STANDIN_BODY_BYTES_MAX, Gate, Group, Headers, Refusal, operator_group
from tinyfat.domain.link import STATE_PATH
from tinyfat.ports.ledger import Conflict, NotFound, StoreUnavailable
from tinyfat.relay_wiring import Relay
from tinyfat.wiring import World

STANDIN_PATH = "/standin/model"
PUBLIC_BODY_BYTES_MAX = 1024
INBOUND_AT_ONCE_MAX = 16


def make_app(world: World, links: BoxLinks, relay: Relay, operator_token: str) -> FastAPI:
    app = FastAPI(title="TinyFat", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.world = world
    app.state.links = links
    app.state.relay = relay
    app.state.operator_token = operator_token
    app.state.intake = world.intake
    app.state.mail_size_max = world.settings.mail_size_max
    secret = world.settings.inbound_secret
    app.state.inbound_secret = secret.get_secret_value() if secret else ""
    app.include_router(operator.router)
    app.include_router(money.router)
    app.include_router(servers.router)
    app.include_router(exports.router)
    app.include_router(room.router)
    app.include_router(inbound.router)
    _add_health(app, world)
    _add_errors(app)
    _add_first_page(app)

    @app.websocket("/box/link")
    async def box_link(socket: WebSocket) -> None:
        await links.serve(socket)

    if world.model_standin is not None:
        app.mount(STANDIN_PATH, world.model_standin)
    groups = _groups(operator_token, app.state.inbound_secret, world.settings.mail_size_max)
    app.add_middleware(Gate, groups=groups, reading=world.reading)
    return app


def _groups(operator_token: str, inbound_secret: str, mail_size_max: int) -> list[tuple[str, Group]]:
    """Who may ask what: everything that is not named here is the operator's."""

    def signed(headers: Headers) -> Refusal | None:
        return inbound.head_refusal(headers, inbound_secret)

    public = Group("public", body_max=PUBLIC_BODY_BYTES_MAX)
    return [
        (FIRST_PAGE, public),
        ("/healthz", public),
        ("/readyz", public),
        ("/mail/inbound", Group("inbound", mail_size_max, MAIL_SECONDS_MAX, INBOUND_AT_ONCE_MAX, signed)),
        (STATE_PATH, Group("states", body_max=0)),  # its route asks for the machine's token before it reads
        (STANDIN_PATH, Group("standin", STANDIN_BODY_BYTES_MAX)),
        ("", operator_group(operator_token)),
    ]


def _add_health(app: FastAPI, world: World) -> None:
    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"ok": True, "version": __version__})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Can a mail be taken in now?"""
        if complaint := await world.ready.complaint():
            return JSONResponse({"ok": False, "error": complaint}, 503)
        return JSONResponse({"ok": True})


def _add_first_page(app: FastAPI) -> None:
    @app.get(FIRST_PAGE)
    async def first_page() -> HTMLResponse:
        """For whoever opens the address that `up` prints in a browser."""
        return HTMLResponse(PAGE, headers=PAGE_HEADERS)


def _add_errors(app: FastAPI) -> None:
    def handler(status: int) -> object:
        async def answer(request: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"error": str(error)}, status)

        return answer

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, 422)

    for kind, status in ((NotFound, 404), (Conflict, 409), (StoreUnavailable, 503), (ValueError, 422)):
        app.add_exception_handler(kind, handler(status))  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)
