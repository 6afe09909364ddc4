"""Inference, whole: a mail, the echo runtime, the box's forwarder, the relay, the stand-in, the ledger, commands."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.mailbox import Mailbox
from tests.running import CommandError, TinyFat, letter, until

pytestmark = pytest.mark.story

ANSWER_SECONDS_MAX = 30.0
OWNERS_KEY = "sk-owners-planted-key-0123456789abcdef"


class Rig:
    def __init__(self, tinyfat: TinyFat, mailbox: Mailbox) -> None:
        self.tinyfat = tinyfat
        self.mailbox = mailbox
        self.mails = 0

    async def asks(self, text: str) -> str:
        """What the agent answers."""
        self.mails += 1
        message_id = f"<m{self.mails}@example.org>"
        await self.tinyfat.send(letter(text, message_id=message_id))

        async def answered() -> bool:
            return any(mail.in_reply_to == message_id for mail in self.mailbox.received)

        await until(answered, ANSWER_SECONDS_MAX, f"the answer to {text!r}")
        return next(mail.text for mail in self.mailbox.received if mail.in_reply_to == message_id)

    async def told(self, words: str) -> None:
        """The owner gets a mail, which answers none, with these words."""

        async def came() -> bool:
            return any(words in mail.text and not mail.in_reply_to for mail in self.mailbox.received)

        await until(came, ANSWER_SECONDS_MAX, f"a mail that says {words!r}")

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


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with (
        Mailbox() as mailbox,
        TinyFat(
            tmp_path / "home", TINYFAT_SMARTHOST=f"127.0.0.1:{mailbox.port}", TINYFAT_MODEL_URL="", TINYFAT_LOG="DEBUG"
        ) as tinyfat,
    ):
        await tinyfat.make_agent("ada")
        yield Rig(tinyfat, mailbox)


async def test_a_turns_calls_are_counted_capped_and_answered_in_words(rig: Rig) -> None:
    tinyfat = rig.tinyfat
    assert "could not be asked" not in await rig.asks("My boat is called Heron.\necho: model 2")
    spent = await tinyfat.json("usage", "ada", "--by", "turn")
    assert spent["calls"] == 2 and spent["spent_nanodollars"] > 0 and spent["reserved_nanodollars"] == 0
    (line,) = spent["lines"]
    assert line["of"] and line["calls"] == 2 and line["paid_by_us"] == spent["spent_nanodollars"]  # the turn was named
    await tinyfat.command("cap", "set", "ada", "--turn-calls", "3")
    words = await rig.asks("echo: model 5")
    assert "going in circles" in words and "tinyfat cap set ada" in words
    assert (await tinyfat.json("usage", "ada"))["calls"] == 5
    await rig.told("--turn-calls N")
    await tinyfat.command("cap", "kill", "ada")
    assert "switched off" in await rig.asks("echo: model 1")
    assert (await tinyfat.json("cap", "unkill", "ada"))["killed"] is False
    assert "switched off" not in await rig.asks("echo: model 1")
    shown = await tinyfat.command("usage", "ada", "--by", "model")
    assert "stand-in/main" in shown and "█" in shown and "6 calls" in shown


async def test_keys_are_shown_once_open_one_agent_and_end_at_once(rig: Rig) -> None:
    tinyfat = rig.tinyfat
    made = await tinyfat.json("key", "add", "ada", "--label", "a notebook")
    status, answer = await rig.call(made["key"])
    assert status == 200 and answer["choices"]
    listed = await tinyfat.json("key", "list", "ada")
    assert made["key"] not in json.dumps(listed) and {k["label"] for k in listed} == {"its machine's own", "a notebook"}
    await tinyfat.command("key", "revoke", "ada", made["prefix"])
    assert (await rig.call(made["key"]))[0] == 401
    with pytest.raises(CommandError) as error:
        await tinyfat.command("key", "revoke", "ada", "nonsense")
    assert error.value.code == 3
    # The machine's own is replaced while its runtime runs on.
    (own,) = [k for k in listed if k["machine_id"]]
    restarts = (await tinyfat.json("agent", "show", "ada"))["machine"]["restarts"]
    await tinyfat.command("key", "revoke", "ada", own["id"])

    async def replaced() -> bool:
        return "could not be asked" not in await rig.asks("echo: model 1")

    await until(replaced, 20, "the box has another key")
    agent = await tinyfat.json("agent", "show", "ada")
    assert agent["machine"]["restarts"] == restarts
    assert sum(k["machine_id"] is not None for k in await tinyfat.json("key", "list", "ada")) == 2


async def test_the_box_gets_the_same_key_after_a_restart_and_no_vendors(rig: Rig) -> None:
    tinyfat = rig.tinyfat
    await tinyfat.stop()
    await tinyfat.start()
    assert "could not be asked" not in await rig.asks("echo: model 1")
    assert len(await tinyfat.json("key", "list", "ada")) == 1
    (spec,) = (tinyfat.home / "machines").glob("*/spec.json")
    model = json.loads(spec.read_text())["spec"]["model"]
    assert model["key"].startswith("tfk_") and model["url"] == f"http://127.0.0.1:{tinyfat.relay_port}/v1"


async def test_an_owners_key_pays_and_is_never_shown(rig: Rig) -> None:
    tinyfat = rig.tinyfat
    code, _, err = await rig.enter("sk-ant-oat01-abc", "byok", "set", "ada", "--vendor", "anthropic")
    assert code == 2 and "subscription" in err
    code, _, err = await rig.enter(OWNERS_KEY, "byok", "set", "ada", "--vendor", "nobody")
    assert code == 2 and "stand-in" in err
    code, out, err = await rig.enter(OWNERS_KEY + "\n", "byok", "set", "ada", "--vendor", "stand-in", "--json")
    assert code == 0, err
    assert json.loads(out)["hint"] == "cdef" and json.loads(out)["month_nanodollars"] is None
    await rig.asks("echo: model 1")
    (line,) = (await tinyfat.json("usage", "ada"))["lines"]
    assert line["paid_by_us"] == 0 and line["paid_by_owner"] > 0
    (ada,) = (await tinyfat.json("money"))["agents"]
    assert (ada["plan"], ada["price"], ada["inference"], ada["machine"]) == ("byok", 20 * 10**9, 0, 0)
    cleared = await tinyfat.json("byok", "clear", "ada", "--vendor", "stand-in")
    assert cleared["month_nanodollars"] == 8 * 10**9  # we pay again: never without a bound
    files = [file for file in tinyfat.home.rglob("*") if file.is_file() and "postgres" not in file.parts]
    for file in (*files, tinyfat.log):
        assert OWNERS_KEY.encode() not in file.read_bytes(), file


async def test_caps_models_and_money_for_people(rig: Rig) -> None:
    tinyfat = rig.tinyfat
    caps = await tinyfat.json("cap", "set", "ada", "--month", "8", "--day", "2", "--turn", "0.5")
    assert (caps["month_nanodollars"], caps["day_nanodollars"], caps["turn_nanodollars"]) == (
        8 * 10**9, 2 * 10**9, 5 * 10**8,
    )  # fmt: skip
    assert (await tinyfat.json("cap", "set", "ada", "--day", "none"))["day_nanodollars"] is None
    assert "$8.00" in await tinyfat.command("cap", "show", "ada")
    for wrong in (
        ("cap", "set", "ada"),
        ("cap", "set", "ada", "--month", "lots"),
        ("cap", "set", "ada", "--day", "-1"),
    ):
        with pytest.raises(CommandError) as error:
            await tinyfat.command(*wrong)
        assert error.value.code == 2
    for missing in (("usage", "nobody"), ("key", "add", "nobody"), ("cap", "show", "nobody")):
        with pytest.raises(CommandError) as error:
            await tinyfat.command(*missing)
        assert error.value.code == 3
    (main,) = await tinyfat.json("models")
    assert main["alias"] == "main" and main["price"]["source"] == "stand-in" and main["key_set"]
    assert "0.30" in await tinyfat.command("models")
    assert "ada" in await tinyfat.command("money")
