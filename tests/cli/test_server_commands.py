"""Owners' keys, the way in, the fleet: as far as they go where nobody has a server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cli.in_process import command
from tests.running import OWNER, TinyFat
from tinyfat.store.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.story, pytest.mark.asyncio(loop_scope="module")]
KEY = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tinyfat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TinyFat]:
    async with TinyFat(tmp_path_factory.mktemp("servers") / "home") as tinyfat:
        await tinyfat.make_agent("ada")
        yield tinyfat


async def test_owners_keys_are_added_listed_and_removed(tinyfat: TinyFat, tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(f"{KEY} laptop\n")
    added = json.loads(command(tinyfat, "agent", "keys", "add", "ada", str(file), "--json").out)
    assert added["name"] == "laptop" and added["fingerprint"].startswith("SHA256:")
    assert "laptop" in command(tinyfat, "agent", "keys", "list", "ada").out
    assert command(tinyfat, "agent", "keys", "add", "ada", f"{KEY} again").code == 0  # the key itself; the same one
    assert len(json.loads(command(tinyfat, "agent", "keys", "list", "ada", "--json").out)) == 1
    removed = command(tinyfat, "agent", "keys", "remove", "ada", added["fingerprint"])
    assert removed.code == 0 and "opens nothing" in removed.out
    assert json.loads(command(tinyfat, "agent", "keys", "list", "ada", "--json").out) == []
    assert command(tinyfat, "agent", "keys", "remove", "ada", "laptop").code == 3


@pytest.mark.parametrize(("key", "words"), [("/nowhere.pub", "no file"), ("ssh-ed25519 AAAA", "damaged")])
async def test_what_is_no_key_is_refused(tinyfat: TinyFat, key: str, words: str) -> None:
    refused = command(tinyfat, "agent", "keys", "add", "ada", key)
    assert refused.code == 2 and words in " ".join(refused.err.split())


async def test_an_agent_without_a_server_has_no_way_in_and_no_other_machine(tinyfat: TinyFat) -> None:
    for words in (("ssh", "ada"), ("agent", "replace", "ada"), ("agent", "publish", "ada")):
        refused = command(tinyfat, *words)
        assert refused.code == 1 and "a server of its own, and ada has none" in " ".join(refused.err.split())
    assert json.loads(command(tinyfat, "audit", "--json").out) == []
    assert command(tinyfat, "audit", "nobody").code == 3


async def test_a_fleet_without_servers(tinyfat: TinyFat) -> None:
    assert "--plan fat" in command(tinyfat, "fleet").out
    found = json.loads(command(tinyfat, "fleet", "--look", "--json").out)
    assert (found["machines"], found["alarms"], found["month_nanodollars"]) == ([], [], 0)


async def test_machines_that_images_are_made_of_are_shown_and_counted(tinyfat: TinyFat) -> None:
    price = 30 * 10**9  # nano-dollars a month
    async with await psycopg.AsyncConnection.connect(EmbeddedPostgres(tinyfat.home).url) as connection:
        await connection.execute(
            "insert into image_machines values ('hetzner', '7', 'tinyfat-7', 'echo-1-on-debian', now() - interval "
            "'30 min', %s)",
            (price,),
        )
    found = command(tinyfat, "fleet")
    shown = "".join(found.out.split())
    assert found.code == 0 and "echo-1-on-debian" in shown and "Inall$30.00amonth" in shown
    as_json = json.loads(command(tinyfat, "fleet", "--json").out)
    assert as_json["month_nanodollars"] == price and as_json["alarms"] == []
    assert [one["image"] for one in as_json["image_machines"]] == ["echo-1-on-debian"]
    [line] = [one for one in json.loads(command(tinyfat, "money", "--json").out)["agents"] if one["plan"] == "image"]
    half_an_hour = price / (28 * 48)  # of the shortest month; half of that, where one began a moment ago
    assert 0 < line["machine"] <= half_an_hour and line["machine"] == line["forecast_cost"] == -line["margin"]
    async with await psycopg.AsyncConnection.connect(EmbeddedPostgres(tinyfat.home).url) as connection:
        await connection.execute("delete from image_machines")  # the other tests know nothing of it


async def test_a_fat_agent_needs_servers(tinyfat: TinyFat) -> None:
    refused = command(tinyfat, "agent", "create", "fatty", "--owner", OWNER, "--plan", "fat")
    assert refused.code == 2 and "TINYFAT_MACHINE" in refused.err
