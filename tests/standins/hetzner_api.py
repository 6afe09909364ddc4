"""The Hetzner stand-in in this process, each exchange held against the vendor's specification where it is present."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.standins.openapi import specification
from tinyfat.standins.clock import Clock
from tinyfat.standins.hetzner.cloud import Cloud, Options
from tinyfat.standins.hetzner.rate_limit import DEFAULT_REQUESTS_PER_HOUR
from tinyfat.standins.hetzner.server import Standin, hetzner_app
from tinyfat.standins.lies import Lies, read_lie

SPECIFICATION = "hetzner-cloud.openapi.json"
TOKEN = "token-of-the-project"
ACTION_SECONDS = 10.0
SERVER = {"server_type": "cx23", "image": "debian-12", "location": "fsn1"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPJRTYCrOUNPmMfn5nKl0hFCDNYGYmNvl5rzw9Qmhy3d ada@example.org"


@dataclass
class Api:
    cloud: Cloud
    standin: Standin
    client: httpx2.AsyncClient
    faults: list[str] = field(default_factory=list)
    operations: set[tuple[str, str]] = field(default_factory=set)  # of the specification, answered well

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        response = await self.client.request(method, f"/v1{path}", json=body, **more)
        spec = specification(SPECIFICATION)
        bare = path.partition("?")[0]
        if spec is not None and response.status_code != 405:
            answered = json.loads(response.content) if response.content else None
            self.faults += spec.faults(method, bare, body or {}, response.status_code, answered)
            if response.status_code < 400:
                self.operations.add((method, spec.find(method, bare).path))
        return response

    async def get(self, path: str) -> Any:
        response = await self.ask("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, **body: Any) -> Any:
        response = await self.ask("POST", path, body)
        assert response.status_code in (200, 201), response.text
        return response.json()

    async def put(self, path: str, **body: Any) -> Any:
        response = await self.ask("PUT", path, body)
        assert response.status_code == 200, response.text
        return response.json()

    async def delete(self, path: str) -> Any:
        response = await self.ask("DELETE", path)
        assert response.status_code in (200, 201, 204), response.text
        return response.json() if response.content else None

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Status and code."""
        response = await self.ask(method, path, body)
        assert response.status_code >= 400, response.text
        return response.status_code, response.json()["error"]["code"]

    async def later(self, seconds: float = 3 * ACTION_SECONDS) -> None:
        """Everything that was begun is over."""
        self.cloud.clock.advance(seconds)
        await self.truth()

    async def action(self, answer: Any) -> Any:
        """As it is when its time is over."""
        await self.later()
        return (await self.get(f"/actions/{answer['action']['id']}"))["action"]

    async def server(self, name: str = "ada", **more: Any) -> Any:
        """A server that runs."""
        made = await self.post("/servers", **{"name": name, **SERVER, **more})
        await self.later()
        return (await self.get(f"/servers/{made['server']['id']}"))["server"]

    async def address(self, name: str, kind: str = "ipv4") -> Any:
        body = {"name": name, "type": kind, "location": "fsn1", "assignee_type": "server"}
        return (await self.post("/primary_ips", **body))["primary_ip"]

    async def off(self, server: Any) -> Any:
        await self.post(f"/servers/{server['id']}/actions/poweroff")
        await self.later()
        return (await self.get(f"/servers/{server['id']}"))["server"]

    async def truth(self) -> Any:
        return (await self.client.get("/_standin/truth")).raise_for_status().json()

    async def lie(self, lie: str) -> None:
        (await self.client.post("/_standin/lies", json={"lie": lie})).raise_for_status()


@asynccontextmanager
async def opened(
    *lies: str, seed: int = 0, cloud: Cloud | None = None, requests_per_hour: int = DEFAULT_REQUESTS_PER_HOUR
) -> AsyncIterator[Api]:
    """Time passes only when it is put forward. At the end, whatever the specification does not allow is shown."""
    made = cloud or Cloud(
        clock=Clock(lambda: 1_800_000_000.0),
        options=Options(action_seconds=ACTION_SECONDS),
        lies=Lies([read_lie(lie) for lie in lies], seed),
    )
    standin = Standin(made, TOKEN, requests_per_hour)
    transport = httpx2.ASGITransport(app=hetzner_app(standin))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://hetzner", headers=headers) as client:
        api = Api(made, standin, client)
        yield api
        assert not api.faults, "\n".join(api.faults)
