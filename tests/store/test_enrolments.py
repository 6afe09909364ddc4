"""Which key is whose, decided by Postgres."""

from __future__ import annotations

import asyncio
import uuid

from tinyfat.domain.enrolment import Outcome, key_hash
from tinyfat.ports.enrolments import EnrolOutcome
from tinyfat.store.database import Database
from tinyfat.store.enrolments import EnrolmentStore

TOKEN, KEY, OTHER = key_hash("token"), key_hash("key"), key_hash("other key")


async def machine(database: Database, seconds: float = 600, wanted: bool = True) -> str:
    machine_id = str(uuid.uuid4())
    async with database.connection() as connection:
        await connection.execute(
            "insert into machines (id, kind, host, token_hash, wanted, pool, enrol_token_hash, enrol_until) "
            "values (%s, 'nspawn', 'h', %s, %s, 'booting', %s, now() + make_interval(secs => %s))",
            (machine_id, uuid.UUID(machine_id).bytes, wanted, TOKEN, seconds),
        )
    return machine_id


async def column(database: Database, machine_id: str, name: str) -> object:
    async with database.connection() as connection:
        cursor = await connection.execute(f"select {name} from machines where id = %s".encode(), (machine_id,))
        row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def test_a_machine_enrols_once_and_is_known_by_its_key(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)

    assert await store.by_key(KEY) is None
    assert await store.enrol(machine_id, TOKEN, KEY) is EnrolOutcome.ENROLLED
    assert await store.by_key(KEY) == machine_id
    assert await column(database, machine_id, "enrolled_at") is not None


async def test_the_same_key_again_is_the_lost_answer_another_is_a_thief(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)
    await store.enrol(machine_id, TOKEN, KEY)
    first = await column(database, machine_id, "enrolled_at")
    async with database.connection() as connection:
        await connection.execute("update machines set enrol_until = now() - interval '1 hour'")

    assert await store.enrol(machine_id, TOKEN, KEY) is EnrolOutcome.ENROLLED
    assert await store.enrol(machine_id, TOKEN, OTHER) is EnrolOutcome.TAKEN
    assert await store.by_key(OTHER) is None
    assert await column(database, machine_id, "enrolled_at") == first


async def test_nothing_tells_a_guess_from_an_expired_token(database: Database) -> None:
    store = EnrolmentStore(database)
    expired, unwanted = await machine(database, seconds=-1), await machine(database, wanted=False)
    known = await machine(database)

    for machine_id, token in (
        (expired, TOKEN),
        (unwanted, TOKEN),
        (known, OTHER),
        (str(uuid.uuid4()), TOKEN),
        ("no id", TOKEN),
        ("", TOKEN),
    ):
        assert await store.enrol(machine_id, token, KEY) is EnrolOutcome.REFUSED


async def test_with_another_token_nobody_learns_that_it_has_enrolled(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)
    await store.enrol(machine_id, TOKEN, KEY)

    assert await store.enrol(machine_id, OTHER, OTHER) is EnrolOutcome.REFUSED


async def test_two_machines_have_two_keys(database: Database) -> None:
    store = EnrolmentStore(database)
    one, other = await machine(database), await machine(database)
    await store.enrol(one, TOKEN, KEY)

    assert await store.enrol(other, TOKEN, KEY) is EnrolOutcome.REFUSED
    assert await store.by_key(KEY) == one


async def test_of_many_at_the_same_moment_one_is_first(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)

    keys = [key_hash(str(number)) for number in range(8)]
    outcomes = await asyncio.gather(*(store.enrol(machine_id, TOKEN, key) for key in keys))

    assert sorted(outcomes) == [EnrolOutcome.ENROLLED, *[EnrolOutcome.TAKEN] * 7]
    winner = keys[outcomes.index(EnrolOutcome.ENROLLED)]
    assert await store.by_key(winner) == machine_id


async def test_a_machine_whose_end_was_asked_for_is_nobody(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)
    await store.enrol(machine_id, TOKEN, KEY)
    async with database.connection() as connection:
        await connection.execute("update machines set wanted = false")

    assert await store.by_key(KEY) is None


async def test_which_identity_it_fetched_and_who_wanted_to_be_it_are_kept(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)

    await store.fetched(machine_id, 3)
    await store.fetched(machine_id, 2)
    await store.doubted(machine_id, "somebody\x00 else")

    assert await column(database, machine_id, "identity_fetched") == 3
    assert await column(database, machine_id, "link_detail") == "somebody\ufffd else"


async def test_what_became_of_the_newest_identity_is_kept(database: Database) -> None:
    store = EnrolmentStore(database)
    machine_id = await machine(database)
    await store.fetched(machine_id, 3)

    async def now() -> tuple[object, object]:
        return await column(database, machine_id, "identity_in_force"), await column(
            database, machine_id, "identity_complaint"
        )

    await store.became(machine_id, Outcome(1))
    assert await now() == (1, "")
    await store.became(machine_id, Outcome(3, "no caddy\x00"))
    assert await now() == (1, "no caddy\ufffd")
    await store.became(machine_id, Outcome(3))
    assert await now() == (3, "")
    await store.became(machine_id, Outcome(2, "an older one, late"))
    await store.became(machine_id, Outcome(9, "one that was never sent"))
    assert await now() == (3, "")
