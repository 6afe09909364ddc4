"""Who asks is judged before a byte of a body is read, and a body has its bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.machine_speed import patient
from tinyfat.api import gate
from tinyfat.api.gate import Gate, Group, operator_group
from tinyfat.engine.reading import Reading

TOKEN = "token"
GROUPS = [
    ("/open", Group("open", body_max=10, seconds=0.05, at_once=2)),
    ("/stream", Group("stream", body_max=0)),
    ("", operator_group(TOKEN)),
]


@dataclass
class Asked:
    """One request, and what became of it."""

    pieces: Sequence[bytes] = ()
    then: str = "end"  # "end", "hang" or "gone"
    read: int = 0
    sent: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        if self.read < len(self.pieces):
            self.read += 1
            more = self.read < len(self.pieces) or self.then != "end"
            return {"type": "http.request", "body": self.pieces[self.read - 1], "more_body": more}
        if self.then == "hang":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


class App:
    """Reads all of the body, as FastAPI does before it asks a route's dependencies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.go = asyncio.Event()
        self.go.set()
        self.reads = asyncio.Condition()

    async def has_read(self, bodies: int) -> None:
        async with asyncio.timeout(patient(20)), self.reads:
            await self.reads.wait_for(lambda: len(self.bodies) >= bodies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", scope["method"] != "GET"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                body += b"(gone)"
                break
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        async with self.reads:
            self.reads.notify_all()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(
    door: Gate, path: str, asked: Asked, *headers: tuple[str, str], method: str = "POST", length: str | None = None
) -> int:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    if asked.pieces or asked.then != "end":
        raw.append((b"transfer-encoding", b"chunked") if length is None else (b"content-length", length.encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    await door(scope, asked.receive, asked.send)
    return asked.status


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def door(app: App) -> Gate:
    return Gate(app, GROUPS, Reading(1000))


OPERATOR = ("authorization", f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    "headers",
    [(), (("authorization", ""),), (("authorization", "Bearer"),), (("authorization", "Bearer tokens"),),
     (("authorization", "bearer token"),), (("authorization", "Bearer ü"),), (OPERATOR, OPERATOR),
     (("authorization", "Bearer x"), OPERATOR)],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/agents", "/", "", "/openapi.json", "/openness", "//open"])
async def test_without_the_token_nothing_is_read_before_the_answer(
    app: App, door: Gate, path: str, headers: tuple[tuple[str, str], ...]
) -> None:
    asked = Asked([b"x" * 100])
    seen: list[int] = []

    async def send(message: Message) -> None:
        seen.append(asked.read)
        await Asked.send(asked, message)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": path, "headers": [*raw, (b"content-length", b"100")]}
    await door(scope, asked.receive, send)
    assert asked.status == 401 and seen[:2] == [0, 0] and app.bodies == []
    assert (b"connection", b"close") in asked.sent[0]["headers"]


def test_an_operator_without_a_token_is_nobody() -> None:
    judge = operator_group("").judge
    assert judge is not None
    for given in ("", "Bearer ", "Bearer"):
        assert judge({"authorization": given}) is not None


async def test_with_the_token_the_body_comes_whole(app: App, door: Gate) -> None:
    assert await ask(door, "/api/agents", Asked([b"ab", b"c"]), OPERATOR) == 200
    assert app.bodies == [b"abc"]


async def test_what_is_under_a_path_is_in_its_group(app: App, door: Gate) -> None:
    assert await ask(door, "/open/more", Asked([b"ab"])) == 200
    assert await ask(door, "/opened", Asked([b"ab"])) == 401


@pytest.mark.parametrize("length", [None, "11", "999999999999999999999999999999", "3"])
async def test_a_body_over_the_bound_is_413_whatever_it_says_of_itself(
    app: App, door: Gate, length: str | None
) -> None:
    asked = Asked([b"x" * 6, b"y" * 6])
    assert await ask(door, "/open", asked, length=length) == 413
    assert app.bodies == []


async def test_a_body_that_does_not_arrive_in_time_is_408(app: App, door: Gate) -> None:
    assert await ask(door, "/open", Asked([b"x"], then="hang")) == 408
    assert app.bodies == []


async def test_a_sender_that_goes_away_is_nobodys_concern(app: App, door: Gate) -> None:
    asked = Asked([b"x"], then="gone")
    raw = [(b"transfer-encoding", b"chunked")]
    await door({"type": "http", "method": "POST", "path": "/open", "headers": raw}, asked.receive, asked.send)
    assert asked.sent == [] and app.bodies == []


async def test_requests_of_a_group_at_once_are_bounded(app: App, door: Gate) -> None:
    app.go.clear()
    under_way = [asyncio.create_task(ask(door, "/open", Asked([b"x"]))) for _ in range(2)]
    await app.has_read(2)
    third = Asked([b"x"])
    assert await ask(door, "/open", third) == 503
    assert (b"retry-after", gate.RETRY_SECONDS.encode()) in third.sent[0]["headers"]
    app.go.set()
    assert await asyncio.gather(*under_way) == [200, 200]
    assert await ask(door, "/open", Asked([b"x"])) == 200


async def test_what_is_read_counts_until_it_is_answered(app: App) -> None:
    reading = Reading(100)
    door = Gate(app, GROUPS, reading)
    app.go.clear()
    under_way = asyncio.create_task(ask(door, "/api/x", Asked([b"x" * 50]), OPERATOR))
    await app.has_read(1)
    assert reading.held == 50
    assert await ask(door, "/api/x", Asked([b"x"]), OPERATOR) == 503
    app.go.set()
    assert await under_way == 200
    assert reading.held == 0


async def test_what_streams_is_left_to_its_route_under_a_deadline(
    app: App, door: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PIECE_SECONDS_MAX", 0.02)
    assert await ask(door, "/stream", Asked([b"x" * 500, b"y"])) == 200
    assert await ask(door, "/stream", Asked([b"x"], then="hang")) == 200
    assert app.bodies == [b"x" * 500 + b"y", b"x(gone)"]


async def test_a_refused_body_is_thrown_away_for_a_while(app: App, door: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LINGER_SECONDS", 0.02)
    monkeypatch.setattr(gate, "LINGER_BYTES_MAX", 1000)
    asked = Asked([b"x" * 100] * 50)
    assert await ask(door, "/api/x", asked) == 401
    assert asked.read == 10
    assert json.loads(asked.sent[1]["body"])["error"] == gate.OPERATOR_WORDS
    assert await ask(door, "/api/x", Asked([b"x"], then="hang")) == 401
