"""An agent's state, packed and put in its place: whole, or what was there before stays."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
from pathlib import Path

import pytest

from tinyfat.box.state_archive import ArchiveRefused, pack, restore


def filled(folder: Path) -> Path:
    (folder / "state/agents/main").mkdir(parents=True)
    (folder / "state/agents/main/sessions.jsonl").write_text("the conversation")
    (folder / "state/cache").mkdir()
    (folder / "state/cache/big").write_text("made anew")
    (folder / "workspace/notes/empty").mkdir(parents=True)
    script = folder / "workspace/run.sh"
    script.write_text("#!/bin/sh")
    script.chmod(0o755)
    (folder / "workspace/link").symlink_to("run.sh")
    with sqlite3.connect(folder / "state/memory.sqlite") as connection:
        connection.execute("create table t (x)")
        connection.execute("insert into t values ('remembered')")
    connection.close()
    os.mkfifo(folder / "state/pipe")
    return folder


def test_what_was_packed_is_there_again(tmp_path: Path) -> None:
    old, new = filled(tmp_path / "old"), tmp_path / "new"
    (new / "state").mkdir(parents=True)
    (new / "state/only-here").write_text("of the empty machine")
    archive = tmp_path / "a.tar.gz"
    digest = pack(old, archive)
    assert len(digest) == 64
    restore(archive, new)
    assert (new / "state/agents/main/sessions.jsonl").read_text() == "the conversation"
    assert not (new / "state/cache").exists() and not (new / "state/only-here").exists()
    assert not (new / "state/pipe").exists()
    assert (new / "workspace/notes/empty").is_dir()
    assert (new / "workspace/run.sh").stat().st_mode & 0o777 == 0o755
    assert os.readlink(new / "workspace/link") == "run.sh"
    assert sorted(path.name for path in new.iterdir()) == ["state", "workspace"]
    with sqlite3.connect(new / "state/memory.sqlite") as connection:
        assert connection.execute("select x from t").fetchall() == [("remembered",)]
    connection.close()


def member(name: str, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


SYM, LNK, FIFO = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside", size=3)],
        [member("/outside", size=3)],
        [member("state/../../outside", size=3)],
        [member("elsewhere/file", size=3)],
        [member("state", type=tarfile.DIRTYPE), member("state/d", type=SYM, linkname="/"), member("state/d/x", size=3)],
        [member("state", type=tarfile.DIRTYPE), member("state/h", type=LNK, linkname="../../secret")],
        [member("state", type=tarfile.DIRTYPE), member("state/p", type=FIFO)],
    ],
    ids=lambda members: members[-1].name,
)
def test_what_leads_out_of_it_is_refused_and_what_was_there_stays(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / "box"
    (folder / "state").mkdir(parents=True)
    (folder / "state/here").write_text("before")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"abc") if info.size else None)
    with pytest.raises(ArchiveRefused):
        restore(archive, folder)
    assert (folder / "state/here").read_text() == "before" and not (tmp_path / "outside").exists()
    assert [path.name for path in folder.iterdir()] == ["state"]


def test_a_damaged_one_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    old = filled(tmp_path / "old")
    (old / "workspace/large").write_bytes(os.urandom(300_000))
    pack(old, archive)
    folder = tmp_path / "box"
    (folder / "state").mkdir(parents=True)
    whole = archive.read_bytes()
    for broken in (whole[: len(whole) // 2], b"no archive", whole[:200] + b"x" * 50 + whole[250:]):
        archive.write_bytes(broken)
        with pytest.raises((ArchiveRefused, OSError)):
            restore(archive, folder)
        assert list(folder.iterdir()) == [folder / "state"]


def test_a_database_of_a_newer_sqlite_than_ours_is_not_damaged(tmp_path: Path) -> None:
    """OpenClaw's node brings one: a CHECK with octet_length() is unknown to Debian 12's."""
    old = filled(tmp_path / "old")
    made = sqlite3.connect(old / "state/newer.sqlite")
    made.create_function("of_a_newer_one", 1, lambda text: len(text), deterministic=True)
    made.execute("create table t (x text check (of_a_newer_one(x) < 5), y generated always as (of_a_newer_one(x)))")
    made.execute("create index i on t (of_a_newer_one(x)) where of_a_newer_one(x) > 1")
    made.execute("insert into t (x) values ('kept')")
    made.commit()
    made.close()
    archive = tmp_path / "a.tar.gz"
    pack(old, archive)
    restore(archive, _folder(tmp_path / "new-machine"))
    there = sqlite3.connect(tmp_path / "new-machine/state/newer.sqlite")
    assert there.execute("select x from t").fetchall() == [("kept",)]
    there.close()


def test_a_damaged_database_is_noticed(tmp_path: Path) -> None:
    old = filled(tmp_path / "old")
    database = old / "state/memory.sqlite"
    content = bytearray(database.read_bytes())
    content[4096:4200] = b"\xff" * 104
    database.write_bytes(content)
    archive = tmp_path / "a.tar.gz"
    pack(old, archive)
    with pytest.raises(ArchiveRefused, match="damaged"):
        restore(archive, tmp_path / "old")
    assert (old / "state/agents/main/sessions.jsonl").exists()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
