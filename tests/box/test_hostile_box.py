"""A box whose owner wants everybody else's to stop: for each type of frame the largest and the nastiest body."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from tests.box.hostile import TURN, Served, served
from tests.box.plane import until
from tinyfat.api.box_link import CLOSE_TRY_AGAIN
from tinyfat.api.link_pace import TAKEOVERS_AT_ONCE
from tinyfat.box.build import BUILD, fingerprint
from tinyfat.cli.bounded_websocket import CONTROLS_MAX, FRAGMENTS_MAX
from tinyfat.domain.link import (
    CLOSE_PROTOCOL,
    CLOSE_SUPERSEDED,
    FRAME_BYTES_MAX,
    PIECE_BYTES_MAX,
    PROTOCOL,
    Hello,
    Piece,
    Pieced,
    TurnAnswer,
    TurnOffer,
    TurnSettled,
)
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.link_pieces import headed, joined, pieces
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

pytestmark = pytest.mark.slow

TOO_BIG = 1009  # RFC 6455 section 7.4.1
KINDS = ("hello", "status", "turn_received", "turn_result", "turn_settled", "piece", "pieced", "log", "newer")
BODIES = {
    "lists in a list": lambda size: '"x": [' + "[]," * (size // 3) + "[]]",
    "lists in lists": lambda size: '"x": ' + "[" * (size // 2) + "]" * (size // 2),
    "objects": lambda size: '"x": [' + '{"":0},' * (size // 7) + "0]",
    "one long number": lambda size: '"x": ' + "9" * size,
    "one long text": lambda size: '"text": "' + "\\u0000" * (size // 6) + '"',
    "the field itself": lambda size: '"lines": [' + "[]," * (size // 3) + '[]], "turn_id": [], "result": []',
}


@pytest.fixture
async def plane() -> AsyncIterator[Served]:
    async with served() as one:
        yield one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BODIES)
async def test_nothing_that_a_box_sends_grows_or_stops_others(plane: Served, kind: str, body: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for token, size in (("m1", FRAME_BYTES_MAX - 200), ("m3", 8 * FRAME_BYTES_MAX)):
        async with plane.greeted("m2") as honest, plane.greeted(token) as hostile:
            with suppress(ConnectionClosed):
                for _ in range(3):
                    await hostile.send(f'{{"type": "{kind}", {BODIES[body](size)}}}')
            await plane.heard_status(honest, size)
        assert hostile.close_code in (1000, 1006, CLOSE_PROTOCOL, TOO_BIG)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 64 * FRAME_BYTES_MAX  # it was 27 times the frame before, of 32 MB


async def test_a_compressed_bomb_is_not_unpacked(plane: Served) -> None:
    async with plane.greeted("m1") as box:
        assert box.protocol.extensions == []
    from websockets.asyncio.client import connect

    async with connect(plane.url, additional_headers={"Authorization": "Bearer m1"}, proxy=None) as offering:
        assert offering.protocol.extensions == []  # deflate was offered, and not taken


async def test_a_log_that_is_too_long_is_left_out_and_the_link_stays(plane: Served) -> None:
    async with plane.greeted("m1") as box:
        await box.send('{"type": "log", "lines": [' + "[]," * 50_000 + "[]]}")
        await box.send('{"type": "log", "lines": [{"at": 1, "source": "box", "text": "here"}]}')
        await plane.heard_status(box, 5)
    assert [line.text for line in plane.records.lines] == ["here"]


@pytest.mark.parametrize("turn_id", ["", "1", TURN + "0", "{" + TURN + "}", TURN.upper().replace("4", "A"), "x" * 300])
@pytest.mark.parametrize("kind", ["turn_received", "turn_result", "piece", "pieced"])
async def test_an_id_that_is_none_of_ours_ends_the_link_and_is_never_settled(
    plane: Served, kind: str, turn_id: str
) -> None:
    result = {"outcome": "answered", "text": "x"}
    body = {"turn_id": turn_id, "result": result, "content": ""}
    if kind == "pieced":
        head = {"type": "turn_result", "turn_id": turn_id, "result": result}
        body = {"head": head, "text_bytes": 0, "file_bytes": []}
    async with plane.greeted("m1") as box:
        await box.send(json.dumps({"type": kind, **body}))
        with pytest.raises(ConnectionClosed):
            await box.recv()
    assert box.close_code == CLOSE_PROTOCOL


async def test_an_unknown_token_gets_no_websocket(plane: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with plane.dialled("nobody"):
            pass
    assert refused.value.response.status_code == 403


async def test_of_one_token_one_link_is_read_and_it_is_the_newest(plane: Served) -> None:
    async with plane.greeted("m1") as older, plane.greeted("m1") as newer:
        with pytest.raises(ConnectionClosed):
            await older.recv()
        assert older.close_code == CLOSE_SUPERSEDED
        await plane.heard_status(newer, 3)


async def test_a_link_that_was_superseded_and_stays_is_not_read(plane: Served) -> None:
    async with plane.greeted("m1") as older:
        older.transport.pause_reading()  # it never hears that it is closed
        async with plane.greeted("m1") as newer:
            await older.send('{"type": "status", "state": "ready", "restarts": 666}')
            await plane.heard_status(newer, 4)
            assert all(status.restarts != 666 for _, status in plane.records.statuses)


async def test_two_boxes_with_one_token_do_not_take_turns_at_full_speed(plane: Served) -> None:
    """Each dials again at once; a few times the newer one wins, then the one that is up stays up."""
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(plane.greeted("m1"))
        for _ in range(TAKEOVERS_AT_ONCE):
            up = await stack.enter_async_context(plane.greeted("m1"))
        for _ in range(5):
            other = await stack.enter_async_context(plane.dialled("m1"))
            with pytest.raises(ConnectionClosed):
                await other.recv()
            assert other.close_code == CLOSE_TRY_AGAIN
        await plane.heard_status(up, 9)


async def test_bytes_are_no_frame(plane: Served) -> None:
    async with plane.greeted("m1") as box:
        await box.send(b"\x00" * 100)
        with pytest.raises(ConnectionClosed):
            await box.recv()
    assert box.close_code == CLOSE_PROTOCOL


@pytest.mark.parametrize("first", ['{"type": "status", "state": "ready"}', '{"x": 1, "type": "hello"}', "[]", "hi"])
async def test_the_first_word_is_a_hello(plane: Served, first: str) -> None:
    async with plane.dialled("m1") as box:
        await box.send(first)
        with pytest.raises(ConnectionClosed):
            await box.recv()
    assert box.close_code == CLOSE_PROTOCOL


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param([WireFrame(Opcode.PING, b"x")] * (CONTROLS_MAX + 50), id="pings"),
        pytest.param([WireFrame(Opcode.PONG, b"x")] * (CONTROLS_MAX + 50), id="pongs"),
        pytest.param(
            [WireFrame(Opcode.TEXT, b"", fin=False)] + [WireFrame(Opcode.CONT, b"", fin=False)] * 50_000,
            id="empty fragments",
        ),
        pytest.param(
            [WireFrame(Opcode.TEXT, b"{", fin=False)] + [WireFrame(Opcode.CONT, b" ", fin=False)] * 2 * FRAGMENTS_MAX,
            id="fragments of a byte",
        ),
    ],
)
async def test_a_flood_of_small_wire_frames_ends_the_link(plane: Served, wire: list[WireFrame]) -> None:
    raw = b"".join(frame.serialize(mask=True) for frame in wire)
    async with plane.greeted("m2") as honest, plane.greeted("m1") as box:
        box.transport.write(raw)
        with pytest.raises(ConnectionClosed):
            await box.recv()
        await plane.heard_status(honest, 8)
    assert box.close_code in (1008, 1006)


@pytest.mark.parametrize("token", ["m1", "nobody"])
async def test_frames_that_come_before_the_websocket_is_there_make_no_noise(
    plane: Served, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger may send them, as often as it likes: no stack trace for each."""
    head = (
        "GET /box/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Authorization: Bearer {token}\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for frames in (WireFrame(Opcode.PING, b"").serialize(mask=True) * 1000, b"\xff" * 1000):
        reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
        writer.write(head.encode() + frames)
        with suppress(ConnectionError):
            await reader.read(1)  # an answer, or the end: a box that pings and says nothing else may stay for a minute
        writer.close()
    async with plane.greeted("m2") as honest:
        await plane.heard_status(honest, 7)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_small_messages_in_one_read_all_arrive_in_order(plane: Served) -> None:
    count = 400
    wire = b"".join(
        WireFrame(Opcode.TEXT, b'{"type": "status", "state": "ready", "restarts": %d}' % number).serialize(mask=True)
        for number in range(count)
    )
    async with plane.greeted("m1") as box:
        box.transport.write(wire)
        await plane.heard_status(box, 10_000)
    assert [status.restarts for _, status in plane.records.statuses] == [*range(count), 10_000]


async def test_pieces_of_a_turn_that_nobody_waits_for_are_not_kept(plane: Served) -> None:
    async with plane.greeted("m1") as box:
        for _ in range(20):
            await box.send(encode(Piece(TURN, os.urandom(PIECE_BYTES_MAX))))
        await plane.heard_status(box, 2)
        link = plane.links._links["m1"]
        assert link.spool.size == 0
        head, _ = headed(TurnAnswer(TURN, TurnResult(TurnOutcome.ANSWERED, "x" * 10_000)))
        await box.send(encode(head))
        assert decode(await box.recv()) == TurnSettled(TURN)
    assert plane.turns.results == {}


async def test_more_pieces_than_an_answer_has_end_the_link(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfat.api.link_spool.ANSWER_BYTES_MAX", 300_000)
    plane.turns.open[TURN] = Turn(TURN, "s", "hello", 60.0)
    async with plane.greeted("m1") as box:
        with pytest.raises(ConnectionClosed):
            while True:
                await box.send(encode(Piece(TURN, b"x" * PIECE_BYTES_MAX)))
                await asyncio.sleep(0)
        await box.wait_closed()
    assert box.close_code == CLOSE_PROTOCOL


async def test_an_answer_in_pieces_arrives_whole(plane: Served) -> None:
    files = (Attachment("a.bin", "application/x", os.urandom(3_000_000)), Attachment("b", "text/plain", b""))
    result = TurnResult(TurnOutcome.ANSWERED, "\U0001f600" * 50_000, files, usage={"total": 3})
    plane.turns.open[TURN] = Turn(TURN, "s", "hello", 60.0)
    async with plane.greeted("m1") as box:
        await box.recv()  # the offer
        head, contents = headed(TurnAnswer(TURN, result))
        for content in contents:
            for piece in pieces(TURN, content):
                await box.send(encode(piece))
        await box.send(encode(head))
        assert decode(await box.recv()) == TurnSettled(TURN)
    assert plane.turns.results == {TURN: result}


async def test_a_head_that_does_not_fit_its_pieces_ends_the_link(plane: Served) -> None:
    plane.turns.open[TURN] = Turn(TURN, "s", "hello", 60.0)
    async with plane.greeted("m1") as box:
        await box.recv()
        await box.send(encode(Piece(TURN, b"four")))
        await box.send(encode(Pieced(TurnAnswer(TURN, TurnResult(TurnOutcome.ANSWERED)), 5, ())))
        with pytest.raises(ConnectionClosed):
            await box.recv()
    assert box.close_code == CLOSE_PROTOCOL
    assert plane.turns.results == {}


async def test_a_turn_with_files_goes_in_pieces_and_to_an_earlier_box_in_one_frame(plane: Served) -> None:
    turn = Turn(TURN, "s", "look", 60.0, (Attachment("a.bin", "application/x", os.urandom(400_000)),))
    plane.turns.open[TURN] = turn
    async with plane.greeted("m1") as box:
        blob = b""
        while isinstance(frame := decode(await box.recv()), Piece):
            blob += frame.content
        assert isinstance(frame, Pieced)
        assert joined(frame, blob) == TurnOffer(turn)
    async with plane.greeted("m1", 1) as earlier:
        assert decode(await earlier.recv()) == TurnOffer(turn)


async def test_what_a_box_holds_and_nobody_waits_for_is_settled_at_its_hello(plane: Served) -> None:
    """So an earlier box does not send an answer for ever that is too long for us."""
    other = TURN.replace("1", "2")
    async with plane.greeted("m1", 1, other) as box:
        assert decode(await box.recv()) == TurnSettled(other)


async def test_a_box_of_other_code_is_told_apart_under_the_same_version(plane: Served) -> None:
    for build, outdated in ((BUILD, False), ("0123456789ab", True), ("", True)):
        async with plane.dialled("m1") as box:
            await box.send(encode(Hello(PROTOCOL, "0.1.0", (), build)))
            await box.recv()
            version, is_outdated = plane.links.version_of("m1")
            assert version == (f"0.1.0 ({build})" if build else "0.1.0")
            assert is_outdated is outdated
        await until(lambda: plane.links.version_of("m1") == ("", False), "the link's end")


def test_a_build_is_of_what_ships_and_changes_with_it(tmp_path: Path) -> None:
    for name in ("box/a.py", "domain/b.py", "cli/c.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1\n")
    first = fingerprint(tmp_path)
    (tmp_path / "cli/c.py").write_text("x = 2\n")
    assert fingerprint(tmp_path) == first
    (tmp_path / "domain/b.py").write_text("x = 2\n")
    assert fingerprint(tmp_path) != first
    assert len(BUILD) == 12
