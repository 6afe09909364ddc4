"""Inference, whole: a mail, the echo runtime, the box's forwarder, the relay, the stand-in, the ledger, commands."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.cli.in_process import command
from tests.running import TinyFat, letter, until
from tests.stories.town import PostOffice, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WRONG_USE, NOT_FOUND = 2, 3
NAMES = iter(("ada", "bea", "cleo", "dora", "emma", "fay"))
ANSWER_SECONDS_MAX = 30.0
OWNERS_KEY = "sk-owners-planted-key-0123456789abcdef"


class Rig:
    """An agent of its own in the TinyFat that these stories share."""

    def __init__(self, tinyfat: TinyFat, office: PostOffice, name: str) -> None:
        self.tinyfat, self.office, self.name = tinyfat, office, name

    async def asks(self, text: str) -> str:
        """What the agent answers."""
        message_id = new_id()
        await self.tinyfat.send(letter(text, to=f"{self.name}@tinyfat.localhost", message_id=message_id))
        return (await self.office.reply_to(message_id)).text

    async def told(self, words: str) -> None:
        """The owner gets a mail, which answers none, with these words."""

        async def came() -> bool:
            return any(words in mail.text and not mail.in_reply_to for mail in self.office.received)

        await until(came, ANSWER_SECONDS_MAX, f"a mail that says {words!r}")

    def says(self, *arguments: str) -> str:
        """What a command says."""
        ended = command(self.tinyfat, *arguments)
        assert ended.code == 0, ended
        return ended.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.says(*arguments, "--json"))

    def refused(self, code: int, *arguments: str) -> None:
        ended = command(self.tinyfat, *arguments)
        assert ended.code == code and "Traceback" not in ended.err, ended

    async def call(self, key: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """The relay itself, as a client with a key of its own calls it."""
        url = f"http://127.0.0.1:{self.tinyfat.relay_port}/v1/chat/completions"
        body = {"model": "main", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello."}], **more}
        headers = {"authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def enter(self, text: str, *arguments: str) -> tuple[int, str, str]:
        """A command with `text` on its standard input."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tinyfat", *arguments, env=self.tinyfat.environment, cwd=self.tinyfat.home.parent,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(text.encode())
        return process.returncode or 0, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tinyfat(office: PostOffice, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TinyFat]:
    """With the stand-in as its model; every word is logged, so that a planted key could be found."""
    home = tmp_path_factory.mktemp("inference") / "home"
    smarthost = f"127.0.0.1:{office.port}"
    async with TinyFat(home, TINYFAT_SMARTHOST=smarthost, TINYFAT_MODEL_URL="", TINYFAT_LOG="DEBUG") as tinyfat:
        yield tinyfat


@pytest_asyncio.fixture(loop_scope="module")
async def rig(tinyfat: TinyFat, office: PostOffice) -> Rig:
    name = next(NAMES)
    await tinyfat.make_agent(name)
    return Rig(tinyfat, office, name)


async def test_a_turns_calls_are_counted_capped_and_answered_in_words(rig: Rig) -> None:
    name = rig.name
    assert "could not be asked" not in await rig.asks("My boat is called Heron.\necho: model 2")
    spent = rig.json("usage", name, "--by", "turn")
    assert spent["calls"] == 2 and spent["spent_nanodollars"] > 0 and spent["reserved_nanodollars"] == 0
    (line,) = spent["lines"]
    assert line["of"] and line["calls"] == 2 and line["paid_by_us"] == spent["spent_nanodollars"]  # the turn was named
    rig.says("cap", "set", name, "--turn-calls", "3")
    words = await rig.asks("echo: model 5")
    assert "going in circles" in words and f"tinyfat cap set {name}" in words
    assert rig.json("usage", name)["calls"] == 5
    await rig.told("--turn-calls N")
    rig.says("cap", "kill", name)
    assert "switched off" in await rig.asks("echo: model 1")
    assert rig.json("cap", "unkill", name)["killed"] is False
    assert "switched off" not in await rig.asks("echo: model 1")
    shown = rig.says("usage", name, "--by", "model")
    assert "stand-in/main" in shown and "█" in shown and "6 calls" in shown


async def test_of_turns_that_run_at_once_each_is_counted_and_capped_by_itself(rig: Rig) -> None:
    """Two threads: one calls as often as it may, the other goes in circles beside it."""
    name = rig.name
    rig.says("cap", "set", name, "--turn-calls", "4")
    slow = "model: slow 0.3\nmodel: say done\n"
    few, many = await asyncio.gather(rig.asks(f"{slow}echo: model 4"), rig.asks(f"{slow}echo: model 9"))
    assert "done" in few and "going in circles" in many
    lines = rig.json("usage", name, "--by", "turn")["lines"]
    assert sorted(line["calls"] for line in lines) == [4, 4]
    assert all("+" not in line["of"] for line in lines), lines


async def test_keys_are_shown_once_open_one_agent_and_end_at_once(rig: Rig) -> None:
    name = rig.name
    made = rig.json("key", "add", name, "--label", "a notebook")
    status, answer = await rig.call(made["key"])
    assert status == 200 and answer["choices"]
    listed = rig.json("key", "list", name)
    assert made["key"] not in json.dumps(listed) and {k["label"] for k in listed} == {"its machine's own", "a notebook"}
    rig.says("key", "revoke", name, made["prefix"], "--yes")
    assert (await rig.call(made["key"]))[0] == 401
    rig.refused(NOT_FOUND, "key", "revoke", name, "nonsense")
    # The machine's own is replaced while its runtime runs on.
    (own,) = [k for k in listed if k["machine_id"]]
    restarts = rig.json("agent", "show", name)["machine"]["restarts"]
    rig.says("key", "revoke", name, own["id"], "--yes")

    async def replaced() -> bool:
        return "could not be asked" not in await rig.asks("echo: model 1")

    await until(replaced, ANSWER_SECONDS_MAX, "the box has another key")
    assert rig.json("agent", "show", name)["machine"]["restarts"] == restarts
    assert sum(k["machine_id"] is not None for k in rig.json("key", "list", name)) == 2


async def test_an_owners_key_pays_and_is_never_shown(rig: Rig) -> None:
    name = rig.name
    code, _, err = await rig.enter("sk-ant-oat01-abc", "byok", "set", name, "--vendor", "anthropic")
    assert code == WRONG_USE and "subscription" in err
    code, _, err = await rig.enter(OWNERS_KEY, "byok", "set", name, "--vendor", "nobody")
    assert code == WRONG_USE and "stand-in" in err
    code, out, err = await rig.enter(OWNERS_KEY + "\n", "byok", "set", name, "--vendor", "stand-in", "--json")
    assert code == 0, err
    assert json.loads(out)["hint"] == "cdef" and json.loads(out)["month_included"] is True
    await rig.asks("echo: model 1")
    (line,) = rig.json("usage", name)["lines"]
    assert line["paid_by_us"] == 0 and line["paid_by_owner"] > 0
    (own,) = [agent for agent in rig.json("money")["agents"] if agent["name"] == name]
    assert (own["plan"], own["price"], own["inference"], own["machine"]) == ("byok", 20 * 10**9, 0, 0)
    cleared = rig.json("byok", "clear", name, "--vendor", "stand-in", "--yes")
    assert (cleared["month_nanodollars"], cleared["month_included"]) == (8 * 10**9, True)
    files = [file for file in rig.tinyfat.home.rglob("*") if file.is_file() and "postgres" not in file.parts]
    for file in (*files, rig.tinyfat.log):
        assert OWNERS_KEY.encode() not in file.read_bytes(), file


async def test_caps_models_and_money_for_people(rig: Rig) -> None:
    name = rig.name
    caps = rig.json("cap", "set", name, "--month", "8", "--day", "2", "--turn", "0.5")
    assert (caps["month_nanodollars"], caps["day_nanodollars"], caps["turn_nanodollars"]) == (
        8 * 10**9, 2 * 10**9, 5 * 10**8,
    )  # fmt: skip
    assert caps["month_included"] is False
    assert rig.json("cap", "set", name, "--day", "none", "--month", "included") == caps | {
        "day_nanodollars": None, "month_included": True,
    }  # fmt: skip
    assert "$8.00" in rig.says("cap", "show", name)
    for wrong in (("cap", "set", name), ("cap", "set", name, "--month", "x"), ("cap", "set", name, "--day", "-1")):
        rig.refused(WRONG_USE, *wrong)
    for missing in (("usage", "nobody"), ("key", "add", "nobody"), ("cap", "show", "nobody")):
        rig.refused(NOT_FOUND, *missing)
    (main,) = rig.json("models")
    assert main["alias"] == "main" and main["price"]["source"] == "stand-in" and main["key_set"]
    assert "0.30" in rig.says("models")
    assert name in rig.says("money")


async def test_the_box_gets_the_same_key_after_a_restart_and_no_vendors(rig: Rig) -> None:
    """The master key is rotated by the operator's guide's own line on the way; an owner's key still opens."""
    tinyfat = rig.tinyfat
    code, _, err = await rig.enter(OWNERS_KEY, "byok", "set", rig.name, "--vendor", "stand-in")
    assert code == 0, err
    await tinyfat.stop()
    (line,) = re.findall(r"`(echo .*>> ~/\.tinyfat/master\.key)`", Path("docs/operator.md").read_text("utf-8"))
    file = tinyfat.home / "master.key"
    subprocess.run(["sh", "-c", line.replace("~/.tinyfat/master.key", str(file))], check=True)
    await tinyfat.start()
    assert "owners' keys are under the newest master key now" in tinyfat.log.read_text()
    file.write_text(file.read_text().splitlines()[-1] + "\n")  # the old line may go
    await tinyfat.stop()
    await tinyfat.start()
    assert "could not be asked" not in await rig.asks("echo: model 1")
    assert sum(line["paid_by_owner"] > 0 for line in rig.json("usage", rig.name)["lines"]) == 1
    assert len(rig.json("key", "list", rig.name)) == 1
    machine = rig.json("agent", "show", rig.name)["machine"]["id"]
    (spec,) = (tinyfat.home / "machines").glob(f"{machine}*/spec.json")
    model = json.loads(spec.read_text())["spec"]["model"]
    assert model["key"].startswith("tfk_") and model["url"] == f"http://127.0.0.1:{tinyfat.relay_port}/v1"
