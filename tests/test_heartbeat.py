"""Nothing that a stranger or a box sends holds the loop that everybody shares: each surface gets its largest and its
nastiest body, by no key, by another's and by its own, while a heartbeat is watched on the very loop. `make heartbeat`
sends all of them, `make test` the nastiest of each surface.

A row holds if no beat is late by more than BEAT_SECONDS_MAX, scaled to the machine. Late is what this process worked
meanwhile, not what the clock says: a machine that gives us no processor is not our doing.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine_speed import patient, slowness
from tests.running import OWNER, free_port, surroundings
from tinyfat.api.box_enrol import make_box_app
from tinyfat.cli import up as up_module
from tinyfat.cli.home import Home
from tinyfat.cli.serving_http import http_served
from tinyfat.domain.agents import ANYWHERE, RuntimeKind
from tinyfat.domain.enrolment import ENROL_PATH, IDENTITY_PATH
from tinyfat.domain.link import STATE_PATH
from tinyfat.settings import load_settings
from tinyfat.wiring import World

BEAT_SECONDS_MAX = 0.05
BEAT_SECONDS = 0.005
ANSWER_SECONDS_MAX = 60.0
LINK_SECONDS = 0.25  # a link that is not ended has been read by then
SECRET = "a secret of the heartbeat"
MB = 1_000_000


class Heart:
    """Beats on the loop it is made on."""

    def __init__(self) -> None:
        self.latest = 0.0

    async def beat(self) -> None:
        clock, work = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now, worked = time.perf_counter(), time.process_time()
            self.latest = max(self.latest, min(now - clock, worked - work))
            clock, work = now, worked


@dataclass(frozen=True)
class Town:
    """Where the surfaces are, and the keys to them."""

    http: int
    boxes: int
    relay: int
    smtp: int
    operator: str
    machine: str
    model: str


Sent = tuple[int, list[bytes]]  # the port, and what is sent there: each once the one before was answered
Row = Callable[[Town, str], Sent]  # by a key
HEARD = (
    b"HTTP/1.1 2",
    b"HTTP/1.1 4",
    b" 101 ",
    b"250 2.0.0 Ok: kept",
    b"250 SMTPUTF8",
    b"221 Bye",  # behind many commands
    b"421 4.7.0 RSET",
)  # each row has one: it did arrive
KEYS = {"none": "", "another's": "b" * 43, "its own": "own"}


def _post(path: str, key: str, body: bytes, method: str = "POST", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _json(size: int, unit: bytes = b"[],", head: bytes = b"[", tail: bytes = b"[]]") -> bytes:
    return head + unit * (size // len(unit)) + tail


def _chat(size: int, unit: bytes) -> bytes:
    return _json(size, unit, b'{"model":"main","stream_options":{},"messages":[', b'{"role":"user","content":"x"}]}')


def _frame(payload: bytes) -> bytes:
    """A WebSocket's handshake and one text frame, its mask all zeros."""
    return struct.pack("!BBQI", 0x81, 0xFF, len(payload), 0) + payload


def _link(size: int, unit: bytes, head: bytes, tail: bytes) -> Row:
    def row(town: Town, key: str) -> Sent:
        token = town.machine if key == "own" else key
        upgrade = (
            f"GET /box/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {token}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        return town.http, [upgrade.encode(), _frame(_json(size, unit, head, tail))]

    return row


def _api(body: Callable[[], bytes]) -> Row:
    return lambda town, key: (town.http, [_post("/api/agents", town.operator if key == "own" else key, body())])


def _relay(path: str, body: Callable[[], bytes]) -> Row:
    return lambda town, key: (town.relay, [_post(path, town.model if key == "own" else key, body())])


def _boxes(path: str, body: Callable[[], bytes]) -> Row:
    return lambda town, key: (town.boxes, [_post(path, town.machine if key == "own" else key, body())])


def _state(town: Town, key: str) -> Sent:
    path = f"{STATE_PATH}/00000000-0000-0000-0000-000000000000"
    return town.http, [_post(path, town.machine if key == "own" else key, bytes(32 * MB), "PUT")]


def _standin(town: Town, key: str) -> Sent:
    return town.http, [_post("/standin/model/v1/chat/completions", key, _chat(256_000, b'{"a":[]},'))]


HEAD = f"From: {OWNER}\r\nTo: ada@tinyfat.localhost\r\nSubject: x\r\n".encode()
HTML = b"Content-Type: text/html\r\n\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=x; h=from:to:subject; "
    b"bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
)
BYTES = bytes(byte for byte in range(256) if byte not in b"\r\n")
MAILS: dict[str, Callable[[], bytes]] = {
    "lists": lambda: HEAD + HTML + b"<ul>" * 900 + b"<li>x\r\n" * 40_000,
    "small lists": lambda: HEAD + HTML + b"<ul>" * 300 + b"<li>x\r\n" * 4_000,
    "short lines": lambda: HEAD + b"\r\n" + b"a\r\n" * 1_000_000,
    "dots": lambda: HEAD + b"\r\n" + b"..\r\n" * 1_000_000,
    "fields of parts": lambda: HEAD + MIXED + (b"--b\r\n" + b"a:\r\n" * 5_000) * 100,
    "every byte": lambda: HEAD + b"\r\n" + (BYTES + b"\r\n") * 40_000,
    "signed spaces": lambda: HEAD.replace(b"From", SIGNED + b"From") + b"\r\n" + b" a \t\r\n" * 500_000,
}


def _smtp(mail: Callable[[], bytes]) -> Row:
    def row(town: Town, key: str) -> Sent:
        sender = OWNER if key == "own" else f"{key[:5] or 'x'}@elsewhere.example"
        head = f"EHLO peer.example\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<ada@tinyfat.localhost>\r\nDATA\r\n"
        return town.smtp, [head.encode(), mail() + b"\r\n.\r\nQUIT\r\n"]

    return row


def _inbound(mail: Callable[[], bytes]) -> Row:
    def row(town: Town, key: str) -> Sent:
        raw, at, to = mail(), str(int(time.time())), "ada@tinyfat.localhost"
        signed = f"{at}\n{OWNER}\n{to}\n\n\n".encode() + raw
        secret = SECRET if key == "own" else key
        signature = "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        headers = {"TinyFat_Mail_From": OWNER, "TinyFat_Rcpt_To": to, "TinyFat_Timestamp": at}
        return town.http, [_post("/mail/inbound", "", raw, **headers, TinyFat_Signature=signature)]

    return row


def _lines(lines: bytes) -> Row:
    """Commands that come in one piece, and what else a stranger may say before a mail."""
    return lambda town, key: (town.smtp, [b"EHLO x\r\nMAIL FROM:<x@x.example>\r\n" + lines + b"QUIT\r\n"])


COMMANDS: dict[str, Row] = {
    "SMTP, RSET": _lines(b"RSET\r\n" * 30_000),
    "SMTP, recipients": _lines(b"RCPT TO:<ada@tinyfat.localhost>\r\n" * 4_000),
    "SMTP, nonsense": _lines(b"\r\n" * 100_000),
    "SMTP, addresses": _lines((b"RSET\r\nMAIL FROM:<" + b"a.(" * 140 + b">\r\n") * 2_000),
}


def _chunks(port: str, path: str) -> Row:
    """A body in chunks of one byte."""

    def row(town: Town, key: str) -> Sent:
        own = town.model if port == "relay" else town.operator
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        named = f"Authorization: Bearer {own if key == 'own' else key}\r\n\r\n"
        return getattr(town, port), [(head + named).encode() + b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n"]

    return row


def _deep(size: int) -> bytes:
    return b"[" * (size // 2) + b"]" * (size // 2)


INPUT = b'{"model":"main","input":['
TEXT = json.dumps({"model": "main", "messages": [{"role": "user", "content": "word " * (6 * MB // 5)}]}).encode()


def _relay_rows(size: int) -> dict[str, Row]:
    """Of a quarter of its size each holds a loop for seconds where it is read on it."""
    return {
        "the relay, objects": _relay("/v1/chat/completions", lambda: _chat(size, b'{"a":1},')),
        "the relay, lists": _relay("/v1/chat/completions", lambda: _chat(size, b"[],")),
        "the relay, deep": _relay("/v1/chat/completions", lambda: _deep(size)),
        "the relay, messages": _relay("/v1/messages", lambda: _chat(size, b'{"role":"user","content":[]},')),
        "the relay, counting": _relay("/v1/messages/count_tokens", lambda: _chat(size, b"[],")),
        "the relay, responses": _relay("/v1/responses", lambda: _json(size, b"[],", INPUT, b"[]]}")),
        "the relay, embeddings": _relay("/v1/embeddings", lambda: _json(size, b'"a",', INPUT, b'""]}')),
    }


ROWS: dict[str, Row] = {
    "the operator's API, lists": _api(lambda: _json(32 * MB)),
    "the operator's API, its largest": _api(lambda: _json(64_000)),
    "the operator's API, deep": _api(lambda: _deep(64_000)),
    "the stand-in": _standin,
    "a state": _state,
    "an enrolment, lists": _boxes(ENROL_PATH, lambda: _json(8 * MB)),
    "an enrolment, its largest": _boxes(ENROL_PATH, lambda: _json(4_000)),
    "an identity's outcome": _boxes(IDENTITY_PATH, lambda: _json(4_000)),
    "the link, lists": _link(8 * MB, b"[],", b'{"type":"log","lines":[', b"[]]}"),
    "the link, its largest log": _link(250_000, b"[],", b'{"type":"log","lines":[', b"[]]}"),
    "the link, its largest status": _link(250_000, b'{"a":1},', b'{"type":"status","x":[', b"{}]}"),
    "the link, its largest answer": _link(250_000, b"[],", b'{"type":"answer","turn":"x","result":[', b"[]]}"),
    **_relay_rows(8 * MB),
    "the relay, text": _relay("/v1/chat/completions", lambda: TEXT),
    "the relay, chunks": _chunks("relay", "/v1/chat/completions"),
    "the operator's API, chunks": _chunks("http", "/api/agents"),
    **COMMANDS,
    **{f"SMTP, {name}": _smtp(mail) for name, mail in MAILS.items()},
    **{f"mail by HTTP, {name}": _inbound(mail) for name, mail in MAILS.items()},
}  # fmt: skip
# Of each surface what came nearest to the bound, by the key that opens most: what `make test` has time for.
NASTIEST: dict[str, Row] = {
    **{
        name: row for name, row in _relay_rows(MB // 2).items()
        if name in ("the relay, objects", "the relay, messages", "the relay, responses")
    },
    **{
        name: ROWS[name]
        for name in (
            "the operator's API, lists", "the operator's API, deep", "the stand-in", "a state", "an enrolment, lists",
            "an identity's outcome", "the link, its largest log", "the relay, deep", "the relay, text",
            "SMTP, dots", "SMTP, every byte", "SMTP, small lists", "SMTP, RSET",
            "SMTP, recipients", "SMTP, addresses", "the relay, chunks",
            "mail by HTTP, dots", "mail by HTTP, signed spaces",
        )
    },
}  # fmt: skip


def _send(sent: Sent) -> bytes:
    """In a thread of its own. What was heard until the other side ended; the tail of a link is silence."""
    port, parts = sent
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patient(ANSWER_SECONDS_MAX)) as peer, suppress(OSError):
        for part in parts:
            with suppress(OSError):
                for start in range(0, len(part), MB):
                    peer.sendall(part[start : start + MB])
            if part is not parts[-1]:
                said += peer.recv(65536)
        if b" 101 " in said:
            peer.settimeout(LINK_SECONDS)
        while piece := peer.recv(65536):
            said += piece
    return said


@asynccontextmanager
async def _running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """All of `tinyfat up` on this loop, with one agent."""
    ports = [free_port() for _ in range(4)]
    for name in set(os.environ) - set(surroundings()):
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "HTTP_LISTEN": f"127.0.0.1:{ports[0]}",
        "RELAY_LISTEN": f"127.0.0.1:{ports[1]}",
        "SMTP_LISTEN": f"127.0.0.1:{ports[2]}",
        "INBOUND_SECRET": SECRET,
        "MACHINE": "process",
    }.items():
        monkeypatch.setenv(f"TINYFAT_{name}", value)
    made: list[World] = []
    stop = asyncio.Event()

    class Watched(World):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(up_module, "World", Watched)
    monkeypatch.setattr(up_module, "spare_the_collector", gc.freeze)
    settings = load_settings()
    running = asyncio.create_task(up_module.up(settings, stop))
    try:
        async with asyncio.timeout(patient(120)):
            while not (made and Home(settings.home).running()):
                if running.done():
                    running.result()
                await asyncio.sleep(0.05)
        world = made[0]
        agent = await world.agents.create("ada", OWNER, RuntimeKind.ECHO, "process", ANYWHERE)
        await world.engine.start("provision", f"provision:{agent.id}", agent.id)
        async with asyncio.timeout(patient(120)):
            while (await world.agents.get(agent.id)).state != "ready":
                await asyncio.sleep(0.05)
        machine = await world.records.of_agent(agent.id)
        assert machine is not None
        access = await world.agent_models.access(agent.id, machine.id, "http://x")
        listener = socket.create_server(("127.0.0.1", ports[3]))
        boxes = make_box_app(_NoLinks(), world.enrolments, world.identities, {}, world.reading)
        async with http_served("boxes", boxes, listener):
            token = Home(settings.home).operator_token()
            yield Town(ports[0], ports[3], ports[1], ports[2], token, world.orders.token(machine.id), access.key)
    finally:
        stop.set()
        await running
        gc.unfreeze()


class _NoLinks:
    async def serve(self, socket: Any) -> None:
        raise AssertionError("boxes of servers are not linked here")


def _timed(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Hypothesis listens to the collector: to call it, a thread in the middle of C gives the lock away."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_loop_that_is_held_is_seen() -> None:
    """By work on it, and by a thread that keeps the interpreter's lock."""
    raw = _json(MB)
    alone = min(_timed(lambda: json.loads(raw)) for _ in range(3))
    for work in (lambda: json.loads(raw), lambda: asyncio.to_thread(json.loads, raw)):
        heart = Heart()
        beating = asyncio.create_task(heart.beat())
        await asyncio.sleep(4 * BEAT_SECONDS)
        if asyncio.iscoroutine(done := work()):
            await done
        await asyncio.sleep(4 * BEAT_SECONDS)
        beating.cancel()
        assert heart.latest > alone / 4


async def _gap(heart: Heart, sent: Sent) -> tuple[float, bytes]:
    """The latest beat while it was sent and answered; what was heard."""
    await asyncio.sleep(4 * BEAT_SECONDS)
    heart.latest = 0.0
    said = await asyncio.to_thread(_send, sent)
    return heart.latest, said


async def _late(town: Town, rows: dict[str, Row], keys: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Beats that were later than they may be, by row and key; and what did not arrive."""
    bound = BEAT_SECONDS_MAX * slowness()
    late: dict[str, float] = {}
    unheard: list[str] = []
    heart = Heart()
    beating = asyncio.create_task(heart.beat())
    for name, row in rows.items():
        for whose in keys:
            if name.startswith("SMTP") and whose == "another's":
                continue  # there are no keys
            sent = await asyncio.to_thread(row, town, KEYS[whose])
            gap, said = await _gap(heart, sent)
            if gap > bound:  # once more: a collection of garbage, a page of the disk come once
                gap, said = min((gap, said), await _gap(heart, sent))
            if gap > bound:
                late[f"{name}, {whose}"] = round(gap, 3)
            if not any(word in said for word in HEARD):
                unheard.append(f"{name}, {whose}: {said[-80:]!r}")
    beating.cancel()
    return late, unheard


@pytest.mark.story
async def test_the_nastiest_of_each_surface_does_not_hold_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _running(tmp_path, monkeypatch) as town:
        assert await _late(town, NASTIEST, ["its own"]) == ({}, [])


@pytest.mark.heartbeat
async def test_nothing_that_is_sent_holds_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _running(tmp_path, monkeypatch) as town:
        assert await _late(town, ROWS, list(KEYS)) == ({}, [])
