"""A name that stands in the zone and is not ours is refused before anything of a new agent is written."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tinyfat.api import operator
from tinyfat.api.keys import require_operator

WORDS = "The zone example.org has records at ada.agents.example.org that no agent's are (A)"


class Written(Exception):
    """An agent was about to be written down."""


async def asked(foreign: Any, machine: str = "hetzner") -> httpx2.Response:
    async def create(*_: object) -> None:
        raise Written

    async def sandbox() -> SimpleNamespace:
        return SimpleNamespace(all=True)

    world = SimpleNamespace(
        settings=SimpleNamespace(
            domain="agents.example.org", machine="process", name_kept_days=90, process_shared=True
        ),
        kinds=SimpleNamespace(is_server=lambda kind: kind == "hetzner", server_kinds=["hetzner"]),
        check_machine_kind=lambda kind: None,
        fleet=SimpleNamespace(addressing=SimpleNamespace(foreign=foreign)),
        machines=SimpleNamespace(sandbox=sandbox),
        agents=SimpleNamespace(create=create),
    )
    app = FastAPI()
    app.include_router(operator.router)
    app.state.world = world
    app.dependency_overrides[require_operator] = lambda: None

    @app.exception_handler(ValueError)
    async def complain(request: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(Written)
    async def written(request: Request, error: Written) -> JSONResponse:
        return JSONResponse({}, 201)

    body = {"name": "ada", "owner": "you@example.net", "machine": machine}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as http:
        return await http.post("/api/agents", json=body)


async def test_it_is_refused_in_words_and_nothing_is_written() -> None:
    names: list[str] = []

    async def foreign(name: str) -> str:
        names.append(name)
        return WORDS

    refused = await asked(foreign)
    assert (refused.status_code, refused.json()) == (422, {"error": WORDS}) and names == ["ada"]
    assert (await asked(foreign, "process")).status_code == 201, "it has no name of its own in the zone"


async def test_a_zone_that_is_slow_or_away_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "ZONE_SECONDS_MAX", 0.01)

    async def never(name: str) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await asked(never)).status_code == 201
