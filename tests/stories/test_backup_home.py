"""A home is backed up, lost, and brought back: its agents remember, its mail is there, and it answers."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from tests.running import CommandError, TinyFat, letter
from tests.stories.town import House, Operator, PostOffice, new_id

pytestmark = [pytest.mark.story, pytest.mark.slow]
VERA = "vera@tinyfat.localhost"


async def asked(house: House, text: str) -> None:
    message_id = new_id()
    await house.tinyfat.send(letter(text, to=VERA, message_id=message_id))
    await house.office.reply_to(message_id)


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
async def test_lost_and_brought_back_it_goes_on(tmp_path: Path, running: bool) -> None:
    file = tmp_path / "home.tar"
    async with PostOffice() as office:
        tinyfat = TinyFat(tmp_path / "home", TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}")
        async with tinyfat, Operator(tinyfat) as operator:
            await operator.make_agent("vera")
            await asked(House(tinyfat, office, operator), "Before.")
            if running:
                said = await tinyfat.command("backup", "home", str(file))
                assert "is not in it" in " ".join(said.split())
        if not running:
            assert (await tinyfat.json("backup", "home", str(file)))["machines"] is True
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with pytest.raises(CommandError, match="is there already"):
            await tinyfat.command("backup", "home", str(file))
        with pytest.raises(CommandError, match="is not empty"):
            await tinyfat.command("backup", "restore", str(file))
        kept = {name: (tinyfat.home / name).read_bytes() for name in ("secret.key", "master.key", "host.id")}
        shutil.rmtree(tinyfat.home)
        assert "tinyfat up" in await tinyfat.command("backup", "restore", str(file))
        assert {name: (tinyfat.home / name).read_bytes() for name in kept} == kept
        assert stat.S_IMODE(tinyfat.home.stat().st_mode) == 0o700
        assert not (tmp_path / "home.restoring").exists()
        async with tinyfat, Operator(tinyfat) as operator:
            house = House(tinyfat, office, operator)
            assert [m["subject"] for m in await operator.mail("vera") if m["direction"] == "in"] == ["Hello"]
            await asked(house, "After.")
            assert len(await operator.mail("vera")) == 4


async def test_what_is_no_backup_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    tinyfat = TinyFat(tmp_path / "home")
    for content in (b"", b"no tar", b"x" * 10_240):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(CommandError, match="Nothing was restored"):
            await tinyfat.command("backup", "restore", str(tmp_path / "file"))
    with pytest.raises(CommandError, match="There is no home"):
        await tinyfat.command("backup", "home", str(tmp_path / "new.tar"))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


async def test_a_database_that_was_changed_under_way_is_refused(tmp_path: Path) -> None:
    tinyfat, file = TinyFat(tmp_path / "home"), tmp_path / "home.tar"
    async with tinyfat:
        pass
    assert (await tinyfat.json("backup", "home", str(file)))["bytes"] == file.stat().st_size
    content = bytearray(file.read_bytes())
    content[40_000] ^= 1
    file.write_bytes(content)
    shutil.rmtree(tinyfat.home)
    with pytest.raises(CommandError, match="is not what was backed up"):
        await tinyfat.command("backup", "restore", str(file))
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CommandError, match="Nothing was restored"):
        await tinyfat.command("backup", "restore", str(file))
    assert not tinyfat.home.exists()
