"""An agent's state as a file: handed over by a real box, kept until it is fetched, and nothing left of it here."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.flows.small_world import SmallWorld, small_world
from tests.flows.test_replace_boxes import Cloud, cloud, made
from tests.running import until
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.flows import export
from tinyfat.flows.export import Exports
from tinyfat.flows.orders import machine_id_of
from tinyfat.ports.ledger import Conflict, NotFound
from tinyfat.ports.server_ledger import MovePhase, StateMove
from tinyfat.store.database import Database
from tinyfat.store.state_moves import MoveFolder


def exports_of(world: SmallWorld, folder: Path) -> Exports:
    return Exports(world.records, world.moves, MoveFolder(folder), world.clock)


async def kept(exports: Exports, agent: Agent) -> StateMove:
    begun = await exports.begin(agent)

    async def here() -> bool:
        return (await exports.look(agent, begun.id)).phase is MovePhase.KEPT

    await until(here, 30.0, "the state is here")
    return await exports.look(agent, begun.id)


async def ready(world: SmallWorld, agent: Agent) -> None:
    async def back() -> bool:
        machine = await world.records.get(machine_id_of(agent.id))
        return machine is not None and machine.link_state == "ready"

    await until(back, 30.0, "the runtime is ready again")


@asynccontextmanager
async def silent_ada(database: Database, folder: Path) -> AsyncIterator[tuple[SmallWorld, Exports, Agent]]:
    """READY, with a machine whose box has just been heard of, and does nothing."""
    async with small_world(database) as world:
        agent = await world.ready_agent("ada")
        await world.rows("update machines set seen_at = now() returning 1")
        yield world, exports_of(world, folder), agent


async def ada_with_notes(world: SmallWorld, machines: Cloud) -> Agent:
    agent = await made(world)
    (machines.of(machine_id_of(agent.id)) / "workspace/notes.md").write_text("what ada knows")
    return agent


async def test_the_state_is_a_file_and_the_agent_goes_on(database: Database, tmp_path: Path) -> None:
    async with cloud(database, tmp_path) as (world, machines):
        agent = await ada_with_notes(world, machines)
        exports = exports_of(world, tmp_path / "moves")
        move = await kept(exports, agent)
        file = await exports.file(agent, move.id)
        assert file.stat().st_size == move.bytes
        with tarfile.open(file) as tar:
            names = set(tar.getnames())
            assert {"state", "workspace", "workspace/notes.md", "state/turns.log"} <= names
        await ready(world, agent)  # it goes on before anybody has fetched it
        assert await world.words.question(agent, "after the export") == ""
        await exports.end(agent, move.id)
        assert list((tmp_path / "moves").iterdir()) == []
        with pytest.raises(Conflict, match="fetched"):
            await exports.file(agent, move.id)
        assert not (machines.of(machine_id_of(agent.id)) / "moving.json").exists()
        again = await kept(exports, agent)
        assert again.id != move.id


async def test_asked_twice_it_is_one_export(database: Database, tmp_path: Path) -> None:
    async with silent_ada(database, tmp_path) as (_, exports, agent):
        assert (await exports.begin(agent)).id == (await exports.begin(agent)).id


async def test_what_cannot_be_exported_is_refused(database: Database, tmp_path: Path) -> None:
    async with silent_ada(database, tmp_path) as (world, exports, agent):
        await world.rows("update machines set seen_at = now() - interval '1 hour' returning 1")
        with pytest.raises(Conflict, match="not heard of"):
            await exports.begin(agent)
        await world.rows("update machines set seen_at = now() returning 1")
        await world.agents.become(agent.id, AgentState.FAILED)
        with pytest.raises(Conflict, match="ada is failed"):
            await exports.begin(await world.agents.get(agent.id))
        with pytest.raises(NotFound):
            await exports.look(agent, "../../etc/passwd")


async def test_another_agents_export_is_none_of_this_ones(database: Database, tmp_path: Path) -> None:
    async with silent_ada(database, tmp_path) as (world, exports, agent):
        other = await world.ready_agent("bob")
        begun = await exports.begin(agent)
        for asked in (exports.look(other, begun.id), exports.file(other, begun.id), exports.end(other, begun.id)):
            with pytest.raises(NotFound):
                await asked


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (timedelta(seconds=export.SILENT_SECONDS_MAX + 5), "no word of its box"),
        (timedelta(seconds=export.HAND_OVER_SECONDS_MAX + 5), "did not hand it over"),
    ],
    ids=["silent", "slow"],
)
async def test_what_does_not_come_is_given_up(database: Database, tmp_path: Path, later: timedelta, words: str) -> None:
    async with silent_ada(database, tmp_path) as (world, exports, agent):
        begun = await exports.begin(agent)
        await exports.sweep()
        assert (await exports.look(agent, begun.id)).phase is MovePhase.ASKED
        world.clock_ahead = later
        if "hand it over" in words:
            await world.rows("update machines set seen_at = now() + %s returning 1", later)
        await exports.sweep()
        now = await exports.look(agent, begun.id)
        assert now.phase is MovePhase.FAILED and words in now.detail


async def test_what_nobody_fetches_goes_and_so_does_what_is_of_no_move(database: Database, tmp_path: Path) -> None:
    async with silent_ada(database, tmp_path) as (world, exports, agent):
        begun = await exports.begin(agent)
        files = MoveFolder(tmp_path)
        files.file(begun.id).write_bytes(b"state")
        await world.moves.kept(begun.id, "0" * 64, 5)
        stray = "0f9e8d7c-0000-4000-8000-000000000001"
        files.file(stray).with_suffix(".part").write_bytes(b"x")
        (tmp_path / "notes.tar.gz").write_bytes(b"not ours")
        await exports.sweep()
        assert await files.ids() == [begun.id]
        world.clock_ahead = timedelta(seconds=export.KEPT_SECONDS_MAX + 5)
        await exports.sweep()
        assert await files.ids() == [] and (tmp_path / "notes.tar.gz").exists()
        assert "nobody fetched it" in (await exports.look(agent, begun.id)).detail


async def test_a_replacement_comes_first(database: Database, tmp_path: Path) -> None:
    async with silent_ada(database, tmp_path) as (world, exports, agent):
        begun = await exports.begin(agent)
        old, new = machine_id_of(agent.id), machine_id_of(agent.id, 2)
        move_id = "0f9e8d7c-0000-4000-8000-000000000002"
        await world.moves.ask(move_id, agent.id, old, new)
        latest = await world.moves.latest_of(old)
        assert latest is not None and latest.id == move_id
        await exports.sweep()
        assert "being replaced" in (await exports.look(agent, begun.id)).detail
        for change in (world.moves.kept(move_id, "0" * 64, 1), world.moves.restored(move_id)):
            await change
            await asyncio.gather(exports.sweep())
            latest = await world.moves.latest_of(old)
            assert latest is not None and latest.id == move_id
