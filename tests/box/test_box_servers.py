"""A box on a server of its own: TLS to a pinned control plane, an identity that changes, a claim from the warm pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.box.boxes import Box
from tests.box.plane import Plane, echo_spec, turn, until
from tinyfat.box.folder import BoxFolder
from tinyfat.domain.link import IdentitySerial, ModelAccess, RuntimeState
from tinyfat.drivers.authorities.tls import ServerTls, TlsAuthority

AUTHORITY = TlsAuthority(b"s" * 32)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    tls = ServerTls(AUTHORITY, ["127.0.0.1"], tmp_path / "tls", datetime.now(UTC))
    async with Plane(tls=tls.context) as plane:
        yield plane


@pytest.fixture
async def box(plane: Plane, tmp_path: Path) -> AsyncIterator[Box]:
    folder = tmp_path / "box"
    wanted = str(tmp_path / "identity-wanted")
    plane.write_box_json(folder, link_ca=AUTHORITY.pem, identity_serial=1, identity_wanted=wanted)
    box = Box(folder)
    yield box
    if box.process is not None and box.process.returncode is None:
        await box.terminate()
    assert box.running() == []


async def test_it_dials_what_its_authority_vouches_for(box: Box, plane: Plane) -> None:
    await box.start()
    await plane.state(RuntimeState.READY)
    await plane.offer(turn("t1", "Hello."))

    assert (await plane.result("t1")).text.startswith("Hello.")


@pytest.mark.parametrize("authority", [TlsAuthority(b"t" * 32).pem, ""], ids=["another", "the system's"])
async def test_it_tells_its_token_to_nobody_else(box: Box, plane: Plane, authority: str) -> None:
    plane.write_box_json(box.folder, link_ca=authority)
    await box.start()

    await until(lambda: "certificate verify failed" in box.log(), "the box's complaint")
    assert plane.tokens == []


async def test_it_asks_root_for_a_newer_identity_alone(box: Box, plane: Plane, tmp_path: Path) -> None:
    wanted = tmp_path / "identity-wanted"
    await box.start()
    await plane.state(RuntimeState.READY)

    await plane.say(IdentitySerial(1))
    await plane.offer(turn("t1", "Are you past that?"))
    await plane.result("t1")
    assert not wanted.exists()

    await plane.say(IdentitySerial(2))
    await until(wanted.exists, "the request for an identity")

    wanted.unlink()
    plane.write_box_json(box.folder, identity_serial=2, identity_wanted=str(wanted))  # root has done it
    await plane.say(IdentitySerial(2))
    await plane.offer(turn("t2", "And now?"))
    await plane.result("t2")
    assert not wanted.exists()


async def test_a_claim_leaves_the_runtime_of_a_waiting_machine_running(box: Box, plane: Plane) -> None:
    plane.spec = replace(echo_spec(), agent_name="")
    plane.write_box_json(box.folder, agent_name="", link_ca=AUTHORITY.pem)
    await box.start()
    await plane.state(RuntimeState.READY)
    before = box.runtime_pid()

    model = ModelAccess("openai-completions", "http://127.0.0.1:9", "the agent's own key", "echo")
    await plane.welcome(replace(plane.spec, agent_name="ada", model=model))
    await plane.offer(turn("t1", "Who are you?"))
    await plane.result("t1")

    assert box.runtime_pid() == before != 0
    saved = BoxFolder(box.folder).load_spec()
    assert saved is not None and saved.agent_name == "ada"


async def test_another_runtime_is_another_runtime(box: Box, plane: Plane) -> None:
    await box.start()
    await plane.state(RuntimeState.READY)
    before = box.runtime_pid()

    await plane.welcome(replace(plane.spec, agent_name="bob", memory_bytes_max=2 * 10**9))
    await until(lambda: box.runtime_pid() not in (0, before), "another process")
