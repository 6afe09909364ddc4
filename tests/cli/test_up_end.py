"""How `tinyfat up` ends, whatever was begun and does not: in processes of its own, some of which are left with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine_speed import patient
from tests.running import surroundings

SECONDS_MAX = 60.0
# One process for each case, forked from one that has read the program: told to stop once it is up.
PROGRAM = """
import asyncio, json, os, signal, sys
from pathlib import Path
from tinyfat.cli import up
from tinyfat.settings import Settings

up.END_SECONDS_MAX = up.LEFT_SECONDS_MAX = 2.0
up.AGAIN_SECONDS = 0.05
folder = Path(sys.argv[1])
tasks = []

async def deaf(times):
    while times:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
    await asyncio.Event().wait()

def begin(times, name):
    tasks.append(asyncio.create_task(deaf(times), name=name))

async def fails():
    raise up.UpFailed("no room for it")

CASES = {
    "hears late": (lambda: begin(3, "hears late"), lambda: asyncio.sleep(0)),
    "hears nothing": (lambda: begin(10**9, "hears nothing"), lambda: asyncio.sleep(0)),
    "takes long": (lambda: None, lambda: asyncio.Event().wait()),
    "never ends": (lambda: None, lambda: deaf(10**9)),
    "fails": (lambda: begin(10**9, "hears nothing"), fails),
}

def child(case, ready):
    before, after = CASES[case]

    async def pretended(settings, stop):
        before()
        os.write(ready, b"up")
        await stop.wait()
        await after()

    up.up = pretended
    with (folder / case).open("w") as said:
        os.dup2(said.fileno(), 2)
    try:
        up.run(Settings(home=folder))
    except up.CommandFailed as failed:
        print(failed, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

pids = {}
for case in CASES:
    came, ready = os.pipe()
    pids[case] = os.fork()
    if not pids[case]:
        child(case, ready)
    os.read(came, 2)
    os.kill(pids[case], signal.SIGTERM)
print(json.dumps({case: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for case, pid in pids.items()}))
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Of each case: its exit code, and what it said."""
    folder: Path = tmp_path_factory.mktemp("ends")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True, timeout=patient(SECONDS_MAX),
        check=True, env=surroundings() | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return {case: (code, (folder / case).read_text()) for case, code in json.loads(run.stdout).items()}


def test_a_task_that_lost_its_first_cancellations_ends(ends: dict[str, tuple[int, str]]) -> None:
    assert ends["hears late"] == (0, "")


def test_a_task_that_never_ends_is_named_and_left_behind(ends: dict[str, tuple[int, str]]) -> None:
    code, said = ends["hears nothing"]
    assert code == 0 and "left behind" in said and "hears nothing" in said


def test_an_end_that_takes_too_long_is_told(ends: dict[str, tuple[int, str]]) -> None:
    code, said = ends["takes long"]
    assert code == 1 and "did not end within 2 s" in said and "left behind" not in said


def test_an_end_that_never_comes_is_named_and_left_behind(ends: dict[str, tuple[int, str]]) -> None:
    code, said = ends["never ends"]
    assert code == 1 and "left behind" in said and "name='up'" in said


def test_why_it_failed_is_said_all_the_same(ends: dict[str, tuple[int, str]]) -> None:
    code, said = ends["fails"]
    assert code == 1 and "left behind" in said and "no room for it" in said
