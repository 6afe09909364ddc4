"""A runtime's call from a server elsewhere: its box's forwarder, TLS to the pinned control plane, the relay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from tests.relay.relays import KEY, TestRelay, chat, listening, relaying
from tinyfat.box.forwarder import ModelForwarder
from tinyfat.box.logbook import Logbook
from tinyfat.box.tls import client_context
from tinyfat.domain.link import ModelAccess
from tinyfat.drivers.authorities.tls import ServerTls, TlsAuthority

AUTHORITY = TlsAuthority(b"s" * 32)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[tuple[TestRelay, str]]:
    """The relay, and its address for machines elsewhere."""
    async with relaying() as relay:
        listener = listening()
        await relay.server.listen(listener, ServerTls(AUTHORITY, ["127.0.0.1"], tmp_path, datetime.now(UTC)).context)
        yield relay, f"https://127.0.0.1:{listener.getsockname()[1]}/v1"


async def nobodys(_: str) -> None:
    """A call outside of any turn."""


async def asked(url: str, authority: str, folder: Path) -> tuple[int, str]:
    logbook = Logbook(folder / "box.log")
    forwarder = ModelForwarder("box-token", nobodys, logbook, client_context(authority))
    await forwarder.open(folder / "model.port")
    forwarder.forward_to(ModelAccess("openai-completions", url, KEY, "main"))
    try:
        async with aiohttp.ClientSession() as session:
            own = f"http://127.0.0.1:{forwarder.port}/v1/chat/completions"
            headers = {"authorization": "Bearer box-token"}
            async with session.post(own, data=json.dumps(chat("hello")).encode(), headers=headers) as answer:
                return answer.status, await answer.text()
    finally:
        await forwarder.close()
        logbook.close()


async def test_a_call_comes_through_and_is_counted(relay: tuple[TestRelay, str], tmp_path: Path) -> None:
    served, url = relay

    status, text = await asked(url, AUTHORITY.pem, tmp_path)

    assert status == 200, text
    assert len(await served.ended()) == 1


async def test_the_key_is_told_to_nobody_else(relay: tuple[TestRelay, str], tmp_path: Path) -> None:
    served, url = relay

    status, text = await asked(url, TlsAuthority(b"t" * 32).pem, tmp_path)

    assert (status, "does not answer" in text) == (503, True)
    assert "certificate verify failed" in (tmp_path / "box.log").read_text()
    assert served.ledger.calls == []


async def test_the_plain_address_goes_on_beside_it(relay: tuple[TestRelay, str]) -> None:
    served, _ = relay

    assert (await served.post("/v1/chat/completions", chat("hello")))[0] == 200
