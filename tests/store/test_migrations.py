"""Migrations: run by themselves, refuse a newer schema, and are never edited once released."""

from __future__ import annotations

import asyncio
import hashlib

import psycopg
import pytest

from tests.postgres import Server
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.ports.ledger import SchemaTooNew, StoreUnavailable
from tinyfat.store.database import Database, migrations
from tinyfat.store.mail import MailStore

# SHA-256 of each released script. A new script gets a new line; a line is never changed: databases that ran the old
# text would differ from those that run the new one. What is on main is released: people run it.
RELEASED = {
    1: "3dd4fff6c3281d0a50e1d008eac4350a9596ba6504af5e64b3b59afe9228d4e0",
    2: "f6bc54610d8190d090f407e23af1ce52a851a39244826861335ba89a5ad7cf5b",
    3: "be4afd52fbe481d8e14579500ccf15d990a693d081db42f70ac3cee49094b2cb",
    4: "e04005066c96b4c88b5b6d14a6d00e4554e5d69e6ba9ce2d81cd93e975f150e1",
    5: "0c3827b53bf42586bf6dbe8cb183c752bf28c2e4abb8901070e633a13787f2e0",
    6: "af3f302fe1f98f650a9f2d6fc1f429045d7499e0d112e74d21838405b0088042",
    7: "af739665ccb3fb4c1af6f983aa44bf879d2a18341c3d8abc5b5c15028b2e0d45",
    8: "588747d53e7c76a25c3a853dfaef0780a10dbf3bad83e37fb810d22ee8ee9bc7",
    9: "39125aa5d48ea030972e2c6fe76ec905bfbc0d88c40f7f44664b3bad07de98d4",
    10: "3c2556231682a5e7edfb412f7a8bc3fd9e4990c699ceb3d96ac60456b4e1b13a",
    11: "ff83a309893f9b31756630391cb8cb609e5543fbfd7197909279d206c5862b2c",
    12: "3f89551e3a50dd55745e9a28a35e4e3c71da59c46b83202323990fdecf4bfdad",
    13: "3439c84a02d2a1178a7bcbf712aecf96a79a4abb93b7c213f45f25dea05673c5",
    14: "20c2f22d77a37cbe64c4ddef9ea83344e109591a97bd33612a9a09a7432d2d22",
    15: "37eb1026e84c9632d538c6083ee94a66019677d09646ff67f54185dd1cca8de3",
    16: "f88426e507d7bb14ba346989362c8732e438881f6d63ea6ae22de5b5494467f7",
    17: "1d5851c5ca0b076bb06d1437f44598002255e359014cf61f40868cf9c182d185",
    18: "92ae6ce059b972653ad5866d054a7057f1b47ca986578b2faa8fb4e2993798cb",
    19: "8b9c46ffff7f0e50785a15cceba636ae56b35ccbce0d2664d2aefc198dd71327",
    20: "f797bdc56074024d975ef90248a7d41576b27ae3c2041f1498d756cf3e9f8fdf",
}


def test_released_scripts_are_unchanged_and_none_is_missing() -> None:
    found = {number: hashlib.sha256(script.encode()).hexdigest() for number, (_, script) in migrations().items()}
    assert found == RELEASED, "a released script is never edited: write the next one, and add its line here"


def test_numbers_run_from_one_without_a_gap() -> None:
    assert sorted(migrations()) == list(range(1, len(migrations()) + 1))


async def columns(database: Database) -> list[tuple[object, ...]]:
    async with database.connection() as connection:
        found = await connection.execute(
            "select table_name, column_name, data_type, is_nullable from information_schema.columns "
            "where table_schema = 'public' order by 1, 2"
        )
        return await found.fetchall()


async def test_an_empty_database_is_brought_up_to_date_by_many_at_once(server: Server) -> None:
    url = await server.make("at_once")
    databases = [Database(url) for _ in range(4)]
    for database in databases:
        await database.open()
    try:
        versions = await asyncio.gather(*(database.migrate() for database in databases))
        assert set(versions) == {max(migrations())}
        before = await columns(databases[0])
        assert len(before) > 50
        assert await databases[0].migrate() == max(migrations())
        assert await columns(databases[0]) == before
        async with databases[0].connection() as connection:
            rows = await (await connection.execute("select version, name from schema_versions order by 1")).fetchall()
        assert rows == [(number, name) for number, (name, _) in sorted(migrations().items())]
    finally:
        for database in databases:
            await database.close()


async def test_a_newer_schema_is_refused_and_nothing_is_touched(server: Server) -> None:
    url = await server.make("newer")
    database = Database(url)
    await database.open()
    try:
        await database.migrate()
        async with database.connection() as connection:
            await connection.execute("insert into schema_versions values (%s, 'newer')", (max(migrations()) + 1,))
        before = await columns(database)
        with pytest.raises(SchemaTooNew, match=f"this TinyFat knows {max(migrations())}"):
            await database.migrate()
        assert await columns(database) == before
    finally:
        await database.close()


async def test_a_migration_that_fails_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await server.make("failing")
    scripts = {**migrations(), max(migrations()) + 1: ("broken", "create table half (); select no_such_function()")}
    database = Database(url)
    await database.open()
    try:
        monkeypatch.setattr("tinyfat.store.database.migrations", lambda: scripts)
        with pytest.raises(psycopg.errors.UndefinedFunction):
            await database.migrate()
        assert await columns(database) == []
        monkeypatch.undo()
        assert await database.migrate() == max(migrations())
    finally:
        await database.close()


async def test_a_database_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfat.store.database.CONNECTION_SECONDS_MAX", 0.3)
    database = Database("postgresql://127.0.0.1:1/none")
    await database.open()
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await database.ping()
    finally:
        await database.close()


async def test_a_ledger_from_before_shared_bodies_keeps_every_mail(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await server.make("older")
    database = Database(url)
    await database.open()
    try:
        older = {number: script for number, script in migrations().items() if number < 11}
        monkeypatch.setattr("tinyfat.store.database.migrations", lambda: older)
        await database.migrate()
        async with database.connection() as connection:
            await connection.execute(
                """
                with agent as (
                    insert into agents (name, owner, runtime, machine_kind, state)
                    values ('ada', 'o@example.org', 'echo', 'process', 'ready') returning id
                ), thread as (
                    insert into threads (agent_id, subject) select id, '' from agent returning id, agent_id
                ), mail as (
                    insert into messages (agent_id, thread_id, direction, message_id, sender, recipient, state, size)
                    select agent_id, id, 'in', '<' || n || '>', 'o', 'a', 'answered', 5
                    from thread, generate_series(1, 50) n returning id, message_id
                )
                insert into message_bodies select id, convert_to(message_id, 'utf8') from mail
                """
            )
        monkeypatch.undo()
        assert await database.migrate() == max(migrations())
        store = MailStore(database, RateCaps())
        async with database.connection() as connection:
            rows = await (await connection.execute("select id, message_id from messages")).fetchall()
        assert len(rows) == 50
        for row_id, message_id in rows:
            message, raw = await store.show(str(row_id))
            assert raw == message_id.encode() and message.body_gone_at is None
    finally:
        await database.close()
