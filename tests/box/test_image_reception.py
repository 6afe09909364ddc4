"""The reception that machines of an image's making call: a real box, over TLS, from enrolment to the seal."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.box.boxes import Box
from tests.box.enrolling import Commands
from tests.running import until
from tinyfat.api.image_reception import ImageReception
from tinyfat.box.baked import pack
from tinyfat.box.become import Machine
from tinyfat.box.enrol import EXIT_AGAIN, EXIT_REFUSED, main
from tinyfat.cli.imaging import served_reception
from tinyfat.domain.enrolment import (
    BOX_STATE_FOLDER,
    CONTROL_CA_FILE,
    ENROL_FILE,
    NODE_FOLDER,
    RUNTIMES_FOLDER,
    STATE_FOLDER,
)
from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import MachineOrder
from tinyfat.domain.turns import TurnOutcome
from tinyfat.image_wiring import Door, Elsewhere, ReceptionTerms, reception_terms
from tinyfat.listen_address import Address
from tinyfat.settings import Settings

SECONDS = 20.0
MACHINE_ID = "3f1f0f5e-0000-4000-8000-000000000002"


@pytest.fixture
def runtime_archive(tmp_path: Path) -> tuple[str, Path]:
    """(SHA-256, file) of something that has the shape of node and a runtime."""
    source, file = tmp_path / "source", tmp_path / "runtime.tar.gz"
    for path in ("bin/node", "node_modules/openclaw/openclaw.mjs"):
        (source / path).parent.mkdir(parents=True)
        (source / path).write_text(path)
    (source / "bin/node").chmod(0o755)
    (source / "node_modules/.bin").symlink_to("openclaw")
    laid = [
        (f"{NODE_FOLDER}/24.1.0/bin", source / "bin"),
        (f"{RUNTIMES_FOLDER}/openclaw-1-2/node_modules", source / "node_modules"),
    ]
    return pack(laid, file), file


@pytest.fixture
async def opened(
    tmp_path: Path, runtime_archive: tuple[str, Path]
) -> AsyncIterator[tuple[ImageReception, ReceptionTerms]]:
    sha256, file = runtime_archive
    settings = Settings(home=tmp_path / "home")
    async with AsyncExitStack() as stack:
        door = Door(Address("127.0.0.1", 0), "https://127.0.0.1:{PORT}")
        terms = await stack.enter_async_context(reception_terms(settings, door, Elsewhere(runtimes={sha256: file})))
        yield await stack.enter_async_context(served_reception(terms)), terms


def laid(root: Path, order: MachineOrder) -> Machine:
    """As user-data leaves it."""
    made = Machine(root, Commands(), pwd.getpwuid(os.geteuid()).pw_name)
    server = order.server
    assert server is not None
    said = {"control_url": server.control_url, "machine_id": order.id, "enrolment_token": server.enrolment_token}
    for path, text in ((ENROL_FILE, json.dumps(said)), (CONTROL_CA_FILE, server.control_ca)):
        made.path(path).parent.mkdir(parents=True, exist_ok=True)
        made.path(path).write_text(text)
    for folder in (STATE_FOLDER, NODE_FOLDER, RUNTIMES_FOLDER):
        made.path(folder).mkdir(parents=True)
    return made


def _true(condition: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return bool(condition())

    return look


async def boxed(made: Machine) -> Box:
    """Its box, as a process of ours: what is absolute in its identity leads into the folder."""
    folder = made.path(BOX_STATE_FOLDER)
    body = json.loads((folder / "box.json").read_text())
    for name in ("shared_folder", "identity_wanted"):
        body[name] = str(made.path(body[name]))
    (folder / "box.json").write_text(json.dumps(body))
    box = Box(folder)
    await box.start()
    return box


async def test_a_machine_enrols_its_agent_answers_and_it_is_told_to_forget(
    tmp_path: Path, opened: tuple[ImageReception, ReceptionTerms]
) -> None:
    reception, _ = opened
    order = reception.expect(MACHINE_ID, "echo", "image")
    assert order.server is not None and order.server.makes == "image"  # it is tried
    made = laid(tmp_path / "m", order)
    assert await asyncio.to_thread(main, made) == 0
    box = await boxed(made)
    try:

        async def ready() -> bool:
            return reception.status is not None and reception.status.state is RuntimeState.READY

        await until(ready, SECONDS, "the box says that its runtime is ready")
        await reception.ask("t1", "From: us\nSubject: Hello\n\nIs anybody there?")
        await until(_true(lambda: reception.result), SECONDS, "the answer")
        assert reception.result is not None
        assert reception.result.outcome is TurnOutcome.ANSWERED
        assert "Is anybody there?" in reception.result.text
        await reception.seal()
        wanted = made.path(f"{STATE_FOLDER}/identity-wanted")
        await until(_true(wanted.exists), SECONDS, "the box asks root for the identity that says so")
    finally:
        await box.terminate()
    made.path("/etc/machine-id").write_text("1\n")
    assert await asyncio.to_thread(main, made) == 0
    assert "systemctl --no-block poweroff" in made.command.taken()  # type: ignore[attr-defined]
    assert not made.path(ENROL_FILE).exists()


async def test_node_and_the_runtime_are_there_before_the_box_starts(
    tmp_path: Path, opened: tuple[ImageReception, ReceptionTerms], runtime_archive: tuple[str, Path]
) -> None:
    reception, _ = opened
    order = reception.expect(MACHINE_ID, "openclaw", "", runtime_archive[0], makes="openclaw-1")
    assert order.server is not None and (order.server.image, order.server.makes) == ("", "openclaw-1")
    made = laid(tmp_path / "m", order)
    for _ in range(2):  # the second time it has them already
        assert await asyncio.to_thread(main, made) == 0
        node = made.path(f"{NODE_FOLDER}/current/bin/node")
        assert (node.read_text(), node.stat().st_mode & 0o777) == ("bin/node", 0o755)
        installed = made.path(f"{RUNTIMES_FOLDER}/openclaw-1-2/node_modules")
        assert (installed / ".bin/openclaw.mjs").read_text() == "node_modules/openclaw/openclaw.mjs"
        runtime_archive[1].unlink(missing_ok=True)


async def test_another_archive_than_was_named_is_not_unpacked(
    tmp_path: Path, opened: tuple[ImageReception, ReceptionTerms], runtime_archive: tuple[str, Path]
) -> None:
    reception, _ = opened
    runtime_archive[1].write_bytes(b"something else")
    made = laid(tmp_path / "m", reception.expect(MACHINE_ID, "openclaw", "", runtime_archive[0]))
    assert await asyncio.to_thread(main, made) == EXIT_AGAIN
    assert list(made.path(NODE_FOLDER).iterdir()) == []
    assert list(made.path(RUNTIMES_FOLDER).iterdir()) == []


async def test_whoever_is_not_awaited_gets_nothing(
    tmp_path: Path, opened: tuple[ImageReception, ReceptionTerms], runtime_archive: tuple[str, Path]
) -> None:
    reception, terms = opened
    before = laid(tmp_path / "before", reception.expect("another", "echo", ""))
    reception.expect(MACHINE_ID, "echo", "")
    assert await asyncio.to_thread(main, before) == EXIT_REFUSED
    trust = ssl.create_default_context(cadata=terms.authority_pem)
    async with httpx2.AsyncClient(base_url=terms.control_url, verify=trust, trust_env=False) as http:
        for path in ("/box/identity", f"/box/runtime/{runtime_archive[0]}", "/model/v1/models"):
            for headers in ({}, {"Authorization": "Bearer guessed"}):
                assert (await http.get(path, headers=headers)).status_code == 401, path
