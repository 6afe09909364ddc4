"""An agent moves between two real boxes with real runtimes: what it wrote goes along, over HTTP, whole."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket

from tests.box.boxes import Box
from tests.flows.boxes import whole
from tests.flows.small_world import PlainSteps, SmallWorld, small_world
from tests.running import free_port, until
from tinyfat.api import box_state
from tinyfat.api.box_link import BoxLinks
from tinyfat.api.box_state import serve_states
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import STATE_PATH, ModelAccess, RuntimeSpec, content_digest
from tinyfat.domain.machines import Machine
from tinyfat.flows.orders import machine_id_of
from tinyfat.flows.replace import move_id_of
from tinyfat.store.database import Database
from tinyfat.store.enrolments import EnrolmentStore
from tinyfat.store.servers import SPECS
from tinyfat.store.state_moves import MoveFolder
from tinyfat.store.turns import OFFERS


class Cloud:
    """Every server that the twin says runs is a box here, and none else."""

    def __init__(self, world: SmallWorld, folder: Path, port: int) -> None:
        self.world, self.folder, self.port = world, folder, port
        self.boxes: dict[str, Box] = {}

    def of(self, machine_id: str) -> Path:
        return self.folder / machine_id

    async def follow(self) -> None:
        enrolments = EnrolmentStore(self.world.database)
        while True:
            running = set(self.world.cloud.running())
            for machine_id in running - set(self.boxes):
                await self._begin(machine_id)
                await enrolments.fetched(machine_id, 1)
            for machine_id in set(self.boxes) - running:
                await self.boxes.pop(machine_id).kill()
            await asyncio.sleep(0.05)

    async def _begin(self, machine_id: str) -> None:
        folder = self.of(machine_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        body = {
            "machine_id": machine_id,
            "agent_name": "ada",
            "runtime": "echo",
            "link_url": f"ws://127.0.0.1:{self.port}/box/link",
            "link_token": self.world.orders.token(machine_id),
            "shared_folder": str(self.folder / "shared"),
        }
        (folder / "box.json").write_text(json.dumps(body))
        self.boxes[machine_id] = Box(folder)
        await self.boxes[machine_id].start()


@asynccontextmanager
async def cloud(database: Database, folder: Path) -> AsyncIterator[tuple[SmallWorld, Cloud]]:
    async def spec(agent: Agent | None, machine: Machine) -> RuntimeSpec:
        return RuntimeSpec("echo", "ada", ModelAccess("openai-completions", "http://127.0.0.1:9", "k", "m"), 10**9)

    async with small_world(database) as world:
        world.box.silent = True
        world.move_files = MoveFolder(folder / "moves")  # type: ignore[assignment]
        world.replace._files = world.move_files
        links = BoxLinks(world.agents, world.records, world.turns, spec, world.moves)
        app = FastAPI()
        serve_states(app, world.records, world.moves, world.move_files)

        @app.websocket("/box/link")
        async def link(socket: WebSocket) -> None:
            await links.serve(socket)

        port = free_port()
        config = uvicorn.Config(app, port=port, log_config=None, lifespan="off", ws="websockets-sansio")
        server = uvicorn.Server(config)
        world.signals._handlers |= {OFFERS: links.offered, SPECS: links.respecify}
        listening = asyncio.create_task(world.signals.run())  # the world's own began before SPECS was known
        serving = asyncio.create_task(server.serve())
        made = Cloud(world, folder, port)
        following = asyncio.create_task(made.follow())
        sweeping = asyncio.create_task(_sweep(links))
        try:
            yield world, made
        finally:
            for task in (following, sweeping, listening):
                task.cancel()
            await asyncio.gather(following, sweeping, listening, return_exceptions=True)
            for box in made.boxes.values():
                await box.kill()
                for left in box.running():
                    os.kill(left.pid, signal.SIGKILL)
            server.should_exit = True
            await serving


async def _sweep(links: BoxLinks) -> None:
    while True:
        await links.sweep()
        await asyncio.sleep(0.5)


async def made(world: SmallWorld) -> Agent:
    agent = await world.new_agent("ada", "cloud")
    await world.provision.run(PlainSteps(), agent.id)
    agent = await world.agents.get(agent.id)
    assert agent.state is AgentState.READY, agent.reason
    return agent


async def test_the_state_goes_along_and_the_runtime_goes_on_with_it(database: Database, tmp_path: Path) -> None:
    async with cloud(database, tmp_path) as (world, machines):
        agent = await made(world)
        old, new = machine_id_of(agent.id), machine_id_of(agent.id, 2)
        (machines.of(old) / "workspace/notes.md").write_text("what ada knows")
        asked = (machines.of(old) / "state/turns.log").read_text()
        assert "received" in asked
        assert await world.servers.begin_replacing(agent.id, 2)
        await world.replace.run(PlainSteps(), f"{agent.id}:2")
        now = await world.agents.get(agent.id)
        assert now.reason == "", now.reason
        await whole(world, now)
        assert (machines.of(new) / "workspace/notes.md").read_text() == "what ada knows"
        log = (machines.of(new) / "state/turns.log").read_text()
        assert log.startswith(asked) and len(log) > len(asked)  # and it has answered a question since
        assert list((tmp_path / "moves").iterdir()) == []
        assert not list(machines.of(new).glob("moving-*"))


async def test_one_that_cannot_be_taken_in_leaves_the_old_one_at_work(database: Database, tmp_path: Path) -> None:
    async with cloud(database, tmp_path) as (world, machines):
        agent = await made(world)
        old, new = machine_id_of(agent.id), machine_id_of(agent.id, 2)
        file = world.move_files.file(move_id_of(agent.id, 2))

        async def spoiled() -> None:
            """The bytes rot on our disk."""

            async def there() -> bool:
                return file.exists()

            await until(there, 30.0, "the state is here")
            file.write_bytes(b"x" * file.stat().st_size)

        assert await world.servers.begin_replacing(agent.id, 2)
        move = await asyncio.gather(_ask_only(world, agent), spoiled())
        assert move[0] == ""
        await world.moves.ask(move_id_of(agent.id, 2), agent.id, old, new)
        await world.replace._undo(agent.id, 2, "it rotted")
        now = await world.agents.get(agent.id)
        assert "it rotted" in now.reason

        async def ready() -> bool:
            machine = await world.records.get(old)
            return machine is not None and machine.link_state == "ready"

        await until(ready, 20.0, "the old one is at work again")
        assert await world.words.question(now, "after") == ""
        assert not (machines.of(old) / "moving.json").exists()


async def _ask_only(world: SmallWorld, agent: Agent) -> str:
    """Up to the state's being here."""
    await world.replace._order(agent, 2)
    return await world.replace._hand_over(agent, 2)


async def test_who_may_send_and_fetch_a_state(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cloud(database, tmp_path) as (world, machines):
        agent, other = await world.new_agent("ada", "cloud"), await world.new_agent("bob", "cloud")
        for each in (world.orders.new_server(agent), world.orders.new_server(other)):
            await world.servers.write_down(each)
        old, strange, new = machine_id_of(agent.id), machine_id_of(other.id), machine_id_of(agent.id, 2)
        await world.servers.write_down(world.orders.new_server(agent, 2, current=False))
        move_id = move_id_of(agent.id, 2)
        await world.moves.ask(move_id, agent.id, old, new)
        url = f"http://127.0.0.1:{machines.port}{STATE_PATH}/{move_id}"
        digest = {"Content-Digest": content_digest("ab" * 32)}

        async with httpx2.AsyncClient(trust_env=False) as client:

            async def ask(method: str, machine_id: str, path: str = "", **more: object) -> int:
                headers = {"Authorization": f"Bearer {world.orders.token(machine_id)}", **digest}
                response = await client.request(method, url + path, headers=headers, **more)  # type: ignore[arg-type]
                return int(response.status_code)

            assert (await client.put(url, content=b"x")).status_code == 401
            assert await ask("PUT", strange, content=b"x") == 404
            assert await ask("GET", strange) == 404
            assert await ask("PUT", new, content=b"x") == 409
            assert await ask("GET", old) == 409 and await ask("GET", new) == 409
            assert await ask("PUT", old, content=b"") == 413
            assert await ask("PUT", old, content=b"x") == 400  # another digest
            assert await ask("POST", new, "/failed", content=b"{}") == 409  # not its turn
            assert await ask("POST", old, "/restored") == 409
            monkeypatch.setattr(box_state, "STATE_BYTES_MAX", 3)
            assert await ask("PUT", old, content=b"four") == 413
            monkeypatch.setattr(box_state, "SPARE_BYTES", 2**80)
            assert await ask("PUT", old, content=b"x") == 507
            assert not [path for path in (tmp_path / "moves").iterdir() if path.suffix == ".gz"]
            assert await ask("POST", old, "/failed", content=json.dumps({"detail": "no \x00 room"}).encode()) == 204
            assert await ask("PUT", old, content=b"x") == 409
        move = await world.moves.get(move_id)
        assert move is not None and move.phase == "failed" and "room" in move.detail


async def test_two_uploads_of_one_move_do_not_share_a_file(database: Database, tmp_path: Path) -> None:
    """What broke off may still be read when it is sent again: the first that is complete counts, whole."""
    async with cloud(database, tmp_path) as (world, machines):
        agent = await made(world)
        old, move_id = machine_id_of(agent.id), move_id_of(agent.id, 2)
        await world.servers.write_down(world.orders.new_server(agent, 2, current=False))
        both = asyncio.Event()
        bodies = (b"a" * 300_000, b"b" * 200_000)
        await machines.boxes[old].kill()  # it would send its own
        await world.moves.ask(move_id, agent.id, old, machine_id_of(agent.id, 2))
        started = 0

        async def slowly(body: bytes) -> AsyncIterator[bytes]:
            nonlocal started
            yield body[:100_000]
            started += 1
            if started == len(bodies):
                both.set()
            await both.wait()
            yield body[100_000:]

        async with httpx2.AsyncClient(trust_env=False) as client:

            async def put(body: bytes) -> int:
                headers = {
                    "Authorization": f"Bearer {world.orders.token(old)}",
                    "Content-Length": str(len(body)),
                    "Content-Digest": content_digest(sha256(body).hexdigest()),
                }
                url = f"http://127.0.0.1:{machines.port}{STATE_PATH}/{move_id}"
                return int((await client.put(url, content=slowly(body), headers=headers)).status_code)

            assert await asyncio.gather(*map(put, bodies)) == [204, 204]
        move = await world.moves.get(move_id)
        assert move is not None
        kept = world.move_files.file(move_id).read_bytes()
        assert kept in bodies and sha256(kept).hexdigest() == move.sha256 and len(kept) == move.bytes
        assert [path.name for path in (tmp_path / "moves").iterdir()] == [f"{move_id}.tar.gz"]
