"""The connection to Hetzner's API: what it waits for, what it says, what it never says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hcloud import Client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.running import free_port
from tinyfat.domain.request_limits import HETZNER_LIMIT
from tinyfat.drivers.hetzner_cloud import (
    CLIENT_TRIES_MORE,
    RATE_TRIES,
    RATE_WAIT_SECONDS_MAX,
    AlreadyThere,
    Busy,
    HetznerCloud,
    NoRoom,
    NotFound,
    NotOffered,
    OverLimit,
    Refused,
    Unreachable,
)
from tinyfat.drivers.request_budget import LocalBudget
from tinyfat.ports.dns import DnsRefused, DnsUnreachable
from tinyfat.ports.machines import MachineRefused, MachinesUnreachable
from tinyfat.ports.requests import RequestsShort, ending
from tinyfat.standins.serving import served

TOKEN = "token-PLANTED-3f2a"
NOW = 1_000.0


@asynccontextmanager
async def api(answer: Callable[[], Response]) -> AsyncIterator[tuple[HetznerCloud, list[str], list[float]]]:
    """A connection to an API that always answers so; the requests it got; what would have been slept."""
    asked: list[str] = []
    slept: list[float] = []
    clock = [NOW]

    async def endpoint(request: Request) -> Response:
        asked.append(request.headers["authorization"])
        return answer()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    async with served(Starlette(routes=[Route("/v1/servers", endpoint)])) as url:
        made = HetznerCloud(TOKEN, f"{url}/v1", lambda: clock[0], lambda: clock[0], sleep)
        try:
            yield made, asked, slept
        finally:
            made.close()


def error(code: str, status: int, details: Any = None) -> Callable[[], Response]:
    return lambda: JSONResponse({"error": {"code": code, "message": f"no {TOKEN}", "details": details}}, status)


def servers(client: Client) -> int:
    return len(client.servers.get_list().servers)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("locked", 423, Busy),
        ("resource_unavailable", 412, NoRoom),
        ("placement_error", 412, NoRoom),
        ("not_found", 404, NotFound),
        ("uniqueness_error", 409, AlreadyThere),
        ("invalid_input", 422, Refused),
        ("resource_limit_exceeded", 403, OverLimit),
        ("unauthorized", 401, Refused),
        ("maintenance", 403, Unreachable),
        ("server_error", 500, Unreachable),
        ("some_new_code", 503, Unreachable),
        ("some_new_code", 422, Refused),
    ],
)
async def test_each_answer_is_an_error_of_both_ports_and_none_shows_the_token(
    code: str, status: int, kind: type[Exception]
) -> None:
    async with api(error(code, status)) as (cloud, asked, _):
        with pytest.raises(kind) as raised:
            await cloud.call("list its servers", servers)
    assert type(raised.value) is kind and str(raised.value).startswith("Hetzner did not list its servers: ")
    assert TOKEN not in str(raised.value) and asked == [f"Bearer {TOKEN}"]
    ports = (MachineRefused, DnsRefused) if issubclass(kind, Refused) else (MachinesUnreachable, DnsUnreachable)
    assert all(isinstance(raised.value, port) for port in ports)


async def test_of_what_was_wrong_only_the_names_are_said() -> None:
    details = {"fields": [{"name": "user_data", "messages": ["enrolment-PLANTED is too long"]}]}
    async with api(error("invalid_input", 422, details)) as (cloud, _, _):
        with pytest.raises(Refused, match="in user_data") as raised:
            await cloud.call("make a server", servers)
    assert "PLANTED" not in str(raised.value)


def limited(header: str) -> Callable[[], Response]:
    return lambda: JSONResponse({"error": {}}, 429, {"RateLimit-Reset": header} if header else {})


@pytest.mark.parametrize("header", [str(NOW + 3600), str(NOW + 2), "", "soon"])
async def test_over_the_rate_limit_a_short_wait_is_waited_where_something_ends(header: str) -> None:
    async with api(limited(header)) as (cloud, asked, slept):
        with pytest.raises(RequestsShort, match="rate limit"), ending():
            await cloud.call("delete a server", servers)
        assert len(asked) == RATE_TRIES and max(slept) <= RATE_WAIT_SECONDS_MAX


@pytest.mark.parametrize("header", [str(NOW + 3600), str(NOW + 2), "", "soon"])
async def test_over_the_rate_limit_nothing_is_asked_until_the_reserve_is_whole_but_for_ends(header: str) -> None:
    """Not until the limit is, in an hour: what comes back meanwhile may be used."""
    async with api(limited(header)) as (cloud, asked, slept):
        with pytest.raises(RequestsShort) as short:
            await cloud.call("list its servers", servers)
        assert len(asked) == 1 and slept == []
        assert short.value.seconds == pytest.approx(HETZNER_LIMIT.reserve + 1)
        with pytest.raises(RequestsShort, match="goes on by itself"):
            await cloud.call("list its servers", servers)
        assert len(asked) == 1
        with pytest.raises(RequestsShort), ending():
            await cloud.call("delete a server", servers)
        assert len(asked) == 1 + RATE_TRIES and all(seconds <= RATE_WAIT_SECONDS_MAX for seconds in slept)


async def test_what_the_vendor_says_is_left_counts_for_it_knows_who_else_asks() -> None:
    answers = [str(int(HETZNER_LIMIT.reserve) + 1), "3000"]

    def left() -> Response:
        return JSONResponse({"servers": []}, 200, {"RateLimit-Limit": "3600", "RateLimit-Remaining": answers[0]})

    async with api(left) as (cloud, asked, slept):
        await cloud.call("list its servers", servers)
        assert cloud.pace == 1.0
        await cloud.call("list its servers", servers)
        assert cloud.pace > 1.0
        answers.pop(0)
        for _ in range(5):
            await cloud.call("list its servers", servers)
        assert sum(slept) == pytest.approx(5, abs=1.1)  # as fast as requests are given back, and no faster
        answers[0] = "10"
        await cloud.call("list its servers", servers)
        with pytest.raises(RequestsShort):
            await cloud.call("list its servers", servers)
        before = len(asked)
        with ending():
            for _ in range(9):
                await cloud.call("delete a server", servers)
        assert len(asked) == before + 9


async def test_pages_count_as_the_requests_they_are() -> None:
    """One call of ours, three requests: in the end as many were counted as were made."""
    made = [0]

    def page() -> Response:
        made[0] += 1
        meta = {"pagination": {"page": 1, "per_page": 50, "next_page": None if made[0] % 3 == 0 else made[0] % 3 + 1}}
        return JSONResponse({"servers": [], "meta": meta})

    async with api(page) as (cloud, asked, _):
        for _ in range(4):
            await cloud.call("list all servers", lambda client: len(client.servers.get_all()))
        with ending():
            await cloud.call("list its servers", servers)
        assert len(asked) == 13
        budget = cloud._budget
        assert isinstance(budget, LocalBudget) and HETZNER_LIMIT.capacity - budget._bucket.tokens == 13


@pytest.mark.parametrize(
    ("code", "message", "fields"),
    [
        ("invalid_input", "unsupported location for server type", []),
        ("invalid_input", "Server type cx22 is deprecated", []),
        ("invalid_input", "server type is not available in this location", []),
        ("invalid_input", "invalid input in field 'server_type'", ["server_type"]),
        ("invalid_input", "invalid input in field 'location'", ["location"]),
        ("invalid_input", "image is incompatible with the architecture of the server type", []),
        ("invalid_input", "Image disk is bigger than server type disk", ["image"]),
        ("unsupported_location", "not here", []),
        ("location_disabled", "Location is disabled for new servers", []),
        ("unavailable", "Sold out", []),
        ("deprecated_server_type", "gone", []),
        ("server_type_deprecated", "gone", []),
    ],
)
async def test_what_another_place_or_type_may_have_is_no_refusal_for_good(
    code: str, message: str, fields: list[str]
) -> None:
    details = {"fields": [{"name": name, "messages": []} for name in fields]} if fields else None
    body = {"error": {"code": code, "message": message, "details": details}}
    async with api(lambda: JSONResponse(body, 422)) as (cloud, _, _):
        with pytest.raises(NotOffered):
            await cloud.call("make a server", servers)


@pytest.mark.parametrize(
    ("code", "message", "fields"),
    [
        ("invalid_input", "invalid input in field 'user_data'", ["user_data"]),
        ("invalid_input", "invalid input", ["server_type", "user_data"]),
        ("invalid_input", "name is too long", []),
        ("unauthorized", "not in this location", []),
        ("resource_limit_exceeded", "server limit reached for this location", []),
    ],
)
async def test_what_is_wrong_everywhere_stays_refused(code: str, message: str, fields: list[str]) -> None:
    details = {"fields": [{"name": name, "messages": []} for name in fields]} if fields else None
    body = {"error": {"code": code, "message": message, "details": details}}
    async with api(lambda: JSONResponse(body, 422)) as (cloud, _, _):
        with pytest.raises(Refused) as refused:
            await cloud.call("make a server", servers)
    assert not isinstance(refused.value, NoRoom)


@pytest.mark.parametrize("body", [b"<html>not found</html>", b"[]", b'{"servers": [{}]}', b""])
async def test_an_answer_that_cannot_be_read_is_no_answer_and_no_crash(body: bytes) -> None:
    async with api(lambda: Response(body, 200)) as (cloud, _, _):
        with pytest.raises((Unreachable, Refused)):
            await cloud.call("list its servers", servers)


async def test_nobody_there_is_unreachable() -> None:
    cloud = HetznerCloud(TOKEN, f"http://127.0.0.1:{free_port()}/v1")
    try:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await cloud.call("list its servers", servers)
    finally:
        cloud.close()


async def test_it_serves_two_event_loops() -> None:
    """Flows run on a loop of their own beside the web's."""
    async with api(lambda: JSONResponse({"servers": []})) as (cloud, asked, _):
        there = asyncio.to_thread(lambda: asyncio.run(cloud.call("list its servers", servers)))
        assert await asyncio.gather(there, cloud.call("list its servers", servers)) == [0, 0]
        assert len(asked) == 2


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(Refused) as raised:
        HetznerCloud(token, "http://127.0.0.1:9/v1")
    assert token not in str(raised.value)


def test_the_client_still_has_what_we_set_on_it() -> None:
    """Attributes that hcloud does not promise: an update without them would wait far longer, and hide statuses."""
    fresh = Client("token")
    assert isinstance(fresh._client._retry_max_retries, int) and "response" in fresh._client._session.hooks
    assert fresh._client._retry_max_retries > CLIENT_TRIES_MORE
