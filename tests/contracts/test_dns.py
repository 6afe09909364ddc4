"""What every driver of names must do, on each of them; then what single ones promise besides."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tinyfat.domain.names import TTL_SECONDS, RecordSet, RecordType
from tinyfat.drivers.dns.local import LocalDns
from tinyfat.drivers.dns.memory import DnsLies, MemoryDns
from tinyfat.ports.dns import Dns, DnsRefused, DnsUnreachable

ZONE = "agents.example.org"
ADA = f"ada.{ZONE}"
KEY = "v=DKIM1; k=rsa; p=" + "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" * 12  # over 255 bytes: several strings


@pytest.fixture(params=["memory", "local"])
async def names(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Dns]:
    if request.param == "memory":
        yield MemoryDns(ZONE)
    else:
        yield LocalDns(tmp_path / "home" / "names.json", ZONE)


def a(*values: str, name: str = ADA, ttl: int = TTL_SECONDS) -> RecordSet:
    return RecordSet(name, RecordType.A, tuple(sorted(values)), ttl)


EVERY_KIND = [
    a("192.0.2.1", "192.0.2.2"),
    RecordSet(ADA, RecordType.AAAA, ("2001:db8::1",)),
    RecordSet(f"www.{ZONE}", RecordType.CNAME, (f"ada.{ZONE}.",)),
    RecordSet(ZONE, RecordType.MX, ("10 mail.example.net.", f"20 backup.{ZONE}."), 3600),
    RecordSet(ZONE, RecordType.TXT, ("v=spf1 mx -all",), 3600),
    RecordSet(f"tinyfat._domainkey.{ZONE}", RecordType.TXT, (KEY,), 3600),
    RecordSet(f"quotes.{ZONE}", RecordType.TXT, ('say "hi" \\ there; and more', "second")),
    RecordSet(f"below.{ZONE}", RecordType.NS, ("ns1.example.net.",)),
]


@pytest.mark.parametrize("wanted", EVERY_KIND, ids=lambda one: f"{one.kind} {one.name}")
async def test_what_was_put_is_there_until_removed_each_step_twice(names: Dns, wanted: RecordSet) -> None:
    assert await names.look(wanted.name, wanted.kind) is None
    await names.put(wanted)
    await names.put(wanted)
    assert await names.look(wanted.name, wanted.kind) == wanted
    assert wanted in await names.all()
    await names.remove(wanted.name, wanted.kind)
    await names.remove(wanted.name, wanted.kind)
    assert await names.look(wanted.name, wanted.kind) is None
    assert wanted not in await names.all()


@pytest.mark.parametrize(
    "after",
    [a("192.0.2.9"), a("192.0.2.1"), a("192.0.2.2", "192.0.2.3", "192.0.2.4"), a("192.0.2.1", "192.0.2.2", ttl=300)],
    ids=["another", "fewer", "more", "another time to live"],
)
async def test_the_whole_set_becomes_the_new_one(names: Dns, after: RecordSet) -> None:
    await names.put(a("192.0.2.1", "192.0.2.2"))
    await names.put(after)
    assert await names.look(ADA, RecordType.A) == after
    assert [one for one in await names.all() if one.name == ADA] == [after]


async def test_kinds_and_names_do_not_touch_each_other(names: Dns) -> None:
    others = [RecordSet(ADA, RecordType.AAAA, ("2001:db8::1",)), a("192.0.2.7", name=f"adam.{ZONE}")]
    for one in [a("192.0.2.1"), *others]:
        await names.put(one)
    await names.remove(ADA, RecordType.A)
    for one in others:
        assert await names.look(one.name, one.kind) == one


async def test_names_are_told_apart_by_nothing_but_their_letters(names: Dns) -> None:
    await names.put(RecordSet(f"Ada.{ZONE.upper()}.", RecordType.AAAA, ("2001:DB8:0::1",)))
    assert await names.look(ADA, RecordType.AAAA) == RecordSet(ADA, RecordType.AAAA, ("2001:db8::1",))
    assert await names.look(f"ADA.{ZONE}.", RecordType.AAAA) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        a("192.0.2.1", name="ada.example.net"),
        a("192.0.2.1", name=f"ada{ZONE}"),
        a("2001:db8::1"),
        a(),
        RecordSet(ZONE, RecordType.MX, ("mail.example.net",)),
    ],
    ids=["another zone", "no part of it", "no address", "empty", "no preference"],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(names: Dns, wrong: RecordSet) -> None:
    with pytest.raises(DnsRefused):
        await names.put(wrong)
    assert [one for one in await names.all() if one.name in (wrong.name, ADA)] == []


# What only the file does.


async def test_another_process_sees_at_once_what_was_written(tmp_path: Path) -> None:
    one, two = LocalDns(tmp_path / "names.json", ZONE), LocalDns(tmp_path / "names.json", ZONE)
    for n in range(1, 20):
        wanted = a(f"192.0.2.{n}")
        await (one if n % 2 else two).put(wanted)
        assert await two.look(ADA, RecordType.A) == await one.look(ADA, RecordType.A) == wanted


async def test_many_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    import asyncio

    async def write(n: int) -> None:
        await LocalDns(tmp_path / "names.json", ZONE).put(a(f"192.0.2.{n}", name=f"agent{n}.{ZONE}"))

    await asyncio.gather(*(write(n) for n in range(1, 31)))
    assert len(await LocalDns(tmp_path / "names.json", ZONE).all()) == 30


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    names = LocalDns(tmp_path / "names.json", ZONE)
    await names.put(a("192.0.2.1"))
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(len(LocalDns(tmp_path / "names.json", ZONE).records()))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for n in range(2, 60):
            await names.put(a(f"192.0.2.{n}", name=f"agent{n}.{ZONE}"))
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen) and seen[0] >= 1


async def test_a_file_that_is_none_is_said_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"not": "ours"}))
    names = LocalDns(file, ZONE)
    for call in (names.all(), names.put(a("192.0.2.1")), names.look(ADA, RecordType.A)):
        with pytest.raises(DnsUnreachable, match=r"names\.json"):
            await call
    assert json.loads(file.read_text()) == {"not": "ours"}


# What only the twin does: a provider's lies, told on demand.


async def test_lies_are_used_up() -> None:
    names = MemoryDns(ZONE, DnsLies(put_nothing=1, remove_nothing=1, put_unanswered=1))
    await names.put(a("192.0.2.1"))
    assert await names.look(ADA, RecordType.A) is None
    with pytest.raises(DnsUnreachable):
        await names.put(a("192.0.2.1"))
    assert await names.look(ADA, RecordType.A) == a("192.0.2.1")
    await names.remove(ADA, RecordType.A)
    assert await names.look(ADA, RecordType.A) is not None
    await names.remove(ADA, RecordType.A)
    assert await names.look(ADA, RecordType.A) is None
