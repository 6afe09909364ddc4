from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tinyfat.box.process_table import ProcessSeen, everyone, from_ps, look, tree


def seen(pid: int, parent: int, group: int) -> ProcessSeen:
    return ProcessSeen(pid, parent, group, 0, "")


def test_a_tree_has_descendants_and_the_group() -> None:
    table = [seen(1, 0, 1), seen(10, 1, 10), seen(11, 10, 10), seen(12, 11, 12), seen(13, 1, 10), seen(20, 1, 20)]
    assert {one.pid for one in tree(10, table)} == {10, 11, 12, 13}
    assert {one.pid for one in tree(99, table)} == set()


async def test_a_child_is_seen_and_then_is_not() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    here = look(child.pid)
    assert here is not None
    assert here.parent == os.getpid()
    assert child.pid in [one.pid for one in everyone()]
    child.kill()
    await child.wait()
    assert look(child.pid) is None


def test_ps_and_proc_agree_about_this_process() -> None:
    if not os.path.exists("/bin/ps") and not os.path.exists("/usr/bin/ps"):
        pytest.skip("no ps here")
    ours = look(os.getpid())
    theirs = next(one for one in from_ps() if one.pid == os.getpid())
    assert ours is not None
    assert (theirs.parent, theirs.group) == (ours.parent, ours.group)
    assert theirs.started
    assert abs(theirs.rss_bytes - ours.rss_bytes) < 50_000_000
