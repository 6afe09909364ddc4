"""`agent export` and `agent destroy --export`: a private file that has it all, or nothing is destroyed."""

from __future__ import annotations

import hashlib
import json
import signal
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest
import pytest_asyncio

from tests.box_processes import box_process
from tests.cli.in_process import command
from tests.running import TinyFat
from tinyfat.cli import agent_export

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tinyfat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TinyFat]:
    async with TinyFat(tmp_path_factory.mktemp("export") / "home") as tinyfat:
        yield tinyfat


def folder_of(tinyfat: TinyFat, name: str) -> Path:
    shown = json.loads(command(tinyfat, "agent", "show", name, "--json").out)
    return tinyfat.home / "machines" / str(shown["machine"]["id"])


def words(text: str) -> str:
    return " ".join(text.split())


async def test_a_copy_of_a_living_agent(tinyfat: TinyFat, tmp_path: Path) -> None:
    await tinyfat.make_agent("ada")
    (folder_of(tinyfat, "ada") / "workspace/notes.md").write_text("what ada knows")
    file = tmp_path / "ada.tar.gz"
    told = json.loads(await tinyfat.command("agent", "export", "ada", str(file), "--json"))
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["bytes"] == file.stat().st_size and stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as tar:
        notes = tar.extractfile("workspace/notes.md")
        assert notes is not None and notes.read() == b"what ada knows"
    assert [path.name for path in tmp_path.iterdir()] == ["ada.tar.gz"]
    assert list((tinyfat.home / "moves").iterdir()) == []
    refused = command(tinyfat, "agent", "export", "ada", str(file))  # what is there stays
    assert refused.code == 2 and "is there already" in words(refused.err)
    nowhere = command(tinyfat, "agent", "export", "ada", str(tmp_path / "no/folder.tar.gz"))
    assert nowhere.code == 2 and "cannot be written" in words(nowhere.err)
    assert command(tinyfat, "agent", "export", "nobody", str(tmp_path / "x")).code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["ada.tar.gz"]


async def test_a_copy_before_the_end(tinyfat: TinyFat, tmp_path: Path) -> None:
    await tinyfat.make_agent("bob")
    folder = folder_of(tinyfat, "bob")
    (folder / "workspace/notes.md").write_text("what bob knows")
    file = tmp_path / "bob.tar.gz"
    said = await tinyfat.command("agent", "destroy", "bob", "--yes", "--export", str(file))
    assert "has the state of bob" in words(said) and "is gone" in words(said)
    assert not folder.exists()
    with tarfile.open(file) as tar:
        assert "workspace/notes.md" in tar.getnames()


async def test_where_the_box_is_silent_nothing_is_destroyed(tinyfat: TinyFat, tmp_path: Path) -> None:
    await tinyfat.make_agent("cal")
    box = box_process(tinyfat.home, folder_of(tinyfat, "cal").name)
    box.send_signal(signal.SIGSTOP)
    try:
        with mock.patch.object(agent_export, "EXPORT_SECONDS_MAX", 2.0):
            ended = command(tinyfat, "agent", "destroy", "cal", "--yes", "--export", str(tmp_path / "cal.tar.gz"))
        assert ended.code == 1 and "Nothing was destroyed. Without --export cal ends" in words(ended.err)
    finally:
        box.send_signal(signal.SIGCONT)
    assert json.loads(command(tinyfat, "agent", "show", "cal", "--json").out)["state"] == "ready"
    assert list(tmp_path.iterdir()) == []
