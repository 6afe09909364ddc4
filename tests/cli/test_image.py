"""`tinyfat image`, as far as it goes without root: what is refused, and what there is at a provider."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.cli.in_process import command
from tests.drivers.hetzner_project import TOKEN, order, project, runs
from tests.machine_speed import patient
from tests.running import TinyFat, free_port, until
from tinyfat.domain.machines import MachineState
from tinyfat.drivers.machines.hetzner.servers import HetznerServers
from tinyfat.image_builds import ImageList
from tinyfat.image_wiring import hetzner
from tinyfat.settings import Settings

SECRET = b"s" * 32
SECONDS = 20.0

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("more", "settings", "code", "words"),
    [
        (("--driver", "process"), {}, 2, "--driver is one of nspawn, local_vm, hetzner, docker"),
        (("--runtime", "other"), {}, 2, "--runtime is one of"),
        (("--driver", "hetzner", "--listen", "nowhere"), {}, 2, "--listen: 'nowhere' is not HOST:PORT"),
        (("--driver", "hetzner", "--url", "http://a:1"), {}, 2, "is not https://HOST:PORT"),
        (("--driver", "hetzner"), {}, 1, "--listen HOST:PORT and --url"),
        (("--driver", "hetzner", "--listen", "127.0.0.1:1"), {}, 1, "--listen HOST:PORT and --url"),
        (("--driver", "hetzner"), {"TINYFAT_BOX_LISTEN": "127.0.0.1:8027"}, 1, "TINYFAT_BOX_URL"),
        (
            ("--driver", "hetzner", "--listen", "127.0.0.1:1", "--url", "https://a:1"),
            {},
            1,
            "TINYFAT_HETZNER_TOKEN is not set",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(
    tmp_path: Path, more: tuple[str, ...], settings: dict[str, str], code: int, words: str
) -> None:
    tinyfat = TinyFat(tmp_path / "home", XDG_CACHE_HOME=str(tmp_path / "cache"), **settings)
    ended = command(tinyfat, "image", "build", *more)
    assert ended.code == code
    assert words in " ".join(ended.err.split())


def test_only_an_image_that_is_there_is_frozen(tmp_path: Path) -> None:
    ended = command(TinyFat(tmp_path / "home", XDG_CACHE_HOME=str(tmp_path / "cache")), "image", "freeze", "nothing")
    assert ended.code == 1
    assert "There is no image nothing: tinyfat image build makes one" in " ".join(ended.err.split())


async def test_what_there_is_at_hetzner_is_listed_and_pruned(tmp_path: Path) -> None:
    async with project(action_seconds=0.01) as here:
        settings = Settings(home=tmp_path, hetzner_token=SecretStr(TOKEN), hetzner_url=f"{here.url}/v1")
        listed = ImageList(settings, "hetzner", lambda: SECRET)
        assert await listed.all() == []
        async with hetzner(settings, SECRET) as servers:
            for name in ("echo-1", "echo-2", "echo-3"):
                await snapshot(servers, name)
                here.pass_time(60.0)
        found = await listed.all()
        assert [image.name for image in found] == ["echo-3", "echo-2", "echo-1"]
        assert all(image.monthly_nanodollars > 0 for image in found)

        assert await listed.prune(1) == (["echo-2", "echo-1"], [])
        assert [image.name for image in await listed.all()] == ["echo-3"]
        other = ImageList(settings, "hetzner", lambda: b"another home")
        assert await other.prune(0) == ([], [])
        assert [image.name for image in await listed.all()] == ["echo-3"]


async def snapshot(servers: HetznerServers, name: str) -> None:
    wanted = order("")
    await runs(servers, wanted)

    async def stopped() -> bool:
        await servers.stop(wanted.id)
        return (await servers.look(wanted.id)).state is MachineState.STOPPED

    async def copied() -> bool:
        return await servers.snapshot(wanted.id, name)

    await until(stopped, SECONDS, "its machine is off")
    await until(copied, SECONDS, f"the image {name} is made")
    await servers.delete(wanted.id)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_build_that_is_told_to_end_leaves_no_server_behind(tmp_path: Path, number: signal.Signals) -> None:
    """In a process of its own, while it waits for a builder that never calls."""
    async with project(action_seconds=0.01) as here:
        tinyfat = TinyFat(
            tmp_path / "home",
            XDG_CACHE_HOME=str(tmp_path / "cache"),
            TINYFAT_HETZNER_TOKEN=TOKEN,
            TINYFAT_HETZNER_URL=f"{here.url}/v1",
        )
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tinyfat", "image", "build", "--driver", "hetzner", "--runtime", "echo"),
            *("--listen", f"127.0.0.1:{port}", "--url", f"https://127.0.0.1:{port}"),
            env=tinyfat.environment,
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )

        async def ordered() -> bool:
            assert process.returncode is None, await process.communicate()
            return bool(here.cloud.servers)

        await until(ordered, 60.0, "a builder is ordered")
        process.send_signal(number)
        async with asyncio.timeout(patient(60.0)):
            _, said = await process.communicate()
        assert process.returncode in (1, 130), said
        assert b"Traceback" not in said
        assert here.cloud.servers == {}
