"""The HTTP side: tokens, the limit of 1,200 requests in five minutes, pages, and a control of its own.

    tinyfat standin cloudflare --listen 127.0.0.1:8042 --zone example.org

The API is under /client/v4. /_standin/lies, /_standin/clock and /_standin/truth are as of the other stand-ins.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinyfat.standins.clock import Clock
from tinyfat.standins.cloudflare.records import (
    TTL_AUTOMATIC,
    Record,
    RecordError,
    Zone,
    new_id,
    publish,
    read,
    record_wire,
    zone_wire,
)
from tinyfat.standins.lies import LieName, Lies, read_lie
from tinyfat.standins.published import Published

WINDOW_SECONDS = 300.0
DEFAULT_REQUESTS_PER_WINDOW = 1200
BODY_BYTES_MAX = 128 * 1024
ZONES_PER_PAGE, ZONES_PER_PAGE_MAX = 20, 50
RECORDS_PER_PAGE, RECORDS_PER_PAGE_MAX = 100, 5_000_000
RECORDS_MAX = 3500  # per zone

_bearer = re.compile(r"Bearer ([A-Za-z0-9._~+/=-]{1,200})")


@dataclass(slots=True)
class Account:
    """Who has the zones, and who may use them."""

    clock: Clock = field(default_factory=Clock)
    lies: Lies = field(default_factory=Lies)
    token: str = ""  # "": any will do
    requests_per_window: int = DEFAULT_REQUESTS_PER_WINDOW
    dns_seconds: float = 0.0
    zones: dict[str, Zone] = field(default_factory=dict)
    published: Published = field(init=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    window_began: float = float("-inf")
    used: int = 0

    def __post_init__(self) -> None:
        self.published = Published(self.clock, self.dns_seconds)

    def add_zone(self, name: str) -> Zone:
        zone = Zone(new_id(), name, self.clock())
        self.zones[zone.id] = zone
        return zone

    def take(self, empty: bool) -> bool:
        """Count a request. Who goes over the limit is kept out for a whole window more."""
        now = self.clock()
        if now - self.window_began >= WINDOW_SECONDS:
            self.window_began, self.used = now, 0
        self.used += 1
        if self.used == self.requests_per_window + 1:
            self.window_began = now
        return not empty and self.used <= self.requests_per_window

    def limit_headers(self, passed: bool) -> dict[str, str]:
        left = max(0, self.requests_per_window - self.used) if passed else 0
        reset = max(1, math.ceil(self.window_began + WINDOW_SECONDS - self.clock()))
        headers = {
            "Ratelimit": f'"default";r={left};t={reset}',
            "Ratelimit-Policy": f'"default";q={self.requests_per_window};w={WINDOW_SECONDS:.0f}',
        }
        return headers if passed else {**headers, "retry-after": str(reset)}


Handler = Callable[[Account, Request, Mapping[str, Any]], Awaitable[dict[str, Any]]]


def cloudflare_app(account: Account) -> Starlette:
    """An ASGI app."""
    one = "/zones/{zone}/dns_records/{record}"
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "/zones", _list_zones),
        ("GET", "/zones/{zone}", _get_zone),
        ("GET", "/zones/{zone}/dns_records", _list_records),
        ("POST", "/zones/{zone}/dns_records", _create),
        ("GET", one, _get_record),
        ("PUT", one, _overwrite),
        ("PATCH", one, _change),
        ("DELETE", one, _delete),
    ]
    api = [
        Route(f"/client/v4{path}", _endpoint(account, handler), methods=[method]) for method, path, handler in routes
    ]
    control = [
        Route("/_standin/truth", _controlled(account, _truth), methods=["GET"]),
        Route("/_standin/lies", _controlled(account, _lies), methods=["GET", "POST", "DELETE"]),
        Route("/_standin/clock", _controlled(account, _clock), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {404: _no_route, 405: _no_route}
    return Starlette(routes=[*api, *control], exception_handlers=handlers)


def _failure(error: RecordError) -> JSONResponse:
    shown: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.chain:
        shown["error_chain"] = [{"code": code, "message": message} for code, message in error.chain]
    return JSONResponse({"result": None, "success": False, "errors": [shown], "messages": []}, error.status)


async def _no_route(request: Request, error: Exception) -> Response:
    return _failure(RecordError(getattr(error, "status_code", 404), 7000, "No route for that URI"))


def _endpoint(account: Account, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        collection = "dns_records" if "dns_records" in request.url.path else "zones"
        async with account.lock:
            passed = account.take(empty=account.lies.tell(LieName.RATE_LIMITED, collection))
            try:
                if not passed:
                    raise RecordError(429, 971, "Please wait and consider throttling your request speed")
                _authenticate(account, request)
                response = await _answered(account, handler, request, collection)
            except RecordError as error:
                response = _failure(error)
        response.headers.update(account.limit_headers(passed))
        return response

    return endpoint


def _authenticate(account: Account, request: Request) -> None:
    given = request.headers.get("authorization")
    if given is None:
        raise RecordError(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
    found = _bearer.fullmatch(given)
    if found is None:
        chain = ((6111, "Invalid format for Authorization header"),)
        raise RecordError(400, 6003, "Invalid request headers", chain)
    if account.token and not hmac.compare_digest(found[1].encode(), account.token.encode()):
        if "dns_records" in request.url.path:
            raise RecordError(403, 10000, "Authentication error")
        raise RecordError(403, 9109, "Invalid access token")


async def _answered(account: Account, handler: Handler, request: Request, collection: str) -> Response:
    failing = account.lies.tell(LieName.ERROR_500, collection)
    if failing and not account.lies.effect_comes():
        raise RecordError(500, 10001, "Internal server error")
    answer = await handler(account, request, await _body(request))
    if failing:
        raise RecordError(500, 10001, "Internal server error")
    if request.method == "POST" and account.lies.tell(LieName.CREATE_504, collection):
        return Response("<html>504 Gateway Time-out</html>", 504, media_type="text/html")
    return JSONResponse({"success": True, "errors": [], "messages": [], **answer})


async def _body(request: Request) -> dict[str, Any]:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > BODY_BYTES_MAX:
            raise RecordError(413, 10013, "Request body is too large")
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RecordError(400, 9207, "Request body is invalid.")
    return body


def _page(request: Request, items: Sequence[dict[str, Any]], default: int, most: int) -> dict[str, Any]:
    page, size = (_number(request, name, value) for name, value in (("page", 1), ("per_page", default)))
    size = min(size, most)
    cut = items[(page - 1) * size : page * size]
    info = {
        "page": page,
        "per_page": size,
        "count": len(cut),
        "total_count": len(items),
        "total_pages": -(-len(items) // size),
    }
    return {"result": cut, "result_info": info}


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise RecordError(400, 1001, f"{name} must be a positive number")
    return int(text)


def _filtered(request: Request, items: Iterable[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    wanted = {name: request.query_params[name] for name in names if name in request.query_params}
    return [item for item in items if all(str(item[name]).lower() == text.lower() for name, text in wanted.items())]


def _zone(account: Account, request: Request) -> Zone:
    found = account.zones.get(request.path_params["zone"])
    if found is None:
        message = f"Could not route to {request.url.path.removeprefix('/client/v4')}, perhaps your object identifier"
        raise RecordError(404, 7003, f"{message} is invalid?")
    return found


def _record(account: Account, request: Request) -> tuple[Zone, Record]:
    zone = _zone(account, request)
    record = zone.records.get(request.path_params["record"])
    if record is None:
        raise RecordError(404, 81044, "Record does not exist.")
    return zone, record


async def _list_zones(account: Account, request: Request, _: Mapping[str, Any]) -> dict[str, Any]:
    zones = _filtered(request, map(zone_wire, account.zones.values()), ("name", "status"))
    return _page(request, zones, ZONES_PER_PAGE, ZONES_PER_PAGE_MAX)


async def _get_zone(account: Account, request: Request, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"result": zone_wire(_zone(account, request))}


async def _list_records(account: Account, request: Request, _: Mapping[str, Any]) -> dict[str, Any]:
    records = map(record_wire, _zone(account, request).records.values())
    found = _filtered(request, records, ("name", "type", "content"))
    return _page(request, found, RECORDS_PER_PAGE, RECORDS_PER_PAGE_MAX)


async def _get_record(account: Account, request: Request, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"result": record_wire(_record(account, request)[1])}


async def _create(account: Account, request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    zone = _zone(account, request)
    if len(zone.records) >= RECORDS_MAX:
        raise RecordError(400, 81045, "The record quota has been exceeded.")
    return _keep(account, zone, read(zone, body, None, account.clock()))


async def _overwrite(account: Account, request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    zone, old = _record(account, request)
    blank = replace(old, name="", type="", content="", ttl=TTL_AUTOMATIC, proxied=False, priority=None, comment="")
    return _keep(account, zone, read(zone, body, blank, account.clock()), old)


async def _change(account: Account, request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    zone, old = _record(account, request)
    return _keep(account, zone, read(zone, body, old, account.clock()), old)


def _keep(account: Account, zone: Zone, record: Record, old: Record | None = None) -> dict[str, Any]:
    zone.records[record.id] = record
    if old is not None and (old.name, old.type) != (record.name, record.type):
        publish(account.published, zone, old.name, old.type)
    publish(account.published, zone, record.name, record.type)
    return {"result": record_wire(record)}


async def _delete(account: Account, request: Request, _: Mapping[str, Any]) -> dict[str, Any]:
    zone, record = _record(account, request)
    del zone.records[record.id]
    publish(account.published, zone, record.name, record.type)
    return {"result": {"id": record.id}}


Control = Callable[[Account, Request], Awaitable[dict[str, Any]]]


def _controlled(account: Account, control: Control) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        async with account.lock:
            try:
                _authenticate(account, request)
                return JSONResponse(await control(account, request))
            except RecordError as error:
                return _failure(error)
            except ValueError as error:
                return _failure(RecordError(422, 0, str(error)))

    return endpoint


async def _truth(account: Account, _: Request) -> dict[str, Any]:
    zones = account.zones.values()
    return {zone.name: [record_wire(record) for record in zone.records.values()] for zone in zones}


async def _lies(account: Account, request: Request) -> dict[str, Any]:
    """Raises ValueError."""
    if request.method == "POST":
        account.lies.add(read_lie(str((await _body(request)).get("lie", "")), "dns_records"))
    if request.method == "DELETE":
        account.lies.clear()
    return account.lies.wire()


async def _clock(account: Account, request: Request) -> dict[str, Any]:
    seconds = (await _body(request)).get("advance")
    if not isinstance(seconds, int | float) or seconds < 0:
        raise ValueError("advance takes a number of seconds")
    account.clock.advance(seconds)
    return {"now": account.clock()}
