"""Whole answers are in memory until their client has them: all of them together up to a bound, one key's up to half."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.machine_speed import patient
from tests.relay.relays import TestRelay, relaying, target
from tests.relay.test_answers import JSON, SSE, answered_with, asked, head, said, sse, vendor
from tests.running import until
from tinyfat.engine.reading import Reading

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def whole(size: int) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "x" * size}}], "usage": USAGE}).encode()


def answers(relay: TestRelay) -> Reading:
    return relay.server._calls._vendors._answers


async def test_an_answer_beyond_the_bound_is_cut_and_the_next_one_fits() -> None:
    async with answered_with(head(JSON), whole(5_000)) as relay:
        answers(relay).bytes_max = 9_000  # of which one key has half
        status, answer = await asked(relay, stream=False)
        assert status == 502 and b"broke off" in answer
        assert (await relay.ended())[0].settlement.outcome == "cut"
        assert answers(relay).held == 0
        answers(relay).bytes_max = 11_000
        assert (await asked(relay, stream=False))[0] == 200
        assert answers(relay).held == 0


async def test_answers_at_once_share_it() -> None:
    """The second comes while the first is not all there."""
    first_is_there = asyncio.Event()

    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head(JSON) + whole(5_000)[:-1])
        await first_is_there.wait()
        writer.write(b"}")

    async with vendor(speak) as (url, _), relaying({"v": [target(url)]}) as relay:
        answers(relay).bytes_max = 14_000

        async def holds() -> bool:
            return answers(relay).held > 5_000

        first = asyncio.create_task(asked(relay, stream=False))
        await until(holds, patient(10), "the first is read")
        assert (await asked(relay, stream=False))[0] == 502
        first_is_there.set()
        assert (await first)[0] == 200 and answers(relay).held == 0


@pytest.mark.parametrize(
    ("pieces", "stream"),
    [
        ((head(JSON, 429), b'{"error":{"message":"slow down"}}'), False),
        ((head(JSON, 500), b"<html>"), True),
        ((head(JSON), b'{"choices":[{"mess'), False),
        ((head(SSE), sse(said("hi"), {"choices": [], "usage": USAGE}, b"[DONE]")), True),
        ((head(JSON), whole(100)), True),
    ],
    ids=["an error", "no error of theirs", "half an answer", "a stream", "whole where a stream was asked"],
)
async def test_however_it_ends_its_room_is_free_again(pieces: tuple[bytes, ...], stream: bool) -> None:
    async with answered_with(*pieces) as relay:
        await asked(relay, stream=stream)
        assert answers(relay).held == 0 and answers(relay)._owners == {}
