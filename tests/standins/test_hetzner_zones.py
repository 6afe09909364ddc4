"""Zones and records, by the API and by DNS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from tests.standins.hetzner_api import ACTION_SECONDS, Api, opened
from tinyfat.dns_server.serving import dns_served
from tinyfat.standins.clock import Clock
from tinyfat.standins.hetzner.cloud import Cloud, Options

ZONE = "example.org"
SETS = f"/zones/{ZONE}/rrsets"
DNS_SECONDS = 30.0


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    options = Options(action_seconds=ACTION_SECONDS, dns_seconds=DNS_SECONDS)
    async with opened(cloud=Cloud(clock=Clock(lambda: 1_800_000_000.0), options=options)) as made:
        await made.post("/zones", name=ZONE, mode="primary", ttl=600, labels={"a": "b"})
        await made.later(ACTION_SECONDS + 1)
        yield made


@pytest.fixture
async def port(api: Api) -> AsyncIterator[int]:
    async with dns_served(api.cloud.published.zones, "127.0.0.1", 0) as number:
        yield number


async def dig(port: int, name: str, kind: str = "A") -> list[str]:
    answer = await dns.asyncquery.udp(dns.message.make_query(name, kind), "127.0.0.1", 5, port)
    if answer.rcode() != dns.rcode.NOERROR:
        return [dns.rcode.to_text(answer.rcode())]
    return sorted(rdata.to_text() for rrset in answer.answer for rdata in rrset)


async def test_a_record_is_answered_for_after_a_while(api: Api, port: int) -> None:
    made = await api.post(SETS, name="ada", type="A", ttl=60, records=[{"value": "192.0.2.1", "comment": "hers"}])
    assert made["rrset"]["records"] == [{"value": "192.0.2.1", "comment": "hers"}]
    await api.later(ACTION_SECONDS + 1)
    assert await dig(port, f"ada.{ZONE}") == ["REFUSED"]  # the zone itself is not known yet
    await api.later(DNS_SECONDS)
    assert await dig(port, f"ada.{ZONE}") == ["192.0.2.1"]

    one = f"{SETS}/ada/A"
    await api.post(f"{one}/actions/set_records", records=[{"value": "192.0.2.2"}])
    await api.post(f"{one}/actions/add_records", records=[{"value": "192.0.2.3"}])
    await api.post(f"{one}/actions/change_ttl", ttl=90)
    await api.post(f"{one}/actions/update_records", records=[{"value": "192.0.2.3", "comment": "spare"}])
    assert (await api.get(one))["rrset"]["ttl"] == 90
    assert await dig(port, f"ada.{ZONE}") == ["192.0.2.1"]
    await api.later(ACTION_SECONDS + 1)
    await api.later(DNS_SECONDS + 1)
    assert await dig(port, f"ada.{ZONE}") == ["192.0.2.2", "192.0.2.3"]

    await api.post(f"{one}/actions/remove_records", records=[{"value": "192.0.2.2"}])
    await api.delete(one)
    await api.later(ACTION_SECONDS + 1)
    await api.later(DNS_SECONDS + 1)
    assert await dig(port, f"ada.{ZONE}") == ["NXDOMAIN"]
    assert await api.refused("GET", one) == (404, "not_found")


async def test_names_and_values_as_zone_files_have_them(api: Api, port: int) -> None:
    for name, kind, value in (
        ("@", "TXT", '"v=spf1 mx -all"'),
        ("long", "TXT", '"' + "a" * 255 + '" "' + "b" * 100 + '"'),
        ("www", "CNAME", "ada"),
        ("@", "MX", "10 mail.example.net."),
        ("*.wild", "AAAA", "2001:db8::1"),
        ("caa", "CAA", '0 issue "letsencrypt.org"'),
    ):
        await api.post(SETS, name=name, type=kind, records=[{"value": value}])
    await api.later(ACTION_SECONDS + 1)
    await api.later(DNS_SECONDS + 1)
    assert await dig(port, ZONE, "TXT") == ['"v=spf1 mx -all"']
    assert await dig(port, f"www.{ZONE}", "CNAME") == [f"ada.{ZONE}."]
    assert await dig(port, ZONE, "MX") == ["10 mail.example.net."]
    assert await dig(port, f"x.wild.{ZONE}", "AAAA") == ["2001:db8::1"]
    assert len((await api.get(f"{SETS}?type=TXT&type=MX&per_page=100"))["rrsets"]) == 3


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"name": f"ada.{ZONE}"}, (422, "invalid_input")),
        ({"name": "Ada"}, (422, "invalid_input")),
        ({"type": "BOGUS"}, (422, "invalid_input")),
        ({"ttl": 59}, (422, "invalid_input")),
        ({"records": []}, (422, "invalid_input")),
        ({"records": [{"value": "192.0.2.1"}, {"value": "192.0.2.1"}]}, (422, "invalid_input")),
        ({"records": [{"value": "not an address"}]}, (422, "invalid_input")),
        ({"type": "TXT", "records": [{"value": "without quotes"}]}, (422, "invalid_input")),
        ({"type": "TXT", "records": [{"value": '"' + "x" * 256 + '"'}]}, (422, "invalid_input")),
        ({"name": "there"}, (409, "uniqueness_error")),
        ({"name": "there", "type": "CNAME", "records": [{"value": "ada"}]}, (422, "invalid_input")),
    ],
)
async def test_records_that_cannot_be(api: Api, body: dict[str, object], refusal: tuple[int, str]) -> None:
    right = {"name": "there", "type": "A", "records": [{"value": "192.0.2.1"}]}
    await api.post(SETS, **right)
    assert await api.refused("POST", SETS, {**right, "name": "ada", **body}) == refusal


async def test_zones(api: Api) -> None:
    assert await api.refused("POST", "/zones", {"name": ZONE, "mode": "primary"}) == (409, "uniqueness_error")
    number = (await api.get(f"/zones?name={ZONE}&mode=primary"))["zones"][0]["id"]
    assert (await api.get(f"/zones/{number}"))["zone"]["record_count"] == 4
    await api.put(f"/zones/{ZONE}", labels={"c": "d"})
    await api.post(f"/zones/{ZONE}/actions/change_ttl", ttl=300)
    await api.post(SETS, name="ada", type="A", records=[{"value": "192.0.2.1", "comment": "hers"}])
    await api.put(f"{SETS}/ada/A", labels={"agent": "ada"})
    text = (await api.get(f"/zones/{ZONE}/zonefile"))["zonefile"]
    assert "$TTL\t300" in text
    assert "ada\tIN\tA\t192.0.2.1 ; hers" in text
    await api.post(f"{SETS}/ada/A/actions/change_protection", change=True)
    assert await api.refused("DELETE", f"{SETS}/ada/A") == (423, "protected")
    assert await api.refused("POST", f"/zones/{ZONE}/actions/import_zonefile", {"zonefile": text}) == (423, "protected")
    await api.post(f"{SETS}/ada/A/actions/change_protection", change=False)
    await api.post(f"/zones/{ZONE}/actions/import_zonefile", zonefile=text)
    again = (await api.get(f"/zones/{ZONE}/zonefile"))["zonefile"]
    assert again.count("\tNS\t") == text.count("\tNS\t") == 3
    assert (await api.get(f"{SETS}/ada/A"))["rrset"]["records"][0]["value"] == "192.0.2.1"
    assert (await api.get(f"/zones/{ZONE}/actions"))["actions"]
    assert (await api.get("/zones/actions"))["actions"]
    await api.post(f"/zones/{ZONE}/actions/change_protection", delete=True)
    assert await api.refused("DELETE", f"/zones/{ZONE}") == (423, "protected")
    await api.post(f"/zones/{ZONE}/actions/change_protection", delete=False)
    await api.delete(f"/zones/{ZONE}")
    assert await api.refused("GET", f"/zones/{ZONE}") == (404, "not_found")
    await api.post("/zones", name="second.example.org", mode="secondary")
    refused = await api.refused("GET", "/zones/second.example.org/rrsets")
    assert refused == (422, "incorrect_zone_mode")
