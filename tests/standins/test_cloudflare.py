"""Cloudflare's records API as its documentation, and people who met it, say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import dns.asyncquery
import dns.message
import httpx2
import pytest

from tinyfat.dns_server.serving import dns_served
from tinyfat.standins.clock import Clock
from tinyfat.standins.cloudflare.server import WINDOW_SECONDS, Account, Zone, cloudflare_app
from tinyfat.standins.lies import Lies, read_lie

TOKEN = "token-of-the-account"
ADA = {"type": "A", "name": "ada", "content": "192.0.2.1", "ttl": 60}


@dataclass
class Api:
    account: Account
    zone: Zone
    client: httpx2.AsyncClient

    @property
    def records(self) -> str:
        return f"/zones/{self.zone.id}/dns_records"

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        response = await self.client.request(method, f"/client/v4{path}", json=body, **more)
        answer = response.json()
        assert answer["success"] is (response.status_code == 200)
        return response.status_code, answer

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.ask(method, path, body)
        assert status == 200, answer
        return answer["result"]

    async def refused(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, int]:
        status, answer = await self.ask(method, path, body, **more)
        assert answer["result"] is None
        return status, answer["errors"][0]["code"]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    account = Account(Clock(lambda: 1_800_000_000.0), token=TOKEN)
    account.add_zone("example.net")
    zone = account.add_zone("example.org")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx2.ASGITransport(app=cloudflare_app(account))
    async with httpx2.AsyncClient(transport=transport, base_url="http://cloudflare", headers=headers) as client:
        yield Api(account, zone, client)


async def test_a_record_from_its_making_to_its_end(api: Api) -> None:
    made = await api.done("POST", api.records, {**ADA, "comment": "hers"})
    assert (made["name"], made["proxied"], made["ttl"]) == ("ada.example.org", False, 60)
    one = f"{api.records}/{made['id']}"
    assert await api.done("GET", one) == made
    changed = await api.done("PATCH", one, {"content": "192.0.2.2"})
    assert (changed["content"], changed["ttl"], changed["comment"]) == ("192.0.2.2", 60, "hers")
    whole = await api.done("PUT", one, {"type": "A", "name": "ada.example.org", "content": "192.0.2.3"})
    assert (whole["content"], whole["ttl"], whole["comment"]) == ("192.0.2.3", 1, None)
    assert await api.refused("PUT", one, {"content": "192.0.2.3"}) == (400, 1004)
    assert await api.done("DELETE", one) == {"id": made["id"]}
    assert await api.refused("DELETE", one) == (404, 81044)


async def test_the_name_server_answers(api: Api) -> None:
    made = [
        await api.done("POST", api.records, body)
        for body in (
            ADA,
            {**ADA, "content": "192.0.2.9", "ttl": 1},
            {"type": "MX", "name": "example.org", "content": "mail.example.net", "priority": 10},
            {"type": "TXT", "name": "@", "content": '"v=spf1 " "-all"'},
        )
    ]
    async with dns_served(api.account.published.zones, "127.0.0.1", 0) as port:

        async def dig(name: str, kind: str) -> list[str]:
            message = await dns.asyncquery.udp(dns.message.make_query(name, kind), "127.0.0.1", 5, port)
            return sorted(f"{rrset.ttl} {rdata}" for rrset in message.answer for rdata in rrset)

        assert await dig("ada.example.org", "A") == ["60 192.0.2.1", "60 192.0.2.9"]
        assert await dig("example.org", "MX") == ["300 10 mail.example.net."]
        assert await dig("example.org", "TXT") == ['300 "v=spf1 -all"']
        await api.done("PATCH", f"{api.records}/{made[0]['id']}", {"name": "bob"})
        assert await dig("ada.example.org", "A") == ["300 192.0.2.9"]
        assert await dig("bob.example.org", "A") == ["60 192.0.2.1"]
        await api.done("DELETE", f"{api.records}/{made[1]['id']}")
        assert await dig("ada.example.org", "A") == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (ADA, 81058),
        ({**ADA, "name": "ADA.example.org."}, 81058),
        ({**ADA, "ttl": 300}, 81057),
        ({"type": "CNAME", "name": "ada", "content": "example.net"}, 81053),
        ({**ADA, "name": "www"}, 81054),
        ({**ADA, "content": "2001:db8::1"}, 1004),
        ({**ADA, "content": "192.0.2.7", "ttl": 59}, 1004),
        ({**ADA, "name": "a b"}, 1004),
        ({**ADA, "type": "BOGUS"}, 1004),
        ({"type": "MX", "name": "@", "content": "mail.example.net"}, 1004),
        ({"type": "TXT", "name": "t", "content": "x", "proxied": True}, 1004),
        ({}, 1004),
    ],
)
async def test_records_that_cannot_be(api: Api, body: dict[str, object], code: int) -> None:
    await api.done("POST", api.records, ADA)
    await api.done("POST", api.records, {"type": "CNAME", "name": "www", "content": "example.net"})
    assert await api.refused("POST", api.records, body) == (400, code)


async def test_a_refusal_has_its_reasons_behind_it(api: Api) -> None:
    _, answer = await api.ask("POST", api.records, {**ADA, "content": "x"})
    assert answer["errors"] == [
        {
            "code": 1004,
            "message": "DNS Validation Error",
            "error_chain": [{"code": 9005, "message": "Content for A record must be a valid IPv4 address."}],
        }
    ]


async def test_behind_the_proxy_the_ttl_is_automatic(api: Api) -> None:
    made = await api.done("POST", api.records, {**ADA, "proxied": True})
    assert (made["proxied"], made["ttl"]) == (True, 1)


async def test_pages_and_filters(api: Api) -> None:
    for number in range(7):
        await api.done("POST", api.records, {**ADA, "name": f"n{number}"})
    await api.done("POST", api.records, {**ADA, "type": "AAAA", "content": "2001:db8::1", "name": "n1"})
    _, answer = await api.ask("GET", f"{api.records}?per_page=3&page=3")
    assert [record["type"] for record in answer["result"]] == ["A", "AAAA"]
    info = {"page": 3, "per_page": 3, "count": 2, "total_count": 8, "total_pages": 3}
    assert answer["result_info"] == info
    assert len(await api.done("GET", f"{api.records}?name=n1.example.org")) == 2
    assert len(await api.done("GET", f"{api.records}?name=n1.example.org&type=AAAA")) == 1
    assert await api.done("GET", f"{api.records}?content=192.0.2.99") == []
    zones = await api.done("GET", "/zones?name=example.org")
    assert [zone["id"] for zone in zones] == [api.zone.id]
    assert await api.done("GET", f"/zones/{api.zone.id}") == zones[0]
    assert await api.done("GET", "/zones?name=nowhere.example") == []
    assert await api.refused("GET", f"/zones/{'0' * 32}/dns_records") == (404, 7003)


async def test_who_may(api: Api) -> None:
    wrong = {"headers": {"Authorization": "Bearer wrong"}}
    assert await api.refused("GET", "/zones", **wrong) == (403, 9109)
    assert await api.refused("GET", api.records, **wrong) == (403, 10000)
    assert await api.refused("GET", "/zones", headers={"Authorization": "wrong"}) == (400, 6003)
    api.client.headers.pop("Authorization")
    assert await api.refused("GET", "/zones") == (400, 9106)
    assert (await api.client.get("/_standin/truth")).status_code == 400


async def test_over_the_limit_one_waits_a_whole_window(api: Api) -> None:
    api.account.requests_per_window = 2
    first = await api.client.get("/client/v4/zones")
    assert first.headers["Ratelimit"] == '"default";r=1;t=300'
    assert first.headers["Ratelimit-Policy"] == '"default";q=2;w=300'
    await api.done("GET", "/zones")
    api.account.clock.advance(WINDOW_SECONDS - 1)
    blocked = await api.client.get("/client/v4/zones")
    assert (blocked.status_code, blocked.headers["retry-after"]) == (429, "300")
    api.account.clock.advance(WINDOW_SECONDS - 1)
    assert await api.refused("GET", "/zones") == (429, 971)
    api.account.clock.advance(2)
    await api.done("GET", "/zones")


async def test_lies(api: Api) -> None:
    api.account.lies = Lies([read_lie("create-504=1", "dns_records"), read_lie("rate-limited:zones=1")])
    assert await api.refused("GET", "/zones") == (429, 971)
    response = await api.client.post(f"/client/v4{api.records}", json=ADA)
    assert (response.status_code, response.headers["content-type"]) == (504, "text/html; charset=utf-8")
    assert await api.refused("POST", api.records, ADA) == (400, 81058)
    await api.client.post("/_standin/lies", json={"lie": "error-500"})
    answers = [await api.ask("GET", "/zones") for _ in range(60)]
    assert {status for status, _ in answers} == {200, 500}
    assert (await api.client.delete("/_standin/lies")).json()["lies"] == []
    truth = (await api.client.get("/_standin/truth")).json()
    assert [record["name"] for record in truth["example.org"]] == ["ada.example.org"]


async def test_bodies_that_are_none(api: Api) -> None:
    for content in ("{", "[1]", "[" * 50_000):
        response = await api.client.post(f"/client/v4{api.records}", content=content)
        assert (response.status_code, response.json()["errors"][0]["code"]) == (400, 9207)
    assert (await api.client.get("/client/v4/nowhere")).status_code == 404
