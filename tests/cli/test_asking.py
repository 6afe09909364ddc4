"""Nothing is lost for good unasked: who is asked, where, and which answers are a yes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cli.in_process import command
from tests.machine_speed import patient
from tests.running import TinyFat

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
COMMAND_SECONDS_MAX = 60.0
WHAT_IS_SAID_FIRST = {
    ("agent", "destroy", "ada"): ("tinyfat agent destroy ada --export FILE", "remove its machine and data?"),
    ("agent", "destroy", "ada", "--export", "ada.tar.gz"): ("written to ada.tar.gz first",),
    ("agent", "replace", "ada", "--without-state"): ("last heard of", "Lost is", "what ada remembers", "Kept are"),
    ("image", "prune", "--keep", "1"): ("Remove the images of nspawn but the newest 1?",),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tinyfat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TinyFat]:
    async with TinyFat(tmp_path_factory.mktemp("asking") / "home") as tinyfat:
        await tinyfat.make_agent("ada")
        yield tinyfat


def is_there(tinyfat: TinyFat) -> bool:
    return bool(json.loads(command(tinyfat, "agent", "show", "ada", "--json").out)["state"] == "ready")


def answered(tinyfat: TinyFat, answer: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with a terminal as standard input, on which somebody types `answer`; its outputs are pipes."""
    ours, its = pty.openpty()
    os.write(ours, answer)
    try:
        return subprocess.run(
            [sys.executable, "-m", "tinyfat", *arguments], stdin=its, capture_output=True, text=True, check=False,
            env=tinyfat.environment, cwd=tinyfat.home.parent, timeout=patient(COMMAND_SECONDS_MAX),
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(its)


@pytest.mark.parametrize("stdin", [b"n\n", b"y\n", b""], ids=["no", "yes", "nothing"])
@pytest.mark.parametrize("words", [*WHAT_IS_SAID_FIRST, ("agent", "destroy", "ada", "--json")], ids=" ".join)
async def test_without_a_terminal_nobody_says_yes(tinyfat: TinyFat, words: tuple[str, ...], stdin: bytes) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tinyfat", *words], input=stdin, capture_output=True, check=False,
        env=tinyfat.environment, cwd=tinyfat.home.parent, timeout=patient(COMMAND_SECONDS_MAX),
    )  # fmt: skip
    assert ended.returncode == 2 and b"--yes" in ended.stderr and b"Nothing was done." in ended.stderr
    assert is_there(tinyfat)


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"ja\n", b"yess\n", b"\x04", b"\xff\n"], ids=repr)
async def test_any_answer_but_y_is_no(tinyfat: TinyFat, answer: bytes) -> None:
    ended = answered(tinyfat, answer, "agent", "destroy", "ada")
    assert ended.returncode == 1 and "Nothing was done." in ended.stderr, ended
    assert is_there(tinyfat)


@pytest.mark.parametrize("words", WHAT_IS_SAID_FIRST, ids=" ".join)
async def test_a_person_is_told_what_is_lost(tinyfat: TinyFat, words: tuple[str, ...]) -> None:
    ended = answered(tinyfat, b"no\n", *words)
    assert ended.returncode == 1 and ended.stdout == ""
    question = " ".join(ended.stderr.split())
    assert all(each in question for each in WHAT_IS_SAID_FIRST[words]), question


async def test_keys_are_not_lost_unasked(tinyfat: TinyFat) -> None:
    made = json.loads(command(tinyfat, "key", "add", "ada", "--json").out)
    assert command(tinyfat, "key", "revoke", "ada", made["prefix"]).code == 2
    assert json.loads(command(tinyfat, "key", "list", "ada", "--json").out)[-1]["revoked_at"] is None
    assert command(tinyfat, "key", "revoke", "ada", "nonsense").code == 3
    assert command(tinyfat, "key", "revoke", "ada", made["prefix"], "--yes").code == 0


async def test_yes_on_a_terminal_and_yes_as_an_option(tinyfat: TinyFat) -> None:
    for name, answer, option in (("bea", b"y\n", ()), ("cid", b"YES\n", ()), ("dan", b"", ("--yes",))):
        await tinyfat.make_agent(name)
        ended = answered(tinyfat, answer, "agent", "destroy", name, "--json", *option)
        assert ended.returncode == 0 and json.loads(ended.stdout)["state"] == "destroyed"
