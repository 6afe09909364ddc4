"""What every driver of names must do, on each of them; then what single ones promise besides."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import dns.asyncquery
import dns.message
import pytest

from tests.drivers.hetzner_project import Project, project
from tests.machine_speed import patient
from tests.running import free_port
from tinyfat.dns_server.answering import ServedZone
from tinyfat.dns_server.serving import dns_served
from tinyfat.domain.names import TTL_SECONDS, RecordSet, RecordType
from tinyfat.drivers.dns.cloudflare import CloudflareDns
from tinyfat.drivers.dns.hetzner import HetznerDns
from tinyfat.drivers.dns.local import LocalDns
from tinyfat.drivers.dns.memory import DnsLies, MemoryDns
from tinyfat.drivers.hetzner_cloud import HetznerCloud
from tinyfat.ports.dns import Dns, DnsRefused, DnsUnreachable
from tinyfat.standins.cloudflare.server import Account, cloudflare_app
from tinyfat.standins.lies import Lies, read_lie
from tinyfat.standins.serving import served

T = TypeVar("T")

ZONE = "agents.example.org"
ADA = f"ada.{ZONE}"
KEY = "v=DKIM1; k=rsa; p=" + "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" * 12  # over 255 bytes: several strings


DNS_TOKEN = "cloudflare-token-PLANTED-90aa"


@asynccontextmanager
async def at_hetzner(*lies: str, seed: int = 0) -> AsyncIterator[tuple[Dns, Project]]:
    async with project(seed=seed) as here:
        await here.connection().call("make the zone", lambda client: client.zones.create(name=ZONE, mode="primary"))
        here.lie(*lies)
        yield HetznerDns(here.connection(), ZONE), here


@asynccontextmanager
async def at_cloudflare(*lies: str, seed: int = 0) -> AsyncIterator[tuple[Dns, Account]]:
    account = Account(lies=Lies([read_lie(lie, "dns_records") for lie in lies], seed), token=DNS_TOKEN)
    account.add_zone("example.net")
    account.add_zone(ZONE)
    async with served(cloudflare_app(account)) as url:
        yield CloudflareDns(DNS_TOKEN, ZONE, f"{url}/client/v4"), account


@pytest.fixture(params=["memory", "local", "hetzner", "cloudflare"])
async def names(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Dns]:
    async with AsyncExitStack() as stack:
        match request.param:
            case "memory":
                yield MemoryDns(ZONE)
            case "local":
                yield LocalDns(tmp_path / "home" / "names.json", ZONE)
            case "hetzner":
                yield (await stack.enter_async_context(at_hetzner()))[0]
            case "cloudflare":
                yield (await stack.enter_async_context(at_cloudflare()))[0]


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


@pytest.mark.parametrize("wanted", EVERY_KIND, ids=lambda one: f"{one.kind} {one.name}")
async def test_whatever_stands_at_a_name_is_seen_there_and_nowhere_else(names: Dns, wanted: RecordSet) -> None:
    before = await names.kinds_at(wanted.name)  # a zone may have its own name servers from the start
    await names.put(wanted)
    assert set(await names.kinds_at(wanted.name.upper())) == {*before, str(wanted.kind)}
    assert await names.kinds_at(f"not-{ADA}") == [] == await names.kinds_at(f"below.{ADA}")
    await names.remove(wanted.name, wanted.kind)
    assert await names.kinds_at(wanted.name) == before


async def test_a_wildcard_stands_at_no_other_name(names: Dns) -> None:
    await names.put(a("192.0.2.1", name=f"*.{ZONE}"))
    assert await names.kinds_at(ADA) == []


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
    before = await names.all()
    with pytest.raises(DnsRefused):
        await names.put(wrong)
    assert await names.all() == before


# What only the file does.


async def test_another_process_sees_at_once_what_was_written(tmp_path: Path) -> None:
    one, two = LocalDns(tmp_path / "names.json", ZONE), LocalDns(tmp_path / "names.json", ZONE)
    for n in range(1, 20):
        wanted = a(f"192.0.2.{n}")
        await (one if n % 2 else two).put(wanted)
        assert await two.look(ADA, RecordType.A) == await one.look(ADA, RecordType.A) == wanted


async def test_many_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
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


async def test_our_own_server_answers_with_what_the_file_says(tmp_path: Path) -> None:
    names = LocalDns(tmp_path / "names.json", ZONE)
    zones = [ServedZone(ZONE, names.records)]
    async with dns_served(lambda: zones, "127.0.0.1", 0) as port:
        for wanted in EVERY_KIND:
            await names.put(wanted)
        for wanted in EVERY_KIND:
            query = dns.message.make_query(wanted.name, str(wanted.kind))
            answer, _ = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", port=port, timeout=patient(5))
            records = [one for rrset in [*answer.answer, *answer.authority] for one in rrset if rrset.ttl == wanted.ttl]
            assert len(records) >= len(wanted.values), wanted
        await names.remove(ADA, RecordType.A)
        query = dns.message.make_query(ADA, "A")
        assert (await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=patient(5))).answer == []


# What vendors' drivers do besides.


VENDORS = [pytest.param(at_hetzner, id="hetzner"), pytest.param(at_cloudflare, id="cloudflare")]


@pytest.mark.parametrize("at_vendor", VENDORS)
@pytest.mark.parametrize("seed", range(4))
async def test_one_in_five_answers_lost_the_set_is_right_in_the_end(at_vendor: Any, seed: int) -> None:
    async with at_vendor("error-500", seed=seed) as (names, _):
        for wanted in (a("192.0.2.1"), a("192.0.2.2", "192.0.2.3"), a("192.0.2.3", ttl=300)):
            await insist(lambda wanted=wanted: names.put(wanted))
            assert await insist(lambda: names.look(ADA, RecordType.A)) == wanted
        await insist(lambda: names.remove(ADA, RecordType.A))
        assert await insist(lambda: names.look(ADA, RecordType.A)) is None


@pytest.mark.parametrize("at_vendor", VENDORS)
async def test_a_record_whose_answer_was_lost_is_there_once(at_vendor: Any) -> None:
    async with at_vendor("create-504:zones=1", "create-504:dns_records=1") as (names, _):
        await insist(lambda: names.put(a("192.0.2.1")))
        assert [one for one in await names.all() if one.name == ADA] == [a("192.0.2.1")]


@pytest.mark.parametrize("at_vendor", VENDORS)
async def test_over_the_limit_nothing_is_known(at_vendor: Any) -> None:
    async with at_vendor("rate-limited") as (names, _):
        with pytest.raises(DnsUnreachable):
            await names.look(ADA, RecordType.A)


@pytest.mark.parametrize("at_vendor", VENDORS)
async def test_many_names_are_all_listed(at_vendor: Any) -> None:
    async with at_vendor() as (names, _):
        wanted = [a("192.0.2.1", name=f"agent{n}.{ZONE}") for n in range(130)]
        for one in wanted:
            await names.put(one)
        assert [one for one in await names.all() if one.kind is RecordType.A] == wanted


async def test_a_wrong_token_is_refused_and_never_shown() -> None:
    async with at_cloudflare() as (_, account):
        account.token = "another"
        async with served(cloudflare_app(account)) as url:
            with pytest.raises(DnsRefused, match="TINYFAT_DNS_TOKEN") as refused:
                await CloudflareDns(DNS_TOKEN, ZONE, f"{url}/client/v4").put(a("192.0.2.1"))
            assert "PLANTED" not in str(refused.value)
    async with at_hetzner() as (_, here):
        with pytest.raises(DnsRefused, match="TINYFAT_HETZNER_TOKEN") as refused:
            await HetznerDns(here.connection("wrong-PLANTED"), ZONE).put(a("192.0.2.1"))
        assert "PLANTED" not in str(refused.value)


async def test_a_zone_that_is_not_there_is_said_and_a_name_that_is_not_is_none() -> None:
    async with at_hetzner() as (_, here):
        elsewhere: Dns = HetznerDns(here.connection(), "example.com")
        await refuses_everything(elsewhere, "no zone example.com")
    async with at_cloudflare() as (_, account), served(cloudflare_app(account)) as url:
        await refuses_everything(CloudflareDns(DNS_TOKEN, "example.com", f"{url}/client/v4"), "no zone example.com")


async def refuses_everything(names: Dns, words: str) -> None:
    one = a("192.0.2.1", name="ada.example.com")
    for call in (names.put(one), names.look(one.name, one.kind), names.remove(one.name, one.kind), names.all()):
        with pytest.raises(DnsRefused, match=words):
            await call


async def test_nobody_there_is_unreachable() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(DnsUnreachable):
        await CloudflareDns(DNS_TOKEN, ZONE, nobody).look(ADA, RecordType.A)
    connection = HetznerCloud("token", f"{nobody}/v1")
    try:
        with pytest.raises(DnsUnreachable):
            await HetznerDns(connection, ZONE).look(ADA, RecordType.A)
    finally:
        connection.close()


async def test_a_record_behind_cloudflares_proxy_is_taken_out_from_behind_it() -> None:
    async with at_cloudflare() as (names, account):
        await names.put(a("192.0.2.1"))
        (zone,) = [one for one in account.zones.values() if one.name == ZONE]
        for key, one in zone.records.items():
            zone.records[key] = replace(one, proxied=True)
        await names.put(a("192.0.2.1"))
        assert [(one.content, one.proxied) for one in zone.records.values()] == [("192.0.2.1", False)]


async def test_a_name_with_one_address_is_never_without() -> None:
    async with at_cloudflare() as (names, account):
        await names.put(a("192.0.2.1"))
        (zone,) = [one for one in account.zones.values() if one.name == ZONE]
        (before,) = zone.records
        await names.put(a("192.0.2.9"))
        assert list(zone.records) == [before]  # changed, not removed and made


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    for _ in range(200):
        try:
            return await ask()
        except DnsUnreachable:
            continue
    raise AssertionError("never")


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
