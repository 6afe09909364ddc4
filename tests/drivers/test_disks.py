"""Reading a disk, and counting folders, as the system's own tools do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tinyfat.drivers.disk_usage import folders_usage
from tinyfat.drivers.disks import LocalDisks, read_disk


async def test_what_is_not_there_yet_is_read_where_it_would_lie(tmp_path: Path) -> None:
    seen = await LocalDisks().read(tmp_path / "a" / "b")
    assert seen.device == tmp_path.stat().st_dev
    assert 0 <= seen.free <= seen.total == shutil.disk_usage(tmp_path).total


async def test_two_who_ask_share_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import threading

    go, looks = threading.Event(), []

    def slow(path: Path) -> object:
        looks.append(path)
        go.wait()
        return read_disk(path)

    monkeypatch.setattr("tinyfat.drivers.disks.read_disk", slow)
    disks = LocalDisks()
    asked = [asyncio.create_task(disks.read(tmp_path)) for _ in range(5)]
    while not looks:
        await asyncio.sleep(0)
    go.set()
    assert len(set(await asyncio.gather(*asked))) == 1 and len(looks) == 1


def test_a_folder_takes_what_du_says(tmp_path: Path) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "one" / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "one" / "deep" / "b").write_bytes(b"y" * 5000)
    os.link(tmp_path / "one" / "a", tmp_path / "one" / "deep" / "again")
    (tmp_path / "one" / "away").symlink_to("/usr")
    with (tmp_path / "one" / "sparse").open("wb") as sparse:
        sparse.truncate(10**9)
    [used, nothing] = folders_usage([tmp_path / "one", tmp_path / "none"], 60.0, lambda: 0.0)
    said = subprocess.run(["du", "-sk", str(tmp_path / "one")], capture_output=True, check=True).stdout
    top = (tmp_path / "one").stat().st_blocks * 512
    assert abs(used.bytes + top - int(said.split()[0]) * 1024) < 1024
    assert used.whole and used.files == 4
    assert (nothing.bytes, nothing.files, nothing.whole) == (0, 0, True)


def test_counting_ends_when_time_is_up(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / str(number)).touch()
    ticks = iter(range(100_000))
    [used] = folders_usage([tmp_path], 1.0, lambda: float(next(ticks)))
    assert not used.whole and used.files < 1000
