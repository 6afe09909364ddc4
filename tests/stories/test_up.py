"""`tinyfat up`: one to a home, started and stopped in order, and what it says where it cannot start."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.mailbox import Mailbox
from tests.running import CommandError, TinyFat, free_port, letter, until
from tests.stories.town import House, Operator, PostOffice, new_id
from tinyfat.cli.home import Home
from tinyfat.store.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


async def fails_to_start(tinyfat: TinyFat) -> str:
    """Its words, and that it was a failure."""
    with pytest.raises(CommandError) as failed:
        await tinyfat.command("up")
    assert failed.value.code == 1 and "Traceback" not in failed.value.err
    return " ".join(failed.value.err.split())


def of_home(home: Path) -> list[str]:
    """Every process that names this home, works in it or was started for it."""
    found = []
    for process in psutil.process_iter():
        try:
            marks = [*process.cmdline(), process.cwd(), process.environ().get("TINYFAT_HOME", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(mark == str(home) or f"{home}/" in f"{mark}/" for mark in marks):
            found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


async def test_a_second_one_on_the_same_home_is_refused_and_the_first_stays(house: House) -> None:
    second = TinyFat(house.tinyfat.home)
    words = await fails_to_start(second)
    assert "already runs" in words and str(house.tinyfat.http_port) in words
    assert all(f"TINYFAT_{name}" in words for name in ("HOME", "SMTP_LISTEN", "HTTP_LISTEN", "RELAY_LISTEN"))
    message_id = new_id()
    await house.operator.make_agent("rosa")
    await house.tinyfat.send(letter("Still there?", to="rosa@tinyfat.localhost", message_id=message_id))
    await house.office.reply_to(message_id)


async def test_several_homes_run_side_by_side(house: House, hasty: House) -> None:
    """The stories' two: the same name on both is two agents."""
    await house.operator.make_agent("sid")
    await hasty.operator.make_agent("sid")
    for one in (house, hasty):
        message_id = new_id()
        await one.tinyfat.send(letter("Hello.", to=f"sid@{one.domain}", message_id=message_id))
        reply = await one.office.reply_to(message_id)
        assert str(reply.message["From"].addresses[0].addr_spec) == f"sid@{one.domain}"
    assert of_home(house.tinyfat.home) and not set(of_home(house.tinyfat.home)) & set(of_home(hasty.tinyfat.home))


@pytest.mark.parametrize("setting", ["TINYFAT_SMTP_LISTEN", "TINYFAT_HTTP_LISTEN"])
async def test_a_port_that_is_taken_is_named_and_nothing_stays_behind(
    house: House, tmp_path: Path, setting: str
) -> None:
    other = TinyFat(tmp_path / "home", **{setting: house.tinyfat.environment[setting]})
    words = await fails_to_start(other)
    assert setting in words and house.tinyfat.environment[setting] in words
    assert of_home(other.home) == []
    assert not (other.home / "postgres").exists()  # said before anything was made


async def test_stopped_it_leaves_no_process_and_started_again_it_goes_on(tmp_path: Path) -> None:
    """Without a smarthost replies wait; with one that defers they wait; stopped in mid-turn, the turns wait too."""
    async with PostOffice() as office, TinyFat(tmp_path / "home") as tinyfat, Operator(tinyfat) as operator:
        await operator.make_agent("tom")
        first = new_id()
        await tinyfat.send(letter("My boat is called Heron.", to="tom@tinyfat.localhost", message_id=first))
        await operator.becomes((await operator.incoming("tom", first))["id"], "answered")
        kept = await operator.becomes((await operator.outgoing("tom", first))["id"], "deferred")
        assert "TINYFAT_SMARTHOST" in kept["reason"]
        assert len(of_home(tinyfat.home)) >= 4  # itself, Postgres, the box, the runtime

        assert await tinyfat.stop() == 0
        assert of_home(tinyfat.home) == []

        tinyfat.environment["TINYFAT_SMARTHOST"] = f"127.0.0.1:{office.port}"
        office.answers.append("451 4.7.1 Greylisted, come again")
        await tinyfat.start()

        async def greylisted() -> bool:
            return "Greylisted" in (await operator.ask("GET", f"mail/{kept['id']}"))["reason"]

        await until(greylisted, 30.0, "the smarthost deferred it")
        ids = [new_id() for _ in range(3)]
        for message_id in ids:
            mail = letter("echo: sleep 0.4\nIts name?", to="tom@tinyfat.localhost", message_id=message_id,
                          references=kept["message_id"])  # fmt: skip
            await tinyfat.send(mail)
        assert await tinyfat.stop() == 0
        assert of_home(tinyfat.home) == []

        await tinyfat.start()
        for message_id in (first, *ids):
            await office.reply_to(message_id)
        sent = await operator.becomes(kept["id"], "sent")
        assert sent["attempts"] >= 3 and sent["response"].startswith("250")
        assert "Heron" in office.replies_to(ids[-1])[0].text
        order = [one.in_reply_to for one in office.received]
        assert sorted(order) == sorted([first, *ids]) and [one for one in order if one != first] == ids
    assert of_home(tinyfat.home) == []
    assert "Traceback" not in tinyfat.log.read_text()


async def test_a_database_of_a_newer_tinyfat_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tinyfat = TinyFat(tmp_path / "home")
    postgres = EmbeddedPostgres(tinyfat.home)
    tinyfat.home.mkdir(mode=0o700)
    await postgres.start()
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        await connection.execute(
            "create table schema_versions (version int primary key, name text, applied_at timestamptz default now())"
        )
        await connection.execute("insert into schema_versions values (9999, 'from the future')")
    await postgres.stop()
    words = await fails_to_start(tinyfat)
    assert "schema version 9999" in words and "Upgrade TinyFat" in words
    assert of_home(tinyfat.home) == []
    await postgres.start()
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        found = await connection.execute("select table_name from information_schema.tables where table_schema='public'")
        assert [row[0] for row in await found.fetchall()] == ["schema_versions"]
    await postgres.stop()


async def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tinyfat = TinyFat(tmp_path / "home", TINYFAT_HOME=str(tmp_path / "file" / "home"))
    assert "TINYFAT_HOME" in await fails_to_start(tinyfat)


async def test_the_home_is_its_owners_alone(house: House) -> None:
    await house.operator.make_agent("olga")
    private = [house.tinyfat.home, *(house.tinyfat.home / name for name in ("secret.key", "up.json", "postgres"))]
    private += list(house.tinyfat.home.glob("machines/*")) + list(house.tinyfat.home.glob("machines/*/box.json"))
    assert len(private) > 5
    assert [str(p) for p in private if p.stat().st_mode & 0o077] == []


async def test_no_secret_is_in_an_argv_or_in_the_log(house: House) -> None:
    await house.operator.make_agent("nora")
    tokens = [(house.tinyfat.home / "secret.key").read_text().strip()]
    tokens += [Home(house.tinyfat.home).operator_token()]
    for box in house.tinyfat.home.glob("machines/*/box.json"):
        tokens.append(box.read_text().split('"link_token": "')[1].split('"')[0])
    argvs = "\n".join(of_home(house.tinyfat.home))
    log = house.tinyfat.log.read_text()
    assert len(tokens) >= 3
    assert [t for t in tokens if t in argvs or t in log] == []


async def test_killed_and_back_at_another_address_it_is_found_by_its_boxes(tmp_path: Path) -> None:
    async with (
        Mailbox() as mailbox,
        TinyFat(tmp_path / "home", TINYFAT_SMARTHOST=f"127.0.0.1:{mailbox.port}") as tinyfat,
    ):
        await tinyfat.make_agent("ada")
        await tinyfat.kill()
        tinyfat.http_port = free_port()
        tinyfat.environment["TINYFAT_HTTP_LISTEN"] = f"127.0.0.1:{tinyfat.http_port}"
        await tinyfat.start()
        await tinyfat.send(letter("Are you still there?"))
        (reply,) = await mailbox.wait_for(1)
        assert "Are you still there?" in reply.text
