"""The small authoritative server, asked by dnspython over its sockets and by bytes that are no question."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine_speed import patient
from tinyfat.dns_server.answering import Records, ServedZone, answer
from tinyfat.dns_server.serving import CONNECTIONS_MAX, dns_served
from tinyfat.domain.names import RecordSet, RecordType

ZONE = "agents.example.org"
KEY = "v=DKIM1; k=rsa; p=" + "M" * 400


def table(*sets: RecordSet) -> Records:
    return {(each.name, each.kind): each for each in sets}


RECORDS = table(
    RecordSet(f"ada.{ZONE}", RecordType.A, ("192.0.2.1", "192.0.2.2")),
    RecordSet(f"ada.{ZONE}", RecordType.AAAA, ("2001:db8::1",)),
    RecordSet(f"www.{ZONE}", RecordType.CNAME, (f"ada.{ZONE}.",)),
    RecordSet(f"out.{ZONE}", RecordType.CNAME, ("elsewhere.example.net.",)),
    RecordSet(f"loop.{ZONE}", RecordType.CNAME, (f"loop.{ZONE}.",)),
    RecordSet(ZONE, RecordType.MX, ("10 mail.example.net.",), 3600),
    RecordSet(f"k._domainkey.{ZONE}", RecordType.TXT, (KEY,)),
    RecordSet(f"odd.{ZONE}", RecordType.TXT, ('say "hi" \\ — ß',)),
    RecordSet(f"big.{ZONE}", RecordType.TXT, tuple(f"{n}" * 200 for n in range(1, 10))),
    RecordSet(f"*.wild.{ZONE}", RecordType.A, ("192.0.2.9",)),
    RecordSet(f"there.wild.{ZONE}", RecordType.AAAA, ("2001:db8::9",)),
    RecordSet(f"below.{ZONE}", RecordType.NS, ("ns1.example.net.",)),
)


def unreadable() -> Records:
    raise OSError("the file is gone")


ZONES = [
    ServedZone(ZONE, lambda: RECORDS, ("ns1.example.org", "ns2.example.org"), serial=7),
    ServedZone("broken.example.org", unreadable),
]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with dns_served(lambda: ZONES, "127.0.0.1", 0) as number:
        yield number


def ask(name: str, kind: str = "A", over_udp: bool = True, **more: object) -> dns.message.Message:
    said = answer(dns.message.make_query(name, kind, **more).to_wire(), ZONES, over_udp)
    assert said is not None
    return dns.message.from_wire(said)


def shown(message: dns.message.Message) -> list[str]:
    return sorted(f"{rrset.name.to_text()} {rdata}" for rrset in message.answer for rdata in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (f"ada.{ZONE}", "A", [f"ada.{ZONE}. 192.0.2.1", f"ada.{ZONE}. 192.0.2.2"]),
        (f"ADA.{ZONE.upper()}", "AAAA", [f"ada.{ZONE}. 2001:db8::1"]),
        (f"www.{ZONE}", "AAAA", [f"ada.{ZONE}. 2001:db8::1", f"www.{ZONE}. ada.{ZONE}."]),
        (f"www.{ZONE}", "CNAME", [f"www.{ZONE}. ada.{ZONE}."]),
        (f"out.{ZONE}", "A", [f"out.{ZONE}. elsewhere.example.net."]),
        (ZONE, "MX", [f"{ZONE}. 10 mail.example.net."]),
        (ZONE, "NS", [f"{ZONE}. ns1.example.org.", f"{ZONE}. ns2.example.org."]),
        (ZONE, "SOA", [f"{ZONE}. ns1.example.org. hostmaster.{ZONE}. 7 3600 600 1209600 60"]),
        (f"x.y.wild.{ZONE}", "A", [f"x.y.wild.{ZONE}. 192.0.2.9"]),
    ],
)
def test_what_is_there(name: str, kind: str, expected: list[str]) -> None:
    message = ask(name, kind)
    assert (message.rcode(), [line.lower() for line in shown(message)]) == (dns.rcode.NOERROR, expected)
    assert message.flags & dns.flags.AA
    assert not message.flags & dns.flags.RA


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        (f"nobody.{ZONE}", "A", dns.rcode.NXDOMAIN),
        (f"x.ada.{ZONE}", "A", dns.rcode.NXDOMAIN),
        (f"ada.{ZONE}", "TXT", dns.rcode.NOERROR),
        (f"_domainkey.{ZONE}", "TXT", dns.rcode.NOERROR),  # between the zone and a name that has records
        (f"ada.{ZONE}", "CAA", dns.rcode.NOERROR),
        (f"there.wild.{ZONE}", "A", dns.rcode.NOERROR),  # a name that is there is not the wildcard's
        (f"x.there.wild.{ZONE}", "A", dns.rcode.NXDOMAIN),
    ],
)
def test_what_is_not_there_is_said_with_the_zones_soa(name: str, kind: str, rcode: int) -> None:
    message = ask(name, kind)
    assert (message.rcode(), message.answer) == (rcode, [])
    assert [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.SOA]


def test_a_delegation_names_the_servers_and_claims_nothing() -> None:
    message = ask(f"deep.below.{ZONE}")
    assert message.rcode() == dns.rcode.NOERROR
    assert not message.flags & dns.flags.AA
    assert message.authority[0].to_text().endswith("IN NS ns1.example.net.")


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("example.com", "A", dns.rcode.REFUSED),
        (f"not{ZONE}", "A", dns.rcode.REFUSED),
        (ZONE, "ANY", dns.rcode.REFUSED),
        (ZONE, "AXFR", dns.rcode.REFUSED),
        (ZONE, "IXFR", dns.rcode.REFUSED),
        ("a.broken.example.org", "A", dns.rcode.SERVFAIL),
    ],
)
def test_what_is_refused(name: str, kind: str, rcode: int) -> None:
    assert ask(name, kind).rcode() == rcode


def test_other_classes_operations_and_versions() -> None:
    assert ask(ZONE, "SOA", rdclass="CH").rcode() == dns.rcode.REFUSED
    assert ask(ZONE, "SOA", use_edns=1).rcode() == dns.rcode.BADVERS
    query = dns.message.make_query(ZONE, "SOA")
    query.set_opcode(4)  # NOTIFY
    said = answer(query.to_wire(), ZONES, True)
    assert said is not None
    assert dns.rcode.from_flags(int.from_bytes(said[2:4], "big"), 0) == dns.rcode.NOTIMP


def test_an_alias_of_itself_ends() -> None:
    assert len(ask(f"loop.{ZONE}").answer) <= 8


def test_long_and_odd_texts_come_whole() -> None:
    for name, text in ((f"k._domainkey.{ZONE}", KEY), (f"odd.{ZONE}", 'say "hi" \\ — ß')):
        (rdata,) = ask(name, "TXT").answer[0]
        assert b"".join(rdata.strings).decode() == text


def test_what_does_not_fit_is_cut_and_says_so() -> None:
    cut = ask(f"big.{ZONE}", "TXT")
    assert cut.flags & dns.flags.TC
    assert cut.answer == []
    assert len(ask(f"big.{ZONE}", "TXT", over_udp=False).answer[0]) == 9
    small = ask(f"k._domainkey.{ZONE}", "TXT", use_edns=0, payload=512)
    assert not small.flags & dns.flags.TC


@given(st.binary(max_size=600))
def test_no_bytes_end_the_server(data: bytes) -> None:
    said = answer(data, ZONES, True)
    assert said is None or len(said) >= 12


@given(st.data())
def test_a_question_with_a_flipped_byte(data: st.DataObject) -> None:
    wire = bytearray(dns.message.make_query(f"ada.{ZONE}", "A", use_edns=0).to_wire())
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    said = answer(bytes(wire), ZONES, True)
    assert said is None or said[:2] == bytes(wire[:2])


def test_answers_are_not_answered() -> None:
    response = dns.message.make_response(dns.message.make_query(ZONE, "SOA")).to_wire()
    assert answer(response, ZONES, True) is None
    assert answer(b"\0" * 11, ZONES, True) is None


async def test_over_udp_and_tcp(port: int) -> None:
    query = dns.message.make_query(f"big.{ZONE}", "TXT")
    message, fell_back = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", 5, port)
    assert fell_back
    assert len(message.answer[0]) == 9


async def test_several_questions_over_one_connection_and_then_rubbish(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wire = dns.message.make_query(f"ada.{ZONE}", "A").to_wire()
    for _ in range(3):
        writer.write(len(wire).to_bytes(2, "big") + wire)
        length = int.from_bytes(await reader.readexactly(2), "big")
        assert len(dns.message.from_wire(await reader.readexactly(length)).answer[0]) == 2
    writer.write(b"\0\5" + b"hello")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_so_many_connections_and_no_more(port: int) -> None:
    open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.read(), patient(5)) == b""
    for _, each in [*open_ones, (reader, writer)]:
        each.close()
        await each.wait_closed()
    message = await dns.asyncquery.udp(dns.message.make_query(ZONE, "SOA"), "127.0.0.1", 5, port)
    assert message.answer


async def test_dig(port: int) -> None:
    """A real client, where there is one."""
    if not any(os.access(f"{folder}/dig", os.X_OK) for folder in os.environ["PATH"].split(":")):
        pytest.skip("dig is not installed (Debian: bind9-dnsutils)")
    argv = ["dig", "@127.0.0.1", "-p", str(port), "+short", "+time=5", "+tries=1", f"ada.{ZONE}", "AAAA"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"2001:db8::1\n"
