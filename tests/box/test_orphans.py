"""A command in a session of its own, whose parent is gone, ends with the runtime that began it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.box.plane import until
from tinyfat.drivers.machines.process import ProcessMachines

# As `setsid -f sleep`: nobody's child, of no group and session of the runtime's.
RUNTIME = """
import os, sys, time
if not os.fork():
    os.setsid()
    if os.fork(): os._exit(0)
    os.chdir(sys.argv[2])
    with open(sys.argv[1] + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(600)
os.wait()
time.sleep(600)
"""
BOX = """
import asyncio, json, sys
from pathlib import Path
from tinyfat.box.child import Child, adoption
from tinyfat.box.runtime import Command

async def main(argv, folder):
    adoption.begin()
    child = await Child.start(Command(argv, {}, folder, 5.0), folder / "runtime.pid", lambda line: None)
    await asyncio.to_thread(sys.stdin.readline)
    await child.end(5.0)
    adoption.bury()
    adoption.bury()
    print(json.dumps({"ended": True}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(tuple(json.loads(sys.argv[1])), Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to their box")
async def test_an_orphan_in_a_session_of_its_own_ends_with_the_runtime(tmp_path: Path) -> None:
    orphan_file = tmp_path / "orphan.pid"
    argv = json.dumps([sys.executable, "-c", RUNTIME, str(orphan_file), "/"])
    box = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BOX, argv, str(tmp_path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert box.stdin and box.stdout
    try:
        await until(orphan_file.exists, "the orphan")
        orphan = psutil.Process(int(orphan_file.read_text()))
        assert orphan.ppid() == box.pid
        box.stdin.write(b"\n")
        assert json.loads(await box.stdout.readline()) == {"ended": True}
        assert not orphan.is_running()
        assert psutil.Process(box.pid).children(recursive=True) == []
    finally:
        box.kill()
        await box.wait()


async def test_what_works_in_a_destroyed_machine_s_folder_ends_whoever_its_parent_is(tmp_path: Path) -> None:
    """Its box was killed and could not: the folder tells whose it is."""
    folder = tmp_path / "machines/m1/workspace"
    folder.mkdir(parents=True)
    elsewhere = tmp_path / "machines/m11"
    elsewhere.mkdir()
    left = [
        await asyncio.create_subprocess_exec("sleep", "600", cwd=place, start_new_session=True)
        for place in (folder, elsewhere)
    ]
    try:
        await ProcessMachines(tmp_path / "machines", tmp_path, asyncio.get_running_loop().time).delete("m1")
        assert await left[0].wait() < 0
        assert left[1].returncode is None and not folder.exists() and elsewhere.exists()
        os.kill(left[1].pid, 0)
    finally:
        for one in left:
            if one.returncode is None:
                one.kill()
                await one.wait()
