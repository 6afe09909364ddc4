"""An agent's state, packed and put in its place: whole, or what was there before stays."""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
import tarfile
import tracemalloc
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
        [member("state", type=tarfile.DIRTYPE), member("state/c", type=tarfile.CHRTYPE)],
        [member("state", type=tarfile.DIRTYPE), member("state/b", type=tarfile.BLKTYPE)],
        [member("state", type=tarfile.DIRTYPE), member("workspace", type=SYM, linkname="/")],
        [member("workspace", type=SYM, linkname="state"), member("state", type=tarfile.DIRTYPE)],
        [member("state", type=SYM, linkname="..")],
        [member("state", size=3)],
        [member("state/file", size=3)],
        [
            member("state", type=tarfile.DIRTYPE),
            member("state/x", type=SYM, linkname="../../secret"),
            member("state/x", type=tarfile.DIRTYPE, mode=0o777),
        ],
        [
            member("state", type=tarfile.DIRTYPE),
            member("state/x", type=tarfile.DIRTYPE, mode=0o777),
            member("state/x", type=SYM, linkname="../../secret"),
        ],
        [
            member("state", type=tarfile.DIRTYPE),
            member("state/l", type=SYM, linkname="../../secret"),
            member("state/same", type=LNK, linkname="state/l"),
        ],
        [member("state", type=tarfile.DIRTYPE), member("state/" + "n" * 300, size=3)],
        [member("/".join(["state", *["d"] * depth]), type=tarfile.DIRTYPE) for depth in range(200)],
        [member("state", type=tarfile.DIRTYPE), member("state/e", type=SYM, linkname="")],
    ],
    ids=lambda members: f"{members[-1].name[:20]}-{len(members)}",
)
def test_what_leads_out_of_it_is_refused_and_what_was_there_stays(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "secret").chmod(0o600)
    folder = tmp_path / "box"
    (folder / "state").mkdir(parents=True)
    (folder / "state/here").write_text("before")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"abc") if info.size else None)
    with pytest.raises(ArchiveRefused):
        restore(archive, folder)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
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


@pytest.mark.parametrize("name", ["bad.db", "bad.sqlite3", "memory", "a.txt"])
def test_a_damaged_database_is_noticed_whatever_its_name(tmp_path: Path, name: str) -> None:
    old = filled(tmp_path / "old")
    content = bytearray((old / "state/memory.sqlite").read_bytes())
    content[4096:4200] = b"\xff" * 104
    (old / "workspace" / name).write_bytes(content)
    archive = tmp_path / "a.tar.gz"
    pack(old, archive)
    with pytest.raises(ArchiveRefused, match="damaged"):
        restore(archive, _folder(tmp_path / "new"))


def test_holes_stay_holes(tmp_path: Path) -> None:
    """Half a gigabyte of them packs to little, and takes little again."""
    old, new = filled(tmp_path / "old"), _folder(tmp_path / "new")
    with (old / "workspace/disk.img").open("wb") as file:
        file.write(b"begin")
        file.seek(100_000_000)
        file.write(b"end")
        file.truncate(120_000_000)
    archive = tmp_path / "a.tar.gz"
    pack(old, archive)
    restore(archive, new)
    there = (new / "workspace/disk.img").stat()
    assert there.st_size == 120_000_000 and there.st_blocks * 512 < 2_000_000
    with (new / "workspace/disk.img").open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(100_000_000)
        assert file.read(3) == b"end"


def test_two_names_of_one_file_stay_so(tmp_path: Path) -> None:
    old, new = filled(tmp_path / "old"), _folder(tmp_path / "new")
    os.link(old / "workspace/run.sh", old / "state/same.sh")
    archive = tmp_path / "a.tar.gz"
    pack(old, archive)
    restore(archive, new)
    assert (new / "workspace/run.sh").samefile(new / "state/same.sh")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfat.box.state_archive.UNPACKED_BYTES_FREE", 1_000_000)
    archive, folder = tmp_path / "a.tar.gz", _folder(tmp_path / "box")
    wrote: list[str] = []
    monkeypatch.setattr("tinyfat.box.state_archive._write", lambda tar, member, into: wrote.append(member.name))
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member("workspace", type=tarfile.DIRTYPE))
        tar.addfile(member("workspace/bomb", size=30_000_000), io.BytesIO(b"A" * 30_000_000))
    assert archive.stat().st_size < 100_000
    with pytest.raises(ArchiveRefused, match="unpacked"):
        restore(archive, folder)
    assert wrote == []


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_header_without_end_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    archive, folder = tmp_path / "a.tar.gz", _folder(tmp_path / "box")
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member("workspace", type=tarfile.DIRTYPE))
        tar.fileobj.write(member("x", type=kind, size=5_000_000_000).tobuf())  # type: ignore[union-attr]
        tar.fileobj.write(b"0" * 100_000)  # type: ignore[union-attr]
    with pytest.raises(ArchiveRefused):
        restore(archive, folder)


def test_headers_before_headers_without_end_are_refused(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar.gz", _folder(tmp_path / "box")
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member("workspace", type=tarfile.DIRTYPE))
        for _ in range(5000):
            tar.fileobj.write(member("x", type=tarfile.GNUTYPE_LONGNAME, size=1).tobuf() + b"y" + bytes(511))  # type: ignore[union-attr]
    with pytest.raises(ArchiveRefused):
        restore(archive, folder)


def words(kind: bytes, **fields: str) -> bytes:
    """A pax header (POSIX.1-2008, pax, "Extended Header"): its records, each with its own length in front."""
    records = b""
    for key, value in fields.items():
        rest = f" {key.replace('__', '.')}={value}\n".encode()
        size = next(n for n in range(len(rest) + 1, len(rest) + 9) if len(str(n)) + len(rest) == n)
        records += str(size).encode() + rest
    return member("x", type=kind, size=len(records)).tobuf() + records + bytes(-len(records) % 512)


EMPTY = member("workspace/a").tobuf()
SPARSE = {"GNU__sparse__major": "1", "GNU__sparse__minor": "0", "GNU__sparse__name": "workspace/a"}


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([words(tarfile.XGLTYPE, comment="x"), EMPTY], id="words on all members"),
        pytest.param([words(tarfile.XHDTYPE, size="-1024"), EMPTY], id="a size below nothing"),
        pytest.param([words(tarfile.XHDTYPE, size="9" * 40), EMPTY], id="a size beyond all"),
        pytest.param([words(tarfile.XHDTYPE, mtime="nan"), EMPTY], id="no time"),
        pytest.param([words(tarfile.XHDTYPE, path="../out"), EMPTY], id="another name"),
        pytest.param([words(tarfile.XHDTYPE, path="workspace/a\0b"), EMPTY], id="a name with an end in it"),
        pytest.param([words(tarfile.XHDTYPE, GNU__sparse__map="0,1," * 999 + "0,1"), EMPTY], id="holes in a header"),
        pytest.param([words(tarfile.XHDTYPE, GNU__sparse__size="9"), EMPTY], id="holes of the oldest kind"),
        pytest.param([EMPTY, EMPTY], id="the same file twice"),
        pytest.param([member("workspace/z", type=b"Z").tobuf()], id="a kind that is none"),
        pytest.param([member("workspace/a", type=LNK, linkname="workspace/a").tobuf()], id="another name of itself"),
    ],
)
def test_what_a_header_claims_is_refused(tmp_path: Path, blocks: list[bytes]) -> None:
    archive, folder = tmp_path / "a.tar.gz", _folder(tmp_path / "box")
    _written(archive, blocks)
    with pytest.raises(ArchiveRefused):
        restore(archive, folder)
    assert list(folder.iterdir()) == [] and list(tmp_path.glob("out*")) == []


def test_a_list_of_holes_without_end_is_not_read(tmp_path: Path) -> None:
    """In pax's format 1.0 it stands in the content: tarfile would read all of it into one list."""
    archive, folder = tmp_path / "a.tar.gz", _folder(tmp_path / "box")
    content = b"9999999\n" + b"0\n" * 2_000_000
    _written(archive, [words(tarfile.XHDTYPE, **SPARSE), member("workspace/a", size=len(content)).tobuf(), content])
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveRefused, match="holes"):
            restore(archive, folder)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_words_on_members_count_as_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a.tar.gz"
    pieces = [words(tarfile.XHDTYPE, comment="x" * 60_000) + member(f"workspace/{n}").tobuf() for n in range(20)]
    _written(archive, pieces)
    restore(archive, _folder(tmp_path / "box"))
    monkeypatch.setattr("tinyfat.box.state_archive.UNPACKED_BYTES_MAX", 1_000_000)
    with pytest.raises(ArchiveRefused, match="unpacked"):
        restore(archive, _folder(tmp_path / "another"))


def test_the_names_of_folders_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a.tar.gz"
    _written(archive, [member(f"workspace/{n:050}", type=tarfile.DIRTYPE).tobuf() for n in range(20)])
    restore(archive, _folder(tmp_path / "box"))
    monkeypatch.setattr("tinyfat.box.state_archive.FOLDER_NAMES_BYTES_MAX", 1_000)
    with pytest.raises(ArchiveRefused, match="names"):
        restore(archive, _folder(tmp_path / "another"))


def _written(archive: Path, blocks: list[bytes]) -> None:
    with gzip.open(archive, "wb", 1) as file:
        file.write(member("workspace", type=tarfile.DIRTYPE).tobuf())
        for block in blocks:
            file.write(block + bytes(-len(block) % 512))
        file.write(bytes(1024))


def test_the_place_it_goes_to_may_be_a_link(tmp_path: Path) -> None:
    archive, new = tmp_path / "a.tar.gz", _folder(tmp_path / "new")
    pack(filled(tmp_path / "old"), archive)
    (new / "workspace").symlink_to("nowhere")
    (new / "state").symlink_to(_folder(tmp_path / "kept"))
    (tmp_path / "kept/file").write_text("not ours")
    restore(archive, new)
    assert (new / "workspace/run.sh").exists() and not (new / "workspace").is_symlink()
    assert (tmp_path / "kept/file").read_text() == "not ours"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
