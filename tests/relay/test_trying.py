"""An owner's key is tried by one real call: what works, what does not, and that no complaint repeats it."""

from __future__ import annotations

import json

import pytest

from tests.store.ledgers import PRICE
from tinyfat.domain.prices import PriceList
from tinyfat.drivers.inference.memory import MemoryInference, Scripted, Unreachable
from tinyfat.ports.inference import Api, Target
from tinyfat.relay.trying import try_key

KEY = "sk-planted-owner-key-123"
OPENAI = Target("openai", "m1", "http://vendor/v1", Api.OPENAI, PriceList(PRICE))
CLAUDE = Target("anthropic", "m2", "http://vendor", Api.ANTHROPIC, PriceList(PRICE))
CHAT, MESSAGES = "http://vendor/v1/chat/completions", "http://vendor/v1/messages"


async def test_a_key_that_is_answered_is_fine() -> None:
    vendors = MemoryInference({CHAT: [Scripted(pieces=[b"{}"])], MESSAGES: [Scripted(pieces=[b"{}"])]})
    assert await try_key(vendors, OPENAI, KEY) == "" == await try_key(vendors, CLAUDE, KEY)
    chat, messages = vendors.calls
    assert chat.headers["authorization"] == f"Bearer {KEY}" and json.loads(chat.body)["model"] == "m1"
    assert messages.headers["x-api-key"] == KEY and json.loads(messages.body)["max_tokens"] > 0
    assert messages.headers["anthropic-version"] and vendors.closed == 2


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
async def test_a_refused_key_is_refused_in_the_vendors_words_without_the_key(status: int) -> None:
    said = json.dumps({"error": {"message": f"Incorrect API key: {KEY}."}}).encode()
    complaint = await try_key(MemoryInference({CHAT: [Scripted(status, pieces=[said])]}), OPENAI, KEY)
    assert str(status) in complaint and "Incorrect API key: ***" in complaint and KEY not in complaint


@pytest.mark.parametrize("body", [b"", b"not json", b'{"error": 1}', b"[]", b"\xff" * 10, b"x" * 10**6, b"[" * 100000])
async def test_whatever_a_vendor_says_is_survived(body: bytes) -> None:
    complaint = await try_key(MemoryInference({CHAT: [Scripted(401, pieces=[body])]}), OPENAI, KEY)
    assert complaint.startswith("openai does not take this key: it answered 401")


@pytest.mark.parametrize("script", [Unreachable(), Scripted(pieces=[b"{"], cut=True)])
async def test_a_key_that_could_not_be_tried_is_not_fine(script: Scripted | Unreachable) -> None:
    assert "could not be tried" in await try_key(MemoryInference({CHAT: [script]}), OPENAI, KEY)
