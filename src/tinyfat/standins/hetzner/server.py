"""The HTTP side of the stand-in: tokens, the rate limit, what lies do to answers, and a control of its own.

    tinyfat standin hetzner --listen 127.0.0.1:8041 --lie capacity:fsn1=3

    GET    /_standin/truth   what really is there and runs, whatever the API says
    GET    /_standin/lies    which lies are told, and how often each was
    POST   /_standin/lies    {"lie": "stop-runs-on=1"}; DELETE /_standin/lies[/NAME]: no more
    POST   /_standin/clock   {"advance": 60}: seconds, put forward
    GET    /_standin/calls   the last requests: method, path, status

The control asks for the same token as the API.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts.machine_host import MachineHostError
from tinyfat.standins.hetzner import (
    addresses,
    errors,
    firewalls,
    images,
    rrsets,
    server_actions,
    servers,
    sold,
    ssh_keys,
    volumes,
    zones,
)
from tinyfat.standins.hetzner.actions import settle
from tinyfat.standins.hetzner.calls import Answer, ApiRoute, Call, Handler
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.errors import ApiError
from tinyfat.standins.hetzner.rate_limit import DEFAULT_REQUESTS_PER_HOUR, RateLimit
from tinyfat.standins.lies import LieName, read_lie

BODY_BYTES_MAX = 1024 * 1024
CALLS_KEPT_MAX = 1000

ROUTES: list[ApiRoute] = [
    *sold.ROUTES,
    *servers.ROUTES,
    *server_actions.ROUTES,
    *addresses.ROUTES,
    *ssh_keys.ROUTES,
    *firewalls.ROUTES,
    *images.ROUTES,
    *volumes.ROUTES,
    *zones.ROUTES,
    *rrsets.ROUTES,
]


@dataclass(slots=True)
class Standin:
    """A project and who may use it."""

    cloud: Cloud
    token: str = ""  # "": any will do
    requests_per_hour: int = DEFAULT_REQUESTS_PER_HOUR
    save: Callable[[], None] | None = None  # after each change
    limit: RateLimit = field(init=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one request at a time, as in one database
    calls: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT_MAX))

    def __post_init__(self) -> None:
        self.limit = RateLimit(self.requests_per_hour, float(self.requests_per_hour), self.cloud.clock())

    async def up_to_date(self) -> None:
        await asyncio.sleep(0)  # what the host has done by now may end
        settle(self.cloud)
        await self.cloud.observe()

    def keep(self) -> None:
        if self.save is not None and self.cloud.changed:
            self.save()
            self.cloud.changed = False


def hetzner_app(standin: Standin) -> Starlette:
    """An ASGI app: the API under /v1, its own control under /_standin."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await standin.cloud.machines.open()
        yield
        for task in standin.cloud.work.values():
            task.cancel()
        await asyncio.gather(*standin.cloud.work.values(), return_exceptions=True)
        await standin.cloud.machines.close()

    api = [Route(f"/v1{path}", _endpoint(standin, handler), methods=[method]) for method, path, handler in ROUTES]
    control = [
        Route("/_standin/truth", _controlled(standin, _truth), methods=["GET"]),
        Route("/_standin/lies", _controlled(standin, _lies), methods=["GET", "POST", "DELETE"]),
        Route("/_standin/lies/{name}", _controlled(standin, _lies), methods=["DELETE"]),
        Route("/_standin/clock", _controlled(standin, _clock), methods=["POST"]),
        Route("/_standin/calls", _controlled(standin, _calls), methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {404: _no_route, 405: _no_route}
    return Starlette(routes=[*api, *control], lifespan=lifespan, exception_handlers=handlers)


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    code = "method_not_allowed" if status == 405 else "not_found"
    return JSONResponse(ApiError(status, code, f"{request.method} {request.url.path}: there is no such").body(), status)


def _endpoint(standin: Standin, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        async with standin.lock:
            await standin.up_to_date()
            response = await _answered(standin, handler, request)
            standin.keep()
        standin.calls.append({"method": request.method, "path": request.url.path, "status": response.status_code})
        return response

    return endpoint


async def _answered(standin: Standin, handler: Handler, request: Request) -> Response:
    cloud, collection = standin.cloud, request.url.path.split("/")[2]
    over = cloud.lies.tell(LieName.RATE_LIMITED, collection)
    passed = standin.limit.take(cloud.clock(), empty=over)
    headers = standin.limit.headers(empty=over)
    try:
        if not passed:
            raise ApiError(429, "rate_limit_exceeded", f"limit of {standin.limit.per_hour} requests per hour reached")
        _authenticate(standin, request)
        response = await _told(cloud, handler, request, collection)
    except ApiError as error:
        response = JSONResponse(error.body(), error.status)
    except MachineHostError as error:
        response = JSONResponse(ApiError(503, "unavailable", f"The machine host failed: {error}").body(), 503)
    response.headers.update(headers)
    return response


def _authenticate(standin: Standin, request: Request) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.encode(), standin.token.encode()) if standin.token else bool(given)
    if scheme.lower() != "bearer" or not right:
        raise ApiError(401, "unauthorized", "unable to authenticate")


async def _told(cloud: Cloud, handler: Handler, request: Request, collection: str) -> Response:
    """The answer, as the lies about answers leave it."""
    _refuse(cloud, request, collection)
    failing = cloud.lies.tell(LieName.ERROR_500, collection)
    if failing and not cloud.lies.effect_comes():
        raise ApiError(500, "server_error", "internal server error")
    call = Call(cloud, request.path_params, _query(request), await _body(request))
    answer = await handler(call)
    cloud.changed = cloud.changed or request.method != "GET"
    if failing:
        raise ApiError(500, "server_error", "internal server error")
    creates = request.method == "POST" and request.url.path.count("/") == 2 and answer.status == 201
    if creates and cloud.lies.tell(LieName.CREATE_504, collection):
        raise ApiError(504, "timeout", "The request could not be answered in time, please retry")
    return _response(request, answer)


def _refuse(cloud: Cloud, request: Request, collection: str) -> None:
    if request.method == "GET":
        return
    if cloud.lies.tell(LieName.MAINTENANCE, collection):
        raise ApiError(403, "maintenance", "Cannot perform operation due to maintenance")
    on_one = request.url.path.count("/") > 2
    if on_one and cloud.lies.tell(LieName.LOCKED, collection):
        raise errors.locked(collection)


def _query(request: Request) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        query.setdefault(name, []).append(value)
    return query


async def _body(request: Request) -> dict[str, Any]:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > BODY_BYTES_MAX:
            raise ApiError(422, "invalid_input", f"the body is over {BODY_BYTES_MAX} bytes")
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "json_error", "Invalid JSON input in your request") from None
    if not isinstance(body, dict):
        raise ApiError(400, "json_error", "The body must be a JSON object")
    return body


def _response(request: Request, answer: Answer) -> Response:
    if answer.body is None:
        return Response(status_code=answer.status)
    response = JSONResponse(answer.body, answer.status)
    if answer.pages:
        links = (f'<{request.url.include_query_params(page=to)}>; rel="{rel}"' for rel, to in answer.pages.items())
        response.headers["Link"] = ", ".join(links)
    return response


Control = Callable[[Standin, Request], Any]


def _controlled(standin: Standin, control: Control) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        async with standin.lock:
            try:
                _authenticate(standin, request)
                await standin.up_to_date()
                body = await control(standin, request)
            except ApiError as error:
                return JSONResponse(error.body(), error.status)
            except ValueError as error:
                return JSONResponse(errors.invalid("lie", str(error)).body(), 422)
            standin.keep()
        return JSONResponse(body)

    return endpoint


async def _truth(standin: Standin, _: Request) -> dict[str, Any]:
    """What the host has and runs, what would be billed, and what the API says of each server."""
    cloud = standin.cloud
    ours = [each for each in await cloud.machines.machines() if each.name.startswith(f"{cloud.prefix}-")]
    leases = await cloud.machines.leases()
    return {
        "machines": [
            {
                "server": int(each.name.rpartition("-")[2]),
                "running": each.state is MachineState.RUNNING,
                "state": each.state,
                "ipv4": each.address.ipv4 if each.address else "",
            }
            for each in ours
        ],
        "addresses": [address.ipv4 for name, address in leases.items() if name.startswith(f"{cloud.prefix}-")],
        "servers": {server.name: server.status for server in cloud.servers.values()},
        "primary_ips": {address.name: address.ip for address in cloud.primary_ips.values()},
        "firewalls": [each.name for each in cloud.firewalls.values()],
        "ssh_keys": [each.name for each in cloud.ssh_keys.values()],
        "volumes": {each.name: each.server for each in cloud.volumes.values()},
        "images": {each.id: each.description for each in cloud.images.values()},
    }


async def _lies(standin: Standin, request: Request) -> dict[str, Any]:
    """Raises ValueError."""
    lies = standin.cloud.lies
    if request.method == "POST":
        lies.add(read_lie(str((await _body(request)).get("lie", ""))))
    if request.method == "DELETE":
        name = request.path_params.get("name")
        lies.clear(LieName(name) if name else None)
    return lies.wire()


async def _clock(standin: Standin, request: Request) -> dict[str, Any]:
    seconds = (await _body(request)).get("advance")
    if not isinstance(seconds, int | float) or seconds < 0:
        raise ApiError(422, "invalid_input", "advance takes a number of seconds")
    standin.cloud.clock.advance(seconds)
    await standin.up_to_date()
    return {"now": standin.cloud.clock()}


async def _calls(standin: Standin, _: Request) -> dict[str, Any]:
    return {"calls": list(standin.calls)}
